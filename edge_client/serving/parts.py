"""What the doors and the outlets are given of the service that they belong to."""

from dataclasses import dataclass
from pathlib import Path

from fedmedclip.edge_client.serving.active import ActiveClassifier
from fedmedclip.edge_client.serving.configuration import ServeConfiguration
from fedmedclip.edge_client.serving.drift.watch import DriftWatch
from fedmedclip.edge_client.serving.figures import Figures
from fedmedclip.edge_client.serving.queue import DurableQueue
from fedmedclip.edge_client.versions.recent import RecentImages
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.configuration import beside


@dataclass(frozen=True)
class Place:
    """Where a service is: its configuration with the `file` that it is from, and its `state` folder."""

    configuration: ServeConfiguration
    file: Path

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.beside(self.configuration.serve.state)

    def beside(self, path: str) -> Path:
        """Return a path of the configuration: relative to the folder that its file is in."""
        return beside(self.file, path)


@dataclass(frozen=True)
class Parts:
    """What works together in a service."""

    place: Place
    bundle: Bundle
    queue: DurableQueue
    active: ActiveClassifier
    figures: Figures
    drift: DriftWatch
    recent: RecentImages | None
