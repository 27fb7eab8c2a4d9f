"""Everything that `newcomer.json` holds, and how it is written: a line for each row, to stay small."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.simulation.federation.folder import GLOBAL_TEST
from fedmedclip.simulation.federation.known_data import chosen_on, name_of_data
from fedmedclip.simulation.newcomer.findings import (
    Finding,
    MissingFinding,
    make_findings,
    make_missing_findings,
)
from fedmedclip.simulation.newcomer.results import (
    ELSEWHERE,
    HOSPITALS,
    Evidence,
    Missing,
    OtherShares,
    Point,
    Row,
    is_usual,
    make_missing,
    make_other_shares,
    make_points,
    make_rows,
)
from fedmedclip.simulation.newcomer.study import FEDERATED, Case


class Content(msgspec.Struct, frozen=True):
    """The whole report.

    `rows` are of newcomers that have seen every class, `missing_class_rows` of those that have not. `points`
    are means over hospitals and seeds; what begins with `elsewhere` is of the global test, empty where there
    is none. `methods` are the federated ones in the order of the command line; those in `chosen_here` have
    constants, or settings, that were chosen on this data, whose name is `data_set` where it is known.
    `other_shares` are of methods that adapt to images without labels, if there are any.
    """

    rows: list[Row]
    missing_class_rows: list[Row]
    points: list[Point]
    findings: list[Finding]
    elsewhere_points: list[Point]
    elsewhere_findings: list[Finding]
    missing_classes: list[Missing]
    missing_class_findings: list[MissingFinding]
    other_shares: list[OtherShares]
    methods: list[str]
    sites: list[str]
    seeds: list[int]
    data_set: str
    chosen_here: list[str]
    settings: dict[str, Any]


def gather(
    evidence: Evidence, cases: Sequence[Case], pooled_method: str, settings: Mapping[str, object]
) -> Content:
    """Return everything there is to say of finished runs; `settings` are recorded as they are."""
    study = evidence.study
    rows = make_rows(evidence, [case for case in cases if is_usual(case)], pooled_method)
    missing_rows = make_rows(evidence, [case for case in cases if case.missing is not None], pooled_method)
    methods = list(dict.fromkeys(case.method for case in cases if case.way == FEDERATED))
    data_set = name_of_data(study.pool, study.features.class_names)
    return Content(
        rows,
        missing_rows,
        make_points(evidence, cases, HOSPITALS),
        make_findings(evidence, cases, HOSPITALS),
        make_points(evidence, cases, ELSEWHERE),
        make_findings(evidence, cases, ELSEWHERE),
        make_missing(missing_rows),
        make_missing_findings(evidence, cases),
        make_other_shares(evidence, cases),
        methods,
        sorted({case.site for case in cases} - {GLOBAL_TEST}),
        list(dict.fromkeys(case.seed for case in cases)),
        data_set,
        [method for method in methods if data_set in chosen_on(method)],
        dict(settings),
    )


def write_content(path: Path, content: Content) -> None:
    """Write it as JSON."""
    parts = []
    for name in content.__struct_fields__:
        value = getattr(content, name)
        if isinstance(value, list) and value and isinstance(value[0], msgspec.Struct):
            lines = ",\n".join(msgspec.json.encode(entry).decode() for entry in value)
            parts.append(f'"{name}": [\n{lines}\n]')
        else:
            parts.append(f'"{name}": {msgspec.json.encode(value).decode()}')
    write_new_file(path, ("{\n" + ",\n".join(parts) + "\n}\n").encode())
