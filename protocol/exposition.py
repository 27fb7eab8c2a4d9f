"""Numbers as Prometheus reads them: its text format 0.0.4, made by prometheus-client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fedmedclip.protocol.visible import visible

if TYPE_CHECKING:
    from prometheus_client.core import Metric

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Exposition:
    """Gathers metrics whose names begin with `prefix`; `text` is what is read.

    A value of None is one that is not known: then there is no sample, which is what Prometheus expects.
    """

    def __init__(self, prefix: str) -> None:
        """Begin. Raises ModuleNotFoundError without prometheus-client."""
        from prometheus_client import core

        self._kinds = core
        self._prefix = prefix
        self._families: dict[str, Metric] = {}

    def gauge(self, name: str, meaning: str, value: float | None, **labels: str) -> None:
        """Add what goes up and down."""
        self._add(self._kinds.GaugeMetricFamily, name, meaning, value, labels)

    def counter(self, name: str, meaning: str, value: float | None, **labels: str) -> None:
        """Add what only grows; its name gets the ending `_total`."""
        self._add(self._kinds.CounterMetricFamily, name, meaning, value, labels)

    def info(self, name: str, meaning: str, **labels: str) -> None:
        """Add words, as labels of a sample that is 1; its name gets the ending `_info`."""
        shown = {label: visible(value) for label, value in labels.items()}
        family = self._kinds.InfoMetricFamily(f"{self._prefix}_{name}", meaning, shown)
        self._families[name] = family

    def text(self) -> bytes:
        """Return all of it."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collected(self._families.values()))
        return generate_latest(registry)

    def _add(
        self, kind: type[Metric], name: str, meaning: str, value: float | None, labels: dict[str, str]
    ) -> None:
        if value is None:
            return
        if name not in self._families:
            self._families[name] = kind(f"{self._prefix}_{name}", meaning, labels=tuple(labels))  # type: ignore[call-arg]
        self._families[name].add_metric([visible(text) for text in labels.values()], float(value))  # type: ignore[attr-defined]


class _Collected:
    """What a registry asks for its metrics."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> list[Metric]:
        """Return them."""
        return self._families
