"""What a policy bounds: bytes on a day and in all, and rounds. The site says why, and goes on by itself."""

import time
from datetime import datetime

import msgspec
import pytest

from fedmedclip.edge_client.site.agent import SiteAgent
from fedmedclip.edge_client.site.limits import Contributions, Limits
from fedmedclip.edge_client.site.masked_change import masked_bytes
from fedmedclip.edge_client.site.policy import PolicySettings
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.protocol.messages import BlockRequest, Secure
from fedmedclip.protocol.secure_aggregation.projection import Shared, linear_codec_of, projection_of
from tests.edge_client.site.test_agent import FIRST, LARGE, PLAN, Site
from tests.edge_client.site.test_consent import abstained, updates


class Counted:
    """What has left, as a ledger would say it: (time, bytes)."""

    def __init__(self):
        self.entries = []

    def sent_bytes(self, since=None):
        return sum(size for at, size in self.entries if since is None or at >= since)


class BoundedSite(Site):
    """A site under a policy, with a clock and a count of its own."""

    policy = PolicySettings(approve="automatic")

    def __init__(self, folder, limit=LARGE, **bounds):
        self.policy = PolicySettings(approve="automatic", **bounds)
        self.sent, self.clock = Counted(), datetime(2026, 11, 28, 12).timestamp()
        super().__init__(folder, limit=limit)

    def start(self):
        self.state = SiteState(self.folder / "site.db", durable=False)
        self.agent = SiteAgent(
            self.identity,
            self.state,
            self.learner,
            self.limit,
            self.codec,
            policy=self.policy,
            sent=self.sent,
        )
        self.agent._limits._wall_clock = lambda: self.clock
        self.agent.connected()

    def tick(self, now):
        """Let time pass, and count the updates that leave."""
        messages = self.agent.tick(now)
        for message in messages:
            if updates([message]):
                update = self.state.outgoing_update()
                self.sent.entries.append((self.clock, len(update.payload)))
        return messages

    def settle_and_advance(self, now=0.0):
        self.state.settle(self.version + 1, accepted=True)
        self.agent._delivery.send_at_once()
        self.advance(now)


@pytest.fixture
def size(tmp_path_factory):
    """How many bytes an update of this site has."""
    site = BoundedSite(tmp_path_factory.mktemp("size"))
    site.join()
    site.tick(0.0)
    return site.sent.sent_bytes()


def test_a_day_that_is_used_up_stops_training_and_sending_and_the_next_goes_on(tmp_path, size):
    site = BoundedSite(tmp_path, bytes_per_day=2 * size)
    site.join()
    assert updates(site.tick(0.0)) == [1]
    site.settle_and_advance()
    ((round_number, reason),) = abstained(site.tick(1.0))
    assert round_number == 2
    assert f"bytes_per_day = {2 * size} of this hospital's policy is reached" in reason
    assert site.learner.trained == [1]
    site.advance()
    assert site.agent.version == 2  # it follows all the same
    site.clock += 24 * 3600
    assert updates(site.tick(2.0)) == [3]


def test_what_may_leave_in_all_is_raised_by_the_operator(tmp_path, size):
    site = BoundedSite(tmp_path, bytes_in_all=2 * size)
    site.join()
    site.tick(0.0)
    site.settle_and_advance()
    site.clock += 7 * 24 * 3600
    assert abstained(site.tick(1.0))
    site.policy = PolicySettings(approve="automatic", bytes_in_all=100 * size)
    site.state.close()
    site.start()
    site.tick(2.0)
    site.admit(2.0)
    assert updates(site.tick(3.0)) == [2]


def test_an_update_that_is_too_large_today_is_kept_and_leaves_tomorrow_if_its_round_is_open(tmp_path, size):
    site = BoundedSite(tmp_path, bytes_per_day=2 * size)
    site.sent.entries.append((site.clock, size))
    site.join()
    assert abstained(site.tick(0.0))[0][0] == 1
    assert site.learner.trained == [1]
    assert site.tick(1.0) == []
    site.clock += 24 * 3600
    assert updates(site.tick(2.0)) == [1]
    assert site.learner.trained == [1]


