"""The command ``report``: what goes into a paper, of a folder of results."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hypervlad.cli import options as option
from hypervlad.cli.messages import echo
from hypervlad.common.wording import warn_user
from hypervlad.folders.outputs import check_folders

Weight = StrEnum("Weight", ["NUMBER", "AREA", "LENGTH"])
_RESULTS = {
    "run.json": ("hypervlad.particles.paper", "particles_report"),
    "diameters.csv": ("hypervlad.fibres.paper", "diameters_report"),
    "alignment.csv": ("hypervlad.fibres.paper", "alignment_report"),
    "scores.csv": ("hypervlad.defects.paper", "defects_report"),
    "predictions.csv": ("hypervlad.classify.paper", "classes_report"),
}


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Folder that particles find, diameters, align or defects score has written, or of "
            "the table predictions.csv of predict.",
        ),
    ],
    output: option.FolderToWrite,
    *,
    weight: Annotated[
        Weight | None,
        typer.Option(
            help="Of particles and defects, number (the default) or area; of diameters, length."
        ),
    ] = None,
    set_: option.Set = None,
) -> None:
    """Write what a paper needs of a folder of results: figures, a table, methods, and a page.

    Particles are counted as 'particles count' does; --set has its options, such as measure, rule
    and pixel_size_error (a share, such as 0.03).

    \b
    The folder contains report.html, with all that follows, and
      figure.svg     also .pdf and .png: the distribution, 85 mm wide, with the
                     median and its 95 % interval; of defects, figure-2 too; of
                     classes, the share of each
      results.csv    values with 95 % intervals, units, and sources: the standard
                     or definition, or why a value is not known
      methods.txt    sentences on how it was measured, and captions
      budget.csv     of particles: what uncertainties come from, in per cent

    \b
    Examples:
      hypervlad report found/ -o report/
      hypervlad report found/ -o report/ --weight area --set measure=feret_max
    """
    import importlib

    from hypervlad.objects.found_folder import FoundFolder
    from hypervlad.pages.paper import METHODS, PAGE, TABLE, write_report

    (given,) = option.settings(set_, FoundFolder.count)
    kind, *others = [name for name in _RESULTS if (folder / name).is_file()] or [""]
    if not kind:
        raise ValueError(
            f"{folder}: no folder of results ({', '.join(_RESULTS)}); give one that "
            "'particles find', 'diameters', 'align', 'defects score' or 'predict' has written"
        )
    if kind == "run.json":
        given["on_error"] = option.common().on_error.value
    elif given:
        raise ValueError(
            f"--set {', '.join(given)}: only for folders of particles, as these are counted"
        )
    check_folders(output, [])
    is_report = all((output / name).is_file() for name in (PAGE, TABLE, METHODS))
    if output.exists() and any(output.iterdir()) and not is_report:
        raise ValueError(f"{output} is not empty, and no earlier report; write to a new folder")
    module, name = _RESULTS[kind]
    describe = getattr(importlib.import_module(module), name)
    found = describe(folder, weight and weight.value, **given)
    page = write_report(output, found)
    for other in others:
        warn_user(f"{folder / other}: not in the report; give each task a folder of its own")
    for note in found.notes:
        echo(f"note: {note}")
    echo(f"report: {page}")
