"""The commands ``align`` and ``align-train``: how much of each image's fibres is aligned."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from hypervlad.cli import options as option
from hypervlad.cli.files import (
    check_folders,
    check_model,
    check_no_weights,
    groups_of,
    images_in,
    load_model,
    masks_of,
    names_of,
    own_pixel_size,
)
from hypervlad.cli.messages import (
    echo,
    hint_at_bad_files,
    plain_errors,
    report_left_out,
    say,
)
from hypervlad.common.wording import counted, percent

_SYNTHETIC_SIZE = (384, 512)
#: They vary widely: also thin, sparse, blurred and noisy fibres.
_SYNTHETIC: dict[str, Any] = {
    "aligned": (0, 1),
    "diameter": (4, 12),
    "cover": (0.2, 0.9),
    "length": (100, 400),
    "blur": (0.4, 3.3),
    "contrast_to_noise": (1, 20),
    "look": "round",
}
_TRAIN_PER_TEST = 4  # one more synthetic image for every four, to test the model


@plain_errors
def align(
    paths: option.Images,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to.")
    ],
    *,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How windows are classified: structure_tensor, or the name of a model file that "
            "align-train wrote.",
        ),
    ] = "structure_tensor",
    window: Annotated[
        str | None,
        typer.Option(
            metavar="LENGTH",
            help="Side of the windows: in pixels, such as 32, or with a unit, such as 500nm, for "
            "images of known pixel size. Choose at least the length of the straight parts of "
            "fibres: a smaller window may contain a single fibre, and then usually counts as "
            "aligned. By default 32, or that of the model.",
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            metavar="DEGREES",
            help="A window is aligned if the spread of its directions is below this.",
        ),
    ] = 20.0,
    pixel_size: option.OwnPixelSize = None,
    pixel_sizes: option.PixelSizes = None,
    image_page: option.ImagePage = None,
    channel: option.Channel = None,
    remove_banner: option.RemoveBanner = False,
    keep_annotations: option.KeepAnnotations = False,
    no_figures: Annotated[
        bool,
        typer.Option("--no-figures", help="Write only tables and maps, which is faster."),
    ] = False,
    weights: option.ModelWeights = None,
    device: option.Device = "auto",
    on_error: option.UnreadableLeftOut = option.OnError.RAISE,
    quiet: option.Quiet = False,
) -> None:
    """Measure the directions of fibres, wires or tubes, and the aligned fraction of each image.

    Writes tables of images and regions (CSV), maps of direction, coherence and regions (TIFF), and
    pictures (PNG). Column names contain the units; columns in nm and square µm are empty where the
    pixel size is unknown. Results of an earlier run in the folder are replaced. Images that cannot
    be read or used are listed at the end; the exit code is then 2, or 0 with --on-error skip. A
    model reads images as those that it was trained on, unless options say otherwise.

    \b
    Columns of alignment.csv, one line per image:
      fraction           of the area with fibres that is aligned
      fibre_fraction     the same, counted in fibre pixels instead of area
      expected_fraction  from a model's probabilities; empty without a model
      fibre_share        of the sample that is fibre pixels
      annotations, annotation_share
                         what was left out of the image, and its share of it
      mean_direction_deg, order_parameter, spread_deg
                         of all fibre pixels, with the limits of 95 % intervals:
                         that of a direction may go from 175 to 5
      window_width_px, window_height_px
                         of the windows that fit the image, about window_px
    \b
    Columns of regions.csv, one line per aligned region: x_px, y_px (upper
    left corner), width_px and height_px of its box, areas, mean direction
    and order parameter.

    \b
    Examples:
      hypervlad align wires.tif -o found/
      hypervlad align images/ -o found/ --window 500nm --tolerance 15
      hypervlad align "scans/*.png" -o found/ --pixel-size 2.5
    """
    from hypervlad.fibres import AlignmentRecipe
    from hypervlad.fibres.alignment import DEFAULT_WINDOW
    from hypervlad.fibres.alignment_page import write_alignment

    reading = option.reading_fields(image_page, channel, remove_banner=remove_banner)
    check_folders(output, paths)
    if not 0 < tolerance <= 90:
        raise ValueError(f"--tolerance {tolerance:g}: expected degrees above 0, at most 90")
    chosen = _method(method, weights, device)
    files = images_in(paths, quiet, method, pixel_sizes)
    recipe = AlignmentRecipe(
        method=chosen,
        window=getattr(chosen, "window_", DEFAULT_WINDOW) if window is None else window,
        tolerance=math.radians(tolerance),
        pixel_size=own_pixel_size(pixel_size, pixel_sizes, files),
        annotations="keep" if keep_annotations else "leave_out",
        read_options=_reading_of(chosen) | reading,
    )
    bad = write_alignment(
        output,
        recipe,
        files,
        names_of(files, paths),
        figures=not no_figures,
        progress=not quiet,
    )
    if len(bad) < len(files):
        echo(f"{len(files) - len(bad)} of {counted(len(files), 'image')} done: {output}")
    report_left_out(bad, len(files), on_error)


def _method(name: str, weights: str | None, device: str) -> Any:
    from hypervlad.fibres import AlignmentModel
    from hypervlad.fibres.alignment import DEFAULT_METHOD

    if name == DEFAULT_METHOD:
        check_no_weights(weights)
        return name
    path = Path(name)
    if not (path.is_file() or path.suffix or len(path.parts) > 1):
        raise ValueError(
            f"--method {name}: expected {DEFAULT_METHOD} or the name of a model file, but there "
            "is no such file"
        )
    model = load_model(path, weights, AlignmentModel, "hypervlad align-train")
    if hasattr(model, "encoder_"):
        model.encoder_.set_params(device=device)
    return model


def _reading_of(method: Any) -> dict[str, Any]:
    """Return how images are read for a model, as it was trained; {} for the name of a method."""
    if not hasattr(method, "encoder_"):
        return {}
    options = method.encoder_.fitted_params_.read_options
    return {"page": options.page, "channel": options.channel, "banner": options.banner}


@plain_errors
def align_train(
    output: option.ModelToWrite,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATHS", help="Images, folders (with their sub-folders) or patterns."
        ),
    ] = None,
    *,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of masks, white where fibres are aligned, each named like its image.",
        ),
    ] = None,
    synthetic: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Train on N synthetic images of fibres, alone or together with PATHS. For "
            "example 60.",
        ),
    ] = 0,
    image_page: option.ImagePage = None,
    channel: option.Channel = None,
    remove_banner: option.RemoveBanner = False,
    window: Annotated[
        int, typer.Option(metavar="PIXELS", help="Side of the windows that are classified.")
    ] = 32,
    groups: option.Groups = None,
    backbone: option.Backbone = None,
    weights: option.Weights = None,
    seed: option.Seed = 0,
    device: option.Device = "auto",
    on_error: option.Unreadable = option.OnError.RAISE,
    include_backbone: option.IncludeBackbone = False,
    quiet: option.Quiet = False,
) -> None:
    """Train a model of aligned windows, for align --method MODEL.

    It learns from images with masks of the aligned regions, from synthetic images of known
    alignment, or from both.

    \b
    Examples:
      hypervlad align-train images/ --masks aligned/ -o alignment.hvlad
      hypervlad align-train --synthetic 60 -o alignment.hvlad
      hypervlad align new/ --method alignment.hvlad -o found/
    """
    from hypervlad.datasets.fibres import make_fibre_images
    from hypervlad.features.weights import check_may_be_included
    from hypervlad.fibres.alignment_classifier import AlignmentClassifier, default_alignment_encoder

    reading = option.reading_fields(image_page, channel, remove_banner=remove_banner)
    if not paths and not synthetic:
        raise ValueError("no training images: give images with --masks, or --synthetic 60")
    if synthetic and not 2 <= window <= min(_SYNTHETIC_SIZE):
        height, width = _SYNTHETIC_SIZE
        raise ValueError(f"--window {window}: synthetic images have {height} x {width} pixels")
    check_model(output, *(paths or ()), masks, groups)
    images, y, codes = _labelled(paths or [], masks, groups, quiet, output)
    encoder = default_alignment_encoder(
        **option.given_options({"backbone": backbone, "weights": weights}),
        device=device,
        on_error=on_error.value,
        read_options=dict(default_alignment_encoder().read_options or {}) | reading,
    )
    if include_backbone:
        check_may_be_included(encoder.backbone, encoder.weights)
    model = AlignmentClassifier(encoder, window=window, random_state=seed, verbose=not quiet)
    n_made = synthetic + -(-synthetic // _TRAIN_PER_TEST)
    made: Any = ([], [])
    if synthetic:
        say(quiet, f"creating {counted(n_made, 'synthetic image')}")
        made = make_fibre_images(n_made, **_SYNTHETIC, size=_SYNTHETIC_SIZE, random_state=seed)
    maps = [truth.aligned_map(window) for truth in made[1]]
    material = [counted(len(images), "image") + " with masks"] if images else []
    material += [counted(synthetic, "synthetic image")] if synthetic else []
    say(quiet, f"training on {' and '.join(material)}")
    own = [f"synthetic {i}" for i in range(synthetic)]
    with hint_at_bad_files():
        model.fit([*images, *made[0][:synthetic]], [*y, *maps[:synthetic]], groups=[*codes, *own])
    model.save(output, include_backbone=include_backbone)
    echo(
        f"model: {output} ({counted(model.n_windows_, 'window')} of "
        f"{counted(model.n_images_, 'image')}, "
        f"{percent(model.aligned_share_)} of them aligned)"
    )
    if synthetic:
        accuracy = model.score(made[0][synthetic:], maps[synthetic:])
        echo(
            f"accuracy: {percent(accuracy)} of the windows of "
            f"{counted(n_made - synthetic, 'other synthetic image')}; this says nothing about real "
            "images"
        )


def _labelled(
    paths: list[str], masks: Path | None, groups: Path | None, quiet: bool, output: Path
) -> tuple[list[Path], list[Path], list[str]]:
    """Return images that have a mask, their masks, and their groups."""
    if not paths:
        if masks is not None or groups is not None:
            raise ValueError("--masks and --groups refer to images: give these, too")
        return [], [], []
    if masks is None:
        raise ValueError("training images need --masks, white where fibres are aligned")
    files = images_in(paths, quiet, groups, output)
    found = masks_of(files, masks, False, "are left out")
    codes = [str(file) for file in files] if groups is None else groups_of(files, groups, paths)
    pairs = [each for each in zip(files, found, codes, strict=True) if each[1] is not None]
    return (
        [file for file, _, _ in pairs],
        [mask for _, mask, _ in pairs if mask is not None],
        [str(code) for _, _, code in pairs],
    )
