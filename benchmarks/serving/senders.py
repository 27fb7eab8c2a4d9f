"""Clients of the three doors that send until they hear that it was taken, and note what was acknowledged."""

import http.client
import io
import json
import logging
import os
import random
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Any

from benchmarks.serving.pictures import DicomPicture

_PATIENCE_SECONDS = 30.0
_RETRY_SECONDS = 0.05


class Sender(Thread):
    """Sends pictures until it is stopped, and then what it has in hand until that is acknowledged.

    `acknowledged` has the number of the picture by what the door calls the file; `faults` say what was not
    as promised.
    """

    def __init__(self, seed: str, pictures: int, pause_seconds: float) -> None:
        super().__init__(daemon=True)
        self.acknowledged: dict[str, int] = {}
        self.faults: list[str] = []
        self.sent_again = 0
        self.ended_by: BaseException | None = None
        self._chance = random.Random(seed)
        self._pictures = pictures
        self._pause_seconds = pause_seconds
        self._stopped = Event()

    def run(self) -> None:
        """Send."""
        try:
            while not self._stopped.is_set():
                self.send(self._chance.randrange(self._pictures))
                self._stopped.wait(self._chance.expovariate(1 / self._pause_seconds))
        except BaseException as error:
            self.ended_by = error

    def send(self, picture: int) -> None:
        """Send one picture until it is acknowledged."""
        raise NotImplementedError

    def stop(self) -> None:
        """Send no more, and wait until what was begun is acknowledged. AssertionError where that never is."""
        self._stopped.set()
        self.join(4 * _PATIENCE_SECONDS)
        assert not self.is_alive(), f"{type(self).__name__} is never acknowledged"
        assert self.ended_by is None, f"{type(self).__name__} ended: {self.ended_by!r}"


class HttpSender(Sender):
    """Each request has an Idempotency-Key of its own; half of them do not wait for the answer."""

    def __init__(self, seed: str, port: int, jpegs: Sequence[bytes], pause_seconds: float) -> None:
        super().__init__(seed, len(jpegs), pause_seconds)
        self._port = port
        self._jpegs = jpegs

    def send(self, picture: int) -> None:
        """Send one, and of ten that were acknowledged one again: it has to be the same answer."""
        key, waits = uuid.uuid4().hex, self._chance.random() < 0.5
        identity = self._sent(key, picture, waits)
        self.acknowledged[identity] = picture
        if self._chance.random() < 0.1 and (again := self._sent(key, picture, waits)) != identity:
            self.faults.append(f"the key {key} has two answers: {identity}, {again}")

    def _sent(self, key: str, picture: int, waits: bool) -> str:
        headers = {"Content-Type": "image/jpeg", "Idempotency-Key": key}
        if not waits:
            headers["Prefer"] = "respond-async"
        while True:
            try:
                status, body = self._asked(headers, self._jpegs[picture])
            except (OSError, http.client.HTTPException, ValueError):
                self.sent_again += 1
                time.sleep(_RETRY_SECONDS)
                continue
            if status == 200:
                return str(body["answers"][0]["id"])
            if status == 202:
                return str(body["waiting"][0]["id"])
            if status != 503:
                # Of what is put aside: it has an answer, which says why.
                self.faults.append(f"HTTP {status}: {json.dumps(body)}")
                return str(body.get("id", key))
            time.sleep(_RETRY_SECONDS)

    def _asked(self, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_PATIENCE_SECONDS)
        try:
            connection.request("POST", "/v1/predict", body, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


class DicomSender(Sender):
    """A modality: one association for as long as it holds, each image with a SOP Instance UID of its own."""

    def __init__(
        self,
        seed: str,
        port: int,
        pictures: Sequence[DicomPicture],
        pause_seconds: float,
        called: str = "FEDMEDCLIP",
    ) -> None:
        from pynetdicom import AE
        from pynetdicom.sop_class import SecondaryCaptureImageStorage  # type: ignore[attr-defined]

        super().__init__(seed, len(pictures), pause_seconds)
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
        self._port = port
        self._called = called
        self._images = pictures
        self._entity = AE(ae_title="MODALITY")
        self._entity.acse_timeout = self._entity.dimse_timeout = self._entity.network_timeout = (
            _PATIENCE_SECONDS
        )
        self._entity.add_requested_context(SecondaryCaptureImageStorage, "1.2.840.10008.1.2.1")
        self._association: Any = None

    def send(self, picture: int) -> None:
        """Send one, and of ten that were acknowledged one again."""
        from pydicom import dcmread

        uid, content = self._images[picture].copy()
        image = dcmread(io.BytesIO(content))
        self._stored(image)
        self.acknowledged[uid] = picture
        if self._chance.random() < 0.1:
            self._stored(image)

    def release(self) -> None:
        """End the association, where there is one."""
        if self._association is not None and self._association.is_established:
            self._association.release()

    def _stored(self, image: Any) -> None:
        while True:
            if self._association is None or not self._association.is_established:
                self._association = self._entity.associate("127.0.0.1", self._port, ae_title=self._called)
            if self._association.is_established:
                try:
                    status = self._association.send_c_store(image)
                except (RuntimeError, ValueError):
                    # The association ended at this moment.
                    status = None
                if status is not None and "Status" in status:
                    if status.Status == 0x0000:
                        return
                    if status.Status != 0xA700:
                        self.faults.append(f"C-STORE {status.Status:#06x} {status.get('ErrorComment', '')}")
            self.sent_again += 1
            time.sleep(_RETRY_SECONDS)


class FolderSender(Sender):
    """Another program: most files are renamed into the folder whole, some grow in it."""

    def __init__(self, seed: str, folder: Path, jpegs: Sequence[bytes], pause_seconds: float) -> None:
        super().__init__(seed, len(jpegs), pause_seconds)
        self._folder = folder
        self._jpegs = jpegs

    def send(self, picture: int) -> None:
        """Write one."""
        name, content = f"{uuid.uuid4().hex}.jpg", self._jpegs[picture]
        if self._chance.random() < 0.2:
            half = len(content) // 2
            with (self._folder / name).open("wb", buffering=0) as file:
                file.write(content[:half])
                time.sleep(self._chance.uniform(0, 0.3))
                file.write(content[half:])
        else:
            hidden = self._folder / f".{name}"
            hidden.write_bytes(content)
            os.replace(hidden, self._folder / name)
        self.acknowledged[name] = picture
