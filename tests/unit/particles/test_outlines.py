"""Outlines in the files of other programs: reading, finding and writing them."""

from __future__ import annotations

import json
import re
import struct
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_array_equal
from PIL import Image
from skimage.draw import polygon as skimage_polygon

from hypervlad.images import ImageReadError, read_micrograph
from hypervlad.particles import (
    Outline,
    Outlines,
    cut_particles,
    find_outlines,
    outlines,
    read_outlines,
    shapes,
    write_outlines,
)
from hypervlad.particles.shapes import expand_runs, fill_polygons, trace_polygons

LABELS = np.zeros((6, 8), np.uint8)
LABELS[1:4, 1:4], LABELS[2, 2], LABELS[4:6, 5:8] = 3, 0, 7
SQUARE = [1, 1, 4, 1, 4, 4, 1, 4]  # x and y of corners, as in COCO


def pixels(outline, shape):
    field = np.zeros(shape, bool)
    if outline is not None:
        field[outline.window] = outline.mask
    return field


def has_roifile(suffix):
    return suffix != ".zip" or pytest.importorskip("roifile")


def coco(*annotations, images=({"id": 5, "file_name": "a.png", "height": 6, "width": 8},)):
    return json.dumps({"images": images, "annotations": annotations})


def annotation(segmentation, **keys):
    return {"id": 12, "image_id": 5, "segmentation": segmentation, **keys}


def counts_of(mask):
    """Return COCO's run lengths by walking through the pixels."""
    runs, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            runs, value = [*runs, 0], pixel
        runs[-1] += 1
    return runs


def compressed(counts):
    """Return run lengths as COCO's text, as its own code writes them."""
    text = ""
    for number, value in enumerate(counts):
        value -= counts[number - 2] if number > 2 else 0
        while True:
            code, value = value & 31, value >> 5
            more = value != (-1 if code & 16 else 0)
            text += chr((code | 32 if more else code) + 48)
            if not more:
                break
    return text


# --- pixels and polygons --------------------------------------------------------------------------

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12))


@given(masks)
@example(np.array([[1, 0], [0, 1]], bool))  # two parts that meet at a corner
@example(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], bool))  # a hole that touches the outside
def test_polygons_around_pixels_are_simple_and_exact(mask):
    polygons = trace_polygons(mask)

    area = 0.0
    for polygon in polygons:
        for number, ring in enumerate(polygon):
            assert len(np.unique(ring, axis=0)) == len(ring)
            x, y = ring.T
            signed = (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2
            assert (signed > 0) == (number == 0)
            area += signed
    assert area == mask.sum()
    assert_array_equal(pixels(fill_polygons(polygons, mask.shape), mask.shape), mask)


coordinates = st.floats(-5, 25, width=32)


@settings(max_examples=30)
@given(st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=8))
def test_polygons_contain_the_centres_of_their_pixels(corners):
    corners = np.array(corners)
    found = pixels(fill_polygons([[corners]], (20, 20)), (20, 20))

    expected = np.zeros((20, 20), bool)
    expected[skimage_polygon(corners[:, 1] - 0.5, corners[:, 0] - 0.5, (20, 20))] = True
    # For skimage, centres on the line itself are in.
    along = (np.roll(corners, -1, axis=0) - corners)[:, :, None, None]
    rows, columns = (np.mgrid[:20, :20] + 0.5)[:, None] - corners.T[::-1, :, None, None]
    is_off = (np.abs(along[:, 0] * rows - along[:, 1] * columns) > 1e-4).all(axis=0)
    assert_array_equal(found[is_off], expected[is_off])


def test_centres_on_an_edge_belong_to_the_polygon_below_or_on_the_right():
    square = np.array([[0.5, 0.5], [2.5, 0.5], [2.5, 2.5], [0.5, 2.5]])
    found = fill_polygons([[square]], (4, 4))
    assert found.box == (0, 0, 2, 2)
    assert found.mask.all()
    assert fill_polygons([[square], [square]], (4, 4)).mask.all()  # a union, not even-odd


