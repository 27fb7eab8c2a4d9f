"""Clients that mean no good, or are broken: mutated HTTP, DICOM and files, each a thread."""

import io
import os
import random
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import numpy as np
from PIL import Image

from benchmarks.fuzz.mutations import mutated_bytes
from benchmarks.serving.http_traffic import request
from benchmarks.serving.pdus import association_request, data_pdu, store_command
from benchmarks.serving.pictures import DicomPicture

_SECONDS = 2.0
_REMEMBERED = 64
_READ_BYTES = 1 << 16
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_EXPLICIT = "1.2.840.10008.1.2.1"
_PREAMBLE_BYTES = 132
_PDU_BYTES = 16_000
_HTTP_PARTS = (
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Expect: 100-continue\r\n",
    b"Prefer: wait=0\r\n",
    b"Idempotency-Key: k\r\n", b"Connection: close\r\n", b"Content-Encoding: gzip\r\n",
    b"Upgrade: websocket\r\n",
    b"Origin: http://evil.example\r\n", b"Host: evil.example\r\n", b"X: " + b"y" * 20_000 + b"\r\n",
    b"Range: bytes=0-\r\n", b"Prefer: respond-async, wait=1e9\r\n",
)  # fmt: skip
_PATHS = (
    b"/v1/predict", b"/v1/predict?explain=1", b"/v1/predict?wait=0", b"/v1/answers/" + b"0" * 32,
    b"/v1/health",
    b"/v1/model", b"/metrics", b"/openapi.json", b"/v1/answers/../../etc/passwd", b"*", b"//",
    b"/%00", b"/\xff",
)  # fmt: skip
_NAMES = (
    b"\xff\xfe.jpg", b"new\nline.jpg", b"-rf.jpg", b"$(id).jpg", b"=1+1.jpg", b" .jpg", b"a" * 250 + b".jpg",
    "\u202egpj.exe.jpg".encode(), b"other.json", b"answers.csv.jpg", b"CON.jpg", b"x.JPG", b"x.dcm", b"x.png",
    b"x.tif", b"x.nii", b"x.nii.gz", b"x.npz", b"x.gif", b"x.bmp", b"x.webp", b"x.mha", b"x.jp2", b"noending",
)  # fmt: skip


class HostileClient(Thread):
    """Plays one hostile input after the other. `recent` are the last ones; `played` counts them."""

    def __init__(self, seed: str) -> None:
        super().__init__(daemon=True)
        self.chance = random.Random(seed)
        self.recent: deque[bytes] = deque(maxlen=_REMEMBERED)
        self.played = 0
        self.ended_by: BaseException | None = None
        self.heard: Counter[str] = Counter()
        self._stopped = Event()

    def run(self) -> None:
        """Play."""
        try:
            while not self._stopped.is_set():
                self.play()
                self.played += 1
        except BaseException as error:
            self.ended_by = error

    def play(self) -> None:
        """Play one input."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop, and raise what ended it before."""
        self._stopped.set()
        self.join(10 * _SECONDS)
        assert self.ended_by is None, f"{type(self).__name__} ended: {self.ended_by!r}"

    def mutated(self, content: bytes, other: bytes) -> bytes:
        """Return a content with one to three mutations."""
        for _ in range(self.chance.choice((1, 1, 1, 2, 3))):
            content = mutated_bytes(content, other, self.chance)
        return content

    def sent(self, port: int, pieces: Sequence[bytes]) -> bytes:
        """Send pieces on a new connection, leave early or read what comes; return what was heard."""
        self.recent.append(b"".join(pieces))
        heard = b""
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), _SECONDS) as connection:
            for piece in pieces:
                connection.sendall(piece)
                if self.chance.random() < 0.05:
                    time.sleep(self.chance.uniform(0, 0.2))
            manner = self.chance.random()
            if manner < 0.1:
                # A reset in place of an end.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            elif manner < 0.8:
                if manner < 0.4:
                    connection.shutdown(socket.SHUT_WR)
                connection.settimeout(self.chance.choice((0.05, 0.3, _SECONDS)))
                while len(heard) < _READ_BYTES and (data := connection.recv(_READ_BYTES)):
                    heard += data
        return heard


