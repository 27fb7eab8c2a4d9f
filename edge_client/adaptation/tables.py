"""What adapting changed, on the terminal."""

from rich.console import Console
from rich.table import Table

from fedmedclip.edge_client.adaptation.findings import AdaptationFindings, Change, Labelled


def print_findings(findings: AdaptationFindings) -> None:
    """Print which head answers and why, tables of classes and of changes, and what is to be looked at."""
    console = Console(markup=False, highlight=False)
    # Lines that a program reads are not broken.
    unbroken = not console.is_terminal
    for line in _heading(findings):
        console.print(line, soft_wrap=unbroken)
    console.print(_classes(findings))
    for line in _lines(findings):
        console.print(line, soft_wrap=unbroken)
    for remark in findings.remarks:
        console.print(f"- {remark}", style="yellow", soft_wrap=unbroken)
    for line in _written(findings):
        console.print(line, soft_wrap=unbroken)


def _heading(findings: AdaptationFindings) -> list[str]:
    copies = f", and {findings.copies} copies of them" if findings.copies else ""
    return [
        f"heads     version {findings.version} of federation {findings.federation} ({findings.method})",
        f"images    {findings.images} different ones{copies}; {len(findings.skipped)} skipped",
        f"answers   {findings.answers}: {findings.reason}",
    ]


def _classes(findings: AdaptationFindings) -> Table:
    table = Table(title="Share of the images that each class is the answer for")
    table.add_column("class", overflow="fold")
    for heading in ("zero-shot", "federation's head", "now"):
        table.add_column(heading, justify="right")
    if findings.labelled is not None:
        table.add_column("labelled", justify="right")
    for found in findings.classes:
        shares = (f"{share:.1%}" for share in (found.zero_shot, found.federation, found.adapted))
        labels = () if findings.labelled is None else (str(found.labelled),)
        table.add_row(found.name, *shares, *labels)
    return table


def _lines(findings: AdaptationFindings) -> list[str]:
    lines = [
        f"against zero-shot: {_changed(findings.changed_from_zero_shot, findings.images)}",
        f"against the federation's head: {_changed(findings.changed_from_federation, findings.images)}",
        f"classes lie apart: {findings.separation:.2f} of what they do in the federation",
        f"scanner moves embeddings by: {findings.offset:.2f} of their length",
        f"mean confidence: {findings.confidence:.2f}, zero-shot's {findings.zero_shot_confidence:.2f}",
    ]
    if findings.labelled is not None:
        lines.append(_right(findings.labelled))
    return lines


def _changed(change: Change, images: int) -> str:
    return (
        f"{change.images} of {images} answers changed ({change.images / images:.1%}), "
        f"agreement {change.agreement:.2f}"
    )


def _right(labelled: Labelled) -> str:
    return (
        f"right on the {labelled.images} labelled images, before any label was used: adapted head "
        f"{labelled.adapted_without_labels}, federation's head {labelled.federation}, zero-shot "
        f"{labelled.zero_shot}"
    )


def _written(findings: AdaptationFindings) -> list[str]:
    lines = []
    if findings.written is not None:
        signer = findings.signed_by or "nobody"
        lines.append(f"wrote     {findings.written}, signed by {signer}; it stays at this site")
    if findings.labels_list is not None:
        classes = ", ".join(found.name for found in findings.classes)
        lines += [
            f"to label  {findings.to_label} images in {findings.labels_list}; a label is one of: {classes}",
            f"then      the same command with --labels {findings.labels_list}",
        ]
    if findings.written is None:
        lines.append("no heads were written: --output FILE writes them")
    return lines
