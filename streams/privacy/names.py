"""Under which names a user of the shop is forgotten: as they are, or as our topics call them under each key.
Keys change, people ask later: what an older pseudonym has left is theirs as well.
"""

from schemas.registry import Registry
from streams.config import Settings
from streams.privacy.ledger import read_ledger
from streams.privacy.persons import persons
from streams.privacy.places import find
from streams.privacy.pseudonyms import names_of


def forgotten_as(settings: Settings, registry: Registry, user_id: str) -> list[tuple[str, tuple[str, ...]]]:
    """Names, each with what else letters may call them. Of those under keys that are used no more, the ones that
    something is known of, or was. Raises BrokerUnavailable, RegistryUnavailable, SettingsError."""
    named = names_of(settings, user_id)
    known_as = (user_id,) if named != [user_id] else ()
    entries, known = read_ledger(settings, registry).entries, persons(settings)
    old = [name for name in named[1:] if entries.request(known.of(name)) or find(settings, registry, name).values]
    return [(named[0], known_as), *((name, ()) for name in old)]
