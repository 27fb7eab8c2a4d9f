"""Put encoder and classification into one ONNX model.

    image uint8 (batch, height, width, 3) -> encoder -> embedding -> heads, ensemble -> probabilities

The encoder's nodes stay as they are. When an encoder takes the scales of its activations from the whole batch
(dynamic quantisation), an image's embedding would depend on the images beside it, so such an encoder becomes
the body of a Loop over the images: the same numbers as `fedmedclip predict` for every batch size. That costs
nothing, for 8-bit products gain nothing from a batch (docs/how-to/deploy.md).
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from fedmedclip.edge_client.features.encoder import is_transformer
from fedmedclip.edge_client.heads.classification import predict, zero_shot
from fedmedclip.edge_client.heads.heads import Floats
from fedmedclip.edge_client.heads.heads_file import Heads
from fedmedclip.edge_client.inference.deployment.recorder import Recorded, Recording
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import BundleError

IMAGE = "image"
EMBEDDING = "embedding"
PROBABILITIES = "probabilities"
WEIGHT = "ensemble_weight"
PARTS = ("zero_shot_probabilities", "shared_probabilities", "private_probabilities")

_BATCH_DEPENDENT = {"DynamicQuantizeLinear", "DynamicQuantizeMatMul"}
_ONE_BATCH, _ONE_ROW, _ONE_EMBEDDING = "one_batch", "one_row", "one_embedding"


def deployed_model(
    encoder: ModelProto, bundle: Bundle, heads: Heads | None, metadata: Mapping[str, str]
) -> ModelProto:
    """Return the self-contained model; `encoder` is the bundle's ONNX file as read. It is not changed.

    Outputs, float32: `probabilities` (batch, C), those of the ensemble, or the best that there is;
    `ensemble_weight` (batch,), the private head's share in them; `embedding` (batch, D); and the
    probabilities of each classifier that there is. Raises InvalidInputError for an unknown method.
    """
    opset = next((entry.version for entry in encoder.opset_import if entry.domain in ("", "ai.onnx")), 0)
    recording = Recording(opset)
    outputs = _record_classification(recording, bundle, heads)
    batch_dependent = any(node.op_type in _BATCH_DEPENDENT for node in encoder.graph.node)
    if batch_dependent:
        nodes, constants = _one_by_one(encoder.graph, bundle)
    else:
        nodes, constants = list(encoder.graph.node), list(encoder.graph.initializer)
    manifest = bundle.manifest
    preprocessing = manifest.preprocessing
    image_shape: list[str | int | None] = ["batch", preprocessing.height, preprocessing.width, 3]
    graph = helper.make_graph(
        [*nodes, *recording.nodes],
        "fedmedclip",
        [helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, image_shape)],
        [*outputs, _floats(EMBEDDING, "batch", manifest.embedding_size)],
        [*constants, *recording.constants],
    )
    model = helper.make_model(
        graph,
        producer_name="fedmedclip",
        ir_version=encoder.ir_version,
        opset_imports=list(encoder.opset_import),
        functions=list(encoder.functions),
    )
    helper.set_model_props(model, dict(metadata))
    return model


def check_encoder(encoder: ModelProto, bundle: Bundle) -> None:
    """Raise BundleError unless an encoder has the one input and output that a bundle's has."""
    inputs = [value.name for value in encoder.graph.input]
    outputs = [value.name for value in encoder.graph.output]
    if inputs != [IMAGE] or outputs != [EMBEDDING]:
        raise BundleError(
            f"{bundle.image_encoder} has the inputs {inputs} and outputs {outputs}, expected {[IMAGE]} and "
            f"{[EMBEDDING]}; export the bundle again"
        )


def _record_classification(recording: Recording, bundle: Bundle, heads: Heads | None) -> list[ValueInfoProto]:
    """Record what `edge_client.heads.classification` does to an embedding; return the outputs."""
    # The numpy code does not see the difference; its type hints do.
    embeddings = cast(Floats, recording.input(EMBEDDING, np.float32, rank=2))
    found: dict[str, Any] = {}
    if heads is None:
        found[PROBABILITIES] = zero_shot(bundle, embeddings)
        found[WEIGHT] = np.full_like(embeddings.mean(axis=1), 0)
    else:
        predictions = predict(heads, bundle, embeddings)
        found[PROBABILITIES], found[WEIGHT] = predictions.ensemble, predictions.ensemble_weight
        by_classifier = (predictions.zero_shot, predictions.shared, predictions.private)
        found |= {name: value for name, value in zip(PARTS, by_classifier, strict=True) if value is not None}
    classes = len(bundle.manifest.class_names)
    for name, value in found.items():
        recording.output(cast(Recorded, value), name)
    return [_floats(name, "batch", *(() if name == WEIGHT else (classes,))) for name in found]


def _one_by_one(encoder: GraphProto, bundle: Bundle) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return a Loop that runs the encoder's nodes for each image alone, and what constants it needs outside.

    ONNX Runtime must fuse the same nodes here as in the bundle's encoder: another order of sums, and the
    rounding of 8-bit activations turns 1e-7 into 1e-3. So the loop's batch is cut out at run time, for a
    batch that is known to be 1 is optimised otherwise; and the constants are inside, except those of a
    transformer's convolution, which `edge_client.features.encoder` does not let it lay out anew either.
    """
    inside = {IMAGE: _ONE_BATCH, EMBEDDING: _ONE_ROW}
    nodes = []
    for original in encoder.node:
        node = NodeProto()
        node.CopyFrom(original)
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                names[position] = inside.get(name, name)
        nodes.append(node)
    convolved = {name for node in nodes if node.op_type == "Conv" for name in node.input}
    outside = convolved if is_transformer(bundle.manifest) else set()
    numbers = [_integers("loop_zero", [0]), _integers("loop_one", [1])]
    body = helper.make_graph(
        [
            helper.make_node("Unsqueeze", ["loop_index", "loop_zero"], ["loop_start"]),
            helper.make_node("Add", ["loop_start", "loop_one"], ["loop_end"]),
            helper.make_node("Slice", [IMAGE, "loop_start", "loop_end", "loop_zero"], [_ONE_BATCH]),
            *nodes,
            helper.make_node("Squeeze", [_ONE_ROW, "loop_zero"], [_ONE_EMBEDDING]),
            helper.make_node("Identity", ["loop_go_on"], ["loop_went_on"]),
        ],
        "one_by_one",
        [
            helper.make_tensor_value_info("loop_index", TensorProto.INT64, []),
            helper.make_tensor_value_info("loop_go_on", TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info("loop_went_on", TensorProto.BOOL, []),
            _floats(_ONE_EMBEDDING, bundle.manifest.embedding_size),
        ],
        [*(tensor for tensor in encoder.initializer if tensor.name not in outside), *numbers],
    )
    around = [
        helper.make_node("Shape", [IMAGE], ["image_shape"]),
        helper.make_node("Gather", ["image_shape", "batch_axis"], ["images"]),
        helper.make_node("Loop", ["images", ""], [EMBEDDING], body=body),
    ]
    batch_axis = helper.make_tensor("batch_axis", TensorProto.INT64, [], [0])
    return around, [*(tensor for tensor in encoder.initializer if tensor.name in outside), batch_axis]


def _integers(name: str, values: list[int]) -> TensorProto:
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


def _floats(name: str, *shape: int | str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
