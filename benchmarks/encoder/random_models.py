"""open_clip models with random weights whose embeddings still tell images and texts apart.

The weights that a library draws before training make poor test subjects: zero or 1e-5 scales switch whole
branches off, and a deep stack of them gives nearly the same embedding for everything, so that a wrong export
would go unnoticed. Here every branch counts: weights of products have the variance 1 / inputs (LeCun 1998),
scales are near 1, biases near 0, and batch normalisations hold the statistics of real images.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.encoder.published_text_configurations import without_the_hub
from fedmedclip.export.quiet import quiet
from fedmedclip.export.torchvision_operators import declare_missing_operators

if TYPE_CHECKING:
    import torch

SEED = 20250620
# Of embeddings, positions and class tokens: about the size of what they are added to.
TABLE_DEVIATION = 0.5
SCALE_DEVIATION = 0.1
BIAS_DEVIATION = 0.05
DRAWING_FUNCTIONS = frozenset(
    {
        *("normal_", "uniform_", "erfinv_", "bernoulli_", "trunc_normal_", "orthogonal_", "randn", "rand"),
        *("kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_"),
    }
)


def random_network(name: str, preprocessing: Mapping[str, Any]) -> Any:
    """Return open_clip's module of this name in evaluation mode, float32, the same at every call.

    `preprocessing` is told to open_clip as that of the weights.
    """
    declare_missing_operators()
    import open_clip
    import torch

    with quiet(), _without_drawing(), without_the_hub():
        network = open_clip.create_model(
            name,
            load_weights=False,
            pretrained_image=False,
            pretrained_text=False,
            force_preprocess_cfg=dict(preprocessing),
        )
    network.eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(SEED)
    for module in network.modules():
        for parameter_name, parameter in module.named_parameters(recurse=False):
            _fill(module, parameter_name, parameter, generator)
    return network


def settle_batch_normalisations(visual: Any, images: "torch.Tensor") -> None:
    """Give each batch normalisation of an image tower the statistics of its own input on these images.

    `images` is float32 (batch, 3, height, width), normalised.
    """
    import torch

    found = [m for m in visual.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    if not found:
        return
    for module in found:
        module.train()
        module.momentum = None
    with torch.no_grad():
        visual(images)
    for module in found:
        module.eval()


def _fill(module: Any, name: str, parameter: "torch.Tensor", generator: "torch.Generator") -> None:
    import torch

    if parameter.ndim == 0:
        return
    if name.endswith("bias") and parameter.ndim == 1:
        parameter.normal_(0, BIAS_DEVIATION, generator=generator)
    elif parameter.ndim == 1 and not name.endswith(("embedding", "token", "embed")):
        parameter.normal_(1, SCALE_DEVIATION, generator=generator)
    elif isinstance(module, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d) or name.endswith(
        "in_proj_weight"
    ):
        inputs = parameter[0].numel()
        parameter.normal_(0, inputs**-0.5, generator=generator)
    elif parameter.ndim == 2 and name.endswith(("proj", "projection")):
        parameter.normal_(0, parameter.shape[0] ** -0.5, generator=generator)
    else:
        parameter.normal_(0, TABLE_DEVIATION, generator=generator)


@contextmanager
def _without_drawing() -> Iterator[None]:
    """Skip the libraries' own drawing of weights, which would take longer than the export."""
    from torch.overrides import TorchFunctionMode

    class SkipDrawing(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
        ) -> Any:
            name = getattr(function, "__name__", "")
            if name in DRAWING_FUNCTIONS and arguments and hasattr(arguments[0], "data_ptr"):
                return arguments[0]
            return function(*arguments, **(keywords or {}))

    with SkipDrawing():
        yield
