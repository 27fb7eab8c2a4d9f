"""Which plans a site follows, and with which heads it begins a run."""

import re
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from fedmedclip.edge_client.learning.private_state import head_of, private_state_specification
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.site.plans import check_plan, first_private_head, first_shared_head, reason_not_to
from fedmedclip.edge_client.site.roles import Identity
from fedmedclip.edge_client.site.state import StoredSite
from fedmedclip.protocol.errors import InvalidInputError, MessageError
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification, head_digest
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from fedmedclip.protocol.messages import Plan

KEY, OTHER_KEY, BUNDLE = b"k" * 32, b"o" * 32, b"b" * 32
PLAN = Plan(
    bytes(16), KEY, "fedmedclip", BUNDLE, 8, 3, 1, "lowrank", "int8", {}, 5, 3, False, 1000.0, None,
)  # fmt: skip
IDENTITY = Identity("trial", "site-a", b"s" * 32, BUNDLE, None, None, 8)


def changed(**changes):
    return msgspec.structs.replace(PLAN, **changes)


def with_identity(**changes):
    return replace(IDENTITY, **changes)


class Learner:
    """Private heads of as many values as the embeddings have, which begin with ones."""

    samples = 10

    def private_specification(self, plan):
        if plan.method == "fedclip":
            raise InvalidInputError("this site cannot do it")
        if plan.method == "facmic":
            return HeadSpecification((TensorSpecification("other", (plan.embedding_size,)),))
        return HeadSpecification((TensorSpecification("private", (8,)),))

    def initial_private_head(self, plan):
        name = "other" if plan.method == "facmic" else "private"
        return {name: np.ones(8, np.float32)}


@pytest.mark.parametrize("known", [[], [PLAN], [changed(number=4, revision=9), PLAN]])
def test_the_plan_that_is_known_and_the_first_and_later_ones_are_followed(known):
    for plan in (
        PLAN,
        changed(number=6, revision=1, identity=b"i" * 16, method="facmic", seed=9),
        changed(revision=4, rounds=30, paused=True, maximum_update_norm=5.0),
    ):
        check_plan(plan, known, KEY if known else None, IDENTITY)


def test_a_plan_of_another_aggregator_is_refused():
    other = changed(aggregator_key=OTHER_KEY, number=9)
    for followed, identity in (
        (KEY, IDENTITY),
        (None, with_identity(aggregator_key=KEY)),
        (KEY, with_identity(aggregator_key=OTHER_KEY)),
    ):
        with pytest.raises(MessageError, match=f"signed with key {OTHER_KEY.hex()}, this site trusts"):
            check_plan(other, [], followed, identity)
    check_plan(other, [], None, IDENTITY)
    check_plan(PLAN, [], None, with_identity(aggregator_key=KEY))


@pytest.mark.parametrize("known", [[PLAN], [PLAN, changed(number=4)], [changed(number=4), PLAN]])
@pytest.mark.parametrize("earlier", [{"number": 4}, {"revision": 2}, {"number": 4, "revision": 9}])
def test_a_plan_before_the_newest_that_is_known_is_refused(known, earlier):
    with pytest.raises(MessageError, match="is earlier than run 5, which is known here"):
        check_plan(changed(identity=b"i" * 16, **earlier), known, KEY, IDENTITY)


def test_another_plan_of_the_same_number_is_refused():
    for changes in ({"rounds": 4}, {"identity": b"i" * 16}):
        with pytest.raises(MessageError, match="it is another plan of run 5"):
            check_plan(changed(**changes), [PLAN], KEY, IDENTITY)


@pytest.mark.parametrize(
    "fixed", [{"seed": 2}, {"embedding_size": 9}, {"number": 6}, {"uplink_codec": "int8"}]
)
def test_a_revision_changes_nothing_that_is_fixed_in_a_run(fixed):
    with pytest.raises(MessageError, match="changes what is fixed in a run"):
        check_plan(changed(revision=4, rounds=9, **fixed), [PLAN], KEY, IDENTITY)


