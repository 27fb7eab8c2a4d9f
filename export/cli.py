"""`fedmedclip export`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from protocol.bundle import Bundle


class Precision(StrEnum):
    """What the encoder's matrix products compute in."""

    FP32 = "fp32"
    INT8 = "int8"


def export_command(
    model: Annotated[
        str, typer.Option(help="A name that open_clip knows, local-dir:PATH, or hf-hub:OWNER/NAME.")
    ],
    classes: Annotated[
        Path, typer.Option(help="classes.toml, or a folder of images with one folder per class.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write the bundle to.")],
    pretrained: Annotated[
        str | None, typer.Option(help="A tag of the model's weights, or the path of a file with weights.")
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="int8 is smaller and faster, and a little less exact.")
    ] = Precision.FP32,
    images: Annotated[
        Path | None, typer.Option(help="A folder of images to compare with open_clip on.")
    ] = None,
    with_text: Annotated[
        bool, typer.Option("--with-text", help="Add the text tower, for new prompts on the edge.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that exists.")] = False,
) -> None:
    """Export a CLIP to a bundle: an ONNX image encoder and the embeddings of the class prompts."""
    from rich.console import Console

    from export.prompts import read_class_prompts

    prompts = read_class_prompts(classes)
    with Console(stderr=True).status("starting") as status:
        from export.bundle import export_bundle

        bundle = export_bundle(
            *(model, pretrained, prompts, out, precision.value, status.update),
            force=force,
            images=images,
            with_text=with_text,
        )
    print(_summary(bundle))


def _summary(bundle: "Bundle") -> str:
    from protocol.bundle import IMAGE_ENCODER

    manifest, parity = bundle.manifest, bundle.manifest.parity
    model = f"{manifest.model} ({manifest.pretrained})" if manifest.pretrained else manifest.model
    size = (bundle.folder / IMAGE_ENCODER).stat().st_size / 1e6
    eight_bit = ""
    if manifest.quantization:
        counts = ", ".join(f"{count} {name}" for name, count in manifest.quantization.quantized.items())
        eight_bit = f" (8-bit: {counts})"
    text: list[str] = []
    if manifest.text:
        size_of_text = bundle.text_encoder.stat().st_size / 1e6
        text.append(
            f"text     {size_of_text:.1f} MB, tokenizer of {manifest.text.tokenizer}, largest error "
            f"{manifest.text.parity.embedding_max_abs_error:g} on {manifest.text.parity.texts} texts; "
            "tokens equal"
        )
    return "\n".join(
        (
            f"bundle   {bundle.folder}",
            f"model    {model}, {manifest.precision}{eight_bit}",
            f"encoder  {size:.1f} MB, {manifest.embedding_size} values per image",
            f"classes  {', '.join(manifest.class_names)}",
            f"parity   largest error {parity.embedding_max_abs_error:g}, least cosine {parity.cosine_min:g} "
            f"on {parity.images} images; pixels equal",
            *text,
            f"sha256   {bundle.digest.hex()}",
        )
    )
