"""The commands ``align``, ``align-train`` and ``diameters``: how fibres lie, how thick they are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from hypervlad.cli import options as option
from hypervlad.cli.files import groups_of, images_in, load_model, masks_of, names_of, own_pixel_size
from hypervlad.cli.messages import echo, hint_at_bad_files, report_left_out, say
from hypervlad.common.wording import counted, percent
from hypervlad.folders.outputs import check_folders, check_model


def align(
    paths: option.Images,
    output: option.FolderToWrite,
    *,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="File that align-train wrote, which classifies windows instead of their spread.",
        ),
    ] = None,
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
    groups: option.ComparedGroups = None,
    pixel_size: option.PixelSize = None,
    no_figures: Annotated[
        bool, typer.Option("--no-figures", help="Write only tables and maps, which is faster.")
    ] = False,
    keep_annotations: option.KeepAnnotations = False,
    set_: option.SetReading = None,
) -> None:
    """Measure the directions of fibres, wires or tubes, and the aligned fraction of each image.

    Writes tables of images and regions (CSV), how they were made (alignment.json), maps of
    direction, coherence and regions (TIFF), and pictures (PNG). Column names contain the units;
    columns in nm and square µm are empty where the pixel size is unknown. Results of an earlier run
    in the folder are replaced. Images that cannot be read or used are listed at the end; the exit
    code is then 2, or 0 with --on-error skip. A model reads images as those that it was trained on,
    unless options say otherwise.

    \b
    Columns of alignment.csv, one line per image:
      fraction           of the area with fibres that is aligned, with the
                         limits of a 95 % interval; fraction_least and _most
                         say how far directions can be measured
      fibre_fraction     the same, counted in fibre pixels instead of area
      expected_fraction  from a model's probabilities; empty without a model
      fibre_share        of the sample that is fibre pixels
      mean_direction_deg, order_parameter, spread_deg
                         of all fibre pixels, with the limits of 95 % intervals:
                         that of a direction may go from 175 to 5
      window_width_px, window_height_px
                         of the windows that fit the image, about window_px
      annotations, annotation_share
                         what was left out of the image, and its share of it
      image_digest       of its pixels, by which copies are told
      note               what may be wrong: faults of the image, unused pixel sizes
      group              as --groups says; 'report' compares groups
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
    from hypervlad.fibres import AlignmentModel, AlignmentRecipe
    from hypervlad.fibres.alignment import DEFAULT_WINDOW
    from hypervlad.fibres.alignment_page import TABLES, write_alignment
    from hypervlad.images import ReadOptions
    from hypervlad.pages.facts import record_of

    given, reading = option.settings(set_, AlignmentRecipe, ReadOptions)
    check_folders(output, paths, model, groups, pixel_size, tables=TABLES)
    if not 0 < tolerance <= 90:
        raise ValueError(f"--tolerance {tolerance:g}: expected degrees above 0, at most 90")
    if model is not None:  # it reads images as in training
        given["method"] = load_model(model, AlignmentModel, "hypervlad align-train")
        encoder = getattr(given["method"], "encoder_", None)
        trained = None if encoder is None else encoder.fitted_params_.read_options
        own = ("page", "channel", "banner") if trained else ()
        reading = {name: getattr(trained, name) for name in own} | reading
    files = images_in(paths, model, groups, pixel_size)
    usual = getattr(given.get("method"), "window_", DEFAULT_WINDOW)
    recipe = AlignmentRecipe(
        window=usual if window is None else window,
        tolerance=math.radians(tolerance),
        pixel_size=own_pixel_size(pixel_size, files),
        annotations="keep" if keep_annotations else "leave_out",
        read_options=reading,
        **given,
    )
    how: Any = {"figures": not no_figures, "progress": option.common().verbose}
    how["groups"] = groups_of(files, groups, paths)
    how["made_with"] = None if model is None else record_of(model, recipe.method)
    bad = write_alignment(output, recipe, files, names_of(files, paths), **how)
    if len(bad) < len(files):
        echo(f"{len(files) - len(bad)} of {counted(len(files), 'image')} done: {output}")
    report_left_out(bad, len(files))


