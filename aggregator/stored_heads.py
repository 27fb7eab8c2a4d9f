"""The heads of earlier versions, made again from what is stored."""

from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.codecs import decode_head
from fedmedclip.protocol.codecs.error_feedback import apply_delta
from fedmedclip.protocol.errors import CodecError, InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, head_digest


def head_at(store: Store, specification: HeadSpecification, version: int) -> NamedArrays:
    """Return the head of a version: the last that is kept whole, and the deltas after it, each proved.

    Raises InvalidInputError when what leads there is not all here.
    """
    kept, newest = store.whole_head_before(version), store.newest_version().version
    if kept is None or version > newest:
        raise InvalidInputError(f"version {version} is not here; the newest is {newest}")
    found, head = kept[0], specification.from_bytes(kept[1])
    for stored in store.versions_after(found):
        if stored.version > version:
            break
        if stored.version != found + 1 or not stored.payload:
            break
        try:
            delta = decode_head(stored.payload, specification)
        except CodecError:
            break
        head = apply_delta(head, delta, specification)
        if head_digest(head) != stored.head_digest:
            break
        found = stored.version
    if found != version:
        raise InvalidInputError(
            f"version {version} cannot be made again: the change from version {found} to {found + 1} is "
            "not here, or damaged"
        )
    return head
