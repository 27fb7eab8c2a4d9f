"""How a federation stands: the run, the open round, and each member with what is waited for and why not."""

from typing import Any

from fedmedclip.aggregator.aggregation import newest_remarks
from fedmedclip.aggregator.attention import LATE_SHARE, needing_attention
from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.federation_status import (
    FederationStatus,
    Flood,
    MemberStatus,
    Part,
    PrivacyAsked,
    PrivacyStatus,
)
from fedmedclip.aggregator.floods import STRANGERS
from fedmedclip.aggregator.metric_warnings import metric_warnings
from fedmedclip.aggregator.rules.rule import Remark
from fedmedclip.aggregator.store import Store
from fedmedclip.aggregator.version_metrics import USUAL_SHARE, version_figures
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.messages import Plan, PrivacySpent

__all__ = [
    "FederationStatus",
    "Flood",
    "MemberStatus",
    "Part",
    "PrivacyAsked",
    "PrivacyStatus",
    "asked_privacy",
    "status_of",
    "stored_status",
]

# Of these, and of rounds, a status shows the newest: a run may have a million.
MOST_ROUNDS = 200


def status_of(coordinator: Coordinator, now: float) -> FederationStatus:
    """Return how the run of a working aggregator stands."""
    plan, head, rounds = coordinator.plan, coordinator.global_head, coordinator.rounds
    software = coordinator.software()
    first = rounds.first_delivery
    judged, spent = _judged(head.remarks()), coordinator.privacy()
    return needing_attention(
        FederationStatus(
            federation=coordinator.federation,
            run=plan.number,
            begun=plan.begun,
            method=plan.method,
            version=head.version,
            rounds=plan.rounds,
            warnings=[
                *coordinator.warnings,
                *filter(None, [coordinator.lacks_consent]),
                *coordinator.metric_warnings(),
            ],
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
            privacy=asked_privacy(plan),
            deadline_seconds=rounds.settings.timeout_seconds,
            certificates=coordinator.certificates,
            strangers_refused=coordinator.refused_messages[STRANGERS],
            strangers_last_refusal=coordinator.last_refusals.get(STRANGERS, ""),
            **_stored_figures(coordinator.store, plan.number, coordinator.maximum_share),
        )
    )


def _stored_figures(store: Store, run: int, maximum_share: float) -> dict[str, Any]:
    """Return what a status has of bytes and versions."""
    sent, received = store.traffic.totals()
    return {
        "sent_bytes": sent,
        "received_bytes": received,
        "traffic": store.traffic.rounds(run)[-MOST_ROUNDS:],
        "versions": version_figures(store, maximum_share)[-MOST_ROUNDS:],
    }


def _judged(remarks: tuple[int, tuple[Remark, ...]]) -> dict[str, str]:
    """Return what a round's rule did to each site, for a person."""
    round_number, of_sites = remarks
    judged: dict[str, list[str]] = {}
    for remark in of_sites:
        judged.setdefault(remark.site, []).append(f"{remark.fate} in round {round_number}: {remark.reason}")
    return {site: "; ".join(sentences) for site, sentences in judged.items()}


def asked_privacy(plan: Plan) -> PrivacyAsked | None:
    """Return what a run asks of every site, None where it asks for nothing."""
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
        return MemberStatus(site, unable.part, reason=unable.reason, software=unable.software)
    member = coordinator.rounds.member(site)
    since = member.left_at if member.heard_at is None else member.heard_at
    part: Part = "awaited" if coordinator.rounds.drawn(site) else "not drawn"
    reason = member.excused
    if unable is not None:
        part, reason = unable.part, unable.reason
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
        coordinator.last_refusals.get(site, ""),
        _late(coordinator, now) if part == "awaited" else None,
    )


def _late(coordinator: Coordinator, now: float) -> float | None:
    """Return how long the open round waits for those that are awaited; None while they are not late."""
    rounds, head = coordinator.rounds, coordinator.global_head
    if rounds.first_delivery is None or head.finished or coordinator.plan.paused:
        return None
    waited = now - rounds.first_delivery
    return round(waited, 1) if waited >= LATE_SHARE * rounds.settings.timeout_seconds else None


def stored_status(store: Store, maximum_share: float = USUAL_SHARE) -> FederationStatus:
    """Return what the state of an aggregator that does not run says.

    Raises InvalidInputError where no run has begun.
    """
    plan, federation = store.plan(), store.federation_name()
    if plan is None:
        raise InvalidInputError("this aggregator has not begun a run")
    version = store.newest_version().version
    judged, quarantined = _judged(newest_remarks(store)), store.quarantined()
    by, spent = store.aggregation(), store.privacy()
    return needing_attention(
        FederationStatus(
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
            privacy=asked_privacy(plan),
            source="state",
            unknown=["who is there, and what members were refused: the aggregator does not run"],
            **_stored_figures(store, plan.number, maximum_share),
        )
    )
