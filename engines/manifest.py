"""The manifest of a release: what it is, what it takes and gives, and the size and sha256 of each of its
files. It is read strictly: a file from another format, or with a name that leads out of the folder, is
refused by name.
"""

import json
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from engines.base import Signature
from schemas.errors import ReleaseError

FORMAT = 1
MANIFEST = "manifest.json"


class FileEntry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    size: int


class Description(BaseModel):
    """What the maker of a release says of it; the store adds name, time and digests.

    config: sizes of the model (HeadraceConfig). calibration: a, b of sigmoid(a * logit + b). settings: what
    the task needs to decide or to fall back (thresholds, mean, popular items). trained: spans, offsets,
    seeds. metrics: by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    signature: Signature
    config: dict[str, Any]
    calibration: dict[str, float] = {"a": 1.0, "b": 0.0}
    settings: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    trained: dict[str, Any] = {}


class Manifest(Description):
    format: int = FORMAT
    task: str
    version: str
    created_at: str
    files: dict[str, FileEntry]

    @field_validator("files")
    @classmethod
    def names_stay_inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            if not safe(name):
                raise ValueError(f"file name {name!r} leads out of the release or names the manifest")
        return files

    def to_bytes(self) -> bytes:
        """JSON with sorted keys: equal manifests have equal digests."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True).encode()


def safe(name: str) -> bool:
    """Whether a name is a plain relative path inside the folder, written the one canonical way."""
    path = PurePosixPath(name)
    plain = not path.is_absolute() and ".." not in path.parts and "\\" not in name and ":" not in name
    return plain and name == str(path) and name not in ("", ".", MANIFEST) and name.isprintable()


def parse(data: bytes, where: str) -> Manifest:
    """Raises ReleaseError that names the manifest and what is wrong with it."""
    try:
        fields = json.loads(data)
        found = fields.get("format") if isinstance(fields, dict) else None
        if isinstance(found, int) and found > FORMAT:
            raise ReleaseError(
                f"format {found} is newer than this Headrace reads",
                where=where,
                expected=f"format {FORMAT}",
                todo="upgrade Headrace, or serve an older release",
            )
        return Manifest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise damaged(f"{place}: {first['msg']}", where) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise damaged(str(error), where) from error


def damaged(what: str, where: str) -> ReleaseError:
    return ReleaseError(
        f"the manifest cannot be read: {what}",
        where=where,
        expected=f"a release of format {FORMAT}",
        todo="copy the release again from where it was made, or serve an older one",
    )
