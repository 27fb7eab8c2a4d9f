"""`fedmedclip export`."""

import sys
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmedclip.protocol.paths import checked
from fedmedclip.protocol.progress import progress_lines
from fedmedclip.protocol.visible import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fedmedclip.export.architectures import Architecture
    from fedmedclip.protocol.bundle.bundle import Agreement, Bundle


class PrecisionName(StrEnum):
    """What the encoder's weights are stored in; with int8, its matrix products compute in it too."""

    INT8 = "int8"
    FP16 = "fp16"
    FP32 = "fp32"


def export_command(
    model: Annotated[
        str | None,
        typer.Option(
            help="A name that open_clip knows (see --list), local-dir:PATH, or hf-hub:OWNER/NAME. Required.",
            show_default=False,
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="classes.toml, or a folder of images with one folder per class. Required.",
            callback=checked("--classes", "file or folder", "`fedmedclip init classes` writes an example"),
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder to write the bundle to. Required.",
            show_default=False,
            callback=checked("--out", "new folder"),
        ),
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="A tag of the model's weights, or the path of a file with weights.")
    ] = None,
    precision: Annotated[
        PrecisionName,
        typer.Option(
            help="int8 is a quarter of the size, the fastest, and a little less exact; "
            "fp16 is half the size and computes like fp32."
        ),
    ] = PrecisionName.INT8,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Images like those at the sites, to choose the form of int8 by; class folders help.",
            callback=checked("--calibrate", "folder"),
        ),
    ] = None,
    min_cosine: Annotated[
        float, typer.Option(min=0, max=1, help="Stop when an int8 embedding is less like the original.")
    ] = 0.97,
    min_agreement: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="With --calibrate: stop when a lesser share of decisions is the same."
        ),
    ] = 0.95,
    images: Annotated[
        Path | None,
        typer.Option(
            help="A folder of images to compare with open_clip on.", callback=checked("--images", "folder")
        ),
    ] = None,
    with_text: Annotated[
        bool, typer.Option("--with-text", help="Add the text tower, for new prompts on the edge.")
    ] = False,
    own_length: Annotated[
        bool,
        typer.Option(
            "--own-length",
            help="Leave embeddings at the model's own length, as the papers' code feeds them to heads; "
            "for fp32 and fp16.",
        ),
    ] = False,
    key: Annotated[
        Path | None,
        typer.Option(
            help="Sign with the private key in this file, made when it does not exist. Default: this user's "
            "own.",
            callback=checked("--key", "new file"),
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that exists.")] = False,
    list_models: Annotated[
        bool, typer.Option("--list", help="Show the models that open_clip knows, and end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Export a CLIP to a bundle: an ONNX image encoder and the embeddings of the class prompts."""
    from fedmedclip.protocol.json_output import print_json

    if list_models:
        with _shown_steps() as step:
            step("asking open_clip")
            from fedmedclip.export.architectures import architectures

            found = architectures()
        if as_json:
            print_json({"models": found})
        else:
            print(_table(found))
        return
    if model is None or classes is None or out is None:
        options = {"--model": model, "--classes": classes, "--out": out}
        missing = ", ".join(name for name, value in options.items() if value is None)
        raise typer.BadParameter(f"missing {missing} (--list shows the models)")
    from fedmedclip.export.prompts import read_class_prompts
    from fedmedclip.protocol.trust.signing import signing_key_if_possible

    prompts = read_class_prompts(classes)
    signing_key = signing_key_if_possible(key, "bundle")
    with _shown_steps() as step:
        from fedmedclip.export.bundle import export_bundle
        from fedmedclip.export.precision import Limits
        from fedmedclip.protocol.bundle.signature import sign_bundle

        bundle = export_bundle(
            *(model, pretrained, prompts, out, precision.value, step),
            force=force,
            images=images,
            with_text=with_text,
            calibrate=calibrate,
            limits=Limits(min_cosine, min_agreement),
            own_length=own_length,
        )
    signed_by = "nobody"
    if signing_key is not None:
        sign_bundle(out, signing_key)
        signed_by = f"{signing_key.public_key.hex()} (which others trust with `fedmedclip trust KEY`)"
    if as_json:
        signer = None if signing_key is None else signing_key.public_key.hex()
        print_json(
            {"bundle": out, "sha256": bundle.digest.hex(), "signed_by": signer, "manifest": bundle.manifest}
        )
        return
    print(_summary(bundle))
    print(f"signed   {signed_by}")


@contextmanager
def _shown_steps() -> "Iterator[Callable[[str], None]]":
    """Give what shows a step: in place on a terminal, and where there is none as a line every 30 s."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.markup import escape

        with Console(stderr=True).status("starting") as status:
            yield lambda step: status.update(escape(visible(step)))
    else:
        with progress_lines("starting") as report:
            yield lambda step: report(0, 0, step)


def _table(architectures: "list[Architecture]") -> str:
    """Return one line per model, in columns that fit their widest entry."""
    rows = [("model", "embedding", "image", "M parameters", "weights", "licence")]
    for found in architectures:
        parameters = "?" if found.parameters is None else f"{found.parameters / 1e6:.0f}"
        image = f"{found.image_height}x{found.image_width}"
        tags = str(len(found.tags)) if len(found.tags) != 1 else found.tags[0]
        rows.append((found.name, str(found.embedding_size), image, parameters, tags, found.licence))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(lines)


def _summary(bundle: "Bundle") -> str:
    manifest, parity = bundle.manifest, bundle.manifest.parity
    model = f"{manifest.model} ({manifest.pretrained})" if manifest.pretrained else manifest.model
    size = bundle.image_encoder_bytes / 1e6
    own_length = ", of the model's own length" if manifest.own_length is True else ""
    eight_bit = ""
    if manifest.quantization:
        counts = ", ".join(f"{count} {name}" for name, count in manifest.quantization.quantized.items())
        eight_bit = f" (8-bit: {counts})"
    calibrated: list[str] = []
    if manifest.quantization and manifest.quantization.agreement:
        calibrated.append(_calibrated(manifest.quantization.scheme, manifest.quantization.agreement))
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
            f"bundle   {visible(bundle.folder)}",
            f"model    {model}, {manifest.precision}{eight_bit}",
            f"encoder  {size:.1f} MB, {manifest.embedding_size} values per image{own_length}",
            f"classes  {visible(', '.join(manifest.class_names))}",
            f"parity   largest error {parity.embedding_max_abs_error:g}, least cosine {parity.cosine_min:g} "
            f"on {parity.images} images; pixels equal",
            *calibrated,
            *text,
            f"sha256   {bundle.digest.hex()}",
        )
    )


def _calibrated(scheme: str, agreement: "Agreement") -> str:
    probe = ""
    if agreement.probe is not None:
        probe = (
            f", of a linear probe {100 * agreement.probe:.1f} % "
            f"(accuracy {agreement.probe_accuracy_fp32:.3f} -> {agreement.probe_accuracy:.3f})"
        )
    return (
        f"int8     {scheme}, chosen on {agreement.images} images: cosine least {agreement.cosine_min:.5f}, "
        f"mean {agreement.cosine_mean:.5f}; same zero-shot decisions {100 * agreement.zero_shot:.1f} %{probe}"
    )
