"""Outlines as JSON or text: COCO, GeoJSON, labelme, VIA, and what cellpose writes."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from hypervlad.common.files import parse_json
from hypervlad.common.limits import MAX_OUTLINES_BYTES, MAX_OUTLINES_VALUES, MAX_PIXELS
from hypervlad.common.wording import counted, name_some
from hypervlad.images.errors import ImageReadError
from hypervlad.images.files import path_parts
from hypervlad.images.masks import matches_by_name
from hypervlad.images.pixels import check_size
from hypervlad.objects.particle import Outlines
from hypervlad.objects.shapes import (
    NO_AREA,
    Polygons,
    Ring,
    Shape,
    ellipse,
    expand_runs,
    fill_polygons,
    trace_polygons,
)

_BOM = b"\xef\xbb\xbf"  # of UTF-8, as some programs of Windows begin a file
_CLASSES_OF_VIA = ("class", "type", "label", "category", "kind")  # attributes of regions
_NO_OBJECTS = ("root", "tmacore")  # types of objects of QuPath
_AROUND_OTHERS = ("annotation", "tile")  # types that often have objects of others inside
_IGNORED_LABELS = ("__ignore__", "_background_")  # of labelme
IGNORED = "as its program ignores such classes and objects"
Found = tuple[tuple[int, int], Iterable[Shape]]  # the size of the image, and its outlines
NOT_READ = (
    "not a format of outlines that is read (label images and masks as TIFF, PNG or NPY, ImageJ "
    "regions, COCO, GeoJSON, labelme, VIA, cellpose's _cp_outlines.txt); export it as one of them"
)


class JsonFile:
    """A file of outlines in JSON, of whatever program, parsed once for all of its images."""

    def __init__(self, content: bytes) -> None:
        # Measures and scores may be NaN; coordinates are checked where they are used.
        text = content.removeprefix(_BOM)
        entries = parse_json(text, MAX_OUTLINES_VALUES, none_if_not_finite=True)
        if isinstance(entries, list):  # of features, or annotations as Segment Anything writes them
            first = entries[0] if entries and isinstance(entries[0], dict) else {}
            entries = {"features" if "geometry" in first else "annotations": entries}
        self.content = entries
        images = entries.get("_via_img_metadata", entries).values()
        #: Whether it is of the VGG Image Annotator.
        self.is_of_via = bool(images) and all(
            isinstance(each, dict) and "regions" in each for each in images
        )
        if self.is_of_via:
            self.content["images"] = [{**each, "file_name": each["filename"]} for each in images]

    @cached_property
    def images(self) -> list[dict[str, Any]]:
        """What a file of COCO or VIA says of each image."""
        if found := self.content.get("images"):
            return list(found)
        if "image" in self.content:  # as Segment Anything writes it
            return [self.content["image"]]
        names = {e.get("image_id"): e.get("file_name") for e in self.content.get("annotations", ())}
        if len(names) > 1:  # Ultralytics writes stems of names as ids, or numbers for numbers
            names = {k: v or (k if isinstance(k, str) else None) for k, v in names.items()}
        return [{"id": key, "file_name": each} for key, each in names.items()] or [{}]

    @cached_property
    def by_name(self) -> dict[str, list[dict[str, Any]]]:
        """Images by their paths and names, with and without suffix.

        Roboflow gives images names of its own, and notes the original one.
        """
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for entry in self.images:
            for path in (entry.get("file_name"), (entry.get("extra") or {}).get("name")):
                parts = path_parts(str(path or ""))
                for name in {"/".join(parts), *parts[-1:]} - {""}:
                    for key in {name, Path(name).with_suffix("").as_posix()}:
                        found[key].append(entry)
        return found

    @cached_property
    def annotations(self) -> dict[str, list[dict[str, Any]]]:
        """Annotations of COCO by the identifier of their image, "" if they have none."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for each in self.content["annotations"]:
            found[_id_of(each, "image_id")].append(each)
        return found

    def read(self, shape: Any, image: Any, name: str) -> Found:
        """Return the outlines of one image."""
        own = self.content
        if isinstance(own.get("shapes"), list):
            size = (own["imageHeight"], own.get("imageWidth")) if own.get("imageHeight") else shape
            return known_size(size, name), _of_labelme(own, image)
        if isinstance(own.get("annotations"), list):
            return _of_coco(self, shape, self.entry_of(image, name), name)
        is_geojson = not {"features", "coordinates", "geometry", "geometries"}.isdisjoint(own)
        if not (self.is_of_via or is_geojson):
            raise ImageReadError(f"{name}: JSON, but {NOT_READ}")
        size = known_size(shape, name)
        if is_geojson:
            return size, _of_geojson(list(_with_children(own.get("features", [own]))), size)
        options = (own.get("_via_attributes") or {}).get("region") or {}
        return size, _of_via(self.entry_of(image, name)["regions"], options)

    def entry_of(self, image: Any, name: str) -> dict[str, Any]:
        """Return what a file of several images says of one."""
        if len(self.images) == 1 and (image is None or not self.images[0].get("file_name")):
            return self.images[0]
        if image is None or isinstance(image, int | np.integer):
            found = [each for each in self.images if _id_of(each) == str(image)]
        else:
            found = matches_by_name(Path(image).absolute(), self.by_name)
            stem = Path(image).stem
            own = str(int(stem)) if stem.isdecimal() else stem
            unnamed = (each for each in self.images if not each.get("file_name"))
            found = found or [each for each in unnamed if _id_of(each) == own]
        if len(found) != 1:
            known = [str(entry.get("file_name") or entry.get("id")) for entry in self.images]
            raise ImageReadError(
                f"{name}: outlines of {counted(len(known), 'image')}, {name_some(known)}; give the "
                f"name or the id of one as image, not {image!r}"
            )
        return found[0]


