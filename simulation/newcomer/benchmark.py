"""`fedmedclip bench newcomer`: features -> runs (newcomer, labels, method, seed) -> rows, plot, page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from rich.console import Console

from fedmedclip.aggregator.rules.names import rule_for
from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, NO_FLOORS
from fedmedclip.edge_client.learning.method import trainable_method
from fedmedclip.edge_client.learning.version_head import adapts_to_versions
from fedmedclip.edge_client.progress import progress_bar
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.methods import known_methods
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.visible import visible
from fedmedclip.simulation.accuracy.document import Figure
from fedmedclip.simulation.federation.coders import codecs_of
from fedmedclip.simulation.federation.evaluation import ZERO_SHOT, tested
from fedmedclip.simulation.federation.folder import GLOBAL_TEST
from fedmedclip.simulation.federation.run_file import RunFile
from fedmedclip.simulation.federation.run_loop import Job, at_least_one, claim_output, run_missing
from fedmedclip.simulation.federation.source import Source, load_features
from fedmedclip.simulation.name_lists import parse_names
from fedmedclip.simulation.newcomer.class_shares import NATURAL, RESAMPLED
from fedmedclip.simulation.newcomer.content import Content, gather, write_content
from fedmedclip.simulation.newcomer.labels import Labels, parse_labels
from fedmedclip.simulation.newcomer.plots import caption, draw
from fedmedclip.simulation.newcomer.report import page, print_tables
from fedmedclip.simulation.newcomer.results import LOCAL_METHOD, Evidence
from fedmedclip.simulation.newcomer.runs import Newcomers, Run
from fedmedclip.simulation.newcomer.study import (
    FEDERATED,
    LOCAL_ONLY,
    POOLED,
    WITHOUT_TRAINING,
    Case,
    Study,
    Way,
)
from fedmedclip.simulation.seed_lists import parse_seeds


@dataclass(frozen=True)
class NewcomerSettings:
    """What the command is asked to do; see its `--help`. `command` is what was typed, for the report."""

    out: Path
    source: Source = field(default_factory=Source)
    methods: str = "fedmedclip,whitened-memory,linear-probe"
    pooled: str = "fedmedclip,whitened-memory,linear-probe"
    labels: str = "0,1,2,4,8,16,all"
    seeds: str = "0,1,2"
    codec: str | None = None
    rule: str | None = None
    rounds: int | None = None
    missing_class: bool = True
    floors: bool = True
    command: str = "fedmedclip bench newcomer"


@dataclass(frozen=True)
class _Options:
    """The settings, taken apart."""

    methods: list[str]
    pooled: list[str]
    labels: list[Labels]
    seeds: list[int]


def run_newcomer(settings: NewcomerSettings, console: Console) -> None:
    """Run what `settings.out` does not hold yet, and write every result there.

    Raises FedMedClipError for anything that cannot be used; KeyboardInterrupt leaves the finished runs.
    """
    options = _options(settings)
    settings.source.check()
    settings.source.require_packages("bench newcomer", settings.out)
    with claim_output(settings.out):
        features = load_features(settings.source, settings.out, console)
        floors = DEFAULT_FLOORS if settings.floors else NO_FLOORS
        study = Study(features, settings.codec, settings.rounds, settings.rule, floors)
        cases = _cases(settings, options, study)
        newcomers = Newcomers(study, settings.out)
        runs = RunFile(settings.out / "runs.jsonl", study.description(), Run, key_of=lambda run: run.case)
        jobs = {
            case: Job(
                _in_words(case, features.class_names),
                study.rounds_of(case.method),
                partial(newcomers.run, case),
            )
            for case in cases
        }
        run_missing(jobs, runs, settings.out, console)
        with progress_bar("means, significance and plot"):
            recorded = {**study.description(), "command": settings.command}
            content = gather(Evidence(study, runs.runs), cases, options.pooled[0], recorded)
            _write(settings, content)
        print_tables(console, content)
        files = "newcomer.json, newcomer.md, newcomer.svg, newcomer.png"
        console.print(f"{visible(settings.out)}: {files}", highlight=False, markup=False, soft_wrap=True)


def _options(settings: NewcomerSettings) -> _Options:
    """Take the settings apart. Raises InvalidInputError for what cannot be used, before any feature."""
    at_least_one("--rounds", settings.rounds)
    if settings.codec is not None:
        uplink, _ = codecs_of(settings.codec)
        delta_codec_named(uplink)
    methods = _methods("--methods", settings.methods, settings.rule)
    return _Options(
        methods,
        _methods("--pooled", settings.pooled, None),
        parse_labels(settings.labels),
        parse_seeds(settings.seeds),
    )


def _methods(option: str, text: str, rule: str | None) -> list[str]:
    """Return methods by name; `all` are all that are known.

    Raises InvalidInputError for those that there are not, and where the rule does not suit one.
    """
    names = parse_names(option, text)
    if names == ["all"]:
        names = known_methods()
    for name in names:
        if name in (ZERO_SHOT, LOCAL_ONLY, POOLED):
            raise InvalidInputError(f"{option}: {name} is always there; name methods to federate with")
        trainable_method(name)
        rule_for(name, rule)
    return names


def _cases(settings: NewcomerSettings, options: _Options, study: Study) -> list[Case]:
    """Return all runs; those beside the same federation follow each other, so that it is played once.

    Raises InvalidInputError where there is only one hospital, or no federation without one.
    """
    cases: list[Case] = []
    for seed in options.seeds:
        hospitals = study.sites(seed)
        if len(hospitals) < 2:
            raise InvalidInputError(
                "a newcomer needs a federation to join, and there is one site only; give at least 2 sites"
            )
        places = [site.name for site in tested(hospitals)]
        _require_senders(study, options.methods, seed)
        pairs = list(_ways(options))
        for way, method in pairs:
            if study.pool.global_test is not None and way != LOCAL_ONLY:
                cases.append(Case(way, method, GLOBAL_TEST, 0, seed))
            for site in places:
                cases += [Case(way, method, site, labels, seed) for labels in options.labels]
                if settings.missing_class and way != POOLED:
                    cases += _missing(Case(way, method, site, options.labels[-1], seed), study)
                if way == FEDERATED and adapts_to_versions(method) and 0 in options.labels:
                    cases += [Case(way, method, site, 0, seed, shares=shares) for shares in RESAMPLED]
    return cases


def _require_senders(study: Study, methods: Sequence[str], seed: int) -> None:
    """Raise InvalidInputError where the floors would keep back everybody whom some newcomer joins."""
    for method, newcomer in product(methods, study.sites(seed)):
        others = [site for site in study.sites(seed) if site.name != newcomer.name]
        reasons = [study.floors.reason_to_keep(method, study.pool.labels[site.train]) for site in others]
        if all(reasons):
            raise InvalidInputError(
                f"without {newcomer.name} none of {len(others)} sites may send what it learnt "
                f"({min(reasons)}); give larger sites, or switch the floors off"
            )


def _ways(options: _Options) -> Iterator[tuple[Way, str]]:
    yield WITHOUT_TRAINING, ""
    for method in dict.fromkeys([LOCAL_METHOD, *options.methods]):
        yield LOCAL_ONLY, method
    for method in options.pooled:
        yield POOLED, method
    for method in options.methods:
        yield FEDERATED, method


def _missing(case: Case, study: Study) -> list[Case]:
    """Return a case without each class that the newcomer is trained on and tested on."""
    newcomer, labels = study.newcomer(case), study.pool.labels
    classes = np.intersect1d(labels[newcomer.train], labels[newcomer.test])
    return [case._replace(missing=int(label)) for label in classes]


def _in_words(case: Case, class_names: Sequence[str]) -> str:
    words = [f"{case.way} {case.method}".strip(), case.site, f"{case.labels} labels", f"seed {case.seed}"]
    if case.missing is not None:
        words.append(f"without {class_names[case.missing]}")
    if case.shares != NATURAL:
        words.append(f"class shares {case.shares}")
    return visible(", ".join(words))


def _write(settings: NewcomerSettings, content: Content) -> None:
    write_content(settings.out / "newcomer.json", content)
    svg = draw(settings.out, content)[0]
    figure = Figure(svg, "Why join?", caption(content))
    write_new_file(settings.out / "newcomer.md", page(content, settings.command, figure).encode())
