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
MOST_UNFINISHED_BYTES = 1 << 28
"""What all uploads under way may promise together: beyond it the most silent one makes way."""

log = logging.getLogger("fedmedclip.aggregator")


class UploadDamagedError(MessageError):
    """The blocks of an update came twice, and both times they were not what was promised."""

    def __init__(self, update: Update, reason: str) -> None:
        super().__init__(reason)
        self.update = update


@dataclass
class _Upload:
    update: Update
    assembly: Assembly
    last_heard: float
    came_damaged: bool = False


class Uploads:
    """At most one upload per site; a site that begins another forgets the one before, but for an earlier
    attempt at the same round: that is an old copy.
    """

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
        if under_way is not None and _is_earlier(update, under_way.update):
            return None
        if under_way is None or under_way.update != update:
            assembly = Assembly(update.payload, self._maximum_bytes)
            if assembly.complete:
                return update, assembly.data()
            self._make_room(site, _promised(update))
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

    def expects(self, site: str, block: Block) -> bool:
        """Whether a block belongs to what the site has under way."""
        upload = self._under_way.get(site)
        return upload is not None and upload.assembly.digest == block.object_digest

    def progress(self, site: str) -> tuple[Update, int] | None:
        """Return what a site has under way and how many of its blocks are here."""
        upload = self._under_way.get(site)
        return None if upload is None else (upload.update, upload.assembly.arrived)

    def forget(self, site: str) -> None:
        """Drop what a site has under way."""
        self._under_way.pop(site, None)
        self._store.forget_upload(site)

    def _make_room(self, site: str, size: int) -> None:
        others = {name: upload for name, upload in self._under_way.items() if name != site}
        promised = sum(_promised(upload.update) for upload in others.values())
        for name in sorted(others, key=lambda name: (others[name].last_heard, name)):
            if promised + size <= MOST_UNFINISHED_BYTES:
                return
            promised -= _promised(others[name].update)
            log.warning("%s: its unfinished update makes way for that of %s", name, site)
            self.forget(name)

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
                raise UploadDamagedError(upload.update, str(error)) from error
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


def _promised(update: Update) -> int:
    return len(update.payload) if isinstance(update.payload, bytes) else update.payload.size


def _is_earlier(update: Update, under_way: Update) -> bool:
    return update.round_number == under_way.round_number and update.attempt < under_way.attempt
