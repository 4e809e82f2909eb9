"""What the webhook service measures of itself, for Prometheus, by endpoint."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800, 7_200)


class WebhookMetrics:
    """In a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.delivered = self._counter("delivered", "Alerts that the endpoint has taken.")
        self.failed = self._counter("failed", "Alerts that went to webhooks.failed.")
        self.retried = self._counter("retried", "Attempts that failed and are made again.")
        self.passed_over = self._counter("passed_over", "Alerts that the endpoint does not want, or nobody can read.")
        self.lag = self._gauge("lag", "Alerts on the topic that are not finished.")
        self.waiting = self._gauge("waiting", "Alerts in memory: being posted, or waiting for their next attempt.")
        self.open = self._gauge("open", "1 while the circuit breaker lets one attempt at a time through.")
        self.seconds = Histogram(
            "headrace_webhooks_seconds", "From the broker's time of an alert to the answer that took it.",
            ("endpoint",), buckets=BUCKETS, registry=self.registry,
        )  # fmt: skip

    def begin(self, endpoint: str) -> None:
        """Its series are there from the start, at 0."""
        for each in (self.delivered, self.failed, self.retried, self.passed_over, self.lag, self.waiting, self.open):
            each.labels(endpoint)
        self.seconds.labels(endpoint)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"headrace_webhooks_{name}", text, ("endpoint",), registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"headrace_webhooks_{name}", text, ("endpoint",), registry=self.registry)

    def page(self) -> bytes:
        """Prometheus text format 0.0.4."""
        return generate_latest(self.registry)
