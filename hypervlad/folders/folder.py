"""Labelled images: a folder with one sub-folder per class, or a table."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from hypervlad.common.tables import MODEL_SOURCE
from hypervlad.common.wording import counted, name_some, verb, warn_user
from hypervlad.folders.groups import (
    ImageFolderError,
    ImageFolderWarning,
    alike_classes,
    check_text,
    encoding_hint,
    file_at,
    find_columns,
    load_groups,
    read_cells,
)
from hypervlad.folders.particles import is_particle_table, labelled_particles
from hypervlad.folders.pixel_sizes import load_pixel_sizes
from hypervlad.images import ImageReadError, find_images
from hypervlad.images.files import composed, is_left_out, is_zarr, parts_below

_EXPECTED = "Expected path and label, and optionally group, in the first line"


def load_image_folder(
    source: str | os.PathLike[str],
    groups: str | os.PathLike[str] | None = None,
    *,
    pixel_sizes: str | os.PathLike[str] | None = None,
) -> Bunch:
    """List labelled images: those of a folder, whose sub-folders are the classes, or of a table.

    No image is opened.

    Parameters
    ----------
    source : path
        A folder with two or more sub-folders of images, see `hypervlad.images.find_images`. Or a
        CSV file with the columns ``path`` (relative to the table), ``label`` and optionally
        ``group``, or a table that ``hypervlad review export`` wrote. Or ``particles.csv`` of a
        :class:`hypervlad.particles.FoundFolder`, or a copy beside it, with a column ``class``:
        particles without a class, and those of the class "not a particle", are left out.
    groups : path, optional
        CSV file with the columns ``path`` and ``group``, one line per image; the end of a path,
        such as ``class/name.tif``, is enough. Images of one group (crops of one micrograph, frames
        of one sample) are never split between training and test. By default, those of a table; of
        particles, their micrographs.
    pixel_sizes : path, optional
        Table of ``hypervlad scale``, as in :func:`hypervlad.data.load_pixel_sizes`.

    Returns
    -------
    Bunch
        ``images`` : list of n str, sorted by their paths relative to ``root``, or of Particle.
        ``target`` : array of shape (n,), str, the class of each image.
        ``groups`` : array of shape (n,), str, or None.
        ``by_model`` : array of shape (n,), bool, whether a model gave the label (column
        ``source``).
        ``target_names`` : list of the classes, sorted.
        ``root`` : str, the folder, or that of the table.
        ``pixel_sizes`` : PixelSizes or None, for ``read_options={"pixel_size": ...}``.

    Raises
    ------
    ImageFolderError
        A ValueError: fewer than two classes, groups that do not match the images one to one, or a
        line of a table that is incomplete, contradicts another, or names a missing image.

    Warns
    -----
    ImageFolderWarning
        If folders, images or lines of a table are ignored, or names are ambiguous.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from hypervlad.data import load_image_folder
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("fiber/1.png", "matrix/1.png", "matrix/1_mask.png"):
    ...         pathlib.Path(root, name).parent.mkdir(exist_ok=True)
    ...         pathlib.Path(root, name).touch()
    ...     folder = load_image_folder(root)
    >>> folder.target.tolist(), folder.groups
    (['fiber', 'matrix'], None)
    """
    if is_particle_table(source):
        if pixel_sizes is not None:
            raise ImageFolderError(
                f"{os.fspath(source)}: particles have the pixel size that they were found with; "
                f"give {os.fspath(pixel_sizes)} to 'hypervlad particles find'."
            )
        return labelled_particles(Path(source).expanduser(), groups)
    layout = scan_images(source)
    check_classes(layout)
    warn_of_oddities(layout)
    return Bunch(
        images=[str(file) for file in layout.files],
        target=np.array(layout.labels),
        groups=layout.load_groups(groups),
        by_model=np.array(layout.by_model or [False] * len(layout.files)),
        target_names=sorted(set(layout.labels)),
        root=str(layout.root),
        pixel_sizes=None if pixel_sizes is None else load_pixel_sizes(pixel_sizes, layout.files),
    )


def scan_images(source: str | os.PathLike[str]) -> FolderLayout:
    is_path = isinstance(source, str | os.PathLike)
    is_table = is_path and os.path.isfile(os.path.expanduser(source))
    return scan_table(source) if is_table else scan_folder(source)


@dataclass
class FolderLayout:
    root: Path  # the folder, or that of the table
    files: list[Path]  # those with a class, sorted by `relative`: the same order on every system
    labels: list[str]  # in composed Unicode
    loose: list[Path]  # images directly in `root`
    empty_classes: list[str]
    # Of a table:
    table: Path | None = None
    groups: list[str] | None = None
    by_model: list[bool] | None = None  # whether a model gave the label

    def relative(self, file: Path) -> str:
        """Return a file's path under ``root``, with forward slashes."""
        return "/".join(parts_below(file, self.root))

    @property
    def images(self) -> list[Path]:
        """Those with a class or, of a folder of unsorted images, all."""
        return self.files or self.loose

    def load_groups(self, groups: str | os.PathLike[str] | None) -> NDArray[np.str_] | None:
        """Return the groups of `images`."""
        if self.groups is None:
            return None if groups is None else load_groups(self.images, self.root, groups)
        if groups is not None:
            raise ImageFolderError(
                f"{self.table}: has a column of groups, and so has {os.fspath(groups)}; give one"
            )
        return np.array(self.groups)


