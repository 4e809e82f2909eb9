"""Settings of the crash tests: a short session, frequent flushes, and no deadline that a slow machine could miss."""

from collections.abc import Callable
from typing import Any

import pytest

from streams.config import Settings
from tests import shop
from tests.chaos.harness import PATIENT, SESSION_S


@pytest.fixture
def shop_settings(fresh_settings: Callable[..., Settings], registry: Any) -> Callable[..., Settings]:
    """`shop_settings(**over)`: a furnished shop on the shared broker."""

    def make(**over: Any) -> Settings:
        store, _ = shop.releases()
        values: dict[str, Any] = {
            "release_store": store, "deadlines_ms": PATIENT, "session_timeout_s": SESSION_S,
            "commit_interval_s": 1.0, "state": {"flush_interval_s": 0.7}, "batch": {"max_events": 64},
        }  # fmt: skip
        made = fresh_settings(**values | over)
        shop.furnish(made)
        return made

    return make
