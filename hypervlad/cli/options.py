"""Options that several commands share, each declared once, and parameters of the library."""

from __future__ import annotations

import ast
import difflib
import inspect
import itertools
import re
import textwrap
from collections.abc import Collection, Sequence
from contextvars import ContextVar
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn

import typer

OnError = StrEnum("OnError", ["RAISE", "SKIP"])
Sign = StrEnum("Sign", ["AUTO", "BRIGHT", "DARK"])


class Common(NamedTuple):
    """Options of ``hypervlad`` itself, which may be given before or after a command."""

    device: str = "auto"
    on_error: OnError = OnError.RAISE
    quiet: bool = False
    debug: bool = False
    decimal_comma: bool = False

    @property
    def skips(self) -> bool:
        return self.on_error is OnError.SKIP

    @property
    def verbose(self) -> bool:
        return not self.quiet


EPILOG = (
    "Options of all commands: --device, --on-error, --decimal-comma, --quiet and --debug "
    "(hypervlad --help)."
)
_common: ContextVar[Common] = ContextVar("common")
use_common = _common.set
# The names of the command's own options.
_own: ContextVar[Collection[str]] = ContextVar("own", default=())
use_own = _own.set


def common() -> Common:
    """Return the common options of the running command."""
    return _common.get(Common())


# --- inputs -------------------------------------------------------------------------------------

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
ModelPath = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="Model file written by train, demo or review retrain."),
]
Groups = Annotated[
    Path | None,
    typer.Option(
        metavar="CSV",
        help="Table with the columns path and group. Images of one group (crops of one micrograph, "
        "frames of one sample) are never split between training and testing, and intervals allow "
        "for them.",
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
PixelSize = Annotated[
    str | None,
    typer.Option(
        metavar="NM|CSV",
        help="Nanometres per pixel of images whose files do not contain the pixel size: a number, "
        "or the table of hypervlad scale, which has that of each image.",
    ),
]

# --- outputs ------------------------------------------------------------------------------------


def output(metavar: str, meaning: str) -> Any:
    """Return the option for what a command writes, with ``-o`` for short."""
    return typer.Option("--output", "-o", metavar=metavar, help=meaning)


ModelToWrite = Annotated[Path, output("FILE", "Model file to write.")]
FolderToWrite = Annotated[Path, output("DIR", "Folder to write to.")]
TableToWrite = Annotated[
    Path | None,
    output("FILE", "Table to write, NAME.csv or NAME.xlsx; by default it is printed."),
]
IncludeBackbone = Annotated[
    bool,
    typer.Option(
        "--include-backbone",
        help="Store the network's weights in the file, for computers that lack them.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue an earlier run with the same options: keep its results, and add the others.",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Private folder that keeps the vectors of images. They are found again even if the "
        "images are renamed. It contains pickles: nobody else should be able to write to it.",
    ),
]

# --- how it is done -----------------------------------------------------------------------------

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
Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
KeepAnnotations = Annotated[
    bool,
    typer.Option(
        "--keep-annotations",
        help="Do not leave out margins, and what looks drawn into the image: information bars, "
        "scale bars, letters, arrows.",
    ),
]
Polarity = Annotated[
    Sign | None,
    typer.Option(help="Whether what is sought is brighter or darker than what is beside it."),
]


def _need_nothing_for_help(context: typer.Context, given: list[str] | None) -> list[str] | None:
    """Let ``--set help`` do without the arguments that the command has to have otherwise."""
    context.resilient_parsing = context.resilient_parsing or "help" in (given or ())
    return given


def _set(further: str = "") -> Any:
    return typer.Option(
        "--set",
        metavar="NAME=VALUE",
        is_eager=True,
        callback=_need_nothing_for_help,
        help=f"Any other parameter, as in Python; may be repeated.{further} --set help lists all.",
    )


Set = Annotated[list[str] | None, _set()]
SetReading = Annotated[
    list[str] | None,
    _set(
        " Of reading: banner=remove cuts off the instrument's information bar, page=1 and "
        "channel=0 choose one of several, scaling=0,4095 says which values are black and white."
    ),
]

# --- parameters of the library -------------------------------------------------------------------

# What other options set, or what no text can be.
_NOT_SET = {
    *("image", "mask", "self", "encoder", "boosting", "read_options", "memory"),
    *("random_state", "verbose", "device", "on_error", "pixel_size", "annotations", "method"),
}
_WORDS = {"true": True, "yes": True, "false": False, "no": False, "none": None}


def settings(given: Sequence[str] | None, *parts: Any) -> list[dict[str, Any]]:
    """Return what ``--set`` changes of each part: a class, an estimator or a function.

    A name belongs to the first part that has it, unless the command has an option for it.
    """
    known = [_documented(part, _NOT_SET.union(_own.get())) for part in parts]
    values: list[dict[str, Any]] = [{} for _ in parts]
    for text in given or ():
        name, is_given, value = text.partition("=")
        owners = [own for own, names in zip(values, known, strict=True) if name in names]
        if not owners or not is_given:
            _explain(name, known)
        if name in owners[0]:
            raise ValueError(f"--set {name}: given twice; give one value")
        owners[0][name] = _parsed(value)
    return values


def _documented(part: Any, left_out: Collection[str]) -> dict[str, str]:
    """Return the parameters of a part, with its defaults and what its docstring says of each."""
    own = {} if callable(part) else part.get_params(deep=False)
    part = part if callable(part) else type(part)
    text = inspect.cleandoc(part.__doc__ or "").partition("Parameters\n----------\n")[2]
    found = {}
    for names, kind, meaning in re.findall(
        r"^([\w, ]+) : (.*)\n((?:(?: +.*)?\n)*)", f"{text}\n", re.MULTILINE
    ):
        first, *_ = re.split(r"(?<=[a-z)0-9]\.)\s|:\s*\n|\n\n", textwrap.dedent(meaning))
        for name in names.split(", "):
            if own.get(name) is not None:  # not always the default of the class
                kind = f"{kind.partition(', default')[0]}, default={own[name]!r}"
            said = re.sub(r":\w+:`[~.]?([^`]*)`|`+([^`]*)`+", r"\1\2", f"{kind}. {first}")
            found[name] = " ".join(said.split())
    names = inspect.signature(part).parameters
    return {name: found.get(name, "") for name in names if name not in left_out}


def _parsed(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _explain(name: str, of_parts: list[dict[str, str]]) -> NoReturn:
    """List all parameters if this is wanted; otherwise say what is wrong with this one."""
    known: dict[str, str] = {}
    for each, said in itertools.chain.from_iterable(names.items() for names in of_parts):
        if known.setdefault(each, said) == said and name == "help":
            typer.echo(textwrap.fill(f"{each}: {said}", 79, subsequent_indent="    "))
    if name == "help":
        raise typer.Exit
    if name in _own.get():
        raise ValueError(f"--set {name}: it has an option of its own, --{name.replace('_', '-')}")
    if name in known:
        raise ValueError(f"--set {name}: give its value too, --set {name}=VALUE")
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ValueError(f"--set {name}: unknown{hint}; --set help explains {', '.join(known)}")


def given_options(**options: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None and value != {}}
