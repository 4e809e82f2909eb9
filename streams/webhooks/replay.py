"""Posting by hand: failed alerts once more, and an alert that was made up, to see whether an endpoint takes it.
One attempt each: who asks sees at once what comes of it.
"""

import asyncio
import difflib
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field

from schemas.errors import BadRecord, SettingsError
from schemas.values import from_json
from schemas.wire import Decoder
from streams.config import Settings
from streams.config_sections import Endpoint
from streams.webhooks.body import CONTRACT, delivery
from streams.webhooks.failures import Failure
from streams.webhooks.policy import Answer
from streams.webhooks.schedule import Delivery
from streams.webhooks.sender import Sender
from streams.webhooks.signing import read_secrets

TEST_ORDER = "headrace-test"


@dataclass(slots=True)
class Replayed:
    """`stay`: id and reason of those that were not taken."""

    posted: int = 0
    stay: list[tuple[str, str]] = field(default_factory=list)


def endpoint_named(settings: Settings, name: str) -> Endpoint:
    """SettingsError, with the nearest name, where the settings have none of this one."""
    known = {each.name: each for each in settings.webhooks.endpoints}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    raise SettingsError(
        f"there is no endpoint {name}",
        where="webhooks.endpoints",
        expected=f"{near[0]}, as the nearest name" if near else ", ".join(known) or "one at least",
    )


def made_up_alert(endpoint: Endpoint, now_ms: int) -> Delivery:
    """An order that nobody placed, as the endpoint would get it."""
    alert = from_json(
        CONTRACT,
        {
            "alert_id": TEST_ORDER, "order_id": TEST_ORDER, "event_id": TEST_ORDER, "user_id": TEST_ORDER,
            "event_time": now_ms, "raised_at": now_ms, "policy_version": "test", "release": "test",
            "probability": 0.5, "decision": endpoint.decisions[0], "reasons": ["a test: no order was placed"],
        },
    )  # fmt: skip
    return delivery(endpoint.name, alert, b"", ("test", 0, now_ms), now_ms)


def post_test(settings: Settings, name: str, now_ms: int) -> Answer:
    """What the endpoint answers to a test alert. SettingsError."""

    async def post() -> Answer:
        endpoint = endpoint_named(settings, name)
        async with aclosing(_sender(settings, endpoint)) as sender:
            return await sender.post(made_up_alert(endpoint, now_ms))

    return asyncio.run(post())


def replay(
    settings: Settings, decode: Decoder, failures: Iterable[Failure], taken: Callable[[Failure], None]
) -> Replayed:
    """Posts each once; `taken` is told what was. decode: for fraud_alert. An endpoint that does not answer is not
    asked again. Raises SettingsError, RegistryUnavailable and what `taken` does."""
    return asyncio.run(_replay(settings, decode, failures, taken))


async def _replay(
    settings: Settings, decode: Decoder, failures: Iterable[Failure], taken: Callable[[Failure], None]
) -> Replayed:
    done, senders, silent = Replayed(), dict[str, Sender](), dict[str, str]()
    try:
        for failure in failures:
            name = failure.record["endpoint"]
            if name in silent:
                done.stay.append((failure.id, f"not tried again: {silent[name]}"))
                continue
            try:
                if name not in senders:
                    senders[name] = _sender(settings, endpoint_named(settings, name))
                answer = await senders[name].post(_again(failure, decode))
            except (SettingsError, BadRecord) as error:
                done.stay.append((failure.id, str(error)))
                continue
            if answer.meaning == "delivered":
                taken(failure)
                done.posted += 1
                continue
            done.stay.append((failure.id, answer.reason))
            if answer.meaning == "again":
                silent[name] = answer.reason
    finally:
        for sender in senders.values():
            await sender.aclose()
    return done


def _again(failure: Failure, decode: Decoder) -> Delivery:
    """As the service made it, under the same delivery id."""
    record = failure.record
    made = delivery(record["endpoint"], decode(record["alert"]), record["alert"], ("", 0, 0))
    made.id = record["delivery"]
    return made


def _sender(settings: Settings, endpoint: Endpoint) -> Sender:
    return Sender(endpoint, read_secrets(endpoint), settings.webhooks.timeout_s, settings.webhooks.in_flight)
