"""Choose the 8-bit form of an encoder by what it does to real images.

Tried are one scale for each matrix and one for each of its columns, and then, with the better of the two, the
most sensitive products left in float: more and more of them. Of all that decide about as often like the
float32 encoder as the best one does, the quickest is chosen.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedmedclip.export.agreement import Floats, agreement_of_decisions, measure_agreement
from fedmedclip.export.onnx_session import session_of
from fedmedclip.export.parity_images import labelled_images_in
from fedmedclip.export.quantize import (
    Granularity,
    Product,
    matrix_products,
    quantize_matrix_products,
    quantized_matrix,
)
from fedmedclip.protocol.bundle.bundle import Candidate, Preprocessing, Quantization
from fedmedclip.protocol.bundle.preprocessing import fit

GRANULARITIES: tuple[Granularity, ...] = ("tensor", "channel")
# Of all products, these shares are tried in float; each costs speed and size.
SHARES_IN_FLOAT = (1 / 16, 1 / 8, 1 / 4)
IMAGES_FOR_SENSITIVITY = 4
# What a quicker form may lose against the best one: decisions, mean cosine.
DECISIONS_TO_SPARE = 0.005
COSINE_TO_SPARE = 0.001


@dataclass(frozen=True)
class Calibration:
    """Images to choose by: uint8 (N, height, width, 3), and their classes, int64 (N,), where folders tell."""

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64] | None
    class_embeddings: Floats


def read_calibration(
    folder: Path, preprocessing: Preprocessing, class_names: list[str], class_embeddings: Floats
) -> Calibration:
    """Read the images of a folder and its sub-folders; those in a folder named as a class have its label.

    With an image that is in no such folder, none has a label. Raises InvalidInputError when there is none.
    """
    read = [(fit(image, preprocessing), name) for image, name in labelled_images_in(folder)]
    labels = None
    if all(name in class_names for _, name in read):
        labels = np.array([class_names.index(name) for _, name in read], dtype=np.int64)
    return Calibration(np.stack([pixels for pixels, _ in read]), labels, class_embeddings)


def choose_eight_bit(
    model: Any, calibration: Calibration, report: Callable[[str], None]
) -> tuple[Any, Quantization]:
    """Return the best 8-bit form of a float32 `onnx.ModelProto`, and what of it is 8-bit.

    Raises InvalidInputError when the encoder has no product to quantise.
    """
    report(f"encoding {len(calibration.pixels)} calibration images in float")
    reference = _encode(model, calibration.pixels)
    tried: list[tuple[Candidate, Granularity]] = []

    def try_form(granularity: Granularity, in_float: list[str]) -> None:
        report(f"trying 8-bit weights per {granularity}, {len(in_float)} products in float")
        encoder, quantization = quantize_matrix_products(model, granularity, in_float)
        found = _encode(encoder, calibration.pixels)
        agreement = measure_agreement(reference, found, calibration.class_embeddings, calibration.labels)
        tried.append((Candidate(quantization.scheme, in_float, agreement), granularity))

    for granularity in GRANULARITIES:
        try_form(granularity, [])
    better = max(tried, key=lambda form: _exactness(form[0]))[1]
    report("looking for the most sensitive products")
    ranking = rank_by_sensitivity(model, better, calibration.pixels[:IMAGES_FOR_SENSITIVITY])
    for count in sorted({round(share * len(ranking)) for share in SHARES_IN_FLOAT} - {0}):
        try_form(better, sorted(ranking[:count]))
    chosen, granularity = _choose(tried)
    encoder, quantization = quantize_matrix_products(model, granularity, chosen.in_float)
    return encoder, Quantization(
        quantization.scheme,
        quantization.quantized,
        quantization.kept_in_float,
        chosen.agreement,
        [candidate for candidate, _ in tried],
    )


def rank_by_sensitivity(model: Any, granularity: Granularity, pixels: npt.NDArray[np.uint8]) -> list[str]:
    """Return the names of all products, the one that 8 bits change most first.

    The measure is the relative error of a product, both operands 8-bit, on what it multiplies here.
    """
    products = matrix_products(model)
    errors = np.zeros(len(products))
    quantized = [_dequantized(product, granularity) for product in products]
    for inputs in _inputs_of(model, products, pixels):
        for index, (product, matrix) in enumerate(zip(products, quantized, strict=True)):
            rows = inputs[product.inputs[0]].reshape(-1, len(matrix))
            exact = rows @ product.matrix
            errors[index] += np.linalg.norm(_eight_bit(rows) @ matrix - exact) / np.linalg.norm(exact)
    return [products[index].name for index in np.argsort(-errors, kind="stable")]


def _choose(tried: list[tuple[Candidate, Granularity]]) -> tuple[Candidate, Granularity]:
    """Return the first form, for the forms come in the order of their cost, that is nearly the best."""
    decisions = max(agreement_of_decisions(candidate.agreement) for candidate, _ in tried)
    cosine = max(candidate.agreement.cosine_mean for candidate, _ in tried)
    good = (
        form
        for form in tried
        if agreement_of_decisions(form[0].agreement) >= decisions - DECISIONS_TO_SPARE
        and form[0].agreement.cosine_mean >= cosine - COSINE_TO_SPARE
    )
    return next(good, max(tried, key=lambda form: _exactness(form[0])))


def _exactness(candidate: Candidate) -> tuple[float, float]:
    return agreement_of_decisions(candidate.agreement), candidate.agreement.cosine_mean


def _encode(model: Any, pixels: npt.NDArray[np.uint8]) -> Floats:
    """Return the embeddings, float32 (N, D), one image at a time as on the edge."""
    with session_of(model) as session:
        return np.concatenate([session.run(None, {"image": image[None]})[0] for image in pixels])


def _inputs_of(
    model: Any, products: list[Product], pixels: npt.NDArray[np.uint8]
) -> Iterator[dict[str, Floats]]:
    """Yield for each image what each product multiplies, by the name that it has in the graph."""
    from onnx import TensorProto, helper

    names = sorted({product.inputs[0] for product in products})
    outputs = len(model.graph.output)
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    try:
        with session_of(model) as session:
            for image in pixels:
                yield dict(zip(names, session.run(names, {"image": image[None]}), strict=True))
    finally:
        del model.graph.output[outputs:]


def _dequantized(product: Product, granularity: Granularity) -> Floats:
    weights, scale = quantized_matrix(product.matrix, granularity)
    return weights * scale


def _eight_bit(values: Floats) -> Floats:
    """Round as DynamicQuantizeLinear does: to 256 levels between the extremes, zero among them."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    scale = max((high - low) / 255, float(np.finfo(np.float32).tiny))
    zero = round(-low / scale)
    levels = np.clip(np.rint(values / scale) + zero, 0, 255)
    rounded: Floats = ((levels - zero) * scale).astype(np.float32)
    return rounded