def test_one_whose_round_was_closed_meanwhile_is_dropped_and_gives_back_what_it_owed(tmp_path, size):
    site = BoundedSite(tmp_path, bytes_per_day=2 * size)
    site.sent.entries.append((site.clock, size))
    site.join()
    site.tick(0.0)
    site.advance()
    ((round_number, _),) = abstained(site.tick(1.0))
    assert round_number == 2
    assert site.state.outgoing_update() is None
    assert site.state.load().residual is None
    assert site.state.contributions.count() == 0
    site.clock += 24 * 3600
    assert updates(site.tick(2.0)) == [2]


def test_one_that_was_sent_before_is_not_dropped_whatever_became_of_it(tmp_path, size):
    site = BoundedSite(tmp_path, bytes_per_day=size + 300)
    site.join()
    assert updates(site.tick(0.0)) == [1]
    site.advance()  # without a receipt
    asked = [message for now in range(60, 280, 30) for message in site.tick(float(now))]
    assert len(asked) == len(abstained(asked)) == 1  # and nobody is pressed
    assert site.state.outgoing_update() is not None
    site.clock += 24 * 3600
    assert updates(site.tick(1000.0)) == [1]


def test_rounds_of_all_runs_are_counted_and_one_that_is_sent_again_is_none_more(tmp_path):
    site = BoundedSite(tmp_path, rounds_in_all=2)
    site.join()
    assert updates(site.tick(0.0)) == [1]
    assert updates(site.tick(100.0)) == [1]
    site.settle_and_advance(100.0)
    assert updates(site.tick(101.0)) == [2]
    site.settle_and_advance(101.0)
    ((round_number, reason),) = abstained(site.tick(102.0))
    assert (round_number, site.learner.trained) == (3, [1, 2])
    assert "rounds_in_all = 2 of this hospital's policy is reached" in reason
    site.head, site.version = FIRST, 0
    site.join(200.0, identity=b"n" * 16, number=2, revision=1)
    assert abstained(site.tick(201.0))[0][0] == 1


def test_blocks_that_are_asked_for_leave_only_where_they_may(tmp_path):
    site = BoundedSite(tmp_path, limit=1024, bytes_in_all=100_000)
    site.codec = "lossless"
    site.start()
    site.join()
    (update, *blocks) = site.tick(0.0)
    asked = BlockRequest(update.payload.digest, [0])
    assert site.hear(asked) == blocks[:1]
    site.sent.entries.append((site.clock, 100_000))
    assert site.hear(asked) == []


@pytest.mark.parametrize("codec", ["dense", "subspace", "subspace:rank=8,directions=4"])
@pytest.mark.parametrize("method", ["fedmedclip", "one-message"])
def test_a_masked_update_is_taken_to_be_no_smaller_than_it_is(codec, method):
    secure = Secure(codec, 20, 1000, 1.0, 3)
    plan = msgspec.structs.replace(PLAN, method=method, embedding_size=64, secure=secure)
    specification = shared_head_specification(method, 64, 3)
    taken = masked_bytes(plan, specification)
    head = specification.initial(1)
    for round_number in (1, 2):
        projection = projection_of(linear_codec_of(plan), specification, Shared(round_number, 11, head))
        assert 0.5 * taken <= 4 * (projection.length + 1) <= taken


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", (2026, 3, 29), 23),
        ("Europe/Berlin", (2026, 10, 25), 25),
        ("Asia/Beirut", (2026, 3, 29), 23),  # clocks go on at midnight, which is none
        ("UTC", (2026, 6, 1), 24),
    ],
)
def test_a_day_is_one_of_this_machines_clock(tmp_path, monkeypatch, zone, day, hours):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        noon = datetime(*day, 12).timestamp()
        next_noon = datetime(day[0], day[1], day[2] + 1, 12).timestamp()
        state = SiteState(tmp_path / "site.db", durable=False)
        sent, clock = Counted(), [noon]
        limits = Limits(
            PolicySettings(bytes_per_day=1000), Contributions(state._database), sent, lambda: clock[0]
        )
        first = limits._midnight()
        sent.entries.append((first, 900))
        assert limits.reason_to_keep(200)
        clock[0] = first + hours * 3600 - 1
        assert limits.reason_to_keep(200)
        clock[0] += 1
        assert not limits.reason_to_keep(200)
        assert limits._midnight() - first == hours * 3600
        assert clock[0] < next_noon
    finally:
        monkeypatch.undo()
        time.tzset()
