"""What a night has published, written down: a night whose folder is kept can be judged again, though its load is gone.
As JSON, for the checker goes by ids, times and values of labels alone; amounts become text.
"""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "published.json"


@dataclass(frozen=True, slots=True)
class Published:
    """sent: records by the setting of their topic, in order. poison: what nobody can use."""

    sent: list[tuple[str, dict[str, Any]]]
    poison: list[bytes]

    def write(self, folder: Path) -> None:
        poison = [base64.b64encode(value).decode() for value in self.poison]
        (folder / FILE).write_text(json.dumps({"sent": self.sent, "poison": poison}, default=str), "utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Published":
        """OSError where no night has come to its morning there."""
        found = json.loads((folder / FILE).read_text("utf-8"))
        sent = [(topic, record) for topic, record in found["sent"]]
        return cls(sent, [base64.b64decode(value) for value in found["poison"]])
