"""A change at the command line goes into the audit log before it is made, as one in the console does.
Where it cannot be written, the change is not made."""

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from schemas.registry import Registry
    from streams.config import Settings


def write_down(settings: "Settings", registry: "Registry", action: str, subject: str, **detail: Any) -> str:
    """Call it just before the change; the pseudonym of who makes it. Raises what `Audit.append` raises.

    `action` as the console calls it, such as `release.promote`; `subject` is what is changed.
    """
    from streams.audit.log import Audit
    from streams.audit.pseudonyms import shell_user

    return Audit(settings, registry).append(shell_user(), action, subject, detail, time.time_ns() // 1_000_000).who
