"""Requests are looked at before anybody decides, and each invitation gets one answer."""

from datetime import timedelta

import msgspec
import pytest

from fedmedclip.aggregator.authority.issued import certificates_of
from fedmedclip.aggregator.enrolment import decisions
from fedmedclip.aggregator.enrolment.answers import answer_in
from fedmedclip.aggregator.enrolment.decisions import approve, pending_requests, refuse, take_request
from fedmedclip.aggregator.enrolment.invitations import read_invitations
from fedmedclip.protocol.enrolment.answer import open_answer
from fedmedclip.protocol.enrolment.invitation import invitation_text, read_invitation
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.topics import RESERVED_SITES
from tests.aggregator.enrolment.centre import (
    NOW,
    PASSPHRASE,
    Hospital,
    digest,
    found,
    invitation_to,
    join_by_file,
)


def test_a_site_joins_by_files(folder) -> None:
    hospital = Hospital()
    invitation = invitation_to(folder)
    encoded = hospital.request(invitation)
    approval = approve(folder, "", PASSPHRASE, NOW, approved_by="her", encoded=encoded)
    key = bytes.fromhex(invitation.coordinator_key)
    answer, roster = open_answer(approval.answer, key, digest(encoded))
    assert answer.accepted
    member = roster.members.active("hospital-a")
    assert (member.public_key, member.most_samples, member.approved_by) == (
        hospital.key.public_key, 120, "her",
    )  # fmt: skip
    assert roster.encoded == folder.roster().encoded
    # Asked for once more, as for a file that was lost, it is the same.
    assert approve(folder, "hospital-a", PASSPHRASE, NOW, approved_by="him").answer == approval.answer


def test_the_invitation_says_how_much_a_site_weighs_unless_the_approval_does(folder) -> None:
    invitation = invitation_to(folder, most_samples=50)
    with folder.changing():
        take_request(folder, Hospital().request(invitation), NOW, "it")
    assert [item.most_samples for item in pending_requests(folder)] == [50]
    approve(folder, invitation.number[:6], PASSPHRASE, NOW, approved_by="her", most_samples=40)
    assert folder.roster().members.active("hospital-a").most_samples == 40
    assert pending_requests(folder) == []


def test_the_newest_request_with_an_invitation_counts(folder) -> None:
    invitation = invitation_to(folder)
    first, second = Hospital(), Hospital()
    with folder.changing():
        for hospital in (first, second):
            take_request(folder, hospital.request(invitation), NOW, "it")
    approve(folder, "hospital-a", PASSPHRASE, NOW, approved_by="her")
    assert folder.roster().members.active("hospital-a").public_key == second.key.public_key


@pytest.mark.parametrize(
    ("changes", "later", "words"),
    [
        ({"federation": "retina"}, 0, "for the federation 'retina', this is 'brain-mri'"),
        ({"site": "hospital-b"}, 0, "its invitation is for 'hospital-a'"),
        ({"at": int(NOW) + 7200}, 0, "one clock is wrong"),
        ({"at": int(NOW) - 7200}, 0, "one clock is wrong"),
        ({"certificate_request": b"nonsense"}, 0, "neither a certificate request"),
        ({}, 8 * 86400, "expired at"),
    ],
)
def test_what_is_wrong_with_a_request_is_one_line(folder, changes, later, words) -> None:
    encoded = Hospital().request(invitation_to(folder), **changes)
    with pytest.raises(InvalidInputError, match=words) as refusal:
        approve(folder, "", PASSPHRASE, NOW + later, approved_by="her", encoded=encoded, where="req.bin")
    assert "\n" not in str(refusal.value)
    assert len(folder.roster().records) == 1
    assert pending_requests(folder) == []


def test_an_invitation_of_nobody_is_refused(folder, tmp_path) -> None:
    (tmp_path / "other").mkdir()
    encoded = Hospital().request(invitation_to(found(tmp_path / "other")))
    with pytest.raises(InvalidInputError, match="has not given away"):
        approve(folder, "", PASSPHRASE, NOW, approved_by="her", encoded=encoded)


