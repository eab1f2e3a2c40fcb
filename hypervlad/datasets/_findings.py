"""What the facts about a folder mean for somebody who wants to train on it, in sentences."""

from __future__ import annotations

from hypervlad.datasets._layout import FolderLayout, ImageFolderError, check_classes, name_some
from hypervlad.datasets.report import CopySet, FolderReport

# A class must have images on both sides of a split, and a few to learn from.
_FEWEST_IMAGES = 5
_LARGEST_IMBALANCE = 20

ClassValues = dict[str, dict[str, set[str]]]


def list_problems(
    report: FolderReport, layout: FolderLayout, group_error: str | None, by_class: ClassValues
) -> list[str]:
    """Sentences about what must be dealt with, the most serious first."""
    problems = []
    try:
        check_classes(layout)
    except ImageFolderError as error:
        problems.append(str(error))
    if group_error:
        problems.append(f"The groups cannot be used: {group_error}")
    if report.bad_files:
        problems.append(
            f"{len(report.bad_files)} file(s) cannot be read: "
            f"{name_some([bad.path for bad in report.bad_files])}. Replace or delete them."
        )
    problems += _about_copies(report)
    problems += _about_classes(report, layout)
    problems += _about_groups(report, by_class)
    problems += _about_giveaways(by_class)
    if report.blank_files:
        problems.append(
            f"{_files(len(report.blank_files))} blank, every pixel alike: "
            f"{name_some(report.blank_files)}. Delete them."
        )
    if layout.files and layout.loose:
        problems.append(
            f"{_files(len(layout.loose))} beside the class folders, and so without a class: "
            f"{name_some([file.name for file in layout.loose])}. Move or delete them."
        )
    return problems


def list_notes(report: FolderReport) -> list[str]:
    """Sentences about what is unusual but may be right."""
    notes = []
    counts = [count for count in report.class_counts.values() if count]
    if counts and max(counts) > _LARGEST_IMBALANCE * min(counts):
        notes.append(
            f"The largest class has {max(counts)} images, the smallest {min(counts)}; judge by "
            "scores of each class, not by accuracy alone."
        )
    if len(report.image_kinds) > 1:
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.image_kinds.items())
        notes.append(f"Kinds of pixels are mixed: {kinds}.")
    if report.group_counts is not None:
        harmless = [s for s in report.exact_copies + report.near_copies if len(s.groups) == 1]
        if harmless:
            notes.append(
                f"{_sets(len(harmless))} of copies within one group; splits that take "
                "the groups keep them together."
            )
    return notes


def _about_copies(report: FolderReport) -> list[str]:
    sentences = []
    for kind, sets in (("exact", report.exact_copies), ("near", report.near_copies)):
        contradicting = [s for s in sets if s.crosses_classes]
        remedy = (
            "Decide which class is right and delete the others."
            if kind == "exact"
            else "Look at them: if a class is wrong, correct it; if both are right, keep them in "
            "one group (write_groups does)."
        )
        if contradicting:
            sentences.append(
                f"{_sets(len(contradicting))} of {kind} copies in several classes: "
                f"{_example(contradicting)}. {remedy}"
            )
    for kind, sets in (("exact", report.exact_copies), ("near", report.near_copies)):
        parted = [s for s in sets if s.crosses_groups]
        if parted:
            sentences.append(
                f"{_sets(len(parted))} of {kind} copies in several groups: {_example(parted)}. "
                "Give them one group (write_groups does), or scores will be too good."
            )
    for kind, sets in (("exact", report.exact_copies), ("near", report.near_copies)):
        loose = [s for s in sets if not s.groups and not s.crosses_classes]
        if loose:
            sentences.append(
                f"{_sets(len(loose))} of {kind} copies within a class: {_example(loose)}. "
                "A random split puts copies on both sides: delete them, or give a file of groups "
                "(write_groups, or --write-groups in a shell, makes one)."
            )
    return sentences


def _about_classes(report: FolderReport, layout: FolderLayout) -> list[str]:
    sentences = []
    if layout.files and layout.empty_classes:
        sentences.append(
            f"Without any image: the class folder(s) {name_some(layout.empty_classes)}. "
            "Fill or delete them."
        )
    small = [
        f"{name} ({count})"
        for name, count in report.class_counts.items()
        if count < _FEWEST_IMAGES and name not in layout.empty_classes
    ]
    if small:
        sentences.append(
            f"Fewer than {_FEWEST_IMAGES} images in the class(es) {name_some(small)}: too few to "
            "learn from and to be tested on. Add images, or join classes."
        )
    return sentences


def _about_groups(report: FolderReport, by_class: ClassValues) -> list[str]:
    single = sorted(c for c, groups in by_class["group"].items() if len(groups) == 1)
    if not single:
        return []
    return [
        f"All images of the class(es) {name_some(single)} are of one group: the class cannot be "
        "both in training and in test. Add images of another sample."
    ]


def _about_giveaways(by_class: ClassValues) -> list[str]:
    """Properties of the files, not of the specimens, by which a class can be told."""
    sentences = []
    for name in ("kind of pixels", "size in pixels"):
        values = by_class[name]
        if len(set().union(*values.values())) < 2:
            continue
        told = [
            c
            for c in sorted(values)
            if not values[c] & set().union(*(values[other] for other in values if other != c))
        ]
        # Where sizes are many, no two images alike, they tell nothing.
        told = [c for c in told if len(values[c]) == 1 and c]
        if told:
            shown = ", ".join(f"{c} ({next(iter(values[c]))})" for c in told[:5])
            sentences.append(
                f"The {name} gives the class away: only the class(es) {shown} have it. A model may "
                "learn the microscope or the export settings instead of the specimen; export all "
                "images alike."
            )
    return sentences


def _example(sets: list[CopySet]) -> str:
    files = sets[0].files
    shown = " = ".join(files[:3]) + (" = …" if len(files) > 3 else "")
    return shown if len(sets) == 1 else f"for example {shown}"


def _files(n: int) -> str:
    return "1 file is" if n == 1 else f"{n} files are"


def _sets(n: int) -> str:
    return "1 set" if n == 1 else f"{n} sets"
