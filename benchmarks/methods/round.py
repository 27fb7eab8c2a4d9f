"""A round at a site with cached embeddings, against re-encoding in each epoch, and against full fine-tuning.

    python -m benchmarks.methods.round --out round [--model ViT-B-32] [--model local-dir:PATH] [--batches 6]

- `cached`: `train_round` of FedMedCLIP's heads on cached embeddings, the update encoded and sent. This is
  what `fedmedclip site` does in each round.
- `re-encoding`: the same heads and the same update, but the frozen image encoder runs over the images in
  each epoch, as in the published code of the papers. Reading and resizing the images is not counted.
- `full FedAvg`: forward, backward and AdamW step of the whole CLIP, image and text tower, on image-caption
  pairs; all weights are sent as float32.

Each is measured in a process of its own, one after the other. "Sent" means made into signed messages within
the message limit and acknowledged by a Mosquitto on this machine at QoS 1. Encoder and full fine-tuning are
measured for some whole batches after a warm-up and scaled to all images by their median; of the full model
at most 64 MiB are sent and scaled. A model without weights of its own has random ones: the time is the
same. Writes `round.json` and `round.md`.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

KINDS = ("cached", "re-encoding", "full FedAvg")
HEADINGS = (
    "encoder", "round", "seconds", "compute", "encode", "send", "processor s", "bytes sent", "peak MB",
    "times slower", "times the processor",
)  # fmt: skip
Row = dict[str, Any]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for round.json and round.md")
    parser.add_argument("--model", action="append", help="open_clip name, or local-dir:PATH; repeatable")
    parser.add_argument("--images", type=int, default=1000, help="training images of the site")
    parser.add_argument("--batches", type=int, default=6, help="batches to measure and scale from")
    parser.add_argument("--threads", type=int, default=2, help="of encoder and full model")
    parser.add_argument("--codec", default="lowrank")
    options = parser.parse_args()
    rows = []
    for model in options.model or ["ViT-B-32"]:
        for kind in KINDS:
            task = {
                "kind": kind, "model": model, "images": options.images, "batches": options.batches,
                "threads": options.threads, "codec": options.codec,
            }  # fmt: skip
            rows.append(measured(task))
            print(line(rows[-1], rows), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "round.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    (options.out / "round.md").write_text(table(rows), encoding="utf-8")


def measured(task: Row) -> Row:
    """Run a worker and return its task with what it measured. Ends this process when the worker fails."""
    command = [sys.executable, "-m", "benchmarks.methods.round_worker", json.dumps(task)]
    # Threads that wait for each other should not use up the processor meanwhile.
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if finished.returncode != 0:
        sys.exit(f"{task['kind']} with {task['model']} failed; its error is above")
    return {**task, **json.loads(finished.stdout.splitlines()[-1])}


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown."""
    head = f"| {' | '.join(HEADINGS)} |"
    rule = "|---|---|" + "---:|" * (len(HEADINGS) - 2)
    return "\n".join([head, rule, *(line(row, rows) for row in rows)]) + "\n"


def line(row: Row, rows: list[Row]) -> str:
    """Return one line of the table; the last two columns compare with the cached round of the same model."""
    cached = next(other for other in rows if other["model"] == row["model"] and other["kind"] == "cached")
    seconds = [row["seconds"], row["compute_seconds"], row["encode_seconds"], row["send_seconds"]]
    cells = [row["model"].rsplit("/", 1)[-1], row["kind"], *(f"{value:,.3f}" for value in seconds)]
    cells += [f"{row['processor_seconds']:,.2f}", f"{row['bytes']:,}", f"{row['peak_memory_mb']:,.0f}"]
    cells += [f"{row[name] / cached[name]:,.0f}" for name in ("seconds", "processor_seconds")]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