def scan_folder(directory: str | os.PathLike[str]) -> FolderLayout:
    root = _existing_folder(directory)
    try:
        found = find_images(root)
    except ImageReadError:
        found = []
    found.sort(key=lambda file: file.relative_to(root).as_posix())
    files = [file for file in found if file.parent != root]
    loose = [file for file in found if file.parent == root]
    labels = [composed(file.relative_to(root).parts[0]) for file in files]
    folders = filter(os.path.isdir, set(root.iterdir()) - set(found))
    class_folders = [composed(path.name) for path in folders if not is_left_out(path.name)]
    return FolderLayout(root, files, labels, loose, sorted(set(class_folders) - set(labels)))


def check_classes(layout: FolderLayout) -> None:
    root = layout.root
    for link, name in _links_to_classes(layout):
        raise ImageFolderError(
            f"{root}: the class {link} is a link into the folder of the class {name}, so the same "
            "images would be in two classes. Decide which class is right, and remove the link."
        )
    if not layout.files:
        if layout.loose:
            raise ImageFolderError(
                f"{root}: {counted(len(layout.loose), 'image')} "
                f"{verb(len(layout.loose), 'lies', 'lie')} directly in this folder; expected one "
                "sub-folder per class with the images inside. Move images into sub-folders named "
                "after their classes."
            )
        where = f"its sub-folders {name_some(layout.empty_classes)}" if layout.empty_classes else ""
        raise ImageFolderError(
            f"{root}: no images in it{' or in ' + where if where else ''}; expected one sub-folder "
            "per class with the images inside."
        )
    classes = sorted(set(layout.labels))
    if len(classes) < 2 and layout.table is not None:
        raise ImageFolderError(
            f"{layout.table}: images of one class only ({classes[0]!r}); expected at least two."
        )
    if len(classes) < 2:
        raise ImageFolderError(
            f"{root}: images of one class only ({classes[0]!r}); expected at least two sub-folders "
            "with images. If this is a single class of your data, give the folder above it."
        )


def _links_to_classes(layout: FolderLayout) -> Iterator[tuple[str, str]]:
    """Yield the class folders that are links into another class folder, and that one's name."""
    if layout.table is not None or not layout.empty_classes:
        return
    folders = [path for path in sorted(layout.root.iterdir()) if path.is_dir()]
    of_others = [path for path in folders if composed(path.name) not in layout.empty_classes]
    for link in folders:
        if composed(link.name) in layout.empty_classes:
            target = Path(os.path.realpath(link))
            for other in of_others:
                if Path(os.path.realpath(other)) in (target, *target.parents):
                    yield link.name, other.name


def describe_names(layout: FolderLayout) -> list[str]:
    """Return a sentence about classes of almost one name, and one about several Unicode forms."""
    sentences = []
    if alike := alike_classes(layout.labels):
        sentences.append(
            f"The classes {name_some(alike)} differ only in upper and lower case. They are "
            "separate classes to a model: spell them alike if they are one."
        )
    if same := _names_in_several_forms(layout):
        sentences.append(
            f"Stored in several Unicode forms: {name_some(same)}. macOS writes accents in another "
            "way than other systems. Folders of one name are one class: check whether their images "
            "are copies, and give these names one form."
        )
    return sentences


def _names_in_several_forms(layout: FolderLayout) -> list[str]:
    spellings = defaultdict(set)
    for file in layout.files:
        parts = parts_below(file, layout.root)
        for n in range(1, len(parts) + 1):
            spellings[composed("/".join(parts[:n]))].add("/".join(parts[:n]))
    return sorted(name for name, stored in spellings.items() if len(stored) > 1)


def _existing_folder(directory: str | os.PathLike[str]) -> Path:
    if not isinstance(directory, (str, os.PathLike)):
        raise ImageFolderError(
            f"expected the path of a folder or a table of images, got {type(directory).__name__}."
        )
    if isinstance(directory, str) and not directory.strip():
        raise ImageFolderError("'': an empty path; give the folder that holds the class folders.")
    root = Path(directory).expanduser()
    if not root.exists():
        raise ImageFolderError(f"{root}: no such folder or table (looked in {Path.cwd()}).")
    return root


