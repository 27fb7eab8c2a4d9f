"""`fedmedclip bundle show | verify | sign`: what a bundle is, and whether it is to be trusted on this box."""

from pathlib import Path

from fedmedclip.protocol.bundle.bundle import MANIFEST, Bundle, Preprocessing, open_bundle
from fedmedclip.protocol.bundle.self_test import SELF_TEST_IMAGES, demanded, read_self_test
from fedmedclip.protocol.bundle.signature import (
    SIGNATURE_FILE,
    read_public_key,
    require_signer,
    sign_bundle,
    signer,
)
from fedmedclip.protocol.trust.decision import words_of_signer
from fedmedclip.protocol.trust.pins import OWN_NOTE, pins
from fedmedclip.protocol.trust.signing import signing_key

_NEW = " (new; keep it secret, and a copy of it)"
NO_SELF_TEST = "none in this bundle, which an older version exported; export it again to have one"


def show(folder: Path) -> list[tuple[str, str]]:
    """Return (name, words) of everything that a bundle says about itself. Hashes are verified.

    Raises BundleError for a bundle that cannot be opened, or whose signature does not fit.
    """
    bundle = open_bundle(folder)
    manifest, parity = bundle.manifest, bundle.manifest.parity
    length = "the model's own length" if manifest.own_length is True else "unit length"
    rows = [
        ("bundle", str(folder)),
        ("sha256", bundle.digest.hex()),
        ("signed by", words_of_signer(signer(folder))),
        ("model", f"{manifest.model} ({manifest.pretrained})" if manifest.pretrained else manifest.model),
        ("precision", _precision(bundle)),
        ("embedding", f"{manifest.embedding_size} values, {length}, logit scale {manifest.logit_scale:.4g}"),
        ("images", preprocessing_words(manifest.preprocessing)),
        (
            "parity",
            f"largest error {parity.embedding_max_abs_error:g}, cosine {parity.cosine_min:g} (least) "
            f"{parity.cosine_mean:g} (mean) on {parity.images} images; tolerance {parity.tolerance:g}",
        ),
        ("self-test", _self_test_words(bundle)),
        ("text tower", "yes, for new prompts" if manifest.text else "no"),
    ]
    rows += [(f"class {name}", "; ".join(phrases)) for name, phrases in manifest.prompts.classes.items()]
    rows += [("template", template) for template in manifest.prompts.templates]
    rows += [
        (name, f"{(folder / name).stat().st_size / 1e6:.2f} MB, sha256 {expected}")
        for name, expected in sorted(manifest.files.items())
    ]
    rows.append(("made with", ", ".join(f"{name} {found}" for name, found in manifest.versions.items())))
    return rows


def shown(folder: Path) -> dict[str, object]:
    """Return what `show` does for a program: the manifest as it is, digest and signer (None: nobody).

    Raises BundleError as `show` does.
    """
    bundle = open_bundle(folder)
    signed_by = signer(folder)
    return {
        "bundle": folder,
        "sha256": bundle.digest.hex(),
        "signed_by": None if signed_by is None else signed_by.hex(),
        "trusted": signed_by is not None and signed_by in pins(),
        "self_test": read_self_test(bundle) is not None,
        "manifest": bundle.manifest,
    }


def verify(folder: Path, key: str | None, threads: int | None = None) -> list[tuple[str, str]]:
    """Check hashes, signature and self-test, and return (check, words).

    `key` pins the signer: 64 hexadecimal digits, or a file with them. Raises BundleError at the first check
    that fails, InvalidInputError for a key that is none.
    """
    from fedmedclip.edge_client.features.self_test import require_self_test

    pinned = None if key is None else read_public_key(key)
    bundle = open_bundle(folder)
    rows = [("hashes", f"{len(bundle.manifest.files)} files are what {MANIFEST} names")]
    if pinned is None:
        rows.append(("signature", words_of_signer(signer(folder))))
    else:
        require_signer(folder, pinned)
        rows.append(("signature", f"by the expected key {pinned.hex()}"))
    agreement = require_self_test(bundle, threads)
    words = f"passed, {agreement.words()}" if agreement else NO_SELF_TEST
    return [*rows, ("self-test", words), ("bundle", bundle.digest.hex())]


def sign(folder: Path, key_file: Path | None) -> list[tuple[str, str]]:
    """Sign a bundle with the key in a file, or with the user's own, and trust that key from then on.

    A file that does not exist is made.
    """
    made = key_file is not None and not key_file.exists()
    key = signing_key(key_file)
    sign_bundle(folder, key)
    return [
        ("private key", f"{key_file or OWN_NOTE}{_NEW if made else ''}"),
        ("public key", key.public_key.hex()),
        ("elsewhere", f"fedmedclip trust {key.public_key.hex()}"),
        ("signature", str(folder / SIGNATURE_FILE)),
    ]


def preprocessing_words(preprocessing: Preprocessing) -> str:
    """Say how an image becomes the encoder's input."""
    size = f"{preprocessing.width} x {preprocessing.height}"
    how = {
        "shortest": f"the shorter side resized to fit, the middle {size} cut out",
        "longest": f"the longer side resized to fit, padded to {size}",
        "squash": f"resized to {size} without keeping proportions",
    }[preprocessing.resize_mode]
    mean = ", ".join(f"{value:.4g}" for value in preprocessing.mean)
    deviation = ", ".join(f"{value:.4g}" for value in preprocessing.standard_deviation)
    return f"{how}, {preprocessing.interpolation}; mean {mean}, deviation {deviation}, inside the encoder"


def _precision(bundle: Bundle) -> str:
    quantization = bundle.manifest.quantization
    if quantization is None:
        return bundle.manifest.precision
    counts = [
        ", ".join(f"{count} {name}" for name, count in part.items())
        for part in (quantization.quantized, quantization.kept_in_float)
    ]
    return f"{bundle.manifest.precision} ({quantization.scheme}: {counts[0]}; in float: {counts[1]})"


def _self_test_words(bundle: Bundle) -> str:
    test = read_self_test(bundle)
    if test is None:
        return NO_SELF_TEST
    return f"{len(test.images)} images in {SELF_TEST_IMAGES}; asks for {demanded(bundle.manifest.precision)}"
