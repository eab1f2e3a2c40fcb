"""The commands ``particles train``, ``find``, ``classify`` and ``count``."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from hypervlad.cli import options as option
from hypervlad.cli.files import (
    check_cache,
    check_file,
    check_folders,
    check_model,
    check_no_weights,
    check_page,
    folder_of,
    groups_of,
    images_in,
    load_classifier,
    load_model,
    own_pixel_size,
)
from hypervlad.cli.messages import echo, plain_errors, report_left_out, say
from hypervlad.common.files import file_digest, replace_when_complete
from hypervlad.common.wording import counted, name_some

if TYPE_CHECKING:
    import pandas as pd

    from hypervlad.images.sample import Annotations

particles = typer.Typer(
    name="particles",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Outline particles of images, classify, count and measure them.",
)

Annotation = StrEnum("Annotation", ["OUTLINES", "SCRIBBLES"])
Polarity = StrEnum("Polarity", ["AUTO", "BRIGHT", "DARK"])
Format = StrEnum("Format", ["GEOJSON", "ROI"])
Edges = StrEnum("Edges", ["WEIGHT", "LEAVE_OUT"])

FoundPath = Annotated[
    Path, typer.Argument(metavar="FOUND", help="Folder written by hypervlad particles find.")
]
Formats = Annotated[
    list[Format] | None,
    typer.Option(
        "--format",
        help="Also write the outlines as GeoJSON (for QuPath) or ImageJ regions (for Fiji), into "
        "sub-folders of these names. May be repeated.",
    ),
]


@particles.command()
@plain_errors
def train(
    images: Annotated[
        str,
        typer.Argument(metavar="IMAGES", help="Folder (with its sub-folders), image or pattern."),
    ],
    outlines: Annotated[
        Path,
        typer.Argument(
            metavar="OUTLINES",
            help="Folder of label images, ImageJ regions or GeoJSON, named like their images, or "
            "one COCO file. All particles of each image must be outlined.",
        ),
    ],
    output: option.ModelToWrite,
    *,
    annotation: Annotated[
        Annotation,
        typer.Option(
            help="outlines, or scribbles: images with 0 where nothing is marked, 1 on background "
            "and 2 on particles.",
        ),
    ] = Annotation.OUTLINES,
    groups: option.Groups = None,
    backbone: option.Backbone = None,
    weights: option.Weights = None,
    image_page: option.ImagePage = None,
    channel: option.Channel = None,
    scaling: option.Scaling = None,
    remove_banner: option.RemoveBanner = False,
    seed: option.Seed = 0,
    device: option.Device = "auto",
    on_error: Annotated[
        option.OnError,
        typer.Option(
            help="Whether to stop at images without outlines (raise) or leave them out (skip)."
        ),
    ] = option.OnError.RAISE,
    quiet: option.Quiet = False,
) -> None:
    """Train a model that outlines particles, from a few images with outlines.

    At the end it reports how well images were outlined that the model had not been trained on.

    \b
    Examples:
      hypervlad particles train images/ outlines/ -o outlines.hvlad
      hypervlad particles train images/ coco.json -o outlines.hvlad --groups groups.csv
    """
    from hypervlad.images import ImageReadError
    from hypervlad.objects.outlines import find_outlines
    from hypervlad.pages.facts import model_facts
    from hypervlad.particles.segmenter import HypercolumnSegmenter

    reading = option.reading_fields(image_page, channel, scaling, remove_banner)
    check_model(output, images, groups)
    files = images_in([images], quiet, groups, output)
    found = find_outlines(files, outlines, folder_of([images]))
    outlined = {file: own for file, own in zip(files, found, strict=True) if own is not None}
    if without := [str(file) for file in files if file not in outlined]:
        n_without = counted(len(without), "image")
        if on_error is option.OnError.RAISE:
            raise ImageReadError(
                f"{n_without} without outlines in {outlines}: {name_some(without)}; outline their "
                "particles, or leave them out with --on-error skip"
            )
        echo(f"warning: {n_without} without outlines left out: {name_some(without)}", err=True)
    codes = None
    if groups is not None:
        of_file = dict(zip(files, groups_of(files, groups, [images]), strict=True))
        codes = [of_file[file] for file in outlined]
    given = {"backbone": backbone, "weights": weights, "read_options": reading or None}
    segmenter = HypercolumnSegmenter(
        **option.given_options(given), device=device, random_state=seed, verbose=not quiet
    )
    say(quiet, f"training on {counted(len(outlined), 'image')}")
    segmenter.fit(
        list(outlined),
        list(outlined.values()),
        groups=codes,
        annotation=cast(Any, annotation.value),
    )
    segmenter.save(output)
    trained = model_facts(segmenter)
    echo(f"trained on {trained['trained on']}")
    echo(f"held out: {trained['when held out']}")
    echo(f"model: {output}")


@particles.command()
@plain_errors
def find(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] PATHS",
            help="Model file written by hypervlad particles train; images, folders (with their "
            "sub-folders) or patterns. Without a model, what is brighter or darker than the "
            "background is a particle.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to.")
    ],
    polarity: Annotated[
        Polarity,
        typer.Option(help="Without a model: whether particles are bright or dark."),
    ] = Polarity.AUTO,
    min_area: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            min=1,
            help="Smallest particle; by default that of the model, or 20.",
        ),
    ] = None,
    pixel_size: option.OwnPixelSize = None,
    pixel_sizes: option.PixelSizes = None,
    groups: option.ComparedGroups = None,
    samples: option.Samples = None,
    formats: Formats = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Keep what is in the folder, and find the particles of the other images.",
        ),
    ] = False,
    image_page: option.ImagePage = None,
    channel: option.Channel = None,
    scaling: option.Scaling = None,
    remove_banner: option.RemoveBanner = False,
    keep_annotations: option.KeepAnnotations = False,
    weights: option.ModelWeights = None,
    device: option.Device = "auto",
    on_error: option.UnreadableLeftOut = option.OnError.RAISE,
    quiet: option.Quiet = False,
) -> None:
    """Outline the particles of images, and measure them.

    Information bars, scale bars, letters and arrows are left out. Without a model, --image-page,
    --channel, --scaling and --remove-banner say how images are read; a model reads them as in
    training. Unreadable images are left out and listed; the exit code is then 2, or 0 with
    --on-error skip.

    \b
    The folder contains:
      outlines/NAME.tif  the number of the particle at each pixel, 0 for background,
                         with the scale. You may correct these files: 'particles
                         count' and 'classify' measure them again.
      fields.csv         one line per image: micrograph (its path), group, sample,
                         particles (their number), height, width, pixel_size_nm,
                         annotated_px (pixels of bars, letters and arrows, in which
                         nothing is looked for), beside (particles left out as these
                         cover a part), removed (wrong outlines of a review), note
                         (what is doubtful), SHA-256 of image and outlines
      particles.csv      one line per particle: micrograph, particle (its number),
                         left_out (write 1, and it is not counted) and its measures;
                         units are in the names
      run.json           what a run that is resumed must have in common
    If the command is stopped at any moment, repeat it with --resume.

    \b
    Examples:
      hypervlad particles find outlines.hvlad images/ -o found/
      hypervlad particles find images/ -o found/ --polarity dark --pixel-size 2.5
    """
    from hypervlad.images.files import IMAGE_SUFFIXES
    from hypervlad.images.options import check_read_options
    from hypervlad.particles.finding import find_particles
    from hypervlad.particles.search import find_in_images

    reading = option.reading_fields(image_page, channel, scaling, remove_banner)
    first = Path(paths[0])
    has_model = first.suffix == ".hvlad" or (
        first.is_file() and first.suffix.lower() not in IMAGE_SUFFIXES
    )
    model, paths = (first, paths[1:]) if has_model else (None, paths)
    if not paths:
        raise ValueError(f"{first} is a model; give the images too")
    if later := [path for path in paths if path.endswith(".hvlad")]:
        raise ValueError(f"{later[0]} is a model; give it before the images")
    check_folders(output, paths)
    files = images_in(paths, quiet, model, pixel_sizes, groups, samples)
    root = folder_of(paths)
    if root is None:
        raise ValueError("the images are on several drives; find those of each by a command")
    sizes = own_pixel_size(pixel_size, pixel_sizes, files)
    polarities = defaultdict[str | None, list[str]](list)
    annotations: Annotations = "keep" if keep_annotations else "leave_out"
    finder: dict[str, Any]
    if model is None:
        check_no_weights(weights)
        finder = {"polarity": polarity.value}
        finder |= {} if min_area is None else {"min_area": min_area}
        own = finder.copy()
        options = check_read_options(reading)

        def outline(image: Path) -> Any:
            found = find_particles(image, annotations=annotations, **own, read_options=options)
            polarities[found.polarity].append(str(image))
            return found

    else:
        from hypervlad.pages.facts import model_facts
        from hypervlad.particles.segmenter import HypercolumnSegmenter

        if reading or polarity is not Polarity.AUTO:
            raise ValueError(
                "--polarity and the options of reading are for finding without a model; the model "
                "reads images as in training"
            )
        segmenter: HypercolumnSegmenter = load_model(
            model, weights, HypercolumnSegmenter, "hypervlad particles train"
        )
        segmenter.set_params(device=device, min_area=min_area or segmenter.min_area)
        finder = {"model": file_digest(model), "min_area": segmenter.min_area}
        finder |= {"held_out": model_facts(segmenter)["when held out"]}
        options = check_read_options(segmenter.read_options)
        scaled = options if sizes is None else replace(options, pixel_size=sizes)

        def outline(image: Path) -> Any:
            return segmenter.find_particles(image, annotations=annotations, read_options=scaled)

    finder |= {"annotations": annotations} if keep_annotations else {}
    found, left_out = find_in_images(
        output,
        files,
        outline,
        root=root,
        finder=finder,
        # Files of several pages were warned of here, and are read like this from now on.
        read_options=replace(options, page=options.page or 0),
        pixel_size=sizes,
        groups=None if groups is None else groups_of(files, groups, paths).tolist(),
        samples=None if samples is None else groups_of(files, samples, paths).tolist(),
        formats=formats or (),
        resume=resume,
        verbose=not quiet,
    )
    if len(left_out) < len(files):
        n_empty = len(found.fields) - found.table["micrograph"].nunique()
        empty = f", {n_empty} of them without any" if n_empty else ""
        echo(
            f"{counted(len(found.table), 'particle')} in {counted(len(found.fields), 'image')}"
            f"{empty}; {len(left_out)} left out"
        )
        if polarities["bright"] and polarities["dark"]:
            rare, usual = sorted(("bright", "dark"), key=lambda each: len(polarities[each]))
            echo(
                f"warning: particles are {usual} in {counted(len(polarities[usual]), 'image')} and "
                f"{rare} in {name_some(polarities[rare])}; look at these, or give --polarity and "
                "another folder",
                err=True,
            )
        echo(f"found: {found.path}")
    report_left_out(left_out, len(files), on_error)


@particles.command()
@plain_errors
def classify(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="File of a classifier that was trained on particles."),
    ],
    found: FoundPath,
    formats: Formats = None,
    weights: option.ModelWeights = None,
    device: option.Device = "auto",
    cache: option.Cache = None,
    quiet: option.Quiet = False,
) -> None:
    """Classify the particles that were found.

    The columns class, confidence and p_CLASS for every class are added to particles.csv. Outlines
    that you corrected are measured again. confusion.csv has
    the numbers of held-out training particles by true and predicted class, with which 'particles
    count' corrects its counts.

    To train the classifier, add a column class to particles.csv, fill it in for some particles,
    save the table under another name in the same folder, and give it to 'hypervlad train'.

    \b
    Example:
      hypervlad particles classify classes.hvlad found/
    """
    from hypervlad.objects.found_folder import FoundFolder

    check_cache(cache)
    if model.is_dir() and found.is_file():
        raise ValueError(f"give the model first, then the folder: {found} {model}")
    folder = FoundFolder(found)
    classifier = load_classifier(model, weights, device=device, cache=cache)
    folder.classify(classifier, formats=formats or (), verbose=not quiet)
    counts = Counter(folder.table["class"].tolist())
    listed = ", ".join(f"{name} {counts[name]}" for name in folder.classes)
    echo(f"{counted(len(folder.table), 'particle')} classified: {listed}")
    echo(f"found: {folder.path}")


@particles.command()
@plain_errors
def count(
    found: FoundPath,
    output: option.TableToWrite = None,
    rule: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="Count only particles that meet it, such as 'length > 5 um and aspect_ratio >= "
            "3', or who-fibre.",
        ),
    ] = None,
    measure: Annotated[
        str,
        typer.Option(metavar="NAME", help="Column of particles.csv for sizes, without its unit."),
    ] = "equivalent_diameter",
    edges: Annotated[
        Edges,
        typer.Option(
            help="Particles that touch an edge of their image are never counted. weight: the "
            "others count for more, the larger they are, so that numbers per area are right. "
            "leave_out: the others count for one.",
        ),
    ] = Edges.WEIGHT,
    leave_out: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Particles that count no more, from now on: path, x_px and y_px in each.",
        ),
    ] = None,
    uncorrected: Annotated[
        bool,
        typer.Option("--uncorrected", help="Do not correct counts for wrong classes."),
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="HTML",
            help="Page to write, with these counts, histograms of sizes, images with their "
            "outlines, and the particles to check: the least certain, smallest and largest ones. "
            "It is one file for any browser.",
        ),
    ] = None,
) -> None:
    """Count the particles of each class, per area too, and print their sizes.

    Outlines that were changed since they were measured are measured again, and the tables written.
    Not counted are particles with a 1 in the column left_out of particles.csv, those of the class
    "not a particle", and images that are copies of others. Groups, which 'particles find --groups'
    takes, are also counted each.

    The 95 % intervals are of the expected count in as large an area of the same sample, from how
    much images differ: few images give wide ones, or one end only. D10, D50 and D90 are the sizes
    below which 10, 50 and 90 % of the particles are.

    \b
    Columns of the table, one line per class and one for all:
      group                   if there are groups; empty for all images
      class, particles        particles in particles.csv that meet the rule
      counted                 without those at edges, weighted; poisson_low and
                              poisson_high if they were scattered independently
      count, low, high        corrected for wrong classes, and its interval
      per_um2                 count per square micrometre, and its interval
      d10, d50, d90           by number, each with its interval; the same with
                              _by_area: 10, 50, 90 % of the particles' area

    \b
    Examples:
      hypervlad particles count found/ -o counts.csv --page found.html
      hypervlad particles count found/ --rule "length > 5 um and aspect_ratio >= 3"
    """
    from hypervlad.common.tables import table_as_bytes
    from hypervlad.fibres.left_out import read_left_out
    from hypervlad.objects.found_folder import OWN_FILES, FoundFolder
    from hypervlad.particles.page import write_particles_page

    if output is not None:
        check_file(output, *(found / name for name in OWN_FILES))
    check_page(page, output)
    folder = FoundFolder(found)
    result = folder.count(
        rule,
        edges=cast(Any, edges.value),
        measure=measure,
        corrected=not uncorrected,
        leave_out=None if leave_out is None else read_left_out(leave_out),
    )
    for name, (counts, sizes) in ({"": (result.counts, result.sizes)} | result.groups).items():
        for line in [*filter(None, [name]), *_count_lines(counts, sizes, result.measure)]:
            echo(line)
    for note in result.notes:
        echo(f"note: {note}")
    if output is not None:
        with replace_when_complete(output) as stream:
            stream.write(table_as_bytes(*result.cells()))
        echo(f"counts: {output}")
    if page is not None:
        if rule is not None:
            result.notes.append(f"only particles that meet {rule!r} are counted")
        write_particles_page(page, folder, counts=result)
        echo(f"page: {page} ({page.stat().st_size / 1e6:.1f} MB)")


def _count_lines(counts: pd.DataFrame, sizes: pd.DataFrame, measure: str) -> list[str]:
    from hypervlad.pages.numbers import number_text
    from hypervlad.particles.page import count_rows

    unit = re.sub("^.*_(?=(nm|px)2?$)", "", measure)
    header = ["class", "particles", "count", "95 %", "per um2", "95 %"]
    rows = [[*header, *(f"{name} ({unit})" for name in ("D10", "D50", "D90"))]]
    sizes = sizes[sizes["by"] == "number"].set_index("class")
    for row in count_rows(counts):
        rows.append([*row, *map(number_text, sizes.loc[row[0], ["d10", "d50", "d90"]])])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
