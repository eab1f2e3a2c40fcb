"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class OnError(StrEnum):
    """What to do with an image that cannot be read."""

    RAISE = "raise"
    SKIP = "skip"


Labelled = Annotated[
    Path,
    typer.Argument(
        metavar="IMAGES",
        help="Folder of images, with one sub-folder per class, or a table (CSV) with the columns "
        "path, label and optionally group, whose paths are relative to its folder; or "
        "particles.csv of hypervlad particles find, or a copy beside it, with a column class.",
    ),
]
Images = Annotated[
    list[str],
    typer.Argument(metavar="PATHS", help="Images, folders (with their sub-folders) or patterns."),
]
ModelToWrite = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="Model file to write.")
]
IncludeBackbone = Annotated[
    bool,
    typer.Option(
        "--include-backbone",
        help="Store the network's weights in the file, for computers that lack them.",
    ),
]
ModelPath = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="Model file written by train, demo or review retrain."),
]
Groups = Annotated[
    Path | None,
    typer.Option(
        metavar="CSV",
        help="Table with the columns path and group. Images of one group (crops of one micrograph, "
        "frames of one sample) are never split between training and testing.",
    ),
]
ComparedGroups = Annotated[
    Path | None,
    typer.Option(
        "--groups",
        metavar="CSV",
        help="Table with the columns path and group: what is compared, such as settings of a "
        "process.",
    ),
]
Samples = Annotated[
    Path | None,
    typer.Option(
        "--samples",
        metavar="CSV",
        help="Table with the columns path and sample. Images of one sample are not independent, "
        "and intervals allow for it.",
    ),
]
TestGroups = Annotated[
    Path | None,
    typer.Option(
        metavar="CSV",
        help="Table with the columns path and group. Images of one group (crops of one micrograph, "
        "frames of one sample) are not independent, and the intervals of the report allow for it.",
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Network; by default mobilenet_v2. Networks of timm are named timm/NAME.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="The network's weights: a .safetensors or .pth file, a folder with "
        'model.safetensors or pytorch_model.bin, "pretrained" (the default), '
        '"micronet" or "image-micronet" (trained on micrographs) or "random".',
    ),
]
ModelWeights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="File with the weights of the model's network, if they are not found on this "
        "computer. They must be those that the model was trained with.",
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS", help="Side of the square that images are resized to; by default 224."
    ),
]
PixelSize = Annotated[
    float | None,
    typer.Option(
        metavar="NM",
        help="Resample images of known pixel size to this many nanometres per pixel; --image-size "
        "then applies only to the others.",
    ),
]
OwnPixelSize = Annotated[
    float | None,
    typer.Option(
        "--pixel-size",
        metavar="NM",
        help="Nanometres per pixel of images whose files do not contain the pixel size.",
    ),
]
PixelSizes = Annotated[
    Path | None,
    typer.Option(
        "--pixel-sizes",
        metavar="CSV",
        help="Table of hypervlad scale, with the pixel size of each image whose file does not "
        "contain it.",
    ),
]
Device = Annotated[
    str, typer.Option(metavar="NAME", help="cpu, cuda, or auto: cuda if there is a GPU.")
]
Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
Unreadable = Annotated[
    OnError,
    typer.Option(
        "--on-error", help="Whether to stop at an unreadable image (raise) or leave it out (skip)."
    ),
]
UnreadableLeftOut = Annotated[
    OnError,
    typer.Option(
        "--on-error",
        help="Exit code if there are unreadable images, which are always left out: 2 (raise) or 0 "
        "(skip).",
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print only results, warnings and errors; no progress."),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Private folder that keeps the vectors of images. They are found again even if the "
        "images are renamed. It contains pickles: nobody else should be able to write to it.",
    ),
]
MaxError = Annotated[
    float | None,
    typer.Option(
        metavar="FRACTION",
        help="Also mark sure answers, and say why the others are not sure. With 90 % certainty, "
        "at most this fraction of the sure answers is wrong. For example 0.05, which needs "
        "training images of at least 45 groups.",
    ),
]
TableToWrite = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="CSV", help="Table to write; by default it is printed."),
]
Prior = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SHARES",
        help='Class shares expected among new images: "training" (those of the training images), '
        '"uniform" (equal ones, which finds most images of rare classes), "sqrt" (the square roots '
        "of those in training, the default), or CLASS=NUMBER, repeated for each class.",
    ),
]

# --- how images are read ------------------------------------------------------------------------

ImagePage = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        help="Page, section or frame of files that have several, counted from 0. By default "
        "the first, with a warning if there are more.",
    ),
]
Channel = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        help="Channel of colour images, or of TIFFs with several samples per pixel, that is "
        "read as grey, counted from 0. By default, only grey and RGB images are read, as they "
        "are.",
    ),
]
Scaling = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="Which grey values become black and white: dtype (those of the type, such as 0 "
        "and 65535), percentile (the percentiles 0.1 and 99.9 of the image), minmax (its "
        "smallest and largest value) or two values, such as 0:4095. By default auto: dtype for "
        "8-bit images, otherwise percentile.",
    ),
]
RemoveBanner = Annotated[
    bool, typer.Option("--remove-banner", help="Cut off the instrument's information bar.")
]


KeepAnnotations = Annotated[
    bool,
    typer.Option(
        "--keep-annotations",
        help="Do not leave out what looks drawn into the image: information bars, scale bars, "
        "letters, arrows.",
    ),
]


def reading_fields(
    image_page: int | None = None,
    channel: int | None = None,
    scaling: str | None = None,
    remove_banner: bool = False,
) -> dict[str, Any]:
    """Return the fields of `ReadOptions` that these options of a command set, once checked."""
    from hypervlad.images import ReadOptions

    given: dict[str, Any] = {
        "page": image_page,
        "channel": channel,
        "scaling": _scaling(scaling),
        "banner": "remove" if remove_banner else None,
    }
    fields = {name: value for name, value in given.items() if value is not None}
    ReadOptions(**fields)
    return fields


def _scaling(text: str | None) -> str | tuple[float, ...] | None:
    try:
        return tuple(float(value) for value in text.split(":")) if text and ":" in text else text
    except ValueError:
        return text


def given_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None and value != {}}
