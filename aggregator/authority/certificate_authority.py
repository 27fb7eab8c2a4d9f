"""The federation's certificate authority: who shows a certificate of it may connect to the broker.

Its folder holds

- `ca-key.pem`: the private key, PKCS#8, encrypted with a passphrase;
- `ca.pem`: the certificate, written last when the authority is made;
- `crl.pem`: the revocation list;
- `issued/SERIAL.pem`: every certificate, there before it is handed out;
- `revoked/SERIAL.json`: when, and why.

Profile of certificates and revocation list: RFC 5280.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from fedmedclip.aggregator.authority.issued import (
    ISSUED,
    REVOKED,
    Revocation,
    certificates_of,
    read_revocations,
    record_revocation,
    serial_in_words,
)
from fedmedclip.protocol.certificates import (
    general_name,
    minutes,
    read_certificate_file,
    requested_key,
    subject,
)
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.private_files import readers_fault
from fedmedclip.protocol.topics import check_name

CERTIFICATE_FILE, KEY_FILE, LIST_FILE = "ca.pem", "ca-key.pem", "crl.pem"
AUTHORITY_LIFETIME = timedelta(days=3653)
SERVER_LIFETIME = timedelta(days=730)
CLIENT_LIFETIME = timedelta(days=397)
# A small machine's clock may be late by some minutes when it gets its certificate.
CLOCK_SKEW = timedelta(hours=1)
SHORTEST_PASSPHRASE = 12


@dataclass(frozen=True)
class Authority:
    """An opened authority: where it lies, its certificate, and the key that signs."""

    folder: Path
    certificate: x509.Certificate
    key: EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """What members and broker trust."""
        return self.certificate.public_bytes(Encoding.PEM)


def create_authority(
    folder: Path, federation: str, passphrase: str, now: datetime, lifetime: timedelta = AUTHORITY_LIFETIME
) -> Authority:
    """Make an authority in `folder`, which must hold none.

    Stopped half way, it is made again by the next call. Raises InvalidInputError for a folder that has one, a
    short passphrase and a federation's name that cannot stand in a topic.
    """
    check_name("federation", federation)
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise InvalidInputError(
            f"the passphrase of the certificate authority has {len(passphrase)} characters; take at least "
            f"{SHORTEST_PASSPHRASE}"
        )
    for part in (folder, folder / ISSUED, folder / REVOKED):
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(folder):
        if (folder / CERTIFICATE_FILE).exists():
            raise InvalidInputError(
                f"{folder} holds a certificate authority already; use it, or another folder"
            )
        key = generate_private_key(SECP256R1())
        name = subject(f"{federation} certificate authority")
        builder = (
            _begun(key.public_key(), now, now + lifetime)
            .subject_name(name)
            .issuer_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        )
        authority = Authority(folder, builder.sign(key, SHA256()), key)
        encryption = BestAvailableEncryption(passphrase.encode())
        encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        write_new_file(folder / KEY_FILE, encrypted, private=True)
        _write_list(authority, now)
        write_new_file(folder / CERTIFICATE_FILE, authority.certificate_pem)
    return authority


def open_authority(folder: Path, passphrase: str | None) -> Authority:
    """Open the authority in `folder`. Raises InvalidInputError when that, or its key, is not possible."""
    certificate = read_certificate_file(folder / CERTIFICATE_FILE)
    path = folder / KEY_FILE
    if fault := readers_fault(path):
        raise InvalidInputError(f"the key of the certificate authority {path} {fault}")
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(
            f"the key of the certificate authority {path} cannot be read ({error.strerror}); it may lie "
            "elsewhere on purpose: bring it back to issue or revoke"
        ) from error
    if not passphrase:
        raise InvalidInputError(f"the key of the certificate authority {path} needs its passphrase")
    try:
        key = load_pem_private_key(pem, passphrase.encode())
    except TypeError as error:
        raise InvalidInputError(f"{path} is not encrypted; it is not what was written there") from error
    except ValueError as error:
        raise InvalidInputError(f"the passphrase of {path} is wrong, or the file is damaged") from error
    if not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise InvalidInputError(f"{path} is not the key of {folder / CERTIFICATE_FILE}")
    return Authority(folder, certificate, key)


def issue_server_certificate(
    authority: Authority,
    request: bytes | EllipticCurvePublicKey,
    hosts: Sequence[str],
    now: datetime,
    lifetime: timedelta = SERVER_LIFETIME,
) -> bytes:
    """Return a certificate in PEM for a server under these host names and IP addresses.

    `request` is a request or a public key, as `requested_key` takes it. Raises InvalidInputError.
    """
    if not hosts:
        raise InvalidInputError("a server's certificate needs at least one host name or address")
    names = x509.SubjectAlternativeName([general_name(host) for host in dict.fromkeys(hosts)])
    builder = _leaf(authority, _key_in(request), now, lifetime, ExtendedKeyUsageOID.SERVER_AUTH)
    # At most 64 characters (RFC 5280, appendix A.1), and nobody looks at it: names are in SubjectAltName.
    builder = builder.subject_name(subject(hosts[0][:64])).add_extension(names, critical=False)
    return _issue(authority, builder)


def issue_client_certificate(
    authority: Authority,
    name: str,
    request: bytes | EllipticCurvePublicKey,
    now: datetime,
    lifetime: timedelta = CLIENT_LIFETIME,
) -> bytes:
    """Return a certificate in PEM for a client with the common name `name`.

    `request` is a request for that name, or a public key, as `requested_key` takes it. Raises
    InvalidInputError.
    """
    check_name("member", name)
    builder = _leaf(authority, _key_in(request, name), now, lifetime, ExtendedKeyUsageOID.CLIENT_AUTH)
    return _issue(authority, builder.subject_name(subject(name)))


def revoke(authority: Authority, which: int | str, reason: str, now: datetime) -> bytes:
    """Revoke one certificate by its serial number, or all of a common name; return the new list in PEM.

    `reason` is for people; one of RFC 5280's (such as "keyCompromise") goes into the list too. Revoking again
    changes nothing. Raises InvalidInputError when no such certificate was issued.
    """
    with _alone(authority.folder):
        found = [
            certificate
            for certificate in certificates_of(authority.folder)
            if which in (certificate.serial_number, certificate.common_name)
        ]
        if not found:
            wanted = f"serial number {serial_in_words(which)}" if isinstance(which, int) else repr(which)
            raise InvalidInputError(
                f"the certificate authority {authority.folder} issued nothing to {wanted}"
            )
        for certificate in found:
            record_revocation(authority.folder, certificate, reason, now)
        return _write_list(authority, now)


def renew_revocation_list(authority: Authority, now: datetime) -> bytes:
    """Write the revocation list anew, and return it in PEM."""
    with _alone(authority.folder):
        return _write_list(authority, now)


def revocation_list(folder: Path) -> bytes:
    """Return the revocation list in PEM as it was written last; needs no passphrase."""
    try:
        return (folder / LIST_FILE).read_bytes()
    except OSError as error:
        raise InvalidInputError(
            f"revocation list {folder / LIST_FILE} cannot be read ({error.strerror})"
        ) from error


def _begun(key: EllipticCurvePublicKey, now: datetime, not_after: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _leaf(
    authority: Authority,
    key: EllipticCurvePublicKey,
    now: datetime,
    lifetime: timedelta,
    purpose: x509.ObjectIdentifier,
) -> x509.CertificateBuilder:
    issuer = authority.certificate
    ends = issuer.not_valid_after_utc
    if not issuer.not_valid_before_utc <= now < ends:
        raise InvalidInputError(
            f"the certificate authority is valid from {minutes(issuer.not_valid_before_utc)} to "
            f"{minutes(ends)} UTC, and this machine's clock says {minutes(now.astimezone(UTC))} UTC; set it, "
            "or make a new authority"
        )
    if lifetime <= timedelta(0):
        raise InvalidInputError(f"a certificate cannot be valid for {lifetime}")
    return (
        _begun(key, now, min(now + lifetime, ends))
        .issuer_name(issuer.subject)
        .add_extension(_key_of(authority), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    )


def _key_in(request: bytes | EllipticCurvePublicKey, name: str | None = None) -> EllipticCurvePublicKey:
    return requested_key(request, name) if isinstance(request, bytes) else request


def _issue(authority: Authority, builder: x509.CertificateBuilder) -> bytes:
    certificate = builder.sign(authority.key, SHA256())
    pem = certificate.public_bytes(Encoding.PEM)
    # On the disk before anybody can use it: what is not recorded cannot be revoked.
    write_new_file(authority.folder / ISSUED / f"{serial_in_words(certificate.serial_number)}.pem", pem)
    return pem


def _write_list(authority: Authority, now: datetime) -> bytes:
    """Write the list of all that was revoked: version 2, with a number that grows (RFC 5280, section 5).

    It is good for as long as the authority: a list that has run out makes the broker refuse everybody, and to
    make the next takes a person with the passphrase.
    """
    issuer = authority.certificate
    number, update = int(now.timestamp()), now - CLOCK_SKEW
    try:
        last = x509.load_pem_x509_crl((authority.folder / LIST_FILE).read_bytes())
    except (OSError, ValueError):
        pass
    else:
        # OpenSSL takes the newer of two lists by this moment, so also one of the same second has to be newer.
        # But from the future, where a clock was that has been set right since, it would lock out everybody.
        later = last.last_update_utc + timedelta(seconds=1)
        update = max(update, later) if later <= now else update
        number = max(number, last.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number + 1)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(update)
        .next_update(max(issuer.not_valid_after_utc, update + CLOCK_SKEW))
        .add_extension(_key_of(authority), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for revocation in read_revocations(authority.folder):
        builder = builder.add_revoked_certificate(_entry(revocation))
    pem = builder.sign(authority.key, SHA256()).public_bytes(Encoding.PEM)
    write_new_file(authority.folder / LIST_FILE, pem)
    return pem


def _entry(revocation: Revocation) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(revocation.serial_number)
        .revocation_date(revocation.revoked)
    )
    if revocation.reason in _REASONS:
        builder = builder.add_extension(x509.CRLReason(_REASONS[revocation.reason]), critical=False)
    return builder.build()


# "unspecified" is to be left out, and "removeFromCRL" is for partial lists (RFC 5280, section 5.3.1).
_REASONS = {
    flag.value: flag
    for flag in x509.ReasonFlags
    if flag not in (x509.ReasonFlags.unspecified, x509.ReasonFlags.remove_from_crl)
}


def _key_of(authority: Authority) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process changes what is revoked: else the list of one lacks what the other adds."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
