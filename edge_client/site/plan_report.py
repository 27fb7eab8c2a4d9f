"""The plan that a site has heard of and what was decided of it, for its operator."""

from datetime import datetime
from functools import lru_cache

import msgspec

from fedmedclip.edge_client.site.consent import Consents, Decision
from fedmedclip.protocol.codecs import delta_codec_named, encode_head
from fedmedclip.protocol.errors import FedMedClipError
from fedmedclip.protocol.heads.shared_heads import sends_statistics, shared_head_specification
from fedmedclip.protocol.messages import Plan
from fedmedclip.protocol.plan_words import plan_in_words, terms_hash


class Line(msgspec.Struct, frozen=True):
    """One thing that a plan says: what it is about, and a sentence."""

    title: str
    words: str


class PlanReport(msgspec.Struct, frozen=True):
    """The newest plan that was heard: its hash, run and rounds, whether it waits for a decision, its words.

    Where no plan has come, `terms` is empty, and so are `plan` and the numbers. `decisions` are all that were
    made here, oldest first.
    """

    terms: str
    run: int
    rounds: int
    awaits_decision: bool
    approved: bool
    plan: list[Line]
    decisions: list[Decision]


def report_on(consents: Consents) -> PlanReport:
    """Return what is asked of this site, and what was decided."""
    plan, decisions = consents.heard(), consents.decisions()
    if plan is None:
        return PlanReport("", 0, 0, False, False, [], decisions)
    waits = consents.asked() is not None
    # A plan that asks for nothing stands as its run was decided last, whatever a roster changed since.
    of_run = [decision for decision in decisions if decision.run == plan.number]
    approved = not waits and bool(of_run) and of_run[-1].approved
    words = [Line(title, sentence) for title, sentence in words_of(plan)]
    return PlanReport(terms_hash(plan), plan.number, plan.rounds, waits, approved, words, decisions)


def words_of(plan: Plan) -> list[tuple[str, str]]:
    """Return a plan in words, with about how many bytes an update has where that is easily known."""
    return plan_in_words(plan, _about_bytes(plan))


def _about_bytes(plan: Plan) -> int | None:
    """Encode a head that is drawn; one of statistics says little, and others depend on the classes."""
    try:
        if sends_statistics(plan.method):
            return None
        return _bytes_of(plan.method, plan.embedding_size, plan.uplink_codec)
    except FedMedClipError:
        return None


@lru_cache(maxsize=8)
def _bytes_of(method: str, embedding_size: int, codec: str) -> int:
    specification = shared_head_specification(method, embedding_size)
    return len(encode_head(delta_codec_named(codec), specification.initial(1), specification).data)


def plan_lines(plan: Plan) -> list[str]:
    """Return a plan in words with its hash, as lines for a person."""
    pairs = [("Hash", terms_hash(plan)), *words_of(plan)]
    return [f"{title + ':':<22} {words}" for title, words in pairs]


def report_lines(consents: Consents) -> list[str]:
    """Return the same as `report_on` for a person, with what to type."""
    report, plan = report_on(consents), consents.heard()
    decided = [_decision_line(decision) for decision in report.decisions]
    if plan is None:
        return ["no plan has come yet: it does once this site runs and its coordinator has begun", *decided]
    if report.awaits_decision:
        standing = [
            "It waits for you: fedmedclip site approve, or refuse, with the same --config.",
            *_approved_before(consents, plan),
        ]
    elif report.approved:
        standing = ["It is approved: this site takes part."]
    else:
        standing = ["It is refused: this site takes no part."]
    return [*plan_lines(plan), "", *standing, *decided]


def _approved_before(consents: Consents, plan: Plan) -> list[str]:
    rounds = consents.approved_rounds(plan)
    if not 0 < rounds < plan.rounds:
        return []
    return [
        f"{rounds} rounds of it are approved, and trained; without a decision this site abstains after "
        "these. To refuse it ends them, too."
    ]


def _decision_line(decision: Decision) -> str:
    when = datetime.fromtimestamp(decision.at).strftime("%Y-%m-%d %H:%M:%S")
    what = "approved" if decision.approved else "refused"
    of = f"run {decision.run}, {decision.rounds} rounds" if decision.run else "in advance"
    reason = f": {decision.reason}" if decision.reason else ""
    return f"{when} {decision.by} {what} {decision.terms[:16]} ({of}){reason}"
