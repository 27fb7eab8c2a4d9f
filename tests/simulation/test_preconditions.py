"""A long command says what it lacks before it makes anything."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.preconditions import require_broker, require_disk, require_packages
from fedmedclip.simulation.processes.brokers import free_port
from tests import ROOT


def fedmedclip_without(modules: list[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({modules}))\n"
        f"sys.argv = ['fedmedclip', *{[str(argument) for argument in arguments]!r}]\n"
        "from fedmedclip.command import main; main()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize(
    ("missing", "command", "words"),
    [
        (["torch", "open_clip"], ["demo"], "the demo needs torch, open_clip, not installed"),
        (["amqtt"], ["demo"], "the demo needs amqtt"),
        (["amqtt", "torch"], ["demo", "--broker", "mosquitto"], "the demo needs torch, not installed"),
        (["open_clip"], ["demo", "--broker", "127.0.0.1:{port}"], "the demo needs open_clip"),
        ([], ["demo", "--broker", "127.0.0.1:{port}"], "no broker answers at --broker 127.0.0.1:"),
        (["matplotlib"], ["bench", "bandwidth"], "bench bandwidth needs matplotlib"),
        (["matplotlib", "open_clip"], ["bench", "accuracy"], "bench accuracy needs matplotlib, open_clip"),
    ],
)
def test_what_is_missing_is_said_before_an_image_is_made(
    tmp_path: Path, missing: list[str], command: list[str], words: str
) -> None:
    out = tmp_path / "out"
    filled = [part.format(port=free_port()) for part in command]
    done = fedmedclip_without(missing, *filled, "--out", out)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert not (out / "images").exists()
    assert not (out / "phantoms").exists()


def test_disk_and_broker(tmp_path: Path) -> None:
    require_disk(tmp_path / "new" / "folder", 1)
    with pytest.raises(InvalidInputError, match=r"MB free, about 1000000000 MB are needed"):
        require_disk(tmp_path / "new" / "folder", 1_000_000_000)
    with socket.create_server(("127.0.0.1", 0)) as server:
        require_broker(f"127.0.0.1:{server.getsockname()[1]}")
    require_packages("this test", "dev", "pytest", "socket")