@given(masks)
def test_run_lengths(mask):
    counts = counts_of(mask)
    assert_array_equal(pixels(expand_runs(counts, mask.shape), mask.shape), mask)
    assert_array_equal(pixels(expand_runs(compressed(counts), mask.shape), mask.shape), mask)


def test_run_lengths_of_cocos_own_code():
    mask = np.zeros((300, 200), bool)
    mask[20:250, 30:38] = True
    mask[100:110, 33:35] = False
    text = "li8V7V20000ZKTNl1l1TNTNl1l1j20000T^_1"  # by pycocotools
    assert compressed(counts_of(mask)) == text
    assert_array_equal(pixels(expand_runs(text, mask.shape), mask.shape), mask)


# --- round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".tif", ".zip", ".geojson"])
@settings(max_examples=30)
@given(
    labels=arrays(
        np.int32,
        array_shapes(min_dims=2, max_dims=2, max_side=10),
        elements=st.sampled_from([0, 0, 1, 2, 300, 70_000]),
    )
)
def test_what_is_written_is_read(suffix, labels):
    assert has_roifile(suffix)
    assume(set(np.unique(labels)) - {0} != {1})  # perhaps a mask
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        write_outlines(path, labels)
        found = read_outlines(path, shape=labels.shape)
    assert [outline.label for outline in found] == sorted(set(np.unique(labels)) - {0})
    assert_array_equal(found.label_image(), labels)


@pytest.mark.parametrize("suffix", [".zip", ".geojson"])
def test_overlaps_survive_but_in_label_images(tmp_path, suffix):
    assert has_roifile(suffix)
    stack = np.zeros((2, 6, 8), bool)
    stack[0, :4, :4] = stack[1, 2:, 2:] = True
    write_outlines(tmp_path / f"a{suffix}", stack)
    for found, mask in zip(
        read_outlines(tmp_path / f"a{suffix}", shape=(6, 8)), stack, strict=True
    ):
        assert_array_equal(pixels(found, (6, 8)), mask)
    with pytest.raises(ValueError, match=r"a\.tif: the outlines overlap.*write \.zip or \.geojson"):
        write_outlines(tmp_path / "a.tif", stack)
    assert not (tmp_path / "a.tif").exists()


def test_far_regions_keep_their_place(tmp_path):
    assert has_roifile(".zip")
    labels = np.zeros((2, 70_000), np.uint8)  # beyond the 16 bits of ImageJ
    labels[:, 40_000:40_003], labels[1, 69_990:] = 2, 5
    write_outlines(tmp_path / "a.zip", labels)
    assert_array_equal(read_outlines(tmp_path / "a.zip", shape=labels.shape).label_image(), labels)


def test_a_label_tiff_has_its_scale(tmp_path):
    write_outlines(tmp_path / "a.tif", LABELS, pixel_size=0.37)
    assert read_micrograph(tmp_path / "a.tif").pixel_size == pytest.approx(0.37, rel=1e-6)
    write_outlines(tmp_path / "b.tif", read_outlines(tmp_path / "a.tif"))  # with its scale
    cut = read_outlines(tmp_path / "b.tif", shape=(5, 8), banner_rows=1)
    assert cut.pixel_size == pytest.approx(0.37, rel=1e-6)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.imagej_metadata["unit"] == "um"
        assert tiff.pages[0].dtype == np.uint16


def test_geojson_has_classes_and_measures(tmp_path):
    path = tmp_path / "a.geojson"
    measures = {"Area": [8, np.nan]}
    write_outlines(path, LABELS, classes=["cube", "rod"], measures=measures)
    first, second = json.loads(path.read_text())["features"]
    assert first["properties"] == {
        "objectType": "annotation",
        "name": "3",
        "classification": {"name": "cube"},
        "measurements": {"Area": 8.0},
    }
    assert "measurements" not in second["properties"]
    assert len(first["geometry"]["coordinates"]) == 2  # with its hole
    for wrong, message in (
        ({"classes": ["cube"]}, "1 values of classes for 2 outlines"),
        ({"measures": {"Area": [1]}}, "1 values of Area for 2"),
    ):
        with pytest.raises(ValueError, match=message):
            write_outlines(path, LABELS, **wrong)