def open_json(path: Path, name: str) -> JsonFile:
    """Read a file, or return it as it was read last: a file of many images is asked for each."""
    status = path.stat()
    if status.st_size > MAX_OUTLINES_BYTES:
        raise ImageReadError(f"{name}: more than {MAX_OUTLINES_BYTES:,} bytes; split it")
    try:
        return _opened(path.absolute(), status.st_mtime_ns, status.st_size)
    except UnicodeDecodeError as error:
        raise ImageReadError(f"{name}: JSON in UTF-8 was expected; save it as such") from error
    except ValueError as error:
        raise ImageReadError(
            f"{name}: not one JSON text, as JSON lines are not ({error}); export it as one"
        ) from error


@lru_cache(maxsize=1)
def _opened(path: Path, *_version: int) -> JsonFile:
    return JsonFile(path.read_bytes())


def known_size(shape: Any, name: str) -> tuple[int, int]:
    if shape is None:
        raise ImageReadError(f"{name}: without the size of its image; give shape=(height, width)")
    height, width = map(int, shape)
    check_size(height, width, name, MAX_PIXELS)
    return height, width


# --- COCO -----------------------------------------------------------------------------------------


def _of_coco(file: JsonFile, shape: Any, entry: Mapping[str, Any], name: str) -> Found:
    annotations, others = file.content["annotations"], list[Shape]()
    if key := _id_of(entry):  # programs write identifiers as numbers or as text
        annotations = file.annotations[key] + file.annotations[""]
        if len(file.images) == 1:
            keys = [own for own, each in file.annotations.items() for _ in each]
            why = "of an image that is not in the file"
            others = [Shape(own, "", why) for own in keys if own not in (key, "")]
    sizes = [own["size"] for e in annotations if isinstance(own := e.get("segmentation"), dict)]
    listed = [[entry["height"], entry["width"]]] if entry.get("height") else []
    size = known_size((*listed, *sizes, shape)[0], name)
    if any(list(each) != list(size) for each in sizes):
        raise ImageReadError(f"{name}: run lengths of an image of another size than {size}")
    classes = {_id_of(each): str(each["name"]) for each in file.content.get("categories") or ()}
    return size, chain(_annotated(annotations, classes, size), others)


