"""Updates that arrive in blocks: kept on disk block by block, asked for again when blocks stay away."""

import logging
from dataclasses import dataclass

from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.codecs import maximum_encoded_bytes
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.heads.head import HeadSpecification
from fedmedclip.protocol.messages import Block, BlockRequest, Update
from fedmedclip.protocol.objects import Assembly

ASK_AGAIN_SECONDS = 20.0

log = logging.getLogger("fedmedclip.aggregator")


class UploadDamagedError(MessageError):
    """The blocks of an update came twice, and both times they were not what was promised."""

    def __init__(self, round_number: int, reason: str) -> None:
        super().__init__(reason)
        self.round_number = round_number


@dataclass
class _Upload:
    update: Update
    assembly: Assembly
    last_heard: float
    came_damaged: bool = False


class Uploads:
    """At most one upload per site; a site that begins another forgets the one before."""

    def __init__(self, store: Store, specification: HeadSpecification) -> None:
        self._store = store
        self._maximum_bytes = maximum_encoded_bytes(specification)
        self._under_way: dict[str, _Upload] = {}
        for site, (update, blocks) in store.uploads().items():
            try:
                assembly = Assembly(update.payload, self._maximum_bytes)
                for index, data in blocks.items():
                    assembly.add(index, data)
            except MessageError as error:
                log.warning("the stored blocks of %s are damaged (%s); it sends them again", site, error)
                store.forget_upload(site)
                continue
            self._under_way[site] = _Upload(update, assembly, last_heard=0.0)

    def begin(self, site: str, update: Update, now: float) -> tuple[Update, bytes] | None:
        """Take an update's message; return the update and its payload when it is complete already.

        Raises MessageError when it promises more than the head can hold, UploadDamagedError as `add`.
        """
        under_way = self._under_way.get(site)
        if under_way is None or under_way.update != update:
            assembly = Assembly(update.payload, self._maximum_bytes)
            if assembly.complete:
                return update, assembly.data()
            self._store.begin_upload(site, update)
            self._under_way[site] = _Upload(update, assembly, now)
        return self._finish(site)

    def add(self, site: str, block: Block, now: float) -> tuple[Update, bytes] | None:
        """Store one block; return the update and its payload when this was the last.

        Raises MessageError when the block does not fit. Blocks that do not match the SHA-256 of their update
        are forgotten and asked for again: what an honest site sent can only have been damaged on the way
        to the disk or on it. Raises UploadDamagedError when that was so before: the site waits no longer.
        """
        upload = self._under_way.get(site)
        if upload is None or upload.assembly.digest != block.object_digest:
            return None
        upload.assembly.add(block.index, block.data)
        self._store.add_block(site, block.index, block.data)
        upload.last_heard = now
        return self._finish(site)

    def _finish(self, site: str) -> tuple[Update, bytes] | None:
        upload = self._under_way[site]
        if not upload.assembly.complete:
            return None
        try:
            payload = upload.assembly.data()
        except MessageError as error:
            self._store.forget_upload(site)
            if upload.came_damaged:
                del self._under_way[site]
                raise UploadDamagedError(upload.update.round_number, str(error)) from error
            log.warning("%s: %s; asking for its blocks again", site, error)
            self._store.begin_upload(site, upload.update)
            upload.came_damaged = True
            return None
        del self._under_way[site]
        return upload.update, payload

    def overdue(self, now: float) -> list[tuple[str, BlockRequest]]:
        """Return a request for the missing blocks of each upload that has been silent for too long."""
        requests = []
        for site, upload in self._under_way.items():
            if now - upload.last_heard >= ASK_AGAIN_SECONDS and (request := upload.assembly.request()):
                upload.last_heard = now
                requests.append((site, request))
        return requests

    def clear(self) -> None:
        """Forget all uploads: their round is closed (the store forgot them with it)."""
        self._under_way.clear()
