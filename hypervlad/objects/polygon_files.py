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

from hypervlad.common.files import count_values, parse_json
from hypervlad.common.limits import MAX_OUTLINES_BYTES, MAX_OUTLINES_VALUES, MAX_PIXELS
from hypervlad.common.wording import counted, name_some, warn_user
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
    runs_of,
    trace_polygons,
)

_BOM = b"\xef\xbb\xbf"  # of UTF-8, as some programs of Windows begin a file
_OF_GEOJSON = {"features", "geometry", "geometries", "coordinates"}
_CLASSES_OF_VIA = ("class", "type", "label", "category", "kind")  # attributes of regions
_NO_OBJECTS = ("root", "tmacore")  # types of objects of QuPath
_AROUND_OTHERS = ("annotation", "tile")  # types that often have objects of others inside
_IGNORED_LABELS = ("__ignore__", "_background_")  # of labelme
_IGNORED = "as its program ignores such classes and objects"
_AROUND = (
    f"of QuPath's types {' or '.join(_AROUND_OTHERS)}, beside objects of others: if it is around "
    "them, it is no particle; export the others alone"
)
_CROWD = "of a crowd of objects (iscrowd)"
_ALL_CROWDS = "of a crowd (iscrowd), as which some programs mark every mask; is read"
_NO_CLASS = "without a class, as it is not among the categories of the file"
_UNCLASSIFIED = "unclassified"  # the category of outlines without a class, as COCO needs one
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
        own = parse_json(text, MAX_OUTLINES_VALUES, none_if_not_finite=True)
        if isinstance(own, list):  # of features, or annotations as Segment Anything writes them
            first = own[0] if own and isinstance(own[0], dict) else {}
            own = {"annotations" if _OF_GEOJSON.isdisjoint(first) else "features": own}
        self.content = own
        images = own.get("_via_img_metadata", own).values()
        if images and all(isinstance(each, dict) and "regions" in each for each in images):
            own["images"] = [{**each, "file_name": each["filename"]} for each in images]

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
        if not _OF_GEOJSON.isdisjoint(own):
            features = list(_with_children(own.get("features", [own])))
            return known_size(shape, name), _of_geojson(features)
        if "regions" in self.images[0]:
            options = (own.get("_via_attributes") or {}).get("region") or {}
            regions = self.entry_of(image, name)["regions"]
            return known_size(shape, name), _of_via(regions, options)
        raise ImageReadError(f"{name}: JSON, but {NOT_READ}")

    def entry_of(self, image: Any, name: str) -> dict[str, Any]:
        """Return what a file of several images says of one."""
        if len(self.images) == 1 and (image is None or not self.images[0].get("file_name")):
            return self.images[0]
        if image is None or isinstance(image, int | np.integer):
            found = [each for each in self.images if _id_of(each) == str(image)]
        else:
            path, stem, parts = Path(image), Path(image).stem, path_parts(str(image))
            own = str(int(stem)) if stem.isdecimal() else stem
            unnamed = (each for each in self.images if not each.get("file_name"))
            found = self.by_name.get("/".join(parts), [])
            found = [e for e in found if path_parts(str(e.get("file_name"))) == parts]
            # The name of a field is below a folder of images, not below the one we are in.
            path = path.absolute() if path.exists() else Path(os.sep, path)
            found = found or matches_by_name(path, self.by_name)
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
    are_classified = classes or len({_id_of(each, "category_id") for each in annotations}) > 1
    for number, each in enumerate(annotations, start=1):
        own, category = each.get("segmentation"), each.get("category_id")
        class_name = category if isinstance(category, str) else ""
        class_name = classes.get(_id_of(each, "category_id"), class_name)
        area: Any = NO_AREA
        if own and _is_crowd(each) and not are_crowds:
            area = _CROWD
        elif isinstance(own, dict):
            area = expand_runs(own["counts"], size)
        elif own:
            area = [[ring] for ring in _rings_of(own)]
        doubts = [_ALL_CROWDS] if are_crowds else []
        if are_classified and category is not None and not class_name:
            doubts.append(_NO_CLASS)
        key = str(each.get("particle", each.get("id", number)))
        class_name = class_name if class_name != _UNCLASSIFIED else ""
        yield Shape(key, class_name, area, doubts, stated=(_box_of(each.get("bbox")), None))


def _is_crowd(annotation: Mapping[str, Any]) -> bool:
    """Return whether one is marked as a crowd, but not by CVAT, which marks what was painted."""
    is_marked = str(annotation.get("iscrowd") or 0) not in ("0", "False")
    return is_marked and "occluded" not in (annotation.get("attributes") or ())


