"""The command `headrace`, and `python -m streams` where it is not on the path.
It listens to signals before it imports the rest, which takes a second or more.
"""

import sys

from streams.signals import end_at_once


def main() -> None:
    """Entry point of the installed command."""
    end_at_once(sys.argv[1:])
    from streams.cli import main as run  # here, where signals are heard by now

    run()


if __name__ == "__main__":
    main()
