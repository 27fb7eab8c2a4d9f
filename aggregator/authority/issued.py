"""What a certificate authority has issued and revoked, as its folder has it; reading needs no passphrase."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fedmedclip.protocol.certificates import certificate_fingerprint, common_name
from fedmedclip.protocol.errors import StorageError
from fedmedclip.protocol.new_files import write_new_file

ISSUED, REVOKED = "issued", "revoked"


class Revocation(msgspec.Struct, frozen=True):
    """One revoked certificate; `serial` in hexadecimal, `reason` for people."""

    serial: str
    name: str
    revoked: datetime
    reason: str

    @property
    def serial_number(self) -> int:
        """The certificate's serial number."""
        return int(self.serial, 16)


@dataclass(frozen=True)
class IssuedCertificate:
    """One certificate: `fingerprint` is the SHA-256 of its DER encoding, 32 bytes."""

    serial_number: int
    common_name: str
    server: bool
    begins: datetime
    ends: datetime
    fingerprint: bytes
    revocation: Revocation | None

    def is_valid(self, now: datetime) -> bool:
        """Whether it is within its time, and not revoked."""
        return self.revocation is None and self.begins <= now <= self.ends


def certificates_of(folder: Path) -> list[IssuedCertificate]:
    """Return all that the authority in `folder` has issued, the oldest first. Raises StorageError."""
    revoked = {revocation.serial_number: revocation for revocation in read_revocations(folder)}
    found = [_read(path, revoked) for path in (folder / ISSUED).glob("*.pem")]
    return sorted(found, key=lambda certificate: (certificate.begins, certificate.serial_number))


def read_revocations(folder: Path) -> list[Revocation]:
    """Return what was revoked, by serial number. Raises StorageError."""
    found = []
    for path in sorted((folder / REVOKED).glob("*.json")):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Revocation))
        except (OSError, msgspec.MsgspecError) as error:
            # Left out, it would be let in again.
            raise StorageError(
                f"revocation {path} cannot be read ({error}); restore it from a copy"
            ) from error
    return found


def record_revocation(folder: Path, certificate: IssuedCertificate, reason: str, now: datetime) -> None:
    """Write down that a certificate is revoked, unless it is already."""
    if certificate.revocation is not None:
        return
    serial = serial_in_words(certificate.serial_number)
    # A list of revocations has whole seconds.
    moment = now.astimezone(UTC).replace(microsecond=0)
    revocation = Revocation(serial, certificate.common_name, moment, reason)
    write_new_file(folder / REVOKED / f"{serial}.json", msgspec.json.encode(revocation))


def serial_in_words(serial: int) -> str:
    """Return a serial number in 40 hexadecimal digits, as files are named by it."""
    return f"{serial:040x}"


def _read(path: Path, revoked: dict[int, Revocation]) -> IssuedCertificate:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        raise StorageError(f"certificate {path} cannot be read ({error}); restore it from a copy") from error
    return IssuedCertificate(
        certificate.serial_number,
        common_name(certificate),
        ExtendedKeyUsageOID.SERVER_AUTH in purposes,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        certificate_fingerprint(certificate),
        revoked.get(certificate.serial_number),
    )
