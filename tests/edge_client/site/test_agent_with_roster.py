"""A site in a federation with a roster: it follows the coordinator's new key, and nobody else's."""

import msgspec
import pytest

from fedmedclip.edge_client.site.agent import SiteAgent, keep_no_record
from fedmedclip.edge_client.site.membership import Membership
from fedmedclip.edge_client.site.policy import AUTOMATIC, PolicySettings
from fedmedclip.edge_client.site.roster_follower import RosterFollower
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import NO_IDENTITY, seal
from fedmedclip.protocol.messages import Join, Renewal, RosterNotice, Update
from fedmedclip.protocol.roster.chain import found
from fedmedclip.protocol.roster.entries import Admitted, KeyRotated, Revoked
from fedmedclip.protocol.signature import new_signing_key
from tests.edge_client.site.test_agent import FEDERATION, KEY, SITE_KEY, Site

NEXT = new_signing_key()
FOUNDED = found(FEDERATION, bytes(32), KEY, 1)
ADMITTED = FOUNDED.with_entry(Admitted("site-a", SITE_KEY.public_key, bytes(32), 2**33, 100, "Ada"), KEY, 2)
ROTATED = ADMITTED.with_entry(KeyRotated(NEXT.public_key), KEY, 3, new_key=NEXT)


class Member(Site):
    policy = AUTOMATIC
    note = staticmethod(keep_no_record)

    def start(self):
        self.state = SiteState(self.folder / "site.db", durable=False)
        follower = RosterFollower(self.folder / "roster", FEDERATION, "site-a", KEY.public_key)
        self.agent = SiteAgent(
            self.identity,
            self.state,
            self.learner,
            self.limit,
            self.codec,
            membership=Membership(follower, None),
            note=self.note,
            policy=self.policy,
        )
        self.agent.connected()

    def hear_roster(self, roster, key=KEY, now=0.0):
        notice = RosterNotice(len(roster.records), roster.encoded)
        topic = topics.roster(FEDERATION)
        return self.agent.receive(topic, seal(notice, topic, key, NO_IDENTITY), now)


@pytest.fixture
def site(tmp_path):
    return Member(tmp_path)


def test_after_a_rotation_it_goes_on_in_the_same_run_with_the_new_key(site):
    site.hear_roster(ADMITTED)
    site.join()
    assert any(isinstance(message, Update) for message in site.agent.tick(0.0))
    site.settle(1)
    site.hear_roster(ROTATED, NEXT)

    revised = {"aggregator_key": NEXT.public_key, "revision": site.plan.revision + 1}
    site.hear_plan(key=NEXT, **revised)
    head = topics.head(FEDERATION)
    site.hear(site.announcement(), topic=head, key=NEXT)

    assert site.agent.version == 1
    assert site.learner.trained == [1]
    assert site.state.load().plan.aggregator_key == NEXT.public_key


def test_what_the_old_key_signs_counts_no_more(site):
    site.hear_roster(ADMITTED)
    site.join()
    site.hear_roster(ROTATED, NEXT)
    refused = site.agent.refused_messages
    site.hear(site.announcement(), topic=topics.head(FEDERATION), key=KEY)
    site.hear_plan(key=KEY, revision=site.plan.revision + 5)

    assert site.agent.version == 0
    assert site.agent.refused_messages == refused + 2


def test_a_plan_of_a_key_that_the_roster_does_not_lead_to_is_refused(site):
    site.hear_roster(ADMITTED)
    site.join()
    stranger = new_signing_key()
    site.hear_plan(key=stranger, aggregator_key=stranger.public_key, revision=site.plan.revision + 1)
    assert site.state.load().plan.aggregator_key == KEY.public_key


def test_a_restart_remembers_the_rotation(site):
    site.hear_roster(ROTATED, NEXT)
    site.state.close()
    site.start()
    site.plan = msgspec.structs.replace(site.plan, aggregator_key=NEXT.public_key)
    site.hear_plan(key=KEY, aggregator_key=KEY.public_key)
    assert site.agent.plan_identity == NO_IDENTITY
    site.hear_plan(key=NEXT)
    assert site.agent.plan_identity == site.plan.identity


def test_who_was_refused_asks_again_as_soon_as_the_roster_has_it(site):
    site.hear_roster(FOUNDED)
    site.hear_plan()
    site.answer(accepted=False, reason="not in the roster")
    assert site.agent.tick(30.0) == []
    site.hear_roster(ADMITTED, now=31.0)
    asked = [message for now in (31.0, 35.0, 52.0) for message in site.agent.tick(now)]
    assert any(isinstance(message, Join) for message in asked)


def test_a_roster_of_somebody_else_is_refused_and_nothing_ends(site):
    stranger = new_signing_key()
    site.hear_roster(found(FEDERATION, bytes(32), stranger, 1), stranger)
    site.join()
    assert site.agent.joined


def test_whose_keys_may_be_in_a_sum_the_roster_says(site):
    key_of = site.agent._masking._key_of
    assert key_of("site-a") is None
    site.hear_roster(ADMITTED)
    assert key_of("site-a") == SITE_KEY.public_key
    assert key_of("site-b") is None
    revoked = ADMITTED.with_entry(Revoked("site-a", "it left"), KEY, 3)
    site.hear_roster(revoked)
    assert key_of("site-a") is None


class WaitingMember(Member):
    """A member whose operator has not decided; what it acts on is noted."""

    policy = PolicySettings()

    def note(self, topic, payload, message, now):
        self.noted.append(type(message).__name__)


def test_what_keeps_a_waiting_member_one_is_on_record_before_it_is_acted_on(tmp_path):
    WaitingMember.noted = []
    site = WaitingMember(tmp_path)
    site.hear_roster(ADMITTED)
    site.hear_plan()
    site.agent.tick(0.0)
    assert site.agent.plan_identity == site.plan.identity
    site.hear(site.announcement(), topic=topics.head(FEDERATION))
    site.hear(Renewal(b"a certificate"), topic=topics.down(FEDERATION, "site-a"))
    assert site.noted[-1] == "Renewal"
    assert "Announcement" not in site.noted
