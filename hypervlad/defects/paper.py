"""What a folder of scored images says about defects, for a paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hypervlad.common.wording import counted, note_of_copies, note_of_unscaled, percent
from hypervlad.defects.findings_folder import TABLES
from hypervlad.objects.results_folder import copies_among, made_with, read_results
from hypervlad.pages import paper
from hypervlad.pages.numbers import number_text
from hypervlad.pages.paper import Result
from hypervlad.statistics.groups import Sample

_NO_SIZE = "No image with regions states its pixel size; areas are comparable at one magnification"


def defects_report(folder: Path, weight: str | None) -> paper.Report:
    """Describe scores of images, and areas of defective regions."""
    by = paper.check_weight(weight, "number", "area")
    tables = read_results(*(folder / name for name in TABLES))
    copies = copies_among(tables[0])
    rows, known = ([each for each in own if each["path"] not in copies] for own in tables)
    scores, shares, numbers = (
        np.array([float(row[name]) for row in rows])
        for name in ("score", "area_fraction", "n_regions")
    )
    column, unit, size, lacking = "area", "px²", None, _NO_SIZE
    if any(row["area_um2"] for row in known or rows):
        column, unit, size = "area_um2", "µm²", "as the files or --pixel-size state"
        unknown = [row["path"] for row in rows if not row["area_um2"]]
        lacking = note_of_unscaled(unknown, f"be in areas; {paper.give_sizes()}") if unknown else ""
    regions = [row for row in known if row[column]]
    areas = np.array([float(row[column]) for row in regions])
    names = np.array([row["path"] for row in regions])
    sample = Sample(areas, areas if by == "area" else areas**0, names)
    of = f"{counted(len(areas), 'region')}, {counted(sample.n_groups, 'image')}"
    regions_drawn = paper.Histogram("", sample, of, "image", thing="region")
    is_called = np.array([row["called"] == "anomalous" for row in rows])
    n, n_called, limit = len(rows), int(is_called.sum()), float(rows[0]["threshold"])
    share, number, drawn = (Sample.of(each) for each in (100 * shares, numbers, scores))
    of_called = (100 * each for each in drawn.share(is_called))
    results = [
        Result("images scored", n),
        Result("threshold of the score", limit),
        Result.of("images called anomalous", of_called, "%", paper.OF_SHARE),
        Result.of("defective share of the area, mean of images", share.mean(), "%", paper.OF_MEAN),
        Result.of("defective regions per image, mean", number.mean(), "", paper.OF_MEAN),
        Result("defective regions", len(known)),
        *regions_drawn.results("area of regions", unit),
        Result("pixel size", size, source=lacking),
    ]
    what = "regions" if by == "number" else "area of regions"
    caption = f"Areas of {of}, weighted by {by}."
    of_scores = (
        f"Scores of {counted(n, 'image')}; those from the threshold on are called anomalous."
    )
    scores_drawn = paper.Histogram("", drawn, counted(n, "image"))
    line = limit, f"threshold {number_text(limit)}: {n_called} called anomalous"
    figures = [
        paper.Figure("area of defective regions", unit, what, [regions_drawn], caption),
        paper.Figure("anomaly score", "", "images", [scores_drawn], of_scores, limit=line),
    ]
    made, model, rule, held_out = made_with(folder / TABLES[0]), "", "", ""
    notes = ["name the model that scored the images, and its fpr, which the folder does not"]
    if "model" in made:
        model, notes = f" {made['version']} and a model (SHA-256 {made['model'][:12]})", []
        held_out = f" Of images that training held out, {made.get('held_out', 'nothing is known')}."
    notes += [note_of_copies(copies)] * bool(copies)
    notes += paper.notes_of(made, rows)
    notes += [lacking] * bool(size and lacking)
    is_any = any(row["annotations"] for row in rows)
    is_kept = not is_any and made.get("annotations", "keep") == "keep"
    if made.get("rule") == "fpr":
        rule = f" (in training, at most {percent(made['fpr'])} of defect-free images were to be)"
    if made.get("extrapolated"):
        notes.append("the threshold is a guess: it is extrapolated from too few defect-free images")
    most = [float(row["area_high"]) / float(row["area"]) for row in regions if row["area_high"]]
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
