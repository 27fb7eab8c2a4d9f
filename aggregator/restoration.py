"""Going on from the state that a member has proved, after it was lost here: see `recovery`."""

import logging

import msgspec

from fedmedclip.aggregator.progress import Progress
from fedmedclip.aggregator.round_events import HeadAdvanced
from fedmedclip.aggregator.run import Outgoing, Run
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.heads.evidence import Evidence, proven_head, proven_plan

log = logging.getLogger("fedmedclip.aggregator")


def adopt(run: Run, progress: Progress, evidence: Evidence, now: float) -> list[Outgoing]:
    """Go on from the state that a member proved, when it is newer than ours.

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
    version, head = proven_head(evidence, plan, run.global_head.specification, keys)
    if version <= run.global_head.version:
        return []
    if plan.revision > run.plan.revision:
        # A site may not have followed a rotation of the key yet.
        progress.follow_plan(msgspec.structs.replace(plan, aggregator_key=run.plan.aggregator_key))
    run.global_head.adopt(version, head)
    run.intake.clear()
    run.recovery.over(version)
    log.warning("took version %d back from a site that had it; going on from there", version)
    run.chronicle.note("restored", "", f"version {version} was taken back from a site that had it")
    advanced = progress.advance(HeadAdvanced(version), now)
    return run.opening() + advanced
