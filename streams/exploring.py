"""Tasks as the settings want them: with the key and the shares by which decisions are drawn.
The key is that of the settings, or one that is derived from the installation's own; it is in no source and no topic.
"""

import hashlib

from streams.config import Settings
from streams.privacy.persons import key_of
from streams.security import reveal
from streams.tasks import make_task
from streams.tasks.base import Task
from streams.tasks.exploration import Exploration

PURPOSE = b"exploration"


def exploring_task(settings: Settings, name: str) -> Task:
    """Raises SettingsError."""
    task = make_task(name)
    task.explore(exploration(settings))
    return task


def exploration(settings: Settings) -> Exploration:
    """Without `exploration.key` by `privacy.key`, which all processes share. Raises SettingsError."""
    given = reveal(settings.exploration.key)
    secret = key_of(settings) if given is None else given.encode()
    key = hashlib.blake2b(PURPOSE, key=hashlib.blake2b(secret, digest_size=32).digest(), digest_size=32).digest()
    return Exploration(settings.exploration.share, settings.exploration.uncertain, key)