def test_a_site_takes_part_in_what_it_can_do():
    assert reason_not_to(PLAN, IDENTITY, Learner()) == ""
    assert reason_not_to(PLAN, with_identity(embedding_size=None), Learner()) == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"bundle_digest": bytes(32)},
            f"bundle has digest {BUNDLE.hex()[:16]}, the run uses {bytes(8).hex()}",
        ),
        ({"embedding_size": 9}, "the plan is for embeddings of 9 values, the bundle gives 8"),
        ({"uplink_codec": "rar"}, "'rar'.*; this site runs fedmedclip: update it"),
        ({"downlink_codec": "rar"}, "'rar'.*; this site runs fedmedclip: update it"),
        ({"method": "fedmagic"}, "'fedmagic'.*; this site runs fedmedclip: update it"),
        ({"method": "fedclip"}, "this site cannot do it; this site runs fedmedclip: update it"),
    ],
)
def test_a_site_says_why_it_cannot_take_part(changes, reason):
    said = reason_not_to(changed(**changes), IDENTITY, Learner())
    assert re.search(reason, said), said


BEFORE = StoredSite(PLAN, 3, 3, bytes(4), np.full(8, 7, np.float32).tobytes(), None, b"")


def test_the_private_head_of_the_run_before_is_kept_where_it_fits():
    ones = np.ones(8, np.float32).tobytes()
    later = {"number": 6, "identity": b"i" * 16}
    assert first_private_head(PLAN, None, Learner()) == ones
    assert first_private_head(changed(**later), BEFORE, Learner()) == BEFORE.private_head
    assert first_private_head(changed(method="facmic", **later), BEFORE, Learner()) == ones
    # Of the same arrays, but it was trained on another encoder's embeddings.
    assert first_private_head(changed(embedding_size=9, **later), BEFORE, Learner()) == ones


class RememberingLearner(Learner):
    """Beside the private head it keeps what the plan's settings ask for."""

    def private_specification(self, plan):
        return private_state_specification("fedmedclip", 8, 2, TrainingSettings(**plan.training))

    def initial_private_head(self, plan):
        return self.private_specification(plan).initial(1)


@pytest.mark.parametrize(("kept", "next_kept"), [(True, True), (True, False), (False, True)])
def test_the_next_run_has_the_private_head_and_not_what_the_optimiser_remembers(kept, next_kept):
    plan = changed(training={"keep_optimizer_state": kept})
    specification = RememberingLearner().private_specification(plan)
    trained = {tensor.name: np.full(tensor.shape, 7, np.float32) for tensor in specification.tensors}
    before = StoredSite(plan, 3, 3, bytes(4), specification.to_bytes(trained), None, b"")
    later = changed(number=6, identity=b"i" * 16, training={"keep_optimizer_state": next_kept})
    found = (
        RememberingLearner()
        .private_specification(later)
        .from_bytes(first_private_head(later, before, RememberingLearner()))
    )
    assert all((array == 7).all() for array in head_of(found).values())
    memory = [array for name, array in found.items() if name not in head_of(found)]
    assert bool(memory) == next_kept
    assert not any(array.any() for array in memory)


def test_the_first_shared_head_is_drawn_from_the_seed():
    specification = shared_head_specification("fedmedclip", 8)
    version, head = first_shared_head(PLAN, specification, None, None)
    assert version == 0
    assert head_digest(head) == head_digest(initial_shared_head("fedmedclip", 8, 1))


def test_a_run_that_starts_from_a_head_that_is_here_begins_with_it_and_otherwise_asks():
    specification = shared_head_specification("fedmedclip", 8)
    start = specification.initial(77)
    plan = changed(number=6, start=head_digest(start))
    zeros = head_digest(specification.from_bytes(bytes(4 * specification.size)))

    def begun(before):
        version, head = first_shared_head(plan, specification, before, None)
        return version, head_digest(head)

    holds_it = replace(BEFORE, shared_head=specification.to_bytes(start))
    holds_another = replace(BEFORE, shared_head=specification.to_bytes(specification.initial(78)))
    assert begun(holds_it) == (0, head_digest(start))
    assert begun(holds_another) == (-1, zeros)
    assert begun(BEFORE) == (-1, zeros)  # of another size
    assert begun(None) == (-1, zeros)
