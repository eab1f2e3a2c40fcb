"""The commands ``defects fit``, ``defects score`` and ``defects evaluate``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hypervlad.cli import options as option
from hypervlad.cli.files import groups_of, images_in, load_model, masks_of, names_of, own_pixel_size
from hypervlad.cli.messages import echo, hint_at_bad_files, report_left_out, say
from hypervlad.common.progress import by_reader
from hypervlad.common.wording import counted, verb, warn_user
from hypervlad.folders.outputs import check_file, check_folders, check_model

if TYPE_CHECKING:
    from hypervlad.defects.estimator import PatchDefectScorer
    from hypervlad.images import PixelSizes

_MASKS = typer.Option(
    metavar="DIR",
    help="Folder of masks (defects white on black), each named like its image, or masks.json as "
    "the page of defects saves it. Images without a mask count as defect-free.",
)


def fit(
    paths: option.Images,
    output: option.ModelToWrite,
    *,
    masks: Annotated[Path | None, _MASKS] = None,
    groups: option.Groups = None,
    pixel_size: option.PixelSize = None,
    keep_annotations: option.KeepAnnotations = False,
    backbone: option.Backbone = None,
    weights: option.Weights = None,
    seed: option.Seed = 0,
    include_backbone: option.IncludeBackbone = False,
    set_: option.SetReading = None,
) -> None:
    """Train on defect-free images, or on images with masks of their defects.

    Without masks, use defect-free images only: defects in them raise the threshold. Look for
    defects in the images with the highest scores, which are listed at the end. With ten images or
    more, 120 synthetic spots, scratches and stains are put on held-out images. For each kind, the
    area is printed from which on half and nine in ten are found, if they differ from their
    surroundings by 20 % of the range from black to white.

    Of the parameters for --set, fpr is the fraction of defect-free images that may be called
    anomalous, threshold=f1 takes the best F1 score on the masks instead, patch is the side of the
    squares that 'defects evaluate' counts, and aligned=true compares each position with the same
    position in other images, if all show the same part.

    \b
    Examples:
      hypervlad defects fit good/ -o mat.hvlad --set fpr=0.02
      hypervlad defects fit images/ --masks masks/ -o mat.hvlad --set threshold=f1
    """
    from hypervlad.defects.estimator import PatchDefectScorer, default_patch_encoder
    from hypervlad.features.weights import check_may_be_included
    from hypervlad.images import ReadOptions

    parts = PatchDefectScorer, default_patch_encoder(), ReadOptions
    own, encoding, reading = option.settings(set_, *parts)
    ReadOptions(**reading)
    check_model(output, *paths, masks, groups)
    files = images_in(paths, groups, output, pixel_size)
    reading |= option.given_options(pixel_size=own_pixel_size(pixel_size, files))
    truth = None if masks is None else masks_of(files, masks)
    codes = groups_of(files, groups, paths)
    common = option.common()
    encoding |= option.given_options(backbone=backbone, weights=weights, read_options=reading)
    encoder = default_patch_encoder(
        **encoding, device=common.device, on_error=common.on_error.value
    )
    if include_backbone:
        check_may_be_included(encoder.backbone, encoder.weights)
    own |= {"annotations": "keep" if keep_annotations else "leave_out"}
    scorer = PatchDefectScorer(encoder, random_state=seed, verbose=common.verbose, **own)
    if truth is None and groups is None:
        _warn_of_folders(files)
    say(f"training on {counted(len(files), 'image')}")
    with hint_at_bad_files():
        scorer.fit(files, masks=truth, groups=codes)
    scorer.save(output, include_backbone=include_backbone)
    echo(f"model: {output}")
    names, with_masks = names_of(files, paths), truth is not None
    held_out = scorer.held_out_.lines(scorer.threshold_, names, with_masks=with_masks)
    for line in [*held_out, *([] if with_masks else scorer.limits_.lines())]:
        echo(line)


ScorerPath = Annotated[
    Path, typer.Argument(metavar="MODEL", help="File written by hypervlad defects fit.")
]
TileSize = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        help="Side of the tiles in which larger images go through the network, to save memory; by "
        "default that of the model.",
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="Smallest score of an anomalous image; by default that of the model. Scores are "
        "distances from defect-free images, or of a model trained with masks, log-odds of a defect."
    ),
]


def score(
    model: ScorerPath,
    paths: option.Images,
    output: option.FolderToWrite,
    threshold: Threshold = None,
    tile_size: TileSize = None,
    groups: option.ComparedGroups = None,
    pixel_size: option.PixelSize = None,
    keep_annotations: option.KeepAnnotations = False,
) -> None:
    """Score images: maps (TIFF), masks and overlays (PNG), tables (CSV) and a page (report.html).

    How it was done is in scores.json: version, options, and the digest of the model.

    The page shows the regions in the 48 images with the highest scores. There you can mark false
    alarms, draw missed defects, and save masks for hypervlad defects fit --masks.

    An image is called anomalous if its score reaches the threshold. Its regions, at least one, are
    around peaks of its map, and end about half-way from the peak to the usual score; of a model
    trained with masks, they are all pixels that reach a threshold of their own. Images that cannot
    be read or are smaller than a patch are left out: exit code 2, or 0 with --on-error skip.

    \b
    Columns of scores.csv, one line per image:
      path
      score           of the image: combines the highest scores of large and
                      small parts, and can be above the highest of a pixel
      highest         the highest score of a pixel
      highest_x, _y   where this pixel is
      threshold       the smallest score of an anomalous image
      called          "anomalous" or "normal"
      area_fraction   of the image that is defective
      area_um2        the same in square micrometres
      n_regions       number of defective regions, the lines of regions.csv;
                      at least 1 in an anomalous image
      annotations, annotation_share
                      what was left out of the image, and its share of it
      image_digest    of its pixels, by which copies are told
      note            what may be wrong: faults of the image
      group           as --groups says; page and 'report' compare groups
      in_training     "yes" if the model was trained on the image
    \b
    Columns of regions.csv, one line per region, in pixels:
      path, region    the regions of an image are numbered as on the page
      x, y            upper left corner of its box
      width, height   of the box
      area            inside the outline
      diameter        of a circle of this area
      length, breadth longest and shortest extent of the outline
      area_low, _high between which the defect probably is, by synthetic ones
                      with such regions, and its area inside the outline;
                      area_low is 0 if only the upper end is known
      contrast_of_range
                      mean grey level inside minus that around, a share of the
                      range from black to white as images are read, -1 to 1
      score           the highest of a cell of the map in the region
    In micrometres, empty if the pixel size is unknown: width_um, height_um,
    area_um2, diameter_um, length_um, breadth_um, area_low_um2, area_high_um2.
    \b
    masks/NAME.png is 255 where the image is defective, otherwise 0.

    \b
    Example:
      hypervlad defects score mat.hvlad new/ -o found/
      hypervlad defects score mat.hvlad new/ -o found/ --groups voltages.csv
    """
    from hypervlad.defects.findings_folder import TABLES, write_findings
    from hypervlad.images.errors import training_images_text
    from hypervlad.pages.facts import record_of
    from hypervlad.statistics.groups import ratio_lines

    check_folders(output, paths, model, groups, pixel_size, tables=TABLES)
    files = images_in(paths, model, groups, pixel_size)
    scorer = _load(model, threshold, tile_size, own_pixel_size(pixel_size, files))
    if keep_annotations:
        scorer.set_params(annotations="keep")
    how: Any = {"made_with": record_of(model, scorer), "progress": option.common().verbose}
    how["groups"] = groups_of(files, groups, paths)
    written = write_findings(output, scorer, files, names_of(files, paths), **how)
    echo(
        f"{counted(written.n_scored, 'image')} scored: {written.n_anomalous} called anomalous, "
        f"with {counted(written.n_regions, 'defective region')}"
    )
    for line in ratio_lines(written.ratios(), "the report has them all"):
        echo(line)
    if written.n_in_training:
        known = training_images_text(written.n_in_training, written.n_scored)
        their = verb(written.n_in_training, "its score is", "their scores are")
        say(f"{known}, so {their} too good for new images")
    echo(f"report: {output / 'report.html'}")
    report_left_out(written.left_out, len(files))


def evaluate(
    model: ScorerPath,
    paths: option.Images,
    masks: Annotated[Path, _MASKS],
    output: Annotated[Path, option.output("HTML", "Page to write.")],
    threshold: Threshold = None,
    tile_size: TileSize = None,
) -> None:
    """Compare maps with masks, by image, pixel and patch, on one page with pictures.

    On the page you can move the threshold and see how many defective images it finds and how many
    false alarms it raises. Do not use images that the model was trained on. Those that cannot be
    read, are smaller than a patch or differ in size from their mask are left out; the exit code is
    then 2, or 0 with --on-error skip.

    \b
    Example:
      hypervlad defects evaluate mat.hvlad others/ --masks masks/ -o report.html
    """
    from hypervlad.defects.evaluation import evaluate_defects
    from hypervlad.defects.page import write_defect_report

    if output.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{output}: the report is one page; give a name that ends in .html.")
    check_file(output, model, *paths)
    files = images_in(paths, model, output)
    truth = masks_of(files, masks)
    scorer = _load(model, threshold, tile_size)
    names, progress = names_of(files, paths), option.common().verbose
    result = evaluate_defects(scorer, files, truth, names, progress=progress)
    for name, value in result.scores().items():
        echo(f"{name + ':':35}{'not defined' if math.isnan(value) else f'{value:.3f}'}")
    echo(f"threshold: {result.threshold:.4g}")
    n_called = sum(image.is_called for image in result.images)
    echo(f"{counted(len(result.images), 'image')} compared: {n_called} called anomalous")
    echo(f"false alarms in images without defects: {result.false_alarms()}")
    echo(f"report: {write_defect_report(output, scorer, files, result)}")
    report_left_out(result.left_out, len(files))


def _load(
    path: Path,
    threshold: float | None,
    tile_size: int | None,
    pixel_size: float | PixelSizes | None = None,
) -> PatchDefectScorer:
    from hypervlad.defects.estimator import PatchDefectScorer

    kind = PatchDefectScorer, "hypervlad defects fit"
    scorer: PatchDefectScorer = load_model(path, *kind, pixel_size=pixel_size, on_error="raise")
    if tile_size is not None:
        scorer.set_params(tile_size=tile_size)
    return scorer if threshold is None else scorer.set_threshold(threshold)


def _warn_of_folders(files: list[Path]) -> None:
    names = sorted({file.parent.name or str(file.parent) for file in files})
    if len({file.parent for file in files}) > 1:
        warn_user(
            f"the images are in several folders ({', '.join(names[:5])}"
            f"{', …' if len(names) > 5 else ''}): all are used as defect-free images. "
            + by_reader(
                "If some have defects, give only the folder of the others, or --masks; if the "
                "folders are samples, give --groups",
                "If some have defects, give only the others",
            )
        )
