"""An archive that receives reports by C-STORE, and now and then refuses one, or takes it and says nothing."""

import logging
import random
from collections import defaultdict
from contextlib import suppress
from threading import Lock
from typing import Any

from pynetdicom import AE, StoragePresentationContexts, evt

AE_TITLE = "ARCHIVE"
_BUSY = 0xA700


class Archive:
    """Listens on a free port until it is closed. `refuses` and `is_mute` are how often it does so."""

    def __init__(self, seed: int = 0, refuses: float = 0.005, is_mute: float = 0.005) -> None:
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
        self._chance = random.Random(seed)
        self._refuses, self._is_mute = refuses, is_mute
        self._lock = Lock()
        self._reports: defaultdict[str, list[str]] = defaultdict(list)
        entity = AE(ae_title=AE_TITLE)
        entity.supported_contexts = StoragePresentationContexts
        server = entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        assert server is not None
        self._server = server
        self.port: int = server.server_address[1]

    def reports(self) -> dict[str, list[str]]:
        """Return the SOP Instance UIDs of all reports that came, by their image's; one may come again."""
        with self._lock:
            return {image: list(reports) for image, reports in self._reports.items()}

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()

    def _store(self, event: Any) -> int:
        with self._lock:
            if self._chance.random() < self._refuses:
                return _BUSY
            report = event.dataset
            evidence = report.CurrentRequestedProcedureEvidenceSequence[0]
            image = evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            self._reports[str(image)].append(str(report.SOPInstanceUID))
            mute = self._chance.random() < self._is_mute
        if mute:
            with suppress(Exception):
                event.assoc.abort()
        return 0x0000
