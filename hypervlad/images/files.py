"""Finding and opening image files, and files beside them; names of files; small JPEGs."""

from __future__ import annotations

import fnmatch
import functools
import glob
import hashlib
import io
import os
import re
import stat
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hypervlad.common.limits import MAX_SIDECAR
from hypervlad.common.wording import counted, name_some, warn_user
from hypervlad.images.errors import ImageReadError, broken_link
from hypervlad.images.formats import N_HEAD, DecodedImage, file_kind
from hypervlad.images.metadata import SIDECAR_INSTRUMENTS, Entries

ZARR_SUFFIX = ".zarr"  # of folders that are images
_MUCH_LARGER = 4  # times the bytes of the usual file
_FILES_OF_ZARR = ("zarr.json", ".zgroup", ".zattrs")

#: Suffixes, in lower case, of images in a folder. A file given by name may have any suffix.
IMAGE_SUFFIXES = frozenset(
    [
        *(".png", ".bmp", ".dib", ".gif", ".webp", ".pgm", ".ppm", ".pnm", ".pbm"),
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".tif", ".tiff"),
        *(".dm3", ".dm4", ".mrc", ".mrcs", ".st", ".rec", ".ser", ".emd", ".dm5", ZARR_SUFFIX),
    ]
)


#: Folders, in lower case, that storage systems and file managers keep for thumbnails, deleted
#: files, snapshots and the like.
SYSTEM_FOLDERS = frozenset(
    [
        *("@eadir", "#recycle", "#snapshot", "@tmp"),  # Synology
        *("@recycle", "@recently-snapshot", ".@__thumb"),  # QNAP
        *("$recycle.bin", "recycler", "recycled", "system volume information"),  # Windows
        *("found.000", "_vti_cnf"),
        *("__macosx", "network trash folder", "temporary items", ".trashes"),  # macOS
        *(".appledouble", ".appledb", ".spotlight-v100", ".fseventsd"),
        *("lost+found", ".thumbnails", ".sh_thumbnails", ".trash-1000", ".trash"),  # Linux
        *(".snapshot", "~snapshot", ".zfs"),  # servers
        *(".picasaoriginals", ".dropbox.cache", ".ipynb_checkpoints", "__pycache__"),
    ]
)


