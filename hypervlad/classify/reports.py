"""Reports of evaluations: of new images, and of training images that were held out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

from hypervlad.classify.evaluation_page import EvaluatedImages, HeldOutFindings, write_report
from hypervlad.classify.fitting import warn_of_contradictions
from hypervlad.classify.summary import (
    ACCEPTED_ERRORS,
    evaluation_lines,
    expected_shares_text,
    held_out_text,
    leakage_text,
    unlike_text,
)
from hypervlad.common.constraints import one_each
from hypervlad.common.wording import counted, note_of_copies
from hypervlad.images.pixels import are_copies
from hypervlad.images.reading import relative_names
from hypervlad.pages.base import names_or_default
from hypervlad.pages.facts import words_of
from hypervlad.statistics.classification import Evaluation

_TITLE = "How well the model classifies"


def report_on_model(
    out_dir: str | os.PathLike[str],
    model: Any,
    images: Sequence[Any],
    y_true: Sequence[Any],
    *,
    groups: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    title: str = _TITLE,
    how_measured: str = "",
    progress: bool = False,
) -> tuple[Path, Evaluation, list[str]]:
    """Classify images and write ``index.html`` and ``predictions.csv``.

    Images that cannot be read are left out, and so are copies of others in their class, and those
    with the pixels of a training image, unless all have them. Files of an earlier report are
    replaced once all are complete.

    Parameters
    ----------
    out_dir : path-like
        Made if it is missing.
    model : fitted MicrographClassifier
    images : sequence of n paths or arrays
    y_true : sequence of n labels
        A label that is not among the classes counts as a mistake.
    groups : sequence of n hashables, optional
        See `accuracy_interval`.
    names : sequence of n str, optional
        Names of the images; by default their paths, or ``image 3``.
    title : str, default="How well the model classifies"
    how_measured : str, default=""
        What was held out, and how, in a sentence or two.
    progress : bool, default=False
        Show a bar on stderr.

    Returns
    -------
    index : Path
        ``index.html``.
    result : Evaluation
        Of the images of the report.
    lines : list of str
        A summary: copies, training images, images unlike them, accuracies, recalls, warnings.

    Raises
    ------
    ValueError
        If lengths differ, no image can be read, or the folder has such files of no report.

    Warns
    -----
    UserWarning
        If images of equal pixels have different labels.

    Examples
    --------
    >>> import tempfile
    >>> from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
    >>> from hypervlad.results import report_on_model
    >>> images, labels = make_tem_images(16, size=32, random_state=0)
    >>> encoder = HypercolumnVLAD(weights="random", image_size=32, n_codewords=4, sampling=900)
    >>> model = MicrographClassifier(encoder, random_state=0).fit(images, labels)
    >>> new, truth = make_tem_images(8, size=32, random_state=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     index, result, lines = report_on_model(folder, model, new, truth)
    >>> index.name, len(result.true)
    ('index.html', 8)
    """
    y_true = one_each("true label", y_true, len(images))
    names = names_or_default(images, names, full=True)
    if groups is not None:
        groups = one_each("group", groups, len(images))
    found = model.classify(images)
    found.warn()
    read = found.images.positions
    shown, labels = [names[i] for i in read], [str(y_true[i]) for i in read]
    each_in_class = [info.digest for info in found.images.info], labels
    warn_of_contradictions(*each_in_class, shown, "images")
    is_copy = are_copies(*each_in_class)
    positions, known = read[~is_copy], found.in_training[~is_copy]
    everything = Evaluation(
        [y_true[i] for i in positions],
        found.proba[~is_copy],
        list(model.classes_),
        None if groups is None else [groups[i] for i in positions],
    )
    remarks = [note_of_copies([*compress(shown, is_copy)])] * bool(is_copy.any())
    remarks += [leakage_text(everything, int(known.sum()))] if known.any() else []
    tested = known if known.all() else ~known
    result = everything.subset(tested)
    assert result is not None  # no image could be read: `warn` raises
    words = words_of(model, {*names, *result.true})
    unlike = found.unlike_training[~is_copy][tested]
    if unlike.any() and not known.all():
        remarks.append(unlike_text(result, unlike))
    chosen = positions[tested].tolist()
    evaluated = EvaluatedImages(
        [images[i] for i in chosen],
        [names[i] for i in chosen],
        result,
        model,
        in_training=bool(known.all()),
    )
    index = write_report(
        out_dir,
        evaluated,
        title=title,
        how_measured=how_measured,
        notes=list(map(words, [*found.images.messages, *found.differences])),
        remarks=list(map(words, remarks)),
        progress=progress,
    )
    lines = [*remarks, *evaluation_lines(result, forecast=not known.all())]
    return index, result, list(map(words, lines))


def report_on_held_out(
    out_dir: str | os.PathLike[str],
    model: Any,
    images: Sequence[Any],
    *,
    groups: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    title: str = _TITLE,
    notes: Sequence[str] = (),
    progress: bool = False,
) -> tuple[Path, Evaluation]:
    """Write the report of `report_on_model` for training images that ``fit`` held out.

    The predictions are those of `held_out_evaluation`.

    Parameters
    ----------
    out_dir : path-like
    model : fitted MicrographClassifier
    images : sequence of n paths or arrays
        Those given to ``fit``, in the same order.
    groups : sequence of n hashables, optional
        Those given to ``fit``, for their names in the table; by default they have numbers.
    names, title, progress
        As for `report_on_model`.
    notes : sequence of str, default=()
        Sentences to show as warnings.

    Returns
    -------
    index : Path
        ``index.html``.
    result : Evaluation

    Raises
    ------
    ValueError
        If nothing was held out in ``fit``, lengths differ, or the images or groups are others.

    Examples
    --------
    >>> import tempfile
    >>> from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
    >>> from hypervlad.results import report_on_held_out
    >>> images, labels = make_tem_images(24, size=64, random_state=0)
    >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4, sampling=900)
    >>> model = MicrographClassifier(encoder, random_state=0).fit(images, labels)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     index, result = report_on_held_out(folder, model, images)
    >>> index.name, len(result.true)
    ('index.html', 24)
    """
    result = model.held_out_evaluation()
    _check_training_images(model, images)
    names = names_or_default(images, names, full=True)
    if groups is not None:
        groups = one_each("group", groups, len(images))
        names_of = _names_of_groups(model.training_, groups)
        if result.groups is not None:
            result = replace(result, groups=[names_of[code] for code in result.groups])
    positions = model.training_.positions[model.held_out_.rows].tolist()
    evaluated = EvaluatedImages(
        [images[i] for i in positions],
        [names[i] for i in positions],
        result,
        model,
        _held_out_findings(model, positions),
    )
    index = write_report(
        out_dir,
        evaluated,
        title=title,
        how_measured=words_of(model)(_how_held_out(model, result)),
        notes=notes,
        progress=progress,
    )
    return index, result


def _held_out_findings(model: Any, positions: Sequence[int]) -> HeldOutFindings:
    row_of = {position: row for row, position in enumerate(positions)}
    issues = model.label_issues()
    errors = () if len(model.held_out_.lone) else ACCEPTED_ERRORS
    return HeldOutFindings(
        [model.held_out_.sure_answers(error) for error in errors],
        issues,
        [row_of[issue.position] for issue in issues],
    )


def _names_of_groups(training: Any, groups: Sequence[Any]) -> dict[int, Any]:
    """Return for each group of training images the name that its first image's group was given."""
    # A copy is in the group of its original, whatever the name of its own group.
    pairs = sorted(zip(training.positions.tolist(), training.groups.tolist(), strict=True))
    codes = {groups[i]: code for i, code in reversed(pairs)}
    if apart := [groups[i] for i, code in pairs if codes[groups[i]] != code]:
        raise ValueError(f"the groups are not those given to fit, such as {apart[0]!r}")
    return {code: groups[i] for i, code in reversed(pairs)}


def _check_training_images(model: Any, images: Sequence[Any]) -> None:
    known = model.training_
    chosen = [images[i] for i in known.positions.tolist() if i < len(images)]
    if len(chosen) < len(known) or relative_names(chosen) != known.names:
        raise ValueError(
            "the report needs the images given to fit, in the same order; the model was trained "
            f"on {counted(len(known), 'image')}"
            f"{f', such as {known.names[0]}' if known.names[0] else ''}, and "
            f"these {len(images)} are others, or in another order"
        )


def _how_held_out(model: Any, result: Evaluation) -> str:
    shares = expected_shares_text(model, result)
    return (
        "These are the training images, but each was classified by models that were trained "
        f"without its group ({held_out_text(model, result)}). Without a table of groups, each "
        "image is its own group.\n"
        "The figures show what to expect of new images from groups like these, not of another "
        "instrument, another kind of sample or other settings. They are too good if images of one "
        "sample or micrograph were given as separate groups."
        + (
            f"\nThe probabilities are for {shares}, not for the shares of these images, so the "
            "mean confidence may differ from the accuracy."
            if shares
            else ""
        )
    )
