"""What Prometheus reads of a federation: the numbers of its status, and no more."""

from collections import Counter
from typing import Any, get_args

import msgspec

from fedmedclip.aggregator.status import FederationStatus, Part
from fedmedclip.protocol.exposition import Exposition

PREFIX = "fedmedclip_aggregator"


def metrics_text(status: FederationStatus) -> bytes:
    """Return what is known as metrics named fedmedclip_aggregator_*, in Prometheus' text format.

    Labels are the names of members, of which a roster bounds the number, and words of our own. Raises
    ModuleNotFoundError without prometheus-client.
    """
    told: dict[str, Any] = msgspec.to_builtins(status)
    metrics = Exposition(PREFIX)
    _run(metrics, told)
    _round(metrics, told)
    _members(metrics, told["members"], told["running"])
    _traffic(metrics, told)
    _versions(metrics, told["versions"])
    _certificates(metrics, told["certificates"])
    return metrics.text()


def _run(metrics: Exposition, told: dict[str, Any]) -> None:
    metrics.info(
        "run",
        "The run that goes on.",
        **{name: str(told[name]) for name in ("federation", "run", "begun", "method", "rule")},
    )
    metrics.gauge("up", "1 while the aggregator runs.", told["running"])
    metrics.gauge("version", "Newest version of the global head.", told["version"])
    metrics.gauge("rounds", "Rounds of the run: its last version.", told["rounds"])
    metrics.gauge("finished", "1 when the run is over.", told["finished"])
    metrics.gauge("paused", "1 while the run is paused.", told["paused"])
    metrics.gauge("warnings", "Warnings about the federation's folder.", len(told["warnings"]))


def _round(metrics: Exposition, told: dict[str, Any]) -> None:
    metrics.gauge("updates_delivered", "Updates of the open round that are here.", told["delivered"])
    if told["running"]:
        metrics.gauge("updates_needed", "Updates that the open round takes at least.", told["needed"])
    # 0 rather than no sample: before its first update a round's age is known, and an alert ends.
    seconds = (told["round_seconds"] or 0.0) if told["running"] else None
    metrics.gauge("round_seconds", "Seconds since the open round's first update; 0 before it.", seconds)
    metrics.gauge(
        "round_limit_seconds", "Seconds after which a round closes with the updates that are needed.",
        told["deadline_seconds"],
    )  # fmt: skip


def _members(metrics: Exposition, members: list[dict[str, Any]], running: bool) -> None:
    parts = Counter(member["part"] for member in members)
    for part in get_args(Part):
        metrics.gauge("members", "Members by their part in the open round.", parts[part], part=part)
    for member in members:
        site, part = member["site"], member["part"]
        if part != "unknown":
            metrics.gauge("member_present", "1 unless a member is away.", part != "away", site=site)
        metrics.gauge(
            "member_seconds", "Seconds since a member was heard, or, while it is away, since it went.",
            member["seconds"], site=site,
        )  # fmt: skip
        metrics.gauge(
            "member_version", "Newest version that a member says it holds.", member["version"], site=site
        )
        # Counted by the process: while none runs, 0 would look as if one had begun anew.
        metrics.counter(
            "refused_messages", "Messages of a member that were refused since the aggregator started.",
            member["refused_messages"] if running else None, site=site,
        )  # fmt: skip
        spent = member["privacy"] or {}
        metrics.gauge(
            "member_privacy_spent_epsilon", "What a member says its updates of this run have cost.",
            spent.get("spent"), site=site,
        )  # fmt: skip
        metrics.gauge(
            "member_privacy_epsilon", "What a member's updates of this run may cost.",
            spent.get("epsilon"), site=site,
        )  # fmt: skip


def _traffic(metrics: Exposition, told: dict[str, Any]) -> None:
    metrics.counter("sent_bytes", "MQTT payload bytes sent, in all runs.", told["sent_bytes"])
    metrics.counter("received_bytes", "MQTT payload bytes received, in all runs.", told["received_bytes"])
    if rounds := told["traffic"]:
        newest = rounds[-1]
        for direction in ("sent", "received"):
            metrics.gauge(
                "round_bytes", "MQTT payload bytes of the newest round.", newest[f"{direction}_bytes"],
                direction=direction,
            )  # fmt: skip
    metrics.counter(
        "strangers_refused_messages", "Messages of those who are no members that were refused.",
        told["strangers_refused"],
    )  # fmt: skip
    for flood in told["floods"]:
        metrics.counter(
            "dropped_messages", "Messages that were dropped unread, as somebody sent too many.",
            flood["dropped"], site=flood["site"], kind=flood["kind"],
        )  # fmt: skip


def _versions(metrics: Exposition, versions: list[dict[str, Any]]) -> None:
    """The newest version of which sites shared figures, and the best: a label of its own for each would
    grow without end.
    """
    known = [version for version in versions if version["weighted_mean"] is not None]
    for which, found in (
        ("newest", max(known, key=lambda version: version["version"], default=None)),
        ("best", next((version for version in known if version["best"]), None)),
    ):
        if found is None:
            continue
        metrics.gauge("accuracy_version", "Version that the accuracy is of.", found["version"], which=which)
        metrics.gauge("accuracy_sites", "Sites that shared figures of it.", found["sites"], which=which)
        metrics.gauge(
            "accuracy_weighted_mean", "Mean accuracy at the sites, weighted by their images.",
            found["weighted_mean"], which=which,
        )  # fmt: skip
        metrics.gauge("accuracy_worst", "Accuracy at the worst site.", found["worst"], which=which)


def _certificates(metrics: Exposition, certificates: list[dict[str, Any]]) -> None:
    for certificate in certificates:
        metrics.gauge(
            "certificate_expiry_timestamp_seconds", "When a certificate ends, in seconds since 1970.",
            certificate["ends"], whose=certificate["whose"],
        )  # fmt: skip