def _box_of(bbox: Any) -> Sequence[float] | None:
    """Return top, left, bottom and right of x, y, width and height; None if they are not known."""
    if not isinstance(bbox, list) or [isinstance(each, int | float) for each in bbox] != [True] * 4:
        return None
    x, y, width, height = bbox
    return None if min(width, height) <= 1 else (y, x, y + height, x + width)


def _id_of(entry: Mapping[str, Any], key: str = "id") -> str:
    """Return an identifier as text, "" if there is none: 1, 1.0 and "1" are one."""
    value = entry.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)


def _rings_of(polygons: Any) -> list[Ring]:
    """Return the polygons of an annotation: lists of x, y, ..., or one such list."""
    flat = [polygons] if isinstance(polygons[0], int | float) else polygons
    rings = [np.reshape(np.array(ring, float), (-1, 2)) for ring in flat]
    values = np.concatenate(rings)
    are_points = len(flat) > 1 and all(len(ring) < 3 for ring in rings)
    # A mask, or coordinates as shares of the image.
    are_small = 0 <= values.min() <= values.max() <= 1
    if are_points or (are_small and (len(flat) > 1 or (values % 1).any())):
        raise ValueError("a segmentation that is no list of polygons x, y, x, y, ... in pixels")
    return rings


def coco_of(outlines: Outlines, image: str) -> dict[str, Any]:
    """Return the outlines of an image as COCO: polygons, or run lengths of those with holes."""
    names = sorted({each.class_name or _UNCLASSIFIED for each in outlines})
    annotations = list[dict[str, Any]]()
    for number, outline in enumerate(outlines, start=1):
        top, left, bottom, right = outline.box
        polygons = trace_polygons(outline.mask, top, left)
        # Each part is a polygon, which has no holes.
        area: Any = [ring.ravel().tolist() for (ring, *_) in polygons]
        if any(len(rings) > 1 for rings in polygons):
            area = {"size": list(outlines.shape), "counts": runs_of(outline, outlines.shape)}
        own: dict[str, Any] = {"id": number, "image_id": 1, "iscrowd": 0, "segmentation": area}
        own |= {"category_id": 1 + names.index(outline.class_name or _UNCLASSIFIED)}
        own |= {"bbox": [left, top, right - left, bottom - top]}
        own |= {"area": int(np.count_nonzero(outline.mask))}
        annotations.append(own | {"particle": outline.given_name or outline.label})
    height, width = outlines.shape
    entry = {"id": 1, "file_name": image, "height": height, "width": width}
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    return {"images": [entry], "annotations": annotations, "categories": categories}


