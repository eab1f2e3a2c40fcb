"""Check a folder of labelled images before training."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from hypervlad.datasets.copies import (
    MIN_SIMILARITY,
    Thumbnail,
    find_near_copies,
    group_copies,
    make_thumbnail,
)
from hypervlad.datasets.folder import (
    FolderLayout,
    alike_classes,
    check_classes,
    names_in_several_forms,
)
from hypervlad.datasets.groups import ImageFolderError
from hypervlad.datasets.loading import scan_images
from hypervlad.datasets.report import (
    BadFile,
    CopySet,
    FolderComparison,
    FolderReport,
    count_sorted,
)
from hypervlad.images import ImageReadError, Micrograph, ReadOptions, find_banner, read_micrographs
from hypervlad.images.pixels import is_blank
from hypervlad.terminal import ProgressBar
from hypervlad.wording import counted, name_some, verb

# A class must have images on both sides of a split, and a few to learn from.
_MIN_IMAGES = 5
_MAX_IMBALANCE = 20
_GROUPS_WRITER = "--write-groups (in Python, write_groups)"

ClassValues = dict[str, dict[str, set[str]]]


@dataclass(frozen=True)
class _ImageFacts:
    """What is kept of one image. Its pixels are not."""

    file: str
    label: str
    digest: str
    n_pages: int
    size: str
    kind: str
    blank: bool
    has_banner: bool
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
    """Check a folder for problems that would spoil training or inflate its scores.

    Every image is opened. The report lists files that cannot be read; exact and near copies, first
    those in several classes, then those in several groups, which a split could separate; blank
    images; files of several pages; classes that are too small for a test set; image sizes and
    pixel types that reveal the class; and groups that do not match the images.

    Parameters
    ----------
    dir : path
        Folder with one sub-folder per class, or a table of labels, as for `load_image_folder`.
    groups : path, optional
        CSV file of groups, as for `load_image_folder`.
    near_copies : bool, default=True
        Whether to look for near copies, the slowest part.
    min_similarity : float, default=0.8
        Lowest similarity of near copies, over 0 and at most 1.
    options : ReadOptions, optional
        Options of the image reader.
    n_jobs : int, optional
        Number of threads that read images, as in joblib: None means 1, -1 all processors.
    verbose : bool, default=False
        Show progress bars.

    Returns
    -------
    FolderReport
        ``print(report)`` shows it; ``report.ok`` is True if there are no problems.

    Raises
    ------
    ImageFolderError
        A ValueError, if ``dir`` is not a folder, the table cannot be used, or ``min_similarity`` is
        out of range. Problems inside the folder, or with the groups, are in the report.

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
    _check_similarity(min_similarity)
    layout = scan_images(dir)
    group_of, group_error = _read_groups(layout, groups)
    options = options or ReadOptions()
    facts, bad_files = _read_all(layout, options, group_of, n_jobs, verbose)
    exact, near = _find_copies(facts, near_copies, min_similarity, verbose)
    counts = Counter(fact.label for fact in facts)
    report = FolderReport(
        root=str(layout.table or layout.root),
        n_images=len(facts),
        class_counts={
            name: counts[name] for name in sorted({*layout.labels, *layout.empty_classes})
        },
        group_counts=None if group_of is None else count_sorted([f.group or "" for f in facts]),
        bad_files=bad_files,
        exact_copies=exact,
        near_copies=near,
        blank_files=[f.file for f in facts if f.blank],
        banner_files=[f.file for f in facts if f.has_banner],
        page_counts={f.file: f.n_pages for f in facts if f.n_pages > 1},
        image_sizes=count_sorted([f.size for f in facts]),
        image_kinds=count_sorted([f.kind for f in facts]),
        _files=[f.file for f in facts],
        _labels=[f.label for f in facts],
        _groups=None if group_of is None else [f.group or "" for f in facts],
        _bad_groups=[(bad.path, (group_of or {}).get(bad.path, bad.path)) for bad in bad_files],
    )
    by_class = _values_by_class(facts)
    report.problems = _list_problems(report, layout, group_error, by_class)
    report.notes = _list_notes(report, options.page or 0)
    return report


