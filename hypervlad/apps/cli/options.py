"""Arguments and options that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
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
        "path, label and optionally group; its paths are relative to its folder.",
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

_READING: dict[str, Any] = {
    "image_page": Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Page, section or frame of files that have several, counted from 0. By default "
            "the first, with a warning if there are more.",
        ),
    ],
    "channel": Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Channel of colour images, or of TIFFs with several samples per pixel, that is "
            "read as grey, counted from 0. By default, only grey and RGB images are read, as they "
            "are.",
        ),
    ],
    "scaling": Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="Which grey values become black and white: dtype (those of the type, such as 0 "
            "and 65535), percentile (the percentiles 0.1 and 99.9 of the image), minmax (its "
            "smallest and largest value) or two values, such as 0:4095. By default auto: dtype for "
            "8-bit images, otherwise percentile.",
        ),
    ],
    "remove_banner": Annotated[
        bool, typer.Option("--remove-banner", help="Cut off the instrument's information bar.")
    ],
}


Reading = dict[str, Any]  # fields of `ReadOptions`, by name


def with_reading(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command options of reading, in place of its parameter `reading`.

    The command gets a dict of those fields of `ReadOptions` that the user has set.
    """

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        parameters = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            if parameter.name != "reading":
                parameters.append(parameter)
                continue
            for name in names:
                default = False if _READING[name].__origin__ is bool else None
                parameters.append(
                    parameter.replace(name=name, annotation=_READING[name], default=default)
                )

        @functools.wraps(command)
        def wrapped(**options: Any) -> None:
            given = {name: options.pop(name) for name in names}
            command(**options, reading=_fields_of(given))

        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {each.name: each.annotation for each in parameters}
        return wrapped

    return decorated


def _fields_of(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `ReadOptions` that options of a command stand for, once checked."""
    from hypervlad.images import ReadOptions

    fields: Reading = {
        "page": given.get("image_page"),
        "channel": given.get("channel"),
        "scaling": _scaling(given.get("scaling")),
        "banner": "remove" if given.get("remove_banner") else None,
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    ReadOptions(**fields)
    return fields


def _scaling(text: str | None) -> str | tuple[float, ...] | None:
    """Return a rule by its name, or the two grey values of a text such as 0:4095."""
    try:
        return tuple(float(value) for value in text.split(":")) if text and ":" in text else text
    except ValueError:
        return text