class HostileHttp(HostileClient):
    """Mutated requests: raw bytes, parts, chunks, several at once, headers that contradict each other."""

    def __init__(self, seed: str, port: int, bodies: Sequence[bytes]) -> None:
        super().__init__(seed)
        self._port = port
        self._bodies = bodies

    def play(self) -> None:
        """Send one connection's bytes."""
        requests = [self._request() for _ in range(self.chance.choice((1, 1, 1, 2, 5)))]
        heard = self.sent(self._port, requests)
        self.heard[heard[9:12].decode("latin-1") if heard.startswith(b"HTTP/1.1 ") else "nothing"] += 1

    def _request(self) -> bytes:
        body = self.chance.choice(self._bodies)
        kind = self.chance.randrange(6)
        if kind == 0:
            return self.mutated(request(self._port, body), self.chance.choice(self._bodies))
        if kind == 1:
            return request(self._port, self.mutated(body, self.chance.choice(self._bodies)))
        if kind == 2:
            return self._chunked(body)
        if kind == 3:
            return self._multipart(body)
        head, _, rest = request(self._port, body).partition(b"\r\n")
        if kind == 4:
            extra = b"".join(self.chance.choices(_HTTP_PARTS, k=self.chance.randint(1, 3)))
            return head + b"\r\n" + extra + rest
        method = self.chance.choice(
            (b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"get", b"CONNECT", b"PRI")
        )
        return method + b" " + self.chance.choice(_PATHS) + b" HTTP/1.1\r\n" + rest

    def _chunked(self, body: bytes) -> bytes:
        lines = [
            b"POST /v1/predict HTTP/1.1", f"Host: 127.0.0.1:{self._port}".encode(),
            b"Content-Type: image/jpeg",
            b"Transfer-Encoding: chunked", b"", b"",
        ]  # fmt: skip
        chunks, step = b"", self.chance.choice((1000, 5000, 100_000))
        for start in range(0, len(body), step):
            piece = body[start : start + step]
            chunks += b"%x\r\n%s\r\n" % (len(piece) + (self.chance.random() < 0.05), piece)
        end = self.chance.choice(
            (b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"-1\r\n\r\n", b"ffffffffffffffff\r\n", b"")
        )
        return b"\r\n".join(lines) + chunks + end

    def _multipart(self, body: bytes) -> bytes:
        files = self.chance.randint(0, 3)
        part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n'
        whole = b"".join(part % (self.chance.choice(_NAMES), body) for _ in range(files)) + b"--b--\r\n"
        if self.chance.random() < 0.6:
            whole = self.mutated(whole, b"--b\r\n\r\n--b--")
        boundary = self.chance.choice(("b", "b", "b", "", "x" * 80, '"b"'))
        return request(self._port, whole, f"multipart/form-data; boundary={boundary}")


class HostileDicom(HostileClient):
    """Mutated associations, messages and data sets."""

    def __init__(self, seed: str, port: int, pictures: Sequence[DicomPicture]) -> None:
        super().__init__(seed)
        self._port = port
        self._pictures = pictures

    def play(self) -> None:
        """Open an association and send one to three images, in which something is wrong."""
        pieces = [association_request(sop_class=_SECONDARY_CAPTURE, syntax=_EXPLICIT)]
        where = self.chance.randrange(4)
        for _ in range(self.chance.choice((1, 1, 2, 3))):
            uid, content = self.chance.choice(self._pictures).copy()
            data_set = _data_set(content)
            if where == 0:
                data_set = self.mutated(data_set, self.chance.choice(self._pictures).content)
            pieces.append(store_command(sop_class=_SECONDARY_CAPTURE, instance=uid))
            starts = range(0, len(data_set), _PDU_BYTES)
            pieces += [
                data_pdu(data_set[start : start + _PDU_BYTES], last=start + _PDU_BYTES >= len(data_set))
                for start in starts
            ]
        if where == 1:
            pieces = [self.mutated(b"".join(pieces), association_request())]
        elif where == 2:
            pieces[self.chance.randrange(len(pieces))] = self.mutated(self.chance.choice(pieces), pieces[0])
        elif where == 3:
            self.chance.shuffle(pieces)
        heard = self.sent(self._port, pieces)
        self.heard[f"PDU {heard[0]}" if heard else "nothing"] += 1


