"""Guesses as a file that a person reads: sure lines first, each doubt beside its line, what is missing as comments.
It is TOML, and a mapping as soon as what is marked is answered.
"""

import re
from collections.abc import Sequence

from streams.mapping.document import Format
from streams.mapping.suggest import Guess


def as_toml(source: str, format_: Format, target: str, when: str, guesses: Sequence[Guess], samples: int) -> str:
    name = re.sub(r"[^a-z0-9_-]+", "-", f"{source}-{target}".lower()).strip("-_0123456789") or target
    lines = [
        f"# Suggested from {samples} samples. A ?? marks a guess: look at each, then run `headrace mapping check`.",
        f'name = "{name[:60]}"',
        f'source = "{source}"',
        f'format = "{format_}"',
        f'target = "{target}"',
    ]  # fmt: skip
    if when:
        lines.append(f"when = '{when}'  # ?? the kind of records that fits; the others are left out")
    if format_ == "protobuf":
        lines += ["", "[protobuf]", 'descriptors = "shop.binpb"  # ??', 'message = "shop.Message"  # ??']
    lines += ["", "[fields]", *(line(guess) for guess in guesses)]
    return "\n".join([*lines, "", *_attributes(target)])


def line(guess: Guess) -> str:
    if not guess.toml:
        return f"# {guess.field} = ??  {guess.doubt}"
    return f"{guess.field} = {guess.toml}" + (f"  # ?? {guess.doubt}" if guess.doubt else "")


def _attributes(target: str) -> list[str]:
    if target == "label":
        return []
    return [
        "# What else the model should see, by patterns of paths; nothing that names a person.",
        "# [attributes]",
        '# include = ["basket.*", "utm_*"]',
        "",
    ]