def _annotated(
    annotations: Sequence[Mapping[str, Any]], classes: Mapping[str, str], size: tuple[int, int]
) -> Iterator[Shape]:
    are_crowds = all(_is_crowd(each) for each in annotations if each.get("segmentation"))
    for number, each in enumerate(annotations, start=1):
        key, own = str(each.get("id", number)), each.get("segmentation")
        if not own or (_is_crowd(each) and not are_crowds):
            yield Shape(key, "", "of a crowd of objects (iscrowd)" if own else NO_AREA)
            continue
        if isinstance(own, dict):
            outline = expand_runs(own["counts"], size)
        else:
            outline = fill_polygons([[ring] for ring in _rings_of(own)], size)
        category, doubts = each.get("category_id"), list[str]()
        class_name = classes.get(_id_of(each, "category_id"), "")
        if are_crowds:
            doubts.append("of a crowd (iscrowd), as which some programs mark every mask; is read")
        if not class_name and isinstance(category, str):
            class_name = category
        elif not class_name and classes and category is not None:
            doubts.append("without a class, as it is not among the categories of the file")
        if outline and not _is_in_box(outline.box, each.get("bbox"), size):
            doubts.append(
                "elsewhere than its bbox, as if x and y were swapped, or runs went along rows"
            )
        yield Shape(key, class_name, outline, doubts)


def _is_crowd(annotation: Mapping[str, Any]) -> bool:
    """Return whether one is marked as a crowd, but not by CVAT, which marks what was painted."""
    is_marked = str(annotation.get("iscrowd") or 0) not in ("0", "False")
    return is_marked and "occluded" not in (annotation.get("attributes") or ())


def _is_in_box(found: Sequence[int], bbox: Any, size: tuple[int, int]) -> bool:
    """Return whether an outline is where its annotation says (x, y, width, height), if it does."""
    if not isinstance(bbox, list) or [isinstance(each, int | float) for each in bbox] != [True] * 4:
        return True
    x, y, width, height = bbox
    if min(width, height) <= 1:  # not known
        return True
    edges = zip(found, (y, x, y + height, x + width), (*size, *size), strict=True)
    far = 2 + max(width, height) / 4
    return all(abs(own - min(max(edge, 0), end)) <= far for own, edge, end in edges)


def _id_of(entry: Mapping[str, Any], key: str = "id") -> str:
    """Return an identifier as text, "" if there is none: 1, 1.0 and "1" are one."""
    value = entry.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)


def _rings_of(polygons: Any) -> list[Ring]:
    """Return the polygons of an annotation: lists of x, y, ..., or one such list."""
    flat = [polygons] if isinstance(polygons[0], int | float) else polygons
    are_points = len(flat) > 1 and all(len(ring) < 6 for ring in flat)
    if are_points or (len(flat) > 1 and {0, 1}.issuperset(chain.from_iterable(flat))):  # a mask
        raise ValueError("a segmentation that is no list of polygons x, y, x, y, ...")
    return [np.reshape(np.array(ring, float), (-1, 2)) for ring in flat]


# --- labelme and VIA ------------------------------------------------------------------------------


def _of_labelme(content: Mapping[str, Any], image: Any) -> Iterator[Shape]:
    """Yield the shapes of labelme; those of one group are parts of one outline."""
    name, doubts = path_parts(str(content.get("imagePath") or ""))[-1:], list[str]()
    if isinstance(image, str | os.PathLike) and name and Path(*name).stem != Path(image).stem:
        doubts.append(f"of {name[0]} by what the file says, not of {image}")
    parts = defaultdict[tuple[str, str], Polygons](list)
    for number, each in enumerate(content["shapes"], start=1):
        label, group = str(each["label"]), each.get("group_id")
        key = str(number) if group is None else f"group {group} of {label}"
        polygons = _of_labelme_shape(each, np.reshape(np.array(each["points"], float), (-1, 2)))
        if label in _IGNORED_LABELS or not polygons:
            yield Shape(key, label, IGNORED if label in _IGNORED_LABELS else NO_AREA)
        else:
            parts[key, label] += polygons
    for (key, label), polygons in parts.items():
        yield Shape(key, label, polygons, doubts)


def _of_labelme_shape(shape: Mapping[str, Any], points: Ring) -> Polygons:
    kind = shape.get("shape_type") or "polygon"
    if kind == "polygon" or (len(points) > 2 and kind not in ("linestrip", "points")):
        return [[points]]
    if kind == "rectangle" and len(points) == 2:
        return [[_box(*points.min(axis=0), *np.ptp(points, axis=0))]]
    if kind == "circle" and len(points) == 2:
        return [[_turned(*points[0], *[math.dist(*points)] * 2)]]
    if kind == "mask":
        from PIL import Image

        with Image.open(io.BytesIO(base64.b64decode(shape["mask"])), formats=["PNG"]) as stored:
            check_size(stored.height, stored.width, "a mask", MAX_PIXELS)
            mask = np.asarray(stored) > 0
        x, y = np.rint(points[0]).astype(int).tolist()
        return trace_polygons(mask, y, x)
    return []