@pytest.mark.parametrize(
    ("name", "labels", "keys", "message"),
    [
        ("a.png", LABELS, {}, "written as .tif, .tiff, .zip or .geojson"),
        ("a.tif", LABELS, {"classes": ["a", "b"]}, "only .geojson files contain classes"),
        (
            "a.tif",
            LABELS,
            {"pixel_size": 0.0},
            "pixel_size must be None or nanometres per pixel above 0",
        ),
        ("a.tif", LABELS * np.int32(2**24), {}, r"label \d+ is above 2\*\*24"),
    ],
)
def test_what_cannot_be_written(tmp_path, name, labels, keys, message):
    with pytest.raises(ValueError, match=message):
        write_outlines(tmp_path / name, labels, **keys)


# --- formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*"bBhHiIqQfd", "npy", "png8", "png16", "array"])
def test_label_images_of_every_type(tmp_path, kind):
    path, labels = tmp_path / "a.tif", LABELS.astype(kind if len(kind) == 1 else np.uint16)
    if kind == "npy":
        path = tmp_path / "a.npy"
        np.save(path, labels)
    elif kind.startswith("png"):
        path = tmp_path / "a.png"
        Image.fromarray(LABELS if kind == "png8" else labels).save(path)
    else:
        tifffile.imwrite(path, labels)
    found = read_outlines(labels if kind == "array" else path, shape=(6, 8))
    assert_array_equal(found.label_image(), LABELS)
    assert [outline.label for outline in found] == [3, 7]


@pytest.mark.parametrize("top", [1, 255])
def test_a_mask_is_split_with_a_warning(tmp_path, top):
    Image.fromarray(np.where(LABELS > 0, top, 0).astype(np.uint8)).save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match=rf"a mask \(0 and {top}\), .* 2 separate regions"):
        found = read_outlines(tmp_path / "a.png")
    assert_array_equal(found.label_image(), np.unique(LABELS, return_inverse=True)[1])
    with pytest.warns(UserWarning, match="outlines: a mask .* 2 separate regions"):
        assert len(Outlines.of(LABELS > 0)) == 2
    for top in (255, 65535, 2**32 - 1):  # of types of more bits
        with pytest.warns(UserWarning, match=rf"a mask \(0 and {top}\), .* 2 separate regions"):
            assert len(Outlines.of(np.where(LABELS > 0, top, 0).astype(np.uint32))) == 2
    with pytest.warns(UserWarning, match=r"a mask \(0 and 255\)"):
        assert len(Outlines.of(255.0 * (LABELS > 0))) == 2
    five = np.where(LABELS > 0, 5, 0).astype(np.uint8)  # one particle in two pieces
    assert_array_equal(read_outlines(five).label_image(), five)


def test_a_folder_of_masks(tmp_path):
    for number in (10, 9):
        mask = np.zeros((6, 8), np.uint8)
        mask[:number, number - 8 :] = 255
        Image.fromarray(mask).save(tmp_path / f"cell-{number}.png")
    (tmp_path / "metadata.csv").write_text("id,area")
    first, second = read_outlines(tmp_path)
    assert (first.label, first.box, second.box) == (1, (0, 1, 6, 8), (0, 2, 6, 8))
    Image.fromarray(mask[:4]).save(tmp_path / "z.png")
    with pytest.raises(ImageReadError, match=r"z\.png: a mask of 4 x 8 .* an image of 6 x 8"):
        read_outlines(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageReadError, match="empty: a folder without masks"):
        read_outlines(tmp_path / "empty")


