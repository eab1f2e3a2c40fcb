"""The commands ``particles train``, ``find``, ``classify`` and ``count``."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hypervlad.cli import options as option
from hypervlad.cli.files import (
    folder_of,
    found_folder,
    groups_of,
    images_in,
    load_classifier,
    load_model,
    own_pixel_size,
    write_or_print,
)
from hypervlad.cli.messages import echo, quoted, report_left_out, say, warn
from hypervlad.common.wording import counted, name_some, verb
from hypervlad.folders.outputs import check_folders, check_model, check_page, check_table

if TYPE_CHECKING:
    from hypervlad.images.sample import Annotations

Format = StrEnum("Format", ["COCO", "GEOJSON", "ROI"])

FoundPath = Annotated[
    Path, typer.Argument(metavar="FOUND", help="Folder written by hypervlad particles find.")
]
Formats = Annotated[
    list[Format] | None,
    typer.Option(
        "--format",
        help="Also write the outlines as COCO (coco.json, of all images), or into sub-folders of "
        "these names as GeoJSON (for QuPath) or ImageJ regions (for Fiji). May be repeated. They "
        "are written anew whenever outlines have changed, until you delete them.",
    ),
]


def train(
    images: Annotated[
        str,
        typer.Argument(metavar="IMAGES", help="Folder (with its sub-folders), image or pattern."),
    ],
    outlines: Annotated[
        Path,
        typer.Argument(
            metavar="OUTLINES",
            help="Folder of outlines in any format that is read, named like their images; one "
            "COCO file; or a folder of particles find, of which the images are used that were "
            "corrected (in hypervlad app: marked as done). All particles must be outlined.",
        ),
    ],
    output: option.ModelToWrite,
    *,
    groups: option.Groups = None,
    backbone: option.Backbone = None,
    weights: option.Weights = None,
    pixel_size: option.PixelSize = None,
    seed: option.Seed = 0,
    set_: option.SetReading = None,
) -> None:
    """Train a model that outlines particles, from a few images with outlines.

    At the end it reports how well images were outlined that the model had not been trained on. At
    images without outlines it stops, or leaves them out with --on-error skip.

    \b
    Examples:
      hypervlad particles train images/ outlines/ -o outlines.hvlad
      hypervlad particles train images/ found/ -o outlines.hvlad  # corrected ones
      hypervlad particles train images/ coco.json -o outlines.hvlad --groups groups.csv
    """
    from hypervlad.images import ImageReadError, PixelSizes, ReadOptions
    from hypervlad.objects.outline_names import find_outlines
    from hypervlad.pages.facts import model_facts
    from hypervlad.particles.segmenter import HypercolumnSegmenter

    own, reading = option.settings(set_, HypercolumnSegmenter, ReadOptions)
    ReadOptions(**reading)
    common = option.common()
    check_model(output, images, groups, pixel_size)
    files = images_in([images], groups, output, pixel_size)
    if isinstance(size := own_pixel_size(pixel_size, files), float):
        size = PixelSizes(dict.fromkeys(files, size))  # new images may have another one
    reading |= option.given_options(pixel_size=size)
    found: Sequence[Any]
    if folder := found_folder([str(outlines)]):
        corrected = folder.corrected_outlines()
        files = [file for file in files if os.path.abspath(file) in corrected]
        found = [corrected[os.path.abspath(file)] for file in files]
    else:
        found = find_outlines(files, outlines, folder_of([images]))
    outlined = {file: each for file, each in zip(files, found, strict=True) if each is not None}
    if without := [str(file) for file in files if file not in outlined]:
        n_without = counted(len(without), "image")
        if not common.skips:
            raise ImageReadError(
                f"{n_without} without outlines in {outlines}: {name_some(without)}; outline their "
                "particles, or leave them out with --on-error skip"
            )
        warn(f"{n_without} without outlines left out: {name_some(without)}")
    if (codes := groups_of(files, groups, [images])) is not None:
        codes = [code for file, code in zip(files, codes, strict=True) if file in outlined]
    own |= option.given_options(backbone=backbone, weights=weights, read_options=reading)
    seeded: dict[str, Any] = {"random_state": seed, "verbose": common.verbose}
    segmenter = HypercolumnSegmenter(**own, device=common.device, **seeded)
    say(f"training on {counted(len(outlined), 'image')}")
    segmenter.fit(list(outlined), list(outlined.values()), groups=codes)
    segmenter.save(output)
    trained = model_facts(segmenter)
    echo(f"trained on {trained['trained on']}")
    echo(f"held out: {trained['when held out']}")
    echo(f"model: {output}")


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
    output: option.FolderToWrite,
    polarity: option.Polarity = None,
    pixel_size: option.PixelSize = None,
    groups: option.ComparedGroups = None,
    samples: option.Samples = None,
    corrected: Annotated[
        Path | None,
        typer.Option(
            metavar="FOUND",
            help="Folder of earlier found particles of these images: the outlines that a person "
            "has corrected there are used as they are.",
        ),
    ] = None,
    formats: Formats = None,
    resume: option.Resume = False,
    keep_annotations: option.KeepAnnotations = False,
    set_: option.SetReading = None,
) -> None:
    """Outline the particles of images, and measure them.

    Margins, information bars, scale bars, letters and arrows are left out. Without a model,
    --polarity and --set say how particles are found, and images read; a model reads them as in
    training, at its magnification. Of the parameters for --set, min_area is the area of the
    smallest particle in pixels. Unreadable images, and those that a model would enlarge more than 8
    times, are left out and listed; the exit code is then 2, or 0 with --on-error skip.

    \b
    The folder contains:
      outlines/NAME.tif  the number of the particle at each pixel, 0 for background,
                         with the scale. NAME ends as that of the image: beside
                         a.png.tif there may be a.tif.tif. You may correct these
                         files: 'particles count' and 'classify' measure them again.
      fields.csv         one line per image: micrograph (its path), group, sample,
                         particles (their number), height, width, pixel_size_nm,
                         annotations, annotated_px (what is drawn into the image, where
                         nothing is looked for), beside (particles it covers in part),
                         removed (wrong outlines of a review), doubt (about what was
                         found), note (faults of the image), SHA-256 of image and
                         outlines, the file in which a person has corrected them, and
                         the share by which a size from a scale bar may be wrong,
                         number_low, number_high, size_low, size_high: between which
                         factors true numbers and sizes are those found, if it is known,
                         and polarity; polarity_shown is by this image alone, from -1
                         (dark) to 1 (bright)
      particles.csv      one line per particle: micrograph, particle (its number),
                         left_out (write 1, and it is not counted) and its measures;
                         units are in the names
      run.json           what a run that is resumed must have in common
      gone_fields.csv, gone_particles.csv
                         lines of images that are gone, which are used again once
                         these are back
    If the command is stopped at any moment, repeat it with --resume. That also finds particles
    again in images that were replaced, and drops those that are gone.

    \b
    Examples:
      hypervlad particles find outlines.hvlad images/ -o found/
      hypervlad particles find images/ -o found/ --polarity dark --pixel-size 2.5
      hypervlad particles find outlines.hvlad images/ -o better/ --corrected found/
    """
    from hypervlad.images.files import IMAGE_SUFFIXES
    from hypervlad.images.options import ReadOptions, check_read_options
    from hypervlad.objects.found_files import OWN_FILES
    from hypervlad.objects.found_folder import FoundFolder
    from hypervlad.particles.finding import find_particles
    from hypervlad.particles.search import find_in_images

    own, reading = option.settings(set_, find_particles, ReadOptions)
    first = Path(paths[0])
    has_model = first.suffix == ".hvlad" or (
        first.is_file() and first.suffix.lower() not in IMAGE_SUFFIXES
    )
    model, paths = (first, paths[1:]) if has_model else (None, paths)
    if not paths:
        raise ValueError(f"{first} is a model; give the images too")
    if later := [path for path in paths if path.endswith(".hvlad")]:
        raise ValueError(f"{later[0]} is a model; give it before the images")
    check_folders(output, paths, model, pixel_size, groups, samples, tables=OWN_FILES)
    files = images_in(paths, model, pixel_size, groups, samples)
    if (root := folder_of(paths)) is None:
        raise ValueError("the images are on several drives; find those of each by a command")
    sizes = own_pixel_size(pixel_size, files)
    annotations: Annotations = "keep" if keep_annotations else "leave_out"
    finder: dict[str, Any]
    if model is None:
        own = {"polarity": "auto" if polarity is None else polarity.value, **own}
        finder, scaled = own.copy(), (options := ReadOptions(**reading))
        find_one: Any = functools.partial(find_particles, **own)
        detection = None
    else:
        from hypervlad.pages.facts import record_of
        from hypervlad.particles.segmenter import HypercolumnSegmenter

        if reading or polarity is not None:
            raise ValueError(
                "--polarity and the options of reading are for finding without a model; the model "
                "reads images as in training"
            )
        segmenter: HypercolumnSegmenter = load_model(
            model, HypercolumnSegmenter, "hypervlad particles train"
        ).set_params(**own)
        finder = {"min_area": segmenter.min_area} | record_of(model, segmenter)
        options = check_read_options(segmenter.read_options)
        scaled = options if sizes is None else replace(options, pixel_size=sizes)
        find_one, detection = segmenter.find_particles, segmenter.detection_

    finder |= {"annotations": annotations} if keep_annotations else {}
    found, left_out = find_in_images(
        output,
        files,
        functools.partial(find_one, annotations=annotations, read_options=scaled),
        root=root,
        finder=finder,
        # Files of several pages were warned of here, and are read like this from now on.
        read_options=replace(options, page=options.page or 0),
        pixel_size=sizes,
        groups=groups_of(files, groups, paths),
        samples=groups_of(files, samples, paths, "sample"),
        detection=detection,
        corrected=None if corrected is None else FoundFolder(corrected),
        formats=formats or (),
        resume=resume,
        verbose=option.common().verbose,
    )
    if len(left_out) < len(files):
        n_empty = len(found.fields) - found.table["micrograph"].nunique()
        empty = f", {n_empty} of them without any" if n_empty else ""
        n_images = counted(len(found.fields), "image")
        echo(f"{counted(len(found.table), 'particle')} in {n_images}{empty}")
        echo(f"found: {found.path}")
    report_left_out(left_out, len(files))


def classify(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="File of a classifier that was trained on particles."),
    ],
    found: FoundPath,
    cache: option.Cache = None,
) -> None:
    """Classify the particles that were found.

    The columns class, confidence and p_CLASS for every class are added to particles.csv. Particles
    with which the model was trained keep the class that they had there (source training), also
    "not a particle"; their p_CLASS are held-out ones. Outlines that you corrected are measured
    again, and files for QuPath and Fiji are renewed if the folder has them. confusion.csv has the
    numbers of held-out training particles by true and predicted class, without those that a review
    chose as doubtful; with it, 'particles count' corrects its counts.

    To train the classifier, add a column class to particles.csv, fill it in for some particles,
    save the table under another name in the same folder, and give it to 'hypervlad train'.

    \b
    Example:
      hypervlad particles classify classes.hvlad found/
    """
    from hypervlad.objects.found_folder import FoundFolder

    if model.is_dir() and found.is_file():
        raise ValueError(f"give the model first, then the folder: {found} {model}")
    folder = FoundFolder(found)
    classifier = load_classifier(model, cache=cache, on_error="raise", verbose=False)
    folder.classify(classifier, verbose=option.common().verbose)
    counts = Counter(folder.table["class"].tolist())
    names = dict.fromkeys([*folder.classes, *sorted(counts)])
    listed = ", ".join(f"{name} {counts[name]}" for name in names)
    n_given, n_cut = int((~folder.is_by_model).sum()), int(folder.table["touches_edge"].sum())
    if n_given:
        listed += f"; {n_given} of them as a person named them, in training or beside outlines"
    if n_cut:
        listed += f"; {n_cut} at edges {verb(n_cut, 'is', 'are')} seen in part, which may mislead"
    echo(f"{counted(len(folder.table), 'particle')} classified: {listed}")
    echo(f"found: {folder.path}")


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
    leave_out: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Particles that count no more, from now on: path, x_px and y_px in each.",
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="HTML",
            help="Page to write, with these counts, histograms of sizes, images with their "
            "outlines, and the particles to check: the least certain, smallest and largest ones. "
            "It is one file for any browser.",
        ),
    ] = None,
    pixel_size_error: Annotated[
        float,
        typer.Option(
            metavar="PERCENT",
            help="How far all pixel sizes may be wrong together, within 95 %, such as 3; intervals "
            "contain it.",
        ),
    ] = 0.0,
    formats: Formats = None,
    set_: option.Set = None,
) -> None:
    """Count the particles of each class, per area too, and print their sizes.

    Outlines that were changed since they were measured are measured again, and the tables written.
    If some are damaged, it stops, or with --on-error skip does not count their images.
    Not counted are particles with a 1 in the column left_out of particles.csv, those of the class
    "not a particle", and images that are copies of others. Groups, which 'particles find --groups'
    takes, are also counted each, and compared: by what factor D50 and numbers per area differ. Of
    what is doubtful of D50 in both, half is left out there, as images of one look err alike.

    Counts and sizes are corrected for what finding misses, invents, joins and outlines too large or
    small, as far as it is known: from images that the model's training held out, or from two or
    more images here whose outlines you have corrected. Otherwise they are called uncorrected, and
    intervals contain what is doubtful of images, if they were found without a model.

    The 95 % intervals are of the expected count in as large an area of the same sample, from how
    much images differ, those of the correction too: few give wide ones, or one end only. D10, D50
    and D90 are the sizes below which 10, 50 and 90 % of the particles are. Particles that touch an
    edge of their image are never counted; the others count for more, the larger they are, so that
    numbers per area are right, or for one with --set edges=leave_out.

    \b
    Columns of the table, one line per class and one for all:
      group                   if there are groups; empty for all images
      class, particles        particles in particles.csv that meet the rule
      counted                 without those at edges, weighted; poisson_low and
                              poisson_high if they were scattered independently
      count, low, high        corrected for wrong classes, and its interval
      share                   of all particles, and its interval
      per_um2                 count per square micrometre, and its interval
      d10, d50, d90           by number, each with its interval; the same with
                              _by_area: 10, 50, 90 % of the particles' area; all
                              end in their unit, _nm or _px
      notes                   what is not counted or not corrected, and why, in the
                              line of all particles

    \b
    Examples:
      hypervlad particles count found/ -o counts.csv --page found.html
      hypervlad particles count found/ --rule "length > 5 um and aspect_ratio >= 3"
    """
    from hypervlad.common.tables import table_as_bytes
    from hypervlad.fibres.left_out import read_left_out
    from hypervlad.objects.found_files import OWN_FILES
    from hypervlad.objects.found_folder import FoundFolder
    from hypervlad.particles.page import REPORT, count_lines, summary_line, write_particles_page
    from hypervlad.statistics.groups import ratio_lines

    (given,) = option.settings(set_, FoundFolder.count)
    if output is not None:
        check_table(output, leave_out, *(found / name for name in OWN_FILES))
    check_page(page, output)
    folder = FoundFolder(found)
    if leave_out is not None:
        given["leave_out"] = read_left_out(leave_out)
    given["on_error"] = option.common().on_error.value
    given["pixel_size_error"] = pixel_size_error / 100
    if formats:
        folder.update(formats=formats, on_error=given["on_error"])
    result = folder.count(rule, measure=measure, **given)
    echo(summary_line(result))
    for name, (counts, sizes) in ({"": (result.counts, result.sizes)} | result.groups).items():
        for line in [*filter(None, [name]), *count_lines(counts, sizes, result.measure)]:
            echo(line)
    for line in ratio_lines(result.ratios(), "a --page has them all"):
        echo(line)
    for note in result.notes:
        echo(f"note: {note}")
    if output is not None:
        write_or_print(table_as_bytes(*result.cells()), output)
        echo(f"counts: {output}")
    if page is not None:
        write_particles_page(page, folder, counts=result)
        echo(f"page: {page} ({page.stat().st_size / 1e6:.1f} MB)")
    say(f"{REPORT} {quoted(found)} -o DIR")
