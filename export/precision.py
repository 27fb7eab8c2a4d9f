"""The image encoder in the precision that was asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedmedclip.export.agreement import agreement_of_decisions
from fedmedclip.export.calibration import Calibration, choose_eight_bit
from fedmedclip.export.half_precision import store_in_half_precision
from fedmedclip.export.parity import INT8_COSINE_MIN, ParityError
from fedmedclip.export.quantize import quantize_matrix_products
from fedmedclip.protocol.bundle.bundle import Agreement, Precision, Quantization


@dataclass(frozen=True)
class Limits:
    """What an int8 encoder may lose: the least cosine of an embedding, the least share of equal decisions."""

    min_cosine: float = INT8_COSINE_MIN
    min_agreement: float = 0.95


DEFAULT_LIMITS = Limits()


def in_precision(
    model: Any,
    precision: Precision,
    calibration: Calibration | None,
    limits: Limits,
    report: Callable[[str], None],
) -> tuple[Any, Quantization | None]:
    """Return a float32 `onnx.ModelProto` in another precision, and of int8 what is 8-bit.

    With `calibration`, the form of int8 is chosen by it. Raises InvalidInputError when the encoder cannot be
    quantised, and ParityError when the best form loses more on the calibration images than the limits allow.
    """
    if precision == "fp32":
        return model, None
    if precision == "fp16":
        report("storing the weights as 16-bit floats")
        return store_in_half_precision(model), None
    if calibration is None:
        report("making the weights 8-bit")
        return quantize_matrix_products(model)
    encoder, quantization = choose_eight_bit(model, calibration, report)
    if quantization.agreement:
        _require_agreement(quantization.agreement, limits)
    return encoder, quantization


def _require_agreement(agreement: Agreement, limits: Limits) -> None:
    best = f"the export was stopped: on {agreement.images} calibration images the best 8-bit encoder"
    decisions = agreement_of_decisions(agreement)
    if decisions < limits.min_agreement:
        raise ParityError(
            f"{best} decides like the float one about {100 * decisions:.1f} %, "
            f"{100 * limits.min_agreement:g} % are needed; "
            "use --precision fp16, or accept it with a lower --min-agreement"
        )
    if agreement.cosine_min < limits.min_cosine:
        raise ParityError(
            f"{best} has a cosine of only {agreement.cosine_min:g} with the float one, "
            f"{limits.min_cosine:g} is needed; use --precision fp16, or accept it with a lower --min-cosine"
        )
