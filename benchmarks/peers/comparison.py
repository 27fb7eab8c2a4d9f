"""NNCodec and Flower beside ours: the same FAM, sites, seeds and rounds, bytes and accuracy in one table.

    python -m benchmarks.peers.comparison --data DIR --bundle B --out DIR [--rounds 30] [--seeds 0,1,2]

from the repository's root, in an environment with the extra [bench]. Each peer gets a virtual environment of
its own below --out, which sees this one's PyTorch; or name an interpreter that has it, and fedmedclip, with
--nncodec-python, --flower-python. A peer that cannot be installed is left out; the last line of pip says why.

NNCodec (ISO/IEC 15938-17) codes the deltas of both directions, with error feedback, in our envelopes. Flower
sends whole float32 heads over gRPC, as it does by default; its bytes are counted at the socket, so they hold
HTTP/2 framing, which ours, counted as MQTT payloads, do not (an MQTT header has about 30 bytes).
"""

import argparse
import subprocess
import sys
import sysconfig
from functools import partial
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks.peers.flower_peer import run_flower
from benchmarks.peers.nncodec_peer import run_nncodec
from fedmedclip.protocol.errors import FedMedClipError
from fedmedclip.simulation.bandwidth.results import Row, make_rows, target_accuracy
from fedmedclip.simulation.bandwidth.runs import CodecTrial, Run, codec_choices, open_runs, run_federation
from fedmedclip.simulation.bandwidth.table import print_rows
from fedmedclip.simulation.bandwidth.thin_link import parse_link
from fedmedclip.simulation.federation.experiment import Experiment
from fedmedclip.simulation.federation.run_loop import Job, claim_output, run_missing
from fedmedclip.simulation.federation.source import Source, load_features
from fedmedclip.simulation.seed_lists import parse_seeds


def main() -> None:
    """Run everything and write `peers.json` and `peers.md` into --out."""
    options = _options()
    console = Console()
    try:
        run_peers(options, console)
    except FedMedClipError as error:
        sys.exit(f"peers: {error}")


def run_peers(options: argparse.Namespace, console: Console) -> None:
    """Play ours, then each peer that is there, skipping runs that --out holds already."""
    source = Source(options.data, options.bundle, options.features)
    seeds, codecs = parse_seeds(options.seeds), codec_choices(options.codecs)
    out = options.out
    with claim_output(out):
        pool = load_features(source, out, console, reference=False).pool
        trial = CodecTrial(pool, Experiment(method=options.method, rounds=options.rounds))
        players = {codec: partial(run_federation, trial, codec, folder=out) for codec in codecs}
        if nncodec := options.nncodec_python or install("nncodec", out, options.pip_options, console):
            for qp in map(int, options.qp.split(",")):
                players[f"nncodec {qp}"] = partial(run_nncodec, trial, nncodec, qp, out)
        if flower := options.flower_python or install("flwr", out, options.pip_options, console):
            players["flower"] = partial(run_flower, trial, flower, out)
        run_file = open_runs(out, trial)
        jobs = {
            (label, seed): Job(f"{label}, seed {seed}", options.rounds, partial(player, seed))
            for label, player in players.items()
            for seed in seeds
        }
        run_missing(jobs, run_file, out, console)
        runs = {label: [run_file.runs[label, seed] for seed in seeds] for label in players}
        _write(options, trial, runs, console)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers.comparison",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--features", type=Path, help="instead of --data and --bundle, as for the benchmark")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", default="fedmedclip")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--codecs", default="lossless,paper-fp16-zlib,lowrank")
    parser.add_argument("--qp", default="-32,-24,-20", help="NNCodec's quantisation parameters")
    parser.add_argument("--nncodec-python", type=Path)
    parser.add_argument("--flower-python", type=Path)
    parser.add_argument("--pip-options", default="", help="for the peers' installation")
    return parser.parse_args()


def install(package: str, out: Path, pip_options: str, console: Console) -> Path | None:
    """Return a Python with the package, made below `out` if needed; None, and a line why, where it fails."""
    folder = out / f"environment-{package.split()[0]}"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    console.print(f"installing {package} into {folder}", highlight=False)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    # Its own packages come first; PyTorch, which both need, is not downloaded again.
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    ours = folder / "lib" / version / "site-packages" / "ours.pth"
    # Not the path alone: that would leave out what is installed there by a .pth file, such as fedmedclip.
    ours.write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", *pip_options.split()]
    done = subprocess.run([*pip, package], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        why = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        console.print(f"{package} is left out, it cannot be installed: {' '.join(why)}", highlight=False)
        return None
    (folder / "complete").touch()
    return python


def _write(
    options: argparse.Namespace, trial: CodecTrial, runs: dict[str, list[Run]], console: Console
) -> None:
    target, source = target_accuracy(runs, None)
    rows = make_rows(runs, parse_link("64kbit/s", "600ms"), target)
    content = {"settings": trial.description(), "rows": rows}
    encoded = msgspec.json.format(msgspec.json.encode(content), indent=2)
    (options.out / "peers.json").write_bytes(encoded + b"\n")
    (options.out / "peers.md").write_text(_markdown(rows))
    print_rows(console, rows, "64kbit/s, 600ms", f"{100 * target:.1f} % ({source})")
    console.print(f"{options.out}: peers.json, peers.md", highlight=False)


def _markdown(rows: list[Row]) -> str:
    lines = [
        "| codec | bytes up | bytes down | accuracy % | rounds to target | encode + decode ms |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        measured = row.encode_ms + row.decode_ms
        lines.append(
            f"| {row.codec} | {row.uplink_bytes_per_round:,.0f} | {row.downlink_bytes_per_round:,.0f} "
            f"| {100 * row.accuracy:.1f} ± {100 * row.accuracy_std:.1f} | {row.rounds_to_target or '-'} "
            f"| {f'{measured:.1f}' if measured else '-'} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
