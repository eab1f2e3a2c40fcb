"""Outlines in a folder of found particles: its own, and those that people corrected elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from hypervlad.common.files import file_digest, replace_when_complete
from hypervlad.common.tables import Journal
from hypervlad.common.wording import counted, name_some, warn_user
from hypervlad.images.errors import ImageReadError
from hypervlad.images.files import IMAGE_SUFFIXES, composed, list_files
from hypervlad.images.masks import all_of_name, matches_by_name
from hypervlad.images.morphology import EIGHT
from hypervlad.objects.detection import Detection
from hypervlad.objects.fields import Field
from hypervlad.objects.outline_names import (
    images_listed,
    is_marked,
    is_of_outlines,
    outlines_of_fields,
)
from hypervlad.objects.outlines import read_outlines, write_outlines
from hypervlad.objects.particle import Outline, Outlines
from hypervlad.objects.polygon_files import NOT_READ, coco_of, joined_coco, json_of, open_json

if TYPE_CHECKING:
    import pandas as pd

CORRECTIONS, EDITS = "corrections.jsonl", "edits.sqlite"
_FORMATS = {"geojson": ".geojson", "roi": ".zip"}  # names of folders, and suffixes
COCO = "coco.json"  # of all fields
_OWN = (".geojson", ".tif")  # of outlines in the folder; a label image has no overlaps or classes


def digest_of(outlines: Outlines) -> str:
    """Return the beginning of a digest of outlines and their classes, whatever file has them."""
    found = hashlib.sha256()
    for each in outlines:
        found.update(f"{each.label} {each.box} {each.class_name}".encode())
        found.update(np.packbits(each.mask).tobytes())
    return found.hexdigest()[:16]


class OutlineFiles:
    """The outlines of fields: a.tif and a.png are two."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "outlines"
        self.unused, self.not_read = list[str](), list[str]()
        #: A line for each file of corrected outlines that was used, or of another format that was
        #: written: field, file, and digests; and for the edits of a field whether it is done.
        self._used = Journal(folder / CORRECTIONS)
        self._known = dict[tuple[str, str], list[str]]()  # its digests, as `corrected` read them
        self._coco = folder / COCO

    def path(self, name: str) -> Path:
        """Return the file of a field; of two, which a person has made, the younger."""
        files = [self.folder / f"{name}{suffix}" for suffix in _OWN]
        there = [file for file in files if file.exists()]
        return max(there, key=lambda file: file.stat().st_mtime_ns) if there else files[-1]

    def digest(self, name: str) -> str | None:
        file = self.path(name)
        return file_digest(file) if file.exists() else None

    def read(self, name: str, shape: tuple[int, int] | None) -> Outlines:
        file = self.path(name)
        return read_outlines(file, shape=None if file.suffix == ".tif" else shape)

    def write(self, name: str, outlines: Outlines, pixel_size: float | None = None) -> None:
        """Write the outlines of a field, as polygons if a label image cannot contain them."""
        _write(self.folder / name, outlines, pixel_size)

    def note_mark(self, name: str, *, is_done: bool) -> None:
        """Write down whether a person has marked a field as done in ``hypervlad app``."""
        self._used.add([name, EDITS, "done" if is_done else "", ""])

    def marks(self) -> dict[str, bool]:
        """Return whether fields that were edited or marked in ``hypervlad app`` are done."""
        lines = self._used.read(lambda line: (line[0], line[1], line[2]))
        return {name: state == "done" for name, file, state in lines if file == EDITS}

    def is_as_found(self, name: str) -> bool:
        kept, _ = self._numbered("replaced", name)
        return bool(kept) and self.digest(name) == file_digest(kept[0])

    def write_found(self, name: str, outlines: Outlines, pixel_size: float | None) -> None:
        """Write outlines that were just found, and keep them: others may be saved over them."""
        _write(self.folder.with_name("replaced") / f"{name}-1", outlines, pixel_size)
        self.write(name, outlines, pixel_size)

    def corrected(self, images: Path, names: Iterable[str]) -> dict[str, list[tuple[Path, str]]]:
        """Return files of outlines that people have saved in other programs, and their digests.

        What :func:`read_outlines` reads, named like its image, in the folder of outlines or beside
        the image, where it must be younger than the outlines here, if there are any; and files of
        other formats that are not as they were written here. Those that were used, as they are,
        are left out; `unused` are those that are called like no image, and `not_read` those that
        are, but are of no such format. A folder of masks counts as a file.
        """
        fields = list(names)
        self._known = dict(self._used.read(lambda line: ((line[0], line[1]), line[2:])))
        by_field = self._inside(fields)
        for name, files in self._beside(images, fields).items():
            by_field[name] += files
            by_field[name] += [each for each in self._in_formats(name).values() if each.is_file()]
        if self._is_coco_saved():
            open_json(self._coco, str(self._coco))  # or say why it cannot be read
            of_coco = outlines_of_fields(fields, [self._coco], self.folder.parent)
            self.unused += [] if any(of_coco.values()) else [f"{COCO}{_listed(self._coco)}"]
            for name, files in of_coco.items():
                by_field[name] += files
        there = dict.fromkeys(file for files in by_field.values() for file in files)
        digests = {file: _digest_of_all(file) for file in there}
        others = {self._key(file): _listed(file, fields) for file in there}
        self.unused += [f"{key}{names}" for key, names in others.items() if names]
        new = defaultdict[str, list[tuple[Path, str]]](list)
        for name, files in by_field.items():
            for file in files:
                if self._digests_of(name, file)[0] != digests[file]:
                    new[name].append((file, digests[file]))
        return dict(new)

    def _inside(self, fields: Sequence[str]) -> dict[str, list[Path]]:
        """Return files in the folder of outlines, and folders of masks, and note other files."""
        own = {self.folder / f"{name}{suffix}" for name in fields for suffix in _OWN}
        files = sorted(map(Path, list_files(self.folder))) if self.folder.is_dir() else []
        inside = [file for file in files if is_of_outlines(file) and file not in own]
        found = outlines_of_fields(fields, inside, self.folder)
        used = {file for of_field in found.values() for file in of_field}
        # Masks of the particles of one image, unless the folder is one of images, too.
        folders = {file.parent for file in inside if file.suffix.lower() in IMAGE_SUFFIXES}
        folders -= {each.parent for each in used | own} | {self.folder}
        for name, masks in outlines_of_fields(fields, folders, self.folder).items():
            found[name] += masks
            used |= {*masks}
        self.unused = [
            f"{self._key(file)}{_listed(file)}" for file in inside if not used & {file, file.parent}
        ]
        stems = defaultdict[str, list[Path]](list)
        for file in files:
            if not is_of_outlines(file):
                stem = file.relative_to(self.folder).with_suffix("").as_posix()
                stems[composed(stem)].append(file)
        called = {each for name in fields for each in all_of_name(Path(os.sep, name), stems)}
        self.not_read = [file.name for file in files if file in called]
        return found

    def _beside(self, images: Path, fields: Sequence[str]) -> dict[str, list[Path]]:
        """Return files beside the images that are younger than the outlines here."""
        beside = list[Path]()
        for folder in {images / os.path.dirname(name) for name in fields}:
            files = [Path(each) for each in os.scandir(folder)] if folder.is_dir() else []
            beside += [file for file in files if is_marked(file) and file.is_file()]
        # Images are not outlines, whatever they are called.
        are_images = {images / name for name in fields}
        beside = [file for file in beside if file not in are_images]
        found = outlines_of_fields(fields, beside, images)
        for name, files in found.items():
            path = self.path(name)
            age = path.stat().st_mtime_ns if path.exists() else 0
            found[name] = [file for file in files if file.stat().st_mtime_ns > age]
        return found

    def _digests_of(self, name: str, file: Path) -> list[str]:
        """Return the digests of a file and of its outlines, when it was used or written."""
        return self._known.get((name, self._key(file)), [""])

    def _key(self, file: Path) -> str:
        """Return the name of a file in the journal, which stays true if the folder is moved."""
        root = self.folder.parent
        return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)

    def note_used(self, name: str, file: Path, digest: str, outlines: Outlines) -> None:
        """Write down that a file of corrected outlines was used, after its outlines."""
        self._known[name, self._key(file)] = [digest, digest_of(outlines)]
        self._used.add([name, self._key(file), digest, digest_of(outlines)])

    def _in_formats(self, name: str) -> dict[str, Path]:
        """Return where the outlines of a field are in other formats, if they are written."""
        root = self.folder.parent
        return {kind: root / kind / f"{name}{suffix}" for kind, suffix in _FORMATS.items()}

    def _without_written_classes(
        self, name: str, own: Outlines, shape: tuple[int, int], table: pd.DataFrame
    ) -> Outlines:
        """Return outlines of another format without the classes that were written with them.

        Those of a model stay the model's, unless a person has changed the class or the outline.
        """
        rows, classes = table[table["micrograph"] == name], dict[int, str]()
        if "class" in table:
            classes = dict(zip(rows["particle"], rows["class"].fillna(""), strict=True))
        here = self.read(name, shape) if self.path(name).exists() else ()
        before = {(each.box, each.mask.tobytes()): each for each in here}
        found = list[Outline]()
        for each in own:
            old = before.get((each.box, each.mask.tobytes()))
            if old and classes.get(old.label, old.class_name) == each.class_name:
                each = replace(each, class_name=old.class_name)
            found.append(each)
        return replace(own, outlines=tuple(found))

    def take_corrected(
        self,
        images: Path,
        fields: Mapping[str, Field],
        measured: Mapping[str, Any],
        table: pd.DataFrame,
    ) -> tuple[dict[str, Path], dict[str, ImageReadError]]:
        """Use the outlines that people have saved in other programs.

        `measured` are the digests of the outlines here that were measured last, and `table` is
        that of particles. Return the files that were used, and why others cannot be, by field.
        """
        taken, failed = dict[str, Path](), dict[str, ImageReadError]()
        said, empty, strange = list[str](), list[str](), list[str]()
        for name, files in self.corrected(images, fields).items():
            field, (file, digest) = fields[name], files[0]
            is_ours = file in (self._coco, *self._in_formats(name).values())
            same = {self._digests_of(name, file)[-1]}
            try:
                own = read_outlines(file, shape=field.shape, image=name)
                if file == self._coco and len(files) == 1 and digest_of(own) in same:
                    self.note_used(name, file, digest, own)  # that of another image was corrected
                    continue
                if is_ours:
                    own = self._without_written_classes(name, own, field.shape, table)
                    same.add(self._digest_here(field))
                self._check_only(field, files, measured[name], own)
            except ImageReadError as error:
                # Beside an image, other files may be called like it.
                if len(files) == 1 and not (is_ours or file.is_relative_to(self.folder)):
                    strange.append(str(error))
                else:
                    failed[name] = error
                continue
            if not (len(own) or is_ours):
                empty.append(f"{name} ({file})")
            elif digest_of(own) not in same:
                self.keep_replaced(name)
                self.write(name, own, field.pixel_size or own.pixel_size)
                taken[name] = file
                said.append(f"{name} ({counted(len(own), 'outline')} of {file})")
            # Otherwise another image of the file was corrected.
            self.note_used(name, file, digest, own)
        texts = {
            f"{self.folder.parent}: {counted(len(self.unused), 'file')} not used, or not wholly, "
            f"as no image is called so: {name_some(self.unused)}": self.unused,
            f"{self.folder}: {name_some(self.not_read)} not used: {NOT_READ}": self.not_read,
            f"not used as corrected outlines: {'; '.join(strange)}": strange,
            f"{counted(len(empty), 'file')} without outlines of the image, whose outlines stay as "
            f"they are: {name_some(empty)}": empty,
            f"the outlines of {counted(len(said), 'image')} were corrected in another program, and "
            f"are used: {name_some(said)}": said,
        }
        for text in filter(texts.get, texts):
            warn_user(text)
        return taken, failed

    def _check_only(
        self, field: Field, files: Sequence[tuple[Path, str]], measured: Any, own: Outlines
    ) -> None:
        """Raise an ImageReadError if a person has corrected two files, or also the one here."""
        there = [file for file, _ in files]
        is_changed = isinstance(measured, str) and self.digest(field.micrograph) != measured
        # A run that was stopped has written the same here.
        if is_changed and self._digest_here(field) not in ("", digest_of(own)):
            there.append(self.path(field.micrograph))
        if len(there) > 1:
            raise ImageReadError(
                f"{field.micrograph}: corrected in two files, {there[0]} and {there[1]}; keep one"
            )

    def _digest_here(self, field: Field) -> str:
        """Return the digest of the outlines here, "" if there are none."""
        is_here = self.path(field.micrograph).exists()
        return digest_of(self.read(field.micrograph, field.shape)) if is_here else ""

    def remove(self, name: str, outlines: Outlines, labels: Iterable[int]) -> int:
        """Move outlines of a field into a new file of removed ones; return how many were there."""
        is_wrong = np.isin([outline.label for outline in outlines], list(labels))
        if is_wrong.any():
            _write(self._numbered("removed", name)[1], outlines[is_wrong])
            self.write(name, outlines[~is_wrong])
        return int(is_wrong.sum())

    def n_removed(self, name: str, shape: tuple[int, int]) -> int:
        files, _ = self._numbered("removed", name)
        return sum(len(read_outlines(file, shape=shape)) for file in files)

    def _numbered(self, folder: str, name: str) -> tuple[list[Path], Path]:
        """Return what is kept of a field in a folder, in order, and the stem of the next file."""
        files, found = list[Path](), [Path()]
        while found:
            stem = self.folder.with_name(folder) / f"{name}-{len(files) + 1}"
            found = [each for suffix in _OWN if (each := Path(f"{stem}{suffix}")).exists()][:1]
            files += found
        return files, stem

    def keep_replaced(self, name: str) -> None:
        """Keep the outlines of a field, before others replace them, in a folder of their own.

        There, the first are those that were found; where a person drew them, the last number is 0.
        """
        file, (kept, stem) = self.path(name), self._numbered("replaced", name)
        stem = stem if kept else stem.with_name(f"{stem.name.removesuffix('-1')}-0")
        if file.exists() and not (kept and file_digest(file) == file_digest(kept[-1])):
            new = Path(f"{stem}{file.suffix}")
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, new)

    def detection(
        self, fields: Sequence[Field], cut: Mapping[str, Sequence[int]], min_area: int
    ) -> Detection | None:
        """Return what finding missed and invented in fields whose found outlines were replaced.

        In nanometres, of those with a pixel size, if any field has one, as only these are counted
        then. Outlines that margins `cut` off, by fields, are none: finding leaves them out. None if
        those that were found are kept of no field.
        """
        pairs, is_scaled = list[Any](), any(field.pixel_size for field in fields)
        for field in fields:
            if not field.by_person or (is_scaled and not field.pixel_size):
                continue
            kept, _ = self._numbered("replaced", field.micrograph)
            if kept and self.path(field.micrograph).exists():
                found = read_outlines(kept[0], shape=field.shape)
                own = self.read(field.micrograph, field.shape)
                labels = [each.label for each in own]
                own = own[~np.isin(labels, cut.get(field.micrograph, ()))]
                pairs.append((own.label_image(), found.label_image(), field.pixel_size or 1.0))
        return Detection.of(pairs, "nm" if is_scaled else "px", min_area) if pairs else None

    def formats(self) -> list[str]:
        """Return the other formats that the folder has: each is written anew with its outlines."""
        found = [kind for kind in _FORMATS if (self.folder.parent / kind).is_dir()]
        return [*found, "coco"] if self._coco.exists() else found

    def write_formats(
        self,
        of_field: Callable[[str], tuple[Outlines, pd.DataFrame]],
        changed: Iterable[str],
        names: Sequence[str],
        formats: Sequence[str],
    ) -> None:
        """Write the outlines of changed fields in given formats, and those that the folder has.

        `of_field` returns the outlines and the rows of each of all fields, `names`. A file that a
        person has saved since it was read is a correction, and not overwritten.
        """
        wanted, of_coco = {*formats, *self.formats()}, dict[str, Outlines]()
        for name in changed if wanted else ():
            outlines, table, classified = _classified(*of_field(name))
            for kind, file in self._in_formats(name).items():
                before = self._digests_of(name, file)[0]
                if kind not in wanted or (file.exists() and file_digest(file) != before):
                    continue
                if kind == "geojson":
                    write_outlines(file, classified, measures=table)
                else:
                    write_outlines(file, outlines)
                if (digest := file_digest(file)) != before:
                    self.note_used(name, file, digest, outlines)
            if "coco" in wanted:
                of_coco[name] = classified
        # Once more, as what is between takes time.
        if of_coco and not self._is_coco_saved():
            content = self._coco_content(of_field, of_coco, names)
        if of_coco and self._is_coco_saved():
            warn_user(
                f"{self._coco}: not written anew, as another program has saved it; to have the "
                "outlines as they are now, move it away and count with --format coco"
            )
        elif of_coco:
            with replace_when_complete(self._coco) as stream:
                stream.write(content)
            digest = file_digest(self._coco)
            for name, each in [("", Outlines((0, 0), ())), *of_coco.items()]:
                self.note_used(name, self._coco, digest, each)

    def _coco_content(
        self,
        of_field: Callable[[str], tuple[Outlines, pd.DataFrame]],
        of_coco: dict[str, Outlines],
        names: Sequence[str],
    ) -> bytes:
        """Return a file of COCO of all fields, and add those that it did not have to `of_coco`.

        What is there is as it was written here.
        """
        known: dict[str, Any] = {"images": [], "annotations": []}
        if self._coco.exists():
            known = json.loads(self._coco.read_bytes())
        others = {*names} - {*of_coco}
        known["images"] = [each for each in known["images"] if each["file_name"] in others]
        for name in others - {each["file_name"] for each in known["images"]}:
            of_coco[name] = _classified(*of_field(name))[-1]
        new = [coco_of(of_coco[name], name) for name in names if name in of_coco]
        return json_of(joined_coco([known, *new]), str(self._coco))

    def _is_coco_saved(self) -> bool:
        """Return whether a person has saved the file of COCO since it was written."""
        known = self._digests_of("", self._coco)[0]
        return self._coco.exists() and file_digest(self._coco) != known


