"""TLS contexts of the node, which is called, and of destinations, which are."""

import ssl
from pathlib import Path

from fedmedclip.edge_client.serving.dicom.settings import Destination, DicomSettings
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.paths import path_fault
from fedmedclip.protocol.private_files import refuse_readers


def server_context(settings: DicomSettings) -> ssl.SSLContext | None:
    """Return what the node answers with, None without a certificate. Raises InvalidInputError."""
    if settings.certificate_file is None or settings.key_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load_chain(context, settings.certificate_file, settings.key_file, "[dicom]")
    if settings.client_ca_file is not None:
        _load_authorities(context, settings.client_ca_file, "[dicom] client_ca_file")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(destination: Destination) -> ssl.SSLContext | None:
    """Return what a destination is called with, None without TLS. Raises InvalidInputError."""
    if not destination.tls:
        return None
    where = f"[[dicom.destinations]] {destination.ae_title}"
    context = ssl.create_default_context()
    if destination.ca_file is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _load_authorities(context, destination.ca_file, f"{where} ca_file")
    if destination.certificate_file is not None and destination.key_file is not None:
        _load_chain(context, destination.certificate_file, destination.key_file, where)
    return context


def _load_chain(context: ssl.SSLContext, certificate: str, key: str, where: str) -> None:
    for name, path in (("certificate_file", certificate), ("key_file", key)):
        if fault := path_fault(Path(path), "file"):
            raise InvalidInputError(f"{where} {name} {path}: {fault}")
    refuse_readers(Path(key), f"{where} key_file")
    try:
        # An empty password keeps OpenSSL from asking for one on the terminal of a service.
        context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError) as error:
        raise InvalidInputError(
            f"{where} certificate_file {certificate} and key_file {key} are not a matching pair of PEM files "
            f"without pass phrase ({error})"
        ) from error


def _load_authorities(context: ssl.SSLContext, path: str, where: str) -> None:
    if fault := path_fault(Path(path), "file"):
        raise InvalidInputError(f"{where} {path}: {fault}")
    try:
        context.load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError) as error:
        raise InvalidInputError(f"{where} {path} holds no readable PEM certificate ({error})") from error
