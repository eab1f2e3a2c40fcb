"""Check a folder of labelled images before anybody trains on it."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from tqdm import tqdm

from hypervlad.datasets._findings import list_notes, list_problems
from hypervlad.datasets._layout import FolderLayout, ImageFolderError, scan_folder
from hypervlad.datasets._thumbnails import Thumbnail, make_thumbnail
from hypervlad.datasets.groups import load_groups
from hypervlad.datasets.near_copies import MIN_SIMILARITY, find_near_copies, group_copies
from hypervlad.datasets.report import BadFile, CopySet, FolderReport, count_sorted
from hypervlad.images import ImageReadError, ReadOptions, read_micrographs


@dataclass(frozen=True)
class _Facts:
    """What is kept of one image: the pixels themselves are dropped at once."""

    file: str
    label: str
    digest: str
    size: str
    kind: str
    blank: bool
    thumbnail: Thumbnail
    group: str | None = None


def check_image_folder(
    dir: str | os.PathLike[str],
    groups: str | os.PathLike[str] | None = None,
    *,
    near_copies: bool = True,
    min_similarity: float = MIN_SIMILARITY,
    options: ReadOptions | None = None,
    n_jobs: int | None = None,
    verbose: bool = False,
) -> FolderReport:
    """Look for what would spoil a training or make its scores too good to be true.

    Every image is opened. Reported are files that cannot be read; copies, exact and near, above
    all those that contradict each other (across classes) or that a split could put on both sides
    (across groups); blank images; classes too small to be tested; sizes and kinds of pixels that
    give the class away; and groups that do not fit.

    Parameters
    ----------
    dir : path
        Folder with one sub-folder per class, as for `load_image_folder`.
    groups : path, optional
        CSV file of groups, as for `load_image_folder`.
    near_copies : bool, default=True
        Whether to look for near copies (see `hypervlad.datasets.near_copies`), the slowest part.
    min_similarity : float, default=0.8
        From which similarity on, over 0 and at most 1, a pair counts as near copies.
    options : ReadOptions, optional
        How images are read.
    n_jobs : int, optional
        Threads that read images, as in joblib; None is 1, -1 all processors.
    verbose : bool, default=False
        Show progress bars.

    Returns
    -------
    FolderReport
        ``print(report)`` shows it; ``report.ok`` is True if there is no problem.

    Raises
    ------
    ImageFolderError
        A ValueError, if ``dir`` is no folder or ``min_similarity`` out of range. What is wrong
        inside the folder, or with the groups, is in the report.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from hypervlad.datasets import check_image_folder
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name, level in (("a/1.png", 9), ("a/2.png", 99), ("b/1.png", 9)):
    ...         pathlib.Path(root, name).parent.mkdir(exist_ok=True)
    ...         ramp = Image.linear_gradient("L").point(lambda v, level=level: (v * level) % 251)
    ...         ramp.save(pathlib.Path(root, name))
    ...     report = check_image_folder(root)
    >>> report.ok, report.exact_copies[0].files, report.exact_copies[0].crosses_classes
    (False, ('a/1.png', 'b/1.png'), True)
    """
    if not 0 < min_similarity <= 1:
        raise ImageFolderError(
            f"min_similarity={min_similarity!r}: expected a number over 0 and at most 1."
        )
    layout = scan_folder(dir)
    group_of, group_error = _read_groups(layout, groups)
    facts, bad_files = _read_all(layout, options or ReadOptions(), group_of, n_jobs, verbose)
    exact, near = _find_copies(facts, near_copies, min_similarity, verbose)
    counts = Counter(fact.label for fact in facts)
    report = FolderReport(
        root=str(layout.root),
        n_images=len(facts),
        class_counts={
            name: counts[name] for name in sorted({*layout.labels, *layout.empty_classes})
        },
        group_counts=None if group_of is None else count_sorted([f.group or "" for f in facts]),
        bad_files=bad_files,
        exact_copies=exact,
        near_copies=near,
        blank_files=[f.file for f in facts if f.blank],
        image_sizes=count_sorted([f.size for f in facts]),
        image_kinds=count_sorted([f.kind for f in facts]),
        _files=[f.file for f in facts],
        _groups=None if group_of is None else [f.group or "" for f in facts],
    )
    by_class = _values_by_class(facts)
    report.problems = list_problems(report, layout, group_error, by_class)
    report.notes = list_notes(report)
    return report


def _read_groups(
    layout: FolderLayout, groups: str | os.PathLike[str] | None
) -> tuple[dict[str, str] | None, str | None]:
    """Group of each file, or what is wrong with the groups."""
    if groups is None:
        return None, None
    try:
        values = load_groups(layout.files, layout.root, groups)
    except ImageFolderError as error:
        return None, str(error)
    names = [layout.relative(file) for file in layout.files]
    return dict(zip(names, values.tolist(), strict=True)), None


def _read_all(
    layout: FolderLayout,
    options: ReadOptions,
    group_of: dict[str, str] | None,
    n_jobs: int | None,
    verbose: bool,
) -> tuple[list[_Facts], list[BadFile]]:
    # A folder of unsorted images can be checked for copies too, if for nothing else.
    files = layout.files or layout.loose
    labels = layout.labels or [""] * len(layout.loose)
    names = [layout.relative(file) for file in files]
    jobs = (
        delayed(_read_one)(file, name, label, options, None if group_of is None else group_of[name])
        for file, name, label in zip(files, names, labels, strict=True)
    )
    # Threads: decoding and filtering run outside Python's lock, and pixels need not be copied.
    outcomes: Iterator[_Facts | BadFile] = Parallel(
        n_jobs=n_jobs, prefer="threads", return_as="generator"
    )(jobs)
    facts: list[_Facts] = []
    bad: list[BadFile] = []
    for outcome in tqdm(outcomes, "Reading", total=len(files), disable=not verbose, unit="image"):
        if isinstance(outcome, BadFile):
            bad.append(outcome)
        else:
            facts.append(outcome)
    return facts, bad


def _read_one(
    file: Path, name: str, label: str, options: ReadOptions, group: str | None
) -> _Facts | BadFile:
    try:
        ((_, micrograph),) = read_micrographs([file], options=options)
    except ImageReadError as error:
        return BadFile(name, str(error))
    pixels = micrograph.pixels
    colour = "grey" if pixels.ndim == 2 else "colour"
    return _Facts(
        file=name,
        label=label,
        digest=micrograph.digest,
        size=f"{pixels.shape[0]} x {pixels.shape[1]}",
        kind=f"{micrograph.metadata.get('dtype', 'unknown')} {colour}",
        blank=bool(pixels.max() == pixels.min()),
        thumbnail=make_thumbnail(pixels),
        group=group,
    )


def _find_copies(
    facts: list[_Facts], look_for_near: bool, min_similarity: float, verbose: bool
) -> tuple[list[CopySet], list[CopySet]]:
    by_digest: dict[str, list[int]] = defaultdict(list)
    for i, fact in enumerate(facts):
        by_digest[fact.digest].append(i)
    same = list(by_digest.values())
    exact = [_copy_set([facts[i] for i in members], 1.0) for members in same if len(members) > 1]
    if not look_for_near or len(same) < 2:
        return _worst_first(exact), []
    # One of each set of exact copies: a hundred of one image would fill its neighbours' list.
    thumbnails = np.stack([facts[members[0]].thumbnail for members in same])
    with tqdm(total=len(same), desc="Comparing", disable=not verbose, unit="image") as bar:
        pairs, similarity = find_near_copies(
            thumbnails, min_similarity=min_similarity, progress=bar.update
        )
    near = [
        _copy_set([facts[i] for k in members for i in same[k]], weakest)
        for members, weakest in _linked_sets(pairs, similarity, len(same))
    ]
    return _worst_first(exact), _worst_first(near)


def _linked_sets(
    pairs: NDArray[np.intp], similarity: NDArray[np.float32], n_images: int
) -> Iterator[tuple[list[int], float]]:
    """Connected sets, each with the similarity of its least attached member to its nearest."""
    nearest = np.zeros(n_images, np.float32)
    np.maximum.at(nearest, pairs.ravel(), np.repeat(similarity, 2))
    for members in group_copies(pairs, n_images):
        yield members, float(nearest[members].min())


def _copy_set(members: list[_Facts], similarity: float) -> CopySet:
    return CopySet(
        files=tuple(sorted(f.file for f in members)),
        classes=tuple(sorted({f.label for f in members if f.label})),
        groups=tuple(sorted({f.group for f in members if f.group is not None})),
        similarity=round(similarity, 4),
    )


def _worst_first(sets: list[CopySet]) -> list[CopySet]:
    return sorted(sets, key=lambda s: (not s.crosses_classes, not s.crosses_groups, s.files))


def _values_by_class(facts: list[_Facts]) -> dict[str, dict[str, set[str]]]:
    """For each property of the files, the values that occur in each class."""
    out: dict[str, dict[str, set[str]]] = {
        "size in pixels": defaultdict(set),
        "kind of pixels": defaultdict(set),
        "group": defaultdict(set),
    }
    for fact in facts:
        out["size in pixels"][fact.label].add(fact.size)
        out["kind of pixels"][fact.label].add(fact.kind)
        if fact.group is not None:
            out["group"][fact.label].add(fact.group)
    return out
