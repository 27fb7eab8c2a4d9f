"""How a federation stands: the run, the open round, and each member with what is waited for and why not."""

from typing import Literal

import msgspec

from fedmedclip.aggregator.aggregation import newest_remarks
from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.metric_warnings import metric_warnings
from fedmedclip.aggregator.rules.rule import Remark
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.messages import Plan, PrivacySpent

Part = Literal[
    "delivered", "awaited", "excused", "quarantined", "not drawn", "away", "unable", "here", "unknown"
]


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
    in quarantine or unable, `software` which version of this software it said it runs. `last_round` says what
    the rule did to its update in the round that made the newest version; empty where it counted whole, or had
    none. Who said that it cannot take part is listed, member or not. `privacy` is what the site says that its
    updates of this run have cost.
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
    open round where the aggregator runs; `warnings` are of the federation's folder, and of what sites share
    of its versions; `privacy` is what the run asks for. Where it does not run, members' parts are unknown.
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


def status_of(coordinator: Coordinator, now: float) -> FederationStatus:
    """Return how the run of a working aggregator stands."""
    plan, head, rounds = coordinator.plan, coordinator.global_head, coordinator.rounds
    software = coordinator.software()
    first = rounds.first_delivery
    judged, spent = _judged(head.remarks()), coordinator.privacy()
    return FederationStatus(
        federation=coordinator.federation,
        run=plan.number,
        begun=plan.begun,
        method=plan.method,
        version=head.version,
        rounds=plan.rounds,
        warnings=[*coordinator.warnings, *coordinator.metric_warnings()],
        running=True,
        paused=plan.paused,
        finished=head.finished,
        needed=rounds.needed(),
        delivered=len(rounds.delivered),
        round_seconds=None if first is None else round(now - first, 1),
        members=[
            _member(coordinator, site, now, software.get(site, ""), judged.get(site, ""), spent.get(site))
            for site in sorted(rounds.members | coordinator.unable.keys())
        ],
        floods=[Flood(*found) for found in coordinator.floods.dropped()],
        rule=head.rule.name,
        privacy=_asked(plan),
    )


def _judged(remarks: tuple[int, tuple[Remark, ...]]) -> dict[str, str]:
    """Return what a round's rule did to each site, for a person."""
    round_number, of_sites = remarks
    judged: dict[str, list[str]] = {}
    for remark in of_sites:
        judged.setdefault(remark.site, []).append(f"{remark.fate} in round {round_number}: {remark.reason}")
    return {site: "; ".join(sentences) for site, sentences in judged.items()}


def _asked(plan: Plan) -> PrivacyAsked | None:
    terms = plan.privacy
    return None if terms is None else PrivacyAsked(terms.epsilon, terms.delta, terms.unit)


def _privacy(spent: PrivacySpent | None) -> PrivacyStatus | None:
    if spent is None:
        return None
    remaining = max(0.0, spent.epsilon - spent.spent)
    return PrivacyStatus(spent.cost, spent.spent, spent.epsilon, spent.delta, remaining)


def _member(
    coordinator: Coordinator,
    site: str,
    now: float,
    software: str,
    last_round: str,
    spent: PrivacySpent | None,
) -> MemberStatus:
    unable = coordinator.unable.get(site)
    if site not in coordinator.rounds.members:
        assert unable is not None
        return MemberStatus(site, "unable", reason=unable.reason, software=unable.software)
    member = coordinator.rounds.member(site)
    since = member.left_at if member.heard_at is None else member.heard_at
    part: Part = "awaited" if coordinator.rounds.drawn(site) else "not drawn"
    reason = member.excused
    if unable is not None:
        part, reason = "unable", unable.reason
    elif (quarantine := coordinator.quarantined.get(site)) is not None:
        part, reason = "quarantined", quarantine.reason
    elif member.delivered:
        part = "delivered"
    elif member.excused:
        part = "excused"
    elif member.heard_at is None:
        part = "away"
    elif coordinator.global_head.finished:
        part = "here"
    return MemberStatus(
        site,
        part,
        None if since is None else round(now - since, 1),
        coordinator.versions_held.get(site),
        reason,
        coordinator.refused_messages[site],
        software,
        last_round,
        _privacy(spent),
    )


def stored_status(store: Store) -> FederationStatus:
    """Return what the state of an aggregator that does not run says.

    Raises InvalidInputError where no run has begun.
    """
    plan, federation = store.plan(), store.federation_name()
    if plan is None:
        raise InvalidInputError("this aggregator has not begun a run")
    version = store.newest_version().version
    judged, quarantined = _judged(newest_remarks(store)), store.quarantined()
    by, spent = store.aggregation(), store.privacy()
    return FederationStatus(
        federation=federation or "?",
        run=plan.number,
        begun=plan.begun,
        method=plan.method,
        version=version,
        rounds=plan.rounds,
        running=False,
        paused=plan.paused,
        finished=version >= plan.rounds,
        needed=0,
        delivered=len({site for site, _ in store.stored_updates()}),
        round_seconds=None,
        members=[
            MemberStatus(
                site,
                "quarantined" if site in quarantined else "unknown",
                reason=quarantined[site].reason if site in quarantined else "",
                software=software,
                last_round=judged.get(site, ""),
                privacy=_privacy(spent.get(site)),
            )
            for site, software in sorted(store.software().items())
        ],
        rule="" if by is None else by.rule,
        warnings=metric_warnings(store),
        privacy=_asked(plan),
    )
