"""The next run is begun in the store: checked first, with what is carried over, once."""

import numpy as np
import pytest

from fedmedclip.aggregator.commands import NextRun
from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.federation import begin_or_resume
from fedmedclip.aggregator.next_run import Successor
from fedmedclip.aggregator.store import StoredHead, StoredVersion
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.protocol.configuration import read_configuration
from fedmedclip.protocol.errors import FedMedClipError
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from tests.edge_client.conftest import write_tiny_bundle

KEY = b"k" * 32
BEFORE, AFTER = ("glioma", "stroke"), ("glioma", "meningioma", "stroke")


@pytest.fixture
def successor(tmp_path, store):
    write_tiny_bundle(tmp_path / "bundle", class_names=BEFORE, embedding_size=8)
    file = tmp_path / "aggregator.toml"
    file.write_text(
        '[federation]\nname = "trial"\nbundle = "bundle"\nrounds = 3\nmethod = "linear-probe"\nstate = "."\n'
    )
    configuration = read_configuration(file, AggregatorConfiguration)
    _, specification = begin_or_resume(configuration, open_bundle(tmp_path / "bundle"), store, KEY)
    head = {name: array + np.float32(7) for name, array in specification.initial(3).items()}
    store.advance(
        StoredVersion(1, head_digest(head), b"x"), StoredHead(specification.to_bytes(head), None, b"")
    )
    return Successor(file, configuration, store)


def arrays(store, classes):
    specification = shared_head_specification("linear-probe", 8, classes)
    return specification.from_bytes(store.head().head)


def test_rows_of_the_classes_that_stay_are_carried_over_and_it_is_said(successor, store, tmp_path):
    write_tiny_bundle(tmp_path / "larger", class_names=AFTER, embedding_size=8)
    before, run = arrays(store, 2), store.plan().number
    answer = successor.begin(NextRun(from_newest=True, bundle=str(tmp_path / "larger")), KEY)
    assert "carried over for glioma, stroke; meningioma begins anew" in answer
    assert "copy" in answer
    after, plan = arrays(store, 3), store.plan()
    for name, array in after.items():
        np.testing.assert_array_equal(array[[0, 2]], before[name])
    assert plan.start == head_digest(after)
    assert (plan.number > run, plan.rounds, store.newest_version().version) == (True, 3, 0)
    assert store.ended_run(run)[1] == 1
    # Started again, the aggregator goes on with it by the same file.
    configuration = store.overrides.applied(successor.served)
    assert begin_or_resume(configuration, open_bundle(tmp_path / "larger"), store, KEY)[0] == plan


def test_given_twice_it_is_one_run(successor, store):
    asked = NextRun(rounds=9)
    successor.begin(asked, KEY)
    plan = store.plan()
    assert "nothing else is begun" in successor.begin(asked, KEY)
    assert store.plan() == plan
    assert plan.rounds == 9


@pytest.mark.parametrize(
    ("asked", "edited", "said"),
    [
        (NextRun(bundle="/nowhere"), None, "nowhere"),
        (NextRun(method="fedmagic"), None, "fedmagic"),
        (NextRun(method="fedclip", from_newest=True), None, "cannot start"),
        (NextRun(), ('state = "."', 'state = "other"'), "`state` was changed"),
        (NextRun(), ('rounds = 3', 'rounds = "three"'), "rounds"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_and_changes_nothing(successor, store, asked, edited, said):
    if edited is not None:
        file = successor.configuration_file
        file.write_text(file.read_text().replace(*edited))
    plan = store.plan()
    with pytest.raises(FedMedClipError, match=said):
        successor.begin(asked, KEY)
    assert store.plan() == plan
    assert store.newest_version().version == 1
    assert store.overrides.applied(successor.served) == successor.served
