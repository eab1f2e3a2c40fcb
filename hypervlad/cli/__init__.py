"""The command line: the library's functions as commands, without any logic.

Exit codes: 0 for success, 1 if ``check`` found something, 2 for an error (one sentence on stderr),
130 for Ctrl-C. Slow modules are imported inside the commands, so that ``--help`` is fast.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
import traceback
from typing import Annotated

import typer

from hypervlad._version import __version__
from hypervlad.cli.alignment import align, align_train
from hypervlad.cli.classification import check, evaluate, explain, info, suspects
from hypervlad.cli.defects import defects
from hypervlad.cli.diameters import diameters
from hypervlad.cli.extraction import cache, extract, scale
from hypervlad.cli.messages import echo, show_traceback
from hypervlad.cli.particles import particles
from hypervlad.cli.prediction import predict
from hypervlad.cli.review import review
from hypervlad.cli.training import demo, train

__all__ = ["app", "main"]

app = typer.Typer(
    name="hypervlad",
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
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback if an error occurs.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Classify electron micrographs: train on a labelled folder, then predict.

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
      hypervlad align wires/ -o found/           directions and aligned fraction of fibres
      hypervlad diameters mats/ -o found/        diameters of fibres, compared by group
      hypervlad scale images/ -o sizes.csv       pixel sizes from scale bars
      hypervlad review start model.hvlad new/ -o queue/   queue uncertain images for labelling
    """
    show_traceback.set(debug)


for _command in (
    train,
    predict,
    explain,
    evaluate,
    suspects,
    extract,
    align,
    align_train,
    diameters,
    check,
    demo,
    info,
    scale,
    cache,
):
    app.command()(_command)
app.add_typer(defects)
app.add_typer(particles)
app.add_typer(review)


def main() -> None:
    """Run the command line: the entry point of the ``hypervlad`` script."""
    # The libraries' million objects live as long as the process. Searching them for garbage while
    # they are imported, and again at the end, took a third of the time of a short command.
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)
    # Workers would import modules from the current folder, perhaps one of somebody else's images.
    os.environ["PYTHONSAFEPATH"] = "1"
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
