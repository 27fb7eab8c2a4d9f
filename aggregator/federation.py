"""Beginning a run of a federation, taking up again one that is under way, and beginning the next."""

import logging
import os
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.rules.names import rule_for
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.carry_over import CarriedOver, carried_over, class_axes
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, head_digest
from fedmedclip.protocol.heads.methods import codec_for
from fedmedclip.protocol.heads.shared_heads import (
    initial_shared_head,
    sends_statistics,
    shared_head_specification,
    usual_releases,
)
from fedmedclip.protocol.messages import REVISABLE, Plan, PrivacyTerms, Secure

log = logging.getLogger("fedmedclip.aggregator")

# Of the first round's values in a sum under masks: of unit vectors none is above 1, and steps are small.
_BOUND_OF_STATISTICS, _BOUND_OF_TRAINING = 1.0, 2.0**-6
# What the configuration's file says of them counts when it changes: `fedmedclip control` may have said else.
_CONFIGURED = ("rounds", "maximum_update_norm")


def begin_or_resume(
    configuration: AggregatorConfiguration,
    bundle: Bundle,
    store: Store,
    public_key: bytes,
    *,
    new_run: bool = False,
    from_newest: bool = False,
    former_keys: Collection[bytes] = (),
    tell: Callable[[str], None] = log.info,
) -> tuple[Plan, HeadSpecification]:
    """Return the plan and the shared head's specification of the run that is to be served.

    An empty store begins a run. One that holds a run goes on with it: what may change within a run is taken
    from the configuration when that has changed. `new_run` ends it and begins another with the same sites,
    with `from_newest` from what fits of its newest head, of which `tell` is told, array by array. A run that
    was begun with one of `former_keys` goes on with the key of today.

    Raises InvalidInputError when the configuration describes another federation or, without `new_run`,
    another run.
    """
    settings = configuration.federation
    rule_for(settings.method, settings.rule)
    known = store.plan()
    if known is not None and store.federation_name() not in (None, settings.name):
        raise InvalidInputError(
            f"the state in {settings.state} is of federation {store.federation_name()!r}, the configuration "
            f"names {settings.name!r}; change the name back, or give the other federation a state folder of "
            "its own"
        )
    wanted = wanted_plan(configuration, bundle, public_key, known)
    if known is not None and known.privacy is not None and not new_run:
        wanted = _lasting_as_before(wanted, known.privacy, configuration)
    specification = shared_head_specification(
        wanted.method, wanted.embedding_size, len(bundle.manifest.class_names)
    )
    if known is None:
        plan = _begun(wanted, None)
        head = initial_shared_head(
            plan.method, plan.embedding_size, plan.seed, len(bundle.manifest.class_names)
        )
        store.begin(plan, specification.to_bytes(head), head_digest(head))
    elif new_run:
        plan = _next_run(wanted, known, bundle, store, specification, tell if from_newest else None)
    else:
        plan = _resumed(wanted, known, store, settings.state, former_keys)
        _check_arrays(store, specification, plan.method, settings.state)
    store.describe(settings.name, _configured(wanted))
    store.name_classes(plan.number, bundle.manifest.class_names)
    return plan, specification


def wanted_plan(
    configuration: AggregatorConfiguration, bundle: Bundle, public_key: bytes, known: Plan | None
) -> Plan:
    """Return the plan that a configuration describes; `known` is the one that is under way, if any."""
    settings = configuration.federation
    return Plan(
        identity=os.urandom(16) if known is None else known.identity,
        aggregator_key=public_key,
        method=settings.method,
        bundle_digest=bundle.digest,
        embedding_size=bundle.manifest.embedding_size,
        rounds=settings.rounds,
        seed=settings.seed,
        uplink_codec=codec_for(settings.method, settings.uplink_codec),
        downlink_codec=codec_for(settings.method, settings.downlink_codec),
        training=configuration.training,
        number=1,
        revision=1,
        paused=False,
        maximum_update_norm=settings.maximum_update_norm,
        start=None,
        privacy=configuration.privacy.terms(usual_releases(settings.method, settings.rounds)),
        secure=_secure(configuration),
    )


def _lasting_as_before(wanted: Plan, known: PrivacyTerms, configuration: AggregatorConfiguration) -> Plan:
    """Return a run's plan whose budget lasts as long as when it was begun, though it has more rounds now."""
    if wanted.privacy is None or configuration.privacy.releases is not None:
        return wanted
    return msgspec.structs.replace(
        wanted, privacy=msgspec.structs.replace(wanted.privacy, releases=known.releases)
    )


