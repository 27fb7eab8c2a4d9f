"""Long work without a terminal says where it stands; quick work says nothing."""

import re
import time

from fedmedclip.protocol.progress import duration, progress_lines


def test_a_line_with_done_rate_and_remaining() -> None:
    lines: list[str] = []
    with progress_lines("computing features", 0.05, lines.append) as report:
        report(100, 300)
        time.sleep(0.02)
        report(150, 300)
        time.sleep(0.3)
    # The first may be of before the second report.
    assert re.fullmatch(
        r"computing features: 150 of 300 done, \d+ s so far, [\d.e+]+ a (second|minute), about \d+ \w+ left",
        lines[-1],
    )


def test_a_step_that_does_not_report_is_spoken_of_too() -> None:
    lines: list[str] = []
    with progress_lines("starting", 0.03, lines.append) as report:
        report(0, 0, "loading the model")
        time.sleep(0.2)
    assert len(lines) >= 3
    assert set(lines) == {"loading the model, 0 s so far"}


def test_what_was_done_before_does_not_count_for_the_rate() -> None:
    lines: list[str] = []
    with progress_lines("features", 0.05, lines.append) as report:
        report(1000, 1010)
        time.sleep(0.15)
    assert lines[0] == "features: 1000 of 1010 done, 0 s so far"


def test_quick_work_is_silent(capsys) -> None:
    with progress_lines("quick") as report:
        report(1, 1)
    assert capsys.readouterr().err == ""


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0, 119, 120, 12_000, 200_000)] == [
        "0 s", "119 s", "2 min", "3.3 h", "2.3 days",
    ]  # fmt: skip
