"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class OnError(StrEnum):
    """What to do with an image that cannot be read."""

    RAISE = "raise"
    SKIP = "skip"


Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of images: one sub-folder for each class.")
]
Images = Annotated[
    list[str],
    typer.Argument(metavar="PATHS", help="Images, folders (searched through) or patterns."),
]
ModelToWrite = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="Model file to write.")
]
IncludeBackbone = Annotated[
    bool,
    typer.Option(
        "--include-backbone",
        help="Put the network's weights into the file, for a computer that lacks them.",
    ),
]
ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="File written by train or demo.")]
Groups = Annotated[
    Path | None,
    typer.Option(
        metavar="CSV",
        help="Table with the columns path and group; images of one group (crops of one micrograph, "
        "frames of one sample) are kept together.",
    ),
]
Backbone = Annotated[
    str | None, typer.Option(metavar="NAME", help="Network; mobilenet_v2 if not given.")
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help='The network\'s weights: a .safetensors or .pth file, "imagenet" (if not given) or '
        '"random".',
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(metavar="PIXELS", help="Side that images are resized to; 224 if not given."),
]
PixelSize = Annotated[
    float | None,
    typer.Option(
        metavar="NM",
        help="Resample images that know their pixel size to this many nanometres per pixel; "
        "--image-size then rules the others only.",
    ),
]
NCodewords = Annotated[
    int | None, typer.Option(metavar="K", help="Number of visual words; 64 if not given.")
]
Device = Annotated[
    str, typer.Option(metavar="NAME", help="cpu, cuda or auto: cuda where there is a GPU.")
]
Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
Unreadable = Annotated[
    OnError,
    typer.Option("--on-error", help="Stop at an image that cannot be read, or leave it out."),
]
UnreadableInPrediction = Annotated[
    OnError,
    typer.Option(
        "--on-error",
        help="Images that cannot be read are left out in any case; raise: exit code 2 then.",
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress; only results, warnings and errors.")
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Private folder where vectors are kept and found again, whatever their files are "
        "called. It holds pickles: use only one that nobody else can write to.",
    ),
]
CacheSize = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Cut the cache down to this at the end, such as 20GB: what was not used for longest "
        "goes first.",
    ),
]
MaxError = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Also say which answers are sure, so that this share of them is wrong at most, and "
        "why the others are not: 0.05, say.",
    ),
]
CalibrationSize = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="What sure answers and sets of classes are founded on. If not given: five more "
        "models, each learnt without a fifth of the groups. 0.2, say: a fifth of the groups, "
        "not learnt from. 0: nothing, and there are none.",
    ),
]
