"""A page on how well a defect scorer does, beside the truth: one file, its pictures inside."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from hypervlad._version import __version__
from hypervlad.displays import page
from hypervlad.displays.defect_map import DefectMapDisplay
from hypervlad.displays.facts import model_facts, read_options_of, versions_in_words
from hypervlad.displays.figures import save_png
from hypervlad.displays.patch_confusion import PatchConfusionDisplay
from hypervlad.displays.sections import decimal, percent
from hypervlad.images import read_mask
from hypervlad.metrics import (
    area_fraction_error,
    patch_confusion,
    per_region_overlap,
    pixel_auroc,
    pixel_average_precision,
)
from hypervlad.metrics.patches import PatchConfusion
from hypervlad.modelfile import replace_when_complete

_MOST_PICTURES = 12
_CSS_PIXELS = 96  # an inch


@dataclass(frozen=True, eq=False)
class DefectEvaluation:
    """A scorer's maps beside the truth.

    Attributes
    ----------
    names : list of str
    maps : list of ndarray of float32, shape (H, W)
    masks : list of ndarray of bool, shape (H, W)
    threshold : float
    patch : int
        Side of the squares that are counted, pixels.
    """

    names: list[str]
    maps: list[NDArray[np.float32]]
    masks: list[NDArray[np.bool_]]
    threshold: float
    patch: int

    @cached_property
    def called(self) -> list[NDArray[np.bool_]]:
        """What reaches the threshold, an image each."""
        return [scores >= self.threshold for scores in self.maps]

    @cached_property
    def confusions(self) -> list[PatchConfusion]:
        """Patch by patch, an image each."""
        pairs = zip(self.called, self.masks, strict=True)
        return [patch_confusion(called, mask, self.patch) for called, mask in pairs]

    @property
    def image_auroc(self) -> float:
        """NaN if all images are defective, or none is."""
        truth = [bool(mask.any()) for mask in self.masks]
        if len(set(truth)) < 2:
            return float("nan")
        return float(roc_auc_score(truth, [scores.max() for scores in self.maps]))

    def scores(self) -> dict[str, float]:
        """Return all figures by name; NaN where there is nothing to tell apart."""
        total = PatchConfusion.total(self.confusions)
        some = any(mask.any() for mask in self.masks)
        pairs = zip(self.called, self.masks, strict=True)
        errors = [abs(area_fraction_error(called, mask)) for called, mask in pairs]
        of_pixels = {
            "pixel AUROC": pixel_auroc,
            "pixel average precision": pixel_average_precision,
            "per-region overlap": per_region_overlap,
        }
        return {
            "image AUROC": self.image_auroc,
            **{
                name: metric(self.maps, self.masks) if some else float("nan")
                for name, metric in of_pixels.items()
            },
            "patch precision": total.precision,
            "patch recall": total.recall,
            "patch F1": total.f1,
            "mean error of the defective area": float(np.mean(errors)),
        }


def evaluate_defects(
    scorer: Any,
    images: Sequence[Any],
    masks: Sequence[Any],
    names: Sequence[str],
    *,
    progress: bool = False,
) -> DefectEvaluation:
    """Score images whose defects are known.

    Parameters
    ----------
    scorer : fitted PatchDefectScorer
    images : sequence of n paths or arrays
    masks : sequence of n paths, arrays or None
        None for an image without defects.
    names : sequence of n str
    progress : bool, default=False

    Returns
    -------
    DefectEvaluation

    Raises
    ------
    ImageReadError
        If an image or mask cannot be read, or they do not fit.
    """
    maps, truths = [], []
    hidden = None if progress else True
    is_cut = scorer.encoder_.recipe_.read_options.banner == "remove"
    pairs = zip(images, masks, strict=True)
    for image, mask in tqdm(pairs, total=len(names), unit="image", disable=hidden):
        scores = scorer.score_map(image)
        maps.append(scores)
        if mask is not None:
            rows = None if is_cut else 0  # of a mask of the whole frame
            mask = read_mask(mask, shape=scores.shape, banner_rows=rows)
        truths.append(np.zeros(scores.shape, dtype=bool) if mask is None else mask)
    return DefectEvaluation(list(names), maps, truths, scorer.threshold_, scorer.patch_)


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
    path, options = Path(path), read_options_of(scorer.encoder_)
    chosen = _worth_seeing(result)
    shown = [images[i] for i in chosen]
    maps = [result.maps[i] for i in chosen]
    masks = [result.masks[i] for i in chosen]
    names = [result.names[i] for i in chosen]
    common: dict[str, Any] = {"names": names, "read_options": options}
    on_maps = DefectMapDisplay(shown, maps, threshold=result.threshold, masks=masks, **common)
    called = [result.called[i] for i in chosen]
    on_patches = PatchConfusionDisplay(shown, called, masks, patch=result.patch, **common)
    pieces = [
        _headline(result),
        page.section(
            "Maps beside the truth",
            page.paragraph(_ABOUT_MAPS + _which(result, chosen)),
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
    scores = result.scores()
    n_bad = sum(bool(mask.any()) for mask in result.masks)
    n_called = sum(bool(each.any()) for each in result.called)
    total = PatchConfusion.total(result.confusions)
    n_images = len(result.maps)
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
        "with at most 30 % of false pixels. Patches and areas are counted at the threshold."
    )
    return "\n".join(
        [page.paragraph(sentence, "lead"), page.cards(cards), page.paragraph(explanation, "soft")]
    )


def _worth_seeing(result: DefectEvaluation) -> list[int]:
    """Choose the images with the most wrong patches, then the worst scores."""
    wrong = [c.false_positives + c.false_negatives for c in result.confusions]
    highest = [float(scores.max()) for scores in result.maps]
    order = sorted(range(len(wrong)), key=lambda i: (-wrong[i], -highest[i], i))
    return order[:_MOST_PICTURES]


def _which(result: DefectEvaluation, chosen: Sequence[int]) -> str:
    if len(chosen) == len(result.maps):
        return "All images are shown, those with the most wrong patches first."
    return f"Shown are the {len(chosen)} images with the most wrong patches."


def _table(result: DefectEvaluation) -> str:
    header = ("Image", "Score", "Called", "Truly defective", "Found defective", "Patch F1")
    rows = [
        (
            name,
            f"{scores.max():.4g}",
            "anomalous" if called.any() else "normal",
            percent(float(mask.mean())),
            percent(float(called.mean())),
            decimal(confusion.f1),
        )
        for name, scores, called, mask, confusion in zip(
            result.names, result.maps, result.called, result.masks, result.confusions, strict=True
        )
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
