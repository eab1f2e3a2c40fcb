"""The command line: the library's functions as commands, without any logic.

Exit codes: 0 for success, 1 if ``check`` found something, 2 for an error (one sentence on stderr),
130 for Ctrl-C. Slow modules are imported inside the commands, so that ``--help`` is fast.
"""

from __future__ import annotations

import _thread
import atexit
import gc
import io
import os
import sys
import threading
import traceback
from collections.abc import Callable
from itertools import islice
from typing import Annotated, Any

import typer
import typer.core

from hypervlad._version import __version__
from hypervlad.cli import defects, particles, review
from hypervlad.cli.classification import check, evaluate, explain, info, suspects
from hypervlad.cli.extraction import cache, extract, scale, workbook
from hypervlad.cli.fibres import align, align_train, diameters
from hypervlad.cli.messages import echo, plain_errors
from hypervlad.cli.options import EPILOG, Common, OnError, use_common
from hypervlad.cli.prediction import predict
from hypervlad.cli.report import report
from hypervlad.cli.training import demo, train
from hypervlad.common.progress import READ_BY_PROGRAM
from hypervlad.common.tables import decimal_commas

__all__ = ["app", "main"]


class _Hypervlad(typer.core.TyperGroup):
    """The commands; options of `Common` may also follow them, as most people write them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        common = [each for each in self.params if each.name in Common._fields]
        takes_value = {
            name: not getattr(each, "is_flag", False) for each in common for name in each.opts
        }
        first, later, words = list[str](), list[str](), iter(args)
        for word in words:
            name, has_value, _ = word.partition("=")
            if word[:2] == "-q" and word[2:].isalpha():  # with others, as in -qo FILE
                first, word = [*first, "-q"], f"-{word[2:]}"
            if name in takes_value:
                first += [word, *islice(words, takes_value[name] and not has_value)]
            else:
                later += [word, *words] if word == "--" else [word]
        return super().parse_args(ctx, first + later)


app = typer.Typer(
    name="hypervlad",
    cls=_Hypervlad,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        echo(f"hypervlad {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="cpu, cuda, or auto: cuda if there is a GPU.")
    ] = "auto",
    on_error: Annotated[
        OnError,
        typer.Option(
            help="Images that cannot be read: raise stops training at the first; other commands "
            "leave them out, and end with exit code 2. skip leaves them out with a warning."
        ),
    ] = OnError.RAISE,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Print only results, warnings and errors; no progress."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback if an error occurs.")
    ] = False,
    decimal_comma: Annotated[
        bool,
        typer.Option(
            "--decimal-comma",
            help="Write tables for spreadsheets of languages with decimal commas: CSV with commas "
            "in numbers, and semicolons between cells. Such tables are read without this option.",
        ),
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Classify electron micrographs, find defects and particles, measure fibres.

    hypervlad COMMAND --help explains a command and its options. Those below may be given before or
    after any command.

    \b
    Examples:
      hypervlad demo                             try it on synthetic TEM images
      hypervlad check images/                    find unreadable files and copies
      hypervlad train images/ -o model.hvlad     train on images/CLASS/*.tif
      hypervlad predict model.hvlad new/ -o predictions.csv
      hypervlad explain model.hvlad image.tif -o why.png
      hypervlad evaluate model.hvlad others/ -o report/
      hypervlad extract share/ -m model.hvlad -o features.parquet
      hypervlad defects fit good/ -o mat.hvlad   train on defect-free images
      hypervlad particles find images/ -o found/ outline particles, and measure them
      hypervlad app images/                      do all this in a browser
      hypervlad align wires/ -o found/           directions and aligned fraction of fibres
      hypervlad diameters mats/ -o found/        diameters of fibres, compared by group
      hypervlad report found/ -o report/         figures, tables, methods for a paper
      hypervlad scale images/ -o sizes.csv       pixel sizes from scale bars
      hypervlad review start model.hvlad new/ -o queue/   queue uncertain images for labelling
    """
    use_common(Common(device, on_error, quiet, debug, decimal_comma))
    context.with_resource(decimal_commas(decimal_comma))


def _add(group: typer.Typer, command: Callable[..., None], name: str | None = None) -> None:
    group.command(name, epilog=EPILOG)(plain_errors(command))


_GROUPS: dict[str, tuple[Any, ...]] = {
    "defects": (
        "Find defects: train on defect-free images, score others, compare maps with masks.",
        *(defects.fit, defects.score, defects.evaluate),
    ),
    "particles": (
        "Outline particles of images, classify, count and measure them.",
        *(particles.train, particles.find, particles.classify, particles.count),
    ),
    "review": (
        "Review uncertain images: queue them, label them in 'hypervlad app', retrain the model.",
        *(review.start, review.export, review.retrain),
    ),
}
for _command in (
    *(train, predict, explain, evaluate, suspects, extract, align, align_train, diameters),
    *(check, demo, info, report, scale, cache, workbook),
):
    _add(app, _command)
_add(app, review.correct, "app")
for _name, (_meaning, *_commands) in _GROUPS.items():
    _group = typer.Typer(name=_name, no_args_is_help=True, rich_markup_mode=None, help=_meaning)
    for _command in _commands:
        _add(_group, _command)
    app.add_typer(_group)


def main() -> None:
    """Run the command line: the entry point of the ``hypervlad`` script."""
    # The libraries' million objects live as long as the process. Searching them for garbage while
    # they are imported, and again at the end, took a third of the time of a short command.
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)
    # Workers would import modules from the current folder, perhaps one of somebody else's images.
    os.environ["PYTHONSAFEPATH"] = "1"
    if READ_BY_PROGRAM in os.environ:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    for stream in (sys.stdout, sys.stderr):
        # A Windows console may lack letters of a file's name, which must not end the run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="hypervlad")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:  # with --debug
        echo(traceback.format_exc(), err=True, nl=False)
        sys.exit(2)


def _end_with_stdin() -> None:
    """End as Ctrl-C does when the program ends that has started this one, also by a kill."""
    while os.read(0, 1024):
        pass
    _thread.interrupt_main()
