"""A shop's own topics in Headrace's contracts: a TOML file says how, and a process of its own re-publishes them.
Nothing here scores: what is mapped lies on `events.*` like any client's events, and goes the same way.
"""
