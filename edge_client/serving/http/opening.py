"""The door in front of the resident service: what it is given of its parts."""

from typing import TYPE_CHECKING

from fedmedclip.edge_client.serving.answer import NOTICE
from fedmedclip.edge_client.serving.figures import SECONDS
from fedmedclip.edge_client.serving.http.backing import Backing, Figures, Model
from fedmedclip.edge_client.serving.http.door import HttpDoor
from fedmedclip.edge_client.serving.http.settings import HttpSettings
from fedmedclip.protocol.private_files import refuse_readers

if TYPE_CHECKING:
    from fedmedclip.edge_client.serving.service import Parts


def http_door(settings: HttpSettings, parts: "Parts") -> HttpDoor:
    """Return the door; its files are named relative to the configuration's folder.

    Raises InvalidInputError for a token or certificates that cannot be used, or a token that others can read.
    """
    if settings.token is not None:
        refuse_readers(parts.configuration_file, "with a token in it, the configuration")

    def fault() -> str:
        # Why is in the log: it names files.
        return "" if parts.active.classifier() else "there are no heads that can be used; the log says why"

    def model() -> Model | None:
        if (classifier := parts.active.classifier()) is None:
            return None
        return Model(
            class_names=list(classifier.class_names),
            provenance=classifier.provenance,
            level=getattr(classifier, "level", None),
            notice=NOTICE,
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
            aside=len(parts.queue.aside()),
            deliveries_waiting=parts.queue.deliveries_waiting(),
            drift={},
        )

    backing = Backing(parts.queue, parts.queue.spool.incoming, fault, model, figures)
    return HttpDoor(settings.relative_to(parts.configuration_file.resolve().parent), backing)
