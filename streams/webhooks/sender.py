"""Posts deliveries to one endpoint over HTTP, signed, and says what came of each; it decides nothing.
Redirects are not followed, cookies are not kept, and of an answer only the beginning is read.
"""

import time
from collections.abc import Callable, Sequence

import aiohttp

from streams.config_sections import Endpoint
from streams.webhooks.policy import Answer, retry_after
from streams.webhooks.schedule import Delivery
from streams.webhooks.signing import signature

SIGNATURE, ALERT_ID, DELIVERY = "Headrace-Signature", "Headrace-Alert-Id", "Headrace-Delivery"
AGENT = "Headrace-Webhooks/1"
ANSWER_BYTES = 1_000
CONNECT_SHARE = 0.5  # of the time an attempt may take


class Sender:
    """Used from one event loop, and made in it. Close it."""

    def __init__(
        self,
        endpoint: Endpoint,
        secrets: Sequence[bytes],
        timeout_s: float,
        in_flight: int,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint, self._secrets, self._timeout_s, self._now_s = endpoint, secrets, timeout_s, now_s
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=in_flight),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=timeout_s, connect=timeout_s * CONNECT_SHARE),
            headers={"User-Agent": AGENT, "Content-Type": "application/json"},
            trust_env=False,
        )

    async def aclose(self) -> None:
        await self._session.close()

    async def post(self, delivery: Delivery) -> Answer:
        """One attempt. Raises nothing that an endpoint can cause."""
        began = time.monotonic()
        try:
            async with self._session.post(
                self._endpoint.url, data=delivery.body, headers=self._headers(delivery), allow_redirects=False
            ) as answer:
                text = (await answer.content.read(ANSWER_BYTES)).decode("utf-8", "replace")
                wait_s = retry_after(answer.headers, self._now_s())
                return Answer(answer.status, body=text, retry_after_s=wait_s, seconds=time.monotonic() - began)
        except TimeoutError:
            error = f"no answer in {self._timeout_s:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as failed:  # ValueError: what is no HTTP at all
            error = f"{type(failed).__name__}: {failed}".rstrip(": ")
        return Answer(None, error, seconds=time.monotonic() - began)

    def _headers(self, delivery: Delivery) -> dict[str, str]:
        return {
            SIGNATURE: signature(delivery.body, self._secrets, int(self._now_s())),
            ALERT_ID: delivery.alert_id,
            DELIVERY: delivery.id,
        }
