"""What virtual sites keep between rounds, as files: ten thousand sites would not fit into memory."""

from pathlib import Path

import msgspec

from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.simulation.federation.coders import Kept
from fedmedclip.simulation.federation.trainer import Trainer


class SiteStates:
    """Private heads with what stands beside them, and what the encoders keep, by site.

    And for sites that are away, the head they hold.
    """

    def __init__(self, folder: Path, trainer: Trainer) -> None:
        self._folder = folder
        self._trainer = trainer
        self._shared = trainer.shared_specification
        self._private = trainer.private_specification
        self._versions_held: dict[str, int] = {}

    def load(self, site: str) -> tuple[NamedArrays, Kept]:
        """Return the private head, the first one before anything was saved, and what the encoder keeps."""
        if not (file := self._folder / f"{site}.site").exists():
            return self._trainer.initial_private(site), Kept()
        private, residual, memory = msgspec.msgpack.decode(
            file.read_bytes(), type=tuple[bytes, bytes | None, bytes]
        )
        owed = None if residual is None else self._shared.from_bytes(residual)
        return self._private.from_bytes(private), Kept(owed, memory)

    def save(self, site: str, private: NamedArrays, kept: Kept) -> None:
        """Keep a site's private head and what its encoder keeps."""
        residual = None if kept.residual is None else self._shared.to_bytes(kept.residual)
        state = (self._private.to_bytes(private), residual, kept.memory)
        (self._folder / f"{site}.site").write_bytes(msgspec.msgpack.encode(state))

    def leave(self, site: str, version: int, head: NamedArrays) -> None:
        """Keep the version of the shared head that a site holds when it goes offline."""
        self._versions_held[site] = version
        if not (file := self._head_file(version)).exists():
            file.write_bytes(self._shared.to_bytes(head))

    def held(self, site: str) -> tuple[int, NamedArrays] | None:
        """Return version and shared head that a site held when it left; None for a new one."""
        if (version := self._versions_held.get(site)) is None:
            return None
        return version, self._shared.from_bytes(self._head_file(version).read_bytes())

    def _head_file(self, version: int) -> Path:
        return self._folder / f"{version}.head"
