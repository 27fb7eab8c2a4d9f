"""Names planted in DICOM headers are looked for in logs, state, feature store, results and on the wire."""

import socket
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pydicom
import pytest
import zstandard
from pydicom.data import get_testdata_file

from fedmedclip.edge_client.images.split import read_split
from fedmedclip.edge_client.inference.evaluation import run_evaluation
from fedmedclip.edge_client.inference.prediction import run_prediction
from fedmedclip.edge_client.learning.floors import NO_FLOORS
from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.protocol.pages.settings import ADDRESS_FILE
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from fedmedclip.simulation.processes.commands import all_ended, start_command
from fedmedclip.simulation.processes.configurations import (
    write_aggregator_configuration,
    write_site_configuration,
)
from tests.edge_client.conftest import CLASS_NAMES, write_tiny_bundle

PLANTED = {
    "PatientName": "Quillfeather^Ottoline",
    "PatientID": "PID-7193-XYZZY",
    "PatientBirthDate": "19430704",
    "InstitutionName": "Wychwood Infirmary",
    "ReferringPhysicianName": "Thistlewick^Barnaby",
    "AccessionNumber": "ACC88215531",
    "PatientComments": "collapsed at the harvest supper",
    "StudyDescription": "Head of Ms Quillfeather",
}
SECRETS = sorted(
    {*PLANTED.values(), "Quillfeather", "Ottoline", "XYZZY", "Wychwood", "Thistlewick", "harvest"}
)
FILE_NAME = "lindenmayer-home-visit"
DEADLINE_SECONDS = 90.0


