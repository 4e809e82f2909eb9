"""The console's own words in the languages it speaks, and times as people write them.
English is in the templates; words/*.json hold the others, by the English sentence.
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

LANGUAGES = ("en", "zh")
DAY_S = 86_400
_NUMBER = re.compile(r"\d[\d.,]*")
_FOLDER = Path(__file__).parent / "words"


@cache
def dictionary(lang: str) -> dict[str, str]:
    """English to `lang`; of several files, words/zh.json and words/zh_*.json. Empty for English."""
    found: dict[str, str] = {}
    for path in sorted(_FOLDER.glob(f"{lang}*.json")):
        found |= json.loads(path.read_text("utf-8"))
    return found


def translator(lang: str) -> Callable[..., str]:
    """`t("{n} open", n=3)`: the words in `lang`, or the English ones where it has none."""
    known = dictionary(lang)

    def translate(english: str, **values: object) -> str:
        said = known.get(english, english)
        return said.format(**values) if values else said

    return translate


def reason(text: str, t: Callable[..., str]) -> str:
    """A reason of the model's, `card used by 3 users`, in the reader's language: its one number stands for itself."""
    found = _NUMBER.search(text)
    if found is None:
        return t(text)
    return t(text[: found.start()] + "{n}" + text[found.end() :], n=found.group())


def instant(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


_UNITS = ((DAY_S, "d", "天"), (3600, "h", "小时"), (60, "min", "分钟"), (1, "s", "秒"))


def duration(seconds: float, lang: str) -> str:
    """The two largest units: 2 h 5 min."""
    said: list[str] = []
    left = int(max(0, seconds))
    for size, english, chinese in _UNITS:
        if left >= size and len(said) < 2:
            said.append(f"{left // size} {chinese if lang == 'zh' else english}")
            left %= size
        elif said:
            break
    return " ".join(said) or ("0 秒" if lang == "zh" else "0 s")


def ago(ms: int, now_ms: int, lang: str) -> str:
    """Past a day the date; to the second it would change while it is read."""
    seconds = (now_ms - ms) / 1000
    if seconds >= DAY_S or seconds < -60:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    if seconds < 60:
        return "刚刚" if lang == "zh" else "just now"
    size, english, chinese = next(unit for unit in _UNITS if seconds >= unit[0])
    return f"{int(seconds // size)} {chinese}前" if lang == "zh" else f"{int(seconds // size)} {english} ago"
