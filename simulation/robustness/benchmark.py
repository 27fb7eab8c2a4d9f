"""`fedmedclip bench robustness`: features -> runs (each rule, attack and seed) -> rows, table, plot, page."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
from rich.console import Console

from fedmedclip.aggregator.rules.names import BUILT_IN, rule_for, rule_named
from fedmedclip.edge_client.heads.method import site_method
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.methods import USUAL_CODEC, method_named
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.visible import visible
from fedmedclip.simulation.federation.coders import codecs_of
from fedmedclip.simulation.federation.run_file import RunFile
from fedmedclip.simulation.federation.run_loop import Job, at_least_one, claim_output, run_missing
from fedmedclip.simulation.federation.source import Source, load_features
from fedmedclip.simulation.name_lists import parse_names
from fedmedclip.simulation.robustness.attacks import NO_ATTACK, attack_choices
from fedmedclip.simulation.robustness.plots import draw
from fedmedclip.simulation.robustness.report import print_tables, to_markdown
from fedmedclip.simulation.robustness.results import make_rows, reference_cases, summarise, verdicts
from fedmedclip.simulation.robustness.runs import Arena, Case, Run, arena, run_case
from fedmedclip.simulation.seed_lists import parse_seeds


@dataclass(frozen=True)
class RobustnessSettings:
    """What the command is asked to do; see its `--help`. `command` is what was typed, for the report."""

    out: Path
    attacks: str
    rules: str
    source: Source = field(default_factory=Source)
    attackers: int = 1
    sites: str = "5,10"
    seeds: str = "0,1,2"
    rounds: int | None = None
    methods: str = "fedmedclip"
    codec: str | None = None
    alpha: float = 1.0
    maximum_update_norm: float = 1000.0
    command: str = "fedmedclip bench robustness"


def run_robustness(settings: RobustnessSettings, console: Console) -> None:
    """Run what `settings.out` does not hold yet, and write every result there.

    Raises FedMedClipError for anything that cannot be used; KeyboardInterrupt leaves the finished runs.
    """
    cases = _cases(settings)
    settings.source.check()
    settings.source.require_packages("bench robustness", settings.out)
    with claim_output(settings.out):
        features = load_features(settings.source, settings.out, console, reference=False)
        shared = arena(
            features.pool, settings.codec, settings.rounds, settings.alpha, settings.maximum_update_norm
        )
        for sites, seed in dict.fromkeys((case.sites, case.seed) for case in cases):
            shared.deal(sites, seed)
        runs = RunFile(settings.out / "runs.jsonl", shared.description(), Run, key_of=lambda run: run.case)
        every = dict.fromkeys([*(other for case in cases for other in reference_cases(case)), *cases])
        jobs = {
            case: Job(
                _in_words(case),
                shared.rounds_of(case.method),
                partial(run_case, shared, case, settings.out),
            )
            for case in every
        }
        run_missing(jobs, runs, settings.out, console)
        _write(settings, shared, cases, runs.runs, console)


def _cases(settings: RobustnessSettings) -> list[Case]:
    """Return what is to be seen in the table. Raises InvalidInputError for options that cannot be used."""
    at_least_one("--rounds", settings.rounds)
    at_least_one("--attackers", settings.attackers)
    if not settings.maximum_update_norm > 0:
        raise InvalidInputError(f"--maximum-update-norm is {settings.maximum_update_norm}; give more than 0")
    if settings.codec is not None:
        codecs_of(settings.codec)
    attacks = [(NO_ATTACK, 0)]
    attacks += [(attack.name, settings.attackers) for attack in attack_choices(settings.attacks)]
    seeds, rules = parse_seeds(settings.seeds), parse_names("--rules", settings.rules)
    of_methods = {method: _rules(method, rules) for method in parse_names("--methods", settings.methods)}
    numbers = [_number_of_sites(text, settings.attackers) for text in parse_names("--sites", settings.sites)]
    return [
        Case(method, sites, rule, attack, attackers, seed)
        for method, of_method in of_methods.items()
        for sites in numbers
        for rule in of_method
        for attack, attackers in attacks
        for seed in seeds
    ]


def _rules(method: str, wanted: list[str]) -> list[str]:
    """Return those of the rules that suit a method, by their names; `all` are those that are built in.

    Raises InvalidInputError for an unknown rule or method, and where none of the rules suits it.
    """
    site_method(method)
    names = [name for text in wanted for name in (sorted(BUILT_IN) if text == "all" else [text])]
    found: dict[str, None] = {}
    for name in names:
        rule = rule_for(method, None) if name == "default" else rule_named(name)
        if rule.suits_statistics or not method_named(method).sends_statistics:
            found[rule.name] = None
    if not found:
        # It says what is wrong with the first.
        rule_for(method, names[0])
    return list(found)


def _number_of_sites(text: str, attackers: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) > 0):
        raise InvalidInputError(f"--sites: {text[:40]!r} is no number of sites; give such as 5,10")
    if int(text) <= attackers:
        raise InvalidInputError(
            f"--attackers {attackers} of --sites {text} leaves no honest site; give fewer"
        )
    return int(text)


def _in_words(case: Case) -> str:
    return f"{case.method}, {case.sites} sites, {case.rule}, {case.attack}, seed {case.seed}"


def _write(
    settings: RobustnessSettings,
    shared: Arena,
    cases: list[Case],
    runs: dict[Case, Run],
    console: Console,
) -> None:
    rows = make_rows(cases, runs)
    summaries = summarise(rows)
    found = verdicts(summaries)
    content = {
        "rows": rows,
        "summaries": summaries,
        "verdicts": [
            {**msgspec.structs.asdict(verdict), "withstands": verdict.withstands, "cheap": verdict.is_cheap}
            for verdict in found
        ],
        "settings": {
            **shared.description(),
            "codec": settings.codec or f"{USUAL_CODEC}, or what suits the method",
            "attackers": settings.attackers,
            "command": settings.command,
        },
    }
    encoded = msgspec.json.format(msgspec.json.encode(content), indent=1)
    write_new_file(settings.out / "robustness.json", encoded + b"\n")
    page = to_markdown(rows, summaries, found, settings.command, settings.attackers)
    write_new_file(settings.out / "report.md", page.encode())
    plots = draw(settings.out, summaries)
    print_tables(console, summaries, found, settings.attackers, shared.rounds_of)
    files = ", ".join(["robustness.json", "report.md", *(path.name for path in plots)])
    console.print(f"{visible(settings.out)}: {files}", highlight=False, markup=False, soft_wrap=True)
