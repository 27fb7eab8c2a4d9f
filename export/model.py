"""Load a CLIP through open_clip, and say in one line what is wrong with its weights."""

import errno
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedmedclip.export.model_source import LOCAL_PREFIX, ModelSource, find_source
from fedmedclip.export.quiet import quiet
from fedmedclip.export.torchvision_operators import declare_missing_operators
from fedmedclip.export.weights import misfit, require_finite
from fedmedclip.protocol.bundle.bundle import Preprocessing
from fedmedclip.protocol.errors import InvalidInputError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

_LONGEST_REASON = 600


@dataclass(frozen=True)
class LoadedModel:
    """A CLIP in evaluation mode, float32 on the CPU.

    `source` says where it came from, `network` is open_clip's module. `transform` is open_clip's own
    inference transform (image -> float32 (3, height, width)), which `preprocessing` describes; `tokenizer`
    makes int64 (texts, context length) of a list of texts.
    """

    source: ModelSource
    network: Any
    tokenizer: "Callable[[list[str]], torch.Tensor]"
    transform: "Callable[[Image], torch.Tensor]"
    preprocessing: Preprocessing


def load_model(model: str, pretrained: str | None) -> LoadedModel:
    """Load an open_clip model with its weights.

    `model` is a name that open_clip knows, then `pretrained` is one of its tags or the path of a file with
    weights; or it is `local-dir:PATH` or `hf-hub:OWNER/NAME`, which bring their own weights.

    Raises InvalidInputError when a name or tag is unknown, weights are missing, do not fit the model, are NaN
    or infinite, were trained with another activation (QuickGELU), or cannot be downloaded.
    """
    with quiet():
        declare_missing_operators()
        try:
            import open_clip
        except ImportError as error:
            raise InvalidInputError(
                f"export needs open_clip ({error}); pip install 'fedmedclip-edge[export]'"
            ) from error
        source = find_source(model, pretrained)
        part = ""
        try:
            network = open_clip.create_model(
                source.name,
                source.pretrained,
                require_pretrained=True,
                force_preprocess_cfg=source.preprocessing,
            )
            part = "the tokenizer of "
            tokenizer = open_clip.get_tokenizer(source.name)
        except _loading_errors() as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InvalidInputError(part + _problem(source, error)) from error
    network.eval().requires_grad_(False)
    require_finite(network, source.shown_name)
    return LoadedModel(source, network, tokenizer, *preprocessing_of(network))


def preprocessing_of(network: Any) -> "tuple[Callable[[Image], torch.Tensor], Preprocessing]":
    """Return the inference transform of open_clip's module, and what it does."""
    import open_clip

    configuration = open_clip.transform.PreprocessCfg(**network.visual.preprocess_cfg)
    transform = open_clip.transform.image_transform_v2(configuration, is_train=False)
    return transform, _preprocessing(configuration)


def _loading_errors() -> tuple[type[Exception], ...]:
    """What open_clip and the readers of weights raise for weights or configurations they cannot use."""
    from safetensors import SafetensorError

    data_errors = (RuntimeError, ValueError, TypeError, KeyError, AttributeError, AssertionError, EOFError)
    return (*data_errors, ImportError, OSError, pickle.UnpicklingError, SafetensorError)


def _problem(source: ModelSource, error: Exception) -> str:
    """One line about what kept a model from being loaded."""
    what = (
        f"{source.shown_name} ({source.shown_pretrained})" if source.shown_pretrained else source.shown_name
    )
    text = str(error).strip()
    if "download" in text.lower() or "HF Hub" in text:
        return (
            f"{what} could not be downloaded; check the name and the network, "
            f"or give a file with --pretrained PATH, or a folder with --model {LOCAL_PREFIX}PATH"
        )
    if "Required pretrained weights" in text:
        return f"{what} has no file with weights; it takes .safetensors, .bin or .pth"
    if found := misfit(text):
        return f"the weights of {what} are not of this model: {found}"
    words = " ".join(text.split()) or type(error).__name__
    return (
        f"{what} cannot be loaded: {words[:_LONGEST_REASON]}{'...' if len(words) > _LONGEST_REASON else ''}"
    )


def _preprocessing(configuration: Any) -> Preprocessing:
    size = configuration.size
    height, width = (size, size) if isinstance(size, int) else size
    return Preprocessing(
        height=height,
        width=width,
        resize_mode=configuration.resize_mode,
        # open_clip also knows "random", which is bicubic for inference.
        interpolation="bilinear" if configuration.interpolation == "bilinear" else "bicubic",
        fill_color=configuration.fill_color,
        mean=_per_channel(configuration.mean),
        standard_deviation=_per_channel(configuration.std),
    )


def _per_channel(values: Any) -> tuple[float, float, float]:
    """Return three values, one per colour; a configuration may give one for all."""
    red, green, blue = values if isinstance(values, list | tuple) else (values,) * 3
    return float(red), float(green), float(blue)
