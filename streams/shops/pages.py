"""What the parent says of its shops: /healthz, /readyz and /metrics, on `shops_web`.
Whether a shop is ready its own worker knows; it is asked each time.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from streams.shops.kept import Kept
from streams.web import METRICS_TYPE

ASK_S = 2.0


class ShopMetrics(Collector):
    """Read off the shops when the page is asked for."""

    def __init__(self, shops: Sequence[Kept]) -> None:
        self._shops = shops
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("headrace_shop_up", "1 while the shop's worker runs.", labels=["shop"])
        share = GaugeMetricFamily("headrace_shop_share", "Of the processor, beside the others.", labels=["shop"])
        restarts = CounterMetricFamily("headrace_shop_restarts", "Ends of its worker, unasked.", labels=["shop"])
        for shop in self._shops:
            up.add_metric([shop.name], shop.state == "runs")
            restarts.add_metric([shop.name], shop.restarts)
            if shop.shop is not None:
                share.add_metric([shop.name], shop.shop.share)
        yield from (up, share, restarts)

    def page(self) -> bytes:
        """Prometheus text format 0.0.4."""
        return generate_latest(self.registry)


def application(shops: Sequence[Kept], words: str) -> web.Application:
    """`words`: how shares are kept."""
    metrics = ShopMetrics(shops)

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"live": True, "shares": words})

    async def readyz(_: web.Request) -> web.Response:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_S)) as session:
            said = await asyncio.gather(*(_said(session, shop) for shop in shops))
        ready = all(each["ready"] for each in said)
        found = {shop.name: each for shop, each in zip(shops, said, strict=True)}
        return web.json_response({"ready": ready, "shops": found}, status=200 if ready else 503)

    async def page(_: web.Request) -> web.Response:
        return web.Response(body=metrics.page(), headers={"Content-Type": METRICS_TYPE})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", page)
    return app


async def _said(session: aiohttp.ClientSession, kept: Kept) -> dict[str, Any]:
    """Of one shop: what its worker says, and where it has none, why."""
    lacks = [kept.why] if kept.why else []
    said: dict[str, Any] = {"ready": False, "state": kept.state, "restarts": kept.restarts, "missing": lacks}
    if kept.shop is None or kept.pid is None:
        return said
    said |= {"pid": kept.pid, "pages": kept.shop.address}
    try:
        async with session.get(f"http://{kept.shop.address}/readyz") as answer:
            own = await answer.json()
            return said | {"ready": bool(own["ready"]), "missing": list(own["missing"])}
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError):
        return said | {"missing": ["its pages do not answer yet"]}
