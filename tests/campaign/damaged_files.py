"""Files whose bytes are changed, cut, moved and repeated at random, whatever their format."""

from __future__ import annotations

import csv
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from support.commands import TINY, run
from support.review_queues import CLASSES, entry
from support.tiny import make_tiny_encoder, register_tiny

import hypervlad
from hypervlad import extract_features, load_features
from hypervlad.apps.review import Queue, QueueError
from hypervlad.apps.review.database import make_queue
from hypervlad.common.modelfile import ModelFileError
from hypervlad.data.extraction import FeatureFileError
from hypervlad.data.folders import ImageFolderError
from hypervlad.data.folders.groups import read_group_rows
from hypervlad.images import ImageReadError, read_micrograph
from tests.campaign.case import Case
from tests.campaign.kills import kill, start

_N_PER_SEED = 200
_HEAD = 512  # bytes that are changed as often as all others together
# Numbers at which checks of sizes and offsets may fail.
_EDGES = (0, 1, 2, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1)


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Return bytes with one to four random changes."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        size = len(changed)
        at = int(rng.integers(min(size, _HEAD) if rng.random() < 0.5 else size)) if size else 0
        length = min(int(2 ** rng.uniform(0, 10)), size - at)
        match rng.integers(7):
            case 0:
                changed[at : at + 1] = rng.bytes(1)
            case 1:  # a bit
                changed[at : at + 1] = bytes(b ^ 1 << rng.integers(8) for b in changed[at : at + 1])
            case 2:  # a number of 1, 2, 4 or 8 bytes
                width, order = 2 ** int(rng.integers(4)), ("little", "big")[rng.integers(2)]
                number = _EDGES[rng.integers(len(_EDGES))] % 256**width
                changed[at : at + width] = number.to_bytes(width, order)
            case 3:
                del changed[at:]
            case 4:
                del changed[at : at + length]
            case 5:  # a block twice
                changed[at:at] = changed[at : at + length]
            case 6:
                changed[at : at + length] = bytes(length)
    return bytes(changed)


def _cases(seed: int, names: list[Path], attack: Callable[[Path], None]) -> Iterator[Case]:
    """Damage files in turn, each in its own place."""
    rng = np.random.default_rng(seed)
    sound = {path: path.read_bytes() for path in names}
    for path in names:
        yield Case(f"{path.name}, sound", partial(attack, path), (path,))
    for number in range(_N_PER_SEED):
        path = names[number % len(names)]
        path.write_bytes(damaged(sound[path], rng))
        yield Case(f"{path.name} of {path.parent.name}", partial(attack, path), (path,))
        path.write_bytes(sound[path])


# --- images -------------------------------------------------------------------------------------


def images(seed: int, folder: Path) -> Iterator[Case]:
    return _cases(seed, write_images(folder, np.random.default_rng(seed)), read_pixels)


def read_pixels(path: Path) -> None:
    """An image is read or refused."""
    try:
        found = read_micrograph(path)
    except ImageReadError:
        return
    assert np.isfinite(found.pixels).all()
    assert found.pixels.min() >= 0
    assert found.pixels.max() <= 1


