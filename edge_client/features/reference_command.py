"""`fedmedclip reference`: put a reference set into a bundle, before its federation begins."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
from rich.console import Console

from fedmedclip.edge_client.features.extraction import extract_features, summarize_skipped
from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.features.references import encode_reference, quantised, summarised
from fedmedclip.edge_client.images.dataset import list_images
from fedmedclip.edge_client.progress import progress_bar
from fedmedclip.protocol.bundle.bundle import MANIFEST, REFERENCE_FILE, Bundle, open_bundle
from fedmedclip.protocol.bundle.signature import SIGNATURE_FILE, sign_bundle, signer
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.json_output import print_json
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.protocol.signature import SigningKey, load_signing_key
from fedmedclip.protocol.trust.pins import OWN_NOTE, own_key, pins
from fedmedclip.protocol.visible import visible


def run_reference(
    images: list[str],
    bundle_folder: Path,
    *,
    statistics: bool,
    rank: int,
    noise: float,
    most: int,
    seed: int,
    threads: int | None,
    key_file: Path | None = None,
    as_json: bool = False,
) -> None:
    """Encode images and write the bundle's reference set: their embeddings, or only statistics of them.

    A signature is of the bundle as it was, so it goes; `key_file`, or the user's own key where that was the
    signer's, signs the changed bundle. What was done is printed, with `as_json` for a program.

    Raises InvalidInputError when no image or the key cannot be used, BundleError when the bundle or its
    signature cannot.
    """
    bundle = open_bundle(bundle_folder)
    signed_by = signer(bundle_folder)
    key = load_signing_key(key_file) if key_file is not None else _own_key_if(signed_by)
    paths = list_images(images)
    if len(paths) > most:
        draw = np.random.Generator(np.random.Philox(derive_seed(seed, purpose="reference")))
        paths = [paths[index] for index in np.sort(draw.choice(len(paths), most, replace=False))]
    with (
        TemporaryDirectory() as folder,
        FeatureStore(Path(folder) / "features.db") as store,
        progress_bar("computing features") as progress,
    ):
        found = extract_features(paths, bundle, store, threads=threads, progress=progress)
    console = Console(markup=False, quiet=as_json)
    if found.skipped:
        console.print(visible(summarize_skipped(found.skipped)), highlight=False, soft_wrap=True)
    if len(found.embeddings) == 0:
        raise InvalidInputError("no image could be read; the bundle is as it was")
    reference = (
        summarised(found.embeddings, rank, noise, derive_seed(seed, purpose="reference noise"))
        if statistics
        else quantised(found.embeddings)
    )
    encoded = encode_reference(reference)
    changed = with_reference(bundle, encoded)
    what = "statistics" if statistics else "embeddings"
    console.print(
        f"{what} of {len(found.embeddings)} images, {len(encoded)} bytes, are in "
        f"{visible(bundle_folder)} now",
        highlight=False,
        soft_wrap=True,
    )
    if key is not None:
        sign_bundle(bundle_folder, key)
        console.print(f"signed by {key.public_key.hex()}", highlight=False, soft_wrap=True)
    elif signed_by is not None:
        console.print(
            f"The signature by {signed_by.hex()} was of the bundle as it was and is removed. Sign it again: "
            f"fedmedclip bundle sign {visible(bundle_folder)} --key FILE",
            highlight=False,
            soft_wrap=True,
        )
    if as_json:
        print_json(
            {
                "bundle": bundle_folder,
                "sha256": changed.digest.hex(),
                "what": what,
                "images": len(found.embeddings),
                "bytes": len(encoded),
                "skipped": {visible(image.path): visible(image.reason) for image in found.skipped},
                "signed_by": None if key is None else key.public_key.hex(),
            }
        )
    console.print(
        f"The bundle's digest is {changed.digest.hex()[:16]} now. Copy it to every site: they must all have "
        "this one.",
        highlight=False,
        soft_wrap=True,
    )


def _own_key_if(signed_by: bytes | None) -> SigningKey | None:
    """Return this user's own key when it is the one that signed."""
    if signed_by is None or pins().get(signed_by) != OWN_NOTE:
        return None
    key = own_key()
    return key if key.public_key == signed_by else None


def with_reference(bundle: Bundle, encoded: bytes) -> Bundle:
    """Put the encoded reference set into the bundle's folder and manifest; return it with its new digest.

    A signature is removed first, for it would not be that of the new manifest. Killed between the two files,
    an older reference set would not fit its manifest any more: run it again.
    """
    files = bundle.manifest.files | {REFERENCE_FILE: hashlib.sha256(encoded).hexdigest()}
    manifest = msgspec.structs.replace(bundle.manifest, files=files)
    (bundle.folder / SIGNATURE_FILE).unlink(missing_ok=True)
    write_new_file(bundle.folder / REFERENCE_FILE, encoded)
    write_new_file(
        bundle.folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    )
    return open_bundle(bundle.folder)