def compare_image_folders(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    near_copies: bool = True,
    min_similarity: float = MIN_SIMILARITY,
    options: ReadOptions | None = None,
    n_jobs: int | None = None,
    verbose: bool = False,
) -> FolderComparison:
    """Find copies across two folders, such as those for training and for a test.

    Parameters
    ----------
    first, second : path
        Folders of images, with or without one sub-folder per class, neither inside the other, or
        tables of labels. Of files with several pages, the first is compared, or the one in
        ``options``.
    near_copies, min_similarity, options, n_jobs, verbose
        As for `check_image_folder`.

    Returns
    -------
    FolderComparison
        ``print`` shows it.

    Raises
    ------
    ImageFolderError
        A ValueError, if one is not a folder or has no image, one is inside the other, or
        ``min_similarity`` is out of range.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from hypervlad.datasets import compare_image_folders
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name, level in (("a/1.png", 9), ("a/2.png", 99), ("b/3.png", 9)):
    ...         pathlib.Path(root, name).parent.mkdir(exist_ok=True)
    ...         ramp = Image.linear_gradient("L").point(lambda v, level=level: (v * level) % 251)
    ...         ramp.save(pathlib.Path(root, name))
    ...     found = compare_image_folders(f"{root}/a", f"{root}/b")
    >>> found.n_images, [[pathlib.Path(file).name for file in s.files] for s in found.exact_copies]
    ((2, 1), [['1.png', '3.png']])
    """
    _check_similarity(min_similarity)
    layouts = [scan_images(source) for source in (first, second)]
    roots = [layout.root.resolve() for layout in layouts if layout.table is None]
    if len(roots) == 2 and any(a == b or a in b.parents for a, b in (roots, roots[::-1])):
        raise ImageFolderError(f"{first} and {second}: give two folders, neither inside the other.")
    facts: list[_ImageFacts] = []
    bad: list[BadFile] = []
    counts = []
    options = options or ReadOptions()
    for folder, layout in zip((first, second), layouts, strict=True):
        found, unreadable = _read_all(layout, options, None, n_jobs, verbose, with_loose=True)
        path = os.fspath(folder)
        if not found and not unreadable:
            raise ImageFolderError(f"{path}: no images, so there is nothing to compare.")
        # The folders take the place of groups: what crosses them is a copy across.
        root = path if layout.table is None else os.path.dirname(path)
        facts += [replace(f, file=os.path.join(root, f.file), group=path) for f in found]
        bad += [replace(each, path=os.path.join(root, each.path)) for each in unreadable]
        counts.append(len(found))
    exact, near = (
        [copies for copies in sets if copies.crosses_groups]
        for sets in _find_copies(facts, near_copies, min_similarity, verbose, across_only=True)
    )
    return FolderComparison((counts[0], counts[1]), exact, near, bad)


def _check_similarity(min_similarity: float) -> None:
    if not 0 < min_similarity <= 1:
        raise ImageFolderError(
            f"min_similarity={min_similarity!r}: expected a number over 0 and at most 1."
        )


def _read_groups(
    layout: FolderLayout, groups: str | os.PathLike[str] | None
) -> tuple[dict[str, str] | None, str | None]:
    """Return the group of each file, or what is wrong with the groups."""
    try:
        values = layout.load_groups(groups)
    except ImageFolderError as error:
        return None, str(error)
    if values is None:
        return None, None
    names = [layout.relative(file) for file in layout.files]
    return dict(zip(names, values.tolist(), strict=True)), None


def _read_all(
    layout: FolderLayout,
    options: ReadOptions,
    group_of: dict[str, str] | None,
    n_jobs: int | None,
    verbose: bool,
    with_loose: bool = False,
) -> tuple[list[_ImageFacts], list[BadFile]]:
    # The first page of files with several is meant, and no warning is needed.
    options = replace(options, page=options.page or 0)
    # A folder of unsorted images can still be checked for copies.
    files = [*layout.files, *layout.loose] if with_loose else layout.files or layout.loose
    labels = [*layout.labels, *[""] * (len(files) - len(layout.labels))]
    names = [layout.relative(file) for file in files]
    jobs = (
        delayed(_read_one)(file, name, label, options, None if group_of is None else group_of[name])
        for file, name, label in zip(files, names, labels, strict=True)
    )
    # Threads: decoding and filtering release the GIL, and pixels need not be copied.
    outcomes: Iterator[_ImageFacts | BadFile] = Parallel(
        n_jobs=n_jobs, prefer="threads", return_as="generator"
    )(jobs)
    facts: list[_ImageFacts] = []
    bad: list[BadFile] = []
    for outcome in ProgressBar(
        outcomes, "Reading", total=len(files), disable=not verbose, unit="image"
    ):
        if isinstance(outcome, BadFile):
            bad.append(outcome)
        else:
            facts.append(outcome)
    return facts, bad


