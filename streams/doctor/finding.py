"""What a check has found: one sentence, and what to do where something is wrong."""

from dataclasses import dataclass
from typing import Literal, Self

from schemas.errors import HeadraceError

State = Literal["well", "warning", "problem", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem stops a worker or loses something; a warning is worth a look; `todo` is empty where all is well."""

    check: str
    state: State
    says: str
    todo: str = ""

    @classmethod
    def of(cls, check: str, error: HeadraceError) -> Self:
        what = f"{error.what} ({error.where})" if error.where else error.what
        return cls(check, "problem", what, error.todo or (f"expected: {error.expected}" if error.expected else ""))
