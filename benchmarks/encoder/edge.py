r"""How fast and how small image encoding is on an edge box, beside open_clip and OpenVINO, in one run.

    python -m benchmarks.encoder.edge --images FOLDER --work FOLDER [--openvino PYTHON] [--edge PYTHON] \
        [--out JSON]

Two models: ViT-B/32 with random weights and the repository's small CLIP. From the JPEGs of `--images`, and
from DICOM files made of them, on the disk, to embeddings; contenders take turns, `--repeats` times, and the
table has the medians of the ratios of neighbours, for the machine may have other work. `--edge` is a Python
with the base installation, `--openvino` one with openvino, numpy, pillow, msgspec and pydicom.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.encoder.random_bundles import ROOT, SMALL_CLIP, random_bundle, random_weights
from fedmedclip.simulation.phantoms.small_clip import small_clip


def main() -> None:
    """Prepare, measure, write the JSON, print the table."""
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    folders = [
        _jpegs(options.images, options.work / "jpeg", options.count),
        _dicoms(options.work / "jpeg", options.work / "dicom"),
    ]
    results: dict[str, Any] = {"cores": options.threads, "repeats": options.repeats, "models": {}}
    for model in ("ViT-B-32", SMALL_CLIP):
        contenders = _contenders(model, options)
        runs: dict[str, list[Any]] = {name: [] for name in contenders}
        for _ in range(options.repeats):
            for name, (python, kind, argument) in contenders.items():
                found = _measured(python, kind, argument, folders, options)
                if kind == "ours":
                    image = sorted(folders[0].iterdir())[0]
                    found["predict"] = _prediction(python, argument, image, options.threads)
                    found["predict_folder"] = _prediction(python, argument, folders[0], options.threads)
                runs[name].append(found)
                print(model, name, json.dumps(found), file=sys.stderr, flush=True)
        results["models"][model] = runs
    results["load_average"] = os.getloadavg()[0]
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


def table(results: dict[str, Any]) -> str:
    """Return the Markdown table of the medians."""
    lines = []
    for model, runs in results["models"].items():
        lines += [
            f"### {model}",
            "",
            "| | one JPEG /s | JPEG folder /s | times eager | DICOM folder /s | times eager "
            "| folder / encoder | peak MB | first prediction |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for name, found in runs.items():
            lines.append(_row(name, found, runs["open_clip eager fp32"]))
        lines.append("")
    return "\n".join(lines)


def _row(name: str, runs: list[Any], eager: list[Any]) -> str:
    def median(values: list[float]) -> float:
        return statistics.median(values)

    def figures(run: Any, kind: str) -> Any:
        return next(found for folder, found in run["folders"].items() if folder.endswith(kind))

    cells = [f"{median([figures(run, 'jpeg')['one_image_per_second'] for run in runs]):.1f}"]
    for kind in ("jpeg", "dicom"):
        rates = [figures(run, kind)["folder_per_second"] for run in runs]
        others = [figures(run, kind)["folder_per_second"] for run in eager]
        cells.append(f"{median(rates):.1f}")
        cells.append(f"{median([mine / other for mine, other in zip(rates, others, strict=True)]):.1f}")
    overlap = [
        figures(run, "jpeg")["folder_per_second"] / figures(run, "jpeg")["encoder_per_second"] for run in runs
    ]
    cells.append(f"{100 * median(overlap):.0f} %")
    predicted = [run["predict"] for run in runs if "predict" in run]
    peak = [run.get("predict_folder", run)["peak_megabytes"] for run in runs]
    cells.append(f"{median(peak):.0f}")
    first = [run["seconds"] for run in predicted]
    cpu = [run["cpu_seconds"] for run in predicted]
    cells.append(f"{median(first):.2f} s ({median(cpu):.2f} s of processor)" if first else "")
    return f"| {name} | {' | '.join(cells)} |"


def _contenders(model: str, options: argparse.Namespace) -> dict[str, tuple[str, str, str]]:
    int8, fp32 = (random_bundle(model, precision, options.work) for precision in ("int8", "fp32"))
    source = small_clip("another model") if model == SMALL_CLIP else f"{model}@{random_weights(options.work)}"
    contenders = {
        "open_clip eager fp32": (sys.executable, "eager", source),
        "fedmedclip fp32": (options.edge, "ours", str(fp32)),
        "fedmedclip int8": (options.edge, "ours", str(int8)),
    }
    if options.openvino:
        contenders["OpenVINO bf16"] = (options.openvino, "openvino", str(fp32))
    return contenders


def _jpegs(source: Path, target: Path, count: int) -> Path:
    """Link the first JPEGs of a folder, as they are."""
    target.mkdir(exist_ok=True)
    for index, path in enumerate(sorted(source.rglob("*.jpg"))[:count]):
        link = target / f"{index:04}.jpg"
        if not link.exists():
            link.symlink_to(path.resolve())
    return target


def _dicoms(source: Path, target: Path) -> Path:
    """Write each JPEG's pixels as an uncompressed 8-bit DICOM file."""
    import numpy as np
    import pydicom
    from PIL import Image
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    target.mkdir(exist_ok=True)
    for path in sorted(source.iterdir()):
        pixels = np.asarray(Image.open(path).convert("L"))
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        data = pydicom.Dataset()
        data.file_meta = meta
        data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        data.Rows, data.Columns = pixels.shape
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
        data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
        data.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
        data.save_as(target / f"{path.stem}.dcm", enforce_file_format=True)
    return target


def _measured(python: str, kind: str, argument: str, folders: list[Path], options: argparse.Namespace) -> Any:
    command = [
        python,
        "-m",
        "benchmarks.encoder.edge_contender",
        kind,
        argument,
        str(options.seconds),
        str(options.threads),
    ]
    done = subprocess.run(
        [*command, *map(str, folders)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    if done.returncode:
        raise SystemExit(f"{kind} {argument} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _prediction(python: str, bundle: str, images: Path, threads: int) -> dict[str, float]:
    """Classify in a fresh process: wall and processor seconds, and its peak memory."""
    command = [sys.executable, "-m", "benchmarks.measured_process", python, "-m", "fedmedclip", "predict"]
    command += ["--bundle", bundle, str(images), "--threads", str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="a folder with JPEGs")
    parser.add_argument("--work", type=Path, required=True, help="keeps bundles and images between runs")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "edge.json")
    parser.add_argument("--edge", default=sys.executable)
    parser.add_argument("--openvino")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--count", type=int, default=128, help="images")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
