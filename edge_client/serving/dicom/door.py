"""The door as the service knows it: a node that takes images in, and the outlets of its answers."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fedmedclip.edge_client.serving.dicom.outlet import Archive, Instances, ReportFiles
from fedmedclip.edge_client.serving.dicom.settings import DicomSettings
from fedmedclip.edge_client.serving.outlet import Outlet
from fedmedclip.protocol.errors import InvalidInputError

if TYPE_CHECKING:
    from fedmedclip.edge_client.serving.dicom.node import Accept


class DicomDoor:
    """Hands what comes to `accept`; files are written into `incoming`, the queue's folder for them.

    Raises InvalidInputError where the libraries are missing, and for TLS files that cannot be used.
    """

    def __init__(self, settings: DicomSettings, accept: "Accept", incoming: Path) -> None:
        try:
            from fedmedclip.edge_client.serving.dicom.node import DicomNode
        except ImportError as error:
            raise InvalidInputError(
                f"[dicom] needs {error.name}: pip install 'fedmedclip-edge[serve]'"
            ) from error
        self._settings = settings
        self._node = DicomNode(settings, accept, incoming)

    @property
    def port(self) -> int:
        """The port that the node listens on, once it is started."""
        return self._node.port

    def start(self) -> None:
        """Listen. Raises InvalidInputError when the address cannot be had."""
        self._node.start()

    def stop(self) -> None:
        """Take nothing in any more; return when what was on its way is taken, or 10 s are over."""
        self._node.stop()

    def described(self) -> str:
        """Return one line for the log."""
        settings = self._settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        who = "anybody" if settings.any_peer else f"{len(settings.peers)} peers"
        tls = " with TLS" if settings.certificate_file else ""
        return f"DICOM {settings.ae_title.strip()} on {host}:{self.port}{tls}, for {who}"


def dicom_outlets(settings: DicomSettings) -> list[Outlet]:
    """Return the ways that reports go.

    Raises InvalidInputError for TLS files that cannot be used, and without the library that makes reports.
    """
    wanted = settings.reports is not None or settings.destinations
    if wanted and find_spec("highdicom") is None:
        raise InvalidInputError(
            "[dicom] reports and destinations need highdicom: pip install 'fedmedclip-edge[serve]' on Python "
            "3.11 to 3.13, for which there are wheels; or leave them out"
        )
    if wanted:
        # Now: loading it with the first image in hand takes seconds on a small box.
        import_module("highdicom.sr")
    instances = Instances(settings.secondary_capture)
    found: list[Outlet] = []
    if settings.reports is not None:
        found.append(ReportFiles(Path(settings.reports), instances))
    return found + [Archive(destination, settings, instances) for destination in settings.destinations]
