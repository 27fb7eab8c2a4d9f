"""`GET /metrics`: what service and door count, as Prometheus reads it; no names, no images, no ids."""

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedmedclip.edge_client.serving.http.backing import Backing

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The registry of one door; `application` counts the requests that pass through it."""

    def __init__(self, backing: Backing) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_OfService(backing))
        self._requests = Counter(
            "fedmedclip_http_requests", "HTTP requests by route and status.", ["route", "status"],
            registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "fedmedclip_http_seconds", "Seconds from a request's header to the end of its answer.", ["route"],
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip

    def text(self) -> bytes:
        """Return all numbers in Prometheus' text format."""
        return generate_latest(self._registry)

    def counting(self, app: ASGIApp, route_of: Callable[[str], str]) -> ASGIApp:
        """Return an application that counts what passes through `app`; `route_of` a path is bounded."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            began, status = time.perf_counter(), 500

            async def send_and_look(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, send_and_look)
            finally:
                route = route_of(scope["path"])
                self._requests.labels(route, str(status)).inc()
                self._seconds.labels(route).observe(time.perf_counter() - began)

        return application


class _OfService(Collector):
    """Reads the service's numbers whenever somebody asks."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    def describe(self) -> list[Metric]:
        """Return nothing, so that the service is not asked before it has begun."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        figures, model = self._backing.figures(), self._backing.model()
        results = CounterMetricFamily(
            "fedmedclip_results", "Images by door and outcome.", labels=["door", "outcome"]
        )
        for (door, outcome), count in sorted(figures.results.items()):
            results.add_metric([door, outcome], count)
        yield results
        yield _counts("fedmedclip_labels", "Answered images by class.", "label", figures.labels)
        waited = HistogramMetricFamily(
            "fedmedclip_answer_seconds", "Seconds from a file's acceptance to its answer."
        )
        ends = [*map(str, figures.seconds), "+Inf"]
        waited.add_metric([], list(zip(ends, accumulate(figures.waited), strict=True)), figures.waited_sum)
        yield waited
        yield GaugeMetricFamily("fedmedclip_waiting", "Files without an answer yet.", figures.waiting)
        yield GaugeMetricFamily("fedmedclip_aside", "Files that were put aside.", figures.aside)
        yield _gauges(
            "fedmedclip_deliveries_waiting", "Deliveries to do, by outlet.", "outlet",
            figures.deliveries_waiting,
        )  # fmt: skip
        yield _gauges(
            "fedmedclip_drift", "How far the images are from those of training, by what was measured.",
            "measured", figures.drift,
        )  # fmt: skip
        yield GaugeMetricFamily("fedmedclip_ready", "1 while images are answered.", not self._backing.fault())
        if model is not None:
            version = model.provenance.head_version
            info = {
                "software": model.provenance.software,
                "bundle": model.provenance.bundle[:12],
                "head_version": "" if version is None else str(version),
            }
            yield InfoMetricFamily("fedmedclip_model", "What answers now.", info)


def _counts(name: str, meaning: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family


def _gauges(name: str, meaning: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family
