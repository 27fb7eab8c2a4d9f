"""Following what is edited in the aggregator's configuration while it runs."""

import logging
from pathlib import Path

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.publishing import Publisher
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.configuration import read_configuration
from fedmedclip.protocol.errors import FedMedClipError

log = logging.getLogger("fedmedclip.aggregator")


class EditedConfiguration:
    """The configuration as it is used: `newest` is that of `file` when it could be used last."""

    def __init__(self, file: Path, newest: AggregatorConfiguration) -> None:
        self._file = file
        self.newest = newest
        self._edited_at = self._modified()

    def reread(self, coordinator: Coordinator, store: Store, publisher: Publisher, now: float) -> None:
        """Take over what was edited in the configuration; what cannot be used changes nothing."""
        if (modified := self._modified()) in (0.0, self._edited_at):
            return
        self._edited_at = modified
        try:
            edited = store.overrides.applied(read_configuration(self._file, AggregatorConfiguration))
            publisher.publish(coordinator.reconfigure(self.newest, edited, now))
            store.describe(
                edited.federation.name,
                {
                    "rounds": edited.federation.rounds,
                    "maximum_update_norm": edited.federation.maximum_update_norm,
                },
            )
            self.newest = edited
            log.info(
                "the configuration was edited and is used; what names another run waits for the "
                "next: fedmedclip control next-run"
            )
        except FedMedClipError as error:
            log.error("the configuration was edited and cannot be used: %s", error)

    def _modified(self) -> float:
        try:
            return self._file.stat().st_mtime
        except OSError:
            return 0.0