def test_regions_of_imagej(tmp_path):
    roifile = pytest.importorskip("roifile")

    def region(kind, left, top, right, bottom):
        return roifile.ImagejRoi(
            roitype=roifile.ROI_TYPE[kind], left=left, top=top, right=right, bottom=bottom
        ).tobytes()

    corners = np.reshape(SQUARE, (-1, 2))
    with zipfile.ZipFile(tmp_path / "RoiSet.zip", "w") as archive:
        archive.writestr("../square.roi", roifile.ImagejRoi.frompoints(corners).tobytes())
        archive.writestr("box.roi", region("RECT", -3, 4, 2, 9))
        archive.writestr("disc.roi", region("OVAL", 10, 0, 50, 40))
        archive.writestr("bar.roi", region("LINE", 0, 0, 5, 5))
        archive.writestr("far.roi", region("RECT", 90, 4, 99, 9))
        archive.writestr("__MACOSX/._box.roi", b"no region")
    with (
        pytest.warns(UserWarning, match="1 region left out, without an area .*: bar"),
        pytest.warns(UserWarning, match="1 of 4 outlines left out, .* 40 x 60 pixels: far"),
    ):
        square, box, disc = read_outlines(tmp_path / "RoiSet.zip", shape=(40, 60))
    assert (square.label, square.box, box.box) == (1, (1, 1, 4, 4), (4, 0, 9, 2))
    rows, columns = np.mgrid[:40, :40] - 19.5
    assert_array_equal(disc.mask, rows**2 + columns**2 < 400)
    (tmp_path / "7.roi").write_bytes(region("RECT", 0, 0, 2, 2))
    assert read_outlines(tmp_path / "7.roi", shape=(4, 4))[0].label == 7
    with pytest.raises(ImageReadError, match=r"7\.roi: .*give shape=\(height, width\)"):
        read_outlines(tmp_path / "7.roi")


def test_coco_polygons_and_runs(tmp_path):
    path, mask = tmp_path / "set.json", LABELS == 7
    counts = counts_of(mask)
    path.write_text(
        coco(
            annotation([SQUARE, [5, 0, 99, 0, 99, 2, 5, 2]]),
            annotation({"size": [6, 8], "counts": counts}, id=30),
            annotation({"size": [6, 8], "counts": compressed(counts)}, id=20),
        )
    )
    found = read_outlines(path)
    assert [outline.label for outline in found] == [12, 20, 30]
    assert_array_equal(pixels(found[1], (6, 8)), mask)
    assert_array_equal(pixels(found[2], (6, 8)), mask)
    assert found[0].box == (1 - 1, 1, 4, 8)
    assert found[0].mask.sum() == 9 + 6
    (tmp_path / "sam.json").write_text(
        json.dumps([{"segmentation": {"size": [6, 8], "counts": counts}, "area": 6}])
    )
    assert_array_equal(read_outlines(tmp_path / "sam.json").label_image(), mask)


def test_features_without_a_collection_and_without_an_area(tmp_path):
    square = [[[1, 1], [4, 1], [4, 4], [1, 4], [1, 1]]]
    geometries = [
        {"type": "Point", "coordinates": [1, 1]},
        {"type": "Polygon", "coordinates": square},
        {"type": "Polygon", "coordinates": []},
    ]
    features = [{"type": "Feature", "geometry": each} for each in geometries]
    (tmp_path / "a.json").write_text(json.dumps(features))
    with pytest.warns(UserWarning, match="2 of 3 outlines left out, .*: Point, Polygon"):
        (found,) = read_outlines(tmp_path / "a.json", shape=(6, 8))
    assert (found.label, found.box, found.mask.all()) == (2, (1, 1, 4, 4), True)


def test_coco_of_several_images(tmp_path):
    path = tmp_path / "set.json"
    images = [
        {"id": 5, "file_name": "x/a.png", "height": 6, "width": 8},
        {"id": 6, "file_name": "y\\a.png", "height": 4, "width": 4},
        {"id": 8, "file_name": "b.png", "height": 4, "width": 4},
    ]
    path.write_text(coco(annotation([SQUARE]), annotation([SQUARE], image_id=6), images=images))
    assert read_outlines(path, image="/any/x/a.tif").shape == (6, 8)
    assert len(read_outlines(path, image=6)) == 1
    assert len(read_outlines(path, image="b.png")) == 0
    for image in (None, "a.png", "c.png", 7):
        with pytest.raises(
            ImageReadError, match=r"outlines of 3 images, x/a\.png, .*give the name"
        ):
            read_outlines(path, image=image)
    wanted = ["in/x/a.png", "in/y/a.png", "in/b.tif", "in/c.png"]
    assert find_outlines(wanted, tmp_path) == [path, path, path, None]


