"""The authority's certificates, and that what it did once it knows ever after."""

import shutil
import stat
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmedclip.aggregator.authority.certificate_authority import (
    CLOCK_SKEW,
    create_authority,
    issue_client_certificate,
    issue_server_certificate,
    open_authority,
    renew_revocation_list,
    revocation_list,
    revoke,
)
from fedmedclip.aggregator.authority.issued import certificates_of
from fedmedclip.protocol.certificates import (
    certificate_request,
    host_names,
    new_tls_key,
    public_pem,
    requested_key,
)
from fedmedclip.protocol.errors import InvalidInputError, StorageError
from tests import ROOT

PASSPHRASE = "correct horse battery staple"
NOW = datetime(2030, 5, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path):
    return create_authority(tmp_path / "authority", "brain-mri", PASSPHRASE, NOW)


@pytest.fixture(scope="module")
def key():
    return new_tls_key()


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


def test_a_members_certificate(authority, key):
    pem = issue_client_certificate(authority, "hospital-a", certificate_request(key, "hospital-a"), NOW)
    found = x509.load_pem_x509_certificate(pem)
    assert found.subject.rfc4514_string() == "CN=hospital-a"
    assert found.not_valid_before_utc == NOW - CLOCK_SKEW
    assert found.not_valid_after_utc == NOW + timedelta(days=397)
    found.verify_directly_issued_by(authority.certificate)
    basic, usage = extension(found, x509.BasicConstraints), extension(found, x509.KeyUsage)
    assert (basic.value.ca, basic.critical, usage.critical) == (False, True, True)
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert list(extension(found, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    own = extension(authority.certificate, x509.SubjectKeyIdentifier).value.digest
    assert extension(found, x509.AuthorityKeyIdentifier).value.key_identifier == own


def test_a_brokers_certificate_is_valid_by_the_rules_of_the_web(authority, key):
    pem = issue_server_certificate(authority, public_pem(key), ["Broker.Example.org", "10.0.0.7", "::1"], NOW)
    found = x509.load_pem_x509_certificate(pem)
    assert host_names(found) == ["broker.example.org", "10.0.0.7", "::1"]
    assert list(extension(found, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    store = verification.Store([authority.certificate])
    builder = verification.PolicyBuilder().store(store).time(NOW + timedelta(days=1))
    builder.build_server_verifier(x509.DNSName("broker.example.org")).verify(found, [])
    with pytest.raises(verification.VerificationError):
        builder.build_server_verifier(x509.DNSName("other.example.org")).verify(found, [])


def test_the_authority_signs_nothing_below_another_authority(authority):
    found = authority.certificate
    basic = extension(found, x509.BasicConstraints)
    assert (basic.value.ca, basic.value.path_length, basic.critical) == (True, 0, True)
    usage = extension(found, x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    assert found.not_valid_after_utc > NOW + timedelta(days=3650)


def test_no_certificate_outlasts_the_authority(tmp_path, key):
    authority = create_authority(
        tmp_path / "authority", "brain-mri", PASSPHRASE, NOW, lifetime=timedelta(days=9)
    )
    pem = issue_client_certificate(authority, "hospital-a", public_pem(key), NOW)
    assert x509.load_pem_x509_certificate(pem).not_valid_after_utc == NOW + timedelta(days=9)
    for moment in (NOW + timedelta(days=10), NOW - timedelta(days=1)):
        with pytest.raises(InvalidInputError, match="this machine's clock says"):
            issue_client_certificate(authority, "hospital-a", public_pem(key), moment)


def test_the_key_is_encrypted_and_for_its_owner(authority):
    path = authority.folder / "ca-key.pem"
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert open_authority(authority.folder, PASSPHRASE).certificate == authority.certificate


@pytest.mark.parametrize(
    ("passphrase", "words"),
    [(None, "needs its passphrase"), ("", "needs its"), ("wrong", "is wrong, or the")],
)
def test_a_key_without_its_passphrase(authority, passphrase, words):
    with pytest.raises(InvalidInputError, match=words) as error:
        open_authority(authority.folder, passphrase)
    assert "\n" not in str(error.value)


def test_an_authority_that_cannot_be_opened(authority, tmp_path):
    path = authority.folder / "ca-key.pem"
    whole = path.read_bytes()
    path.chmod(0o644)
    with pytest.raises(InvalidInputError, match=r"chmod 6[04]0"):
        open_authority(authority.folder, PASSPHRASE)
    path.chmod(0o600)
    another = create_authority(tmp_path / "another", "another", PASSPHRASE, NOW).folder
    for damaged, words in (
        (new_tls_key(), "is not encrypted"),
        (whole[: len(whole) // 2], "damaged"),
        (b"", "damaged"),
        ((another / "ca-key.pem").read_bytes(), "is not the key of"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(InvalidInputError, match=words):
            open_authority(authority.folder, PASSPHRASE)
    path.unlink()
    with pytest.raises(InvalidInputError, match="cannot be read"):
        open_authority(authority.folder, PASSPHRASE)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        open_authority(tmp_path / "nowhere", PASSPHRASE)


def test_it_is_made_once(authority, tmp_path):
    with pytest.raises(InvalidInputError, match="already"):
        create_authority(authority.folder, "brain-mri", PASSPHRASE, NOW)
    with pytest.raises(InvalidInputError, match="at least 12"):
        create_authority(tmp_path / "short", "brain-mri", "short", NOW)
    # What a stop before the last file leaves behind is made again.
    (authority.folder / "ca.pem").unlink()
    again = create_authority(authority.folder, "brain-mri", PASSPHRASE, NOW)
    assert open_authority(authority.folder, PASSPHRASE).certificate == again.certificate


def list_of(pem):
    return x509.load_pem_x509_crl(pem)


def number_of(one_list):
    return extension(one_list, x509.CRLNumber).value.crl_number


def test_revocation(authority, key):
    for name in ("hospital-a", "hospital-a", "hospital-b"):
        issue_client_certificate(authority, name, public_pem(key), NOW)
    empty = list_of(revocation_list(authority.folder))
    one, two, other = (
        certificate.serial_number
        for name in ("hospital-a", "hospital-b")
        for certificate in certificates_of(authority.folder)
        if certificate.common_name == name
    )
    first = list_of(revoke(authority, one, "keyCompromise", NOW))
    assert [entry.serial_number for entry in first] == [one]
    assert first.is_signature_valid(authority.certificate.public_key())
    assert first.next_update_utc == authority.certificate.not_valid_after_utc
    (entry,) = first
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value == "keyCompromise"
    second = list_of(revoke(authority, "hospital-a", "left the study", NOW))
    assert {entry.serial_number for entry in second} == {one, two}
    again = list_of(revoke(authority, "hospital-a", "twice", NOW))
    lists = [empty, first, second, again, list_of(renew_revocation_list(authority, NOW))]
    numbers = [number_of(one_list) for one_list in lists]
    assert numbers == sorted(set(numbers))
    # OpenSSL takes the later of two lists, by whole seconds.
    updates = [one_list.last_update_utc for one_list in lists]
    assert updates == sorted(set(updates))
    found = {certificate.serial_number: certificate for certificate in certificates_of(authority.folder)}
    assert found[one].revocation.reason == "keyCompromise"
    assert found[two].revocation.reason == "left the study"
    assert found[two].revocation.revoked == NOW
    assert found[other].is_valid(NOW)
    assert not found[two].is_valid(NOW)
    for unknown in ("hospital-c", 12345):
        with pytest.raises(InvalidInputError, match="issued nothing to"):
            revoke(authority, unknown, "", NOW)


def test_a_lost_list_comes_back_and_its_number_grows(authority, key):
    issue_client_certificate(authority, "hospital-a", public_pem(key), NOW)
    before = list_of(revoke(authority, "hospital-a", "", NOW))
    (authority.folder / "crl.pem").unlink()
    after = list_of(renew_revocation_list(authority, NOW + timedelta(minutes=1)))
    assert [entry.serial_number for entry in after] == [entry.serial_number for entry in before]
    assert number_of(after) > number_of(before)


def test_a_clock_that_was_ahead_for_a_while_locks_out_nobody(authority, key):
    issue_client_certificate(authority, "hospital-a", public_pem(key), NOW)
    ahead = list_of(revoke(authority, "hospital-a", "", NOW + timedelta(days=400)))
    after = list_of(renew_revocation_list(authority, NOW))
    assert after.last_update_utc <= NOW
    assert number_of(after) > number_of(ahead)


def test_a_damaged_record_is_named_and_nobody_slips_back_in(authority, key):
    issue_client_certificate(authority, "hospital-a", public_pem(key), NOW)
    revoke(authority, "hospital-a", "", NOW)
    (record,) = (authority.folder / "revoked").iterdir()
    record.write_bytes(b"{")
    with pytest.raises(StorageError, match=record.name):
        renew_revocation_list(authority, NOW)


KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from fedmedclip.aggregator.authority.certificate_authority import issue_client_certificate, open_authority
from fedmedclip.protocol.certificates import new_tls_key, public_pem
authority, key = open_authority(Path(sys.argv[1]), sys.argv[2]), public_pem(new_tls_key())
while True:
    pem = issue_client_certificate(authority, "hospital-a", key, datetime.now(UTC))
    os.write(1, pem)
"""


def test_what_was_handed_out_before_a_kill_can_be_revoked(tmp_path):
    now = datetime.now(UTC)
    authority = create_authority(tmp_path / "authority", "brain-mri", PASSPHRASE, now)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, authority.folder, PASSPHRASE], stdout=subprocess.PIPE, cwd=ROOT
    )
    out = process.stdout.read(4000)
    process.kill()
    out += process.stdout.read()
    process.wait()
    end = b"-----END CERTIFICATE-----\n"
    handed = x509.load_pem_x509_certificates(out[: out.rindex(end) + len(end)])
    revoked = {entry.serial_number for entry in list_of(revoke(authority, "hospital-a", "", now))}
    assert len(handed) >= 4
    assert {certificate.serial_number for certificate in handed} <= revoked


def requests():
    p256, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    builder = x509.CertificateSigningRequestBuilder()
    other = builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hospital-b")]))
    yield "hospital-b", other.sign(p256, hashes.SHA256()), "is for 'CN=hospital-b'"
    yield "nobody", builder.subject_name(name).sign(p256, hashes.SHA256()), "is for ''"
    for key, kind in (
        (ec.generate_private_key(ec.SECP384R1()), "secp384r1"),
        (rsa.generate_private_key(65537, 1024), "RSA"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
    ):
        digest = None if kind == "Ed25519" else hashes.SHA256()
        yield kind, builder.subject_name(name).sign(key, digest), kind


@pytest.mark.parametrize(("request_", "words"), [pytest.param(r, w, id=i) for i, r, w in requests()])
def test_a_request_that_is_refused(authority, request_, words):
    with pytest.raises(InvalidInputError, match=words):
        issue_client_certificate(authority, "hospital-a", request_.public_bytes(Encoding.PEM), NOW)
    assert certificates_of(authority.folder) == []


def test_a_request_for_anothers_key_is_refused(key):
    encoded = certificate_request(new_tls_key(), "hospital-a")
    point = PublicFormat.UncompressedPoint
    mine = x509.load_der_x509_csr(encoded).public_key().public_bytes(Encoding.X962, point)
    theirs = load_pem_private_key(key, None).public_key().public_bytes(Encoding.X962, point)
    forged = encoded.replace(mine, theirs)
    for one in (forged, x509.load_der_x509_csr(forged).public_bytes(Encoding.PEM)):
        with pytest.raises(InvalidInputError, match="its key is another's"):
            requested_key(one, "hospital-a")


@pytest.mark.parametrize("name", ["", "Hospital A", "a/b", "+", "#", "x" * 33])
def test_names_that_could_not_stand_in_a_topic(authority, key, name):
    with pytest.raises(InvalidInputError, match="member name"):
        issue_client_certificate(authority, name, public_pem(key), NOW)


@pytest.mark.parametrize(
    "hosts", [[], [""], ["mqtt://broker"], ["broker:8883"], ["two words"], ["bücher.example"]]
)
def test_hosts_that_are_none(authority, key, hosts):
    with pytest.raises(InvalidInputError, match="host name"):
        issue_server_certificate(authority, public_pem(key), hosts, NOW)


CSR = certificate_request(new_tls_key(), "hospital-a")


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.binary(max_size=300), st.tuples(st.integers(0, len(CSR) - 1), st.integers(0, 255))))
def test_hostile_requests_raise_nothing_else(change):
    pem = change
    if isinstance(change, tuple):
        position, value = change
        pem = CSR[:position] + bytes([value]) + CSR[position + 1 :]
    with suppress(InvalidInputError):
        requested_key(pem, "hospital-a")


def test_openssl_finds_nothing_to_say(tmp_path, key):
    tool = shutil.which("openssl")
    if tool is None:
        pytest.skip("openssl is not installed")
    now = datetime.now(UTC)
    authority = create_authority(tmp_path / "authority", "brain-mri", PASSPHRASE, now)
    pairs = {
        "sslserver": issue_server_certificate(authority, public_pem(key), ["localhost"], now),
        "sslclient": issue_client_certificate(authority, "hospital-a", public_pem(key), now),
    }

    def verified(purpose, certificate):
        path = tmp_path / "certificate.pem"
        path.write_bytes(certificate)
        files = [
            "-CAfile",
            authority.folder / "ca.pem",
            "-CRLfile",
            authority.folder / "crl.pem",
        ]
        options = [*files, "-x509_strict", "-crl_check", "-purpose", purpose]
        return subprocess.run([tool, "verify", *options, path], capture_output=True, text=True, check=False)

    for purpose, certificate in pairs.items():
        assert verified(purpose, certificate).returncode == 0
    assert verified("sslclient", pairs["sslserver"]).returncode != 0
    revoke(authority, "hospital-a", "", now)
    assert "certificate revoked" in verified("sslclient", pairs["sslclient"]).stderr
