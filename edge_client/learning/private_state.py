"""What a site keeps between rounds: its private head, and if the run asks for it Adam's memory. No PyTorch.

Adam's two moments and number of steps of every trained array stand beside the private head under names of
their own, so that whatever stores, restores or takes back a private head does the same to them. They are
no part of a head: nothing classifies with them, and they never leave the site.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.heads import private_head_specification
from fedmedclip.edge_client.learning.method import TrainedMethod, trainable_method
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, TensorSpecification
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.protocol.seeds import derive_seed

_PREFIX = "optimizer."
FIRST_MOMENT, SECOND_MOMENT, STEPS = ".first_moment", ".second_moment", ".steps"


def private_state_specification(
    method: str, embedding_size: int, classes: int, settings: TrainingSettings
) -> HeadSpecification:
    """Return the private head's arrays and, with `keep_optimizer_state`, Adam's behind them.

    Empty for a method without private head that keeps no such state. Raises InvalidInputError for a method
    that cannot train.
    """
    found = trainable_method(method)
    private = private_head_specification(method, embedding_size, classes) or HeadSpecification(())
    if not settings.keep_optimizer_state or not isinstance(found, TrainedMethod):
        return private
    shared = shared_head_specification(method, embedding_size, classes)
    memory: list[TensorSpecification] = []
    for head, specification in (("shared", shared), ("private", private)):
        for tensor in specification.tensors:
            if not tensor.measured:
                name = memory_name(head, tensor.name)
                memory.append(TensorSpecification(name + FIRST_MOMENT, tensor.shape))
                memory.append(TensorSpecification(name + SECOND_MOMENT, tensor.shape))
                memory.append(TensorSpecification(name + STEPS, (1,)))
    return HeadSpecification((*private.tensors, *memory))


def initial_private_state(
    method: str, embedding_size: int, classes: int, settings: TrainingSettings, seed: int, site: str
) -> NamedArrays:
    """Return what a site starts from: the private head of `initial_private_head`, and no memory."""
    specification = private_state_specification(method, embedding_size, classes, settings)
    return specification.initial(derive_seed(seed, purpose="private head", site=site))


def memory_name(head: str, array: str) -> str:
    """Return what Adam's arrays of an array are named like; `head` is "shared" or "private"."""
    return f"{_PREFIX}{head}.{array}"


def head_of(state: Mapping[str, npt.NDArray[np.float32]]) -> NamedArrays:
    """Return the private head of what a site keeps: everything but Adam's memory."""
    return {name: array for name, array in state.items() if not name.startswith(_PREFIX)}


def head_specification_of(specification: HeadSpecification) -> HeadSpecification:
    """Return the private head's part of the specification of what a site keeps."""
    return HeadSpecification(
        tuple(tensor for tensor in specification.tensors if not tensor.name.startswith(_PREFIX))
    )