def find_images(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
) -> list[Path]:
    """Find image files by files, folders and glob patterns.

    Parameters
    ----------
    paths : path, or iterable of paths
        Each is a file (with any name), a folder (searched recursively) or a glob pattern of files
        and folders, in which ``**`` matches sub-folders. An OME-Zarr folder is a file here.
    include, exclude : str or sequence of str, default=()
        Glob patterns, without regard to case. In a folder, only files that match one of `include`
        and none of `exclude` are found; by default, all are. A pattern with a slash, such as
        ``"2024/*"``, is compared with the path below the folder, others, such as ``"*.tif"``, with
        the file name.

    Returns
    -------
    files : list of Path
        Sorted, without duplicates. In folders and by patterns, those with the suffix of an
        image format (see :doc:`/reference/formats`), and ``.map`` if they are MRC files, except
        masks (``*_mask.*``), hidden files and folders, and folders of the system such as
        ``@eaDir``. Links to folders are followed once.

    Raises
    ------
    ImageReadError
        If a path does not exist, or contains no image.

    Warns
    -----
    UserWarning
        If sub-folders cannot be read or links are left out, or two files have one name but for its
        suffix, which are often one image.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.png", "a.TIF", "a_mask.png", "notes.txt"):
    ...         pathlib.Path(folder, name).touch()
    ...     [file.name for file in find_images(folder)]
    ['a.TIF', 'b.png']
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    include, exclude = ([p] if isinstance(p, str) else list(p) for p in (include, exclude))
    found: dict[str, Path] = {}
    real_folder = functools.cache(os.path.realpath)
    for path in paths:
        for file in _find_one(path, include, exclude):
            place = os.path.join(real_folder(file.parent), file.name)
            found.setdefault(os.path.normcase(place), file)
    if not found:
        raise ImageReadError("no paths were given; give at least one file, folder or pattern")
    files = sorted(found.values(), key=lambda file: file.as_posix())
    _warn_of_twins(files)
    return files


def _warn_of_twins(files: Sequence[Path]) -> None:
    """Warn of images that were saved in several formats: other pixels, so no copies to others."""
    of_name = defaultdict[tuple[Path, str], list[Path]](list)
    for file in files:
        if file.suffix.lower() in IMAGE_SUFFIXES:  # not series such as a.001, a.002
            of_name[file.parent, file.stem.casefold().removesuffix(".ome")].append(file)
    if twins := [each for each in of_name.values() if len(each) > 1]:
        named = [
            " and ".join([str(first), *(file.name for file in rest)]) for first, *rest in twins
        ]
        warn_user(
            f"files that differ in their suffix only: {name_some(named)}. If they show one image, "
            "it counts more than once: keep one of them there"
        )


def _find_one(path: object, include: Sequence[str], exclude: Sequence[str]) -> list[Path]:
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise ImageReadError(f"{path!r}: expected a path, got {type(path).__name__}")
    if not text.strip():
        raise ImageReadError(
            "'': an empty path; give a file, a folder or a pattern such as '*.tif'"
        )
    if os.path.isdir(text) and not is_zarr(text):
        files = list(filter(_is_image, map(Path, list_files(text))))
        if files and (include or exclude):
            files = [file for file in files if _matches(file.relative_to(text), include, exclude)]
            if not files:
                raise ImageReadError(
                    f"{text}: no image matches include={list(include)}, exclude={list(exclude)}; "
                    "patterns look like '*.tif' (names) or 'folder/*' (files in a sub-folder)"
                )
    elif os.path.exists(text):
        return [Path(text)]
    elif glob.has_magic(text):
        searches = _searches_of(text)
        for search in searches:
            search.warn()
        found = (Path(file) for search in searches for file in search.files)
        files = _without_links_first(filter(_is_image, found))
    elif os.path.islink(text):
        raise broken_link(text, text)
    else:
        raise ImageReadError(f"{text}: no such file or folder; check the path for typing errors")
    if not files:
        raise ImageReadError(
            f"{text}: no images here; looked for {', '.join(sorted(IMAGE_SUFFIXES))} "
            "(masks, *_mask.*, hidden files and folders such as @eaDir are left out)"
        )
    return files


def list_matches(pattern: str) -> list[str]:
    """Return the files that match a glob pattern, unsorted; without warnings."""
    return [file for search in _searches_of(pattern) for file in search.files]


def _searches_of(pattern: str) -> list[_Search]:
    """Search what a pattern matches: from ``**`` on as folders, as links may form loops."""
    parts = Path(pattern).parts
    rest = parts[parts.index("**") :] if "**" in parts else ()
    if rest and not any(part.startswith(".") for part in rest):
        start = os.path.join("", *parts[: -len(rest)]) or "."
        folders = glob.glob(start) if glob.has_magic(start) else [start]
        return [_Search.of(folder, rest) for folder in sorted(folders) if os.path.isdir(folder)]

    matches = map(Path, glob.glob(pattern, recursive=True))
    search, named = _Search(), {part.lower() for part in parts}
    folders = list[str]()
    for match in matches:
        is_folder = match.is_dir() and match.suffix.lower() != ZARR_SUFFIX
        names = {part.lower() for part in (match.parts if is_folder else match.parts[:-1])}
        is_left_out = (names - named) & SYSTEM_FOLDERS
        found = search.of_system if is_left_out else folders if is_folder else search.files
        found.append(str(match))
    return [search, *map(_Search.of, sorted(folders))]


def _without_links_first(files: Iterable[Path]) -> list[Path]:
    @functools.cache
    def n_links(folder: Path) -> int:
        return 0 if folder == folder.parent else n_links(folder.parent) + _is_link(str(folder))

    return sorted(files, key=lambda file: (n_links(file.parent), len(file.parts), file.as_posix()))


def ignored_files(
    paths: Iterable[str | os.PathLike[str]], used: Iterable[str | os.PathLike[str]] = ()
) -> Counter[str]:
    """Count by kind the files in folders, and of patterns, that `find_images` does not find.

    `used` are other files that are not ignored, such as a table of groups.
    """
    real_folder = functools.cache(os.path.realpath)

    def place_of(path: str | os.PathLike[str]) -> str:
        return os.path.join(real_folder(os.path.dirname(path)), os.path.basename(path))

    known = set(map(place_of, used))
    found: set[str] = set()
    of_system: set[str] = set()
    for path in paths:
        text = os.fspath(path)
        if os.path.isdir(text) and not is_zarr(text):
            searches = [_Search.of(text)]
        else:
            searches = [] if os.path.exists(text) else _searches_of(text)
        for search in searches:
            found.update(map(place_of, search.files))
            of_system.update(map(place_of, search.system_files()))
    known.update(name for file in found if _is_image(Path(file)) for name in sidecars(file))
    files = (Path(file) for file in found - known)
    counts = Counter(_kind(file) for file in files if not _is_image(file) and os.path.isfile(file))
    return counts + Counter({"in folders of the system": len(of_system)})


def _kind(file: Path) -> str:
    if file.name.startswith("."):
        return "hidden"
    suffix = file.suffix.lower()
    return "masks" if suffix in IMAGE_SUFFIXES else suffix or "without a suffix"


def is_zarr(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is that of a Zarr folder, which is one image, by suffix or content."""
    if not os.path.isdir(path):  # the usual case, in one look
        return False
    is_named = os.fspath(path).lower().endswith(ZARR_SUFFIX)
    return is_named or any(os.path.isfile(os.path.join(path, name)) for name in _FILES_OF_ZARR)


