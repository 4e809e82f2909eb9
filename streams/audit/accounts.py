"""Changes of accounts into the audit log: from the queue beside the accounts, in their order, each at least once.
One that was sent by a process which then died comes twice, with the same `change` in its detail."""

from schemas.errors import HeadraceError
from streams.access.accounts import Accounts
from streams.audit.log import Audit


def send_changes(accounts: Accounts, audit: Audit, now_ms: int) -> int:
    """How many were sent. One that cannot be sent stays, and what `Audit.append` raises is raised.

    The entry's time is that of the change. Its subject is a user, by pseudonym, as is who did it.
    """
    count = 0
    while (change := accounts.changes.claim(now_ms)) is not None:
        subject = f"user {audit.pseudonyms.of(change.subject)}"
        try:
            audit.append(change.who, change.action, subject, {**change.detail, "change": change.id}, change.at)
        except HeadraceError:
            accounts.changes.release(change)
            raise
        accounts.changes.sent(change)
        count += 1
    return count
