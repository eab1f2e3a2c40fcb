"""What checks of folders report: as values, as text, and as a file of groups."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np

from hypervlad.common.tables import write_table
from hypervlad.common.wording import counted, percent

_N_SHOWN = 8
# Sets of more files are counted, not listed. Overlapping windows chain hundreds together.
_MAX_LISTED = 12


@dataclass(frozen=True)
class BadFile:
    """A file that cannot be read.

    Attributes
    ----------
    path : str
        As the report prints it.
    reason : str
        The error of the reader.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class CopySet:
    """Images that are copies of each other.

    Attributes
    ----------
    files : tuple of str
        Paths under the folder, sorted.
    classes : tuple of str
        Their classes, sorted. More than one is a contradiction.
    groups : tuple of str
        Their groups, sorted; empty without groups.
    similarity : float
        Lowest similarity of a member to its nearest copy; 1 for exact copies (the same pixels).
    overlap : float, default=1.0
        Median over pairs of the part of the smaller view that both show: 1 for a crop of an image.
    """

    files: tuple[str, ...]
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    similarity: float
    overlap: float = 1.0

    @property
    def crosses_classes(self) -> bool:
        """Whether the files lie in several classes."""
        return len(self.classes) > 1

    @property
    def crosses_groups(self) -> bool:
        """Whether the files are in several groups: a split could separate them."""
        return len(self.groups) > 1


@dataclass(repr=False)
class FolderReport:
    """What `check_image_folder` or `compare_image_folders` found.

    Its text leaves out the names of large sets of copies.

    Attributes
    ----------
    root : str
        The folder or table; of a comparison, both, with the number of images of each.
    n_images : int
        Readable images.
    class_counts : dict of str to int
        Readable images of each class, 0 included.
    group_counts : dict of str to int, or None
        Readable images of each group; None without (usable) groups.
    bad_files : list of BadFile
        Unreadable files.
    exact_copies, near_copies : list of CopySet
        First those across classes, then those across groups.
    blank_files : list of str
        Images without any contrast.
    small_files : list of str
        Images of fewer than 16 rows or columns.
    implausible_files : list of str
        Images whose pixel size, below 1 pm or above 1 mm, is not used.
    banner_files : list of str
        Images with an information bar at the bottom, see :func:`hypervlad.images.find_banner`.
    top_bar_files : list of str
        Images with an information bar or a caption at the top, which is never cut off.
    uneven_bars : dict of str to int
        Height of the bar at the bottom, 0 if none was found, of each image in which it is not that
        of most images of the same size.
    page_counts : dict of str to int
        Pages, sections or frames of each file that has more than one.
    image_sizes : dict of str to int
        Images of each size, ``"height x width"`` in pixels, the most frequent first.
    image_kinds : dict of str to int
        Images of each kind of pixels, such as ``"uint8 grey"``, the most frequent first.
    pixel_sizes : dict of str to int
        Images whose pixel size is ``"known"``, ``"unknown"`` or ``"implausible"``.
    suggested_groups : dict of str to str
        A group for each file, also unreadable ones, that keeps copies together.
    sets_left_apart : list of CopySet
        Copies not kept together, because nothing of a class could then be held out.
    problems : list of str
        What to deal with before training, the most serious first.
    notes : list of str
        What is unusual but may be right.
    """

    root: str
    n_images: int = 0
    class_counts: dict[str, int] = field(default_factory=dict)
    group_counts: dict[str, int] | None = None
    bad_files: list[BadFile] = field(default_factory=list)
    exact_copies: list[CopySet] = field(default_factory=list)
    near_copies: list[CopySet] = field(default_factory=list)
    blank_files: list[str] = field(default_factory=list)
    small_files: list[str] = field(default_factory=list)
    implausible_files: list[str] = field(default_factory=list)
    banner_files: list[str] = field(default_factory=list)
    top_bar_files: list[str] = field(default_factory=list)
    uneven_bars: dict[str, int] = field(default_factory=dict)
    page_counts: dict[str, int] = field(default_factory=dict)
    image_sizes: dict[str, int] = field(default_factory=dict)
    image_kinds: dict[str, int] = field(default_factory=dict)
    pixel_sizes: dict[str, int] = field(default_factory=dict)
    suggested_groups: dict[str, str] = field(default_factory=dict)
    sets_left_apart: list[CopySet] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def write_groups(self, path: str | os.PathLike[str]) -> None:
        """Write `suggested_groups` as a CSV file for `load_image_folder`."""
        write_table(path, ["path", "group"], self.suggested_groups.items())

    def __str__(self) -> str:
        classes = f" in {counted(len(self.class_counts), 'class')}" if self.class_counts else ""
        lines = [f"{self.root}: {counted(self.n_images, 'image')}{classes}"]
        lines += _counts("Classes", self.class_counts)
        if self.group_counts is not None:
            lines.append(f"Groups: {len(self.group_counts)}")
        lines += _counts("Sizes (height x width)", self.image_sizes)
        lines += _counts("Pixels", self.image_kinds)
        lines += _counts("Pixel sizes", self.pixel_sizes)
        lines += ["", "Problems:"] if self.problems else ["", "No problems found."]
        lines += [f"  {i}. {problem}" for i, problem in enumerate(self.problems, 1)]
        if self.notes:
            lines += ["", "Notes:", *(f"  - {note}" for note in self.notes)]
        unread = [f"  {bad.reason}" for bad in self.bad_files]
        lines += _section("Files that cannot be read", unread)
        lines += _section("Exact copies", _describe(self.exact_copies))
        lines += _section("Near copies", _describe(self.near_copies))
        lines += _section("Blank images", [f"  {file}" for file in self.blank_files])
        pages = [f"  {file}: {counted(count, 'page')}" for file, count in self.page_counts.items()]
        lines += _section("Files of several pages", pages)
        return "\n".join(lines)

    __repr__ = __str__