def write_images(folder: Path, rng: np.random.Generator) -> list[Path]:
    """Write one image of each of many kinds."""
    grey = rng.integers(0, 256, (21, 30), dtype=np.uint8)
    colours = rng.integers(0, 256, (21, 30, 3), dtype=np.uint8)
    for suffix in ("png", "gif", "bmp", "jpg", "webp", "jp2", "pgm"):
        Image.fromarray(grey).save(folder / f"grey.{suffix}")
    for suffix in ("png", "bmp", "jpg", "webp", "jp2", "ppm"):
        Image.fromarray(colours).save(folder / f"colours.{suffix}")
    Image.fromarray(grey).convert("P").save(folder / "palette.png")
    Image.fromarray(grey).convert("1").save(folder / "bits.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "sixteen.png")
    for dtype in ("uint8", "int16", "uint16", "uint32", "float32", "float64"):
        data: NDArray[np.generic] = (grey / 3).astype(dtype)
        for name, options in {
            "plain": {},
            "big-endian": {"byteorder": ">"},
            "deflate": {"compression": "zlib", "predictor": np.dtype(dtype).kind != "f"},
            "tiles": {"tile": (16, 16)},
            "bigtiff": {"bigtiff": True},
        }.items():
            tifffile.imwrite(folder / f"{dtype}-{name}.tif", data, **options)
    tifffile.imwrite(folder / "pages.tif", np.stack([grey, grey]), photometric="minisblack")
    tifffile.imwrite(folder / "colours.tif", colours, photometric="rgb")
    tifffile.imwrite(folder / "white.tif", grey, photometric="miniswhite")
    return sorted(folder.iterdir())


# --- models, features, queues, tables -----------------------------------------------------------


def models(seed: int, folder: Path) -> Iterator[Case]:
    register_tiny()
    pixels, names = _two_classes(folder / "images", np.random.default_rng(seed))
    run("train", folder / "images", "-o", folder / "classifier.hvlad", *TINY, "-q")
    make_tiny_encoder().fit(pixels).save(folder / "encoder.hvlad")
    paths = [folder / "classifier.hvlad", folder / "encoder.hvlad"]
    return _cases(seed, paths, partial(use_model, image=names[0]))


def use_model(path: Path, image: Path) -> None:
    """A model is refused, or used."""
    try:
        model = hypervlad.load(path)
    except ModelFileError:
        return
    found = model.predict_proba([image]) if hasattr(model, "classes_") else model.transform([image])
    assert np.isfinite(found).all()


def features(seed: int, folder: Path) -> Iterator[Case]:
    register_tiny()
    rng = np.random.default_rng(seed)
    pixels, _ = _two_classes(folder / "images", rng)
    encoder = make_tiny_encoder().fit(pixels)
    extract_features(folder / "images", encoder, out=folder / "features.parquet")
    return _cases(seed, [folder / "features.parquet"], use_features)


def use_features(path: Path) -> None:
    """A file of features is read or refused."""
    try:
        X, frame = load_features(path, mmap=False)
    except FeatureFileError:
        return
    assert len(X) == len(frame)


def parts(seed: int, folder: Path) -> Iterator[Case]:
    """Damage a file of an extraction that was killed, or of one that is done, and resume it."""
    register_tiny()
    rng = np.random.default_rng(seed)
    pixels, _ = _two_classes(folder / "images", rng)
    encoder = make_tiny_encoder().fit(pixels)
    encoder.batch_size = 2
    extract = partial(extract_features, folder / "images", encoder, resume=True)
    (folder / "done").mkdir()
    extract(out=folder / "done" / "f.parquet")
    expected = (folder / "done" / "f.parquet").read_bytes()
    (folder / "killed").mkdir()
    child = start(partial(extract, out=folder / "killed" / "f.parquet"))
    while not _has_parts(folder / "killed", 3):
        time.sleep(0.001)
    kill(child)
    for number in range(40):
        source, place = folder / ("done", "killed")[number % 2], folder / f"resumed {number}"
        shutil.copytree(source, place)
        names = sorted(path for path in place.rglob("*") if path.is_file())
        path = names[int(rng.integers(len(names)))]
        path.write_bytes(damaged(path.read_bytes(), rng))
        resume = partial(resume_extraction, extract, place, expected)
        yield Case(f"{source.name}, {path.name}", resume, (place,))
        shutil.rmtree(place)


def resume_extraction(extract: Callable[..., object], place: Path, expected: bytes) -> None:
    """What is damaged is computed again or refused; the result is never another one."""
    with TemporaryDirectory() as copy:  # if this fails, the folder is kept as it was before
        shutil.copytree(place, copy, dirs_exist_ok=True)
        try:
            extract(out=Path(copy) / "f.parquet")
        except (FeatureFileError, FileExistsError):  # the latter: parts that may not be ours
            return
        found = (Path(copy) / "f.parquet").read_bytes()
    assert found == expected, "other features than those of an undisturbed run"


def _has_parts(folder: Path, n: int) -> bool:
    return (folder / "f.parquet").exists() or len(list(folder.rglob("*.task"))) >= n


def queues(seed: int, folder: Path) -> Iterator[Case]:
    entries = [entry(folder, i, i) for i in range(8)]
    make_queue(folder / "queue", CLASSES, entries, [], {"max_error": "0.05"})
    opened = Queue(folder / "queue")
    opened.label("client-1", "click-001", opened.images()[0].item, opened.categories()[0].id)
    opened.connection.execute("PRAGMA journal_mode = DELETE")
    opened.close()
    return _cases(seed, [_database(folder / "queue")], use_queue)


def use_queue(path: Path) -> None:
    """A queue is refused, or used until SQLite finds the damage."""
    opened = None
    try:
        opened = Queue(path.parent)
        opened.images()
        answer = opened.next("client-1", 2)
        for item in answer.items:
            for category in opened.categories()[:1]:
                opened.label("client-1", f"click-{item.id}", item.id, category.id)
    except (QueueError, sqlite3.DatabaseError):
        return
    finally:
        if opened is not None:
            opened.close()
        for left in path.parent.glob(f"{path.name}-*"):
            left.unlink()


def _database(folder: Path) -> Path:
    (found,) = [path for path in folder.iterdir() if path.read_bytes()[:6] == b"SQLite"]
    return found


def tables(seed: int, folder: Path) -> Iterator[Case]:
    paths = []
    for name, delimiter, encoding in (
        ("commas.csv", ",", "utf-8"),
        ("semicolons.csv", ";", "utf-8-sig"),
        ("tabs.csv", "\t", "utf-16"),
    ):
        path = folder / name
        with path.open("w", newline="", encoding=encoding) as stream:
            writer = csv.writer(stream, delimiter=delimiter)
            writer.writerow(["path", "group"])
            writer.writerows([f"a/ä b,{i}.png", f"paper {i % 3}"] for i in range(12))
        paths.append(path)
    return _cases(seed, paths, use_table)


def use_table(path: Path) -> None:
    """A table of groups is read or refused."""
    try:
        rows = read_group_rows(path)
    except ImageFolderError:
        return
    assert all(row.path and row.group for row in rows)


def _two_classes(
    root: Path, rng: np.random.Generator
) -> tuple[list[NDArray[np.float32]], list[Path]]:
    pixels, paths = [], []
    for number in range(16):
        grey = rng.integers(0, 128, (20, 24), dtype=np.uint8) + np.uint8(100 * (number % 2))
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey).save(path)
        pixels.append((grey / 255).astype(np.float32))
        paths.append(path)
    return pixels, paths
