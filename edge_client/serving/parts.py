"""What the doors and the outlets are given of the service that they belong to."""

from dataclasses import dataclass
from pathlib import Path

from fedmedclip.edge_client.serving.active import ActiveClassifier
from fedmedclip.edge_client.serving.configuration import ServeConfiguration
from fedmedclip.edge_client.serving.drift.watch import DriftWatch
from fedmedclip.edge_client.serving.figures import Figures
from fedmedclip.edge_client.serving.queue import DurableQueue
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.configuration import beside


@dataclass(frozen=True)
class Parts:
    """The service's configuration with the file that it is from, its state folder, and its parts."""

    configuration: ServeConfiguration
    configuration_file: Path
    state: Path
    bundle: Bundle
    queue: DurableQueue
    active: ActiveClassifier
    figures: Figures
    drift: DriftWatch

    def beside(self, path: str) -> Path:
        """Return a path of the configuration: relative to the folder that its file is in."""
        return beside(self.configuration_file, path)
