"""Put a bundle in its place whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedmedclip.protocol.bundle.bundle import (
    CLASS_EMBEDDINGS,
    ENCODER_FILES,
    MANIFEST,
    REFERENCE_FILE,
    TEXT_FILES,
)
from fedmedclip.protocol.bundle.self_test import SELF_TEST_EMBEDDINGS, SELF_TEST_IMAGES
from fedmedclip.protocol.bundle.signature import SIGNATURE_FILE
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.paths import onnx_fault

BUNDLE_FILES = {
    MANIFEST,
    SIGNATURE_FILE,
    *ENCODER_FILES,
    CLASS_EMBEDDINGS,
    SELF_TEST_IMAGES,
    SELF_TEST_EMBEDDINGS,
    REFERENCE_FILE,
    *TEXT_FILES,
}


@contextmanager
def new_bundle(out: Path, *, force: bool) -> Iterator[Path]:
    """Yield an empty folder beside `out` that takes its place when the context ends well.

    When it ends with an exception, the folder is removed and `out` is as it was. Raises InvalidInputError
    when `out` may not be written (see `check_target`), or when writing fails, as on a full disk.
    """
    check_target(out, force=force)
    out = out.resolve()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
        try:
            # mkdtemp makes a folder for its owner only; a bundle is no secret.
            work.chmod(0o777 & ~_umask())
            yield work
            _take_place(work, out)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    except OSError as error:
        raise InvalidInputError(
            f"the bundle {out} cannot be written: {error.strerror or error}; nothing was left behind"
        ) from error


def check_target(out: Path, *, force: bool) -> None:
    """Raise InvalidInputError unless a bundle may be written to `out`.

    It may when there is nothing, or an empty folder; with `force` also when there is a bundle, whole or
    damaged. Anything else is never replaced.
    """
    if fault := onnx_fault(out.absolute()):
        raise InvalidInputError(f"--out {out}: {fault}")
    if not out.exists():
        return
    if not out.is_dir():
        raise InvalidInputError(f"{out} is a file; choose another --out for the bundle")
    names = {entry.name for entry in out.iterdir()}
    if not names:
        return
    if MANIFEST not in names or not names <= BUNDLE_FILES:
        raise InvalidInputError(f"{out} is not empty and not a bundle; choose another --out")
    if not force:
        raise InvalidInputError(f"{out} is a bundle already; replace it with --force or choose another --out")


def _take_place(work: Path, out: Path) -> None:
    """Rename `work` to `out`; an older bundle there is moved aside first and removed last."""
    if not out.exists():
        work.rename(out)
        return
    aside = work.with_suffix(".replaced")
    out.rename(aside)
    try:
        work.rename(out)
    except BaseException:
        aside.rename(out)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