def align_train(
    paths: option.Images,
    output: option.ModelToWrite,
    masks: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder of masks, white where fibres are aligned, each named like its image. "
            "Images without one are left out.",
        ),
    ],
    *,
    groups: option.Groups = None,
    keep_annotations: option.KeepAnnotations = False,
    backbone: option.Backbone = None,
    weights: option.Weights = None,
    seed: option.Seed = 0,
    include_backbone: option.IncludeBackbone = False,
    set_: option.SetReading = None,
) -> None:
    """Train a model of aligned windows, for align --model MODEL, on images with masks.

    Of the parameters for --set, window is the side of the windows that are classified.

    \b
    Examples:
      hypervlad align-train images/ --masks aligned/ -o alignment.hvlad
      hypervlad align new/ --model alignment.hvlad -o found/
    """
    from hypervlad.features.weights import check_may_be_included
    from hypervlad.fibres.alignment_classifier import AlignmentClassifier, default_alignment_encoder
    from hypervlad.images import ReadOptions

    usual = default_alignment_encoder()
    own, encoding, reading = option.settings(set_, AlignmentClassifier, usual, ReadOptions)
    ReadOptions(**reading)
    check_model(output, *paths, masks, groups)
    files = images_in(paths, groups, output)
    found = masks_of(files, masks, needed=True)
    codes = groups_of(files, groups, paths)
    rows = [row for row, mask in enumerate(found) if mask is not None]
    common = option.common()
    encoder = default_alignment_encoder(
        **encoding | option.given_options(backbone=backbone, weights=weights),
        device=common.device,
        on_error=common.on_error.value,
        read_options=dict(usual.read_options or {}) | reading,
    )
    if include_backbone:
        check_may_be_included(encoder.backbone, encoder.weights)
    own |= {"annotations": "keep" if keep_annotations else "leave_out"}
    model = AlignmentClassifier(encoder, random_state=seed, verbose=common.verbose, **own)
    say(f"training on {counted(len(rows), 'image')} with masks")
    with hint_at_bad_files():
        chosen, maps = ([each[row] for row in rows] for each in (files, found))
        model.fit(chosen, maps, groups=codes and [codes[row] for row in rows])
    model.save(output, include_backbone=include_backbone)
    echo(
        f"model: {output} ({counted(model.n_windows_, 'window')} of "
        f"{counted(model.n_images_, 'image')}, {percent(model.aligned_share_)} of them aligned)"
    )


