"""What came of a demo: `summary.json` for machines, a table for people.

Bytes are MQTT payload bytes as a site published and received them, chunks and envelopes included. Those of a
round at a site run from the version before being installed to its own version being installed; what was
exchanged to join (plan, first announcement) is under `joining`. A round's accuracies are on the validation
split, those under `final` on the test split; `global_test` is labelled images of no site.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedmedclip.aggregator.store import Store
from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.features.labelled import load_labelled_features
from fedmedclip.edge_client.heads.heads_file import Heads
from fedmedclip.edge_client.heads.metrics import Metrics
from fedmedclip.edge_client.inference.evaluation import evaluate
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.bundle.bundle import Bundle, open_bundle
from fedmedclip.protocol.codecs import decode_head
from fedmedclip.protocol.codecs.error_feedback import apply_delta
from fedmedclip.protocol.heads.head import NamedArrays, head_digest
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.visible import visible
from fedmedclip.simulation.federation.folder import FederationFolder

Report = dict[str, Any]

_GLOBAL_FIGURES = ("accuracy", "balanced_accuracy", "macro_f1")
_CLASSIFIERS = ("zero_shot", "shared", "private", "ensemble")


def newest_version(aggregator: Path) -> int:
    """Return the newest version of the aggregator in this folder, 0 before there is any."""
    try:
        address = f"file:{aggregator / 'aggregator.db'}?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as database:
            return database.execute("SELECT max(version) FROM versions").fetchone()[0] or 0
    except sqlite3.OperationalError:
        return 0


def summarise(out: Path, method: str, seed: int, folder: FederationFolder, bundle_path: Path) -> Report:
    """Gather the summary from the states that aggregator and sites left in `out`."""
    bundle = open_bundle(bundle_path)
    store = Store(out / "aggregator" / "aggregator.db")
    plan = store.plan()
    assert plan is not None
    heads = dict(global_heads(store, len(bundle.manifest.class_names)))
    journals = {site: _journal(out / "sites" / site) for site in folder.sites}
    finals = {site: _evaluation(out / "sites" / site) for site in folder.sites}
    global_figures = _global_figures(out, method, folder, bundle, heads)
    rounds = [_round(version, journals, global_figures.get(version)) for version in range(1, plan.rounds + 1)]
    return {
        "method": method,
        "codec": plan.uplink_codec,
        "downlink_codec": plan.downlink_codec,
        "seed": seed,
        "head_digest": head_digest(heads[plan.rounds]).hex(),
        "rounds": rounds,
        "joining": {site: _bytes(journal[0]) for site, journal in journals.items()},
        "final": {
            "sites": finals,
            **({"global_test": global_figures[plan.rounds]} if global_figures else {}),
        },
    }


def global_heads(store: Store, classes: int | None) -> Iterator[tuple[int, NamedArrays]]:
    """Yield every version of the global head, rebuilt from the broadcasts as a site does it."""
    plan = store.plan()
    assert plan is not None
    specification = shared_head_specification(plan.method, plan.embedding_size, classes)
    head = initial_shared_head(plan.method, plan.embedding_size, plan.seed, classes)
    yield 0, head
    for stored in store.versions_after(0):
        head = apply_delta(head, decode_head(stored.payload, specification), specification)
        assert head_digest(head) == stored.head_digest
        yield stored.version, head


def write_summary(out: Path, summary: Report) -> None:
    """Write `summary.json`."""
    encoded = msgspec.json.format(msgspec.json.encode(summary), indent=2)
    write_new_file(out / "summary.json", encoded + b"\n")


def _journal(site: Path) -> dict[int, Report]:
    state = SiteState(site / "site.db")
    try:
        return state.journal()
    finally:
        state.close()


def _evaluation(site: Path) -> Report:
    figures: dict[str, Report] = msgspec.json.decode((site / "evaluation.json").read_bytes())
    return {
        measure: {name: figure[measure] for name, figure in figures.items()}
        for measure in (*_GLOBAL_FIGURES, "expected_calibration_error")
    } | {"images": next(iter(figures.values()))["images"]}


def _global_figures(
    out: Path, method: str, folder: FederationFolder, bundle: Bundle, heads: dict[int, NamedArrays]
) -> dict[int, Report]:
    if folder.global_test is None:
        return {}
    with FeatureStore(out / "global_test.db") as store:
        embeddings, labels, _ = load_labelled_features(folder.global_test, bundle, store)
    found: dict[int, Report] = {}
    for version, shared in heads.items():
        site_free = Heads(method, shared, None, "demo", "global_test", version)
        figures = evaluate(site_free, bundle, embeddings, labels)
        found[version] = {
            measure: {name: _figure(figures[name], measure) for name in ("zero_shot", "shared")}
            for measure in _GLOBAL_FIGURES
        }
    return found


def _figure(metrics: Metrics, name: str) -> float:
    return round(float(getattr(metrics, name)), 6)


def _round(version: int, journals: dict[str, dict[int, Report]], global_test: Report | None) -> Report:
    entries = {site: journal[version] for site, journal in journals.items()}
    began = max(journal[version - 1]["installed_at"] for journal in journals.values())
    ended = max(entry["installed_at"] for entry in entries.values())
    report: Report = {
        "version": version,
        "seconds": round(ended - began, 3),
        "uplink_bytes": sum(entry["uplink_bytes"] for entry in entries.values()),
        "downlink_bytes": sum(entry["downlink_bytes"] for entry in entries.values()),
        "sites": {
            site: {
                **_bytes(entry),
                "train_seconds": entry["train_seconds"],
                "encoder_images": entry["encoder_images"],
                "accuracy": entry["accuracy"],
            }
            for site, entry in entries.items()
        },
    }
    return report if global_test is None else {**report, "global_test": global_test}


def _bytes(entry: Report) -> Report:
    return {name: entry[name] for name in ("uplink_bytes", "downlink_bytes")}


def print_summary(console: Console, out: Path, summary: Report, bundle: Path) -> None:
    """Print what a person wants to know: accuracies, bytes, seconds, and what to try next."""
    console.print()
    console.print(_accuracy_table(summary))
    console.print(_traffic_table(summary))
    phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in summary["phases"].items())
    console.print(f"[bold]Time[/bold]  {phases}", soft_wrap=True)
    console.print(
        f"[bold]Files[/bold] {_plain(out)}: bundle, aggregator, sites, logs, summary.json, predictions.csv",
        soft_wrap=True,
    )
    site = next(iter(summary["final"]["sites"]))
    console.print("[bold]Next[/bold]  classify your own images, offline and without PyTorch:")
    heads = out / "sites" / site / "heads.safetensors"
    console.print(
        f"        fedmedclip predict --bundle {_plain(bundle)} --heads {_plain(heads)} IMAGE...",
        soft_wrap=True,
    )
    console.print("      or run it on your own folder of sites (SITE/CLASS/image files):")
    console.print(
        "        fedmedclip demo --data FOLDER --model ViT-B-32 --pretrained openai", soft_wrap=True
    )


def _plain(path: Path) -> str:
    """Return a path as it may stand in a line with markup."""
    return escape(visible(path))


def _accuracy_table(summary: Report) -> Table:
    table = Table(title="Accuracy after the last round, on images that no site trained on")
    table.add_column("images of")
    for name in _CLASSIFIERS:
        table.add_column(name.replace("_", "-"), justify="right")
    sites = summary["final"]["sites"]
    for site, figures in sites.items():
        table.add_row(f"{site} (test split)", *_cells(figures["accuracy"]))
    if len(sites) > 1:
        mean = {
            name: sum(figures["accuracy"][name] for figures in sites.values()) / len(sites)
            for name in next(iter(sites.values()))["accuracy"]
        }
        table.add_row("mean of the sites", *_cells(mean), style="bold", end_section=True)
    if (global_test := summary["final"].get("global_test")) is not None:
        table.add_row("global test", *_cells(global_test["accuracy"]))
    return table


def _cells(accuracy: dict[str, float]) -> list[str]:
    return [f"{accuracy[name]:.3f}" if name in accuracy else "-" for name in _CLASSIFIERS]


def _traffic_table(summary: Report) -> Table:
    rounds = summary["rounds"]
    table = Table(title=f"Per site and round (mean of {len(rounds)} rounds)")
    for heading in ("site", "bytes sent", "bytes received", "training s", "images encoded"):
        table.add_column(heading, justify="left" if heading == "site" else "right")
    for site in summary["final"]["sites"]:
        entries = [entry["sites"][site] for entry in rounds]

        def mean(name: str, entries: list[Report] = entries) -> float:
            return float(sum(entry[name] for entry in entries)) / len(entries)

        table.add_row(
            site,
            f"{mean('uplink_bytes'):,.0f}",
            f"{mean('downlink_bytes'):,.0f}",
            f"{mean('train_seconds'):.2f}",
            f"{mean('encoder_images'):.0f}",
        )
    return table
