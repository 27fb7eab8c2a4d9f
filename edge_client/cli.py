"""`fedmedclip predict`, `evaluate` and `reference`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.edge_client.options import (
    BundleOption,
    Frames,
    FramesOption,
    HeadsOption,
    InsecureOption,
    JsonOption,
    KeyOption,
    OutputCallback,
    PromptsOption,
    ProvidersOption,
    StrictOption,
    ThreadsOption,
    WindowOption,
)
from fedmedclip.protocol.paths import checked


class ProvenancePlace(StrEnum):
    """Where a CSV file says what its predictions come from."""

    BESIDE = "beside"
    HEADER = "header"
    NONE = "none"


class PredictionFormat(StrEnum):
    """How predictions are written."""

    CSV = "csv"
    JSONL = "jsonl"


def predict_command(
    paths: Annotated[list[str], typer.Argument(help="Image files, folders or globs.", metavar="PATH...")],
    bundle: BundleOption,
    heads: HeadsOption = None,
    prompts: PromptsOption = None,
    output_format: Annotated[
        PredictionFormat, typer.Option("--format", help="csv or jsonl.")
    ] = PredictionFormat.CSV,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write here instead of to standard output.", callback=OutputCallback
        ),
    ] = None,
    threads: ThreadsOption = None,
    frames: FramesOption = Frames.AUTO,
    window: WindowOption = "1",
    strict: StrictOption = False,
    provenance: Annotated[
        ProvenancePlace,
        typer.Option(
            help="Where a CSV file says which bundle, heads and software made it: beside it, in "
            "OUTPUT.provenance.json; in a line of # before its header; or nowhere. Each line of jsonl has it."
        ),
    ] = ProvenancePlace.BESIDE,
    provider: ProvidersOption = None,
    key: KeyOption = None,
    insecure: InsecureOption = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="As --format jsonl: one JSON object a line, for each image.")
    ] = False,
) -> None:
    """Classify images offline: label, probability per class, ensemble weight, time."""
    from fedmedclip.edge_client.images.readers.settings import ReaderSettings, parse_window
    from fedmedclip.edge_client.inference.prediction import run_prediction

    settings = ReaderSettings(frames.value, parse_window(window))
    run_prediction(
        paths,
        bundle,
        heads,
        PredictionFormat.JSONL.value if as_json else output_format.value,
        output,
        threads,
        settings,
        strict,
        prompts,
        provenance.value,
        keys=key or (),
        insecure=insecure,
        providers=provider or (),
    )


def evaluate_command(
    data: Annotated[
        Path, typer.Argument(help="Folder of class folders, CSV of path,label, or .npz archive.")
    ],
    bundle: BundleOption,
    heads: HeadsOption = None,
    prompts: PromptsOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Also write the figures here, as JSON.", callback=OutputCallback),
    ] = None,
    threads: ThreadsOption = None,
    frames: FramesOption = Frames.AUTO,
    window: WindowOption = "1",
    strict: StrictOption = False,
    key: KeyOption = None,
    insecure: InsecureOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure zero-shot, shared head, private head and ensemble on labelled images."""
    from fedmedclip.edge_client.images.readers.settings import ReaderSettings, parse_window
    from fedmedclip.edge_client.inference.evaluation import run_evaluation
    from fedmedclip.protocol.trust.decision import trust_of_user

    settings = ReaderSettings(frames.value, parse_window(window))
    trust = trust_of_user(key or (), insecure=insecure)
    run_evaluation(data, bundle, heads, output, threads, settings, strict, prompts, trust, as_json)


def reference_command(
    images: Annotated[list[str], typer.Argument(help="Image files, folders or globs.", metavar="PATH...")],
    bundle: BundleOption,
    statistics: Annotated[
        bool, typer.Option("--statistics", help="Give only mean and covariance factors, no embedding.")
    ] = False,
    rank: Annotated[int, typer.Option(min=0, max=4096, help="Covariance factors in the statistics.")] = 16,
    noise: Annotated[
        float, typer.Option(min=0, max=1000, help="Noise on the statistics, in standard errors of a mean.")
    ] = 0.0,
    most: Annotated[int, typer.Option(min=2, max=65536, help="Draw so many when there are more.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw and the noise.")] = 0,
    key: Annotated[
        Path | None,
        typer.Option(
            help="Sign the changed bundle with the private key in this file.",
            callback=checked("--key", "file"),
        ),
    ] = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put unlabelled reference embeddings into a bundle, which facmic and faa-clip adapt to.

    They are of public images that look like those to be classified later. Do it before the federation begins:
    it changes the bundle, and every site needs the same one. A signature of the bundle as it was is removed.
    """
    from fedmedclip.edge_client.features.reference_command import run_reference

    run_reference(
        images,
        bundle,
        statistics=statistics,
        rank=rank,
        noise=noise,
        most=most,
        seed=seed,
        threads=threads,
        key_file=key,
        as_json=as_json,
    )
