"""Beginning a federation, and taking up again one that is under way."""

import os

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.rules import rule_named
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, head_digest
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from fedmedclip.protocol.messages import Plan


def begin_or_resume(
    configuration: AggregatorConfiguration, bundle: Bundle, store: Store, public_key: bytes
) -> tuple[Plan, HeadSpecification]:
    """Return the plan and the shared head's specification, recording both in an empty store.

    A store that holds a federation must hold the one that the configuration describes: otherwise
    InvalidInputError names what changed.
    """
    settings = configuration.federation
    rule_named(settings.rule)
    known = store.plan()
    plan = Plan(
        identity=os.urandom(16) if known is None else known.identity,
        aggregator_key=public_key,
        method=settings.method,
        bundle_digest=bundle.digest,
        embedding_size=bundle.manifest.embedding_size,
        rounds=settings.rounds,
        seed=settings.seed,
        uplink_codec=settings.uplink_codec,
        downlink_codec=settings.downlink_codec,
        training=configuration.training,
    )
    classes = len(bundle.manifest.class_names)
    specification = shared_head_specification(plan.method, plan.embedding_size, classes)
    if known is None:
        head = initial_shared_head(plan.method, plan.embedding_size, plan.seed, classes)
        store.begin(plan, specification.to_bytes(head), head_digest(head))
    elif known != plan:
        changed = [name for name in plan.__struct_fields__ if getattr(plan, name) != getattr(known, name)]
        raise InvalidInputError(
            f"the federation in {settings.state} was begun with another {', '.join(changed)}; "
            "change the configuration back, or give the new federation another state folder"
        )
    return plan, specification
