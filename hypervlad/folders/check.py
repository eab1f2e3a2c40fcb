"""Check a folder of labelled images before training."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import joblib
import numpy as np

from hypervlad.common.progress import ProgressBar
from hypervlad.folders.copies import Thumbnail, make_thumbnail
from hypervlad.folders.copy_groups import Copies, find_copies, join_copies
from hypervlad.folders.folder import FolderLayout, scan_images
from hypervlad.folders.groups import ImageFolderError
from hypervlad.folders.problems import (
    MIN_SIDE,
    ClassValues,
    list_notes,
    list_problems,
    list_problems_across,
)
from hypervlad.folders.report import BadFile, CopySet, FolderReport
from hypervlad.images import Micrograph, ReadOptions, SkippedImage
from hypervlad.images.pixels import BLANK
from hypervlad.images.reading import read_in_order, read_named


@dataclass(frozen=True)
class _ImageFacts:
    file: str
    label: str
    digest: str
    n_pages: int
    size: str
    is_small: bool
    kind: str
    pixel_size: str
    stored_size: tuple[int, int]
    bar_rows: tuple[int, int]  # at the top, and at the bottom
    thumbnail: Thumbnail
    group: str | None = None


def check_image_folder(
    dir: str | os.PathLike[str],
    groups: str | os.PathLike[str] | None = None,
    *,
    options: ReadOptions | None = None,
    verbose: bool = False,
) -> FolderReport:
    """Check a folder for problems that would spoil training or inflate its scores.

    Every image is opened. Problems are, among others, unreadable files, copies and blank images.

    Parameters
    ----------
    dir : path
        Folder with one sub-folder per class, or a table of labels, as for `load_image_folder`.
    groups : path, optional
        CSV file of groups, as for `load_image_folder`; by default none, or those of the table.
    options : ReadOptions, optional
        How images are read; by default as they are stored, the first page of files with several.
    verbose : bool, default=False
        Show progress bars.

    Returns
    -------
    FolderReport
        ``print(report)`` shows it; ``report.ok`` is True if there are no problems.

    Raises
    ------
    ImageFolderError
        If ``dir`` is not a folder or the table cannot be used. Problems inside the folder, or with
        the groups, are in the report.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from hypervlad.data import check_image_folder
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("a/1.png", "b/1.png"):
    ...         pathlib.Path(root, name).parent.mkdir()
    ...         Image.linear_gradient("L").save(pathlib.Path(root, name))
    ...     report = check_image_folder(root)
    >>> report.ok, report.exact_copies[0].files
    (False, ('a/1.png', 'b/1.png'))
    """
    layout = scan_images(dir)
    group_of, group_error = _read_groups(layout, groups)
    options = options or ReadOptions()
    facts, bad_files = _read_all(layout, options, group_of, verbose)
    found = _find_copies(facts, verbose)
    exact, near = _copy_sets(facts, found)
    suggested, apart = _suggest_groups(facts, [*found[0], *found[1]])
    suggested |= {bad.path: (group_of or {}).get(bad.path, bad.path) for bad in bad_files}
    counts = Counter(fact.label for fact in facts)
    classes = {*layout.labels, *layout.empty_classes}
    report = FolderReport(
        root=str(layout.table or layout.root),
        n_images=len(facts),
        class_counts={name: counts[name] for name in sorted(classes)},
        group_counts=None if group_of is None else _count_sorted([f.group or "" for f in facts]),
        bad_files=bad_files,
        exact_copies=exact,
        near_copies=near,
        blank_files=[f.file for f in facts if f.digest.endswith(BLANK)],
        small_files=[f.file for f in facts if f.is_small],
        banner_files=[f.file for f in facts if f.bar_rows[1] and options.banner == "keep"],
        top_bar_files=[f.file for f in facts if f.bar_rows[0]],
        uneven_bars=_uneven_bars(facts),
        page_counts={f.file: f.n_pages for f in facts if f.n_pages > 1},
        image_sizes=_count_sorted([f.size for f in facts]),
        image_kinds=_count_sorted([f.kind for f in facts]),
        pixel_sizes=_count_sorted([f.pixel_size for f in facts]),
        implausible_files=[f.file for f in facts if f.pixel_size == "implausible"],
        suggested_groups=dict(sorted(suggested.items())),
        sets_left_apart=apart,
    )
    report.problems = list_problems(report, layout, group_error, _values_by_class(facts))
    report.notes = list_notes(report, options.page or 0)
    return report


def compare_image_folders(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    options: ReadOptions | None = None,
    verbose: bool = False,
) -> FolderReport:
    """Find copies across two folders, such as those for training and for a test.

    Parameters
    ----------
    first, second : path
        Folders of images, in classes or not, neither inside the other, or tables of labels.
    options, verbose
        As for `check_image_folder`.

    Returns
    -------
    FolderReport
        Of copies across both, whose `groups` are the folders, and of unreadable files.

    Raises
    ------
    ImageFolderError
        If one is not a folder or has no image, or one is inside the other.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from hypervlad.data import compare_image_folders
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("a/1.png", "b/3.png"):
    ...         pathlib.Path(root, name).parent.mkdir()
    ...         Image.linear_gradient("L").save(pathlib.Path(root, name))
    ...     found = compare_image_folders(f"{root}/a", f"{root}/b")
    >>> found.n_images, [[pathlib.Path(file).name for file in s.files] for s in found.exact_copies]
    (2, [['1.png', '3.png']])
    """
    layouts = [scan_images(source) for source in (first, second)]
    roots = [layout.root.resolve() for layout in layouts if layout.table is None]
    if len(roots) == 2 and any(a == b or a in b.parents for a, b in (roots, roots[::-1])):
        raise ImageFolderError(f"{first} and {second}: give two folders, neither inside the other.")
    facts: list[_ImageFacts] = []
    bad: list[BadFile] = []
    counts = []
    options = options or ReadOptions()
    for folder, layout in zip((first, second), layouts, strict=True):
        found, unreadable = _read_all(layout, options, None, verbose, with_loose=True)
        path = os.fspath(folder)
        if not found and not unreadable:
            raise ImageFolderError(f"{path}: no images, so there is nothing to compare.")
        # The folders take the place of groups: what crosses them is a copy across.
        root = path if layout.table is None else os.path.dirname(path)
        facts += [replace(f, file=os.path.join(root, f.file), group=path) for f in found]
        bad += [replace(each, path=os.path.join(root, each.path)) for each in unreadable]
        counts.append(f"{path} ({len(found)})")
    exact, near = (
        [copies for copies in sets if copies.crosses_groups]
        for sets in _copy_sets(facts, _find_copies(facts, verbose, across_only=True))
    )
    root = f"copies across {' and '.join(counts)}"
    report = FolderReport(root, len(facts), bad_files=bad, exact_copies=exact, near_copies=near)
    report.problems = list_problems_across(report)
    return report


def _read_groups(
    layout: FolderLayout, groups: str | os.PathLike[str] | None
) -> tuple[dict[str, str] | None, str | None]:
    try:
        values = layout.load_groups(groups)
    except ImageFolderError as error:
        return None, str(error)
    if values is None:
        return None, None
    names = [layout.relative(file) for file in layout.images]
    return dict(zip(names, values.tolist(), strict=True)), None


def _read_all(
    layout: FolderLayout,
    options: ReadOptions,
    group_of: dict[str, str] | None,
    verbose: bool,
    with_loose: bool = False,
) -> tuple[list[_ImageFacts], list[BadFile]]:
    # The first page of files with several is meant, and no warning is needed.
    options = replace(options, page=options.page or 0)
    # A folder of unsorted images can still be checked for copies.
    files = [*layout.files, *layout.loose] if with_loose else layout.images
    labels = [*layout.labels, *[""] * (len(files) - len(layout.labels))]
    names = [layout.relative(file) for file in files]
    groups = [None if group_of is None else group_of[name] for name in names]
    own = dict(zip(files, zip(names, labels, groups, strict=True), strict=True))

    def read(file: Path, shown: str) -> _ImageFacts:
        return _facts(read_named(file, options, shown, with_bars=True), *own[file])

    n_threads = joblib.effective_n_jobs()  # decoding and filtering release the GIL
    outcomes = read_in_order(enumerate(files), read, n_threads if n_threads > 1 else 0)
    bar = ProgressBar(outcomes, "Reading", total=len(files), unit="image", shown=verbose)
    facts: list[_ImageFacts] = []
    bad: list[BadFile] = []
    for outcome in bar:
        if isinstance(outcome, SkippedImage):
            bad.append(BadFile(names[outcome.position], outcome.reason))
        else:
            facts.append(outcome)
    return facts, bad


def _facts(micrograph: Micrograph, name: str, label: str, group: str | None) -> _ImageFacts:
    pixels = micrograph.pixels
    colour = "grey" if pixels.ndim == 2 else "colour"
    is_implausible = "implausible_pixel_sides_nm" in micrograph.metadata
    unused = "implausible" if is_implausible else "unknown"
    return _ImageFacts(
        file=name,
        label=label,
        digest=micrograph.digest,
        n_pages=micrograph.metadata.get("n_pages", 1),
        size=f"{pixels.shape[0]} x {pixels.shape[1]}",
        is_small=min(pixels.shape[:2]) < MIN_SIDE,
        kind=f"{micrograph.metadata.get('dtype', 'unknown')} {colour}",
        pixel_size=unused if micrograph.pixel_size is None else "known",
        stored_size=(pixels.shape[0] + micrograph.metadata["banner_rows"], pixels.shape[1]),
        bar_rows=tuple(micrograph.metadata["bar_rows"]),
        thumbnail=make_thumbnail(pixels),
        group=group,
    )


def _find_copies(
    facts: list[_ImageFacts], verbose: bool, across_only: bool = False
) -> tuple[list[Copies], list[Copies]]:
    """Return sets of exact and of near copies."""
    groups = [str(fact.group) for fact in facts]
    return find_copies(
        [fact.digest for fact in facts],
        [fact.thumbnail for fact in facts],
        folders=np.unique(groups, return_inverse=True)[1] if across_only else range(len(facts)),
        verbose=verbose,
    )


def _copy_sets(facts: list[_ImageFacts], found: Iterable[list[Copies]]) -> Iterator[list[CopySet]]:
    """Yield sets of copies as in the report, the worst first."""
    for sets in found:
        named = [_copy_set(facts, copies) for copies in sets]
        yield sorted(named, key=lambda s: (not s.crosses_classes, not s.crosses_groups, s.files))


def _copy_set(facts: list[_ImageFacts], copies: Copies) -> CopySet:
    members = [facts[i] for i in copies.members]
    return CopySet(
        files=tuple(sorted(f.file for f in members)),
        classes=tuple(sorted({f.label for f in members if f.label})),
        groups=tuple(sorted({f.group for f in members if f.group is not None})),
        similarity=round(copies.similarity, 4),
        overlap=round(copies.overlap, 3),
    )


def _suggest_groups(
    facts: list[_ImageFacts], sets: list[Copies]
) -> tuple[dict[str, str], list[CopySet]]:
    """Return groups that separate no copies, by file, and the sets that were not joined."""
    named = [fact.group or fact.file for fact in facts]
    groups, apart = join_copies(named, [fact.label for fact in facts], sets)
    names: dict[int, str] = {}  # a joined group is named like that of its first file
    order = sorted(range(len(facts)), key=lambda i: facts[i].file)
    suggested = {facts[i].file: names.setdefault(int(groups[i]), named[i]) for i in order}
    return suggested, [_copy_set(facts, copies) for copies in apart]


def _uneven_bars(facts: list[_ImageFacts]) -> dict[str, int]:
    by_size: dict[tuple[int, int], list[_ImageFacts]] = defaultdict(list)
    for fact in facts:
        by_size[fact.stored_size].append(fact)
    uneven: dict[str, int] = {}
    for same in by_size.values():
        usual, n_usual = Counter(fact.bar_rows[1] for fact in same).most_common(1)[0]
        if usual and n_usual > len(same) / 2:
            uneven |= {f.file: f.bar_rows[1] for f in same if f.bar_rows[1] != usual}
    return uneven


def _count_sorted(values: list[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _values_by_class(facts: list[_ImageFacts]) -> ClassValues:
    names = "size in pixels", "kind of pixels", "group"
    out: ClassValues = {name: defaultdict(set) for name in names}
    for fact in facts:
        for name, value in zip(names, (fact.size, fact.kind, fact.group), strict=True):
            if value is not None:
                out[name][fact.label].add(value)
    return out
