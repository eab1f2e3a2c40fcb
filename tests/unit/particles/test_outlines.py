"""Outlines in the files of other programs: one file per dialect, round trips, what is refused."""

import base64
import json
import re
import struct
import zipfile

import numpy as np
import pytest
import tifffile
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_array_equal
from PIL import Image

from hypervlad.images import ImageReadError, read_mask, read_micrograph
from hypervlad.particles import Outline, cut_particles, find_outlines, read_outlines, write_outlines

LABELS = np.zeros((6, 8), np.uint8)
LABELS[1:4, 1:4], LABELS[2, 2], LABELS[4:6, 5:8] = 3, 0, 7
GREY = np.random.default_rng(0).integers(0, 255, (40, 50), "u1")
SQUARE = [1, 1, 4, 1, 4, 4, 1, 4]  # x and y of corners, as in COCO
OTHER = [2, 1, 5, 1, 5, 4, 2, 4]  # which overlaps it
RECTANGLE, OVAL, LINE, POLYGON = 1, 2, 3, 0  # types of ImageJ's regions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all examples of hypothesis, which write the same files again."""
    return tmp_path_factory.mktemp("outlines")


def pixels(outline, shape):
    field = np.zeros(shape, bool)
    field[outline.window] = outline.mask
    return field


def read(content, folder, **options):
    """Read what a JSON file contains."""
    path = folder / "a.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_outlines(path, **options)


def coco(*annotations, images=None, size=(6, 8)):
    entry = {"id": 5, "file_name": "a.png", "height": size[0], "width": size[1]}
    return {"images": images or [entry], "annotations": annotations}


def annotation(segmentation, **keys):
    return {"id": 12, "image_id": 5, "segmentation": segmentation, **keys}


def feature(kind, coordinates, **properties):
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def region(kind, left, top, right, bottom, *corners, slice_=0):
    """Return a region as ImageJ's RoiEncoder writes it: big-endian, corners within the box."""
    head = struct.pack(">4shBx5h", b"Iout", 228, kind, top, left, bottom, right, len(corners))
    head = head.ljust(56, b"\0") + struct.pack(">2i", slice_, 0)
    x_and_y = np.array(corners, ">i2").reshape(-1, 2) - np.array([left, top], ">i2")
    return head + x_and_y.T.astype(">i2").tobytes()


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.roi", content)
    return path


def counts_of(mask):
    """Return COCO's run lengths by walking through the pixels."""
    runs, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            runs, value = [*runs, 0], pixel
        runs[-1] += 1
    return runs


@pytest.mark.parametrize("kind", [*"bBhHiIqQfd", "npy", "png8", "png16", "array"])
def test_label_images_of_every_type(tmp_path, kind):
    source, labels = tmp_path / "a.tif", LABELS.astype(kind if len(kind) == 1 else np.uint16)
    if kind == "array":
        source = labels
    elif kind == "npy":
        source = tmp_path / "a.npy"
        np.save(source, labels)
    elif kind.startswith("png"):
        source = tmp_path / "a.png"
        Image.fromarray(LABELS if kind == "png8" else labels).save(source)
    else:
        tifffile.imwrite(source, labels)
    assert_array_equal(read_outlines(source, shape=(6, 8)).label_image(), LABELS)


@pytest.mark.parametrize("top", [1, 5, 255, 65535, 2**32 - 1, 255.0, True])
def test_a_mask_is_split_with_a_warning(top):
    mask = np.where(LABELS > 0, top, 0).astype({float: float, bool: bool}.get(type(top), np.uint32))
    with pytest.warns(UserWarning, match=rf"a mask \(0 and {int(top)}\), .* 2 separate regions"):
        found = read_outlines(mask)
    assert_array_equal(found.label_image(), np.unique(LABELS, return_inverse=True)[1])
    classes = np.where(LABELS > 0, 1, 0)
    classes[0, 7] = 2
    with pytest.warns(UserWarning, match="1 of 2 outlines in separate parts, read as .*: 1$"):
        assert_array_equal(read_outlines(classes).label_image(), classes)


