"""A page on how well a defect scorer does, beside the truth: one file, its pictures inside."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hypervlad._version import __version__
from hypervlad.displays import page
from hypervlad.displays.defect_evaluation import DefectEvaluation
from hypervlad.displays.defect_map import DefectMapDisplay
from hypervlad.displays.facts import model_facts, read_options_of, versions_in_words
from hypervlad.displays.figures import save_png
from hypervlad.displays.patch_confusion import PatchConfusionDisplay
from hypervlad.displays.sections import decimal, percent
from hypervlad.modelfile import replace_when_complete

_CSS_PIXELS = 96  # an inch


def write_defect_report(
    path: str | os.PathLike[str], scorer: Any, images: Sequence[Any], result: DefectEvaluation
) -> Path:
    """Write the page; it needs no network, no scripts and no other file.

    Parameters
    ----------
    path : path of an .html file
    scorer : fitted PatchDefectScorer
    images : sequence of n paths or arrays
        Those of ``result``.
    result : DefectEvaluation
    """
    path, worst = Path(path), result.worst
    shown = [images[each.position] for each in worst]
    masks = [each.mask for each in worst]
    common: dict[str, Any] = {"names": [each.name for each in worst]}
    common["read_options"] = read_options_of(scorer.encoder_)
    maps = [each.scores for each in worst]
    on_maps = DefectMapDisplay(shown, maps, threshold=result.threshold, masks=masks, **common)
    called = [scores >= np.float32(result.threshold) for scores in maps]
    on_patches = PatchConfusionDisplay(shown, called, masks, patch=result.patch, **common)
    pieces = [
        _headline(result),
        page.section(
            "Maps beside the truth",
            page.paragraph(_ABOUT_MAPS + _which(result)),
            _picture(on_maps, "Images and their score maps", "Brighter scores higher."),
        ),
        page.section(
            "Patch by patch",
            page.paragraph(_ABOUT_PATCHES.format(patch=result.patch)),
            _picture(on_patches, "Images cut into patches", "The same images."),
        ),
        page.section("Image by image", _table(result)),
        page.section(
            "The scorer", page.facts_table({**model_facts(scorer), "versions": versions_in_words()})
        ),
    ]
    html = page.page("How well defects are found", pieces, __version__)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_when_complete(path) as stream:
        stream.write(html.encode("utf-8"))
    return path


_ABOUT_MAPS = (
    "Blue lines run around true defects, orange ones around what reaches the threshold. All maps "
    "have one scale. "
)
_ABOUT_PATCHES = (
    "Each image is cut into squares of {patch} x {patch} pixels. One is defective if a tenth of "
    "it is, in the mask and in the map alike."
)


def _headline(result: DefectEvaluation) -> str:
    scores, total, n_images = result.scores(), result.confusion, len(result.images)
    n_bad = sum(image.is_defective for image in result.images)
    n_called = sum(image.is_called for image in result.images)
    sentence = (
        f"Of {_counted(n_images, 'image')}, {n_bad} {'has' if n_bad == 1 else 'have'} defects, and "
        f"the scorer calls {n_called} anomalous. Of {total.true_positives + total.false_negatives} "
        f"defective patches it finds {total.true_positives}, and it raises "
        f"{_counted(total.false_positives, 'false alarm')}."
    )
    cards = {
        name: percent(value) if "area" in name or "patch" in name else decimal(value)
        for name, value in scores.items()
    }
    explanation = (
        "AUROC: how often a defective image (or pixel) scores higher than a sound one; 0.5 is "
        "guessing. Per-region overlap: the mean share of a defect that is found, over thresholds "
        "with at most 30 % of false pixels. Patches and areas are counted at the threshold, "
        f"{result.threshold:.4g}: an image is called anomalous if any place reaches it. Its score, "
        "by which images are ranked, is the mean of its highest windows."
    )
    if not math.isnan(result.best_threshold):
        explanation += (
            f" The pixels of these images would agree best with the masks at a threshold of "
            f"{result.best_threshold:.4g}; chosen on them, it is a hint, no forecast."
        )
    pieces = [page.paragraph(sentence, "lead")]
    if result.left_out:
        n_out = _counted(len(result.left_out), "more image")
        pieces.append(page.paragraph(f"{n_out} left out, such as: {result.left_out[0]}"))
    pieces += [page.cards(cards), page.paragraph(explanation, "soft")]
    return "\n".join(pieces)


def _which(result: DefectEvaluation) -> str:
    n_shown = len(result.worst)
    if n_shown == len(result.images):
        return "All images are shown, those with the most wrong patches first."
    return f"Shown are the {n_shown} images with the most wrong patches."


def _table(result: DefectEvaluation) -> str:
    header = ("Image", "Score", "Called", "Truly defective", "Found defective", "Patch F1")
    rows = [
        (
            image.name,
            f"{image.score:.4g}",
            "anomalous" if image.is_called else "normal",
            percent(image.true_fraction),
            percent(image.found_fraction),
            decimal(image.confusion.f1),
        )
        for image in result.images
    ]
    return page.table(header, rows)


def _picture(display: Any, alt: str, caption: str) -> str:
    stream = io.BytesIO()
    width, height = save_png(display.plot, stream)
    source = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    return page.figure(
        source, alt, caption, round(width * _CSS_PIXELS), round(height * _CSS_PIXELS)
    )


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