def test_a_used_invitation_is_refused(folder) -> None:
    invitation = invitation_to(folder)
    approve(folder, "", PASSPHRASE, NOW, approved_by="her", encoded=Hospital().request(invitation))
    with pytest.raises(InvalidInputError, match="was used or taken back"):
        approve(folder, "", PASSPHRASE, NOW, approved_by="her", encoded=Hospital().request(invitation))


def test_names_that_are_taken_or_reserved_are_refused(folder) -> None:
    invitation_to(folder, "hospital-b")
    with pytest.raises(InvalidInputError, match="is invited already"):
        invitation_to(folder, "hospital-b")
    join_by_file(folder, Hospital())
    with pytest.raises(InvalidInputError, match="taken by a member"):
        invitation_to(folder)
    for name in [*RESERVED_SITES, "enrol-a"]:
        with pytest.raises(InvalidInputError, match="is reserved"):
            invitation_to(folder, name)


def test_a_key_of_another_member_is_refused_before_a_certificate_is_issued(folder) -> None:
    hospital = Hospital()
    join_by_file(folder, hospital)
    other = Hospital("hospital-b", key=hospital.key)
    invitation = invitation_to(folder, "hospital-b")
    issued = len(certificates_of(folder.authority))
    with pytest.raises(InvalidInputError, match="each site makes its own"):
        approve(folder, "", PASSPHRASE, NOW, approved_by="her", encoded=other.request(invitation))
    assert len(certificates_of(folder.authority)) == issued


def test_a_wrong_passphrase_changes_nothing(folder) -> None:
    encoded = Hospital().request(invitation_to(folder))
    with pytest.raises(InvalidInputError, match=r"passphrase of .* is wrong"):
        approve(folder, "", "x" * 12, NOW, approved_by="her", encoded=encoded)
    assert len(folder.roster().records) == 1
    assert len(pending_requests(folder)) == 1


@pytest.mark.parametrize("stopped_at", range(3))
def test_an_approval_that_was_stopped_is_finished_by_the_next(folder, monkeypatch, stopped_at) -> None:
    encoded = Hospital().request(invitation_to(folder))
    original, calls = decisions.write_new_file, iter(range(9))

    def stopped(*arguments, **options):
        if next(calls) == stopped_at:
            raise KeyboardInterrupt
        original(*arguments, **options)

    monkeypatch.setattr(decisions, "write_new_file", stopped)
    with pytest.raises(KeyboardInterrupt):
        approve(folder, "", PASSPHRASE, NOW, approved_by="her", encoded=encoded)
    monkeypatch.undo()
    approval = approve(folder, "", PASSPHRASE, NOW, approved_by="her", encoded=encoded)
    assert answer_in(approval.answer).accepted
    assert len(folder.roster().records) == 2


def test_a_refused_request_is_answered_and_its_invitation_used_up(folder) -> None:
    invitation = invitation_to(folder)
    encoded = Hospital().request(invitation)
    with folder.changing():
        take_request(folder, encoded, NOW, "it")
    _, answer = refuse(folder, "hospital-a", NOW, "not in the study")
    told, _ = open_answer(answer, folder.key().public_key, digest(encoded))
    assert (told.accepted, told.reason) == (False, "not in the study")
    assert [kept.state(NOW) for kept in read_invitations(folder)] == ["answered"]
    invitation_to(folder)


def test_an_invitation_can_be_taken_back(folder) -> None:
    invitation = invitation_to(folder)
    _, answer = refuse(folder, invitation.number, NOW, "")
    assert answer is None
    with pytest.raises(InvalidInputError, match="used or taken back"), folder.changing():
        take_request(folder, Hospital().request(invitation), NOW, "it")


def test_an_invitation_ends_when_it_says_so(folder) -> None:
    invitation = invitation_to(folder, lifetime=timedelta(hours=2))
    assert invitation.expires == int(NOW + 7200)
    altered = msgspec.structs.replace(invitation, site="hospital-b")
    with pytest.raises(InvalidInputError, match="was altered"):
        read_invitation(invitation_text(altered), "it")


def test_an_unsigned_bundle_is_refused_before_a_site_would(folder) -> None:
    (folder.bundle / "manifest.sig").unlink()
    with pytest.raises(InvalidInputError, match=r"not signed by the coordinator.*bundle sign"):
        invitation_to(folder)
