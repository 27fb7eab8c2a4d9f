"""A quick part of the results is computed by today's code and compared with what is committed.

Where it differs, export, splits, methods or codecs have changed what figures say: the results are no longer
those of the code. `make results ONLY=quick` makes this part again, `make results` all of it.
"""

import msgspec
import pytest

from benchmarks.results.index import PAGES
from benchmarks.results.quick import Federated, Part, Quick, brain, differences, phantoms
from benchmarks.results.surroundings import machine, versions

KEPT = msgspec.json.decode((PAGES / "quick.json").read_bytes(), type=Quick)
# Elsewhere the last bits of an embedding differ, and with them an image here and there.
EXACT = (machine(), versions()) == (KEPT.machine, KEPT.versions)


@pytest.mark.slow
def test_the_phantoms_give_what_is_committed(tmp_path):
    assert differences(phantoms(tmp_path), KEPT.parts["phantoms"], EXACT) == []


@pytest.mark.slow
def test_the_brain_images_give_what_is_committed(shared, tmp_path):
    found = brain(shared / "data" / "brain_tumor", shared / "models" / "bench-clip", tmp_path)
    assert differences(found, KEPT.parts["brain"], EXACT) == []


PART = Part(
    100, "0a", 0.5, 0.8, 0.4, {"fedmedclip int8": Federated(0.8, 0.9, 0.4, total_bytes=10_000, head="0b")}
)


def test_within_the_tolerance_another_machine_may_differ():
    replace = msgspec.structs.replace
    cases = {
        "fedmedclip int8": replace(
            PART.federated["fedmedclip int8"], shared=0.81, total_bytes=10_100, head="0c"
        )
    }
    other = replace(PART, cosine=0.501, zero_shot=0.81, federated=cases)
    assert differences(other, PART, exact=False) == []
    assert len(differences(other, PART, exact=True)) == 5


@pytest.mark.parametrize(
    "change",
    [
        {"images": 101},
        {"split": "0c"},
        {"cosine": 0.51},
        {"zero_shot": 0.75},
        {"global_zero_shot": 0.45},
        {"federated": {}},
        {"federated": {"fedmedclip int8": Federated(0.8, 0.8, 0.4, 10_000, "0b")}},
        {"federated": {"fedmedclip int8": Federated(0.8, 0.9, 0.4, 11_000, "0b")}},
    ],
)
def test_what_changes_more_is_said(change):
    [line] = differences(msgspec.structs.replace(PART, **change), PART, exact=False)
    assert "docs/results/quick.json" in line
