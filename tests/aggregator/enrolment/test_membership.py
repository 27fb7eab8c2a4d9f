"""Members are revoked, weigh less and get new certificates; the coordinator's key is followed by another."""

import os
from datetime import UTC, datetime

import pytest
from cryptography import x509

from fedmedclip.aggregator.authority.issued import certificates_of
from fedmedclip.aggregator.enrolment import membership
from fedmedclip.aggregator.enrolment.decisions import certificate_with
from fedmedclip.aggregator.enrolment.folder import open_folder
from fedmedclip.aggregator.enrolment.membership import (
    limit_weight,
    revoke_certificates,
    revoke_member,
    rotate_key,
)
from fedmedclip.aggregator.enrolment.renewal import (
    MOST_A_DAY,
    keep_renewal,
    own_certificates,
    renew_all,
    renew_member,
    waiting_renewals,
)
from fedmedclip.aggregator.enrolment.roster_file import adopt, read_roster_file, record_rows
from fedmedclip.protocol.bundle.signature import signer
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.new_files import write_new_file
from tests.aggregator.enrolment.centre import NOW, PASSPHRASE, Hospital, join_by_file

DAY = 86400.0


def on_the_list(folder, path="broker/crl.pem") -> set[int]:
    revocations = x509.load_pem_x509_crl((folder.path / path).read_bytes())
    return {revoked.serial_number for revoked in revocations}


def serials(folder, name) -> set[int]:
    return {item.serial_number for item in certificates_of(folder.authority) if item.common_name == name}


def test_a_revoked_member_is_on_the_brokers_list_and_may_come_back(folder) -> None:
    hospital = Hospital()
    join_by_file(folder, hospital)
    join_by_file(folder, Hospital("hospital-b"))
    revoke_member(folder, "hospital-a", "left", NOW)
    first = serials(folder, "hospital-a")
    with folder.changing():
        assert revoke_certificates(folder, PASSPHRASE, NOW) == ["hospital-a"]
    assert on_the_list(folder) == first
    join_by_file(folder, hospital)
    with folder.changing():
        assert revoke_certificates(folder, PASSPHRASE, NOW) == []
    assert on_the_list(folder) == first
    assert len(serials(folder, "hospital-a")) == 2


def test_a_revocation_without_the_passphrase_is_completed_by_renew(folder) -> None:
    join_by_file(folder, Hospital())
    revoke_member(folder, "hospital-a", "left", NOW)
    assert on_the_list(folder) == set()
    assert renew_all(folder, PASSPHRASE, NOW) == ["hospital-a: certificates are on the revocation list"]
    assert on_the_list(folder) == serials(folder, "hospital-a")
    assert renew_all(folder, PASSPHRASE, NOW) == []


def test_only_members_are_revoked_and_limited(folder) -> None:
    with pytest.raises(InvalidInputError, match="no member"):
        revoke_member(folder, "hospital-a", "left", NOW)
    join_by_file(folder, Hospital())
    limit_weight(folder, "hospital-a", 30, NOW)
    assert folder.roster().members.active("hospital-a").most_samples == 30


def test_a_renewal_that_waits_is_issued_when_the_passphrase_comes(folder) -> None:
    hospital = Hospital()
    join_by_file(folder, hospital)
    before = folder.roster().members.active("hospital-a").certificate
    next_key = Hospital().certificate_request()
    keep_renewal(folder, "hospital-a", next_key)
    assert waiting_renewals(folder) == ["hospital-a"]
    with pytest.raises(InvalidInputError, match="those that do: hospital-a"):
        renew_all(folder, PASSPHRASE, NOW, "hospital-b")
    assert renew_all(folder, PASSPHRASE, NOW + DAY, "hospital-a")[0].startswith(
        "hospital-a: certificate until"
    )
    after = folder.roster().members.active("hospital-a").certificate
    assert after != before
    # Whoever asks again for the same key, the answer being lost, gets the same.
    with folder.changing():
        again = renew_member(folder, "hospital-a", next_key, PASSPHRASE, NOW + 2 * DAY)
    assert again == certificate_with(folder, after)
    assert len(folder.roster().records) == 3
    # The old one is in use until the site has the new one.
    with folder.changing():
        assert revoke_certificates(folder, PASSPHRASE, NOW) == []


