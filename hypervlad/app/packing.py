"""The tables of corrections, outlines as text in their cells, and as polygons for the page."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from hypervlad.app.database import Kind
from hypervlad.common.files import parse_json
from hypervlad.objects.found_outlines import EDITS
from hypervlad.objects.particle import Outline
from hypervlad.objects.shapes import trace_polygons

_TABLES = """
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    name BLOB NOT NULL UNIQUE,
    version INTEGER NOT NULL DEFAULT 0,  -- grows with each edit, undo and redo
    place INTEGER NOT NULL DEFAULT 0,  -- number of edits that are not undone
    written INTEGER NOT NULL DEFAULT 0,  -- version in the folder's file of outlines
    is_ours INTEGER NOT NULL DEFAULT 0,  -- whether that was written here
    digest TEXT NOT NULL DEFAULT '',  -- of that file
    content TEXT NOT NULL DEFAULT '',  -- digest of its outlines, from before it is written
    done INTEGER,  -- whether a person has marked it as done; NULL of an image nobody touched here
    noted INTEGER  -- that mark in the folder's files
);
CREATE TABLE outlines (  -- of images with a version; others have those in the folder
    image INTEGER NOT NULL REFERENCES images, label INTEGER NOT NULL, outline TEXT NOT NULL,
    PRIMARY KEY (image, label)
) WITHOUT ROWID;
CREATE TABLE edits (
    image INTEGER NOT NULL REFERENCES images, number INTEGER NOT NULL, time REAL NOT NULL,
    removed TEXT NOT NULL, added TEXT NOT NULL, message TEXT NOT NULL,
    PRIMARY KEY (image, number)
) WITHOUT ROWID;
CREATE TABLE clicks (click TEXT PRIMARY KEY, message TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE classes (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
"""
CORRECTIONS = Kind(
    *("file of corrections", EDITS, 0x48564C45, 2, _TABLES),  # "HVLE"
    "open its folder with 'hypervlad app'",
    "remove it if its edits are not needed",
    "the outlines in the folder are as they were written last: remove this file, and go on",
)


def shapes_of(
    outlines: Iterable[Outline], classes: Mapping[tuple[int, ...], str] = MappingProxyType({})
) -> list[dict[str, Any]]:
    """Return polygons, areas and classes; `classes` are by label, top, left and area."""
    found = []
    for each in outlines:
        area = int(np.count_nonzero(each.mask))
        label = each.class_name or classes.get((each.label, *each.box[:2], area), "")
        rings = _rings(packed(each))
        found.append({"label": each.label, "class": label, "area": area, "rings": rings})
    return found


def packed(outline: Outline) -> str:
    """Return an outline as text, the inverse of `unpacked`."""
    bits = zlib.compress(np.packbits(outline.mask).tobytes(), 1)
    mask = base64.b64encode(bits).decode()
    return json.dumps([outline.label, *map(int, outline.box), outline.class_name, mask])


@lru_cache(1 << 13)
def unpacked(text: str) -> Outline:
    """Return the outline of a cell; a ValueError if it is damaged."""
    label, top, left, bottom, right, class_name, bits = parse_json(text)
    shape = int(bottom - top), int(right - left)
    n_bytes = (shape[0] * shape[1] + 7) // 8
    content = zlib.decompressobj().decompress(base64.b64decode(bits), n_bytes)
    if min(shape) < 1 or len(content) != n_bytes:
        raise ValueError("no outline")
    flat = np.unpackbits(np.frombuffer(content, np.uint8), count=shape[0] * shape[1])
    mask = flat.reshape(shape).astype(bool)
    return Outline(label, (top, left, bottom, right), mask, class_name=class_name)


@lru_cache(1 << 13)
def _rings(text: str) -> list[list[int]]:
    outline = unpacked(text)
    polygons = trace_polygons(outline.mask, *outline.box[:2])
    return [ring.ravel().tolist() for rings in polygons for ring in rings]
