"""Going on from the state that a member has proved, after it was lost here: see `recovery`."""

import logging

import msgspec

from fedmedclip.aggregator.progress import Progress
from fedmedclip.aggregator.round_events import HeadAdvanced, Tick
from fedmedclip.aggregator.run import Outgoing, Run
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.heads.evidence import Evidence, proven_head, proven_plan

log = logging.getLogger("fedmedclip.aggregator")


def adopt(run: Run, progress: Progress, evidence: Evidence, now: float) -> list[Outgoing]:
    """Go on from the state that a member proved, when it is newer than ours: its head, its plan, or both.

    Raises MessageError or HeadError when it proves nothing, or something of another run.
    """
    keys: tuple[bytes, ...] = (run.plan.aggregator_key,)
    if run.register is not None:
        keys = run.register.roster.coordinator_keys
    plan = proven_plan(evidence, run.settings.name, keys)
    if plan.identity != run.plan.identity:
        raise MessageError(
            f"it follows run {plan.number}, this aggregator's state is of run {run.plan.number}; "
            "restore a newer backup, or begin another run: fedmedclip aggregator --new-run"
        )
    later_plan = plan.revision > run.plan.revision
    found = None
    if evidence.carrier:
        version, head = proven_head(evidence, plan, run.global_head.specification, keys)
        found = (version, head) if version > run.global_head.version else None
    if later_plan:
        # A site may not have followed a rotation of the key yet.
        progress.follow_plan(msgspec.structs.replace(plan, aggregator_key=run.plan.aggregator_key))
        log.warning("took revision %d of the plan back from a site that had it", plan.revision)
        run.chronicle.note(
            "restored", "", "a later revision of the plan was taken back from a site that had it"
        )
    if found is not None:
        version, head = found
        run.global_head.adopt(version, head)
        run.intake.clear()
        log.warning("took version %d back from a site that had it; going on from there", version)
        run.chronicle.note("restored", "", f"version {version} was taken back from a site that had it")
    run.recovery.over(run.global_head.version, run.plan.revision)
    if found is not None:
        return run.opening() + progress.advance(HeadAdvanced(version), now)
    return run.opening() + progress.advance(Tick(), now) if later_plan else []
