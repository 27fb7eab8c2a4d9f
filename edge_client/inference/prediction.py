"""`fedmedclip predict`: image files in, one row each out, offline and without PyTorch."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TextIO

from fedmedclip.edge_client.features.extraction import SkippedImage, refuse_skipped, summarize_skipped
from fedmedclip.edge_client.heads.heads_file import NO_PRIVATE_HEAD, ZERO_SHOT_ANSWERS
from fedmedclip.edge_client.images.dataset import list_images
from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING, ReaderSettings
from fedmedclip.edge_client.inference.classifier import load
from fedmedclip.edge_client.inference.provenance import Provenance, write_companion
from fedmedclip.edge_client.inference.rows import csv_writer, json_writer
from fedmedclip.edge_client.progress import progress_bar
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.new_files import new_text_file
from fedmedclip.protocol.paths import is_stream
from fedmedclip.protocol.visible import visible

ProvenancePlace = Literal["beside", "header", "none"]


def run_prediction(
    paths: list[str],
    bundle_folder: Path,
    heads_file: Path | None,
    output_format: str,
    output: Path | None,
    threads: int | None,
    settings: ReaderSettings = DEFAULT_READING,
    strict: bool = False,
    prompts_file: Path | None = None,
    provenance_place: ProvenancePlace = "beside",
    keys: Sequence[str] = (),
    insecure: bool = False,
    providers: Sequence[str] = (),
) -> None:
    """Classify images and write the rows as they come; skipped images are listed on standard error.

    With a `prompts_file` the classes are its own, zero-shot. Where the predictions come from is in each line
    of JSON; of CSV it stands in a file beside `output`, or in a line before the header, and for what goes to
    no file on standard error; "none" leaves it out.

    `keys`, `insecure` and `providers` as for `load`; where any is named, the one used is said on standard
    error.

    Raises InvalidInputError when nothing matches, no image at all could be read, or with `strict` any cannot.
    """
    skipped: list[SkippedImage] = []
    with progress_bar("looking for images") as progress:
        images = list_images(paths, settings)
        progress(0, len(images), "opening the bundle")
        with load(
            bundle_folder,
            heads_file,
            prompts=prompts_file,
            threads=threads,
            once=len(images) == 1,
            providers=providers,
            keys=keys,
            insecure=insecure,
        ) as classifier:
            if providers:
                print(f"{classifier.provider} encodes the images", file=sys.stderr)
            provenance, class_names = classifier.provenance, classifier.class_names
            if classifier.heads is not None and classifier.heads.lack_private_head:
                print(f"{visible(heads_file)}: {NO_PRIVATE_HEAD}", file=sys.stderr)
            if classifier.heads is not None and classifier.heads.zero_shot_answers:
                print(f"{visible(heads_file)}: {ZERO_SHOT_ANSWERS}", file=sys.stderr)
            with _opened(output) as file:
                if output_format == "jsonl":
                    write = json_writer(file, None if provenance_place == "none" else provenance)
                else:
                    write = csv_writer(
                        file, class_names, provenance if provenance_place == "header" else None
                    )
                progress(0, len(images), "classifying")
                for done, prediction in enumerate(
                    classifier.predict_files(images, skipped, settings), start=1
                ):
                    write(prediction)
                    progress(done + len(skipped), len(images))
                    if strict:
                        refuse_skipped(skipped)
                if strict:
                    refuse_skipped(skipped)
    if output_format == "csv" and provenance_place == "beside":
        counts = {"predicted": len(images) - len(skipped), "skipped": len(skipped)}
        _say_provenance(output, provenance, counts)
    for image in skipped:
        print(f"skipped {visible(image.path)}: {visible(image.reason)}", file=sys.stderr)
    if skipped:
        print(visible(summarize_skipped(skipped)), file=sys.stderr)
    if len(skipped) == len(images):
        raise InvalidInputError("no image could be read; nothing was classified")


def _say_provenance(output: Path | None, provenance: Provenance, counts: Mapping[str, int]) -> None:
    if output is None or is_stream(output):
        print(f"predicted by {visible(provenance.in_words())}", file=sys.stderr)
    else:
        write_companion(output, provenance, counts)


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    """Give standard output, or a file that appears under its name only when it is complete."""
    if output is None:
        yield sys.stdout
        return
    with new_text_file(output) as file:
        yield file