def _box(x: float, y: float, width: float, height: float) -> Ring:
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])


def _turned(x: float, y: float, across: float, down: float, turn: float = 0.0) -> Ring:
    """Return the ellipse of a middle, two half axes, and an angle."""
    turned = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    return np.asarray(ellipse(-down, -across, down, across) @ turned + (x, y))


def _of_via(regions: Any, options: Mapping[str, Mapping[str, Any]]) -> Iterator[Shape]:
    """Yield the regions of the VGG Image Annotator; a class if one of their attributes is one.

    `options` describe the attributes: those of a list have texts.
    """
    regions = list(regions.values()) if isinstance(regions, dict) else regions
    for number, each in enumerate(regions, start=1):
        attributes, texts, doubts = each.get("region_attributes") or {}, list[str](), list[str]()
        if classes := [key for key in attributes if key.lower() in _CLASSES_OF_VIA]:
            attributes = {key: attributes[key] for key in classes[:1]}
        for key, value in attributes.items():
            known = options.get(key, {}).get("options") or {}
            # Of check boxes, those that are set.
            chosen = (
                [k for k, is_set in value.items() if is_set] if isinstance(value, dict) else [value]
            )
            texts += [known.get(own) or own for own in chosen if own and isinstance(own, str)]
        if len(texts) > 1:
            doubts.append(
                f"without a class, as several attributes could be one ({', '.join(attributes)}): "
                "call the right one class"
            )
        area = _of_via_shape(each["shape_attributes"])
        yield Shape(str(number), texts[0] if len(texts) == 1 else "", area, doubts)


def _of_via_shape(own: Mapping[str, Any]) -> Polygons:
    if own["name"] == "polygon":
        return [[np.column_stack([own["all_points_x"], own["all_points_y"]]).astype(float)]]
    if own["name"] == "rect":
        return [[_box(own["x"], own["y"], own["width"], own["height"])]]
    if own["name"] not in ("circle", "ellipse"):
        return []
    across, down = (own["r"],) * 2 if own["name"] == "circle" else (own["rx"], own["ry"])
    return [[_turned(own["cx"], own["cy"], across, down, own.get("theta") or 0.0)]]


# --- GeoJSON --------------------------------------------------------------------------------------


