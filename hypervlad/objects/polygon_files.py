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
from hypervlad.common.wording import counted, name_some, warn_user
from hypervlad.images.errors import ImageReadError
from hypervlad.images.files import path_parts
from hypervlad.images.masks import matches_by_name
from hypervlad.images.pixels import check_size
from hypervlad.objects.particle import Outlines
from hypervlad.objects.shapes import (
    Named,
    Ring,
    ellipse,
    expand_runs,
    fill_polygons,
    trace_polygons,
)

_BOM = b"\xef\xbb\xbf"  # of UTF-8, as some programs of Windows begin a file
_CLASSES_OF_VIA = ("class", "type", "label", "category", "kind")  # attributes of regions
_NO_OBJECTS = ("root", "tmacore")  # types of objects of QuPath
_AROUND_OTHERS = {"annotation", "tile"}  # types that often have objects of others inside
_NO_LABELS = ("__ignore__", "_background_")  # of labelme
Found = tuple[tuple[int, int], Iterable[Named]]  # the size of the image, and its outlines
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
        regions = entries.get("_via_img_metadata", entries)
        are_of_via = regions and all(
            isinstance(each, dict) and "regions" in each for each in regions.values()
        )
        #: Of the VGG Image Annotator: its images, with their ``file_name`` as in COCO.
        self.of_via = [
            {**each, "file_name": each["filename"]}
            for each in (regions if are_of_via else {}).values()
        ]

    @cached_property
    def images(self) -> list[dict[str, Any]]:
        """What a file of COCO or VIA says of each image."""
        found = self.content.get("images", self.of_via)
        if not found and "image" in self.content:  # as Segment Anything writes it
            return [self.content["image"]]
        if not found and "annotations" in self.content:
            names = {e.get("image_id"): e.get("file_name") for e in self.content["annotations"]}
            if len(names) > 1:  # Ultralytics writes stems of names as ids, or numbers for numbers
                names = {k: v or (k if isinstance(k, str) else None) for k, v in names.items()}
            return [{"id": key, "file_name": each} for key, each in names.items()] or [{}]
        return list(found)

    @cached_property
    def by_name(self) -> dict[str, list[dict[str, Any]]]:
        """Images by their paths and names, with and without suffix."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for entry in self.images:
            parts = path_parts(str(entry.get("file_name") or ""))
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
        if isinstance(self.content.get("shapes"), list):
            return _of_labelme(self.content, shape, image, name)
        if isinstance(self.content.get("annotations"), list):
            return _of_coco(self, shape, image, name)
        if self.of_via:
            size = known_size(shape, name)
            attributes = (self.content.get("_via_attributes") or {}).get("region") or {}
            return size, _of_via(self.entry_of(image, name), attributes, size, name)
        if {"features", "coordinates", "geometry", "geometries"} & set(self.content):
            size = known_size(shape, name)
            return size, _of_geojson(self.content.get("features", [self.content]), size, name)
        raise ImageReadError(f"{name}: JSON, but {NOT_READ}")

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
        raise ImageReadError(f"{name}: not JSON to be read ({error})") from error


@lru_cache(maxsize=1)
def _opened(path: Path, *_version: int) -> JsonFile:
    return JsonFile(path.read_bytes())


def known_size(shape: Any, name: str) -> tuple[int, int]:
    if shape is None:
        raise ImageReadError(f"{name}: without the size of its image; give shape=(height, width)")
    height, width = map(int, shape)
    check_size(height, width, name, MAX_PIXELS)
    return height, width


def _warn_of(keys: Sequence[str], n: int, what: str, why: str, name: str) -> None:
    if keys:
        listed = name_some(list(dict.fromkeys(keys)))
        warn_user(f"{name}: {len(keys)} of {counted(n, what)} {why}: {listed}")


# --- COCO -----------------------------------------------------------------------------------------


def _of_coco(file: JsonFile, shape: Any, image: Any, name: str) -> Found:
    annotations = file.content["annotations"]
    entry, n = file.entry_of(image, name), len(annotations)
    if _id_of(entry):  # programs write identifiers as numbers or as text
        annotations = file.annotations[_id_of(entry)] + file.annotations[""]
        if len(file.images) == 1:
            known = (_id_of(entry), "")
            keys = [key for key, own in file.annotations.items() if key not in known for _ in own]
            _warn_of(keys, n, "annotation", "left out, of an image that is not in the file", name)
    boxes = [str(each.get("id", "?")) for each in annotations if not each.get("segmentation")]
    if len(boxes) == len(annotations) > 0:
        raise ImageReadError(
            f"{name}: {counted(len(boxes), 'annotation')} without a segmentation, such as boxes; "
            "export COCO with outlines"
        )
    _warn_of(boxes, len(annotations), "annotation", "left out, only a box", name)
    annotations = [each for each in annotations if each.get("segmentation")]
    # CVAT marks what was painted with its brush as crowds, and writes whether it is occluded.
    crowds, single = list[str](), list[dict[str, Any]]()
    for each in annotations:
        is_marked = str(each.get("iscrowd") or 0) not in ("0", "False")
        if is_marked and "occluded" not in (each.get("attributes") or ()):
            crowds.append(str(each.get("id", "?")))
        else:
            single.append(each)
    if single:
        why = "left out, each of a crowd of objects (iscrowd)"
        _warn_of(crowds, len(annotations), "annotation", why, name)
        annotations = single
    elif crowds:
        warn_user(
            f"{name}: all {counted(len(crowds), 'annotation')} are marked as crowds (iscrowd), as "
            "some programs mark every mask; each is read as one outline"
        )
    shapes = [each["segmentation"] for each in annotations]
    sizes = [each["size"] for each in shapes if isinstance(each, dict)]
    listed = [[entry["height"], entry["width"]]] if entry.get("height") else []
    size = known_size((*listed, *sizes, shape)[0], name)
    if any(list(each) != list(size) for each in sizes):
        raise ImageReadError(f"{name}: run lengths of an image of another size than {size}")
    classes = {_id_of(each): str(each["name"]) for each in file.content.get("categories") or ()}
    return size, _annotated(annotations, classes, size, name)


def _annotated(
    annotations: Sequence[Mapping[str, Any]],
    classes: Mapping[str, str],
    size: tuple[int, int],
    name: str,
) -> Iterator[Named]:
    unknown, elsewhere = list[str](), list[str]()
    for number, each in enumerate(annotations, start=1):
        key, own = str(each.get("id", number)), each["segmentation"]
        if isinstance(own, dict):
            outline = expand_runs(own["counts"], size)
        else:
            outline = fill_polygons([[ring] for ring in _rings_of(own)], size)
        category = each.get("category_id")
        class_name = classes.get(_id_of(each, "category_id"), "")
        if not class_name and isinstance(category, str):
            class_name = category
        elif not class_name and classes and category is not None:
            unknown.append(str(category))
        if outline and not _is_in_box(outline.box, each.get("bbox"), size):
            elsewhere.append(key)
        yield key, class_name, outline
    why = "without a class, as it is not among the categories of the file"
    _warn_of(unknown, len(annotations), "annotation", why, name)
    why = "elsewhere than its bbox, as if x and y were swapped, or run lengths went along rows"
    if 2 * len(elsewhere) > len(annotations):  # not single ones, as boxes are also predicted
        _warn_of(elsewhere, len(annotations), "annotation", why, name)


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


def _of_labelme(content: Mapping[str, Any], shape: Any, image: Any, name: str) -> Found:
    """Return the shapes of labelme; those of one group are parts of one outline."""
    has_size = content.get("imageHeight") and content.get("imageWidth")
    size = known_size((content["imageHeight"], content["imageWidth"]) if has_size else shape, name)
    parts_of_path = path_parts(str(content.get("imagePath") or ""))
    if isinstance(image, str | os.PathLike) and parts_of_path:
        other = Path(parts_of_path[-1]).stem
        if other != Path(image).stem:
            warn_user(f"{name}: outlines of {parts_of_path[-1]} by what it says, not of {image}")
    parts, classes, no_areas = dict[str, list[list[Ring]]](), dict[str, str](), list[str]()
    no_labels = list[str]()
    for number, each in enumerate(content["shapes"], start=1):
        if each["label"] in _NO_LABELS:
            no_labels.append(each["label"])
            continue
        group = each.get("group_id")
        key = str(number) if group is None else f"group {group} of {each['label']}"
        rings = _of_labelme_shape(each, np.reshape(np.array(each["points"], float), (-1, 2)))
        if not rings:
            no_areas.append(str(each.get("shape_type")))
            continue
        parts[key] = [*parts.get(key, []), *rings]
        classes[key] = str(each["label"])
    n, why = len(content["shapes"]), "left out, of a type without an area"
    _warn_of(no_areas, n, "shape", why, name)
    _warn_of(no_labels, n, "shape", "left out, which labelme ignores", name)
    named = ((key, classes[key], fill_polygons(own, size)) for key, own in parts.items())
    return size, named


def _of_labelme_shape(shape: Mapping[str, Any], points: Ring) -> list[list[Ring]]:
    kind = shape.get("shape_type") or "polygon"
    if kind == "polygon" or (len(points) > 2 and kind not in ("linestrip", "points")):
        return [[points]]
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return [[_box(top, left, bottom, right)]]
    if kind == "circle" and len(points) == 2:
        (x, y), radius = points[0], math.dist(*points[:2])
        return [[ellipse(y - radius, x - radius, y + radius, x + radius)]]
    if kind == "mask":
        from PIL import Image

        with Image.open(io.BytesIO(base64.b64decode(shape["mask"])), formats=["PNG"]) as stored:
            check_size(stored.height, stored.width, "a mask", MAX_PIXELS)
            mask = np.asarray(stored) > 0
        x, y = np.rint(points[0]).astype(int).tolist()
        return trace_polygons(mask, y, x)
    return []


def _box(top: float, left: float, bottom: float, right: float) -> Ring:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _of_via(
    entry: Mapping[str, Any],
    known: Mapping[str, Mapping[str, Any]],
    size: tuple[int, int],
    name: str,
) -> Iterator[Named]:
    """Yield the regions of the VGG Image Annotator; a class if one of their attributes is one.

    `known` describes the attributes: the options of a list have texts.
    """
    regions = entry["regions"]
    regions = list(regions.values()) if isinstance(regions, dict) else regions
    no_areas, unclear = list[str](), list[str]()
    for number, each in enumerate(regions, start=1):
        own, attributes = each["shape_attributes"], each.get("region_attributes") or {}
        if classes := [key for key in attributes if key.lower() in _CLASSES_OF_VIA]:
            attributes = {key: attributes[key] for key in classes[:1]}
        if (ring := _of_via_shape(own)) is None:
            no_areas.append(str(own["name"]))
            continue
        texts = list[str]()
        for key, value in attributes.items():
            options = known.get(key, {}).get("options") or {}
            chosen = [value]
            if isinstance(value, dict):  # of check boxes
                chosen = [option for option, is_set in value.items() if is_set]
            texts += [
                options.get(each) or each for each in chosen if each and isinstance(each, str)
            ]
        if len(texts) > 1:
            unclear.append(" and ".join(attributes))
        yield str(number), texts[0] if len(texts) == 1 else "", fill_polygons([[ring]], size)
    _warn_of(no_areas, len(regions), "region", "left out, of a type without an area", name)
    if unclear:
        warn_user(
            f"{name}: {counted(len(unclear), 'region')} without a class, as several attributes "
            f"could be one: {name_some(list(dict.fromkeys(unclear)))}; call the right one class"
        )


def _of_via_shape(own: Mapping[str, Any]) -> Ring | None:
    if own["name"] == "polygon":
        return np.column_stack([own["all_points_x"], own["all_points_y"]]).astype(float)
    if own["name"] == "rect":
        return _box(own["y"], own["x"], own["y"] + own["height"], own["x"] + own["width"])
    if own["name"] not in ("circle", "ellipse"):
        return None
    x, y = own["cx"], own["cy"]
    across, down = (own["r"], own["r"]) if own["name"] == "circle" else (own["rx"], own["ry"])
    turn = own.get("theta") or 0.0
    turned = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    return np.asarray(ellipse(-down, -across, down, across) @ turned + (x, y))


# --- GeoJSON --------------------------------------------------------------------------------------


def _of_geojson(
    features: Sequence[Mapping[str, Any]], size: tuple[int, int], name: str
) -> Iterator[Named]:
    """Yield the features of GeoJSON, such as QuPath's, without those of no area.

    QuPath does not count classes whose name ends with a star, such as "Ignore*".
    """
    no_areas, ignored, no_objects = list[str](), list[str](), list[str]()
    planes, kinds, sizes = set[str](), set[str](), list[str]()
    features = list(_with_children(features))
    n = len(features)
    for number, feature in enumerate(features, start=1):
        properties = feature.get("properties") or {}
        class_name, kind = _class_of(properties), _kind_of(feature, properties)
        key = str(properties.get("name") or "")
        polygons, own_planes = _polygons_of(feature["geometry"])
        if kind in _NO_OBJECTS:
            no_objects.append(kind)
        elif class_name.endswith("*"):
            ignored.append(class_name)
        elif not polygons:
            no_areas.append(key or f"feature {number}")
        else:
            planes |= own_planes
            kinds |= {kind} - {""}
            outline, area = fill_polygons(polygons, size), _measured_area(properties)
            if area and outline and abs(outline.mask.sum() - area) > 8 + area / 2:
                sizes.append(f"{key or f'feature {number}'} ({outline.mask.sum()} px)")
            yield key, class_name, outline
        if len(planes) > 1:
            raise ImageReadError(
                f"{name}: outlines of several planes of a stack ({name_some(sorted(planes))}); "
                "save those of one plane"
            )
    _warn_of(no_areas, n, "feature", "left out, without an area", name)
    _warn_of(ignored, n, "feature", "left out, of a class that is ignored in QuPath", name)
    _warn_of(no_objects, n, "feature", "left out, the field or a core of QuPath", name)
    if kinds & _AROUND_OTHERS and len(kinds) > 1:
        warn_user(
            f"{name}: objects of several types ({name_some(sorted(kinds))}) of QuPath, which are "
            "all read; an annotation or tile around others is no particle: export the others alone"
        )
    why = "of another area than its measurement 'Area px^2', as if its coordinates were micrometres"
    _warn_of(sizes, n, "feature", why, name)


def _with_children(features: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield features, and those inside of each, of which QuPath can write a hierarchy."""
    for each in features:
        feature = each if "geometry" in each else {"geometry": each}
        yield feature
        yield from _with_children((feature.get("properties") or {}).get("childObjects") or ())


