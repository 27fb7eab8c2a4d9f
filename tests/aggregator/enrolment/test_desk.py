"""What the running aggregator does for the folder, without a broker."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.aggregator.enrolment.answers import answer_in
from fedmedclip.aggregator.enrolment.decisions import approve, pending_requests, refuse
from fedmedclip.aggregator.enrolment.desk import ROSTER_SECONDS, Desk
from fedmedclip.aggregator.enrolment.membership import (
    certificates_in_use,
    limit_weight,
    revoke_member,
    rotate_key,
)
from fedmedclip.aggregator.enrolment.newcomers import REQUEST_SECONDS
from fedmedclip.aggregator.enrolment.renewal import waiting_renewals
from fedmedclip.aggregator.register import Register
from fedmedclip.protocol import topics
from fedmedclip.protocol.enrolment.enrolment_topics import enrol, enrolled
from fedmedclip.protocol.enrolment.request import MOST_BYTES
from fedmedclip.protocol.envelope import NO_IDENTITY, seal
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.link.events import Received
from fedmedclip.protocol.messages import ObjectReference, Renewal
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.roster.chain import open_roster
from fedmedclip.protocol.signature import new_signing_key
from tests.aggregator.enrolment.centre import (
    FEDERATION,
    NOW,
    PASSPHRASE,
    Hospital,
    invitation_to,
    join_by_file,
)

MESSAGE_BYTES = 131072


def desk_of(folder, passphrase_file=None, joined=None) -> Desk:
    desk = Desk(folder, passphrase_file, lambda: joined or {})
    desk.connected(0.0)
    return desk


def passphrase_file(folder):
    path = folder.path / "passphrase"
    path.touch(mode=0o600)
    path.write_text(PASSPHRASE + "\n")
    return path


def grow(folder) -> None:
    """Let the roster be too large for a notice."""
    join_by_file(folder, Hospital("hospital-b"))
    for samples in range(30):
        limit_weight(folder, "hospital-b", samples + 1, NOW)


def heard(topic, payload, *, retained=False) -> Received:
    return Received(topic, payload, retained, lambda: None)


def ask(desk, invitation, encoded, now=100.0):
    return desk.hear(heard(enrol(FEDERATION, invitation.number), encoded), now, NOW)


def test_a_request_is_kept_and_answered_when_somebody_decides(folder) -> None:
    invitation, hospital = invitation_to(folder), Hospital()
    desk = desk_of(folder)
    encoded = hospital.request(invitation)
    assert desk.wanted_access(NOW).enrolments == {invitation.number}
    assert ask(desk, invitation, encoded) == []
    assert [item.received.encoded for item in pending_requests(folder)] == [encoded]
    approve(folder, "hospital-a", PASSPHRASE, NOW, approved_by="her")
    news = desk.look(101.0, NOW)
    assert news.roster_changed
    assert news.notice_due
    (answer,) = news.plain
    assert (answer.topic, answer.retain) == (enrolled(FEDERATION, invitation.number), True)
    assert answer_in(answer.payload).accepted
    assert desk.wanted_access(NOW).sites == {"hospital-a"}
    # It may still fetch it, and asking again changes nothing.
    assert desk.wanted_access(NOW).enrolments == {invitation.number}
    assert ask(desk, invitation, encoded, 110.0) == [answer]
    # Another with the same invitation is told; what is retained stays.
    (told,) = ask(desk, invitation, Hospital().request(invitation), 120.0)
    assert not told.retain
    assert "was used or taken back" in answer_in(told.payload).reason
    assert not answer_in(told.payload).accepted


def test_an_answer_is_cleared_when_it_is_fetched_or_its_invitation_has_expired(folder) -> None:
    hospital, joined = Hospital(), {}
    invitation = invitation_to(folder)
    desk = Desk(folder, None, lambda: joined)
    approve(folder, "", PASSPHRASE, NOW, approved_by="her", encoded=hospital.request(invitation))
    (answer,) = desk.look(1.0, NOW).plain
    assert desk.look(2.0, NOW).plain == []
    joined["hospital-a"] = hospital.key.public_key
    (cleared,) = desk.look(3.0, NOW).plain
    assert (cleared.topic, cleared.payload, cleared.retain) == (answer.topic, b"", True)
    assert desk.wanted_access(NOW).enrolments == frozenset()
    # So does one of before this process.
    assert desk.hear(heard(answer.topic, answer.payload, retained=True), 4.0, NOW) == [cleared]
    assert desk.hear(heard(answer.topic, answer.payload), 4.0, NOW) == []
    joined.clear()
    assert desk.look(5.0, NOW).plain == [answer]
    assert desk.look(6.0, NOW + 8 * 86400).plain == [cleared]


def test_what_is_no_request_of_an_open_invitation_is_dropped_and_counted(folder) -> None:
    invitation, other = invitation_to(folder), invitation_to(folder, "hospital-b")
    desk, hospital = desk_of(folder), Hospital()
    for now, topic, payload in (
        (10.0, enrol(FEDERATION, "0123456789abcdef"), hospital.request(invitation)),
        (20.0, enrol(FEDERATION, invitation.number), b"nonsense"),
        (30.0, enrol(FEDERATION, invitation.number), bytes(MOST_BYTES + 1)),
        (40.0, enrol(FEDERATION, invitation.number), hospital.request(other)),
        (50.0, enrol(FEDERATION, "x"), hospital.request(invitation)),
    ):
        assert desk.hear(heard(topic, payload), now, NOW) == []
    assert desk.dropped == 5
    assert pending_requests(folder) == []
    assert "5 requests to join were dropped" in desk.warnings()


def test_a_flood_of_requests_costs_one_look_every_so_often(folder) -> None:
    invitation = invitation_to(folder)
    desk, first = desk_of(folder), Hospital().request(invitation)
    ask(desk, invitation, first)
    for number in range(50):
        ask(desk, invitation, Hospital().request(invitation), 100.0 + number * REQUEST_SECONDS / 51)
    assert [item.received.encoded for item in pending_requests(folder)] == [first]
    assert desk.dropped == 50


def test_a_wrong_clock_is_told_to_the_newcomer(folder) -> None:
    invitation = invitation_to(folder)
    (told,) = ask(desk_of(folder), invitation, Hospital().request(invitation, NOW + 7200))
    assert "one clock is wrong" in answer_in(told.payload).reason
    assert not told.retain


def test_an_invitation_that_is_taken_back_is_let_in_no_more(folder) -> None:
    invitation = invitation_to(folder)
    desk = desk_of(folder)
    refuse(folder, invitation.number, NOW, "")
    assert desk.look(1.0, NOW).plain == []
    assert desk.wanted_access(NOW).enrolments == frozenset()


def test_who_is_revoked_is_a_member_no_more_at_the_next_look(folder) -> None:
    hospital = Hospital()
    join_by_file(folder, hospital)
    desk = desk_of(folder)
    assert desk.register.key("hospital-a") == hospital.key.public_key
    revoke_member(folder, "hospital-a", "left", NOW)
    assert desk.look(1.0, NOW).roster_changed
    assert desk.register.key("hospital-a") is None
    assert "revoked by the coordinator: left" in desk.register.why_not("hospital-a")
    assert desk.wanted_access(NOW).sites == frozenset()
    assert "revocation list lacks certificates of hospital-a" in desk.warnings()[0]


def test_with_the_passphrase_revocations_and_renewals_need_nobody(folder) -> None:
    join_by_file(folder, Hospital())
    join_by_file(folder, Hospital("hospital-b"))
    desk = desk_of(folder, passphrase_file(folder))
    revoke_member(folder, "hospital-b", "left", NOW)
    desk.look(1.0, NOW)
    assert desk.warnings() == []
    assert desk.renew("hospital-a", request := Hospital().certificate_request(), NOW) is None
    news = desk.look(2.0, NOW)
    ((topic, renewal),) = news.messages
    assert topic == topics.down(FEDERATION, "hospital-a")
    assert isinstance(renewal, Renewal)
    assert desk.renew("hospital-a", request, NOW) == renewal
    assert len(certificates_in_use(folder.roster())) == 2


def test_without_it_they_wait_and_are_named(folder) -> None:
    join_by_file(folder, Hospital())
    desk = desk_of(folder)
    assert desk.renew("hospital-a", Hospital().certificate_request(), NOW) is None
    assert waiting_renewals(folder) == ["hospital-a"]
    assert "waiting for a certificate: hospital-a" in desk.warnings()[0]
    with pytest.raises(InvalidInputError):
        desk.renew("hospital-a", b"nonsense", NOW)


def test_a_certificate_that_ends_is_named_months_ahead(folder) -> None:
    desk = desk_of(folder)
    desk.look(1.0, NOW)
    assert desk.warnings() == []
    desk.look(4000.0, NOW + 300 * 86400)
    assert "the certificate of the aggregator ends at" in desk.warnings()[0]


def test_the_key_follows_a_rotation(folder) -> None:
    desk = desk_of(folder)
    rotate_key(folder, NOW)
    assert desk.look(1.0, NOW).roster_changed
    assert desk.key.public_key == folder.roster().coordinator_key


def test_a_folder_that_was_damaged_changes_nothing(folder) -> None:
    hospital = Hospital()
    join_by_file(folder, hospital)
    desk, whole = desk_of(folder), folder.roster_file.read_bytes()
    for damaged in (b"", whole[:-1], open_roster(whole).records[0].body):
        folder.roster_file.write_bytes(damaged)
        assert not desk.look(1.0, NOW).roster_changed
        assert desk.register.key("hospital-a") == hospital.key.public_key


def test_the_roster_is_published_once_the_brokers_had_time_to_come(folder) -> None:
    desk = desk_of(folder)
    assert not desk.look(ROSTER_SECONDS / 2, NOW).notice_due
    assert desk.look(ROSTER_SECONDS, NOW).notice_due
    assert not desk.look(10.0, NOW).notice_due
    desk.connected(20.0)
    assert desk.look(20.0 + ROSTER_SECONDS, NOW).notice_due


def test_a_longer_roster_at_the_broker_is_taken_back(folder) -> None:
    """A backup was restored that knows nothing of the last revocation."""
    topic = topics.roster(FEDERATION)
    join_by_file(folder, Hospital())
    restored = folder.roster_file.read_bytes()
    revoke_member(folder, "hospital-a", "left", NOW)
    longer = folder.roster()
    payload = seal(Register(longer).notice(MESSAGE_BYTES), topic, folder.key(), NO_IDENTITY)
    write_new_file(folder.roster_file, restored)
    desk = desk_of(folder)
    stranger = seal(Register(longer).notice(MESSAGE_BYTES), topic, new_signing_key(), NO_IDENTITY)
    for nothing in (b"", b"nonsense", stranger):
        desk.hear_notice(topic, nothing)
    assert not desk.look(0.5, NOW).roster_changed
    desk.hear_notice(topic, payload)
    assert desk.look(0.6, NOW).roster_changed
    assert folder.roster().encoded == longer.encoded
    assert desk.register.key("hospital-a") is None


def test_one_that_cannot_be_taken_back_ends_the_aggregator(folder) -> None:
    """To go on would let in whom the lost records revoked."""
    topic = topics.roster(FEDERATION)
    join_by_file(folder, Hospital())
    restored = folder.roster_file.read_bytes()
    revoke_member(folder, "hospital-a", "left", NOW)
    other = seal(Register(folder.roster()).notice(MESSAGE_BYTES), topic, folder.key(), NO_IDENTITY)
    grow(folder)
    notice = Register(folder.roster()).notice(MESSAGE_BYTES)
    assert isinstance(notice.payload, ObjectReference)
    large = seal(notice, topic, folder.key(), NO_IDENTITY)
    write_new_file(folder.roster_file, restored)
    with pytest.raises(InvalidInputError, match="too large to come with its notice"):
        desk_of(folder).hear_notice(topic, large)
    limit_weight(folder, "hospital-a", 5, NOW)
    desk_of(folder).hear_notice(topic, other)  # as long as ours: nothing is lost by it
    write_new_file(folder.roster_file, restored)
    join_by_file(folder, Hospital("hospital-z"))
    limit_weight(folder, "hospital-z", 5, NOW)
    longer = seal(Register(folder.roster()).notice(MESSAGE_BYTES), topic, folder.key(), NO_IDENTITY)
    write_new_file(folder.roster_file, restored)
    limit_weight(folder, "hospital-a", 5, NOW)
    with pytest.raises(InvalidInputError, match="another history"):
        desk_of(folder).hear_notice(topic, longer)


def test_blocks_of_a_large_roster_are_given(folder) -> None:
    grow(folder)
    register = Register(folder.roster())
    notice = register.notice(2048)
    blocks = register.blocks(notice.payload.digest, list(range(99)), 2048)
    assert b"".join(block.data for block in blocks) == folder.roster_file.read_bytes()
    assert register.blocks(bytes(32), [0], 2048) is None


@given(topic=st.sampled_from([enrol, enrolled]), level=st.text(max_size=20), payload=st.binary(max_size=5000))
@settings(max_examples=60, deadline=None)
def test_whatever_comes_ends_nothing_and_leaves_nothing(founded, topic, level, payload) -> None:
    desk = desk_of(founded)
    assert desk.hear(heard(topic(FEDERATION, level), payload), 10.0, NOW) == []
    desk.hear_notice(topics.roster(FEDERATION), payload)
    assert pending_requests(founded) == []
    assert len(founded.roster().records) == 1
