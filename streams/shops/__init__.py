"""`headrace worker --shops`: one command serves several shops, each by a worker in a process and a session of its own.
The parent reads no topic: it starts, keeps, restarts and ends them, and tells the kernel what share each has.
"""