def _secure(configuration: AggregatorConfiguration) -> Secure | None:
    asked = configuration.secure_aggregation
    if asked is None:
        return None
    weighed = asked.most_samples if configuration.federation.weighting == "samples" else 1
    usual = _BOUND_OF_STATISTICS if sends_statistics(configuration.federation.method) else _BOUND_OF_TRAINING
    return Secure(asked.codec, asked.bits, weighed, asked.bound or usual, asked.least_sites)


def _begun(plan: Plan, before: Plan | None) -> Plan:
    """Return the plan of a run that begins now; its number is above all earlier ones, also of lost state."""
    number = max(int(time.time()), 1 if before is None else before.number + 1)
    return msgspec.structs.replace(plan, identity=os.urandom(16), number=number)


def _next_run(
    wanted: Plan,
    known: Plan,
    bundle: Bundle,
    store: Store,
    specification: HeadSpecification,
    tell: Callable[[str], None] | None,
) -> Plan:
    """Begin the next run; with `tell` from what fits of the newest head, of which it is told."""
    plan, names = _begun(wanted, known), bundle.manifest.class_names
    head = initial_shared_head(plan.method, plan.embedding_size, plan.seed, len(names))
    if tell is not None:
        carried = _from_newest(plan, known, store, head, names)
        for sentence in carried.sentences:
            tell(sentence)
        head = carried.head
        plan = msgspec.structs.replace(plan, start=head_digest(head))
    store.begin_run(plan, specification.to_bytes(head), head_digest(head))
    return plan


def _from_newest(
    plan: Plan, known: Plan, store: Store, first: NamedArrays, names: Sequence[str]
) -> CarriedOver:
    """Return what the run of `plan` begins with: `first`, and what fits of the newest head."""
    encoded, names_before = store.head().head, store.class_names(known.number)

    def specification_of(classes: int) -> HeadSpecification:
        return shared_head_specification(plan.method, plan.embedding_size, classes)

    carried = None
    if known.method == plan.method:
        classes = len(names if names_before is None else names_before)
        before = shared_head_specification(known.method, known.embedding_size, classes)
        if len(encoded) == 4 * before.size:
            axes = class_axes(specification_of)
            carried = carried_over(first, before.from_bytes(encoded), axes, names, names_before)
    if carried is None or carried.arrays == 0:
        raise InvalidInputError(
            f"the newest head is of {known.method!r} for embeddings of {known.embedding_size} values, "
            f"from which a run of {plan.method!r} for {plan.embedding_size} values cannot start"
        )
    return carried


def _resumed(wanted: Plan, known: Plan, store: Store, state: str, former_keys: Collection[bytes]) -> Plan:
    fixed = {"number", "start"} | REVISABLE
    rotated = known.aggregator_key != wanted.aggregator_key and known.aggregator_key in former_keys
    if rotated:
        fixed = fixed | {"aggregator_key"}
    changed = [
        name
        for name in wanted.__struct_fields__
        if name not in fixed and getattr(wanted, name) != getattr(known, name)
    ]
    if changed:
        raise InvalidInputError(
            f"the run in {state} was begun with another {', '.join(changed)}; change the configuration back, "
            "or begin the next run with it, which the sites follow: fedmedclip aggregator --new-run"
        )
    before, now = store.configured(), _configured(wanted)
    edited: dict[str, Any] = {
        name: value for name, value in now.items() if before is not None and value != before.get(name)
    }
    if rotated:
        edited["aggregator_key"] = wanted.aggregator_key
    if not edited:
        return known
    plan = msgspec.structs.replace(known, **edited, revision=max(known.revision + 1, int(time.time())))
    store.revise(plan)
    return plan


def _check_arrays(store: Store, specification: HeadSpecification, method: str, state: str) -> None:
    values = len(store.head().head) // 4
    if values != specification.size:
        raise InvalidInputError(
            f"the run in {state} was begun with another version of method {method!r}, whose head has "
            f"{values} values, not {specification.size}; finish it with the fedmedclip that began it, or "
            "begin the next run, which the sites follow: fedmedclip aggregator --new-run"
        )


def _configured(plan: Plan) -> dict[str, float]:
    return {name: getattr(plan, name) for name in _CONFIGURED}
