"""UIDs of what we make, from the answer's id: the same by every way, and again after a crash."""

import uuid
from datetime import datetime
from importlib.metadata import version
from uuid import UUID

from fedmedclip.edge_client.serving.answer import Answer

_NAMESPACE = UUID("5f0c9b0e-6a0e-5d55-9b2b-0d0e7c1a5a10")
# What the other side of an association, and the meta information of a file, learn of the software.
IMPLEMENTATION_CLASS_UID = "2.25.154264289687639525664392392649611259587"


def uid_of(answer: Answer, what: str) -> str:
    """Return the UID of a part of an answer: "report", "report series", ...

    It is derived from a UUID (PS3.5 B.2): one of version 5 over the id, of which each is drawn once.
    """
    return f"2.25.{uuid.uuid5(UUID(answer.id), what).int}"


def device_name(answer: Answer) -> str:
    """Return what tells the box from others, as far as it answers otherwise: software, bundle, site."""
    source = answer.provenance
    return f"{source.software} {source.bundle} {source.federation} {source.site}"


def derived_uid(name: str) -> str:
    """Return the UID of what has a name that stands for it alone, such as the device that observes."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"


def implementation_version() -> str:
    """Return the Implementation Version Name, at most 16 characters."""
    return f"FEDMEDCLIP_{version('fedmedclip-edge')}"[:16]


def answered_at(answer: Answer) -> datetime:
    """Return when it was answered, as this machine's clock on the wall shows it."""
    return datetime.fromtimestamp(answer.answered_at)
