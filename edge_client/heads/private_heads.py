"""What the private part of each method is made of: the arrays that a site keeps between rounds."""

from fedmedclip.edge_client.heads.whitened_memory import memory_specification
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification
from fedmedclip.protocol.heads.shared_heads import batch_norm_tensors, linear_tensors, masked_linear_tensors

DISCRIMINATOR_WIDTH = 512


def mlp_specification(size: int, classes: int) -> HeadSpecification:
    """FedMedCLIP's MLP: three times masked linear and batch norm, then masked linear to the classes."""
    tensors: list[TensorSpecification] = []
    for layer in ("1", "2", "3"):
        tensors += masked_linear_tensors(f"linear{layer}", size, size)
        tensors += batch_norm_tensors(f"norm{layer}", size)
    return HeadSpecification((*tensors, *masked_linear_tensors("classifier", classes, size)))


def discriminator_specification(size: int, classes: int) -> HeadSpecification:
    """FAA-CLIP's domain discriminator: trained at the site, kept between rounds, never used to classify."""
    return HeadSpecification(
        (
            *linear_tensors("linear1", DISCRIMINATOR_WIDTH, size),
            *batch_norm_tensors("norm1", DISCRIMINATOR_WIDTH),
            *linear_tensors("linear2", DISCRIMINATOR_WIDTH, DISCRIMINATOR_WIDTH),
            *batch_norm_tensors("norm2", DISCRIMINATOR_WIDTH),
            *linear_tensors("linear3", 1, DISCRIMINATOR_WIDTH),
        )
    )


SPECIFICATIONS = {
    "faa-clip": discriminator_specification,
    "fedmedclip": mlp_specification,
    "whitened-memory": memory_specification,
}
