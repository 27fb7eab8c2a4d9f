"""`fedmedclip serve health`: whether a service answers, by what a container's HEALTHCHECK can ask."""

import threading
from pathlib import Path
from socket import create_server

import msgspec
import pytest

from fedmedclip.edge_client.serving.health import http_fault, service_fault
from fedmedclip.edge_client.serving.http.settings import HttpSettings
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.state_folder import claim_state_folder
from tests.edge_client.serving.http.standin import Queue, door_of
from tests.edge_client.test_commands import fedmedclip
from tests.protocol.link.test_transports import make_certificate


@pytest.fixture
def queue(tmp_path):
    (tmp_path / "incoming").mkdir()
    return Queue(tmp_path / "incoming")


def free_port():
    with create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.fixture
def configuration(tmp_path):
    path = tmp_path / "serve.toml"

    def write(doors):
        path.write_text(f'[serve]\nbundle = "bundle"\nstate = "state"\n{doors}\n')
        return path

    return write


def test_a_door_that_is_ready_has_no_fault(queue):
    with door_of(queue) as door:
        assert http_fault(HttpSettings(port=door.port)) is None
    with door_of(queue, fault=lambda: "no heads") as door:
        assert http_fault(HttpSettings(port=door.port)) == "it answers 503 Service Unavailable"
    assert "Connection refused" in http_fault(HttpSettings(port=free_port()))


@pytest.mark.parametrize("with_clients", [False, True])
def test_a_door_with_tls_is_known_by_its_certificate(tmp_path, queue, with_clients):
    root = make_certificate(tmp_path, "root", None)
    server, other = make_certificate(tmp_path, "server", root), make_certificate(tmp_path, "other", root)
    Path(server.key_file).chmod(0o600)
    settings = HttpSettings(
        certificate_file=server.certificate_file, key_file=server.key_file,
        client_ca_file=root.certificate_file if with_clients else None,
    )  # fmt: skip
    with door_of(queue, settings) as door:
        open_at = msgspec.structs.replace(settings, port=door.port)
        assert http_fault(open_at) is None
        replaced = msgspec.structs.replace(open_at, certificate_file=other.certificate_file)
        assert with_clients or "CERTIFICATE_VERIFY_FAILED" in http_fault(replaced)
    assert "Connection refused" in http_fault(open_at)


def test_what_does_not_speak_http_is_a_fault():
    with create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        threading.Thread(target=lambda: silent.accept()[0].close(), daemon=True).start()
        assert http_fault(HttpSettings(port=port)) is not None


def test_a_service_answers_when_it_runs_and_its_doors_are_open(tmp_path, configuration):
    path = configuration("[folder]\npath = '.'")
    assert service_fault(path) == f"no service works with {tmp_path / 'state'}"
    with claim_state_folder(tmp_path / "state"):
        assert service_fault(path) is None
        closed = configuration(f"[dicom]\nae_title = 'NODE'\nport = {free_port()}\n")
        assert service_fault(closed).startswith("DICOM: 127.0.0.1 port ")
        with create_server(("127.0.0.1", 0)) as node:
            port = node.getsockname()[1]
            assert service_fault(configuration(f"[dicom]\nae_title = 'NODE'\nport = {port}\n")) is None
    with pytest.raises(InvalidInputError):
        service_fault(configuration("[http]\nport = -1"))


def test_the_command_says_it_by_its_exit_code(tmp_path, configuration):
    path = configuration("[folder]\npath = '.'")
    done = fedmedclip("serve", "health", "--config", path, without_extras=True)
    assert (done.returncode, done.stdout) == (
        1, f"it does not answer: no service works with {tmp_path / 'state'}\n",
    )  # fmt: skip
    with claim_state_folder(tmp_path / "state"):
        assert fedmedclip("serve", "health", "--config", path, without_extras=True).returncode == 0
