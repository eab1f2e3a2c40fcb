"""A report folder: one page and its pictures, for people who did not train the model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from hypervlad._version import __version__
from hypervlad.displays import page, sections
from hypervlad.displays.contact_sheet import image_names
from hypervlad.displays.evaluation import Evaluation
from hypervlad.displays.facts import model_facts, read_options_of, versions_in_words
from hypervlad.displays.pictures import Pictures
from hypervlad.displays.predictions import predictions_as_bytes

_N_PICTURES = 7


def write_report(
    out_dir: str | os.PathLike[str],
    *,
    images: Sequence[Any],
    y_true: Sequence[Any],
    proba: ArrayLike,
    classes: Sequence[Any],
    title: str = "How well the model classifies",
    how_measured: str = "",
    groups: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    encoder: Any = None,
    model: Any = None,
    details: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
    read_options: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Path:
    """Write a folder with ``index.html``, its pictures and ``predictions.csv``.

    The page needs no network and no scripts. Files of an earlier report in the folder are replaced,
    ``index.html`` last, and only once all are complete; nothing else in the folder is touched.

    Parameters
    ----------
    out_dir : path-like
        Made if it is missing.
    images : sequence of n path or ndarray of shape (H, W) or (H, W, 3)
        Images that the model was not trained on.
    y_true : sequence of n labels
        A label that is not among `classes` counts as a mistake, and the page says so.
    proba : array-like of shape (n, n_classes)
        What the model predicts for `images`.
    classes : sequence of n_classes labels
        In the order of the columns of `proba`.
    title : str
    how_measured : str
        A sentence or two on where these images come from: what was held out, and how.
    groups : sequence of n hashables, optional
        See `accuracy_interval`.
    names : sequence of n str, optional
        What to call each image; its path, or ``image 3``, by default.
    encoder : fitted HypercolumnVLAD, optional
        For the codeword maps; without one they are left out.
    model : fitted MicrographClassifier, optional
        For the evidence maps; without one, or if it has no linear part, they are left out.
    details : mapping, optional
        Facts about the model for a table at the end of the page.
    files : mapping of str to str, optional
        Further files of the folder to link to, each with what it is.
    read_options : mapping, optional
        How to read images for showing: the fields of `hypervlad.images.ReadOptions`.
    progress : bool
        Show a progress bar where stderr is a terminal.

    Returns
    -------
    Path
        ``index.html``.

    Raises
    ------
    ValueError
        If the lengths differ or there are no images.
    OSError
        If the folder cannot be written.
    """
    folder = Path(out_dir)
    result = Evaluation(y_true, np.asarray(proba), classes, groups)
    names = image_names(images, full=True) if names is None else list(names)
    if not len(images) == len(names) == len(result.true):
        raise ValueError(
            f"got {len(images)} images, {len(names)} names and {len(result.true)} true labels; "
            "expected as many of each."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".report-", dir=folder) as temporary:
        draft = Path(temporary)
        hidden = None if progress else True  # None: hidden where stderr is no terminal
        with tqdm(total=_N_PICTURES, desc="report", unit="picture", disable=hidden) as bar:
            pictures = Pictures(draft, images, names, result, read_options, bar.update)
            pieces = [
                sections.headline(result),
                sections.method(result, how_measured),
                sections.confusion(result, pictures.confusion()),
                sections.class_scores(result),
                sections.calibration(result, pictures.reliability()),
                sections.selective_accuracy(result, pictures.selective_accuracy()),
                sections.least_certain(pictures.least_certain()),
                sections.mistakes(pictures.mistakes()),
                sections.evidence(pictures.evidence(model)),
                sections.codewords(pictures.codewords(encoder)),
                sections.model_facts(details or {}),
                sections.file_list(files or {}),
            ]
        (draft / "predictions.csv").write_bytes(_table(names, result))
        html = page.page(title, filter(None, pieces), __version__)
        (draft / "index.html").write_text(html, encoding="utf-8", newline="\n")
        _move_in(draft, folder)
    return folder / "index.html"


def report_on_model(
    out_dir: str | os.PathLike[str],
    model: Any,
    images: Sequence[Any],
    y_true: Sequence[Any],
    *,
    groups: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    details: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[Path, Evaluation]:
    """Classify images and write the report; images that could not be read are left out.

    Parameters
    ----------
    out_dir : path-like
    model : fitted MicrographClassifier
    images : sequence of n path or ndarray of shape (H, W) or (H, W, 3)
    y_true : sequence of n labels
    groups, names : sequence of n, optional
        As for `write_report`.
    details : mapping, optional
        Facts to add to those of `model_facts`.
    **options
        More arguments of `write_report`.

    Returns
    -------
    index : Path
        ``index.html``.
    result : Evaluation
    """
    proba = model.predict_proba(images)
    readable = np.flatnonzero(~np.isnan(proba[:, 0]))

    def kept(values: Sequence[Any] | None) -> list[Any] | None:
        return None if values is None else [values[int(index)] for index in readable]

    result = Evaluation(kept(y_true) or [], proba[readable], list(model.classes_), kept(groups))
    index = write_report(
        out_dir,
        images=kept(images) or [],
        y_true=result.y_true,
        proba=result.proba,
        classes=result.classes,
        groups=result.groups,
        names=kept(names),
        encoder=model.encoder_,
        model=model,
        details={**model_facts(model), **(details or {}), "versions": versions_in_words()},
        read_options=read_options_of(model.encoder_),
        **options,
    )
    return index, result


def _table(names: Sequence[str], result: Evaluation) -> bytes:
    columns: dict[str, Sequence[Any]] = {
        "true_label": result.true,
        "correct": [int(right) for right in result.correct],
    }
    if result.groups is not None:
        columns["group"] = list(result.groups)
    return predictions_as_bytes(names, result.proba, result.classes, columns=columns)


def _move_in(draft: Path, folder: Path) -> None:
    for name in (*Pictures.FILES, "predictions.csv", "index.html"):
        if (draft / name).exists():
            os.replace(draft / name, folder / name)
        else:
            # A picture of an earlier report that this one has no use for would mislead.
            (folder / name).unlink(missing_ok=True)