class HostileFiles(HostileClient):
    """Files of odd names and contents: partial, swapped, grown, removed, links, pipes, folders."""

    def __init__(self, seed: str, folder: Path, contents: Sequence[bytes], most: int = 3000) -> None:
        super().__init__(seed)
        self._folder = os.fsencode(folder)
        self._contents = [*contents, *_other_kinds()]
        self._most = most
        os.makedirs(self._folder, exist_ok=True)

    def play(self) -> None:
        """Do one thing to the folder."""
        acts: tuple[Callable[[bytes], None], ...] = (
            self._write, self._write, self._write, self._grow, self._swap, self._remove, self._other,
        )  # fmt: skip
        name = self.chance.choice(_NAMES)
        if self.chance.random() < 0.8:
            name = b"%d-%s" % (self.chance.randrange(self._most), name[-200:])
        path = os.path.join(self._folder, *([b"below"] if self.chance.random() < 0.2 else []), name)
        with suppress(OSError):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self.chance.choice(acts)(path)
        time.sleep(self.chance.uniform(0, 0.1))

    def _content(self) -> bytes:
        content = self.chance.choice(self._contents)
        if self.chance.random() < 0.7:
            content = self.mutated(content, self.chance.choice(self._contents))
        if self.chance.random() < 0.2:
            content = content[: self.chance.randrange(len(content) + 1)]
        self.recent.append(content)
        return content

    def _write(self, path: bytes) -> None:
        with _opened(path) as file:
            file.write(self._content())

    def _grow(self, path: bytes) -> None:
        content = self._content()
        with _opened(path) as file:
            for start in range(0, len(content), 1 + len(content) // 3):
                file.write(content[start : start + 1 + len(content) // 3])
                time.sleep(self.chance.uniform(0, 0.4))

    def _swap(self, path: bytes) -> None:
        for _ in range(5):
            other = path + b".part"
            with _opened(other) as file:
                file.write(self._content())
            os.replace(other, path)
            time.sleep(self.chance.uniform(0, 0.3))

    def _remove(self, path: bytes) -> None:
        found = os.listdir(self._folder)
        os.unlink(os.path.join(self._folder, self.chance.choice(found)))

    def _other(self, path: bytes) -> None:
        # No answer's own name: a thing in its place holds the answer up until a person moves it away.
        kind = self.chance.randrange(3)
        if kind == 0:
            os.symlink(self.chance.choice((b"/etc/passwd", b"/dev/zero", path, b"missing")), path)
        elif kind == 1:
            os.mkfifo(path)
        else:
            os.mkdir(path)


def _opened(path: bytes) -> io.FileIO:
    """Open a file to write; OSError for a pipe that nobody reads, which would hold up."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK
    return io.FileIO(os.open(path, flags, 0o644), "w")


def _data_set(content: bytes) -> bytes:
    """Return the data set of a DICOM file without preamble and file meta information."""
    length = int.from_bytes(content[_PREAMBLE_BYTES + 8 : _PREAMBLE_BYTES + 12], "little")
    return content[_PREAMBLE_BYTES + 12 + length :]


def _other_kinds() -> list[bytes]:
    pixels = (np.arange(40 * 50 * 3).reshape(40, 50, 3) % 251).astype(np.uint8)
    kinds = []
    for kind in ("PNG", "TIFF", "GIF", "BMP", "WEBP"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        kinds.append(file.getvalue())
    archive = io.BytesIO()
    np.savez(archive, images=pixels[None])
    return [*kinds, archive.getvalue()]
