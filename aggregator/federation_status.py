"""What a status of a federation holds: for the command line, the page, and programs that read its JSON."""

from typing import Literal

import msgspec

from fedmedclip.aggregator.certificate_end import CertificateEnd
from fedmedclip.aggregator.traffic import RoundTraffic
from fedmedclip.aggregator.version_metrics import VersionFigures

Part = Literal[
    "delivered",
    "awaited",
    "excused",
    "quarantined",
    "not drawn",
    "away",
    "unable",
    "here",
    "unknown",
    "awaits consent",
    "refused",
]


Source = Literal["aggregator", "state", "broker"]


class PrivacyStatus(msgspec.Struct, frozen=True):
    """What a site's privacy has cost: its last update by itself, and all of the run, at `delta`.

    Of `epsilon`, which it spends at most, `remaining` is left.
    """

    cost: float
    spent: float
    epsilon: float
    delta: float
    remaining: float


class MemberStatus(msgspec.Struct, frozen=True):
    """A member and its part in the open round, `here` where none is open any more.

    `seconds` have passed since it was last heard, or, while it is away, since it went (None: not heard since
    the aggregator started). `version` is the newest that it said it holds. `reason` says why it is excused,
    in quarantine, unable, or has refused the plan, `software` which version of this software it said it runs.
    `last_round` says what the rule did to its update in the round that made the newest version; empty where
    it counted whole, or had none. Who said that it cannot take part is listed, member or not. `privacy` is
    what the site says that its updates of this run have cost. `last_refusal` says why the newest of its
    messages that were refused was; the round has waited `late_seconds` for one that is late.
    """

    site: str
    part: Part
    seconds: float | None = None
    version: int | None = None
    reason: str = ""
    refused_messages: int = 0
    software: str = ""
    last_round: str = ""
    privacy: PrivacyStatus | None = None
    last_refusal: str = ""
    late_seconds: float | None = None


class Flood(msgspec.Struct, frozen=True):
    """What was dropped since the aggregator started because somebody sent too much of it. `site` is empty for
    those who are no members.
    """

    site: str
    kind: str
    dropped: int


class PrivacyAsked(msgspec.Struct, frozen=True):
    """What a run asks of every site: (`epsilon`, `delta`) per `unit`, an image or a patient."""

    epsilon: float
    delta: float
    unit: str


class FederationStatus(msgspec.Struct, frozen=True):
    """Where a run stands. `round_seconds` have passed since the open round's first update, if one is there;
    it closes with `needed` updates at least. `rule` is the aggregation rule of the newest version, or of the
    open round where the aggregator runs; `warnings` are of the federation's folder; `privacy` is what the run
    asks for. Where it does not run, members' parts are unknown.

    `source` says who tells: the aggregator itself, its state while it does not run, or what the broker
    retains, and then `signed_by` whose key that bears; `unknown` says what the source cannot know.
    `deadline_seconds` is the time limit of a round. Bytes are MQTT payload of the aggregator, in all runs;
    `traffic` has those of the newest rounds of this one. `versions` are the newest of which sites shared
    figures. `strangers_refused` counts messages of those who are no members. `attention` says, a sentence
    each, what somebody should look at; empty where the run goes on or is over as it should.
    """

    federation: str
    run: int
    begun: str
    method: str
    version: int
    rounds: int
    running: bool
    paused: bool
    finished: bool
    needed: int
    delivered: int
    round_seconds: float | None
    members: list[MemberStatus]
    floods: list[Flood] = []
    rule: str = ""
    warnings: list[str] = []
    privacy: PrivacyAsked | None = None
    source: Source = "aggregator"
    deadline_seconds: float | None = None
    sent_bytes: int = 0
    received_bytes: int = 0
    traffic: list[RoundTraffic] = []
    versions: list[VersionFigures] = []
    certificates: list[CertificateEnd] = []
    strangers_refused: int = 0
    strangers_last_refusal: str = ""
    unknown: list[str] = []
    signed_by: str = ""
    attention: list[str] = []
