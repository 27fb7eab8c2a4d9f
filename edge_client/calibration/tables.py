"""What calibrating gave, on the terminal."""

from rich.console import Console
from rich.table import Table

from fedmedclip.edge_client.calibration.findings import CalibrationFindings


def print_findings(findings: CalibrationFindings) -> None:
    """Print what the sets are of, their thresholds, what is to be looked at, and where the heads are."""
    console = Console(markup=False, highlight=False)
    # Lines that a program reads are not broken.
    unbroken = not console.is_terminal
    for line in _heading(findings):
        console.print(line, soft_wrap=unbroken)
    table = Table(title="Worst score with which a class is in a set")
    table.add_column("class", overflow="fold")
    table.add_column("images", justify="right")
    table.add_column("score", justify="right")
    for found in findings.classes:
        limit = "in every set" if found.threshold is None else f"{found.threshold:.3f}"
        table.add_row(found.name, str(found.images), limit)
    console.print(table)
    for remark in findings.remarks:
        console.print(f"- {remark}", style="yellow", soft_wrap=unbroken)
    signer = findings.signed_by or "nobody"
    console.print(
        f"wrote     {findings.written}, signed by {signer}; it stays at this site", soft_wrap=unbroken
    )


def _heading(findings: CalibrationFindings) -> list[str]:
    whom = "of each class" if findings.class_conditional else "of all classes together"
    lines = [
        f"heads     version {findings.version} of federation {findings.federation} ({findings.method})",
        f"images    {findings.images} in {findings.groups} groups; {len(findings.skipped)} skipped",
        f"sets      hold the true class of {findings.level:.1%} of the images {whom} ({findings.kind}); "
        f"on these they have {findings.mean_set_size:.2f} classes",
    ]
    if findings.novelty is not None:
        seen = "the federation has seen" if findings.novelty.of == "federation" else "these images show"
        lines.append(
            f"unlike    what {seen}: at most {findings.novelty.false_alarms:.1%} of images like these"
        )
    return lines
