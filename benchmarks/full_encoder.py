"""What training more than heads gives, and what it costs: whole encoders, LoRA, learned prompts, and ours.

    python -m benchmarks.full_encoder --data DATA --model local-dir:PATH --out full-encoder

Methods: `fedavg-full`, `fedprox-full` and `moon` train the whole image encoder; as `fedavg-frozen-norm` and
so on they leave batch norm's statistics as they were pretrained. `lora` trains low-rank differences of its
weights, `promptfl` the words before the classes' names, through the bundle's text tower. `zero-shot` and our
own methods (`fedmedclip`, `whitened-memory`, ...) work on the frozen encoder. All have the same splits of a
seed. `--rounds` are those of what trains an encoder, `--head-rounds` of what works on the frozen one: ours
and `promptfl`.

The model is exported into the folder of results. Rounds are kept as they finish: the same command goes on
where it was stopped, and more rounds, seeds or methods extend it. `state/` in the folder, up to 280 MB for
each method and seed, is what they go on from. Writes `full-encoder.json` and `full-encoder.md`.
"""

import argparse
import sys
from pathlib import Path

import msgspec
import torch
from rich.console import Console

from benchmarks.whole_encoder.comparisons import Versus, comparisons
from benchmarks.whole_encoder.federation import Round
from benchmarks.whole_encoder.results import Row, Sites, row_of
from benchmarks.whole_encoder.runs import TRAINED_HERE, Chosen, Kept, LearnerMaker
from benchmarks.whole_encoder.tables import accuracy_table, comparison_table, cost_table
from fedmedclip.edge_client.progress import progress_bar
from fedmedclip.export.bundle import export_bundle
from fedmedclip.export.prompts import read_class_prompts
from fedmedclip.protocol.bundle.bundle import Bundle, open_bundle
from fedmedclip.protocol.errors import FedMedClipError, InvalidInputError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.simulation.accuracy.origin import Origin, origin
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.known_data import chosen_on, name_of_data
from fedmedclip.simulation.federation.run_file import RunFile
from fedmedclip.simulation.federation.run_loop import at_least_one, claim_output
from fedmedclip.simulation.federation.source import Source, load_features
from fedmedclip.simulation.name_lists import parse_names
from fedmedclip.simulation.seed_lists import parse_seeds

OURS = ("zero-shot", "fedmedclip", "whitened-memory")
REFERENCES = ("fedmedclip", "whitened-memory")
"""What each method is compared with."""


class Content(msgspec.Struct, frozen=True):
    """What `full-encoder.json` holds. `data` is the digest of features, labels and groups, `data_set` a name
    where they are known; constants of the methods in `chosen_here` were chosen on them.
    """

    command: str
    origin: Origin
    data: str
    data_set: str
    chosen_here: list[str]
    rows: list[Row]
    comparisons: list[Versus]


def main() -> None:
    """Play what the folder lacks, and write the tables."""
    try:
        run(arguments(), Console())
    except FedMedClipError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def arguments() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of sites")
    parser.add_argument("--model", required=True, help="open_clip model, as `fedmedclip export` takes it")
    parser.add_argument("--pretrained", help="its weights, as `fedmedclip export` takes them")
    parser.add_argument("--methods", default=",".join([*OURS, *TRAINED_HERE]))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--head-rounds", type=int, default=30)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--no-floors", action="store_true", help="heads of small sites travel too")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of PyTorch")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch on the CPU")
    return parser.parse_args()


def run(options: argparse.Namespace, console: Console) -> None:
    """Play what is missing and write all; KeyboardInterrupt leaves the finished rounds.

    Raises FedMedClipError for anything that cannot be used.
    """
    for option in ("rounds", "head_rounds", "threads"):
        at_least_one(f"--{option.replace('_', '-')}", getattr(options, option))
    chosen = Chosen(
        tuple(parse_names("--methods", options.methods)),
        options.rounds,
        options.head_rounds,
        floors=not options.no_floors,
    )
    chosen.check()
    seeds = parse_seeds(options.seeds)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError("PyTorch finds no GPU here; leave --device out")
    torch.set_num_threads(options.threads)
    with claim_output(options.out):
        bundle = _bundle(options)
        pool = load_features(Source(options.data, bundle.folder), options.out, console, reference=False).pool
        # A GPU rounds otherwise than a CPU, so a run goes on where it began.
        common = {"features": pool.digest.hex(), "device": options.device}
        kept: Kept = RunFile(options.out / "rounds.jsonl", common, Round, lambda one: one.key)
        sites = {seed: pool.deal(seed).sites for seed in seeds}
        maker = LearnerMaker(options.data, options.model, options.pretrained, bundle, pool, options.device)
        chosen.play_missing(maker, sites, kept, options.out / "state")
        data_set = name_of_data(pool, bundle.manifest.class_names)
        _write(options.out, chosen, sites, pool, kept, data_set, _command(options))
        console.print(
            (options.out / "full-encoder.md").read_text(), markup=False, highlight=False, soft_wrap=True
        )


def _bundle(options: argparse.Namespace) -> Bundle:
    """Return the model's bundle, float32 as the model that is trained, exported if the folder lacks it."""
    folder = options.out / "bundle"
    if (folder / "manifest.json").exists():
        return open_bundle(folder)
    with progress_bar("export"):
        return export_bundle(
            options.model,
            options.pretrained,
            read_class_prompts(options.data),
            folder,
            "fp32",
            with_text=True,
        )


def _command(options: argparse.Namespace) -> str:
    """Return what gives the same, with words for what lies elsewhere on another machine."""
    words = "python -m benchmarks.full_encoder --data DATA --model MODEL --out full-encoder"
    for option in ("methods", "rounds", "head_rounds", "seeds", "device"):
        words += f" --{option.replace('_', '-')} {getattr(options, option)}"
    return f"{words} --no-floors" if options.no_floors else words


def _write(
    out: Path, chosen: Chosen, sites: Sites, pool: FeaturePool, kept: Kept, data_set: str, command: str
) -> None:
    rows: list[Row] = []
    last: dict[tuple[str, int], Round] = {}
    for method in chosen.methods:
        for seed, of_seed in sites.items():
            played = chosen.played(kept, method, seed)
            rows.append(row_of(played, of_seed, pool))
            last[method, seed] = played[-1]
    references = [method for method in REFERENCES if method in chosen.methods]
    found = comparisons(last, sites, pool, chosen.methods, references)
    ours = [method for method in chosen.methods if method not in TRAINED_HERE]
    chosen_here = [method for method in ours if data_set in chosen_on(method)]
    content = Content(command, origin(), pool.digest.hex()[:12], data_set, chosen_here, rows, found)
    encoded = msgspec.json.format(msgspec.json.encode(content), indent=1)
    write_new_file(out / "full-encoder.json", encoded + b"\n")
    tables = [accuracy_table(rows, chosen_here), cost_table(rows), comparison_table(found)]
    write_new_file(out / "full-encoder.md", ("\n\n".join(tables) + "\n").encode())


if __name__ == "__main__":
    main()