def diameters(
    paths: option.Images,
    output: option.FolderToWrite,
    *,
    groups: option.ComparedGroups = None,
    samples: option.Samples = None,
    polarity: option.Polarity = None,
    pixel_size: option.PixelSize = None,
    leave_out: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Places that count no more, as the page saves them: choice.csv. With --resume, "
            "those left out before stay so without it; none takes them back.",
        ),
    ] = None,
    roi: Annotated[
        bool,
        typer.Option(
            "--roi",
            help="Also write the cross lines as ImageJ regions (for Fiji), into a sub-folder roi.",
        ),
    ] = False,
    resume: option.Resume = False,
    keep_annotations: option.KeepAnnotations = False,
    set_: option.SetReading = None,
) -> None:
    """Measure the diameters of fibres, wires or tubes, and compare groups of images.

    Writes a page with histograms and the measured places (diameters.html), tables, and how they
    were made (diameters.json). Diameters are in nm where the pixel size is known, otherwise in
    pixels. On the page, a click leaves out a wrong place, and with Shift its fibre; it saves the
    choice as a table for --leave-out. Margins, information bars, scale bars, letters and arrows
    are left out. Images that cannot be read are listed at the end; the exit code is then 2, or 0
    with --on-error skip. If the command is stopped at any moment, repeat it with --resume.

    \b
    Columns of diameters.csv, one line per image:
      median             with a 95 % interval, in px and nm, weighted by visible
                         length, as all columns of diameters
      mean, standard_deviation, d10, d90
      places, left_out   places that count, and those left out by --leave-out
      kinds              median and share of up to three kinds of fibres
      profile            how the brightness changes across fibres: flat, rims, round
                         or transmission
      enlarged           how many times a program had enlarged the image
      scale_bar_error    share by which a pixel size of a scale bar may be wrong
      annotations, annotation_share
                         what was left out of the image, and its share of it
      image_digest       of its pixels, by which copies are told
      note               what may be wrong: faults of the image, unused pixel sizes
      reason             why there are no diameters
      refused_...        tried places that were not accepted, by reason
    \b
    Columns of places.csv, one line per place: x_px and y_px (middle of the
    fibre), direction_deg (along it), diameter, error_px (standard error),
    length_px (visible length that it stands for), left_out. gone_places.csv has
    those left out of images that are gone, for when these are back.
    \b
    Columns of groups.csv, one line per group; without --groups, of all images:
      median             geometric mean of the medians of samples or images, with
                         a 95 % interval from how much these differ, of what
                         interval_of says, not narrower than their own errors
                         allow; one sample has that of its images
      shared_error       share by which all its diameters may be wrong together,
                         as those of one look are; the interval contains it
      to_halve_interval  how many samples or images, in all, would halve the
                         interval; empty if none would
    \b
    ratios.csv has the ratio of the medians of each two groups, with 95 %
    intervals that hold together; they need two samples of each group. An end
    further than a thousand times is open, and empty.

    \b
    Examples:
      hypervlad diameters mats/ -o found/ --pixel-size 12.5
      hypervlad diameters mats/ -o found/ --groups voltages.csv --pixel-size sizes.csv
      hypervlad diameters mats/ -o found/ --resume --leave-out choice.csv
    """
    from hypervlad.fibres.diameter_tables import TABLES, write_diameters
    from hypervlad.images import ReadOptions
    from hypervlad.statistics.groups import ratio_lines

    (reading,) = option.settings(set_, ReadOptions)
    check_folders(output, paths, groups, samples, pixel_size, leave_out, tables=TABLES)
    files = images_in(paths, groups, samples, pixel_size)
    of_images = groups_of(files, groups, paths)
    compared, bad = write_diameters(
        output,
        files,
        names_of(files, paths),
        groups=of_images,
        samples=groups_of(files, samples, paths, "sample"),
        polarity="auto" if polarity is None else cast(Any, polarity.value),
        annotations="keep" if keep_annotations else "leave_out",
        read_options=reading | {"pixel_size": own_pixel_size(pixel_size, files)},
        leave_out=leave_out,
        regions=roi,
        resume=resume,
        progress=option.common().verbose,
    )
    with_median = () if compared is None else compared.groups
    for group in with_median:
        low, high = (f"{end:.4g}" for end in (group.interval.low, group.interval.high))
        of = "of one image" if group.interval_of == "image" else f"between {group.interval_of}"
        places = counted(len(group.places.diameters), "place")
        echo(
            f"{group.name}: median {group.median:.4g} {group.places.unit} (95 % {low} to {high}, "
            f"{of}), {places} in {counted(group.n_images, 'image')}"
        )
    for name in dict.fromkeys(of_images or ()):
        if name not in {group.name for group in with_median}:
            echo(f"{name}: no median, as none of its images has one")
    ratios = {} if compared is None else {"median": compared.ratios()}
    for line in ratio_lines(ratios, "ratios.csv has them all"):
        echo(line)
    if len(bad) < len(files):
        echo(f"{len(files) - len(bad)} of {counted(len(files), 'image')} done: {output}")
    report_left_out(bad, len(files))