def joined_coco(contents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one content of several in COCO, with new numbers; no two may have the same image.

    Annotations of images that are not among those of their content are left out.
    """
    images, annotations, names = list[Any](), list[Any](), dict[str, int]()
    for content in contents:
        own = {each["id"]: each["name"] for each in content.get("categories") or ()}
        ids = {each["id"]: len(images) + n for n, each in enumerate(content["images"], start=1)}
        images += [each | {"id": ids[each["id"]]} for each in content["images"]]
        for each in (each for each in content["annotations"] if each["image_id"] in ids):
            new = {"id": len(annotations) + 1, "image_id": ids[each["image_id"]]}
            if (name := own.get(each.get("category_id"))) is not None:
                new["category_id"] = names.setdefault(name, len(names) + 1)
            annotations.append(each | new)
    categories = [{"id": number, "name": name} for name, number in names.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


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
            yield Shape(key, label, _IGNORED if label in _IGNORED_LABELS else NO_AREA)
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
        return [[ellipse(*points[0], *[math.dist(*points)] * 2)]]
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


def _of_via(regions: Any, options: Mapping[str, Mapping[str, Any]]) -> Iterator[Shape]:
    """Yield the regions of the VGG Image Annotator; a class if one of their attributes is one.

    `options` describe the attributes: those of a list have texts.
    """
    regions = list(regions.values()) if isinstance(regions, dict) else regions
    for number, each in enumerate(regions, start=1):
        attributes, texts, doubts = each.get("region_attributes") or {}, list[str](), list[str]()
        named = [key for key in attributes if key.lower() in _CLASSES_OF_VIA]
        for key in named[:1] or attributes:
            value, known = attributes[key], options.get(key, {}).get("options") or {}
            # Of check boxes, those that are set.
            own = (
                [k for k, is_set in value.items() if is_set] if isinstance(value, dict) else [value]
            )
            texts += [known.get(text) or text for text in own if text and isinstance(text, str)]
        if len(texts) > 1:
            doubts.append(
                f"without a class, as several attributes could be one ({', '.join(attributes)}): "
                "call the right one class"
            )
        area = _of_via_shape(each["shape_attributes"])
        yield Shape(str(number), texts[0] if len(texts) == 1 else "", area, doubts)


def _of_via_shape(own: Mapping[str, Any]) -> Polygons:
    kind = own["name"]
    if kind == "polygon":
        return [[np.column_stack([own["all_points_x"], own["all_points_y"]]).astype(float)]]
    if kind == "rect":
        return [[_box(own["x"], own["y"], own["width"], own["height"])]]
    if kind not in ("circle", "ellipse"):
        return []
    across, down = (own["r"],) * 2 if kind == "circle" else (own["rx"], own["ry"])
    return [[ellipse(own["cx"], own["cy"], across, down, own.get("theta") or 0.0)]]


# --- GeoJSON --------------------------------------------------------------------------------------


def _of_geojson(features: Sequence[Mapping[str, Any]]) -> Iterator[Shape]:
    """Yield the features of GeoJSON, such as QuPath's.

    QuPath does not count classes whose name ends with a star, such as "Ignore*", and those that are
    derived from them, such as "Ignore*: Tumor".
    """
    objects = [_of_qupath(each) for each in features]
    are_mixed = len({kind for kind, *_ in objects} - {"", *_NO_OBJECTS}) > 1
    for feature, (kind, class_name, area) in zip(features, objects, strict=True):
        geometry = feature["geometry"] or {}
        polygons: Polygons | str = _polygons_of(geometry)
        if kind in _NO_OBJECTS or (polygons and re.search(r"\*(: |$)", class_name)):
            polygons, class_name = _IGNORED, class_name or kind
        doubts = [_AROUND] if are_mixed and kind in _AROUND_OTHERS else []
        plane = {"z": 0, "t": 0, **(geometry.get("plane") or {})}
        plane = {axis: n for axis, n in plane.items() if n >= 0}
        key = str((feature.get("properties") or {}).get("name") or "")
        yield Shape(key, class_name, polygons, doubts, plane, (None, area))


def _with_children(features: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield features, and those inside of each, of which QuPath can write a hierarchy."""
    for each in features:
        feature = each if "geometry" in each else {"geometry": each}
        yield feature
        yield from _with_children((feature.get("properties") or {}).get("childObjects") or ())


def _of_qupath(feature: Mapping[str, Any]) -> tuple[str, str, float | None]:
    """Return type, class and measured area of an object, which each version writes differently."""
    properties, of_id = feature.get("properties") or {}, str(feature.get("id") or "")
    kind = properties.get("objectType") or properties.get("object_type")
    kind = kind or (of_id if of_id.endswith("Object") else "")
    kind = re.sub("^path|object$|[^a-z]", "", str(kind).lower())
    own, measured = properties.get("classification") or "", properties.get("measurements") or {}
    if isinstance(own, dict):
        own = own.get("name") or ": ".join(map(str, own.get("names") or ()))
    if isinstance(measured, list):
        measured = {each.get("name"): each.get("value") for each in measured}
    return kind, str(own), measured.get("Area px^2") or None


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
    kinds = [o.class_name for o in outlines] if classes is None else list(map(str, classes))
    columns = {str(key): np.asarray(column) for key, column in measures.items()}
    for key, n in {"classes": len(kinds), **{k: len(own) for k, own in columns.items()}}.items():
        if n != len(outlines):
            raise ValueError(f"{name}: {n} values of {key} for {len(outlines)} outlines")
    numbers = {key: own.astype(float) for key, own in columns.items() if own.dtype.kind in "biuf"}
    features = []
    for number, (outline, kind) in enumerate(zip(outlines, kinds, strict=True)):
        properties: dict[str, Any] = {"objectType": "annotation", "name": outline.shown_name}
        if kind:
            properties["classification"] = {"name": kind}
        values = {key: own[number].item() for key, own in numbers.items()}
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
    return json_of(collection, name)


def json_of(content: Mapping[str, Any], name: str) -> bytes:
    """Return a content as JSON, and warn if it is too large to be read again."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    if (n := count_values(text)) > MAX_OUTLINES_VALUES:
        warn_user(
            f"{name}: {n:,} values, of which hypervlad reads at most {MAX_OUTLINES_VALUES:,}: "
            "other programs can read it, but outlines that they save in it cannot be used here"
        )
    return text.encode()


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
