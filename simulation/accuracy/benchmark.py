"""`fedmedclip bench accuracy`: features -> runs (each case with each seed) -> scores -> report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedmedclip.edge_client.progress import progress_bar
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.visible import visible
from fedmedclip.simulation.accuracy.ablations import Ablation, ablations_of
from fedmedclip.simulation.accuracy.cases import MOST_LEFT_OUT, Case, leave_one_out, read_cases
from fedmedclip.simulation.accuracy.content import Content, gather
from fedmedclip.simulation.accuracy.document import to_markdown
from fedmedclip.simulation.accuracy.evidence import SITES, Evidence
from fedmedclip.simulation.accuracy.figures import draw
from fedmedclip.simulation.accuracy.page import to_html
from fedmedclip.simulation.accuracy.report import percent, report_items, rounds_in_words
from fedmedclip.simulation.accuracy.row_names import DEFAULT_METHOD
from fedmedclip.simulation.accuracy.runs import FORMAT, Run, run_case
from fedmedclip.simulation.accuracy.setting import setting_of
from fedmedclip.simulation.accuracy.settings import AccuracySettings
from fedmedclip.simulation.accuracy.verdict import MARK, marked
from fedmedclip.simulation.federation.attendance import attendance
from fedmedclip.simulation.federation.folder import GLOBAL_TEST, SERVER_REFERENCE
from fedmedclip.simulation.federation.run_file import RunFile
from fedmedclip.simulation.federation.run_loop import (
    Job,
    claim_output,
    run_missing,
)
from fedmedclip.simulation.federation.source import load_features
from fedmedclip.simulation.federation.targets import Target, target_digest
from fedmedclip.simulation.federation.virtual_sites import VirtualSites
from fedmedclip.simulation.seed_lists import parse_seeds


@dataclass(frozen=True)
class _Programme:
    """All cases: the table's, and what is derived from them."""

    cases: list[Case]
    reference: Case
    left_out: list[Case]
    ablations: list[tuple[Ablation, Case, Case]]

    @property
    def all(self) -> list[Case]:
        """Every case that needs runs, each once."""
        cases = [*self.cases, *self.left_out, *(case for _, case, _ in self.ablations)]
        return list({case.identity: case for case in reversed(cases)}.values())[::-1]


def run_accuracy(settings: AccuracySettings, console: Console) -> None:
    """Run what `settings.out` does not hold yet, and write every result there.

    Raises FedMedClipError for anything that cannot be used; KeyboardInterrupt leaves the finished runs.
    """
    seeds = parse_seeds(settings.seeds)
    settings.source.check()
    # Before any feature is computed, whatever is wrong with the options.
    common = settings.common()
    known = read_cases(settings.methods, settings.training, common, named=settings.named)
    _reference(known, settings.reference)
    settings.source.require_packages("bench accuracy", settings.out)
    with claim_output(settings.out):
        features = load_features(settings.source, settings.out, console)
        pool, targets = features.pool, features.unlabelled
        to = Target(SERVER_REFERENCE) if SERVER_REFERENCE in targets else None
        cases = read_cases(settings.methods, settings.training, common, to, settings.named)
        reference = _reference(cases, settings.reference)
        sites = {seed: common.dealing.deal(pool, seed) for seed in seeds}
        notes = attendance(cases, pool, sites)
        left_out = _sites_to_leave_out(settings, sites, notes)
        for note in notes:
            console.print(visible(note), highlight=False, markup=False, soft_wrap=True)
        programme = _Programme(
            cases,
            reference,
            leave_one_out(cases, left_out),
            ablations_of(cases, reference) if settings.ablations else [],
        )
        runs = RunFile(
            settings.out / "runs.jsonl",
            {"features": pool.digest.hex(), "targets": target_digest(targets), "format": FORMAT},
            Run,
            key_of=lambda run: (run.case, run.seed),
        )
        jobs = {
            (case.identity, seed): Job(
                f"{case.label}{'' if case.left_out is None else f' without {case.left_out}'}, seed {seed}",
                case.rounds,
                partial(run_case, case, seed, pool, targets, settings.out),
            )
            for case in programme.all
            for seed in seeds
        }
        run_missing(jobs, runs, settings.out, console)
        evidence = Evidence(pool, features.class_names, tuple(seeds), sites, runs.runs)
        with progress_bar("scores, significance and figures"):
            content = gather(
                evidence, settings.command, setting_of(common, sites), notes, cases, reference,
                programme.left_out, programme.ablations,
            )  # fmt: skip
            _write(settings.out, content)
        _print(console, content, settings.out)