def _read_one(
    file: Path, name: str, label: str, options: ReadOptions, group: str | None
) -> _ImageFacts | BadFile:
    try:
        ((_, micrograph),) = read_micrographs([file], options=options)
    except ImageReadError as error:
        return BadFile(name, str(error))
    pixels = micrograph.pixels
    colour = "grey" if pixels.ndim == 2 else "colour"
    return _ImageFacts(
        file=name,
        label=label,
        digest=micrograph.digest,
        n_pages=micrograph.metadata.get("n_pages", 1),
        size=f"{pixels.shape[0]} x {pixels.shape[1]}",
        kind=f"{micrograph.metadata.get('dtype', 'unknown')} {colour}",
        blank=is_blank(pixels),
        has_banner=find_banner(_as_stored(micrograph)) > 0,
        thumbnail=make_thumbnail(pixels),
        group=group,
    )


def _as_stored(micrograph: Micrograph) -> NDArray[Any]:
    """Return 8-bit pixels as in the file, where `find_banner` knows what is black and white."""
    pixels = micrograph.pixels
    if micrograph.metadata.get("dtype") != "uint8":
        return pixels
    return np.round(255 * pixels).astype(np.uint8)


def _find_copies(
    facts: list[_ImageFacts],
    look_for_near: bool,
    min_similarity: float,
    verbose: bool,
    across_only: bool = False,
) -> tuple[list[CopySet], list[CopySet]]:
    """Return exact and near copies; near ones only across groups if so requested."""
    by_digest: dict[str, list[int]] = defaultdict(list)
    for i, fact in enumerate(facts):
        by_digest[fact.digest].append(i)
    same = list(by_digest.values())
    exact = [_copy_set([facts[i] for i in members]) for members in same if len(members) > 1]
    if not look_for_near or len(same) < 2:
        return _worst_first(exact), []
    # One of each set of exact copies: a hundred copies would fill the list of neighbours.
    thumbnails = [facts[members[0]].thumbnail for members in same]
    groups = [str(facts[members[0]].group) for members in same]
    folders = np.unique(groups, return_inverse=True)[1].tolist() if across_only else None
    with ProgressBar(total=len(same), desc="Comparing", disable=not verbose, unit="image") as bar:
        pairs, similarity, overlap = find_near_copies(
            thumbnails, min_similarity=min_similarity, folders=folders, progress=bar.update
        )
    near = [
        _copy_set([facts[i] for k in members for i in same[k]], *values)
        for members, *values in _linked_sets(pairs, similarity, overlap, len(same))
    ]
    return _worst_first(exact), _worst_first(near)


def _linked_sets(
    pairs: NDArray[np.intp],
    similarity: NDArray[np.float32],
    overlap: NDArray[np.float32],
    n_images: int,
) -> Iterator[tuple[list[int], float, float]]:
    """Yield connected sets: the lowest similarity to a nearest copy, and the median overlap."""
    nearest = np.zeros(n_images, np.float32)
    np.maximum.at(nearest, pairs.ravel(), np.repeat(similarity, 2))
    for members in group_copies(pairs, n_images):
        among = np.isin(pairs[:, 0], members)
        yield members, float(nearest[members].min()), float(np.median(overlap[among]))


def _copy_set(members: list[_ImageFacts], similarity: float = 1.0, overlap: float = 1.0) -> CopySet:
    return CopySet(
        files=tuple(sorted(f.file for f in members)),
        classes=tuple(sorted({f.label for f in members if f.label})),
        groups=tuple(sorted({f.group for f in members if f.group is not None})),
        similarity=round(similarity, 4),
        overlap=round(overlap, 3),
    )


