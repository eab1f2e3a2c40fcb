"""What to deal with before training on a folder of images, and what may be right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sized

from hypervlad.common.wording import counted, name_some, verb
from hypervlad.folders.folder import FolderLayout, check_classes, describe_names
from hypervlad.folders.groups import ImageFolderError
from hypervlad.folders.report import CopySet, FolderReport

# A class must have images on both sides of a split, and a few to learn from.
_MIN_IMAGES = 5
_MAX_IMBALANCE = 20
#: Images of fewer rows or columns are reported: spectra and icons, but hardly a micrograph.
MIN_SIDE = 16
_GROUPS_WRITER = "--write-groups (in Python, write_groups)"

#: The values of each property of the files, such as their size, that occur in each class.
ClassValues = dict[str, dict[str, set[str]]]


def list_problems(
    report: FolderReport, layout: FolderLayout, group_error: str | None, by_class: ClassValues
) -> list[str]:
    problems = []
    try:
        check_classes(layout)
    except ImageFolderError as error:
        problems.append(str(error))
    if group_error:
        problems.append(f"The groups cannot be used: {group_error}")
    problems += _about_bad_files(report)
    problems += _about_copies(report)
    problems += _about_classes(report, layout)
    if single := sorted(c for c, groups in by_class["group"].items() if len(groups) == 1):
        problems.append(
            f"All images of the {_classes(single)} are of one group: such a class cannot be "
            "both in training and in test. Add images of another sample."
        )
    problems += _about_giveaways(by_class)
    if report.blank_files:
        problems.append(
            f"{_files(len(report.blank_files))} blank, all pixels equal: "
            f"{name_some(report.blank_files)}. Delete {_them(report.blank_files)}."
        )
    if report.small_files:
        problems.append(
            f"{_have(report.small_files)} fewer than {MIN_SIDE} rows or columns, as spectra or "
            f"icons do: {name_some(report.small_files)}. Delete {_them(report.small_files)}."
        )
    if layout.files and layout.loose:
        problems.append(
            f"{_files(len(layout.loose))} beside the class folders, without a class, and so not "
            f"checked: {name_some([file.name for file in layout.loose])}. Move or delete "
            f"{_them(layout.loose)}."
        )
    return problems


def list_problems_across(report: FolderReport) -> list[str]:
    """Return the problems of two folders, of which `report` has only copies across both."""
    kinds = {"exact": report.exact_copies, "near": report.near_copies}
    return _about_bad_files(report) + [
        f"{_sets(len(sets))} of {kind} copies across the folders: {_example(sets)}. Delete them "
        "from one folder, or scores of a model trained on the other will be too good."
        for kind, sets in kinds.items()
        if sets
    ]


def list_notes(report: FolderReport, page: int) -> list[str]:
    notes = []
    counts = [count for count in report.class_counts.values() if count]
    if counts and max(counts) > _MAX_IMBALANCE * min(counts):
        notes.append(
            f"The largest class has {counted(max(counts), 'image')}, the smallest {min(counts)}; "
            "judge by scores of each class, not by accuracy alone."
        )
    if report.page_counts:
        notes.append(
            f"{_have(report.page_counts, 'file')} several pages, sections or frames, of which only "
            f"page {page} is read, counted from 0. Split them, or choose a page with --set page=1 "
            "(in Python, read_options), which is not possible for GIF, PNG and WebP."
        )
    if report.banner_files:
        notes.append(
            f"{_have(report.banner_files)} an information bar at the bottom: "
            f"{name_some(report.banner_files)}. Cut it off with --set banner=remove (in Python, "
            "read_options), or a model may learn from the bar instead of the specimen."
        )
    if report.implausible_files:
        notes.append(
            f"{_have(report.implausible_files)} a pixel size below 1 pm or above 1 mm, or that of "
            f"a page, which is not used: {name_some(report.implausible_files)}. Such images may be "
            "diffraction patterns, whose pixels are reciprocal lengths, or state the dots per inch "
            "of a print."
        )
    if report.top_bar_files:
        notes.append(
            f"{_have(report.top_bar_files)} an information bar or a caption at the top: "
            f"{name_some(report.top_bar_files)}. It is not cut off: crop it, or export without it."
        )
    if report.uneven_bars:
        shown = name_some([f"{file} ({rows})" for file, rows in report.uneven_bars.items()])
        notes.append(
            "Most images of one size have information bars of one height, except (rows of the "
            f"bar, 0 if none was found): {shown}. Look at them before bars are cut off."
        )
    if len(report.image_kinds) > 1:
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.image_kinds.items())
        notes.append(f"Kinds of pixels are mixed: {kinds}.")
    if report.group_counts is None:
        notes.append(
            "No groups are given, so each image counts as a sample of its own. If several images "
            "show one sample or micrograph, give a file of groups, or scores will be too good."
        )
    elif harmless := [s for s in report.exact_copies + report.near_copies if len(s.groups) == 1]:
        notes.append(
            f"{_sets(len(harmless))} of copies within one group; splits that take the groups keep "
            "them together."
        )
    return notes


def _have(files: Sized, what: str = "image") -> str:
    return f"{counted(len(files), what)} {verb(len(files), 'has', 'have')}"


def _them(files: Sized) -> str:
    return verb(len(files), "it", "them")


def _about_bad_files(report: FolderReport) -> list[str]:
    if not (bad := report.bad_files):
        return []
    return [
        f"{counted(len(bad), 'file')} cannot be read: {name_some([each.path for each in bad])}. "
        f"Replace or delete {_them(bad)}."
    ]


def _about_copies(report: FolderReport) -> list[str]:
    sentences = []
    apart = report.sets_left_apart
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
        if separated := [s for s in sets if s.crosses_groups]:
            sentences.append(
                f"{_sets(len(separated))} of {kind} copies in several groups: "
                f"{_example(separated)}. Give them one group, as {_GROUPS_WRITER} does, or "
                "scores will be too good."
            )
    for kind, sets in joined.items():
        if loose := [s for s in sets if not s.groups and not s.crosses_classes]:
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
    sentences += describe_names(layout)
    few = [(name, n) for name, n in report.class_counts.items() if n < _MIN_IMAGES]
    small = [f"{name} ({n})" for name, n in few if name not in layout.empty_classes]
    if small:
        sentences.append(
            f"Fewer than {_MIN_IMAGES} images in the {_classes(small)}: too few to "
            "learn from and to be tested on. Add images, or join classes."
        )
    return sentences


def _about_giveaways(by_class: ClassValues) -> list[str]:
    sentences = []
    for name in ("kind of pixels", "size in pixels"):
        values = by_class[name]
        n_classes = Counter(value for own in values.values() for value in own)
        if len(n_classes) < 2:
            continue
        # A class whose images all differ in size is not revealed by their sizes.
        single = {c: next(iter(own)) for c, own in sorted(values.items()) if len(own) == 1 and c}
        revealed = [f"{c} ({value})" for c, value in single.items() if n_classes[value] == 1]
        if revealed:
            sentences.append(
                f"The {name} gives the class away: only {', '.join(revealed[:5])} "
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
