"""What CEL's own bounds leave open: a value that doubles. An evaluation has a bounded number of steps, but a step may
join two texts, and each `map` may hand twice as much to the next: thirty of them make gigabytes of a letter.
"""

import re

MOST_MAPS = 2
"""Two over an expression of 4,000 characters make 200 MB at the very worst, in a fraction of a second."""
_MAP = re.compile(r"\bmap\b")


def too_much(text: str) -> str:
    """Why an expression may not be used, or nothing. Judged by the words alone: also one in a text counts."""
    count = len(_MAP.findall(text))
    if count > MOST_MAPS:
        return f"it has `map` {count} times, and at most {MOST_MAPS} are allowed: each may double what it is given"
    return ""
