"""One contender of `benchmarks.encoder.edge` in a process of its own; prints one JSON object.

    python -m benchmarks.encoder.edge_contender KIND MODEL SECONDS THREADS FOLDER...

KIND is `ours` (MODEL is a bundle), `eager` (open_clip; MODEL is NAME@WEIGHTS or a local-dir) or `openvino`
(MODEL is an fp32 bundle). Each FOLDER is measured alone: from files on the disk to embeddings.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measured_process import peak_megabytes

Figures = dict[str, float]
BATCH = 16
EAGER_BATCH = 8


def main() -> None:
    """Measure one contender on each folder."""
    kind, model, seconds, threads, *folders = sys.argv[1:]
    contender = {"ours": ours, "eager": eager, "openvino": openvino}[kind]
    one, many, encoder_only, decode = contender(model, int(threads))
    found: dict[str, Figures] = {}
    for folder in folders:
        paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        one(paths[0])
        many(paths[:BATCH])
        found[folder] = {
            "one_image_per_second": rate(lambda: one(paths[0]), 1, float(seconds)),  # noqa: B023
            "folder_per_second": rate(lambda: many(paths), len(paths), float(seconds)),  # noqa: B023
        }
        pixels = decode(paths[: 4 * BATCH])
        found[folder] |= {
            "encoder_per_second": rate(lambda: encoder_only(pixels), len(pixels), float(seconds)),  # noqa: B023
        }
    print(json.dumps({"folders": found, "peak_megabytes": peak_megabytes()}))


def rate(work: Callable[[], object], images: int, seconds: float) -> float:
    """Return images per second of wall time, over at least one piece of work."""
    started, done = time.perf_counter(), 0
    while not done or time.perf_counter() - started < seconds:
        work()
        done += images
    return done / (time.perf_counter() - started)


def ours(folder: str, threads: int) -> tuple[Callable[..., Any], ...]:
    """The project's own reading and encoder, as `fedmedclip predict` uses them."""
    from fedmedclip.edge_client.features.encoder import Encoder
    from fedmedclip.edge_client.images.reading import decode_images
    from fedmedclip.protocol.bundle.bundle import open_bundle

    bundle = open_bundle(Path(folder))
    together = Encoder(bundle, threads, together=True)
    encoder = Encoder(bundle, threads)

    def decode(paths: list[Path]) -> Any:
        return np.stack(
            [image.pixels for image in _readable(decode_images(paths, bundle.manifest.preprocessing))]
        )

    def many(paths: list[Path]) -> None:
        batch: list[Any] = []
        with closing(decode_images(paths, bundle.manifest.preprocessing)) as images:
            for image in _readable(images):
                batch.append(image.pixels)
                if len(batch) == BATCH:
                    encoder.encode(np.stack(batch))
                    batch = []
        if batch:
            encoder.encode(np.stack(batch))

    def encoder_only(pixels: Any) -> None:
        for start in range(0, len(pixels), BATCH):
            encoder.encode(pixels[start : start + BATCH])

    return lambda path: together.encode(decode([path])), many, encoder_only, decode


def eager(model: str, threads: int) -> tuple[Callable[..., Any], ...]:
    """open_clip as its README uses it: preprocess, encode_image, no gradient; in batches for a folder."""
    from fedmedclip.export.torchvision_operators import declare_missing_operators

    declare_missing_operators()
    import open_clip
    import torch
    from PIL import Image

    torch.set_num_threads(threads)
    name, _, weights = model.partition("@")
    network, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=weights or None)
    network.eval()

    def opened(path: Path) -> Any:
        if path.suffix == ".dcm":
            import pydicom

            return Image.fromarray(pydicom.dcmread(path).pixel_array)
        return Image.open(path)

    def decode(paths: list[Path]) -> Any:
        return torch.stack([preprocess(opened(path)) for path in paths])

    def encoder_only(images: Any) -> None:
        with torch.no_grad():
            for start in range(0, len(images), EAGER_BATCH):
                network.encode_image(images[start : start + EAGER_BATCH], normalize=True)

    def many(paths: list[Path]) -> None:
        for start in range(0, len(paths), EAGER_BATCH):
            encoder_only(decode(paths[start : start + EAGER_BATCH]))

    return lambda path: encoder_only(decode([path])), many, encoder_only, decode


def openvino(folder: str, threads: int) -> tuple[Callable[..., Any], ...]:
    """OpenVINO in bf16 on the bundle's fp32 encoder, read with the project's own reading, one step ahead."""
    import openvino as ov

    from fedmedclip.edge_client.images.reading import decode_images
    from fedmedclip.protocol.bundle.bundle import open_bundle

    bundle = open_bundle(Path(folder))
    core = ov.Core()
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": str(threads)}

    def compiled(hint: str) -> Any:
        return core.compile_model(str(bundle.image_encoder), "CPU", {**settings, "PERFORMANCE_HINT": hint})

    latency, throughput = compiled("LATENCY"), compiled("THROUGHPUT")
    waiting = ov.AsyncInferQueue(throughput)

    def decode(paths: list[Path]) -> Any:
        return np.stack(
            [image.pixels for image in _readable(decode_images(paths, bundle.manifest.preprocessing))]
        )

    def many(paths: list[Path]) -> None:
        with closing(decode_images(paths, bundle.manifest.preprocessing)) as images:
            for image in _readable(images):
                waiting.start_async({0: image.pixels[None]})
        waiting.wait_all()

    def encoder_only(pixels: Any) -> None:
        for image in pixels:
            waiting.start_async({0: image[None]})
        waiting.wait_all()

    return lambda path: latency(decode([path])), many, encoder_only, decode


def _readable(images: Any) -> Iterator[Any]:
    for image in images:
        if isinstance(image, Exception):
            raise image
        yield image


if __name__ == "__main__":
    main()