def test_a_folder_of_masks(tmp_path):
    for number in (10, 9):
        mask = np.zeros((6, 8), np.uint8)
        mask[:number, number - 8 :] = 255
        Image.fromarray(mask).save(tmp_path / f"cell-{number}.png")
    (tmp_path / "metadata.csv").write_text("id,area")
    first, second = read_outlines(tmp_path)
    assert (first.label, first.box, second.box) == (1, (0, 1, 6, 8), (0, 2, 6, 8))
    Image.fromarray(mask[:4]).save(tmp_path / "z.png")
    with pytest.raises(ImageReadError):
        read_outlines(tmp_path)


def test_regions_of_imagej(tmp_path):
    pytest.importorskip("roifile")
    spline = region(POLYGON, 0, 0, 0, 0, *((10, 10), (30, 10), (30, 10), (30, 30), (10, 30)))
    path = archive(
        tmp_path / "RoiSet.zip",
        **{"../square": region(POLYGON, 1, 1, 4, 4, (1, 1), (4, 1), (4, 4), (1, 4))},
        box=region(RECTANGLE, -3, 4, 2, 9),
        disc=region(OVAL, 10, 0, 50, 40),
        bar=region(LINE, 0, 0, 5, 5),
        far=region(RECTANGLE, 90, 4, 99, 9),
        spline=spline[:50] + b"\0\1" + spline[52:],
        **{"__MACOSX/._box": b"no region"},
    )
    with pytest.warns(UserWarning, match="left out") as told:
        square, box, disc, curve = read_outlines(path, shape=(40, 60))
    assert "1 of 6 outlines left out, without an area: a line, " in str(told[0].message)
    assert str(told[1].message).endswith("without a pixel in the image of 40 x 60 pixels: far")
    assert (square.label, square.box, box.box) == (1, (1, 1, 4, 4), (4, 0, 9, 2))
    assert curve.mask.sum() == 608
    rows, columns = np.mgrid[:40, :40] - 19.5
    assert_array_equal(disc.mask, rows**2 + columns**2 < 400)
    (tmp_path / "7.roi").write_bytes(region(RECTANGLE, 0, 0, 2, 2))
    assert read_outlines(tmp_path / "7.roi", shape=(4, 4))[0].label == 7


def test_coco_of_several_images(tmp_path):
    path = tmp_path / "a.json"
    images = [
        {"id": 5, "file_name": "x/a.png", "height": 6, "width": 8},
        {"id": 6, "file_name": "y\\a.png", "height": 4, "width": 4},
        {"id": 8, "file_name": "b.png", "height": 4, "width": 4},
    ]
    content = coco(annotation([SQUARE]), annotation([SQUARE], image_id=6), images=images)
    assert read(content, tmp_path, image="/any/x/a.tif").shape == (6, 8)
    assert [len(read_outlines(path, image=image)) for image in (6, "b.png")] == [1, 0]
    for image in (None, "a.png", "c.png", 7):
        with pytest.raises(ImageReadError, match=r"of 3 images, x/a\.png, .*give the name"):
            read_outlines(path, image=image)
    wanted = ["in/x/a.png", "in/y/a.png", "in/b.tif", "in/c.png"]
    assert find_outlines(wanted, tmp_path) == [path, path, path, None]
    images[0] |= {"file_name": "c_png.rf.01.jpg", "extra": {"name": "x/c.png"}}  # as of Roboflow
    read({**content, "images": images}, tmp_path, image="c.png")
    assert find_outlines(wanted[2:], tmp_path) == [path, path]
    runs = [{"size": [6, 8], "counts": counts_of(label == LABELS)} for label in (3, 7)]
    of_ids = [annotation(runs[k], image_id=key) for k, key in ((0, "a"), (0, 12), (1, 12))]
    found = [read(of_ids, tmp_path, image=image) for image in ("x/a.tif", "0012.png")]
    assert [len(each) for each in found] == [1, 2]


def test_geojson_of_qupath(folder):
    ring = [[1, 1], [4, 1], [4, 4], [1, 4], [1, 1]]
    hole = [[2, 2], [2, 3], [3, 3], [3, 2], [2, 2]]
    features = [
        feature("Polygon", [ring, hole], objectType="annotation", name="3"),
        feature("MultiPolygon", [[[[5, 4], [8, 4], [8, 6], [5, 6], [5, 4]]]], name="7"),
    ]
    for content in ({"type": "FeatureCollection", "features": features}, features):
        assert_array_equal(read(content, folder, shape=(6, 8)).label_image(), LABELS)
    unnamed = [feature("Point", [1, 1]), feature("Polygon", [ring]), feature("Polygon", [])]
    with pytest.warns(UserWarning, match="2 of 3 outlines left out, .*: number 1, number 3$"):
        (found,) = read(unnamed, folder, shape=(6, 8))
    assert (found.label, found.box, found.mask.all()) == (1, (1, 1, 4, 4), True)


masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12))


@settings(max_examples=25)
@given(masks)
@example(np.array([[1, 0], [0, 1]], bool))  # two parts that meet at a corner
@example(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], bool))  # a hole that touches the outside
def test_polygons_around_pixels_are_simple_and_exact(folder, mask):
    assume(mask.any())
    write_outlines(folder / "a.geojson", mask[None])
    (content,) = json.loads((folder / "a.geojson").read_text())["features"]
    geometry = content["geometry"]
    polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else None
    area = 0.0
    for polygon in polygons or geometry["coordinates"]:
        for number, ring in enumerate(polygon):
            assert ring[0] == ring[-1]
            assert len(np.unique(ring, axis=0)) == len(ring) - 1
            assert (area_of(ring) > 0) == (number == 0)
            area += area_of(ring)
    assert area == mask.sum()
    (found,) = read_outlines(folder / "a.geojson", shape=mask.shape)
    assert_array_equal(pixels(found, mask.shape), mask)


def test_centres_on_an_edge_belong_to_the_polygon_below_or_on_the_right(folder):
    square = [[0.5, 0.5], [2.5, 0.5], [2.5, 2.5], [0.5, 2.5]]
    for polygons in ([[square]], [[square], [square]]):  # a union, not even-odd
        (found,) = read([feature("MultiPolygon", polygons)], folder, shape=(4, 4))
        assert (found.box, found.mask.all()) == ((0, 0, 2, 2), True)


@pytest.mark.filterwarnings("ignore:.*(left out, without a pixel|over most)")
@settings(max_examples=25)
@given(masks)
def test_run_lengths(folder, mask):
    mask = np.asfortranarray(mask.repeat(40, axis=0))
    coded = pytest.importorskip("pycocotools.mask").encode(mask)["counts"].decode()
    for counts in (counts_of(mask), coded):
        found = read([annotation({"size": mask.shape, "counts": counts})], folder)
        assert_array_equal(found.label_image() > 0, mask)


def area_of(ring):
    (x, y), (after_x, after_y) = np.transpose(ring), np.roll(ring, -1, axis=0).T
    return (x * after_y - after_x * y).sum() / 2


def areas_by_own_library(path):
    """Return the area of each outline by its name, as the program's own library reads the file."""
    if path.suffix == ".tif":
        stored = tifffile.imread(path)
        return {str(n): (stored == n).sum() for n in np.unique(stored.astype(int))}
    if path.suffix == ".zip":
        rois = np.atleast_1d(pytest.importorskip("roifile").ImagejRoi.fromfile(path))
        return {roi.name: abs(sum(map(area_of, roi.coordinates(multi=True)))) for roi in rois}
    if path.suffix == ".json":
        coco = pytest.importorskip("pycocotools.coco").COCO(path)
        return {str(own["particle"]): coco.annToMask(own).sum() for own in coco.anns.values()}
    areas = {}
    for each in pytest.importorskip("geojson").loads(path.read_bytes())["features"]:
        assert each.is_valid
        places = each["geometry"]["coordinates"]
        polygons = [places] if each["geometry"]["type"] == "Polygon" else places
        areas[each["properties"]["name"]] = sum(area_of(ring) for own in polygons for ring in own)
    return areas


def has_roifile(suffix):
    return suffix != ".zip" or pytest.importorskip("roifile")