def test_outlines_of_the_whole_frame_lose_the_banner():
    stack = np.zeros((2, 6, 8), bool)
    stack[0, 3:, :2] = stack[1, 5, 5] = True
    with pytest.warns(UserWarning, match="1 of 2 outlines left out, .* 5 x 8 pixels: 2"):
        (found,) = read_outlines(stack, shape=(5, 8), banner_rows=1)
    assert found.box == (3, 0, 5, 2)
    with pytest.raises(ImageReadError, match=r"^outlines 3: a segmentation of 6 x 8 pixels for"):
        read_outlines(stack, shape=(5, 8), name="outlines 3")


# --- bad input ------------------------------------------------------------------------------------


def npy(shape, kind="|u1"):
    head = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a_seg.npy", npy((), "|O"), "a pickle.*If cellpose wrote it, .*--save_tif"),
        ("a.npy", npy((10**9, 10**9)), "damaged, or not a file of outlines"),
        ("a.tif", b"", "the file is empty"),
        ("a.txt", b"text", "not an image that can be read"),
        ("a.json", b"[" * 100_000, "not JSON to be read"),
        ("a.json", b'{"shapes": []}', "KeyError: 'annotations'"),
        ("a.json", coco(annotation([[0, 0, 1e300, 0, 1, 1]])), "beyond a billion"),
        ("a.json", coco(annotation([[0, 0, 1]])), "cannot reshape"),
        ("a.json", coco(annotation({"size": [6, 8], "counts": [2**62, 2**62]})), "do not fill"),
        ("a.json", coco(annotation({"size": [6, 8], "counts": [48.0]})), "do not fill"),
        ("a.json", coco(annotation({"size": [6, 8], "counts": "o" * 99})), "damaged compressed"),
        ("a.json", coco(annotation({"size": [6, 9], "counts": [54]})), "of another size than"),
        (
            "a.json",
            coco(annotation([SQUARE]), images=[{"id": 5, "height": 10**6, "width": 10**6}]),
            "more than max_pixels",
        ),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ImageReadError, match=message) as error:
        read_outlines(path, shape=(6, 8))
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("module", "limit", "message"),
    [
        (outlines, "MAX_PIXELS", "outlines of more than 50 pixels"),
        (outlines, "_MAX_BYTES", "more than 50 bytes"),
        (outlines, "_MAX_VALUES", "more than 50 values"),
        (shapes, "_MAX_CROSSINGS", "crosses rows of pixels more than 50 times"),
    ],
)
def test_limits_bound_the_memory(tmp_path, monkeypatch, module, limit, message):
    teeth = [*[1, 1, 2, 6] * 9, 8, 6, 8, 0]
    found = annotation([teeth]), annotation({"size": [6, 8], "counts": [0, 48]})
    (tmp_path / "a.json").write_text(coco(*found))
    assert len(read_outlines(tmp_path / "a.json")) == 2
    monkeypatch.setattr(module, limit, 50)
    with pytest.raises(ImageReadError, match=message):
        read_outlines(tmp_path / "a.json")


