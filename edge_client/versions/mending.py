"""What a kill left to be done, what was damaged, and heads that somebody put in place as a file."""

import logging
import os
import time
from pathlib import Path

from fedmedclip.edge_client.heads.heads_file import read_heads_metadata
from fedmedclip.edge_client.versions.catalogue import Catalogue
from fedmedclip.edge_client.versions.folder import VersionFolder, sha256
from fedmedclip.edge_client.versions.held import HeldVersions
from fedmedclip.edge_client.versions.records import Verdict, VersionRecord
from fedmedclip.protocol.errors import HeadError

log = logging.getLogger("fedmedclip.site")


def mend(held: HeldVersions, *, thorough: bool) -> None:
    """Let folder and heads file say the same; `thorough`, the active version's own file is read for it."""
    folder, catalogue, digest = held.folder, held.catalogue, held.heads_digest
    active = catalogue.active
    if active is not None and digest == active.sha256:
        if (thorough and folder.fault(active)) or not folder.is_there(active):
            log.warning("%s; it is written again, of %s", folder.fault(active), folder.heads)
            held.put(active, folder.heads_content() or b"")
        return
    if digest not in ("", catalogue.before) and _take_over(held, folder.heads_content() or b""):
        return
    while (active := catalogue.active) is not None and (fault := folder.fault(active)):
        log.warning("%s; the version that was active before takes its place", fault)
        catalogue.history.pop()
    if active is not None:
        log.warning(
            "%s is gone, damaged, or of before the last change: version %s is put there",
            folder.heads,
            active.name,
        )
        held.changed = True


def _take_over(held: HeldVersions, content: bytes) -> bool:
    """Make heads active that somebody put in place as a file; False where they are none."""
    heads, digest = held.folder.heads, sha256(content)
    reason = f"it was found as {heads.name}"
    known = next((record for record in held.catalogue.records if record.sha256 == digest), None)
    if known is not None:
        held.activate(held.decide(known, "by hand", reason, "file"))
        return True
    try:
        record = _described(heads, content, 0, "taken over", reason)
    except HeadError as error:
        log.warning("%s", error, extra={"event": "version.unreadable"})
        return False
    held.activate(held.put(record, content))
    return True


def rebuilt(folder: VersionFolder) -> Catalogue:
    """Return what the files of the versions say, where no record is, or it is damaged; that is put aside."""
    catalogue = Catalogue()
    if folder.catalogue.exists():
        aside = folder.catalogue.with_suffix(".damaged")
        os.replace(folder.catalogue, aside)
        log.warning(
            "%s is damaged, and is now %s: figures and verdicts are lost, the versions are not",
            folder.catalogue,
            aside.name,
        )
    for run, _, path in folder.files():
        try:
            record = _described(path, path.read_bytes(), run, "not judged", "its record was lost")
        except HeadError as error:
            log.warning("%s", error, extra={"event": "version.unreadable"})
            continue
        catalogue.add(record)
    content = folder.heads_content()
    digest = "" if content is None else sha256(content)
    catalogue.history = [record.number for record in catalogue.records if record.sha256 == digest][-1:]
    return catalogue


def _described(path: Path, content: bytes, run: int, verdict: Verdict, reason: str) -> VersionRecord:
    """Return the record of a heads file of which nothing else is known. Raises HeadError."""
    metadata, now = read_heads_metadata(path), time.time()
    return VersionRecord(
        number=0,
        run=run,
        version=metadata.version,
        plan="",
        made_at=now,
        method=metadata.method,
        bundle=metadata.bundle_digest,
        file=path.name,
        sha256=sha256(content),
        bytes=len(content),
        verdict=verdict,
        reason=reason,
        by="file",
        decided_at=now,
    )