@pytest.mark.filterwarnings("ignore:.*in separate parts", "ignore:__array__ implementation")
@pytest.mark.parametrize("suffix", [".tif", ".zip", ".geojson", ".json"])
@settings(max_examples=12)
@given(
    labels=arrays(
        np.int32,
        array_shapes(min_dims=2, max_dims=2, max_side=10),
        elements=st.sampled_from([0, 0, 1, 2, 300, 70_000]),
    )
)
def test_what_is_written_is_read(folder, suffix, labels):
    assert has_roifile(suffix)
    assume(len(set(np.unique(labels)) - {0}) != 1)  # perhaps a mask
    write_outlines(folder / f"a{suffix}", labels)
    found = read_outlines(folder / f"a{suffix}", shape=labels.shape)
    assert [outline.label for outline in found] == sorted(set(np.unique(labels)) - {0})
    assert_array_equal(found.label_image(), labels)
    by_library = areas_by_own_library(folder / f"a{suffix}")
    own = [by_library[str(outline.label)] for outline in found]
    assert own == pytest.approx([outline.mask.sum() for outline in found])


def test_a_label_tiff_has_its_scale(tmp_path):
    write_outlines(tmp_path / "a.tif", LABELS, pixel_size=0.37)
    assert read_micrograph(tmp_path / "a.tif").pixel_size == pytest.approx(0.37, rel=1e-6)
    write_outlines(tmp_path / "b.tif", read_outlines(tmp_path / "a.tif"))  # with its scale
    cut = read_outlines(tmp_path / "b.tif", shape=(5, 8), banner_rows=1)
    assert cut.pixel_size == pytest.approx(0.37, rel=1e-6)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert (tiff.imagej_metadata["unit"], tiff.pages[0].dtype) == ("nm", np.uint16)


def test_geojson_has_classes_and_measures(tmp_path):
    path = tmp_path / "a.geojson"
    write_outlines(path, LABELS, classes=["cube", "rod"], measures={"Area": [8, np.nan]})
    first, second = json.loads(path.read_text())["features"]
    own = {"objectType": "annotation", "name": "3", "classification": {"name": "cube"}}
    assert first["properties"] == own | {"measurements": {"Area": 8.0}}
    assert "measurements" not in second["properties"]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a.png", {}, r"written as \.tif, .*\.geojson or \.json"),
        ("a.tif", {"classes": ["a", "b"]}, r"only \.geojson files contain given"),
        ("a.tif", {"outlines": LABELS * np.int32(2**24)}, r"label \d+ is above 2\*\*24"),
        ("a.tif", {"outlines": LABELS[None].repeat(2, 0) > 0}, r"overlap.*\.geojson or \.json"),
        ("a.geojson", {"classes": ["cube"]}, "1 values of classes for 2 outlines"),
    ],
)
def test_what_cannot_be_written(tmp_path, name, options, words):
    with pytest.raises(ValueError, match=words):
        write_outlines(tmp_path / name, **{"outlines": LABELS, **options})
    assert not (tmp_path / name).exists()


def npy(shape, kind="|u1"):
    head = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head


def archive_of(path, name="b.roi", **claims):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, b"Iout")
        for key, value in claims.items():
            setattr(file.infolist()[0], key, value)