def warn_of_oddities(layout: FolderLayout) -> None:
    for sentence in describe_names(layout):
        warn_user(f"{layout.table or layout.root}: {sentence}", ImageFolderWarning)
    if layout.empty_classes:
        warn_user(
            f"{layout.root}: no images in "
            f"{verb(len(layout.empty_classes), 'the sub-folder', 'these sub-folders')} "
            f"{name_some(layout.empty_classes)}; "
            "there will be no such class.",
            ImageFolderWarning,
        )
    if layout.loose:
        names = name_some([file.name for file in layout.loose])
        warn_user(
            f"{layout.root}: {counted(len(layout.loose), 'image')} beside the class folders left "
            f"out ({names}); move each into the folder of its class.",
            ImageFolderWarning,
        )


# --- tables --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    line: int
    path: str
    label: str
    group: str | None
    by_model: bool
    file: Path


def scan_table(table: str | os.PathLike[str]) -> FolderLayout:
    path = Path(table).expanduser()
    rows = _distinct(path, _read_rows(path))
    lacking = [row for row in rows if not (os.path.isfile(row.file) or is_zarr(row.file))]
    missing = [f"{row.path} (line {row.line})" for row in lacking]
    if missing:
        raise ImageFolderError(
            f"{path}: {len(missing)} of {counted(len(rows), 'image')} "
            f"{verb(len(missing), 'does', 'do')} not exist: {name_some(missing)}"
            f"{encoding_hint(missing)}. Paths are relative to the folder of the table, "
            f"{path.absolute().parent}."
        )
    layout = FolderLayout(path.parent, [], [], [], [], table=path)
    rows.sort(key=lambda row: layout.relative(row.file))
    layout.files.extend(row.file for row in rows)
    layout.labels.extend(row.label for row in rows)
    layout.by_model = [row.by_model for row in rows]
    if rows[0].group is not None:
        layout.groups = [str(row.group) for row in rows]
    return layout


def _read_rows(table: Path) -> list[_Row]:
    lines = read_cells(table, "path, label")
    if not lines:
        raise ImageFolderError(f"{table}: empty. {_EXPECTED}.")
    (_, header), *lines = lines
    columns = find_columns(header)
    if {"micrograph", "particle"} <= set(header):
        raise ImageFolderError(f"{table}: a table of particles; only tables of images are checked.")
    if lacking := [name for name in ("path", "label") if name not in columns]:
        raise ImageFolderError(
            f"{table}: no column is called {' or '.join(lacking)}; its columns are "
            f"{', '.join(header)}. {_EXPECTED}."
        )
    if not lines:
        raise ImageFolderError(f"{table}: a header and nothing below it. {_EXPECTED}.")
    cells = {
        name: [row[column] if column < len(row) else "" for _, row in lines]
        for name, column in columns.items()
    }
    numbers = [number for number, _ in lines]
    sources = cells.pop("source", [""] * len(numbers))
    for name, values in cells.items():
        _check_filled(table, name, numbers, values)
    if "group" in columns and "group" not in header[columns["group"]].lower():
        warn_user(
            f"{table}: images with the same {header[columns['group']].strip()} are taken for one "
            "group; call this column group to confirm it, or give it a name of another meaning.",
            ImageFolderWarning,
        )
    groups = cells.get("group", [None] * len(numbers))
    return [
        _Row(
            number,
            path,
            composed(label.strip()),
            group and composed(group.strip()),
            source.strip().lower() == MODEL_SOURCE,
            file_at(table.parent, path),
        )
        for number, path, label, group, source in zip(
            numbers, cells["path"], cells["label"], groups, sources, strict=True
        )
    ]


def _check_filled(table: Path, name: str, numbers: Sequence[int], values: Sequence[str]) -> None:
    pairs = list(zip(numbers, values, strict=True))
    if lacking := [str(number) for number, value in pairs if not value.strip()]:
        raise ImageFolderError(
            f"{table}: no {name} in {verb(len(lacking), 'line', 'lines')} {name_some(lacking)}. "
            f"Give each line a {name}, or delete it."
        )
    if name != "path":
        for number, value in pairs:
            check_text(table, number, value)


def _distinct(table: Path, rows: Sequence[_Row]) -> list[_Row]:
    """Return each image once; an image with two labels or groups is an error."""
    first: dict[str, _Row] = {}
    repeated, contradictions = [], []
    for row in rows:
        before = first.setdefault(os.path.normcase(os.path.abspath(row.file)), row)
        if before is row:
            continue
        repeated.append(f"{row.path} (lines {before.line} and {row.line})")
        for one, other in ((before.label, row.label), (before.group, row.group)):
            if one != other:
                contradictions.append(
                    f"{row.path} is {one} (line {before.line}) and {other} (line {row.line})"
                )
    if contradictions:
        raise ImageFolderError(
            f"{table}: {name_some(contradictions)}. An image has one label and one group; delete "
            "the wrong lines."
        )
    if repeated:
        warn_user(
            f"{table}: {counted(len(repeated), 'line')} that "
            f"{verb(len(repeated), 'repeats', 'repeat')} an earlier one ignored: "
            f"{name_some(repeated)}.",
            ImageFolderWarning,
        )
    return list(first.values())