def plant(path: Path, seed: int, **spoiled: str) -> None:
    """Write a real CT image with planted names; `spoiled` puts text where something else belongs."""
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    for keyword, value in PLANTED.items():
        setattr(dataset, keyword, value)
    noise = np.random.default_rng(seed).integers(0, 2000, dataset.pixel_array.shape, dtype=np.int16)
    dataset.PixelData = (dataset.pixel_array // 2 + noise // (1 + seed % 3)).astype("<i2").tobytes()
    dataset.preamble = b"Quillfeather".ljust(128, b"\0")
    private = dataset.private_block(0x0011, "Thistlewick", create=True)
    private.add_new(0x01, "LO", "Quillfeather")
    for keyword, value in spoiled.items():
        dataset[keyword] = pydicom.DataElement(keyword, "LO", value)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for label, name in enumerate(CLASS_NAMES):
        for number in range(4):
            patient = f"{PLANTED['PatientID']}-{label}-{number // 2}"
            plant(folder / name / f"{FILE_NAME}-{number}.dcm", 10 * label + number, PatientID=patient)
    # Files whose refusal could quote what they hold.
    damaged = folder / CLASS_NAMES[0]
    plant(damaged / "window.dcm", 91, WindowCenter="Quillfeather", WindowWidth="Ottoline")
    plant(damaged / "rows.dcm", 92, Rows="Quillfeather")
    plant(damaged / "frames.dcm", 93, NumberOfFrames="Ottoline")
    plant(damaged / "colours.dcm", 94, PhotometricInterpretation="Quillfeather")
    plant(damaged / "slope.dcm", 95, RescaleSlope="Wychwood")
    content = (damaged / f"{FILE_NAME}-0.dcm").read_bytes()
    (damaged / "cut.dcm").write_bytes(content[:-9000])
    (damaged / "syntax.dcm").write_bytes(content.replace(b"1.2.840.10008.1.2.1", b"Quillfeather^Ottoli"))
    return folder


@contextmanager
def recording_proxy(target_port: int) -> Iterator[tuple[int, bytearray]]:
    """Give a port that leads to the broker, and all bytes that went through in either direction."""
    recorded = bytearray()
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while content := source.recv(65536):
                recorded.extend(content)
                target.sendall(content)
        except OSError:
            pass
        finally:
            target.close()

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", target_port))
            threading.Thread(target=pump, args=(client, server), daemon=True).start()
            threading.Thread(target=pump, args=(server, client), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1], recorded
    finally:
        listener.close()


def unpacked(content: bytes) -> bytes:
    """The content and, behind it, whatever zstandard frames in it hold."""
    found, at = bytearray(content), -1
    while (at := content.find(b"\x28\xb5\x2f\xfd", at + 1)) >= 0:
        try:
            found += zstandard.ZstdDecompressor().decompressobj().decompress(content[at:])
        except zstandard.ZstdError:
            continue
    return bytes(found)


def shown_by(state: Path) -> bytes:
    """What the page of a running party shows at this moment, nothing where it has none."""
    found = bytearray()
    try:
        address = (state / ADDRESS_FILE).read_text().strip()
        for path in ("", "api/status", "api/happenings", "metrics"):
            with urlopen(address + path, timeout=10.0) as answer:
                found += answer.read()
    except (OSError, ValueError):
        return bytes(found)
    return bytes(found)


def assert_silent(where: str, content: bytes, words: list[str] = SECRETS) -> None:
    for word in words:
        for encoding in ("utf-8", "utf-16-le"):
            assert word.encode(encoding) not in content, f"{where} holds {word!r}"
        assert word.encode().hex().encode() not in content.lower(), f"{where} holds {word!r} in hexadecimal"


@pytest.mark.slow
def test_a_federation_gives_nothing_of_a_header_away(
    tmp_path: Path, data: Path, mosquitto_installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "always")
    bundle = write_tiny_bundle(tmp_path / "bundle").folder
    with MosquittoBroker() as broker, recording_proxy(broker.port) as (port, wire):
        write_aggregator_configuration(
            tmp_path / "aggregator" / "aggregator.toml",
            federation="trial", bundle=bundle, method="fedmedclip", rounds=2, sites=1, seed=3,
            broker=LinkSettings(host=broker.host, port=broker.port), page=True,
        )  # fmt: skip
        write_site_configuration(
            tmp_path / "site" / "site.toml",
            federation="trial", site="site-a", bundle=bundle, data=data, seed=3,
            broker=LinkSettings(host=broker.host, port=port), floors=NO_FLOORS,
        )  # fmt: skip
        processes = [
            start_command(room, [room, "--config", str(tmp_path / room / f"{room}.toml"), "--once", *more],
                          tmp_path / "logs")
            for room, more in (("aggregator", []), ("site", ["--verbose"]))
        ]  # fmt: skip
        until, shown = time.monotonic() + DEADLINE_SECONDS, bytearray()
        while not all_ended(processes):
            assert time.monotonic() < until, (tmp_path / "logs" / "site.log").read_text()
            shown += shown_by(tmp_path / "aggregator")
            time.sleep(0.2)
    log = (tmp_path / "logs" / "site.log").read_text()
    assert "5 skipped" in log or "6 skipped" in log or "7 skipped" in log, log
    recorded = read_split(tmp_path / "site" / "split.csv")
    assert {image.reason for image, _ in recorded.values()} == {"patient"}
    parts: dict[str, set[str]] = {}
    for image, part in recorded.values():
        parts.setdefault(image.group, set()).add(part)
    assert all(len(found) == 1 for found in parts.values())
    key = (tmp_path / "site" / "groups.key").read_bytes()
    assert len(key) == 32
    assert key not in bytes(wire)
    assert not any(group.encode() in bytes(wire) for group in parts)
    assert len(wire) > 1000
    assert_silent("the wire", unpacked(bytes(wire)), [*SECRETS, FILE_NAME])
    assert b"site-a" in shown
    assert_silent("the page", bytes(shown), [*SECRETS, FILE_NAME])
    files = [path for folder in ("logs", "site", "aggregator") for path in (tmp_path / folder).rglob("*")]
    assert {"features.db", "site.db", "heads.safetensors", "site.log"} <= {path.name for path in files}
    for path in files:
        if path.is_file():
            assert_silent(path.name, unpacked(path.read_bytes()))
    assert_silent("the feature store", (tmp_path / "site" / "features.db").read_bytes(), [FILE_NAME])


def test_classifying_and_measuring_give_nothing_of_a_header_away(
    tmp_path: Path, data: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle").folder
    caplog.set_level(0)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run_prediction([str(data)], bundle, None, "jsonl", tmp_path / "predictions.jsonl", 1)
        run_evaluation(data, bundle, None, tmp_path / "figures.json", 1)
    assert (tmp_path / "predictions.jsonl").read_text().count("\n") >= 12
    captured = capfd.readouterr()
    assert "skipped" in captured.err
    everything = [captured.out, captured.err, caplog.text, *(str(warning.message) for warning in warned)]
    everything += [(tmp_path / name).read_text() for name in ("predictions.jsonl", "figures.json")]
    assert_silent("what was said", "\n".join(everything).encode())
