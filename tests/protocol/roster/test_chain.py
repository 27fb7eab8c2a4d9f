"""The roster: only the coordinator appends to it, and nobody takes anything away."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fedmedclip.protocol.errors import InvalidInputError, MessageError
from fedmedclip.protocol.roster.chain import MAGIC, Roster, found, open_roster
from fedmedclip.protocol.roster.entries import (
    Admitted,
    Founded,
    KeyRotated,
    Renewed,
    Revoked,
    WeightLimited,
)
from fedmedclip.protocol.signature import SigningKey, new_signing_key

COORDINATOR, NEXT, STRANGER = new_signing_key(), new_signing_key(), new_signing_key()
SITE_KEYS = {site: new_signing_key().public_key for site in ("hospital-a", "hospital-b")}
FOUNDED = found("brain-mri", bytes(32), COORDINATOR, 1000)


def admitted(site: str, key: bytes | None = None) -> Admitted:
    return Admitted(site, key or SITE_KEYS[site], bytes(32), 5000, 400, "Ada")


def grown() -> Roster:
    roster = FOUNDED.with_entry(admitted("hospital-a"), COORDINATOR, 1001)
    roster = roster.with_entry(admitted("hospital-b"), COORDINATOR, 1002)
    roster = roster.with_entry(Renewed("hospital-a", b"\1" * 32, 9000), COORDINATOR, 1003)
    roster = roster.with_entry(Revoked("hospital-b", "left"), COORDINATOR, 1004)
    return roster.with_entry(WeightLimited("hospital-a", 50), COORDINATOR, 1005)


def test_a_roster_that_was_stored_says_who_is_a_member_and_who_was() -> None:
    roster = open_roster(grown().encoded)

    assert roster.federation == "brain-mri"
    a, b = roster.members.by_site["hospital-a"], roster.members.by_site["hospital-b"]
    assert (a.active, a.certificate, a.valid_until, a.most_samples) == (True, b"\1" * 32, 9000, 50)
    assert (a.since, a.approved_by) == (1001, "Ada")
    assert (b.active, b.revoked_at, b.reason) == (False, 1004, "left")
    assert roster.members.active("hospital-b") is None
    assert roster == grown() or roster.continues(FOUNDED)


def test_whoever_knows_an_earlier_roster_takes_one_that_continues_it() -> None:
    known = FOUNDED.with_entry(admitted("hospital-a"), COORDINATOR, 1001)
    later = known.with_entry(admitted("hospital-b"), COORDINATOR, 1002)

    assert open_roster(later.encoded, known).members.active("hospital-b") is not None
    with pytest.raises(MessageError, match="old copy"):
        open_roster(known.encoded, later)


def test_two_histories_are_told_apart() -> None:
    known = FOUNDED.with_entry(admitted("hospital-a"), COORDINATOR, 1001)
    other = FOUNDED.with_entry(admitted("hospital-b"), COORDINATOR, 1001)
    longer = other.with_entry(Revoked("hospital-b", ""), COORDINATOR, 1002)

    with pytest.raises(MessageError, match="two histories"):
        open_roster(longer.encoded, known)


def test_after_a_rotation_the_new_key_signs_and_the_old_one_does_not() -> None:
    rotated = FOUNDED.with_entry(KeyRotated(NEXT.public_key), COORDINATOR, 1001, new_key=NEXT)
    roster = rotated.with_entry(admitted("hospital-a"), NEXT, 1002)

    assert open_roster(roster.encoded).coordinator_keys == (COORDINATOR.public_key, NEXT.public_key)
    with pytest.raises(InvalidInputError, match="coordinator's key of today"):
        rotated.with_entry(admitted("hospital-a"), COORDINATOR, 1002)


def test_nobody_leads_a_chain_of_his_own_to_the_key_of_another() -> None:
    """Else whoever trusts the coordinator's key would take a stranger's members for its."""
    own = found("brain-mri", bytes(32), STRANGER, 1000).with_entry(admitted("hospital-a"), STRANGER, 1001)
    claimed = own.with_entry(KeyRotated(COORDINATOR.public_key), STRANGER, 1002)
    signed_twice = own.with_entry(KeyRotated(COORDINATOR.public_key), STRANGER, 1002, new_key=STRANGER)

    for forged in (claimed, signed_twice):
        with pytest.raises(MessageError, match="not signed"):
            open_roster(forged.encoded)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (admitted("hospital-a"), "member already"),
        (admitted("hospital-c", SITE_KEYS["hospital-a"]), "is that of 'hospital-a'"),
        (Revoked("hospital-b", "again"), "no member"),
        (Renewed("hospital-x", bytes(32), 1), "no member"),
        (WeightLimited("hospital-b", 1), "no member"),
        (admitted("Hospital A", new_signing_key().public_key), "malformed|not usable"),
    ],
)
def test_a_record_that_makes_no_sense_is_not_made(entry: Admitted, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        grown().with_entry(entry, COORDINATOR, 2000)


def test_who_was_revoked_may_come_back_with_the_same_or_a_new_key() -> None:
    for key in (SITE_KEYS["hospital-b"], new_signing_key().public_key):
        back = grown().with_entry(admitted("hospital-b", key), COORDINATOR, 2000)
        member = open_roster(back.encoded).members.active("hospital-b")
        assert member is not None
        assert (member.public_key, member.since) == (key, 2000)


def test_a_clock_that_was_set_back_makes_no_roster_that_cannot_be_read() -> None:
    roster = grown().with_entry(Revoked("hospital-a", ""), COORDINATOR, 5)
    assert open_roster(roster.encoded).records[-1].at == 1005


@given(st.data())
def test_no_altered_copy_is_taken(data: st.DataObject) -> None:
    encoded = bytearray(grown().encoded)
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(MessageError):
        open_roster(bytes(encoded))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_way(content: bytes) -> None:
    for encoded in (content, MAGIC + content):
        with pytest.raises(MessageError):
            open_roster(encoded)


def test_records_cannot_be_left_out_or_put_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    records = grown().records
    for forged in (
        (records[0], *records[2:]),
        (records[0], records[2], records[1], *records[3:]),
        records[1:],
        (records[0], records[0], *records[1:]),
    ):
        with pytest.raises(MessageError):
            open_roster(Roster(forged).encoded)


def test_a_second_founding_is_refused() -> None:
    def again(key: SigningKey) -> Roster:
        return FOUNDED.with_entry(Founded("brain-mri", key.public_key, bytes(32)), key, 1001)

    with pytest.raises(MessageError, match="first record"):
        open_roster(again(COORDINATOR).encoded)