def test_bad_archives_are_refused(tmp_path, monkeypatch):
    roifile = pytest.importorskip("roifile")
    monkeypatch.setattr(outlines, "_MAX_BYTES", 1 << 20)
    for name, size, message in (
        ("mask.png", 9, "contains mask.png; unpack"),
        ("a.roi", 2**21, "regions of 2,097,152 bytes; split it"),
    ):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, bytes(size))
        with pytest.raises(ImageReadError, match=message):
            read_outlines(tmp_path / "a.zip", shape=(4, 4))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for k in (1, 2):
            region = roifile.ImagejRoi.frompoints(np.reshape(SQUARE, (-1, 2)), position=k)
            archive.writestr(f"{k}.roi", region.tobytes())
    with pytest.raises(ImageReadError, match="regions of several slices"):
        read_outlines(tmp_path / "a.zip", shape=(4, 4))
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(ImageReadError, match=r"damaged, or not .* not a zip file"):
        read_outlines(tmp_path / "a.zip", shape=(4, 4))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 5), 0.5), "labels must be whole numbers"),
        (np.full((4, 5), np.nan), "labels must be whole numbers"),
        (np.full((4, 5), -1), "labels must be from 0 to 2,147,483,647, not -1"),
        (np.zeros((4, 5, 3), np.uint8), "If these are colours, .*Lookup Tables > Grays"),
        (np.array(["a"]), "expected a label image"),
        ([np.ones((2, 2), bool), np.ones((2, 3), bool)], "masks that differ in size"),
    ],
)
def test_what_is_no_label_image(values, message):
    with pytest.raises(ImageReadError, match=message):
        read_outlines(values)


def test_several_pages_and_colours_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 40, 50), np.uint16), photometric="minisblack")
    with pytest.raises(ImageReadError, match="a file of 3 pages, of which none is read"):
        read_outlines(tmp_path / "a.tif")
    coloured = Image.fromarray(LABELS).convert("P")
    coloured.putpalette([*range(255, -1, -1)] * 3)
    coloured.save(tmp_path / "b.png")
    with pytest.raises(ImageReadError, match=r"b\.png: .* If these are colours"):
        read_outlines(tmp_path / "b.png")


def test_a_missing_extra_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "roifile", None)
    with pytest.raises(ImageReadError, match=re.escape('pip install "hypervlad[formats]"')):
        write_outlines(tmp_path / "a.zip", LABELS)


def test_outlines_are_found_by_name(tmp_path):
    names = (
        "a_cp_masks.png",
        "a_seg.npy",
        "b_seg.npy",
        "c/0.png",
        "c/1.png",
        "d_RoiSet.zip",
        "d.tif",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    images = [tmp_path / name for name in ("a.tif", "b.tif", "c.tif", "d.tif", "e.tif")]
    found = find_outlines(images, tmp_path)  # d.tif is an image itself
    expected = ["a_cp_masks.png", "b_seg.npy", "c", "d_RoiSet.zip", None]
    assert [path and path.name for path in found] == expected
    with pytest.raises(ImageReadError, match="none of the 1 image has a segmentation here"):
        find_outlines(["f.tif"], tmp_path)
    with pytest.raises(ImageReadError, match="nowhere: no such folder of outlines"):
        find_outlines(images, tmp_path / "nowhere")


def test_outlines_pass_through_and_are_chosen():
    found = Outlines.of(LABELS)
    assert read_outlines(found, shape=(6, 8)) is found
    assert [outline.label for outline in found[np.array([False, True])]] == [7]
    assert_array_equal(found, LABELS)


@pytest.mark.parametrize("box", [(3, 3, 7, 6), (-1, 0, 3, 3)])
def test_outlines_beyond_the_field_are_named(box):
    outline = Outline(4, box, np.ones((4, 3), bool))
    with pytest.raises(ImageReadError, match=r"outline 4: its box .* reaches beyond .* 6 x 8"):
        Outlines((6, 8), (outline,))


def test_empty_masks_of_a_stack_are_named():
    with pytest.warns(UserWarning, match="1 of 2 masks left out, without a pixel"):
        assert repr(read_outlines(np.stack([LABELS == 3, LABELS == 5]))) == (
            "Outlines(1 particle in 6 x 8 pixels)"
        )


def test_an_image_without_pixels_is_named():
    with pytest.raises(ImageReadError, match="has no pixels"):
        cut_particles(np.zeros((0, 0)), np.zeros((0, 0), int))