def _classified(outlines: Outlines, table: pd.DataFrame) -> tuple[Outlines, pd.DataFrame, Outlines]:
    """Return outlines, the measures of each, and them with the classes that a table of them has.

    A person may have deleted rows of the table.
    """
    rows = table.set_index("particle").reindex([each.label for each in outlines])
    if "class" not in rows:
        return outlines, rows, outlines
    kinds = zip(outlines, rows["class"].fillna(""), strict=True)
    own = tuple(replace(each, class_name=kind) for each, kind in kinds)
    return outlines, rows, replace(outlines, outlines=own)


def _listed(file: Path, fields: Iterable[str] = ()) -> str:
    """Return the names of the images that a file lists, and no field has, in brackets."""
    listed = images_listed(file)
    used = {id(each) for name in fields for each in matches_by_name(Path(os.sep, name), listed)}
    entries = (each for own in listed.values() for each in own if id(each) not in used)
    names = [str(each["file_name"]) for each in entries]
    return f" (its images: {name_some(list(dict.fromkeys(names)))})" if names else ""


def _digest_of_all(path: Path) -> str:
    """Return the digest of a file, or of the files in a folder of masks."""
    if path.is_file():
        return file_digest(path)
    own = sorted(f"{each.name} {file_digest(each)}" for each in path.iterdir() if each.is_file())
    return hashlib.sha256("\n".join(own).encode("utf-8", "surrogateescape")).hexdigest()


def _write(stem: Path, outlines: Outlines, pixel_size: float | None = None) -> None:
    # Named by their numbers, which tables have.
    own = tuple(replace(each, given_name="") for each in outlines)
    outlines = replace(outlines, outlines=own)
    other, chosen = (Path(f"{stem}{suffix}") for suffix in _OWN)
    # A label image of one label in several parts would be read as a mask of several particles.
    is_apart = len(own) == 1 and ndimage.label(own[0].mask, EIGHT)[1] > 1
    if is_apart or outlines.do_overlap or any(each.class_name for each in outlines):
        chosen, other = other, chosen
    write_outlines(chosen, outlines, pixel_size=pixel_size)
    other.unlink(missing_ok=True)
