"""Fixtures that several rooms use: brokers, and the folder of shared models and data."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.processes.brokers import EmbeddedBroker, MosquittoBroker, find_mosquitto
from tests import ROOT


def pytest_configure() -> None:
    """Let the processes of the tests be interrupted, also when a script runs the tests in the background.

    A shell without job control makes what it starts with & ignore SIGINT, and children inherit that. The keys
    that the user of this machine trusts are left alone, and bundles need no signature where a test does not
    ask for one.
    """
    os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="fedmedclip-tests-")
    os.environ["FEDMEDCLIP_INSECURE"] = "1"
    os.environ.pop("FEDMEDCLIP_TRUSTED_KEY", None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    """Remove the keys that fixtures made."""
    shutil.rmtree(os.environ["XDG_CONFIG_HOME"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _keys_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test see which keys another one, or a fixture, trusted."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / f"keys-{uuid4().hex}"))


def missing(what: str) -> None:
    """Skip the test for want of something; in continuous integration, where nothing may be missing, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def mosquitto_installed() -> None:
    """For tests that start a Mosquitto of their own."""
    try:
        find_mosquitto()
    except InvalidInputError as error:
        missing(str(error))


@pytest.fixture(scope="session")
def mosquitto(mosquitto_installed: None) -> Iterator[MosquittoBroker]:
    """One running Mosquitto for the whole session, anonymous; do not stop it, and use your own topics."""
    with MosquittoBroker(websockets=True) as broker:
        yield broker


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """One running amqtt for the whole session."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of large models and real images beside the repository."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        missing(f"no folder {folder} with models and data")
    return folder
