"""The brokers that we start ourselves."""

import socket
from pathlib import Path

import pytest

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.processes.brokers import EmbeddedBroker, MosquittoBroker, free_port


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5.0).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("kind", [EmbeddedBroker, MosquittoBroker])
def test_a_broker_lives_as_long_as_its_block(
    kind: type[EmbeddedBroker | MosquittoBroker], request: pytest.FixtureRequest
) -> None:
    if kind is MosquittoBroker:
        request.getfixturevalue("mosquitto_installed")
    with kind() as broker:
        port, folder = broker.port, broker.log_file.parent
        assert answers(port)
        broker.kill()
        assert not answers(port)
        broker.restart()
        assert answers(port)
        broker.stop()
        assert not answers(port)
        broker.start()
    assert not answers(port)
    assert not folder.exists()


def test_the_embedded_broker_is_quiet(embedded_broker: EmbeddedBroker) -> None:
    with socket.create_connection((embedded_broker.host, embedded_broker.port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert embedded_broker.log_file.read_text() == ""


def test_a_broker_that_cannot_start_says_why(mosquitto_installed: None) -> None:
    with (
        pytest.raises(InvalidInputError, match=r"does not start .*no_such_setting"),
        MosquittoBroker(settings=["no_such_setting 1"]),
    ):
        pass
    with (
        socket.create_server(("127.0.0.1", 0)) as occupied,
        pytest.raises(InvalidInputError, match="in use"),
        MosquittoBroker(port=occupied.getsockname()[1]),
    ):
        pass


def test_without_mosquitto_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmedclip.simulation.processes.brokers.shutil.which", lambda name, path: None)
    with pytest.raises(InvalidInputError, match="install mosquitto or use --broker embedded"):
        MosquittoBroker()


def test_ports_are_free() -> None:
    assert not answers(free_port())
