"""What the layers that heads are made of consist of: names, shapes and first values of their arrays."""

import math

from fedmedclip.protocol.heads.head import TensorSpecification


def masked_linear_tensors(name: str, outputs: int, inputs: int) -> tuple[TensorSpecification, ...]:
    """Return the arrays of one masked linear layer: `name.weight`, `name.bias`, `name.threshold`.

    Shapes (outputs, inputs), (outputs,), (outputs,). Weight and bias start uniform within 1/sqrt(inputs),
    as PyTorch's own linear layer does; thresholds start at 0.
    """
    bound = 1 / math.sqrt(inputs)
    return (
        TensorSpecification(f"{name}.weight", (outputs, inputs), initial_bound=bound),
        TensorSpecification(f"{name}.bias", (outputs,), initial_bound=bound),
        TensorSpecification(f"{name}.threshold", (outputs,)),
    )


def linear_tensors(name: str, outputs: int, inputs: int) -> tuple[TensorSpecification, ...]:
    """Return `name.weight` (outputs, inputs) and `name.bias` (outputs,), uniform within 1/sqrt(inputs)."""
    bound = 1 / math.sqrt(inputs)
    return (
        TensorSpecification(f"{name}.weight", (outputs, inputs), initial_bound=bound),
        TensorSpecification(f"{name}.bias", (outputs,), initial_bound=bound),
    )


def batch_norm_tensors(name: str, features: int) -> tuple[TensorSpecification, ...]:
    """Return `name.weight`, `.bias`, `.running_mean`, `.running_var`, each (features,)."""
    return (
        TensorSpecification(f"{name}.weight", (features,), initial_value=1.0),
        TensorSpecification(f"{name}.bias", (features,)),
        TensorSpecification(f"{name}.running_mean", (features,), measured=True),
        TensorSpecification(f"{name}.running_var", (features,), initial_value=1.0, lowest=0.0, measured=True),
    )