def _worst_first(sets: list[CopySet]) -> list[CopySet]:
    return sorted(sets, key=lambda s: (not s.crosses_classes, not s.crosses_groups, s.files))


def _values_by_class(facts: list[_ImageFacts]) -> dict[str, dict[str, set[str]]]:
    """Return the values of each property of the files that occur in each class."""
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


def _list_problems(
    report: FolderReport, layout: FolderLayout, group_error: str | None, by_class: ClassValues
) -> list[str]:
    """Describe what must be dealt with, the most serious first."""
    problems = []
    try:
        check_classes(layout)
    except ImageFolderError as error:
        problems.append(str(error))
    if group_error:
        problems.append(f"The groups cannot be used: {group_error}")
    if report.bad_files:
        problems.append(
            f"{counted(len(report.bad_files), 'file')} cannot be read: "
            f"{name_some([bad.path for bad in report.bad_files])}. Replace or delete "
            f"{verb(len(report.bad_files), 'it', 'them')}."
        )
    problems += _about_copies(report)
    problems += _about_classes(report, layout)
    problems += _about_groups(report, by_class)
    problems += _about_giveaways(by_class)
    if report.blank_files:
        problems.append(
            f"{_files(len(report.blank_files))} blank, all pixels equal: "
            f"{name_some(report.blank_files)}. Delete "
            f"{verb(len(report.blank_files), 'it', 'them')}."
        )
    if layout.files and layout.loose:
        problems.append(
            f"{_files(len(layout.loose))} beside the class folders, and so without a class: "
            f"{name_some([file.name for file in layout.loose])}. Move or delete "
            f"{verb(len(layout.loose), 'it', 'them')}."
        )
    return problems


def _list_notes(report: FolderReport, page: int) -> list[str]:
    """Describe what is unusual but may be right."""
    notes = []
    counts = [count for count in report.class_counts.values() if count]
    if counts and max(counts) > _MAX_IMBALANCE * min(counts):
        notes.append(
            f"The largest class has {counted(max(counts), 'image')}, the smallest {min(counts)}; "
            "judge by scores of each class, not by accuracy alone."
        )
    if report.page_counts:
        n_files = len(report.page_counts)
        subject = f"{counted(n_files, 'file')} {verb(n_files, 'has', 'have')}"
        notes.append(
            f"{subject} several pages, sections or frames, of which only page {page} is read, "
            "counted from 0. Split them, or choose a page with --image-page (in Python, "
            "read_options), which is not possible for GIF, PNG and WebP."
        )
    n_banners = len(report.banner_files)
    if n_banners:
        notes.append(
            f"{counted(n_banners, 'image')} {verb(n_banners, 'has', 'have')} an information bar at "
            f"the bottom: {name_some(report.banner_files)}. Cut it off with --remove-banner (in "
            "Python, read_options), or a model may learn from the bar instead of the specimen."
        )
    if len(report.image_kinds) > 1:
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.image_kinds.items())
        notes.append(f"Kinds of pixels are mixed: {kinds}.")
    if report.group_counts is None:
        notes.append(
            "No groups are given, so each image counts as a sample of its own. If several images "
            "show one sample or micrograph, give a file of groups, or scores will be too good."
        )
    else:
        harmless = [s for s in report.exact_copies + report.near_copies if len(s.groups) == 1]
        if harmless:
            notes.append(
                f"{_sets(len(harmless))} of copies within one group; splits that take "
                "the groups keep them together."
            )
    return notes