def _of_geojson(features: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> Iterator[Shape]:
    """Yield the features of GeoJSON, such as QuPath's.

    QuPath does not count classes whose name ends with a star, such as "Ignore*", and those that are
    derived from them, such as "Ignore*: Tumor".
    """
    kinds = [_kind_of(each) for each in features]
    are_mixed = len({*kinds} - {"", *_NO_OBJECTS}) > 1
    for feature, kind in zip(features, kinds, strict=True):
        properties, geometry = feature.get("properties") or {}, feature["geometry"] or {}
        key, class_name = str(properties.get("name") or ""), _class_of(properties)
        polygons, plane = _polygons_of(geometry), {"z": 0, "t": 0, **(geometry.get("plane") or {})}
        if kind in _NO_OBJECTS or re.search(r"\*(: |$)", class_name) or not polygons:
            is_ignored = polygons or kind in _NO_OBJECTS
            yield Shape(key, class_name or kind, IGNORED if is_ignored else NO_AREA)
            continue
        outline, area, doubts = fill_polygons(polygons, size), _area_of(properties), list[str]()
        if are_mixed and kind in _AROUND_OTHERS:
            doubts.append(
                f"of QuPath's types {' or '.join(_AROUND_OTHERS)}, beside objects of others: if it "
                "is around them, it is no particle; export the others alone"
            )
        if area and outline and abs(outline.mask.sum() - area) > 8 + area / 2:
            doubts.append(
                "of another area than its measurement 'Area px^2', as if its coordinates were "
                "micrometres"
            )
        yield Shape(key, class_name, outline, doubts, {k: n for k, n in plane.items() if n >= 0})


def _with_children(features: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield features, and those inside of each, of which QuPath can write a hierarchy."""
    for each in features:
        feature = each if "geometry" in each else {"geometry": each}
        yield feature
        yield from _with_children((feature.get("properties") or {}).get("childObjects") or ())


def _kind_of(feature: Mapping[str, Any]) -> str:
    """Return the type of an object, which each version of QuPath writes in another way."""
    properties, of_id = feature.get("properties") or {}, str(feature.get("id") or "")
    found = properties.get("objectType") or properties.get("object_type")
    found = found or (of_id if of_id.endswith("Object") else "")
    return re.sub("^path|object$|[^a-z]", "", str(found).lower())


def _area_of(properties: Mapping[str, Any]) -> float:
    """Return the area in pixels that QuPath has measured; 0 if the file does not say it."""
    found = properties.get("measurements") or {}
    if isinstance(found, list):
        found = {each.get("name"): each.get("value") for each in found}
    return found.get("Area px^2") or 0


def _class_of(properties: Mapping[str, Any]) -> str:
    """Return the class of a feature: QuPath has written it in three ways."""
    found = properties.get("classification") or ""
    if isinstance(found, dict):
        found = found.get("name") or ": ".join(map(str, found.get("names") or ()))
    return str(found)


def _polygons_of(geometry: Mapping[str, Any]) -> Polygons:
    kind = geometry.get("type")
    if kind == "GeometryCollection":
        return [own for each in geometry["geometries"] for own in _polygons_of(each)]
    coordinates = geometry.get("coordinates") or []
    listed = {"Polygon": [coordinates], "MultiPolygon": coordinates}.get(str(kind), [])
    polygons = [[np.array(ring, float)[:, :2] for ring in each if ring] for each in listed]
    return [each for each in polygons if each]


def geojson_of(
    outlines: Outlines,
    classes: Sequence[str] | None,
    measures: Mapping[str, Sequence[float]],
    name: str,
) -> bytes:
    """Return outlines for QuPath, as polygons around their pixels."""
    columns = {str(key): np.asarray(column) for key, column in measures.items()}
    columns = {key: column for key, column in columns.items() if column.dtype.kind in "biuf"}
    kinds = [o.class_name for o in outlines] if classes is None else list(map(str, classes))
    for key, n in {"classes": len(kinds), **{k: len(own) for k, own in columns.items()}}.items():
        if n != len(outlines):
            raise ValueError(f"{name}: {n} values of {key} for {len(outlines)} outlines")
    features = []
    for number, outline in enumerate(outlines):
        properties: dict[str, Any] = {"objectType": "annotation", "name": outline.shown_name}
        if kinds[number]:
            properties["classification"] = {"name": kinds[number]}
        values = {key: float(column[number]) for key, column in columns.items()}
        if finite := {key: value for key, value in values.items() if math.isfinite(value)}:
            properties["measurements"] = finite
        polygons = [
            [[*ring.tolist(), ring[0].tolist()] for ring in polygon]
            for polygon in trace_polygons(outline.mask, *outline.box[:2])
        ]
        geometry = {"type": "MultiPolygon", "coordinates": polygons}
        if len(polygons) == 1:
            geometry = {"type": "Polygon", "coordinates": polygons[0]}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    collection = {"type": "FeatureCollection", "features": features}
    return json.dumps(collection, ensure_ascii=False, allow_nan=False).encode()


# --- cellpose -------------------------------------------------------------------------------------


def read_text(content: bytes, name: str) -> Iterator[Shape]:
    """Yield the outlines of cellpose's ``_cp_outlines.txt``: a line of x, y, ... for each."""
    for line in content.decode("utf-8-sig").splitlines():
        if numbers := [each for each in line.split(",") if each.strip()]:
            ring = np.reshape(np.array(numbers, float), (-1, 2))
            # Of outlines, few points are there twice; of labels in a table of text, most are.
            if 2 * len(np.unique(ring, axis=0)) < len(ring):
                raise ImageReadError(f"{name}: a table of numbers, {NOT_READ}")
            yield Shape("", "", [[ring]] if len(ring) > 2 else NO_AREA)
