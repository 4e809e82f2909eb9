"""The same job in other ways of doing it, each a process of its own: see job for what the job is."""
