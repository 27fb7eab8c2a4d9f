"""Reading for the page which plan a site is asked for, and deciding it."""

from collections.abc import Callable

from msgspec.structs import replace

from fedmedclip.edge_client.page import view as shown
from fedmedclip.edge_client.page.view import SiteView
from fedmedclip.edge_client.site.page_view import PageSource
from fedmedclip.edge_client.site.plan_report import PlanReport, report_on
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.plan_words import terms_hash


def consent_reader(approve: str) -> Callable[[SiteState, SiteView, float], SiteView]:
    """Return what adds the newest plan and all decisions. `approve` is the policy's."""

    def read(state: SiteState, view: SiteView, at: float) -> SiteView:
        report = report_on(state.consents)
        plan = shown.Plan(
            report.terms,
            report.awaits_decision,
            report.approved,
            _standing(report),
            [shown.Sentence(line.title, line.words) for line in report.plan],
            [
                shown.Decision(found.terms, found.run, found.rounds, found.approved, found.by, found.at,
                               found.reason)
                for found in report.decisions
            ],
            approve == "automatic",
        )  # fmt: skip
        ledger = view.ledger
        if ledger is not None:
            ledger = replace(ledger, rounds=state.contributions.count())
        return replace(view, plan=plan, ledger=ledger)

    return read


def _standing(report: PlanReport) -> str:
    if report.awaits_decision:
        return "Nothing of it is trained here before."
    return "It is approved: this site takes part." if report.approved else "It is refused: no part is taken."


class Desk:
    """What the buttons do: `fedmedclip site approve` and `refuse`."""

    def __init__(self, source: PageSource) -> None:
        self._source = source

    def approve(self, terms: str, reason: str, by: str) -> str:
        """Approve the plan that is asked for, if its hash is `terms`."""
        self._source.do(lambda state: _decide(state, terms, True, reason, by))
        return "Approved: this site takes part."

    def refuse(self, terms: str, reason: str, by: str) -> str:
        """Refuse the plan that was heard last, if its hash is `terms`."""
        self._source.do(lambda state: _decide(state, terms, False, reason, by))
        return "Refused: this site takes no part, and the coordinator is told so."


def _decide(state: SiteState, terms: str, approved: bool, reason: str, by: str) -> None:
    """Record a decision. Raises InvalidInputError where another plan was heard since the page was read."""
    plan = state.consents.heard()
    if plan is None or terms_hash(plan) != terms:
        raise InvalidInputError("the plan has changed since this page was read; read it once more")
    state.consents.decide(plan, approved, by, reason)
