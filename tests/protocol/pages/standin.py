"""A page of nobody, with everything on it that pages are made of."""

import time

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.pages.charts import Lane, Series, bar_chart, line_chart, time_line
from fedmedclip.protocol.pages.elements import Html, badge, button, facts, joined, moment, table
from fedmedclip.protocol.pages.page import Document, Fields, Page, Section

TOKEN = "0123456789abcdef-right"


class Standin:
    """What the page shows: a number, and who was named last."""

    def __init__(self) -> None:
        self.number = 1
        self.named = "nobody <b>yet</b>"

    def page(self) -> Page:
        """Return its page."""
        return Page(
            "Federation brain-mri",
            "A page of nobody.",
            (
                Section("glance", "At a glance", self._glance),
                Section("charts", "Charts", self._charts),
                Section("sites", "Sites", self._sites),
            ),
            revision=lambda: (self.number, self.named),
            actions={"name": self._name},
            documents={"/api/number": Document("application/json", lambda: b"%d" % self.number)},
        )

    def _name(self, fields: Fields, by: str) -> str:
        if not fields.get("name"):
            raise InvalidInputError("no name was given")
        self.named = fields["name"]
        return f"named {self.named}"

    def _glance(self, may_change: bool) -> Html:
        pairs = [
            ("Number", self.number), ("Named", self.named), ("Since", moment(time.time() - 90, ago=True)),
            ("State", badge("good", "online")),
        ]  # fmt: skip
        asked = [("name", "Name", "text")]
        return joined([facts(pairs), button("name", "Name somebody", asked=asked) if may_change else None])

    def _charts(self, may_change: bool) -> Html:
        rounds = range(1, 21)
        worst = [0.5 + 0.008 * k for k in rounds]
        lines = [
            Series("mean", rounds, [0.6 + 0.01 * k for k in rounds], [0.55 + 0.01 * k for k in rounds],
                   [0.65 + 0.01 * k for k in rounds]),
            Series("worst site", rounds, worst),
        ]  # fmt: skip
        lanes = [
            Lane(f"hospital-{name}", [(0, 40), (60, 100)], [(20, "▲", "trained"), (30, "●", "delivered")])
            for name in "abc"
        ]
        return joined(
            [
                line_chart("Accuracy", "It rises.", lines, "version", percent=True),
                bar_chart("Bytes", "Below budget.", [(k, 2000 + 10 * k) for k in rounds], "round", 2400),
                time_line("Sites", "Who did what.", lanes, 0, 100),
            ]
        )

    def _sites(self, may_change: bool) -> Html:
        rows = [(f"hospital-{number}", badge("waiting", "awaited"), number) for number in range(30)]
        return table("Members", ["site", "part", "version"], rows, numbers=[2])