def _about_copies(report: FolderReport) -> list[str]:
    sentences = []
    apart = report.sets_left_apart()
    kinds = {"exact": report.exact_copies, "near": report.near_copies}
    joined = {kind: [s for s in sets if s not in apart] for kind, sets in kinds.items()}
    # Of exact copies in several classes, all but one must go, whatever the groups.
    contradicting = {"exact": report.exact_copies, "near": joined["near"]}
    for kind, sets in contradicting.items():
        contradictions = [s for s in sets if s.crosses_classes]
        remedy = (
            "Decide which class is right and delete the others."
            if kind == "exact"
            else "Look at them: if a class is wrong, correct it; if both are right, keep them in "
            f"one group, as {_GROUPS_WRITER} does."
        )
        if contradictions:
            sentences.append(
                f"{_sets(len(contradictions))} of {kind} copies in several classes: "
                f"{_example(contradictions)}. {remedy}"
            )
    for kind, sets in joined.items():
        separated = [s for s in sets if s.crosses_groups]
        if separated:
            sentences.append(
                f"{_sets(len(separated))} of {kind} copies in several groups: "
                f"{_example(separated)}. Give them one group, as {_GROUPS_WRITER} does, or "
                "scores will be too good."
            )
    for kind, sets in joined.items():
        loose = [s for s in sets if not s.groups and not s.crosses_classes]
        if loose:
            sentences.append(
                f"{_sets(len(loose))} of {kind} copies within a class: {_example(loose)}. "
                "A random split puts copies on both sides: delete them, or give a file of groups, "
                f"which {_GROUPS_WRITER} writes."
            )
    if apart:
        sentences.append(
            f"{_sets(len(apart))} of copies from which a class has nothing else: "
            f"{_example(apart)}. In one group, none of its images could be held out, so "
            f"{_GROUPS_WRITER} leaves them apart, and scores will be too good. Look at them: "
            "delete all but one if they are copies, and add images of other samples."
        )
    return sentences


def _about_classes(report: FolderReport, layout: FolderLayout) -> list[str]:
    sentences = []
    if layout.files and layout.empty_classes:
        sentences.append(
            f"Without any image: the {_classes(layout.empty_classes)}. "
            "Fill or delete these folders."
        )
    alike = alike_classes(layout.labels)
    if alike:
        sentences.append(
            f"The {_classes(alike)} differ only in upper and lower case. They are separate classes "
            "to a model: spell them alike if they are one."
        )
    same = names_in_several_forms(layout)
    if same:
        sentences.append(
            f"Stored in several Unicode forms: {name_some(same)}. macOS writes accents in another "
            "way than other systems. Such folders are one class; give these names one form."
        )
    small = [
        f"{name} ({count})"
        for name, count in report.class_counts.items()
        if count < _MIN_IMAGES and name not in layout.empty_classes
    ]
    if small:
        sentences.append(
            f"Fewer than {_MIN_IMAGES} images in the {_classes(small)}: too few to "
            "learn from and to be tested on. Add images, or join classes."
        )
    return sentences


def _about_groups(report: FolderReport, by_class: ClassValues) -> list[str]:
    single = sorted(c for c, groups in by_class["group"].items() if len(groups) == 1)
    if not single:
        return []
    return [
        f"All images of the {_classes(single)} are of one group: such a class cannot be "
        "both in training and in test. Add images of another sample."
    ]


def _about_giveaways(by_class: ClassValues) -> list[str]:
    """Describe properties of the files, not of the specimens, that reveal a class."""
    sentences = []
    for name in ("kind of pixels", "size in pixels"):
        values = by_class[name]
        if len(set().union(*values.values())) < 2:
            continue
        revealed = [
            c
            for c in sorted(values)
            if not values[c] & set().union(*(values[other] for other in values if other != c))
        ]
        # A class whose images all differ in size is not revealed by their sizes.
        revealed = [c for c in revealed if len(values[c]) == 1 and c]
        if revealed:
            shown = ", ".join(f"{c} ({next(iter(values[c]))})" for c in revealed[:5])
            sentences.append(
                f"The {name} gives the class away: only {shown} "
                f"{verb(len(revealed), 'has', 'have')} it. A model may "
                "learn the microscope or the export settings instead of the specimen; export all "
                "images alike."
            )
    return sentences


def _example(sets: list[CopySet]) -> str:
    files = sets[0].files
    shown = " = ".join(files[:3]) + (" = …" if len(files) > 3 else "")
    return shown if len(sets) == 1 else f"for example {shown}"


def _classes(names: list[str]) -> str:
    return f"{verb(len(names), 'class', 'classes')} {name_some(names)}"


def _files(n: int) -> str:
    return f"{counted(n, 'file')} {verb(n, 'is', 'are')}"


def _sets(n: int) -> str:
    return counted(n, "set")
