"""Keys and X.509 certificates of TLS (RFC 5280): made where they are used, and read.

Keys are on P-256, since many brokers refuse Ed25519 certificates.
"""

import hashlib
from datetime import datetime
from ipaddress import ip_address
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
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import NameOID

from fedmedclip.protocol.errors import InvalidInputError

# A request takes about 250 bytes, as PEM 400.
LARGEST_REQUEST_BYTES = 65536


def new_tls_key() -> bytes:
    """Return a private key on P-256 that nobody else has, as PKCS#8 PEM without a passphrase."""
    return private_pem(generate_private_key(SECP256R1()))


def private_pem(key: EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PKCS#8 PEM without a passphrase."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(private_key: bytes) -> bytes:
    """Return the public half of a private key in PEM. Raises InvalidInputError."""
    return _private(private_key).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def certificate_request(private_key: bytes, name: str) -> bytes:
    """Return a request (PKCS#10, RFC 2986) in DER for a certificate with the common name `name`.

    The signature in it shows that who asks holds the private key. Raises InvalidInputError.
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject(name))
    return builder.sign(_private(private_key), SHA256()).public_bytes(Encoding.DER)


def requested_key(encoded: bytes, name: str | None = None) -> EllipticCurvePublicKey:
    """Return the public key of a request, whose signature is checked, or of bytes that are one; PEM or DER.

    With `name` a request must be for that common name and nothing else. Raises InvalidInputError when it is
    neither, when the signature is wrong, or the key is not on P-256.
    """
    if len(encoded) > LARGEST_REQUEST_BYTES:
        raise InvalidInputError(f"a certificate request of {len(encoded)} bytes is too large")
    try:
        request = _request(encoded)
        if not isinstance(request, x509.CertificateSigningRequest):
            return _on_p256(request)
        key = _on_p256(request.public_key())
        signed, asked = request.is_signature_valid, request.subject
    except InvalidInputError:
        raise
    except Exception as error:
        # What the parser raises for hostile bytes differs from release to release.
        raise InvalidInputError(
            f"this is neither a certificate request nor a public key ({error})"
        ) from error
    if not signed:
        raise InvalidInputError("the signature of the certificate request is wrong: its key is another's")
    if name is not None and asked != subject(name):
        raise InvalidInputError(
            f"the certificate request is for {asked.rfc4514_string()!r}, expected 'CN={name}'"
        )
    return key


def in_der(certificate: x509.Certificate) -> bytes:
    """Return a certificate in DER, as messages carry it."""
    return certificate.public_bytes(Encoding.DER)


def subject(name: str) -> x509.Name:
    """Return the X.509 name that consists of a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def read_certificate(pem: bytes, what: str) -> x509.Certificate:
    """Return the first certificate of a PEM; `what` is what the InvalidInputError calls it."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise InvalidInputError(f"{what} holds no readable PEM certificate ({error})") from error


def read_certificate_file(path: Path) -> x509.Certificate:
    """Return the first certificate of a PEM file. Raises InvalidInputError."""
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"certificate {path} cannot be read ({error.strerror})") from error
    return read_certificate(pem, str(path))


def common_name(certificate: x509.Certificate) -> str:
    """Return the common name of a certificate; empty when it has none, or several."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""


def host_names(certificate: x509.Certificate) -> list[str]:
    """Return the host names and addresses that a server's certificate is for (RFC 5280, section 4.2.1.6)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def general_name(host: str) -> x509.GeneralName:
    """Return a host name or address for a SubjectAltName. Raises InvalidInputError."""
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        pass
    if not host or not host.isascii() or any(letter.isspace() or letter in "/:@" for letter in host):
        raise InvalidInputError(
            f"{host!r} is no host name or address; give it without mqtt:// and without a port"
        )
    return x509.DNSName(host.lower())


def certificate_fingerprint(certificate: x509.Certificate) -> bytes:
    """Return the SHA-256 of the certificate's DER encoding, 32 bytes."""
    return hashlib.sha256(in_der(certificate)).digest()


def validity_in_words(certificate: x509.Certificate) -> str:
    """Return from when to when a certificate is valid, in UTC."""
    return f"{minutes(certificate.not_valid_before_utc)} to {minutes(certificate.not_valid_after_utc)} UTC"


def minutes(moment: datetime) -> str:
    """Return a moment to the minute, for messages to people."""
    return f"{moment:%Y-%m-%d %H:%M}"


def _request(encoded: bytes) -> object:
    """Return a request, or a public key."""
    if encoded.startswith(b"-----BEGIN CERTIFICATE REQUEST"):
        return x509.load_pem_x509_csr(encoded)
    if encoded.startswith(b"-----"):
        return load_pem_public_key(encoded)
    try:
        return load_der_public_key(encoded)
    except ValueError:
        return x509.load_der_x509_csr(encoded)


def _private(pem: bytes) -> EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, None)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"this is no private key in PEM without a passphrase ({error})") from error
    if not isinstance(key, EllipticCurvePrivateKey):
        raise InvalidInputError(f"the key is {type(key).__name__}, expected one on P-256")
    return key


def _on_p256(key: object) -> EllipticCurvePublicKey:
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        kind = getattr(getattr(key, "curve", None), "name", type(key).__name__)
        raise InvalidInputError(f"the key is {kind}, expected one on P-256 (secp256r1)")
    return key
