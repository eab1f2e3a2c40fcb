"""Masks from arrays and from files of all formats, and finding them by the names of images."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from PIL import Image
from support.feature_folders import touch

from hypervlad.images import ImageReadError, find_masks, read_mask

MASK = np.zeros((20, 30), dtype=bool)
MASK[3:5, 7:9] = True
GREY = MASK.astype(np.uint8)
RED = np.stack([255 * GREY, 0 * GREY, 0 * GREY], axis=-1)


def written(file, values):
    tifffile.imwrite(file, values) if file.suffix == ".tif" else Image.fromarray(values).save(file)
    return file


@pytest.mark.parametrize(
    ("values", "name"),
    [
        *((top * GREY, "mask.png") for top in (0, 1, 255)),
        (MASK, "mask.bmp"),
        (np.stack([255 * GREY] * 3, axis=-1), "mask.png"),
        (RED, "mask.png"),
        (np.dstack([RED, 0 * GREY + 255]), "mask.png"),  # opaque
        *((top * MASK.astype(kind), "mask.tif") for kind in "bhiBHIf" for top in (1, 100)),
        (65535 * MASK.astype(np.uint16), "mask.tif"),
        (255 + 0 * GREY, "mask.png"),
    ],
)
def test_masks_of_every_kind(tmp_path, values, name):
    expected = (values[..., :3].max(axis=-1) if values.ndim == 3 else values) != 0
    assert_array_equal(read_mask(written(tmp_path / name, values), shape=(20, 30)), expected)
    if values.ndim == 2:
        found = read_mask(values)
        assert_array_equal(found, expected)
        assert not np.shares_memory(found, values)


def test_grey_edges_are_cut_in_the_middle(tmp_path):
    large = np.kron(MASK, np.ones((7, 7), dtype=np.uint8)) * 255
    Image.fromarray(large).save(tmp_path / "mask.jpg", quality=60)
    assert_array_equal(read_mask(tmp_path / "mask.jpg"), large > 0)


def test_a_banners_rows_are_cut_off_the_mask_too():
    whole = np.vstack([MASK, np.zeros((4, 30), dtype=bool)])
    for mask, rows in ((whole, 4), (MASK, 4), (whole, None), (MASK, None)):
        assert_array_equal(read_mask(mask, shape=(20, 30), banner_rows=rows), MASK)
    high = np.vstack([MASK, np.zeros((9, 30), dtype=bool)])  # 9 of 29: no banner
    for mask, rows in ((whole, 5), (whole, 0), (high, None)):
        with pytest.raises(ImageReadError) as error:
            read_mask(mask, shape=(20, 30), banner_rows=rows)
        assert f"a mask of {len(mask)} x 30 pixels for an image of 20 x 30" in str(error.value)


RNG = np.random.default_rng(0)
SEVERAL = r"x\.png: expected a mask.*several kinds of defects\? Save a mask of each"
LAYER = np.dstack([np.full((20, 30, 3), 255), 255 * MASK]).astype(np.uint8)
REFUSED = {
    "photograph": (np.clip(RNG.normal(120, 40, (20, 30)), 0, 255).astype("u1"), SEVERAL),
    "labels": (np.repeat(np.uint8([0, 1, 2, 2]), 150).reshape(20, 30), SEVERAL),
    "transparent": (LAYER, r"x\.png: with a transparent layer; export it flattened"),
    "missing": ("gone.png", r"gone\.png: no such file"),
    "text": (np.array([["a"]]), "image: the mask must contain True and False"),
    "channels": (np.zeros((2, 3, 3)), r"got shape \(2, 3, 3\)"),
    "negative": (np.array([[-1, 0]]), r"got -1, 0 \(2 in all\). Threshold it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_mask_is_refused(tmp_path, case):
    source, words = REFUSED[case]
    if words.startswith("x"):
        source = written(tmp_path / "x.png", source)
    with pytest.raises(ImageReadError, match=words):
        read_mask(source)


def test_masks_are_found_by_name(tmp_path):
    touch(tmp_path, "a.png", "sub/b.bmp", "c_mask.tif", "twice.png", "twice.tif", "notes.txt")
    touch(tmp_path, "e.tif.png", "e.png.png", "f_gt.png", "g_label.png", "f.txt")
    images = ["x/a.tif", "sub/b.png", "c.png", "d.png", "e.tif", "e.png", "f.png", "g.png"]
    expected = ["a.png", "sub/b.bmp", "c_mask.tif", None, "e.tif.png", "e.png.png"]
    expected += ["f_gt.png", "g_label.png"]
    root = Path("images")
    found = find_masks([root / image for image in images], tmp_path, root)
    assert found == [name and tmp_path / name for name in expected]
    assert find_masks([root / "y/sub/b.png"], tmp_path / "sub", root) == [tmp_path / "sub/b.bmp"]
    # An image may be named like a mask.
    own = ["images/f.png", "images/f_gt.png"]
    assert find_masks(own, tmp_path) == [None, tmp_path / "f_gt.png"]


@pytest.mark.parametrize(
    ("images", "folder", "words"),
    [
        (["sub/b.png", "y/sub/b.png"], "", r"b.bmp would be the mask of .*sub.b.png and of .*y"),
        (["twice.png"], "", r"twice\.png: two masks, .*twice\.png and .*twice\.tif; keep one"),
        (["e.png"], "", r"none of the 1 image has a mask here; .*named like .*, such as e\.png"),
        (["e.png"], "nowhere", "no such folder of masks"),
    ],
)
def test_masks_that_are_missing_or_ambiguous(tmp_path, images, folder, words):
    touch(tmp_path, "sub/b.bmp", "twice.png", "twice.tif")
    with pytest.raises(ImageReadError, match=words):
        find_masks([Path("images", image) for image in images], tmp_path / folder, "images")


KINDS = {"good": 3, "crack": 3, "hole": 2}
BENCHMARK = [f"test/{kind}/{n:03d}.png" for kind, count in KINDS.items() for n in range(count)]


@pytest.mark.parametrize("mark", ["_mask", "_GT", "-label", ""])
@pytest.mark.parametrize("root", [None, "", "test"])
def test_masks_of_a_benchmark(tmp_path, mark, root):
    masks = [f"ground_truth{name[4:-4]}{mark}.png" for name in BENCHMARK if "good" not in name]
    touch(tmp_path, *BENCHMARK, *masks)
    given = [tmp_path / name for name in BENCHMARK]
    found = find_masks(given, tmp_path / "ground_truth", root if root is None else tmp_path / root)
    assert found == [None] * 3 + [tmp_path / mask for mask in masks]


def test_a_mask_in_the_folder_of_one_kind_is_of_that_kind(tmp_path):
    """The names of a benchmark's images are the same in all kinds."""
    touch(tmp_path, *BENCHMARK)
    touch(tmp_path / "ground_truth", "crack/000_mask.png", "crack/001_mask.png", "pit/000_mask.png")
    given, masks = [tmp_path / name for name in BENCHMARK], tmp_path / "ground_truth" / "crack"
    names = [mask and mask.stem for mask in find_masks(given, masks)]
    assert names == [None] * 3 + ["000_mask", "001_mask"] + [None] * 3
    touch(tmp_path, "test/pit/000.png")
    for kind in ("good", "pit"):
        with pytest.raises(ImageReadError, match="those of their names are of images in another"):
            find_masks([tmp_path / "test" / kind / "000.png"], masks)
