"""Whether a service answers: for a container's HEALTHCHECK, and for whatever else looks after machines."""

import http.client
import ssl
from contextlib import closing
from pathlib import Path
from socket import create_connection

from fedmedclip.edge_client.serving.configuration import ServeConfiguration
from fedmedclip.edge_client.serving.http.settings import HttpSettings
from fedmedclip.protocol.configuration import beside, read_configuration
from fedmedclip.protocol.state_folder import is_claimed

_SECONDS = 5.0
# Of a door that is open to all addresses, the machine's own.
_OWN = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def service_fault(configuration_file: Path) -> str | None:
    """Return in one line why the service of this configuration does not answer, asked on its own machine.

    It has to run, and each of its doors to be open; that of HTTP is asked for its health. None: it answers.
    Raises InvalidInputError for a configuration that cannot be used.
    """
    configuration = read_configuration(configuration_file, ServeConfiguration)
    state = beside(configuration_file, configuration.serve.state)
    if not is_claimed(state):
        return f"no service works with {state}"
    folder = configuration_file.resolve().parent
    if (door := configuration.http) is not None and (fault := http_fault(door.relative_to(folder))):
        return f"HTTP: {fault}"
    if (node := configuration.dicom) is not None and (fault := _closed(node.host, node.port)):
        return f"DICOM: {fault}"
    return None


def http_fault(door: HttpSettings) -> str | None:
    """Return why the door does not say that it is ready; None where it does.

    Where clients need a certificate, it is enough that it is open.
    """
    if door.port == 0 or door.client_ca_file is not None:
        return _closed(door.host, door.port)
    host = _OWN.get(door.host, door.host)
    if door.certificate_file is None:
        connection = http.client.HTTPConnection(host, door.port, timeout=_SECONDS)
    else:
        connection = http.client.HTTPSConnection(
            host, door.port, timeout=_SECONDS, context=_only(Path(door.certificate_file))
        )
    try:
        with closing(connection):
            connection.request("GET", "/v1/health")
            response = connection.getresponse()
            if response.status != 200:
                return f"it answers {response.status} {response.reason}"
    except (OSError, http.client.HTTPException) as error:
        return f"{host} port {door.port}: {error}"
    return None


def _closed(host: str, port: int) -> str | None:
    """Return why nobody listens there. Port 0 stands for one that the service alone knows."""
    if port == 0:
        return None
    try:
        create_connection((_OWN.get(host, host), port), timeout=_SECONDS).close()
    except OSError as error:
        return f"{host} port {port}: {error}"
    return None


def _only(certificate: Path) -> ssl.SSLContext:
    """Return a context that trusts this certificate and no other, whatever name it is for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(certificate)
    return context
