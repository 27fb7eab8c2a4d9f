"""Who may do what at the broker, as roles of Mosquitto's plugin for dynamic security.

Each client has a role of its own: a change of a role ends the connections of all that hold it. Subscriptions
are allowed to the very topics, not to patterns, so a wildcard is refused whatever it covers.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

# Kinds of access of the plugin (mosquitto.org/documentation/dynamic-security).
SEND, RECEIVE = "publishClientSend", "publishClientReceive"
SUBSCRIBE, SUBSCRIBE_BELOW = "subscribeLiteral", "subscribePattern"
CONTROL_TOPIC = "$CONTROL/dynamic-security/v1"
RESPONSE_TOPIC = f"{CONTROL_TOPIC}/response"
AGGREGATOR = "aggregator"
# What every member of a federation reads.
FOR_MEMBERS = ("plan", "head", "blocks", "roster")


@dataclass(frozen=True)
class Role:
    """A client, the name of its role, and the pairs of kind of access and topic that it allows."""

    client: str
    name: str
    allowed: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class WantedAccess:
    """Who is to get through to the broker, beside the aggregator: sites, and open invitations by their id."""

    sites: frozenset[str] = field(default_factory=frozenset)
    enrolments: frozenset[str] = field(default_factory=frozenset)


def aggregator_role(federation: str) -> Role:
    """All topics of the federation, and the plugin itself."""
    everything = [f"fmc1/{federation}/#", f"{CONTROL_TOPIC.removesuffix('/v1')}/#"]
    allowed = {(kind, topic) for kind in (SEND, RECEIVE, SUBSCRIBE_BELOW) for topic in everything}
    return Role(AGGREGATOR, f"{role_prefix(federation)}{AGGREGATOR}", frozenset(allowed))


def site_role(federation: str, site: str) -> Role:
    """What a member reads and writes, and the doctor's topic, where it tries what the broker keeps."""
    base = f"fmc1/{federation}"
    reads = [*(f"{base}/{topic}" for topic in FOR_MEMBERS), f"{base}/down/{site}", f"{base}/doctor/{site}"]
    writes = [f"{base}/{topic}/{site}" for topic in ("up", "status", "doctor")]
    return Role(site, f"{role_prefix(federation)}site/{site}", _allowed(reads, writes))


def enrolment_role(federation: str, invitation: str) -> Role:
    """What the holder of an invitation may do: hand in a request, and read what became of it."""
    base = f"fmc1/{federation}"
    allowed = _allowed([f"{base}/enrolled/{invitation}"], [f"{base}/enrol/{invitation}"])
    return Role(f"enrol-{invitation}", f"{role_prefix(federation)}enrol/{invitation}", allowed)


def wanted_roles(federation: str, wanted: WantedAccess) -> dict[str, Role]:
    """Return the roles that the broker is to have, by the client's name."""
    roles: Iterable[Role] = [
        *(enrolment_role(federation, invitation) for invitation in sorted(wanted.enrolments)),
        *(site_role(federation, site) for site in sorted(wanted.sites)),
        # Last, so that no site takes its name.
        aggregator_role(federation),
    ]
    return {role.client: role for role in roles}


def role_prefix(federation: str) -> str:
    """Return how the names of a federation's roles begin: others at the broker are not its own to change."""
    return f"fmc1/{federation}/"


def rules_of(role: Role) -> list[dict[str, object]]:
    """Return the role's rules as the plugin writes them."""
    return [
        {"acltype": kind, "topic": topic, "priority": 0, "allow": True}
        for kind, topic in sorted(role.allowed)
    ]


def _allowed(reads: list[str], writes: list[str]) -> frozenset[tuple[str, str]]:
    reading = {(kind, topic) for kind in (RECEIVE, SUBSCRIBE) for topic in reads}
    return frozenset(reading | {(SEND, topic) for topic in writes})
