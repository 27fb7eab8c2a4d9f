"""A head's arrays as tensors, as training has them."""

import torch


def tensors_of(arrays, dtype=torch.float64):
    return {
        name: torch.tensor(array, dtype=dtype).requires_grad_("running" not in name)
        for name, array in arrays.items()
    }
