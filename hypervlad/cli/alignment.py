"""The command ``align``: directions of fibres and what of images is aligned."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from hypervlad.cli.messages import plain_errors
from hypervlad.cli.models import check_folders, load_model, names_of
from hypervlad.cli.options import (
    Device,
    Images,
    OnError,
    Quiet,
    Seed,
    UnreadableInPrediction,
    Weights,
)


@plain_errors
def align(
    paths: Images,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to.")
    ],
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How a window is judged: structure_tensor, lgo (local gradient orientation), or a "
            "model file that align-train wrote.",
        ),
    ] = "structure_tensor",
    window: Annotated[
        str | None,
        typer.Option(
            metavar="LENGTH",
            help="Side of the windows: pixels, such as 32, or with a unit, such as 500nm, for "
            "images whose pixel size is known. If not given: 32, or as the model has learnt.",
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            metavar="DEGREES",
            help="A window is aligned if its directions spread less than this.",
        ),
    ] = 20.0,
    sigma: Annotated[
        str,
        typer.Option(
            metavar="LENGTH",
            help="Over what length directions are averaged, written as the window is.",
        ),
    ] = "1.75",
    bootstrap: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Draw N sets of windows for 95 % intervals of direction, order and spread; 1000, "
            "say.",
        ),
    ] = 0,
    pixel_size: Annotated[
        float | None,
        typer.Option(metavar="NM", help="nm a pixel, for images whose file does not know it."),
    ] = None,
    remove_banner: Annotated[
        bool,
        typer.Option("--remove-banner", help="Cut off the instrument's information bar."),
    ] = False,
    no_figures: Annotated[
        bool, typer.Option("--no-figures", help="Tables and maps only: faster, and smaller.")
    ] = False,
    weights: Weights = None,
    seed: Seed = 0,
    device: Device = "auto",
    on_error: UnreadableInPrediction = OnError.RAISE,
    quiet: Quiet = False,
) -> None:
    """Find the directions of fibres, wires or tubes, and how much of each image is aligned.

    Tables of images and of regions (CSV), maps of direction, coherence and regions (TIFF), and
    pictures (PNG). Columns are named with their units; nm and square µm are empty where the pixel
    size is not known. Results of an earlier run in the folder are replaced. An image that cannot be
    read or used is left out; such images are listed at the end, with exit code 2 unless they are
    accepted with --on-error skip.

    \b
    Examples:
      hypervlad align wires.tif -o found/
      hypervlad align images/ -o found/ --method lgo --window 500nm --tolerance 15
      hypervlad align "scans/*.png" -o found/ --pixel-size 2.5 --bootstrap 1000
    """
    from hypervlad.fibres import AlignmentRecipe
    from hypervlad.fibres.alignment import DEFAULT_WINDOW
    from hypervlad.images import ImageReadError, find_images
    from hypervlad.reports import write_alignment

    check_folders(output, paths)
    if not 0 < tolerance <= 90:
        raise ValueError(f"--tolerance {tolerance:g}: expected degrees above 0, at most 90")
    judge = _method(method, weights, device)
    recipe = AlignmentRecipe(
        method=judge,
        window=getattr(judge, "window_", DEFAULT_WINDOW) if window is None else window,
        tolerance=math.radians(tolerance),
        sigma=sigma,
        n_bootstrap=bootstrap,
        random_state=seed,
        pixel_size=pixel_size,
        banner="remove" if remove_banner else "keep",
    )
    files = find_images(paths)
    bad = write_alignment(
        output,
        recipe,
        files,
        names_of(files, paths),
        figures=not no_figures,
        progress=not quiet,
    )
    if len(bad) < len(files):
        typer.echo(f"{len(files) - len(bad)} of {len(files)} images done: {output}")
    if bad:
        told = f"{len(bad)} of {len(files)} images left out: {'; '.join(bad)}"
        if on_error is OnError.RAISE or len(bad) == len(files):
            raise ImageReadError(told)
        typer.echo(f"warning: {told}", err=True)


def _method(name: str, weights: str | None, device: str) -> Any:
    """Return the name of a method, or the model of a file."""
    from hypervlad.fibres import AlignmentModel
    from hypervlad.fibres.orientation import METHODS

    if name in METHODS:
        return name
    path = Path(name)
    if not (path.is_file() or path.suffix or len(path.parts) > 1):
        raise ValueError(
            f"--method {name}: expected {', '.join(METHODS)}, or a model file; there is none of "
            "that name"
        )
    model = load_model(path, weights, AlignmentModel, "hypervlad align-train")
    if hasattr(model, "encoder_"):
        model.encoder_.set_params(device=device)
    return model
