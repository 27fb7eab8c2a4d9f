"""What federated averaging of the whole model would send: the thing that frozen encoders save."""

import math
from pathlib import Path

from fedmedclip.protocol.errors import BundleError


def encoder_parameter_bytes(image_encoder: Path) -> int:
    """Return 4 bytes for each weight of an ONNX image encoder, whatever precision it is stored in.

    The text tower is not in a bundle and not counted, so this is the least that federated averaging of
    that CLIP would send in one direction. The graph's few other constants (shapes, the normalisation) are
    counted with the weights. Raises BundleError when the file cannot be read.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(image_encoder, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise BundleError(f"{image_encoder} cannot be read ({error}); export the bundle again") from error
    weights: int = sum(math.prod(weight.dims) for weight in model.graph.initializer)
    return 4 * weights
