"""The MQTT topics of a federation, version 1. `docs/protocol.md` lists them with QoS and retention.

Those by which a site becomes a member are in `protocol.enrolment.enrolment_topics`.

| topic                              | from       | holds                                         |
|------------------------------------|------------|-----------------------------------------------|
| `fmc1/{federation}/plan`           | aggregator | `Plan`, retained                              |
| `fmc1/{federation}/head`           | aggregator | `Announcement` of the newest version, retained|
| `fmc1/{federation}/blocks`         | aggregator | `Block`s of what the announcement refers to   |
| `fmc1/{federation}/up/{site}`      | site       | everything that a site sends                  |
| `fmc1/{federation}/down/{site}`    | aggregator | answers to one site                           |
| `fmc1/{federation}/status/{site}`  | site       | `Status`, retained, also as last will         |
| `fmc1/{federation}/roster`         | aggregator | `RosterNotice`: who is a member, retained     |
"""

import re

from fedmedclip.protocol.errors import InvalidInputError

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


# Of other parties, of topics, and of what `aggregator` and `doctor` call themselves at the broker.
RESERVED_SITES = frozenset(
    {
        "aggregator",
        "coordinator",
        "broker",
        "doctor",
        "plan",
        "head",
        "blocks",
        "up",
        "down",
        "status",
        "roster",
    }
    | {"enrol", "enrolled"}
)
_RESERVED_START = "enrol-"


def check_name(kind: str, name: str) -> str:
    """Return `name` when it may stand in a topic; raise InvalidInputError otherwise.

    A site may not be called what would let it pass for another party, or for a topic of the federation.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"{kind} name {name!r} is not usable: 1 to 32 of a-z, 0-9, '-' and '_', first a letter or digit"
        )
    if kind == "site" and (name in RESERVED_SITES or name.startswith(_RESERVED_START)):
        raise InvalidInputError(
            f"site name {name!r} is reserved for the federation itself; take another, such as 'site-{name}' "
            "(a site that had it joins anew under another name, with its key and its state)"
        )
    return name


def plan(federation: str) -> str:
    """Topic of the retained plan."""
    return f"fmc1/{federation}/plan"


def head(federation: str) -> str:
    """Topic of the retained announcement of the newest head."""
    return f"fmc1/{federation}/head"


def blocks(federation: str) -> str:
    """Topic of the blocks of an announced head that is too large for one message."""
    return f"fmc1/{federation}/blocks"


def up(federation: str, site: str) -> str:
    """Topic on which one site speaks to the aggregator; `+` stands for all sites."""
    return f"fmc1/{federation}/up/{site}"


def down(federation: str, site: str) -> str:
    """Topic on which the aggregator answers one site."""
    return f"fmc1/{federation}/down/{site}"


def status(federation: str, site: str) -> str:
    """Topic of a site's retained status and last will; `+` stands for all sites."""
    return f"fmc1/{federation}/status/{site}"


def roster(federation: str) -> str:
    """Topic of the retained notice of the roster."""
    return f"fmc1/{federation}/roster"


def channel_of(topic: str) -> str:
    """Return which of these topics it is, the word in its third place, such as `plan` or `up`."""
    return topic.split("/")[2] if topic.count("/") >= 2 else ""


def site_of(topic: str) -> str:
    """Return the site named by an `up`, `down` or `status` topic."""
    return topic.rsplit("/", 1)[-1]
