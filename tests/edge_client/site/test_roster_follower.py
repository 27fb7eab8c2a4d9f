"""A site takes the coordinator's roster, and nobody else's."""

from pathlib import Path

import pytest

from fedmedclip.edge_client.site.roster_follower import RosterFollower
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import NO_IDENTITY, Envelope, open_envelope, seal
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.messages import BlockRequest, RosterNotice
from fedmedclip.protocol.objects import blocks_of, refer_to
from fedmedclip.protocol.roster.chain import Roster, found
from fedmedclip.protocol.roster.entries import Admitted, KeyRotated, Revoked
from fedmedclip.protocol.signature import SigningKey, new_signing_key

COORDINATOR, NEXT, STRANGER = new_signing_key(), new_signing_key(), new_signing_key()
FOUNDED = found("brain-mri", bytes(32), COORDINATOR, 1)
LIMIT = 4096


def with_site(roster: Roster, site: str, key: SigningKey = COORDINATOR) -> Roster:
    entry = Admitted(site, new_signing_key().public_key, bytes(32), 2**33, 400, "Ada")
    return roster.with_entry(entry, key, 2)


def notice(
    roster: Roster, key: SigningKey = COORDINATOR, *, limit: int = LIMIT
) -> tuple[Envelope, RosterNotice]:
    message = RosterNotice(len(roster.records), refer_to(roster.encoded, limit))
    topic = topics.roster("brain-mri")
    return open_envelope(seal(message, topic, key, NO_IDENTITY), topic), message


@pytest.fixture
def follower(tmp_path: Path) -> RosterFollower:
    return RosterFollower(tmp_path / "roster", "brain-mri", "hospital-a", COORDINATOR.public_key)


def test_a_roster_is_kept_across_a_restart(tmp_path: Path, follower: RosterFollower) -> None:
    roster = with_site(FOUNDED, "hospital-a")
    follower.take(*notice(roster))

    again = RosterFollower(tmp_path / "roster", "brain-mri", "hospital-a", COORDINATOR.public_key)
    assert again.roster == roster


def test_after_a_rotation_the_new_key_is_the_coordinators(follower: RosterFollower) -> None:
    roster = with_site(FOUNDED, "hospital-a")
    follower.take(*notice(roster))
    rotated = roster.with_entry(KeyRotated(NEXT.public_key), COORDINATOR, 3, new_key=NEXT)

    with pytest.raises(MessageError):
        follower.take(*notice(rotated, COORDINATOR))
    follower.take(*notice(rotated, NEXT))

    assert follower.coordinator_key == NEXT.public_key


def test_a_box_that_was_away_during_a_rotation_finds_the_new_key(follower: RosterFollower) -> None:
    rotated = FOUNDED.with_entry(KeyRotated(NEXT.public_key), COORDINATOR, 3, new_key=NEXT)
    follower.take(*notice(with_site(rotated, "hospital-b", NEXT), NEXT))
    assert follower.coordinator_key == NEXT.public_key


@pytest.mark.parametrize(
    "strange",
    [
        notice(found("brain-mri", bytes(32), STRANGER, 1), STRANGER),
        notice(found("other", bytes(32), COORDINATOR, 1)),
        notice(with_site(FOUNDED, "hospital-a"), STRANGER),
    ],
    ids=["a stranger's", "another federation's", "sent by a stranger"],
)
def test_any_other_roster_is_refused(
    follower: RosterFollower, strange: tuple[Envelope, RosterNotice]
) -> None:
    with pytest.raises(MessageError):
        follower.take(*strange)
    assert follower.roster is None


def test_an_old_copy_is_refused(follower: RosterFollower) -> None:
    roster = with_site(FOUNDED, "hospital-a")
    follower.take(*notice(roster))
    with pytest.raises(MessageError, match="old copy"):
        follower.take(*notice(FOUNDED))
    assert follower.roster == roster


def test_a_large_roster_comes_in_blocks(follower: RosterFollower) -> None:
    roster = FOUNDED
    for number in range(20):
        roster = with_site(roster, f"hospital-{number}")
    envelope, message = notice(roster, limit=1152)
    follower.take(envelope, message)
    (request,) = follower.due(0.0)
    assert isinstance(request, BlockRequest)
    assert follower.due(1.0) == []
    assert len(follower.due(30.0)) == 1

    for block in blocks_of(roster.encoded, message.payload, request.missing):
        assert follower.add_block(block)

    assert follower.roster == roster
    assert follower.due(60.0) == []


def test_one_that_is_known_is_not_fetched_again(follower: RosterFollower) -> None:
    roster = with_site(FOUNDED, "hospital-a")
    follower.take(*notice(roster))
    envelope = notice(roster)[0]
    follower.take(envelope, RosterNotice(2, refer_to(bytes(5000), 1152)))
    assert follower.due(0.0) == []


def test_a_site_that_was_revoked_says_so(follower: RosterFollower, caplog: pytest.LogCaptureFixture) -> None:
    roster = with_site(FOUNDED, "hospital-a").with_entry(Revoked("hospital-a", "left"), COORDINATOR, 5)
    follower.take(*notice(roster))
    assert "a member of brain-mri no more: left" in caplog.text


def test_a_damaged_file_is_taken_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "roster").write_bytes(b"FMR\x01damaged")
    follower = RosterFollower(tmp_path / "roster", "brain-mri", "hospital-a", COORDINATOR.public_key)
    assert follower.roster is None
    follower.take(*notice(FOUNDED))
    assert follower.roster == FOUNDED
