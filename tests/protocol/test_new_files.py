"""Whatever a path names, writing to it does what a person expects, or is refused: one rule for all."""

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fedmedclip.protocol.new_files import new_file, new_text_file, write_new_file
from fedmedclip.protocol.paths import descriptor_of, is_stream, path_fault


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_there_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".csv")
    write_new_file(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == [path.name]
    before = os.umask(0o027)
    try:
        write_new_file(tmp_path / "other", b"")
    finally:
        os.umask(before)
    assert mode(tmp_path / "other") == 0o640


def test_an_earlier_file_keeps_its_permissions_and_stays_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"earlier")
    path.chmod(0o604)

    def fail() -> None:
        with new_file(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == ["file"]
    write_new_file(path, b"later")
    assert (path.read_bytes(), mode(path)) == (b"later", 0o604)
    write_new_file(path, b"secret", private=True)
    assert mode(path) == 0o600


def test_what_a_kill_left_of_a_file_is_gone_after_the_next_try(tmp_path: Path) -> None:
    path, other = tmp_path / ("n" * 200 + "1"), tmp_path / ("n" * 200 + "2")
    killed = """
import os, pathlib, sys
from fedmedclip.protocol.new_files import new_file
with new_file(pathlib.Path(sys.argv[1]), alone=True) as file:
    file.write(b"half")
    file.flush()
    os._exit(1)
"""
    for target in (path, other):
        subprocess.run([sys.executable, "-c", killed, target], check=False)
    left = [tmp_path / name for name in os.listdir(tmp_path)]
    assert len(left) == 2
    # Others may write into the folder: what lies there now leads elsewhere.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"as it was")
    for partial in left:
        partial.unlink()
        partial.symlink_to(elsewhere)
    for target in (path, other):
        write_new_file(target, b"whole", alone=True)
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, other.name, "elsewhere"])
    assert (path.read_bytes(), elsewhere.read_bytes()) == (b"whole", b"as it was")


def test_a_link_is_followed_and_one_to_nothing_refused(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"earlier")
    (tmp_path / "link").symlink_to("other-link")
    (tmp_path / "other-link").symlink_to(tmp_path / "target")
    write_new_file(tmp_path / "link", b"later")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"later"
    (tmp_path / "target").unlink()
    with pytest.raises(OSError, match="is a link to what does not exist"):
        write_new_file(tmp_path / "link", b"")
    assert "is a link to what does not exist" in str(path_fault(tmp_path / "link", "output file"))


def test_a_named_pipe_is_written_through_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert path_fault(pipe, "output file") is None
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    with new_text_file(pipe) as file:
        file.write("through é")
    reader.join(10)
    assert received == ["through é".encode()]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_is_written_through_and_stays() -> None:
    before = os.lstat("/dev/null")
    write_new_file(Path("/dev/null"), b"away")
    assert stat.S_ISCHR(os.lstat("/dev/null").st_mode)
    assert os.lstat("/dev/null").st_ino == before.st_ino
    assert path_fault(Path("/dev/null"), "output file") is None


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name, words in (("socket", "is a socket"), (".", "is a folder")):
            assert words in str(path_fault(tmp_path / name, "output file"))
            with pytest.raises(OSError, match=words):
                write_new_file(tmp_path / name, b"")


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "{link}"])
@pytest.mark.parametrize("kind", ["pipe", "file", "socket"])
def test_standard_output_by_its_name_is_written_to_where_it_stands(
    tmp_path: Path, name: str, kind: str
) -> None:
    link = tmp_path / "link"
    link.symlink_to("/dev/stdout")
    before = os.readlink("/dev/stdout")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from fedmedclip.protocol.new_files import write_new_file\n"
        "from fedmedclip.protocol.paths import path_fault\n"
        "path = Path(sys.argv[1])\nprint('before')\n"
        "fault = path_fault(path, 'output file')\nassert fault is None, fault\n"
        "write_new_file(path, b'written\\n')\nprint('after')\n"
    )
    command = [sys.executable, "-c", code, name.format(link=link)]
    if kind == "pipe":
        found = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    elif kind == "socket":
        ours, theirs = socket.socketpair()
        with ours, theirs:
            subprocess.run(command, stdout=theirs.fileno(), check=True)
            found = ours.recv(100)
    else:
        file = tmp_path / "log"
        file.write_bytes(b"earlier\n")
        with file.open("ab") as output:
            subprocess.run(command, stdout=output, check=True)
        found = file.read_bytes().removeprefix(b"earlier\n")
    assert found == b"before\nwritten\nafter\n"
    assert os.readlink("/dev/stdout") == before
    assert link.is_symlink()


def test_a_file_in_dev_is_a_file(tmp_path: Path) -> None:
    for path in (tmp_path / "1", Path("/dev/shm") / "1"):
        assert descriptor_of(path) is None
        assert not is_stream(path)