def test_renewals_are_for_the_member_itself_and_not_without_end(folder) -> None:
    join_by_file(folder, Hospital())
    join_by_file(folder, Hospital("hospital-b"))
    with folder.changing():
        with pytest.raises(InvalidInputError, match="is for 'CN=hospital-b', expected 'CN=hospital-a'"):
            renew_member(folder, "hospital-a", Hospital("hospital-b").certificate_request(), PASSPHRASE, NOW)
        for _ in range(MOST_A_DAY):
            renew_member(folder, "hospital-a", Hospital().certificate_request(), PASSPHRASE, NOW)
        with pytest.raises(InvalidInputError, match="no more today"):
            renew_member(folder, "hospital-a", Hospital().certificate_request(), PASSPHRASE, NOW)
        renew_member(folder, "hospital-a", Hospital().certificate_request(), PASSPHRASE, NOW + 2 * DAY)
    revoke_member(folder, "hospital-a", "left", NOW)
    with pytest.raises(InvalidInputError, match="no member"), folder.changing():
        renew_member(folder, "hospital-a", Hospital().certificate_request(), PASSPHRASE, NOW + 9 * DAY)


def test_the_centres_own_certificates_are_renewed_in_the_last_third_of_their_time(folder) -> None:
    assert renew_all(folder, PASSPHRASE, NOW + 200 * DAY) == []
    done = renew_all(folder, PASSPHRASE, NOW + 300 * DAY)
    assert [line.split(":")[0] for line in done] == ["the aggregator"]
    done = renew_all(folder, PASSPHRASE, NOW + 600 * DAY)
    assert [line.split(":")[0] for line in done] == ["the aggregator", "the broker"]
    for own in own_certificates(folder)[:2]:
        assert own.ends > NOW + 900 * DAY
    server = x509.load_pem_x509_certificate((folder.broker / "broker.pem").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "127.0.0.1" in {str(name.value) for name in names}
    assert datetime.fromtimestamp(NOW, UTC) < server.not_valid_after_utc


@pytest.mark.parametrize("stop_at", [None, "append", "replace"])
def test_a_rotation_leaves_a_key_that_signs_the_roster_wherever_it_is_stopped(
    folder, monkeypatch, stop_at
) -> None:
    join_by_file(folder, Hospital())
    before = folder.key().public_key

    def stopped(*arguments: object) -> None:
        raise KeyboardInterrupt

    if stop_at == "append":
        monkeypatch.setattr("fedmedclip.aggregator.enrolment.folder.write_new_file", stopped)
    if stop_at == "replace":
        monkeypatch.setattr(membership.os, "replace", _replace_but("coordinator.key"))
    if stop_at is not None:
        with pytest.raises(KeyboardInterrupt):
            rotate_key(folder, NOW)
        monkeypatch.undo()
        expected = before if stop_at == "append" else folder.roster().coordinator_key
        assert open_folder(folder.path).key().public_key == expected
    else:
        roster, bundle = rotate_key(folder, NOW)
        assert bundle == folder.bundle
        assert roster.coordinator_key == folder.key().public_key == signer(folder.bundle) != before
    limit_weight(folder, "hospital-a", 7, NOW)
    rotate_key(folder, NOW)
    join_by_file(folder, Hospital("hospital-b"))


def test_a_hospitals_longer_roster_is_taken_over(folder, tmp_path) -> None:
    join_by_file(folder, Hospital())
    restored = folder.roster_file.read_bytes()
    revoke_member(folder, "hospital-a", "left", NOW)
    kept_by_a_hospital = tmp_path / "roster-of-a-hospital"
    kept_by_a_hospital.write_bytes(folder.roster_file.read_bytes())
    with pytest.raises(InvalidInputError, match="in the 3 here already"):
        adopt(folder, read_roster_file(kept_by_a_hospital))
    write_new_file(folder.roster_file, restored)
    limit_weight(folder, "hospital-a", 7, NOW)
    ours, aside = adopt(folder, read_roster_file(kept_by_a_hospital))
    assert folder.roster().members.active("hospital-a") is None
    assert aside.read_bytes() == ours.encoded
    assert [row.entry for row in record_rows(folder.roster())] == ["Founded", "Admitted", "Revoked"]


def _replace_but(name):
    original = os.replace

    def replace(source, target):
        if str(target).endswith(name):
            raise KeyboardInterrupt
        original(source, target)

    return replace
