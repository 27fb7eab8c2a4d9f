"""`fedmedclip explain`: one image in; what it is, which regions carry that, and what it resembles."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from fedmedclip.edge_client.explanation.nearest import Near, nearest_images
from fedmedclip.edge_client.explanation.overlay import NOTICE, caption, overlay_png
from fedmedclip.edge_client.explanation.site_files import site_files
from fedmedclip.edge_client.images.readers.address import parse_address
from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING, ReaderSettings
from fedmedclip.edge_client.inference.classifier import Explanation, load
from fedmedclip.edge_client.inference.provenance import Provenance
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.visible import visible


class Explained(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `--json` prints: the prediction as `predict` gives it, and why.

    `regions` are the rows (8 x 8) of `Regions.map`, `nearest` the site's training images with their files.
    """

    prediction: dict[str, Any]
    label: str
    probability: float
    kind: str
    largest_loss: float
    regions: list[list[float]]
    provenance: Provenance
    nearest: list[dict[str, Any]] = []
    overlay: str | None = None
    notice: str = ""


def run_explanation(
    image: str,
    bundle_folder: Path,
    heads_file: Path | None,
    output: Path | None,
    *,
    site: Path | None = None,
    neighbours: int = 5,
    as_json: bool = False,
    force: bool = False,
    seconds: float | None = None,
    threads: int | None = None,
    settings: ReaderSettings = DEFAULT_READING,
    keys: tuple[str, ...] = (),
    insecure: bool = False,
) -> None:
    """Explain the answer to one image: print it, and write the picture to `output` where given.

    With `site`, a `site.toml`, its nearest training images are named too. The other arguments are as for
    `load` and `Classifier.explain`.

    Raises InvalidInputError for what is not one image, for an `output` that is there already without `force`,
    and as `nearest_images` does; UnreadableImageError, BundleError and HeadError.
    """
    if output is not None:
        _refuse_what_is_there(output, image, force)
    files = None if site is None else site_files(site)
    with load(bundle_folder, heads_file, threads=threads, keys=keys, insecure=insecure) as classifier:
        known = None if files is None else nearest_images(files, classifier.bundle)
        explanation = classifier.explain(image, seconds=seconds, settings=settings)
        provenance = classifier.provenance
    nearest = [] if known is None else known.nearest_to(explanation.embedding, neighbours)
    if output is not None:
        write_new_file(output, overlay_png(explanation))
    if as_json:
        explained = _explained(explanation, nearest, provenance, output)
        print(msgspec.json.format(msgspec.json.encode(explained), indent=2).decode())
        return
    print("\n".join([visible(explanation.prediction.path), *caption(explanation)]))
    for near in nearest:
        print(f"{near.distance:.4f}  {visible(near.label)}  {visible(near.file)}")
    if output is not None:
        print(f"written: {visible(output)}")


def _refuse_what_is_there(output: Path, image: str, force: bool) -> None:
    """Before the bundle is opened: that takes long."""
    source = parse_address(Path(image)).file
    if output.exists() and source.exists() and output.samefile(source):
        raise InvalidInputError(f"--output {output} is the image itself; choose another")
    if output.is_file() and not force:
        raise InvalidInputError(f"{output} exists; replace it with --force or choose another --output")


def _explained(
    explanation: Explanation, nearest: list[Near], provenance: Provenance, output: Path | None
) -> Explained:
    regions = explanation.regions
    prediction = asdict(explanation.prediction)
    return Explained(
        prediction=prediction | {"path": visible(explanation.prediction.path)},
        label=explanation.label,
        probability=explanation.probability,
        kind=regions.kind,
        largest_loss=round(regions.largest_loss, 4),
        regions=[[round(value, 4) for value in row] for row in regions.map.tolist()],
        provenance=provenance,
        nearest=[asdict(near) | {"file": visible(near.file)} for near in nearest],
        overlay=None if output is None else visible(output),
        notice=NOTICE,
    )
