"""Low-rank differences begin at nothing, train alone, and can be put into the weights."""

import pytest
import torch

from benchmarks.whole_encoder import lora
from fedmedclip.protocol.errors import InvalidInputError

TOWERS = {
    "ResNet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
    "ViT": {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2},
}
RANK = 3


@pytest.fixture(params=TOWERS)
def tower(request, make_network):
    return make_network(**TOWERS[request.param]).visual


@pytest.fixture
def images(tower):
    size = tower.image_size if isinstance(tower.image_size, tuple) else (tower.image_size,) * 2
    return torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(1))


def outputs(tower, images):
    with torch.no_grad():
        return tower(images)


def differences(tower):
    return [module for module in tower.modules() if isinstance(module, lora.LowRank)]


def fill(tower):
    generator = torch.Generator().manual_seed(2)
    for difference in differences(tower):
        for up in difference.up:
            up.data.normal_(0, 0.05, generator=generator)


def test_begins_at_the_frozen_encoder(tower, images):
    before = outputs(tower, images)
    lora.adapt(tower, RANK, scale=1.0)
    lora.redraw(tower, seed=0)
    torch.testing.assert_close(outputs(tower, images), before, rtol=0, atol=1e-6)


def test_merged_weights_give_the_same_outputs_and_the_tower_its_old_form(tower, images):
    names, before = list(tower.state_dict()), outputs(tower, images)
    lora.adapt(tower, RANK, scale=2.0)
    lora.redraw(tower, seed=0)
    fill(tower)
    adapted = outputs(tower, images)
    assert (adapted - before).abs().max() > 1e-3
    lora.merge(tower)
    torch.testing.assert_close(outputs(tower, images), adapted, rtol=0, atol=1e-5)
    assert sorted(tower.state_dict()) == sorted(names)


def test_only_the_differences_have_gradients_and_all_of_them_do(tower, images):
    lora.adapt(tower, RANK, scale=1.0)
    lora.redraw(tower, seed=0)
    fill(tower)
    tower(images).square().sum().backward()
    trained = {name for name, parameter in tower.named_parameters() if parameter.grad is not None}
    assert trained == set(filter(lora.is_difference, tower.state_dict()))
    assert all(
        parameter.grad.abs().sum() > 0 for parameter in tower.parameters() if parameter.grad is not None
    )


def test_the_difference_of_a_weight_has_no_more_than_its_rank(tower):
    lora.adapt(tower, RANK, scale=1.0)
    lora.redraw(tower, seed=0)
    fill(tower)
    for difference in differences(tower):
        for down, up in zip(difference.down, difference.up, strict=True):
            kernel = down.shape[0] // RANK
            assert torch.linalg.matrix_rank(up @ down) <= RANK * kernel


def test_query_and_value_alone_are_adapted_in_attention(make_network):
    tower = make_network(**TOWERS["ViT"]).visual
    attention = tower.transformer.resblocks[0].attn
    before = attention.in_proj_weight.detach().clone()
    lora.adapt(tower, RANK, scale=1.0)
    lora.redraw(tower, seed=0)
    fill(tower)
    changed = (attention.in_proj_weight != before).any(dim=1)
    size = attention.embed_dim
    assert changed[:size].all()
    assert not changed[size : 2 * size].any()
    assert changed[2 * size :].all()


def test_a_tower_without_a_place_is_refused():
    with pytest.raises(InvalidInputError, match="where LoRA goes"):
        lora.adapt(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), RANK, scale=1.0)
