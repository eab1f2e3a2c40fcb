"""What a folder of scored images says about defects, for a paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hypervlad.common.wording import counted, note_of_unscaled, percent
from hypervlad.defects.findings_folder import TABLES
from hypervlad.defects.groups import Defects, groups_of, ratios_of
from hypervlad.images.errors import training_images_text
from hypervlad.objects.results_folder import GroupedImages, made_with, read_results
from hypervlad.pages import paper
from hypervlad.pages.numbers import number_text
from hypervlad.pages.paper import Result
from hypervlad.statistics.groups import Sample

_MEAN_AREA = "defective share of the area, mean of images"
_GIVEN = "as the files state, or as given"
_NEW = "images called anomalous, of those not trained on"
_OF_NUMBER = f"{paper.OF_MEAN}; at least as wide as a Poisson interval"
_NO_SIZE = "No image with regions states its pixel size; areas are comparable at one magnification"


def defects_report(folder: Path, weight: str | None) -> paper.Report:
    """Describe scores of images, and areas of defective regions."""
    by = paper.check_weight(weight, "number", "area")
    every, of_regions = read_results(*(folder / name for name in TABLES))
    grouped = GroupedImages.of(every)
    rows = grouped.rows[""]
    paths_of_all = {row["path"] for row in rows}
    of_all = [row for row in of_regions if row["path"] in paths_of_all]
    column, unit, size, lacking = "area", "px²", None, _NO_SIZE
    if any(row["area_um2"] for row in of_all or rows):
        column, unit = "area_um2", "µm²"
        in_both = [(float(row[column]), float(row["area"])) for row in of_all if row[column]]
        size = paper.pixel_sizes_text(1000 * (um2 / px2) ** 0.5 for um2, px2 in in_both) or _GIVEN
        unknown = [row["path"] for row in rows if not row["area_um2"]]
        lacking = note_of_unscaled(unknown, f"be in areas; {paper.give_sizes()}") if unknown else ""
    n, limit = len(rows), float(rows[0]["threshold"])
    n_called = sum(row["called"] == "anomalous" for row in rows)
    results, drawn, scores_drawn = list[Result](), list[paper.Histogram](), list[paper.Histogram]()
    for name, own in grouped.rows.items():
        found, paths = Defects.of(own), {row["path"] for row in own}
        known = [row for row in of_regions if row["path"] in paths]
        regions = [row for row in known if row[column]]
        areas = np.array([float(row[column]) for row in regions])
        images = np.array([row["path"] for row in regions])
        sample = Sample(areas, areas if by == "area" else areas**0, images)
        of = f"{counted(len(areas), 'region')}, {counted(sample.n_groups, 'image')}"
        drawn.append(paper.Histogram(name, sample, of, "image", thing="region"))
        scores = Sample.of(np.array([float(row["score"]) for row in own]))
        scores_drawn.append(paper.Histogram(name, scores, counted(len(own), "image")))
        results += [
            Result("images scored", len(own), group=name),
            Result.of("images called anomalous", found.called, "%", paper.OF_SHARE, name),
            Result.of(_MEAN_AREA, found.area, "%", paper.OF_MEAN, name),
            Result.of("defective regions per image, mean", found.regions, "", _OF_NUMBER, name),
            Result("defective regions", len(known), group=name),
            *drawn[-1].results("area of regions", unit),
        ]
    new = [row for row in rows if not row.get("in_training")]
    if len(new) < n:
        called = Defects.of(new).called if new else (float("nan"),) * 3
        results.insert(2, Result.of(_NEW, called, "%", paper.OF_SHARE))
    results.insert(1, Result("threshold of the score", limit))
    results += Result.ratios(ratios_of(groups_of(grouped)))
    results.append(Result("pixel size", size, source=lacking))
    what = "regions" if by == "number" else "area of regions"
    caption = f"Areas of {drawn[0].counts}, weighted by {by}."
    of_scores = (
        f"Scores of {counted(n, 'image')}; those from the threshold on are called anomalous."
    )
    line = limit, f"threshold {number_text(limit)}: {n_called} called anomalous"
    figures = [
        paper.Figure("area of defective regions", unit, what, drawn[1:] or drawn, caption),
        paper.Figure(
            *("anomaly score", "", "images", scores_drawn[1:] or scores_drawn, of_scores),
            limit=line,
        ),
    ]
    made, model, rule, held_out = made_with(folder / TABLES[0]), "", "", ""
    notes = ["name the model that scored the images, and its fpr, which the folder does not"]
    if "model" in made:
        model, notes = f" {made['version']} and a model (SHA-256 {made['model'][:12]})", []
        held_out = f" Of images that training held out, {made.get('held_out', 'nothing is known')}."
    notes += grouped.notes + paper.notes_of(made, rows)
    if n_learnt := n - len(new):
        notes.append(f"{training_images_text(n_learnt, n)}; scores and numbers of all are too low")
    notes += [lacking] * bool(size and lacking)
    is_any = any(row["annotations"] for row in rows)
    is_kept = not is_any and made.get("annotations", "keep") == "keep"
    if made.get("rule") == "fpr":
        rule = f" (in training, at most {percent(made['fpr'])} of defect-free images were to be)"
    if made.get("extrapolated"):
        notes.append("the threshold is a guess: it is extrapolated from too few defect-free images")
    most = [float(row["area_high"]) / float(row["area"]) for row in of_all if row["area_high"]]
    of_areas = (
        " By synthetic defects, a defect may be far smaller than its region, or up to "
        f"{number_text(float(np.median(most or 1)))} times as large; intervals do not contain this."
    ) * bool(most)
    methods = [
        f"{counted(n, 'image')} were scored with hypervlad{model}, by how far features of a "
        "pretrained network are from those of defect-free images. Images with a score of at least "
        f"{number_text(limit)} are called anomalous{rule}.{held_out} Defective regions are around "
        "peaks of the map of scores, to about half-way (0.55) from the usual score to the peak, or "
        "in wide regions to 0.65 of their mean; of a model trained with labels, where the map "
        "reaches its threshold. Intervals are from how "
        f"much images differ (quantiles: R. S. Woodruff, J. Am. Stat. Assoc. 47, 1952).{of_areas}",
        paper.annotations_text(is_kept, is_any),
    ]
    return paper.Report("Defects", figures, results, methods, notes=notes)
