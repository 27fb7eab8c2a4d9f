"""Metrics as members share them, for tests."""

from fedmedclip.aggregator.metrics_table import Shared
from fedmedclip.protocol.messages import Figures, Metrics


def metrics(version, share=None, *, images=100, number=0, active=None, verdict=1):
    """Metrics of an ensemble of this balanced accuracy; None: none is told."""
    figures = None if share is None else Figures(round(200 * share), round(200 * share), 20, 50)
    active = version if active is None else active
    return Metrics(version, number, active, verdict, 400, images, None, None, figures, None, figures, "0.3.0")


def tell(store, site, version, share, *, images=100, **more):
    """Store what a site shares of a version."""
    said = metrics(version, share, images=images, **more)
    return store.metrics.put(site, Shared(said, images, 1.0))


def tell_all(store, versions):
    """Store figures: of each version, from 0 on, those of site-0, site-1 and so on; None: not told."""
    for version, shares in enumerate(versions):
        for index, share in enumerate(shares):
            if share is not None:
                tell(store, f"site-{index}", version, share)