def _kind_of(feature: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    """Return the type of an object, which each version of QuPath writes in another way."""
    of_id = str(feature.get("id") or "")
    found = properties.get("objectType") or properties.get("object_type")
    found = found or (of_id if of_id.endswith("Object") else "")
    return re.sub("^path|object$|[^a-z]", "", str(found).lower())


def _measured_area(properties: Mapping[str, Any]) -> float | None:
    """Return the area in pixels that QuPath has measured, if the file says it."""
    found = properties.get("measurements") or {}
    if isinstance(found, list):
        found = {each.get("name"): each.get("value") for each in found}
    area = found.get("Area px^2") if isinstance(found, dict) else None
    return area if isinstance(area, int | float) else None


def _class_of(properties: Mapping[str, Any]) -> str:
    """Return the class of a feature: QuPath has written it in three ways."""
    found = properties.get("classification") or ""
    if isinstance(found, dict):
        found = found.get("name") or ": ".join(map(str, found.get("names") or ()))
    return str(found)


def _polygons_of(geometry: Any) -> tuple[list[list[Ring]], set[str]]:
    """Return the polygons of a geometry, each of rings, and the planes of a stack they are of."""
    geometry = geometry or {"type": "none"}
    if geometry["type"] == "GeometryCollection":
        found = [_polygons_of(each) for each in geometry["geometries"]]
        return [each for own, _ in found for each in own], {p for _, own in found for p in own}
    plane = {"c": -1, "z": 0, "t": 0, **(geometry.get("plane") or {})}
    own = {
        " ".join(f"{axis} {plane[axis]}" for axis in "zt") + f" c {plane['c']}" * (plane["c"] >= 0)
    }
    coordinates = geometry.get("coordinates") or []
    listed = {"Polygon": [coordinates], "MultiPolygon": coordinates}.get(geometry["type"], [])
    polygons = [[np.array(ring, float)[:, :2] for ring in each if ring] for each in listed if each]
    return [each for each in polygons if each], own


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


def read_text(content: bytes, shape: Any, name: str) -> Found:
    """Return the outlines of cellpose's ``_cp_outlines.txt``: a line of x, y, ... for each."""
    size = known_size(shape, name)
    lines = content.decode("utf-8-sig").splitlines()
    numbers = [[each for each in line.split(",") if each.strip()] for line in lines]
    rings = [np.reshape(np.array(each, float), (-1, 2)) for each in numbers if each]
    return size, (("", "", fill_polygons([[ring]], size)) for ring in rings)
