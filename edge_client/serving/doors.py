"""Which doors and outlets a configuration asks for. What a door needs is loaded only when it is asked for."""

from typing import TYPE_CHECKING

from fedmedclip.edge_client.serving.door import Door
from fedmedclip.edge_client.serving.figures import SECONDS
from fedmedclip.edge_client.serving.outlet import Outlet
from fedmedclip.edge_client.serving.parts import Parts, Place
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.private_files import refuse_readers

if TYPE_CHECKING:
    from fedmedclip.edge_client.serving.http.backing import Backing


def make_outlets(place: Place, bundle: Bundle) -> list[Outlet]:
    """Return the outlets. Raises InvalidInputError for settings that cannot be used."""
    outlets: list[Outlet] = []
    if (folder := place.configuration.folder) is not None:
        from fedmedclip.edge_client.serving.folder.opening import folder_outlet

        output = None if folder.output is None else place.beside(folder.output)
        names = bundle.manifest.class_names
        outlets.append(folder_outlet(folder, place.beside(folder.path), output, names, place.state))
    if (dicom := place.configuration.dicom) is not None:
        from fedmedclip.edge_client.serving.dicom.door import dicom_outlets

        outlets += dicom_outlets(dicom.relative_to(place.file.resolve().parent))
    return outlets


def make_doors(parts: Parts) -> list[Door]:
    """Return the doors, not yet open. Raises InvalidInputError for settings that cannot be used."""
    doors: list[Door] = []
    if (folder := parts.place.configuration.folder) is not None:
        from fedmedclip.edge_client.serving.folder.opening import folder_door

        doors.append(folder_door(folder, parts.place.beside(folder.path), parts.queue, parts.place.state))
    if (http := parts.place.configuration.http) is not None:
        from fedmedclip.edge_client.serving.http.door import HttpDoor

        if http.token is not None:
            refuse_readers(parts.place.file, "the configuration holds a token, and")
        settings = http.relative_to(parts.place.file.resolve().parent)
        doors.append(HttpDoor(settings, _backing(parts)))
    if (dicom := parts.place.configuration.dicom) is not None:
        from fedmedclip.edge_client.serving.dicom.door import DicomDoor

        resolved = dicom.relative_to(parts.place.file.resolve().parent)
        doors.append(DicomDoor(resolved, parts.queue.accept, parts.queue.incoming))
    return doors


def _backing(parts: Parts) -> "Backing":
    from fedmedclip.edge_client.serving.http.backing import Backing, Figures, Model

    def model() -> Model | None:
        if (classifier := parts.active.classifier()) is None:
            return None
        return Model(
            class_names=list(classifier.class_names), provenance=classifier.provenance, level=classifier.level
        )

    def figures() -> Figures:
        counts = parts.figures.counts()
        return Figures(
            results=counts.results,
            labels=counts.labels,
            seconds=SECONDS,
            waited=counts.waited,
            waited_sum=counts.waited_sum,
            waiting=parts.queue.waiting(),
            aside=parts.queue.count_aside(),
            deliveries_waiting=parts.queue.deliveries_waiting(),
            drift={kind.kind: kind.difference for kind in parts.drift.report().kinds},
        )

    def fault() -> str:
        # Why is in the log: it names files, and who asks for health brings no token.
        return "" if parts.active.classifier() else "there are no heads that can be used; the log says why"

    return Backing(parts.queue, parts.queue.incoming, fault, model, figures)
