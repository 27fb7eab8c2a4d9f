"""Which plan a site follows, and with which heads it begins: no state, no messages."""

import logging
from collections.abc import Sequence

from fedmedclip.edge_client.learning.private_state import head_of, head_specification_of
from fedmedclip.edge_client.site.roles import Identity, Learner
from fedmedclip.edge_client.site.state import StoredSite
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.errors import InvalidInputError, MessageError
from fedmedclip.protocol.heads.carry_over import carried_over, class_axes
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, head_digest
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from fedmedclip.protocol.messages import REVISABLE, Plan
from fedmedclip.protocol.secure_aggregation.projection import linear_codec_named

log = logging.getLogger("fedmedclip.site")

_LEAST_IMAGES = 2
# With the advice it fits what a message carries.
_LONGEST_CAUSE = 250


def check_plan(
    plan: Plan,
    known: Sequence[Plan],
    followed_key: bytes | None,
    identity: Identity,
    coordinator_keys: Sequence[bytes] = (),
) -> None:
    """Refuse the plan of another aggregator, and one that is earlier than those that are known here.

    `followed_key` is that of the aggregator whose run the site is in, if any; `coordinator_keys` are those
    that the coordinator has had by the roster, the last of them today's, which then has to be the plan's.
    Raises MessageError.
    """
    pinned = coordinator_keys[-1] if coordinator_keys else followed_key or identity.aggregator_key
    if pinned is not None and plan.aggregator_key != pinned:
        raise MessageError(
            f"the plan is signed with key {plan.aggregator_key.hex()}, this site trusts {pinned.hex()}; "
            f"if the aggregator of {identity.federation!r} has a new key, its coordinator must say so"
        )
    if not known:
        return
    newest = max(known, key=lambda kept: kept.order)
    if plan.order < newest.order:
        raise MessageError(
            f"the plan of run {plan.number} is earlier than run {newest.number}, which is known here: it "
            "is an old copy, or the aggregator lost its state; then its operator begins another run"
        )
    if plan.order == newest.order and plan != newest:
        raise MessageError(f"it is another plan of run {plan.number} than the one that is known here")
    changed = {name for name in plan.__struct_fields__ if getattr(plan, name) != getattr(newest, name)}
    rotated = {"aggregator_key"} if newest.aggregator_key in coordinator_keys else set()
    if plan.identity == newest.identity and not changed <= REVISABLE | rotated:
        raise MessageError(f"a revision of run {plan.number} changes what is fixed in a run")


def reason_not_to(plan: Plan, identity: Identity, learner: Learner) -> str:
    """Return why this site cannot take part in a run, with what to do; empty when it can."""
    if plan.bundle_digest != identity.bundle_digest:
        return reason_of_bundle(plan, identity)
    if identity.embedding_size not in (None, plan.embedding_size):
        return (
            f"the plan is for embeddings of {plan.embedding_size} values, the bundle gives "
            f"{identity.embedding_size}"
        )
    if learner.samples < _LEAST_IMAGES:
        known = "" if learner.privacy(plan) else f", this site has {learner.samples}"
        return f"training needs at least {_LEAST_IMAGES} labelled images{known}"
    try:
        delta_codec_named(plan.uplink_codec)
        delta_codec_named(plan.downlink_codec)
        if plan.secure is not None:
            linear_codec_named(plan.secure.codec)
        shared_head_specification(plan.method, plan.embedding_size, identity.classes)
        learner.private_specification(plan)
    except InvalidInputError as error:
        return f"{str(error)[:_LONGEST_CAUSE]}; {_advice(identity)}"
    except Exception as error:  # whatever a stranger's method raises when it is asked for its arrays
        log.exception("method %r fails", plan.method)
        cause = f"method {plan.method!r} fails ({type(error).__name__}: {error})"
        return f"{cause[:_LONGEST_CAUSE]}; {_advice(identity)}"
    return ""


def reason_of_bundle(plan: Plan, identity: Identity) -> str:
    """Return what a site says of a run whose bundle is not the one that is here."""
    return (
        f"this site's bundle has digest {identity.bundle_digest.hex()[:16]}, the run uses "
        f"{plan.bundle_digest.hex()[:16]}; copy the federation's bundle, the site goes on by itself then"
    )


def _advice(identity: Identity) -> str:
    running = f" {identity.software}" if identity.software else ""
    return (
        f"this site runs fedmedclip{running}: update it, and what it has from elsewhere, and start again; "
        "or the coordinator corrects aggregator.toml"
    )


def first_private_head(
    plan: Plan,
    before: StoredSite | None,
    learner: Learner,
    classes: Sequence[str] = (),
    classes_before: Sequence[str] = (),
) -> bytes:
    """Return the private head to begin with: what fits of the run before, of other classes by their names.

    What the optimiser remembers is of one run: the next begins without.
    """
    specification = learner.private_specification(plan)
    first = learner.initial_private_head(plan)
    if (
        before is not None
        and before.plan.method == plan.method
        and before.plan.embedding_size == plan.embedding_size
    ):
        if classes and classes_before and list(classes) != list(classes_before):
            first |= _of_other_classes(plan, before, learner, classes, classes_before)
        else:
            known = learner.private_specification(before.plan)
            fits = len(before.private_head) == 4 * known.size
            if fits and head_specification_of(known) == head_specification_of(specification):
                first |= head_of(known.from_bytes(before.private_head))
    return specification.to_bytes(first)


def _of_other_classes(
    plan: Plan, before: StoredSite, learner: Learner, classes: Sequence[str], classes_before: Sequence[str]
) -> NamedArrays:
    """Return the private head to begin with, with the rows of the classes that stay."""
    known = learner.private_specification(before.plan, len(classes_before))
    first = head_of(learner.initial_private_head(plan))
    if len(before.private_head) != 4 * known.size:
        return first
    axes = class_axes(lambda number: head_specification_of(learner.private_specification(plan, number)))
    head = head_of(known.from_bytes(before.private_head))
    carried = carried_over(first, head, axes, classes, classes_before)
    for sentence in carried.sentences:
        log.info("the private head in the next run: %s", sentence)
    return carried.head


def first_shared_head(
    plan: Plan, specification: HeadSpecification, before: StoredSite | None, classes: int | None
) -> tuple[int, NamedArrays]:
    """Return version and shared head to begin with: (-1, zeros) where it has to be asked for."""
    if plan.start is None:
        return 0, initial_shared_head(plan.method, plan.embedding_size, plan.seed, classes)
    if before is not None and len(before.shared_head) == 4 * specification.size:
        head = specification.from_bytes(before.shared_head)
        if head_digest(head) == plan.start:
            return 0, head
    return -1, specification.from_bytes(bytes(4 * specification.size))