ROUNDED = region(RECTANGLE, 5, 5, 45, 35)[:54] + b"\0\x14" + bytes(8)
CURVE = 0, 0, 0, 3, 31, 0, 40, 9, 40, 20, 4  # of Bezier, as a path of Java
CURVED = region(RECTANGLE, 0, 0, 40, 40)[:36] + struct.pack(">i24x11f", len(CURVE), *CURVE)
TEETH = [coordinate for x in range(2200) for coordinate in (x % 7, 4000 * (x % 2))]
BAD_FILES = [
    ("a_seg.npy", npy((), "|O"), "a pickle.*If cellpose wrote it, .*--save_tif"),
    ("a.npy", npy((10**9, 10**9)), "damaged, or not a format of outlines that is read"),
    (
        "a.tif",
        lambda p: tifffile.imwrite(p, np.zeros((3, 9, 8), "u2"), photometric="minisblack"),
        "a file of 3 pages",
    ),
    *((f"b.{s}", Image.fromarray(GREY).save, "a(n| grey) image") for s in ("png", "jpg")),
    ("a.npy", npy((9, 8, 1), "|b1") + bytes(72), r"looks like \(H, W, n\); save np\.moveaxis"),
    ("a.json", "{}".encode("utf-16"), "JSON in UTF-8 was expected"),
    ("a.json", {**coco(annotation([SQUARE])), "categories": [{}]}, "something has no 'name'"),
    ("a.json", coco({"id": 1, "bbox": [1, 1, 2, 2]}), "1 of 1 outline left.*; draw or"),
    ("a.json", b'{"a": 1}\n{"a": 2}', r"not one JSON text, as JSON lines are not \(Extra data"),
    ("a.txt", b"0,0,0,0,0,0,0,0,1,1\n", "a table of numbers, not a format"),
    *((f"a.{s}", b"1,1,4,1\n", "not a format of outlines that is read") for s in ("xml", "csv")),
    *(("a.roi", content, "a: a region with round corners or cu") for content in (ROUNDED, CURVED)),
    *(
        ("a.json", coco(annotation(own)), "is no list of polygons")
        for own in ([[0, 1, 1, 1, 0, 0]] * 2, [[0.1, 0.1, 0.9, 0.1, 0.5, 0.9]])
    ),
    ("a.json", {"some": "thing"}, "JSON, but not a format of outlines that is read"),
    ("a.zip", b"PK\x03\x04 and more", "damaged, or not .* not a zip file"),
    ("a.zip", lambda p: archive_of(p, "mask.png"), r"contains mask\.png; unpack"),
    ("a.zip", lambda p: archive_of(p, file_size=1 << 29), "regions of 536,870,912 bytes; split it"),
    ("a.json", b"[" + (1 << 23) * b"0," + b"0]", "more than 8388608 values"),
    ("a.json", b"[" * 100_000, "not one JSON text"),
    ("a.json", coco(annotation([[0, 0, 1e300, 0, 1, 1]])), "beyond a billion"),
    ("a.json", coco(annotation([TEETH]), size=(4000, 8)), "more than 8,388,608 times"),
    ("a.json", coco(annotation({"size": [6, 8], "counts": [2**62] * 2})), "do not fill 6 x 8"),
    ("a.json", coco(annotation({"size": [6, 8], "counts": [40, 7]})), "do not fill 6 x 8"),
    ("a.json", coco(annotation([SQUARE]), size=(10**6, 10**6)), "more than max_pixels"),
]


@pytest.mark.parametrize(("name", "content", "words"), BAD_FILES)
def test_bad_files_are_named(tmp_path, name, content, words):
    path = tmp_path / name
    if callable(content):
        content(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(ImageReadError, match=words) as error:
        read_outlines(path, shape=None if path.suffix in (".json", ".tif", ".npy") else (6, 8))
    assert str(error.value).startswith(str(path))
    assert "Error:" not in str(error.value)


def of_several_slices(path):
    members = {str(k): region(RECTANGLE, 0, 0, 2, 2, slice_=k) for k in (1, 2)}
    return read_outlines(archive(path / "a.zip", **members), shape=(4, 4))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.full((4, 5), 0.5), "labels must be whole numbers"),
        (np.full((4, 5), 2**31), r"from 0 to 2,147,483,647, not 2147483648"),
        (np.zeros((4, 5, 3), np.uint8), "If these are colours, .*Lookup Tables > Grays"),
        ([np.ones((2, 2), bool), np.ones((2, 3), bool)], "masks that differ in size"),
        (of_several_slices, r"several planes of a stack \(slice \[1, 2\]\)"),
        (
            lambda _: read_outlines(LABELS, shape=(5, 8), name="outlines 3"),
            "^outlines 3: a segmentation of 6 x 8 pixels for",
        ),
        (lambda _: Outline(1, (0, 0, 3, 4), np.ones((3, 3), bool)), r"outline 1: .*\(3, 4\)"),
        (lambda folder: read_outlines(folder), "a folder without masks"),
        (lambda _: cut_particles(np.zeros((0, 0)), np.zeros((0, 0), int)), "has no pixels"),
        (lambda folder: find_outlines(["f.tif"], folder), "none of the 1 image has a segmentation"),
        (lambda folder: find_outlines(["f", "g"], folder / "x"), "x: no such folder of outlines"),
    ],
)
def test_what_are_no_outlines(tmp_path, source, words):
    with pytest.raises(ImageReadError, match=words):
        source(tmp_path) if callable(source) else read_outlines(source)


