"""A view with everything on it, as a site in the middle of a run would have it; and with hostile texts."""

from fedmedclip.edge_client.page import view as shown
from fedmedclip.edge_client.page.view import SiteView

HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\u202e\n<img src=x onerror=alert(2)>"
START = 1_790_000_000.0
TERMS = "ab" * 32


def full_view(text: str = "plain") -> SiteView:
    """Return a view whose texts from elsewhere are all `text`."""
    versions = [
        shown.Version(
            f"7:{number}", 7, number, START + 60 * number, number == 3,
            "activated" if number != 2 else "set aside", f"{text} {number}", "rule", 12,
            0.5 + number / 20, 0.4 + number / 20, 0.6 + number / 20, 0.5, 0.55, None, 0.1, False,
        )
        for number in range(1, 5)
    ]  # fmt: skip
    return SiteView(
        text, text, "1.2.3",
        shown.Glance(True, START, True, int(START), 4, 9, "good", text, text),
        shown.Plan(TERMS, True, False, text, [shown.Sentence(text, text)],
                   [shown.Decision(TERMS, int(START), 9, False, text, START, text)], False),
        shown.Ledger(
            shown.Traffic(3, 1200), shown.Traffic(9, 5200), shown.Traffic(4, 900), shown.Traffic(8, 2200),
            2000, 100_000, 4, 50, [shown.DayTraffic(2, 1500), shown.DayTraffic(0, 1200)],
            [shown.KindTraffic("out", text, shown.Traffic(3, 1200), shown.Traffic(9, 5200))],
            [shown.Recorded(9, START, "out", text, 400, "cd" * 32, text)],
            shown.Verification(START, 17, [text]),
        ),
        shown.Privacy(2.5, 8.0, 1e-5, 4),
        shown.Versions(versions, "guarded"),
        shown.History(START, START + 600, [(START, START + 500)],
                      [shown.Event(START + 10, "trained", text), shown.Event(START + 20, "refused", text)]),
        shown.Data(30, 29, [shown.ClassCount(text, 30, 29, 12, 20, 4, 6)], [shown.Skipped(text, 2)], 1, 12, 3,
                   1, 2, 3, 1, 6, 2, 1, text),
    )  # fmt: skip


class Fixed:
    """A source of one view, which a test may replace."""

    def __init__(self, view: SiteView) -> None:
        self.view = view
        self.number = 1

    def current(self) -> SiteView:
        return self.view

    def revision(self) -> int:
        return self.number

    def show(self, view: SiteView) -> None:
        self.view = view
        self.number += 1
