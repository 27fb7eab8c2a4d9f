"""The figures in numpy are scikit-learn's, whatever the labels, ties and absent classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)

from fedmedclip.edge_client.heads.metrics import measure
from fedmedclip.simulation.accuracy.scores import macro_auroc


@st.composite
def classified(draw):
    """Probabilities (N, C), often tied, and labels (N,), of which often some class is absent."""
    classes, images = draw(st.integers(1, 5)), draw(st.integers(1, 60))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = draw(st.sampled_from([2, 4, 1000]))
    weights = generator.integers(1, levels + 1, (images, classes)).astype(np.float32)
    labels = generator.integers(0, draw(st.integers(1, classes)), images)
    return weights / weights.sum(axis=1, keepdims=True), labels


# It says so of the matrix of one class, although it is told the labels.
@pytest.mark.filterwarnings("ignore:A single label was found")
@given(classified())
def test_counts_precision_recall_and_means(case):
    probabilities, labels = case
    names = [f"class {number}" for number in range(probabilities.shape[1])]
    called = probabilities.argmax(axis=1)
    found = measure(probabilities, labels, names)
    each = {"labels": range(len(names)), "zero_division": 0}
    precision, recall, _, support = precision_recall_fscore_support(labels, called, **each)
    f1 = precision_recall_fscore_support(labels, called, average="macro", zero_division=0)[2]
    assert (
        np.array(found.confusion).tolist()
        == confusion_matrix(labels, called, labels=range(len(names))).tolist()
    )
    assert [figures.support for figures in found.classes.values()] == support.tolist()
    assert found.macro_f1 == pytest.approx(f1, abs=1e-12)
    assert found.balanced_accuracy == pytest.approx(recall[support > 0].mean(), abs=1e-12)
    for figures, *theirs in zip(found.classes.values(), precision, recall, strict=True):
        assert [figures.precision, figures.recall] == pytest.approx(theirs, abs=1e-12)


@given(classified())
def test_area_under_the_curve(case):
    probabilities, labels = case
    areas = [
        roc_auc_score(labels == label, probabilities[:, label])
        for label in range(probabilities.shape[1])
        if 0 < (labels == label).sum() < len(labels)
    ]
    found = macro_auroc(probabilities, labels)
    assert found == (pytest.approx(np.mean(areas), abs=1e-12) if areas else None)
