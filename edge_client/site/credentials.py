"""A site's TLS key and certificate, in one file, so that both change at once; and the key it has asked for.

The private keys are made here and never leave.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedmedclip.protocol.certificates import (
    certificate_request,
    common_name,
    new_tls_key,
    public_pem,
    read_certificate_file,
)
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.new_files import write_new_file

# Of its life: a certificate of two years is renewed eight months before it ends.
_RENEWED_AT = 2 / 3


@dataclass(frozen=True)
class Credentials:
    """Those in a site's state folder."""

    folder: Path

    @property
    def path(self) -> Path:
        """Private key and certificate, PEM."""
        return self.folder / "tls.pem"

    @property
    def asked_path(self) -> Path:
        """The private key for which a certificate was asked, PEM."""
        return self.folder / "tls-request.pem"

    @property
    def present(self) -> bool:
        """Whether there is a certificate."""
        return self.path.exists()

    def certificate(self) -> x509.Certificate:
        """Return the certificate that is used. Raises InvalidInputError."""
        return read_certificate_file(self.path)

    def is_due(self, now: datetime) -> bool:
        """Whether it is time for a new certificate: two thirds of this one's life are over."""
        certificate = self.certificate()
        first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        return now >= first + _RENEWED_AT * (last - first)

    def ask(self, site: str) -> bytes:
        """Return a request (PKCS #10 in DER) for the key that waits for its certificate, made if need be."""
        if not self.asked_path.exists():
            write_new_file(self.asked_path, new_tls_key(), private=True)
        return certificate_request(self.asked_path.read_bytes(), site)

    def install(self, certificate: bytes, site: str, authority: x509.Certificate) -> None:
        """Use a certificate (DER) from now on, that the authority made for `site` and the key asked for.

        One that is in use already changes nothing. Raises MessageError for any other.
        """
        try:
            given = x509.load_der_x509_certificate(certificate)
            given.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise MessageError("the certificate is none of the federation's certificate authority") from error
        if common_name(given) != site:
            raise MessageError(f"the certificate is for {common_name(given)!r}, this site is {site!r}")
        if self.present and self.certificate() == given:
            return
        if datetime.now(UTC) > given.not_valid_after_utc:
            raise MessageError(f"the certificate ended at {given.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
        public = given.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        if not self.asked_path.exists() or public_pem(self.asked_path.read_bytes()) != public:
            raise MessageError("the certificate is for another key than the one that this site asked for")
        pem = self.asked_path.read_bytes() + given.public_bytes(Encoding.PEM)
        write_new_file(self.path, pem, private=True)
        self.asked_path.unlink()
