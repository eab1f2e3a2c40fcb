"""What a table of classified images says about shares of classes, for a paper."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hypervlad.common.wording import counted, percent
from hypervlad.images.errors import training_images_text
from hypervlad.objects.counts import checked_confusion, count_particles
from hypervlad.objects.fields import Field
from hypervlad.objects.results_folder import GroupedImages, Row, made_with, read_rows
from hypervlad.pages import paper
from hypervlad.pages.paper import Result
from hypervlad.statistics.groups import Sample

_TABLE = "predictions.csv"
_NEEDED = "version", "model", "classes", "classifier", "training images", "accuracy", "confusion"
_ENDS = "share", "share_low", "share_high"
_OF_ACCURACY = "Of training images that were held out with their groups"
# Columns of the table, of which not all runs have each, and what is counted.
_DOUBTS: Mapping[str, tuple[str, Callable[[str], bool]]] = {
    "unlike_training": ("images unlike all training images", lambda cell: cell == "yes"),
    "possible": (
        "images with several possible classes",
        lambda cell: "|" in re.sub(r"\\.", "", cell),
    ),
    "kind": ("images without a sure answer", lambda cell: cell != "sure"),
}


def classes_report(folder: Path, weight: str | None) -> paper.Report:
    """Describe shares of classes among the images that the model was not trained on."""
    paper.check_weight(weight, "number")
    made = made_with(folder / _TABLE, *_NEEDED)
    classes = made["classes"]
    every = list(read_rows(folder / _TABLE))
    if any(row.get("label") not in classes or "in_training" not in row for row in every):
        raise ValueError(
            f"{folder / _TABLE}: other columns or classes than {_TABLE[:-4]}.json says "
            f"({', '.join(classes)}); restore them, or repeat 'hypervlad predict'"
        )
    grouped = GroupedImages.of(every)
    rows, notes = grouped.rows[""], grouped.notes
    confusion, why = _correction(made["confusion"], classes, rows)
    notes += [f"shares are not corrected for mistakes: {why}"] * bool(why)
    corrected = f"{'not ' * bool(why)}corrected for mistakes of the model"
    results, bars = list[Result](), list[paper.Bars]()
    for name, in_group in grouped.rows.items():
        own = [row for row in in_group if row["in_training"] != "yes"]
        shares = _shares(own, classes, confusion)
        bars.append(paper.Bars(name, shares, counted(len(own), "image")))
        results.append(Result("images classified", len(in_group), group=name))
        if len(own) < len(in_group):
            results.append(Result("images not trained on", len(own), group=name))
        for label, ends in zip(classes, shares, strict=True):
            n_called = sum(row["label"] == label for row in own)
            results.append(Result(f"classified as {label}", n_called, group=name))
            source = f"{paper.OF_SHARE}; {corrected}"
            results.append(Result.of(f"share of {label}", ends, "%", source, name))
        for column, (words, is_meant) in _DOUBTS.items():
            if own and column in own[0]:
                found = np.array([is_meant(row[column]) for row in own])
                share = 100 * np.array(Sample.of(found.astype(float)).share(found))
                results.append(Result.of(words, share, "%", paper.OF_SHARE, name))
    held_out, source, how = "", "No training image was held out", ""
    if made["accuracy"]:
        right, source = percent(made["accuracy"][0]), _OF_ACCURACY
        held_out = f" Of images that training held out, {right} were classified correctly."
    accuracy = 100 * np.array(made["accuracy"] or [np.nan] * 3)
    results.append(Result.of("accuracy of the model", accuracy, "%", source))
    n, n_new = len(rows), sum(row["in_training"] != "yes" for row in rows)
    known = f"{training_images_text(n - n_new, n)}; they were chosen by people, so that shares are "
    notes += [f"{known}of the others"] * (n_new < n)
    if not why:
        how = (
            ", and from the errors of the correction of shares by the held-out numbers of images "
            "by true and predicted class (A. R. Solow, C. Davis and Q. Hu, Mar. Ecol. Prog. Ser. "
            "216, 2001)"
        )
    methods = [
        f"{counted(n, 'image')} were classified as {', '.join(classes)} with hypervlad "
        f"{made['version']} and a model (SHA-256 {made['model'][:12]}) that was trained on "
        f"{counted(made['training images'], 'image')}: features of a pretrained network, encoded "
        f"by VLAD and averages, and {made['classifier']}.{held_out} Intervals are from how much "
        f"images differ{how}."
    ]
    caption = f"Shares of classes among {counted(n_new, 'image')}, {corrected}."
    figure = paper.BarFigure("share of images", classes, bars[1:] or bars, caption)
    notes += paper.notes_of(made, rows)
    return paper.Report("Classes of images", [figure], results, methods, notes=notes)


def _correction(confusion: Any, classes: Sequence[str], rows: Sequence[Row]) -> tuple[Any, str]:
    """Return the matrix by which shares are corrected, or None and why they are not."""
    if confusion is None:
        return None, "too few images were held out in training, without those of a review"
    if any(row.get(f"p_{row['label']}") != row.get("confidence") for row in rows):
        return None, "people have changed labels in the table"
    try:
        return checked_confusion(confusion, classes), ""
    except ValueError as error:
        return None, str(error).removeprefix("confusion: ").replace("particle", "image")


def _shares(rows: Sequence[Row], classes: Sequence[str], confusion: Any) -> list[tuple[float, ...]]:
    """Return the share of each class with its interval, in per cent.

    An image counts as a particle, alone in its field, is counted.
    """
    import pandas as pd

    if not rows:
        return [(float("nan"),) * 3] * len(classes)
    names = [row["path"] for row in rows]
    # By number, as classes of particles must not be called "all".
    table = pd.DataFrame({"micrograph": names, "touches_edge": False})
    table["class"] = [classes.index(row["label"]) for row in rows]
    found = count_particles(
        table,
        [Field(name, (1, 1)) for name in names],
        classes=range(len(classes)),
        confusion=confusion,
        edges="leave_out",
    )
    return [tuple(each) for each in 100 * found[list(_ENDS)].to_numpy()[:-1]]
