"""What Prometheus reads of a federation."""

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedmedclip.aggregator.certificate_end import CertificateEnd
from fedmedclip.aggregator.prometheus import metrics_text
from fedmedclip.aggregator.status import FederationStatus, Flood, MemberStatus, PrivacyStatus, stored_status
from fedmedclip.aggregator.traffic import RoundTraffic
from fedmedclip.aggregator.version_metrics import VersionFigures
from tests.simulation.federation.loopback import Loopback

MEMBERS = [
    MemberStatus("north", "delivered", 3.0, 4, refused_messages=2),
    MemberStatus("south", "away", 90_000.0, 3, privacy=PrivacyStatus(0.5, 2.0, 8.0, 1e-5, 6.0)),
]
STATUS = FederationStatus(
    federation="thorax", run=2, begun="2026-03-01", method="fedmedclip", version=4, rounds=10, running=True,
    paused=False, finished=False, needed=2, delivered=1, round_seconds=None, members=MEMBERS,
    floods=[Flood("", "joins", 7)], rule="weighted_mean",
)  # fmt: skip


def samples(text):
    """Return the value of each sample by its name and labels, as a reader of the format finds them."""
    return {
        (sample.name.removeprefix("fedmedclip_aggregator_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_it_has_the_run_the_round_and_the_members():
    found = samples(metrics_text(STATUS))
    assert found["run_info", "2026-03-01", "thorax", "fedmedclip", "weighted_mean", "2"] == 1
    for name, value in {
        ("up",): 1, ("version",): 4, ("rounds",): 10, ("paused",): 0, ("updates_needed",): 2,
        ("updates_delivered",): 1, ("round_seconds",): 0, ("members", "delivered"): 1, ("members", "away"): 1,
        ("members", "excused"): 0, ("member_present", "north"): 1, ("member_present", "south"): 0,
        ("member_seconds", "south"): 90_000, ("member_version", "north"): 4,
        ("refused_messages_total", "north"): 2, ("member_privacy_spent_epsilon", "south"): 2,
    }.items():  # fmt: skip
        assert found[name] == value, name
    assert ("member_privacy_spent_epsilon", "north") not in found
    assert found["dropped_messages_total", "joins", ""] == 7


def version(number, mean, worst, best=False):
    return VersionFigures(
        version=number, sites=3, weighted_mean=mean, worst_site="south", worst=worst, best=best
    )


def test_it_has_bytes_accuracy_and_certificates_where_the_status_knows_them():
    newer = msgspec.structs.replace(
        STATUS,
        deadline_seconds=600.0,
        sent_bytes=1000,
        received_bytes=2000,
        strangers_refused=5,
        traffic=[RoundTraffic(4, 10, 20)],
        versions=[version(3, 0.8, 0.7, best=True), version(4, 0.75, 0.6), version(5, None, None)],
        certificates=[CertificateEnd("north", 1_800_000_000.0)],
    )
    found = samples(metrics_text(newer))
    for name, value in {
        ("round_limit_seconds",): 600, ("sent_bytes_total",): 1000, ("received_bytes_total",): 2000,
        ("strangers_refused_messages_total",): 5, ("round_bytes", "received"): 20,
        ("accuracy_version", "newest"): 4, ("accuracy_weighted_mean", "newest"): 0.75,
        ("accuracy_worst", "best"): 0.7, ("accuracy_version", "best"): 3,
        ("certificate_expiry_timestamp_seconds", "north"): 1_800_000_000,
    }.items():  # fmt: skip
        assert found[name] == value, name


def test_of_an_aggregator_that_does_not_run_it_says_so_and_invents_nothing(tmp_path):
    federation = Loopback(tmp_path, sites=2, rounds=3, minimum_sites=2)
    while federation.coordinator.global_head.version < 1:
        federation.step()
    found = samples(metrics_text(stored_status(federation.store)))
    assert found["up",] == 0
    assert found["version",] >= 1
    assert not {name for name, *_ in found} & {
        "member_present",
        "round_seconds",
        "updates_needed",
        "refused_messages_total",
    }


@pytest.mark.parametrize("name", ['a"b\\c', "new\nline", "\udce9", "\u202e"])
def test_no_name_breaks_the_text(name):
    status = msgspec.structs.replace(STATUS, members=[MemberStatus(name, "away")], federation=name)
    assert ("member_present" in {key[0] for key in samples(metrics_text(status))}) is True
