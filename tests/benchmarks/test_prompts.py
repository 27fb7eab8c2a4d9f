"""The text tower with gradients is the exported one, and prompts of learned words go through it."""

import numpy as np
import pytest
import torch

from benchmarks.whole_encoder.learner import Kept, Turn
from benchmarks.whole_encoder.prompt_learner import PromptLearner, prompt_tokens
from benchmarks.whole_encoder.text_graph import TextGraph
from fedmedclip.edge_client.features.text_encoder import TextEncoder
from fedmedclip.protocol.errors import InvalidInputError

VECTORS = 4


@pytest.fixture(scope="module")
def graph(bundle):
    return TextGraph(bundle.text_encoder)


def encoded(graph, bundle, texts, context=None):
    with TextEncoder(bundle, threads=1) as encoder:
        return graph.encode(torch.from_numpy(encoder.tokenize(texts)), context)


def test_gives_what_onnx_runtime_gives(graph, bundle):
    texts = [
        "a scan of a glioma",
        "",
        "no tumor.",
        "a long text that says nothing of any image at all, at all",
    ]
    with TextEncoder(bundle, threads=1) as encoder:
        expected = encoder.encode(texts)
    np.testing.assert_allclose(encoded(graph, bundle, texts).numpy(), expected, rtol=0, atol=1e-5)


def test_context_stands_where_words_would(graph, bundle):
    with TextEncoder(bundle, threads=1) as encoder:
        words = torch.from_numpy(encoder.tokenize(["a brain scan showing tumor."]))
    table = next(array for array in graph._constants.values() if array.shape == (49408, graph.width))
    context = table[words[0, 1 : 1 + VECTORS]]
    found = encoded(graph, bundle, ["X X X X tumor."], context)
    torch.testing.assert_close(found, graph.encode(words), rtol=0, atol=1e-6)


def test_the_gradient_of_the_context_is_right(graph, bundle):
    context = torch.full((VECTORS, graph.width), 0.1, requires_grad=True)
    towards = torch.linspace(-1, 1, 24)

    def worth(context):
        return (encoded(graph, bundle, ["X X X X tumor."], context) @ towards).sum()

    worth(context).backward()
    step = torch.zeros_like(context)
    step[2, 3] = 1e-2
    with torch.no_grad():
        slope = (worth(context + step) - worth(context - step)) / 2e-2
    assert slope.item() == pytest.approx(context.grad[2, 3].item(), rel=0.05)


def test_a_turn_lowers_the_loss_of_its_own_images(bundle, pool):
    learner = PromptLearner(bundle, pool, VECTORS)
    images = pool.deal(0).sites[0].train
    shared, kept = learner.initial(0), Kept()

    def loss(arrays):
        cosines = learner._embeddings[images] @ learner._classes(arrays["context"]).T
        return torch.nn.functional.cross_entropy(
            pool.logit_scale * cosines, torch.tensor(pool.labels[images])
        )

    before = loss(shared)
    for number in range(1, 6):
        shared, kept = learner.train(shared, kept, Turn(images, number, number))
    assert loss(shared) < before


def test_names_that_do_not_fit_behind_the_context_are_refused(bundle):
    assert prompt_tokens(bundle, 16).shape == (2, 24)
    with pytest.raises(InvalidInputError, match="give fewer vectors"):
        prompt_tokens(bundle, 20)
