"""The pictures of a report, each saved into its folder and described in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from hypervlad.displays import page
from hypervlad.displays.codeword_map import CodewordMapDisplay
from hypervlad.displays.confusion import ConfusionDisplay
from hypervlad.displays.contact_sheet import ContactSheetDisplay
from hypervlad.displays.evaluation import Evaluation
from hypervlad.displays.evidence import EvidenceDisplay
from hypervlad.displays.figures import Display, save_png
from hypervlad.displays.reliability import ReliabilityDisplay
from hypervlad.displays.selective_accuracy import SelectiveAccuracyDisplay

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DPI = 144
_CSS_DPI = 96
_N_DESCRIBED = 6


class Pictures:
    """Makes the pictures of an evaluation; each method returns HTML, or nothing to show.

    Parameters
    ----------
    folder : Path
        Where the PNG files go.
    images : sequence of n path or ndarray
    names : sequence of n str
    result : Evaluation
        Of the n images.
    read_options : mapping or None
        The fields of `hypervlad.images.ReadOptions`.
    tick : callable
        Called once after each picture.
    """

    FILES: ClassVar[tuple[str, ...]] = (
        "confusion.png",
        "reliability.png",
        "selective_accuracy.png",
        "least_certain.png",
        "mistakes.png",
        "evidence.png",
        "codewords.png",
    )
    N_LEAST_CERTAIN: ClassVar[int] = 18
    N_MISTAKES: ClassVar[int] = 12
    N_EXPLAINED: ClassVar[int] = 4
    N_MAPPED: ClassVar[int] = 4

    def __init__(
        self,
        folder: Path,
        images: Sequence[Any],
        names: Sequence[str],
        result: Evaluation,
        read_options: Mapping[str, Any] | None,
        tick: Callable[[], Any],
    ) -> None:
        self.folder = folder
        self.images = images
        self.names = [name.replace("\\", "/").rsplit("/", 1)[-1] for name in names]
        self.result = result
        self.read_options = read_options
        self.tick = tick

    def confusion(self) -> str:
        """The confusion matrix."""
        result = self.result

        def draw(ax: Axes) -> Display:
            return ConfusionDisplay.from_predictions(
                result.true, result.said, labels=result.labels, ax=ax
            )

        return self._save(
            draw,
            "confusion.png",
            f"Confusion matrix of {len(result.labels)} classes; the table below has the figures.",
            "The darker a cell, the larger its share of the row.",
        )

    def reliability(self) -> str:
        """The reliability diagram."""
        result = self.result

        def draw(ax: Axes) -> Display:
            return ReliabilityDisplay.from_predictions(
                result.true, result.proba, classes=result.classes, ax=ax
            )

        return self._save(
            draw,
            "reliability.png",
            "Reliability diagram: share of right predictions against confidence.",
            "Vertical lines are 95 % intervals; the numbers above count images.",
        )

    def selective_accuracy(self) -> str:
        """The accuracy of the surest answers."""
        result = self.result

        def draw(ax: Axes) -> Display:
            return SelectiveAccuracyDisplay.from_predictions(
                result.true, result.proba, classes=result.classes, ax=ax
            )

        return self._save(
            draw,
            "selective_accuracy.png",
            "Accuracy of the surest answers against the share of images that they are of.",
            "The area is the mean height of the curve: 1 if all is right.",
        )

    def least_certain(self) -> str:
        """A contact sheet of the images with the lowest confidence."""
        return self._sheet("least_certain.png", "least_certain", self.N_LEAST_CERTAIN)

    def mistakes(self) -> str:
        """A contact sheet of the most confident mistakes; empty if there is none."""
        if self.result.correct.all():
            self.tick()
            return ""
        return self._sheet("mistakes.png", "mistakes", self.N_MISTAKES)

    def evidence(self, model: Any) -> str:
        """Evidence maps of the least certain images; empty if the model has no linear part."""
        if getattr(getattr(model, "boosting_", None), "linear_coef_", None) is None:
            self.tick()
            return ""
        order = np.argsort(self.result.confidence, kind="stable")
        chosen = order[: self.N_EXPLAINED].tolist()

        def draw(ax: Axes) -> Display:
            return EvidenceDisplay.from_estimator(
                model,
                [self.images[index] for index in chosen],
                y_true=[self.result.true[index] for index in chosen],
                names=[self.names[index] for index in chosen],
                ax=ax,
            )

        return self._save(
            draw,
            "evidence.png",
            f"{len(chosen)} micrographs, each beside a map of the evidence for the class named.",
            "Each micrograph, and beside it where it speaks for (red) and against (blue) the class "
            "that the model named.",
        )

    def codewords(self, encoder: Any) -> str:
        """Codeword maps of one image of each of a few classes; empty without an encoder."""
        if encoder is None:
            self.tick()
            return ""
        chosen = one_of_each_class(self.result, self.N_MAPPED)

        def draw(ax: Axes) -> Display:
            return CodewordMapDisplay.from_estimator(
                encoder,
                [self.images[index] for index in chosen],
                names=[self.result.true[index] for index in chosen],
                read_options=self.read_options,
                ax=ax,
            )

        return self._save(
            draw,
            "codewords.png",
            f"{len(chosen)} micrographs, each beside a coloured map of its visual words.",
            "Each micrograph, above the name of its class, and its map of visual words; where "
            "there are several maps, from fine detail on the left to whole objects on the right.",
        )

    def _sheet(
        self, file_name: str, select: Literal["least_certain", "mistakes"], n_images: int
    ) -> str:
        described: list[str] = []

        def draw(ax: Axes) -> Display:
            sheet = ContactSheetDisplay.from_predictions(
                self.images,
                self.result.proba,
                classes=self.result.classes,
                y_true=self.result.true,
                select=select,
                n_images=n_images,
                names=self.names,
                read_options=self.read_options,
                ax=ax,
            )
            described.extend(", ".join(lines) for lines in sheet.captions[:_N_DESCRIBED])
            return sheet

        return self._save(
            draw,
            file_name,
            lambda: "Contact sheet of micrographs. The first: " + "; ".join(described) + ".",
            "Under each image: its name, what the model said and how sure it was (✓ right, "
            "✗ wrong), and its true class.",
        )

    def _save(
        self,
        draw: Callable[[Axes], Display],
        file_name: str,
        alt: str | Callable[[], str],
        caption: str,
    ) -> str:
        size = save_png(draw, self.folder / file_name, dpi=_DPI)
        self.tick()
        width, height = (round(inches * _CSS_DPI) for inches in size)
        return page.figure(
            file_name, alt if isinstance(alt, str) else alt(), caption, width, height
        )


def one_of_each_class(result: Evaluation, n_images: int) -> list[int]:
    """Choose images of different classes, the surest right ones first.

    Parameters
    ----------
    result : Evaluation
    n_images : int

    Returns
    -------
    list of int
        At most `n_images` indices; a second image of a class only when every class has one.
    """
    order = sorted(
        range(len(result.true)), key=lambda i: (not result.correct[i], -result.confidence[i], i)
    )
    turn: dict[int, int] = {}
    seen: dict[str, int] = {}
    for index in order:
        label = result.true[index]
        turn[index] = seen[label] = seen.get(label, -1) + 1
    place = {label: number for number, label in enumerate(result.labels)}
    return sorted(order, key=lambda i: (turn[i], place[result.true[i]]))[:n_images]