def _sites_to_leave_out(
    settings: AccuracySettings, sites: Mapping[int, VirtualSites], notes: list[str]
) -> list[str]:
    """Return the hospitals to leave out in turn; adds a note where they are many and nobody asked."""
    names = [site.name for site in next(iter(sites.values())).sites]
    if settings.leave_one_out is False or settings.sites is not None or len(names) < 2:
        return []
    if len(names) > MOST_LEFT_OUT and settings.leave_one_out is None:
        notes.append(f"none of {len(names)} hospitals is left out in turn; --leave-one-out asks for it")
        return []
    return names


def _reference(cases: Sequence[Case], wanted: str | None) -> Case:
    by_label = {case.label: case for case in cases}
    if wanted is None:
        return by_label.get(DEFAULT_METHOD, cases[0])
    if wanted not in by_label:
        raise InvalidInputError(
            f"--reference-method {wanted!r} is not one of --methods: {', '.join(by_label)}"
        )
    return by_label[wanted]


def _write(out: Path, content: Content) -> None:
    encoded = msgspec.json.format(msgspec.json.encode(content), indent=1)
    write_new_file(out / "accuracy.json", encoded + b"\n")
    folder = out / "figures"
    folder.mkdir(exist_ok=True)
    items = report_items(content, draw(folder, content.methods, content.class_names))
    title = "Accuracy report"
    write_new_file(out / "report.md", to_markdown(title, items, figures="figures/").encode())
    write_new_file(out / "report.html", to_html(title, items).encode())


def _print(console: Console, content: Content, out: Path) -> None:
    seeds = f"{len(content.seeds)} seed{'s' * (len(content.seeds) > 1)}"
    with_global = GLOBAL_TEST in content.comparisons
    table = Table(
        title=f"Accuracy in %, mean of {seeds}, rounds: {rounds_in_words(content)}",
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    table.add_column("method")
    for heading in ("bytes", "sites", "worst site", "vs ref.", *(("global", "vs ref.") * with_global)):
        table.add_column(heading, justify="right")
    for result in content.methods:
        cells = [f"{result.bytes_per_round:,.0f}", percent(result.headline(SITES))]
        cells.append(f"{100 * result.worst_site.mean:.1f}")
        cells.append(_against(content, SITES, result.label))
        if with_global:
            cells += [percent(result.headline(GLOBAL_TEST)), _against(content, GLOBAL_TEST, result.label)]
        table.add_row(escape(visible(marked(content, result.label))), *cells)
    console.print(table)
    console.print(
        f"bytes: per site and round, both ways; sites: mean of the sites' tests (ensemble); worst site: the "
        f"worst of each seed; global: shared head; vs ref.: points to {content.reference} on the same "
        "images, * significant (McNemar by group, Holm)",
        style="dim", highlight=False,
    )  # fmt: skip
    if content.chosen_here:
        console.print(
            f"{MARK}: constants or settings chosen on {content.data_set}", style="dim", highlight=False
        )
    files = "report.html, report.md, accuracy.json, figures/"
    console.print(f"{visible(out)}: {files}", highlight=False, markup=False, soft_wrap=True)


def _against(content: Content, test_set: str, label: str) -> str:
    found = content.comparisons[test_set].get(label)
    return "" if found is None else f"{100 * found.difference:+.1f}" + "*" * found.significant
