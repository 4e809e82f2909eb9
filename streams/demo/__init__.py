"""`headrace demo`: everything on this machine, on a real shop's data, shown live in a terminal.
It stands above all else and adds nothing to how events are scored: the worker it starts is the ordinary one.
"""

from streams.demo.play import run

__all__ = ["run"]