def _counts(title: str, counts: dict[str, int]) -> list[str]:
    if not counts:
        return []
    shown = [f"{name}: {count}" for name, count in list(counts.items())[:_N_SHOWN]]
    if len(counts) > _N_SHOWN:
        shown.append(f"{len(counts) - _N_SHOWN} more")
    return [f"{title}: {', '.join(shown)}"]


def _section(title: str, entries: list[str]) -> list[str]:
    return ["", f"{title}:", *entries] if entries else []


def _describe(sets: list[CopySet]) -> list[str]:
    """Return a line for each set of copies, but only one for all large sets."""
    listed = [copies for copies in sets if len(copies.files) <= _MAX_LISTED]
    large = [copies for copies in sets if len(copies.files) > _MAX_LISTED]
    lines = [f"  {', '.join(own.files)}{_remarks([own])}" for own in listed]
    if large:
        n_files = sum(len(copies.files) for copies in large)
        overlap = percent(float(np.median([copies.overlap for copies in large])))
        lines.append(
            f"  {counted(len(large), 'set')} of more than {_MAX_LISTED} files: "
            f"{counted(n_files, 'file')}, median overlap {overlap}{_remarks(large)}"
        )
    return lines


def _remarks(sets: list[CopySet]) -> str:
    similarity = min(copies.similarity for copies in sets)
    remarks = [f"similarity {similarity:.2f}"] if similarity < 1 else []
    # Unsorted images have no class.
    classes = {name for s in sets if s.crosses_classes for name in s.classes if name}
    if len(classes) > 1:
        remarks.append(f"CLASSES {_slashed(classes)}")
    groups = {name for s in sets if s.crosses_groups for name in s.groups}
    if groups:
        remarks.append(f"groups {_slashed(groups)}")
    return f"  [{'; '.join(remarks)}]" if remarks else ""


def _slashed(names: set[str]) -> str:
    return " / ".join(sorted(names)[:_N_SHOWN])