def test_outlines_are_found_by_name(tmp_path):
    names = ["a_cp_masks.png", "a_seg.npy", "b_seg.npy", "c/0.png", "c/1.png", "d_RoiSet.zip"]
    for name in [*names, "d.tif"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    images = [tmp_path / name for name in ("a.tif", "b.tif", "c.tif", "d.tif", "e.tif")]
    found = find_outlines(images, tmp_path)  # d.tif is an image itself
    expected = ["a_cp_masks.png", "b_seg.npy", "c", "d_RoiSet.zip", None]
    assert [path and path.name for path in found] == expected
    with pytest.warns(UserWarning, match="a.mrc: an MRC image, .* draw them on that"):
        read_outlines(LABELS, image="in/a.mrc")


SHAPE = (100, 120)
RIGHT = {  # areas in pixels, and what is said; or the error
    "imagej_masks_invlut.tif": ([35, 60], "a mask"),
    "labels_miniswhite16.tif": ([35, 60], ""),
    "palette_labels.png": ([35, 60, 40], ""),
    "palette_inv.png": ([35, 60, 40], ""),
    "rgb_labels.png": ([35, 40, 60], ""),
    "mask.jpg": ([35, 60], "a mask"),
    "labels_fiji_96dpi.tif": ([35, 60], ""),
    "imagej_300dpi_inch.tif": (None, "looks like an image"),
    "cellpose_stray_pixel.tif": ([305, 305, 305], "1 of 3 outlines with a few stray pixels.*: 8"),
    "hyper_z.zip": (None, r"several planes of a stack \(z \[1, 2\]\)"),
    "gj_plane.geojson": (None, "several planes of a stack"),
    "spline.zip": ([pytest.approx(2440, rel=0.015)], ""),
    "gj_null.geojson": ([400], "1 of 2 outlines left out, without an area"),
    "gj_one.geojson": ([400], ""),
    "gj_ign.geojson": ([100], "its program ignores such .*: Ignore"),
    "coco_crowd.json": ([400], r"a crowd of objects \(iscrowd\)"),
    "coco_other.json": ([400], "of an image that is not in the file: 7"),
    "coco_flat.json": ([400], ""),
    "coco_cats.json": ([400, 100], ""),
    "labelme.json": ([400], ""),
    "cp_outlines.txt": ([400, 100], ""),
}


@pytest.mark.parametrize("name", RIGHT)
def test_files_of_other_programs(shared, name, recwarn):
    assert has_roifile(name[-4:])
    areas, words = RIGHT[name]
    shape = None if name.endswith((".tif", ".png", ".jpg")) else SHAPE
    if areas is None:
        with pytest.raises(ImageReadError, match=words):
            read_outlines(shared / "data/exchange" / name, shape=shape)
        return
    found = read_outlines(shared / "data/exchange" / name, shape=shape)
    assert [each.mask.sum() for each in found] == areas
    assert found.pixel_size == (100 if name == "imagej_masks_invlut.tif" else None)
    said = [re.search(words, str(each.message)) for each in recwarn]
    assert (len(said), all(said)) == (bool(words), True)


def test_the_overlay_of_a_grey_image(tmp_path):
    bar = has_roifile(".zip").ImagejRoi.frombytes(region(RECTANGLE, 1, 1, 9, 3))
    bar.name = "|SB|"
    overlay = {"Overlays": [region(RECTANGLE, 5, 6, 15, 26), bar.tobytes()]}
    for name, pixels in (("a.tif", GREY), ("b.tif", np.kron(LABELS, np.ones((9, 9), "u1")))):
        tifffile.imwrite(tmp_path / name, pixels, imagej=True, metadata=overlay)
    with pytest.warns(UserWarning, match=r"1 of 2 outlines left out, .*: \|SB\|"):
        assert [each.mask.sum() for each in read_outlines(tmp_path / "a.tif")] == [200]
    assert [each.label for each in read_outlines(tmp_path / "b.tif")] == [3, 7]


def test_classes_and_names_are_kept(folder):
    categories = [{"id": 1, "name": "rod"}, {"id": "2", "name": 255}]
    content = coco(annotation([SQUARE], category_id=1, id="a"), annotation([OTHER], category_id=2))
    found = read({**content, "categories": categories}, folder)
    for suffix in (".geojson", ".json", ".zip") if has_roifile(".zip") else ():
        write_outlines(folder / f"b{suffix}", found)
        again = read_outlines(folder / f"b{suffix}", shape=(6, 8))
        assert [each.given_name for each in again] == ["a", "12"]
        assert [[o.class_name for o in kept] for kept in (found, again)] == [["rod", "255"]] * 2
        assert_array_equal(*([pixels(each, (6, 8)) for each in kept] for kept in (found, again)))
    with pytest.warns(UserWarning, match="without classes and names; .zip and .geojson"):
        write_outlines(folder / "b.tif", found[:1])


def labelme(*shapes):
    return {"shapes": shapes, "imageHeight": 40, "imageWidth": 50}


def test_shapes_of_labelme_and_via(folder, tmp_path):
    Image.fromarray(np.array([[0, 255, 255]], "u1")).save(tmp_path / "m.png")
    mask = base64.b64encode((tmp_path / "m.png").read_bytes()).decode()
    of_mask = {"label": "a", "shape_type": "mask", "points": [[1, 1], [3, 1]], "mask": mask}
    shapes = [
        {"label": "a", "shape_type": "rectangle", "points": [[9, 8], [5, 6]], "group_id": 1},
        of_mask | {"group_id": 1},
        {"label": "b", "shape_type": "circle", "points": [[25, 20], [31, 28]]},
        {"label": "b", "shape_type": "line", "points": [[1, 2], [3, 4]]},
    ]
    with pytest.warns(UserWarning, match="1 of 3 outlines left out, without an area.*: 4$"):
        found = read(labelme(*shapes), folder)
    assert [each.class_name for each in found] == ["a", "b"]
    assert [each.mask.sum() for each in found] == [8 + 2, pytest.approx(np.pi * 100, rel=0.02)]
    turned = {"name": "ellipse", "cx": 25, "cy": 20, "rx": 12, "ry": 5, "theta": np.pi / 2}
    regions = [
        {"shape_attributes": own, "region_attributes": {"type": "rod"}}
        for own in ({"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}, turned)
    ]
    entries = {name: {"filename": name, "regions": regions} for name in ("a.png", "b.png")}
    for content in (entries, {"_via_img_metadata": entries}):
        found = read(content, tmp_path, shape=(40, 50), image="in/b.tif")
        assert [each.box for each in found] == [(2, 1, 6, 4), (8, 20, 32, 30)]
        assert [each.class_name for each in found] == ["rod", "rod"]
    assert find_outlines(["in/a.tif", "c.tif"], tmp_path) == [tmp_path / "a.json", None]


RING = [[1, 1], [4, 1], [4, 4], [1, 4], [1, 1]]
FIELD = [[0, 0], [8, 0], [8, 6], [0, 6], [0, 0]]
UNKNOWN = {**coco(annotation([SQUARE], category_id=2)), "categories": [{"id": 1, "name": "rod"}]}
CIRCLE = {"name": "circle", "cx": 3, "cy": 3, "r": -2}
REGION = {"shape_attributes": CIRCLE, "region_attributes": {"kind": "2"}}
VIA = {
    "_via_img_metadata": {"a": {"filename": "a", "regions": [REGION]}},
    "_via_attributes": {"region": {"kind": {"options": {"1": "rod", "2": "cube"}}}},
}
IGNORED = {"shapes": [{"label": key, "points": RING} for key in ("__ignore__", "a")]}
BRUSH = {"iscrowd": 1, "attributes": {"occluded": False}}
CORE, TILE, OF_9 = {"objectType": "tmaCore"}, {"objectType": "tile"}, {"Area px^2": 9, "x": np.nan}
INSIDE = {"objectType": "annotation", "childObjects": [feature("Polygon", [RING], **TILE)]}
DERIVED = (FIELD, {"name": "Ignore*: C"}), (FIELD, {"names": "D*"}), (RING, {"names": "BC"})
DOUBTFUL = [  # what a file contains, areas and classes of its outlines, and what is said
    (coco(annotation([SQUARE]), annotation([])), [(9, "")], "1 of 2 .* left out, .* box: 12"),
    (coco(annotation([SQUARE], category_id="rod", score=np.nan)), [(9, "rod")], None),
    (UNKNOWN, [(9, "")], "not among the categories of the file: 12"),
    (coco(annotation([SQUARE], **BRUSH), annotation([OTHER])), [(9, ""), (9, "")], None),
    (coco(annotation([[0, 3, 2, 3, 2, 6, 0, 6]], bbox=[3, 0, 3, 2])), [(6, "")], "than its bbox"),
    ([feature("Polygon", [r], **p) for r, p in ((FIELD, CORE), (RING, {}))], [(9, "")], "tmacore"),
    ([feature("Polygon", [FIELD], **INSIDE)], [(48, ""), (9, "")], "types annotation or tile, "),
    ([feature("Polygon", [RING], measurements=OF_9)], [(9, "")], None),
    ([feature("Polygon", [FIELD], measurements=OF_9)], [(48, "")], "another area than its meas"),
    (IGNORED, [(9, "a")], "1 of 2 outlines left out, as its program ignores"),
    (VIA, [(12, "cube")], None),
    ([feature("Polygon", [r], classification=c) for r, c in DERIVED], [(9, "B: C")], "C, D"),
    (coco(annotation({"size": [6, 8], "counts": [7.0, 3.0, 38.0]})), [(3, "")], None),
    (coco(annotation([SQUARE]), annotation([SQUARE])), [(9, ""), (9, "")], "which count twice"),
    (
        coco(*(annotation([own], category_id=own[0]) for own in (SQUARE, OTHER))),
        2 * [(9, "")],
        "2 of",
    ),
    ([{"type": "Polygon", "coordinates": [RING]}], [(9, "")], None),
    (coco(annotation([SQUARE, [5, 0, 99, 0, 99, 2, 5, 2]])), [(9 + 6, "")], None),
]


@pytest.mark.parametrize(("content", "kept", "words"), DOUBTFUL)
def test_what_may_be_meant_otherwise_is_said(folder, recwarn, content, kept, words):
    found = read(content, folder, shape=(6, 8))
    assert [(each.mask.sum(), each.class_name) for each in found] == kept
    said = [re.search(words, str(each.message)) for each in recwarn]
    assert (len(said), all(said)) == (bool(words), True)


def test_the_whole_field_is_no_particle(recwarn):
    cell = np.pad(np.ones((8, 8), int), 1)  # as colours on white, of which most is covered
    labels = np.kron(np.arange(1, 21).reshape(4, 5), cell) + 255 * (np.tile(cell, (4, 5)) == 0)
    read_outlines(labels)
    unsure, whole = (str(each.message) for each in recwarn)
    assert "1 of 21 outlines of 255 beside others from 1, " in unsure
    assert re.search("1 of 21 outlines over most of the image, .*: 255$", whole)


def test_what_is_no_mask_and_no_label_image_is_refused(tmp_path):
    labels = np.zeros((60, 80), np.uint8)
    labels[5:25, 5:45], labels[30:50, 5:25], labels[30:55, 40:75] = 85, 170, 255
    Image.fromarray(labels).save(tmp_path / "three.png")
    with pytest.raises(ImageReadError, match="expected a mask"):
        read_mask(tmp_path / "three.png")
    high = np.where(labels == 85, 200, labels)
    for name, kind in (("high.png", high), ("rgb.png", np.repeat(high[..., None], 3, axis=2))):
        Image.fromarray(kind).save(tmp_path / name)
        assert_array_equal(read_outlines(tmp_path / name).label_image(), high)
    Image.fromarray(labels).save(tmp_path / "lossy.webp", quality=60)
    Image.fromarray(labels // 85).save(tmp_path / "lossy.jp2", quality_layers=[40])
    smooth = Image.fromarray(np.kron(np.arange(1, 10, dtype=np.uint8).reshape(3, 3), labels // 85))
    smooth.resize((333, 250), Image.Resampling.BILINEAR).save(tmp_path / "smooth.png")
    refused = {"lossy.webp": "whose losses", "lossy.jp2": "whose losses", "smooth.png": "looks"}
    for name, words in refused.items():
        with pytest.raises(ImageReadError, match=words):
            read_outlines(tmp_path / name)
    indices = Image.fromarray((labels > 0).astype(np.uint8), "P")
    indices.putpalette([255, 255, 255, 0, 0, 0])
    indices.save(tmp_path / "inverted.png")
    with pytest.warns(UserWarning, match="displayed the other way round"):
        assert read_mask(tmp_path / "inverted.png").sum() == (labels > 0).sum()
