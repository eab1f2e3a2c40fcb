"""Features, queues and tables whose bytes are changed, cut, moved and repeated at random."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from support.feature_folders import write_image
from support.review_queues import write_queue
from support.tiny import make_tiny_encoder, register_tiny

from hypervlad import HypercolumnVLAD, extract_features, load_features, load_image_folder
from hypervlad.apps.review import Queue, QueueError
from hypervlad.data import FeatureFileError, ImageFolderError
from tests.campaign.case import Case

_N_PER_SEED = 200
_N_IMAGES = 12
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


def encoder_and_images(seed: int, folder: Path) -> tuple[HypercolumnVLAD, Path]:
    """Write images of two classes, and fit an encoder to them."""
    register_tiny()
    rng, images = np.random.default_rng(seed), folder / "images"
    files = [write_image(images / "ab"[i % 2] / f"{i:02d}.png", rng) for i in range(_N_IMAGES)]
    encoder = make_tiny_encoder()
    encoder.batch_size = 4
    return encoder.fit(files), images


def features(seed: int, folder: Path) -> Iterator[Case]:
    encoder, images = encoder_and_images(seed, folder)
    extract_features(images, encoder, out=folder / "features.parquet")
    return _cases(seed, [folder / "features.parquet"], use_features)


def use_features(path: Path) -> None:
    """A file of features is read or refused."""
    try:
        X, frame = load_features(path, mmap=False)
    except FeatureFileError:
        return
    assert len(X) == len(frame)


def queues(seed: int, folder: Path) -> Iterator[Case]:
    opened = Queue(write_queue(folder, 8, 2))
    opened.label("client-1", "click-001", 1, 1)
    opened.connection.execute("PRAGMA journal_mode = DELETE")
    opened.close()
    return _cases(seed, [folder / "queue" / "queue.sqlite"], use_queue)


def use_queue(path: Path) -> None:
    """A queue, given by its database, is refused, or used until SQLite finds the damage."""
    opened = None
    try:
        opened = Queue(path.parent)
        opened.images()
        answer = opened.next("client-1", 3)
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


def tables(seed: int, folder: Path) -> Iterator[Case]:
    """Tables of groups of images that exist."""
    rng, paths = np.random.default_rng(seed), []
    names = [f"{'ab'[i % 2]}/ä b,{i}.png" for i in range(_N_IMAGES)]
    for name in names:
        write_image(folder / "images" / name, rng)
    for name, delimiter, encoding in (
        ("commas.csv", ",", "utf-8"),
        ("semicolons.csv", ";", "utf-8-sig"),
        ("tabs.csv", "\t", "utf-16"),
    ):
        paths.append(folder / name)
        with paths[-1].open("w", newline="", encoding=encoding) as stream:
            writer = csv.writer(stream, delimiter=delimiter)
            writer.writerow(["path", "group"])
            writer.writerows([name, f"paper {i % 3}"] for i, name in enumerate(names))
    return _cases(seed, paths, use_table)


def use_table(path: Path) -> None:
    """A table of groups is read, with a group for each image, or refused."""
    try:
        data = load_image_folder(path.parent / "images", path)
    except ImageFolderError:
        return
    assert all(data.groups)
