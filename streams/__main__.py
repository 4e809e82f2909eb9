"""`python -m streams` is `headrace`, for where the command is not on the path."""

from streams.cli import main

if __name__ == "__main__":
    main()
