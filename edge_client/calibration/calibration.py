"""`fedmedclip calibrate`: heads, and labelled images that they have not learnt, in; with an assurance out."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fedmedclip.edge_client.calibration.findings import CalibrationFindings, ClassThreshold
from fedmedclip.edge_client.calibration.remarks import remarks_on
from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.features.labelled import LabelledFeatures, load_labelled_groups
from fedmedclip.edge_client.heads.assurance import AssuranceSettings
from fedmedclip.edge_client.heads.assuring import GroupedImages, ReferenceImages, assured
from fedmedclip.edge_client.heads.heads_file import Heads, load_trusted_heads, save_heads
from fedmedclip.edge_client.images.grouping import GroupNaming
from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING, ReaderSettings
from fedmedclip.edge_client.learning.own_folds import fold_of_groups
from fedmedclip.edge_client.progress import progress_bar
from fedmedclip.protocol.bundle.bundle import Bundle, open_bundle
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.protocol.signature import SigningKey
from fedmedclip.protocol.trust.decision import Trust
from fedmedclip.protocol.visible import visible


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where the heads go, and the `key` that signs them; `force` replaces heads that are there."""

    output: Path
    key: SigningKey | None = None
    force: bool = False


def calibrate_to_images(
    data: Path,
    bundle_folder: Path,
    heads_file: Path,
    destination: Destination,
    trust: Trust,
    wanted: AssuranceSettings,
    *,
    groups_file: Path | None = None,
    features_file: Path | None = None,
    settings: ReaderSettings = DEFAULT_READING,
    strict: bool = False,
    threads: int | None = None,
) -> CalibrationFindings:
    """Give heads the assurance that labelled images tell, write them, and say what came of it.

    `data` is what `evaluate` takes; of an archive with a validation part that is taken. `groups_file` is a
    CSV of file,group. Embeddings are kept in `features_file`, or nowhere.

    Raises InvalidInputError for data that cannot be used and an output that is there; BundleError and
    HeadError for files that are missing, damaged, not trusted or of another bundle.
    """
    if not destination.force and destination.output.is_file():
        raise InvalidInputError(
            f"{destination.output} exists; replace it with --force or choose another --output"
        )
    with progress_bar("opening the bundle") as progress, TemporaryDirectory() as folder:
        bundle = open_bundle(bundle_folder, with_text=False)
        trust.require_bundle(bundle)
        heads = load_trusted_heads(heads_file, bundle, trust)
        progress(0, 0, "computing features")
        with FeatureStore(features_file or Path(folder) / "features.db") as store:
            found, report = load_labelled_groups(
                data,
                bundle,
                store,
                part="validation",
                naming=GroupNaming(file=groups_file),
                settings=settings,
                strict=strict,
                threads=threads,
                progress=progress,
            )
    calibrated = calibrated_to(heads, bundle, found, wanted)
    assert calibrated.assurance is not None
    save_heads(destination.output, calibrated, bundle, destination.key)
    metadata = calibrated.assurance.metadata
    counts = np.bincount(found.labels, minlength=len(bundle.class_embeddings)).tolist()
    return CalibrationFindings(
        federation=visible(heads.federation),
        site=visible(heads.site),
        version=heads.version,
        method=heads.method,
        level=metadata.level,
        kind=metadata.kind,
        class_conditional=metadata.class_conditional,
        images=metadata.images,
        groups=metadata.groups,
        skipped={visible(image.path): visible(image.reason) for image in report.skipped},
        classes=[
            ClassThreshold(visible(name), count, threshold)
            for name, count, threshold in zip(
                bundle.manifest.class_names, counts, metadata.thresholds, strict=True
            )
        ],
        mean_set_size=metadata.reference.mean_set_size,
        novelty=metadata.novelty,
        written=visible(destination.output),
        signed_by=None if destination.key is None else destination.key.public_key.hex(),
        remarks=remarks_on(calibrated, bundle, wanted),
    )


def calibrated_to(heads: Heads, bundle: Bundle, images: LabelledFeatures, wanted: AssuranceSettings) -> Heads:
    """Return heads with the assurance of images, of which there is at least one.

    Where the shared head has no statistics, half of the groups say what was seen and the other half how far
    away that is still like it.
    """
    own = GroupedImages.of(images.embeddings, images.labels, images.groups)
    first = fold_of_groups(own.groups, 2, derive_seed(0, site=heads.site, purpose="what was seen")) == 0
    classes = len(bundle.class_embeddings)
    if first.all():
        return assured(heads, bundle, own, ReferenceImages(own, classes), wanted)
    reference = ReferenceImages(own, classes, own.chosen(first))
    return assured(heads, bundle, own, reference, wanted, apart=own.chosen(~first))
