"""`fedmedclip adapt`: a federation's shared head and a place's own images in, heads for that place out.

heads file (shared head) ----------------+
images -> embeddings -> each image once -+-> private head -> heads file, signed
list of labels, where there is one ------+        |
                                                  +-> what changed, how sure it is, what to label next
"""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from fedmedclip.edge_client.adaptation.comparison import compared
from fedmedclip.edge_client.adaptation.findings import AdaptationFindings
from fedmedclip.edge_client.adaptation.label_list import (
    can_be_listed,
    read_labels,
    refuse_existing,
    write_list,
)
from fedmedclip.edge_client.adaptation.medoids import choose_medoids
from fedmedclip.edge_client.adaptation.place_images import PlaceImages, read_place_images
from fedmedclip.edge_client.adaptation.remarks import remarks_on
from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.heads.heads import ensemble_of
from fedmedclip.edge_client.heads.heads_file import Heads, load_trusted_heads, save_heads
from fedmedclip.edge_client.heads.layers import unit_rows
from fedmedclip.edge_client.heads.scanner_offset import NOT_LABELLED
from fedmedclip.edge_client.images.dataset import list_images
from fedmedclip.edge_client.images.grouping import GroupNaming
from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING, ReaderSettings
from fedmedclip.edge_client.learning.method import Adapted
from fedmedclip.edge_client.learning.own_images import OwnImages
from fedmedclip.edge_client.learning.version_head import adapted, adapts_to_versions
from fedmedclip.edge_client.progress import progress_bar
from fedmedclip.protocol.bundle.bundle import Bundle, open_bundle
from fedmedclip.protocol.errors import HeadError, InvalidInputError
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.protocol.signature import SigningKey
from fedmedclip.protocol.trust.decision import Trust
from fedmedclip.protocol.visible import visible


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be written: heads to `output`, signed by `key`, and a list of images `to_label`.

    `force` replaces heads that are there; a list that is there is never replaced.
    """

    output: Path | None = None
    key: SigningKey | None = None
    force: bool = False
    labels_list: Path | None = None
    to_label: int = 16


def adapt_to_images(
    images: list[str],
    bundle_folder: Path,
    heads_file: Path,
    wanted: Wanted,
    trust: Trust,
    *,
    labels_file: Path | None = None,
    groups_file: Path | None = None,
    features_file: Path | None = None,
    settings: ReaderSettings = DEFAULT_READING,
    strict: bool = False,
    threads: int | None = None,
) -> AdaptationFindings:
    """Fit the shared head of a heads file to images, write what is wanted, and say what changed.

    `images` is what `list_images` takes, `labels_file` a list with labels for some of them, `groups_file`
    a CSV of file,group. Embeddings are kept in `features_file`, or nowhere.

    Raises InvalidInputError for images or labels that cannot be used, heads of a method that does not adapt,
    and files that are not to be replaced; BundleError and HeadError for files that are missing, damaged, not
    trusted or of another bundle, and heads that hold nothing of a federation yet.
    """
    _refuse_what_is_there(wanted)
    with ExitStack() as opened:
        progress = opened.enter_context(progress_bar("looking for images"))
        paths = list_images(images, settings)
        progress(0, len(paths), "opening the bundle")
        bundle = open_bundle(bundle_folder, with_text=False)
        trust.require_bundle(bundle)
        heads = _usable_heads(heads_file, bundle, trust)
        names = bundle.manifest.class_names
        labels, missing = np.full(len(paths), NOT_LABELLED, dtype=np.int64), 0
        if labels_file is not None:
            found = read_labels(labels_file, paths, names)
            labels, missing = found.labels, found.empty
        folder = Path(opened.enter_context(TemporaryDirectory()))
        store = opened.enter_context(FeatureStore(features_file or folder / "features.db"))
        progress(0, len(paths), "computing features")
        grouped = labels_file is not None or wanted.labels_list is not None
        place = read_place_images(
            paths,
            labels,
            bundle,
            store,
            naming=GroupNaming(file=groups_file) if grouped else None,
            settings=settings,
            strict=strict,
            threads=threads,
            progress=progress,
        )
        progress(0, 0, "adapting")
        own = OwnImages.of(place.embeddings, place.labels, place.groups)
        made = _adapted(heads, own, bundle)
        unlabelled = _adapted(heads, OwnImages.of(place.embeddings), bundle) if own.labelled.any() else made
    if made.separation is None:
        raise _without_statistics(heads_file, heads)
    fitted = _fitted(heads, made)
    findings = compared(bundle, fitted, _fitted(heads, unlabelled), made, place)
    findings = msgspec.structs.replace(findings, remarks=remarks_on(heads, place, findings, missing))
    to_label = [] if wanted.labels_list is None else _to_label(place, wanted.to_label, wanted.labels_list)
    if wanted.output is not None:
        save_heads(wanted.output, fitted, bundle, wanted.key)
        signer = None if wanted.key is None else wanted.key.public_key.hex()
        findings = msgspec.structs.replace(findings, written=visible(wanted.output), signed_by=signer)
    if wanted.labels_list is not None:
        write_list(wanted.labels_list, to_label, names)
        findings = msgspec.structs.replace(
            findings, labels_list=visible(wanted.labels_list), to_label=len(to_label)
        )
    return findings


def _refuse_what_is_there(wanted: Wanted) -> None:
    """Before any image is read: that may take long."""
    if wanted.output is not None and not wanted.force and wanted.output.is_file():
        raise InvalidInputError(f"{wanted.output} exists; replace it with --force or choose another --output")
    if wanted.labels_list is not None:
        refuse_existing(wanted.labels_list)


def _usable_heads(file: Path, bundle: Bundle, trust: Trust) -> Heads:
    heads = load_trusted_heads(file, bundle, trust)
    if not adapts_to_versions(heads.method):
        raise HeadError(
            f"heads {file} are of method {heads.method!r}, which cannot be adapted to images; ask the centre "
            "for heads of a run with method 'one-message'"
        )
    if not any(array.any() for array in heads.shared.values()):
        raise _without_statistics(file, heads)
    return heads


def _without_statistics(file: Path, heads: Heads) -> HeadError:
    return HeadError(
        f"heads {file} hold nothing of any site yet (version {heads.version}), so there is nothing to adapt; "
        "ask the centre for a later version"
    )


def _adapted(heads: Heads, images: OwnImages, bundle: Bundle) -> Adapted:
    seed = derive_seed(0, site=heads.site, purpose="version head")
    scale = bundle.manifest.logit_scale
    return adapted(heads.method, heads.shared, images, bundle.class_embeddings, scale, seed)


def _fitted(heads: Heads, made: Adapted) -> Heads:
    return replace(
        heads, private=made.private, ensemble=ensemble_of(heads.method), judgement=None, assurance=None
    )


def _to_label(place: PlaceImages, number: int, list_file: Path) -> list[Path]:
    can_be_chosen = np.array([can_be_listed(list_file, path) for path in place.paths])
    labelled = place.labels != NOT_LABELLED
    if not (can_be_chosen & ~labelled).any():
        raise InvalidInputError(
            "there is no image left to label: each has a label, or a name that no line of text can hold"
        )
    points = unit_rows(place.embeddings)
    rows = choose_medoids(points, number, place.groups, can_be_chosen, labelled)
    return [place.paths[row] for row in rows.tolist()]