def sidecars(path: str | os.PathLike[str]) -> list[str]:
    """Return the files in which some instruments describe an image, whether they exist or not.

    Of Hitachi and JEOL (``NAME.txt``) and Tescan (``NAME-png.hdr`` or ``NAME.hdr``); if the suffix
    of the image is written in capitals, theirs may be.
    """
    stem, suffix = os.path.splitext(os.fspath(path))
    ends = [".txt", f"-{suffix[1:]}.hdr", ".hdr"]
    if suffix[1:2].isupper():
        ends += [end.upper() if suffix.isupper() else end.title() for end in ends]
    return [stem + end for end in dict.fromkeys(ends)]


def may_be_sidecar(path: str) -> bool:
    """Return whether this is a regular file, and small."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size <= MAX_SIDECAR


def add_sidecar(decoded: DecodedImage, path: Path) -> None:
    """Add what a file beside an image states; one that cannot be read counts as absent."""
    for sidecar in sidecars(path):
        if not may_be_sidecar(sidecar):
            continue
        try:
            with open(sidecar, "rb") as file:
                entries = Entries(file.read(MAX_SIDECAR))
        except OSError:
            continue
        for instrument, width in SIDECAR_INSTRUMENTS[sidecar[-4:].lower()].items():
            # Others describe another image, or are not of this instrument.
            if not width or entries.number(width) == decoded.pixels.shape[1]:
                decoded.add_entries(instrument, entries, os.path.basename(sidecar))


def file_stamp(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return the size of an image, bytes, and a digest of its times; None if there is none.

    Those of files beside it, and of all that is in a Zarr folder, count, too, so that what is kept
    about an image is compared with them. Archives and simple file systems give many files the same
    modification time, and they may be of one size: the system's own time tells if names were
    changed, and on Windows when each file was made.
    """
    try:
        status = [os.stat(path)]
        if is_zarr(path):
            for parent, folders, names in os.walk(path):
                status += [os.lstat(os.path.join(parent, name)) for name in [*folders, *names]]
    except (OSError, ValueError):
        return None
    for sidecar in sidecars(path):
        with suppress(OSError):
            status.append(os.stat(sidecar))
    times = repr([(each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in status])
    digest = hashlib.blake2b(times.encode(), digest_size=7).digest()
    return sum(each.st_size for each in status), int.from_bytes(digest)


def is_left_out(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def list_files(folder: str | os.PathLike[str]) -> list[str]:
    """Return all files of a folder and its sub-folders, searched as by `find_images`."""
    search = _Search.of(os.fspath(folder))
    search.warn()
    return search.files


@dataclass
class _Search:
    root: str = "."
    # Parts of a pattern from "**" on, which files below the folder match, or folders that contain
    # them; if empty, all do.
    pattern: tuple[str, ...] = ()
    # In no hidden folder and no folder of the system.
    files: list[str] = field(default_factory=list)
    # Folders of the system, and files in them.
    of_system: list[str] = field(default_factory=list)
    # Of folders that cannot be read.
    denied: list[OSError] = field(default_factory=list)
    # Links to folders that were searched before, or that contain this one.
    repeated: list[str] = field(default_factory=list)
    # Links to nothing, other than those named like an image, which fails when it is read.
    broken: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, folder: str, pattern: tuple[str, ...] = ()) -> _Search:
        """Search a folder: first without links, then through each link to a new folder."""
        found = cls(folder, pattern)
        # A link to a folder above would lead to everything that lies beside this one.
        places = {_place_of(str(above)) for above in Path(os.path.realpath(folder)).parents}
        links = found._search(folder, places)
        while links:  # sorted, so that the order on the disk does not matter
            links += found._search(links.pop(0), places)
            links.sort()
        found.files = found._matching(found.files)
        return found

    def system_files(self) -> list[str]:
        folders = filter(os.path.isdir, self.of_system)
        inside = [file for folder in folders for file in _Search.of(folder).files]
        return self._matching(inside) or [p for p in self.of_system if not os.path.isdir(p)]

    def _matching(self, files: list[str]) -> list[str]:
        if not self.pattern:
            return files
        parts = ((file, Path(file).relative_to(self.root).parts) for file in files)
        return [
            file
            for file, below in parts
            if any(_parts_match(below[: k + 1], self.pattern) for k in range(len(below)))
        ]

    def warn(self) -> None:
        # A file system may not say which folder it could not read.
        denied = [str(error.filename or self.root) for error in self.denied]
        reason = self.denied[0].strerror or self.denied[0] if denied else ""
        repeated = "to find no image twice and none above this folder"
        for paths, what, why in (
            (denied, "folder", f"which cannot be read ({reason})"),
            (self.repeated, "linked folder", repeated),
            (self.broken, "link", "whose target does not exist or cannot be reached"),
        ):
            if paths:
                below = (parts_below(Path(path), self.root) for path in paths)
                shown = name_some(["/".join(parts) or "." for parts in below])
                warn_user(f"{self.root}: {counted(len(paths), what)} left out, {why}: {shown}")

    def _search(self, start: str, places: set[Any]) -> list[str]:
        """Search a folder unless its place is known; return the links to folders in it."""
        links: list[str] = []
        for parent, folders, names in os.walk(start, onerror=self._note):
            try:
                place = _place_of(parent)
            except OSError as error:
                self._note(error)
                folders.clear()
                continue
            if place in places:
                self.repeated.append(parent)
                folders.clear()
                continue
            places.add(place)
            paths = {name: os.path.join(parent, name) for name in sorted(folders)}
            self.of_system += [p for name, p in paths.items() if name.lower() in SYSTEM_FOLDERS]
            shown = [name for name in paths if not is_left_out(name)]
            self.files += [paths[name] for name in shown if name.lower().endswith(ZARR_SUFFIX)]
            shown = [name for name in shown if not name.lower().endswith(ZARR_SUFFIX)]
            links += [paths[name] for name in shown if _is_link(paths[name])]
            folders[:] = [name for name in shown if not _is_link(paths[name])]
            for name in names:
                path = os.path.join(parent, name)
                is_file = _is_image(Path(path)) or not os.path.islink(path)
                (self.files if is_file or os.path.exists(path) else self.broken).append(path)
        return links

    def _note(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # deleted meanwhile
            self.denied.append(error)


def _parts_match(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        below = bool(parts) and not parts[0].startswith(".")
        return _parts_match(parts, pattern[1:]) or (below and _parts_match(parts[1:], pattern))
    if not parts or parts[0].startswith(".") or not fnmatch.fnmatch(parts[0], pattern[0]):
        return False
    return _parts_match(parts[1:], pattern[1:])


def _place_of(folder: str) -> Any:
    status = os.stat(folder)
    # Some file systems of Windows have no numbers of files.
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(folder)


def _is_link(folder: str) -> bool:
    is_junction = getattr(os.path, "isjunction", None)  # from Python 3.12, which does not follow it
    return os.path.islink(folder) or (is_junction is not None and is_junction(folder))


def _matches(path: Path, include: Sequence[str], exclude: Sequence[str]) -> bool:
    def matches(pattern: str) -> bool:
        text = path.as_posix() if "/" in pattern else path.name
        # Instruments write .TIF as well as .tif.
        return fnmatch.fnmatchcase(composed(text).lower(), composed(pattern).lower())

    return (not include or any(map(matches, include))) and not any(map(matches, exclude))


def _is_image(file: Path) -> bool:
    # macOS writes "._name" files to other disks: with an image suffix, but not images.
    if file.name.startswith(".") or file.stem.lower().endswith("_mask"):
        return False
    suffix = file.suffix.lower()
    return suffix in IMAGE_SUFFIXES or (suffix == ".map" and _is_mrc(file))


def _is_mrc(file: Path) -> bool:
    # Other programs write other things under the suffix of density maps.
    with suppress(OSError):
        if os.path.isfile(file):
            with file.open("rb") as opened:
                return file_kind(opened.read(N_HEAD)) == "MRC"
    return False


def large_last(files: Mapping[str, Path | None]) -> list[str]:
    """Return the names of files in their order, but much larger ones at the end.

    So a few mosaics do not keep all others waiting.
    """
    sizes = dict.fromkeys(files, 0)
    for name, file in files.items():
        with suppress(OSError):
            sizes[name] = os.path.getsize(file) if file else 0
    usual = sorted(sizes.values())[len(sizes) // 2] if sizes else 0
    return sorted(files, key=lambda name: sizes[name] > _MUCH_LARGER * usual)


def parts_below(file: Path, root: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the parts of a path relative to a folder, which need not contain it."""
    try:
        return Path(os.path.relpath(file, root)).parts
    except ValueError:  # on another drive, on Windows
        return path_parts(file.absolute().as_posix())


def composed(name: str) -> str:
    """Return a name in composed Unicode (NFC), as names are compared; macOS decomposes accents."""
    return unicodedata.normalize("NFC", name)


def find_as_named(folder: str | os.PathLike[str], path: str) -> Path | None:
    """Return the file or folder of a relative path, in either Unicode form."""
    found = os.fspath(folder)
    for part in PurePosixPath(path).parts:
        forms = dict.fromkeys((part, composed(part), unicodedata.normalize("NFD", part)))
        places = (os.path.join(found, form) for form in forms)
        if not (found := next(filter(os.path.exists, places), "")):
            return None
    return Path(found)


def path_parts(path: str) -> tuple[str, ...]:
    """Return the composed parts of a path, with either kind of slashes."""
    clean = PurePosixPath(composed(path).replace("\\", "/"))
    return tuple(part for part in clean.parts if part not in ("/", "."))


def is_below(name: Any) -> bool:
    """Return whether this, such as a cell of a table, is a relative path that stays in a folder."""
    if not isinstance(name, str) or os.path.isabs(name) or os.path.splitdrive(name)[0]:
        return False
    return ".." not in path_parts(name)


def folded(name: str) -> str:
    """Return a name as file systems compare it that do not distinguish A and a."""
    return composed(name).casefold()


def as_path(source: Any, name: str) -> Path:
    """Return the path of an image file; an ImageReadError, by this name, if it is none."""
    text = os.fspath(source)
    if not isinstance(text, str):
        raise ImageReadError(f"{name}: a path of bytes; decode it first with os.fsdecode")
    if not text.strip():
        raise ImageReadError(f"{name}: an empty path; give the path of an image file")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise ImageReadError(f"{name}: a web address, not a file; download it first")
    return Path(text)


def open_file(path: Path, name: str) -> BinaryIO:
    """Open an image file; an ImageReadError that says why if it cannot be."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ImageReadError(
                f"{name}: a folder, not an image file; hypervlad.images.find_images(folder) lists "
                "the images in it"
            )
        if not stat.S_ISREG(mode):
            raise ImageReadError(f"{name}: not a regular file (a device or a pipe); give a file")
        return path.open("rb")
    except ImageReadError:
        raise
    except FileNotFoundError as error:
        if path.is_symlink():
            raise broken_link(path, name) from None
        looked = "" if path.is_absolute() else f" (looked in {Path.cwd()})"
        raise ImageReadError(
            f"{name}: no such file{looked}; check the path for typing errors"
        ) from error
    except PermissionError as error:
        raise ImageReadError(
            f"{name}: permission denied; ask for read access, or close the program that has it"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = getattr(error, "strerror", None) or error
        raise ImageReadError(f"{name}: cannot be opened ({reason}); check the path") from error


def encode_jpeg(pixels: NDArray[np.floating[Any]], side: int, quality: int) -> bytes:
    """Encode an image in [0, 1] as JPEG, at most `side` pixels long."""
    image = Image.fromarray(np.round(255.0 * np.clip(pixels, 0.0, 1.0)).astype(np.uint8))
    if max(image.size) > side:
        # Averaging whole blocks first makes a scan of 100 megapixels hardly slower than reading it.
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    stream, is_small = io.BytesIO(), quality < 90
    image.save(stream, "JPEG", quality=quality, subsampling=2 * is_small, optimize=is_small)
    return stream.getvalue()
