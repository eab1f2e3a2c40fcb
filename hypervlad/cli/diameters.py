"""The command ``diameters``: how thick fibres are, with histograms and a comparison of groups."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, cast

import typer

from hypervlad.cli import options as option
from hypervlad.cli.files import check_folders, groups_of, images_in, names_of, own_pixel_size
from hypervlad.cli.messages import echo, plain_errors, report_left_out
from hypervlad.common.wording import counted, verb

Polarity = StrEnum("Polarity", ["AUTO", "BRIGHT", "DARK"])


@plain_errors
def diameters(
    paths: option.Images,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to.")
    ],
    *,
    groups: option.ComparedGroups = None,
    samples: option.Samples = None,
    polarity: Annotated[
        Polarity, typer.Option(help="Whether fibres are brighter or darker than what is beside.")
    ] = Polarity.AUTO,
    pixel_size: option.OwnPixelSize = None,
    pixel_sizes: option.PixelSizes = None,
    leave_out: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Places that count no more, as the page saves them: choice.csv.",
        ),
    ] = None,
    roi: Annotated[
        bool,
        typer.Option(
            "--roi",
            help="Also write the cross lines as ImageJ regions (for Fiji), into a sub-folder roi.",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Keep what is in the folder and was measured with the same options, and measure "
            "the other images.",
        ),
    ] = False,
    image_page: option.ImagePage = None,
    channel: option.Channel = None,
    remove_banner: option.RemoveBanner = False,
    keep_annotations: option.KeepAnnotations = False,
    on_error: option.UnreadableLeftOut = option.OnError.RAISE,
    quiet: option.Quiet = False,
) -> None:
    """Measure the diameters of fibres, wires or tubes, and compare groups of images.

    Writes a page with histograms and the measured places (diameters.html), and tables. Diameters
    are in nm where the pixel size is known, otherwise in pixels. On the page, a click leaves out a
    wrong place, and with Shift its fibre; it saves the choice as a table for --leave-out.
    Information bars, scale bars, letters and arrows are left out. Images that cannot be read are
    listed at the end; the exit code is then 2, or 0 with --on-error skip. If the command is stopped
    at any moment, repeat it with --resume.

    \b
    Columns of diameters.csv, one line per image:
      median             with a 95 % interval, in px and nm, weighted by visible
                         length, as all columns of diameters
      mean, standard_deviation, d10, d90
      places, left_out   places that were measured, and those of --leave-out
      kinds              median and share of up to three kinds of fibres
      profile            how the brightness changes across fibres: flat, rims, round
                         or transmission
      reason             why there are no diameters
      annotations, annotation_share
                         what was left out of the image, and its share of it
      refused_...        tried places that were not accepted, by reason
    \b
    Columns of places.csv, one line per place: x_px and y_px (middle of the
    fibre), direction_deg (along it), diameter, error_px (standard error),
    length_px (visible length that it stands for), left_out.
    \b
    Columns of groups.csv, one line per group; without --groups, of all images:
      median             geometric mean of the medians of samples or images, with
                         a 95 % interval from how much these differ, of what
                         interval_of says; one sample has that of its images
      to_halve_interval  how many samples or images, in all, would halve it
    \b
    ratios.csv has the ratio of the medians of each two groups, with 95 %
    intervals that hold together; they need two samples of each group.

    \b
    Examples:
      hypervlad diameters mats/ -o found/ --pixel-size 12.5
      hypervlad diameters mats/ -o found/ --groups voltages.csv --pixel-sizes sizes.csv
      hypervlad diameters mats/ -o found/ --resume --leave-out choice.csv
    """
    from hypervlad.fibres.diameter_tables import write_diameters
    from hypervlad.fibres.diameters import Polarity as PolarityName

    reading = option.reading_fields(image_page, channel, remove_banner=remove_banner)
    check_folders(output, paths)
    files = images_in(paths, quiet, groups, samples, pixel_sizes)
    of_images = None if groups is None else groups_of(files, groups, paths)
    compared, bad = write_diameters(
        output,
        files,
        names_of(files, paths),
        groups=of_images,
        samples=None if samples is None else groups_of(files, samples, paths),
        polarity=cast(PolarityName, polarity.value),
        annotations="keep" if keep_annotations else "leave_out",
        read_options=reading | {"pixel_size": own_pixel_size(pixel_size, pixel_sizes, files)},
        leave_out=leave_out,
        regions=roi,
        resume=resume,
        progress=not quiet,
    )
    with_median = () if compared is None else compared.groups
    for group in with_median:
        low, high = (f"{end:.4g}" for end in (group.interval.low, group.interval.high))
        echo(
            f"{group.name}: median {group.median:.4g} {group.places.unit} (95 % {low} to {high}), "
            f"{counted(len(group.places.diameters), 'place')} in {counted(group.n_images, 'image')}"
        )
    for name in dict.fromkeys(() if of_images is None else of_images.tolist()):
        if name not in {group.name for group in with_median}:
            echo(f"{name}: no median, as none of its images has one")
    for one, other, ratio, between in () if compared is None else compared.ratios():
        echo(f"{one} over {other}: {ratio:.4g} (95 % {between.low:.4g} to {between.high:.4g})")
    n_used = sum(group.n_images for group in with_median)
    if n_out := len(files) - len(bad) - n_used:
        echo(
            f"note: {counted(n_out, 'image')} {verb(n_out, 'is', 'are')} in no group: the column "
            "reason of diameters.csv says why there are no diameters, or the pixel size is unknown"
        )
    if len(bad) < len(files):
        echo(f"{len(files) - len(bad)} of {counted(len(files), 'image')} done: {output}")
    report_left_out(bad, len(files), on_error)
