"""Masks from arrays and from files of all formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from PIL import Image

from hypervlad.images import ImageReadError, ReadOptions, find_masks, read_mask
from hypervlad.images.masks import as_mask, mask_banner_rows, warn_if_inverted

MASK = np.zeros((20, 30), dtype=bool)
MASK[3:5, 7:9] = True
RED = np.stack([255 * MASK, 0 * MASK, 0 * MASK], axis=-1).astype(np.uint8)


def written(file, values):
    tifffile.imwrite(file, values) if file.suffix == ".tif" else Image.fromarray(values).save(file)
    return file


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (255 * MASK.astype(np.uint8), "mask.png"),
        (MASK.astype(np.uint8), "mask.png"),  # 0 and 1: black to the eye
        (MASK, "mask.bmp"),
        (np.stack([255 * MASK.astype(np.uint8)] * 3, axis=-1), "mask.png"),
        (RED, "mask.png"),
        *((top * MASK.astype(kind), "mask.tif") for kind in "bhiBHI" for top in (1, 100)),
        (65535 * MASK.astype(np.uint16), "mask.tif"),
        (MASK.astype(np.float32), "mask.tif"),
        (255 * MASK.astype(np.float32), "mask.tif"),
        (0 * MASK.astype(np.uint8), "mask.png"),
        (255 + 0 * MASK.astype(np.uint8), "mask.png"),
    ],
)
def test_masks_of_every_kind(tmp_path, values, name):
    expected = (values.max(axis=-1) if values.ndim == 3 else values) != 0
    assert_array_equal(read_mask(written(tmp_path / name, values), shape=(20, 30)), expected)
    if values.ndim == 2:
        assert_array_equal(read_mask(values), expected)


def test_an_array_is_not_shared():
    found = read_mask(MASK)
    found[:] = True
    assert not MASK.all()


def test_grey_edges_are_cut_in_the_middle(tmp_path):
    large = np.kron(MASK, np.ones((7, 7), dtype=np.uint8)) * 255
    jpeg, resized = tmp_path / "mask.jpg", tmp_path / "resized.png"
    Image.fromarray(large).save(jpeg, quality=60)
    assert len(np.unique(np.asarray(Image.open(jpeg)))) > 2
    assert_array_equal(read_mask(jpeg), large > 0)
    smooth = Image.fromarray(large).resize((120, 80), Image.Resampling.BILINEAR)
    smooth.save(resized)
    assert_array_equal(read_mask(resized), np.asarray(smooth) > 127)


def test_a_banners_rows_are_cut_off_the_mask_too():
    whole = np.vstack([MASK, np.zeros((4, 30), dtype=bool)])
    assert_array_equal(read_mask(whole, shape=(20, 30), banner_rows=4), MASK)
    assert_array_equal(read_mask(MASK, shape=(20, 30), banner_rows=4), MASK)
    with pytest.raises(ImageReadError, match="a mask of 24 x 30 pixels for an image of 20 x 30"):
        read_mask(whole, shape=(20, 30), banner_rows=5)


RNG = np.random.default_rng(0)
GREYS = {
    "a photograph": np.clip(RNG.normal(120, 40, (20, 30)), 0, 255),
    "a bright photograph": np.clip(RNG.normal(200, 15, (20, 30)), 0, 255),
    "labels, the last the most frequent": np.repeat([0, 1, 2, 2], 150).reshape(20, 30),
    "labels far apart": np.repeat([0, 1, 5, 5], 150).reshape(20, 30),
}


@pytest.mark.parametrize("kind", GREYS)
def test_images_that_are_not_masks_are_rejected(tmp_path, kind):
    file = written(tmp_path / "x.png", GREYS[kind].astype(np.uint8))
    with pytest.raises(ImageReadError, match=r"x\.png: expected a mask.*several kinds of defects"):
        read_mask(file)


def test_a_transparent_layer_is_rejected(tmp_path):
    layer = np.full((20, 30, 4), 255, dtype=np.uint8)
    layer[..., 3] = 255 * MASK
    with pytest.raises(ImageReadError, match=r"layer\.png: a mask with a transparent layer"):
        read_mask(written(tmp_path / "layer.png", layer))
    layer[..., :3], layer[..., 3] = RED, 255
    assert_array_equal(read_mask(written(tmp_path / "opaque.png", layer)), MASK)


def test_invalid_masks_are_rejected(tmp_path):
    with pytest.raises(ImageReadError, match=r"gone\.png: no such file"):
        read_mask(tmp_path / "gone.png")
    with pytest.raises(ImageReadError, match="image: the mask must contain True and False"):
        read_mask(np.array([["a"]]))
    with pytest.raises(ValueError, match=r"seen must have shape .* not empty") as error:
        as_mask(np.zeros((0, 3)), "seen")
    assert not isinstance(error.value, ImageReadError)
    with pytest.raises(ImageReadError, match="got -1, 0"):
        read_mask(np.array([[-1, 0]]))


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_masks_are_found_by_name(tmp_path):
    touch(tmp_path, "a.png", "sub/b.bmp", "c_mask.tif", "twice.png", "twice.tif")
    root = Path("images")
    images = [root / "x" / "a.tif", root / "sub" / "b.png", root / "c.png", root / "d.png"]
    b = tmp_path / "sub" / "b.bmp"
    found = find_masks(images, tmp_path, root)
    assert found == [tmp_path / "a.png", b, tmp_path / "c_mask.tif", None]
    assert find_masks([root / "y" / "sub" / "b.png"], tmp_path, root) == [b]
    with pytest.raises(ImageReadError, match=r"b.bmp would be the mask of .*sub.b.png and of .*y"):
        find_masks([*images, root / "y" / "sub" / "b.png"], tmp_path, root)
    with pytest.raises(ImageReadError, match="two masks"):
        find_masks([root / "twice.png"], tmp_path, root)
    with pytest.raises(ImageReadError, match="none of the 1 image has a mask"):
        find_masks([root / "e.png"], tmp_path, root)
    with pytest.raises(ImageReadError, match="no such folder of masks"):
        find_masks([root / "e.png"], tmp_path / "nowhere")


def test_mostly_defective_images_give_a_warning():
    with pytest.warns(UserWarning, match="are these masks inverted"):
        warn_if_inverted([0.9, 0.2, 0.7])
    warn_if_inverted([0.9, 0.2, 0.3])
    warn_if_inverted([])


def test_masks_of_images_without_banner_may_have_its_rows():
    assert mask_banner_rows({"banner": "remove"}) is None
    assert mask_banner_rows(ReadOptions(banner="remove")) is None
    assert mask_banner_rows({}) == 0


def test_the_masks_that_scoring_writes_are_found_by_the_whole_name_of_the_image(tmp_path):
    root, masks = tmp_path / "images", tmp_path / "masks"
    images = [root / "sub" / "a.tif", root / "sub" / "a.png"]
    written_masks = [masks / "sub" / f"{image.name}.png" for image in images]
    touch(masks, "sub/a.tif.png", "sub/a.png.png")
    assert find_masks(images, masks, root) == written_masks
    assert find_masks(images[:1], masks / "sub") == written_masks[:1]


KINDS = {"good": 3, "crack": 3, "hole": 2}


@pytest.mark.parametrize("mark", ["_mask", "_GT", "-label", ""])
@pytest.mark.parametrize("root", [None, "", "test"])
def test_masks_of_a_benchmark(tmp_path, mark, root):
    images = [f"test/{kind}/{n:03d}.png" for kind, count in KINDS.items() for n in range(count)]
    defective = [name for name in images if "good" not in name]
    masks = [f"ground_truth{name[4:-4]}{mark}.png" for name in defective]
    touch(tmp_path, *images, *masks)
    given = [tmp_path / name for name in images]
    found = find_masks(given, tmp_path / "ground_truth", root if root is None else tmp_path / root)
    assert found == [None] * 3 + [tmp_path / mask for mask in masks]


def test_a_mask_in_the_folder_of_one_kind_is_of_that_kind(tmp_path):
    """The names of a benchmark's images are the same in all kinds."""
    images = [f"test/{kind}/{n:03d}.png" for kind, count in KINDS.items() for n in range(count)]
    touch(tmp_path, *images, "ground_truth/crack/000_mask.png", "ground_truth/crack/001_mask.png")
    found = find_masks([tmp_path / name for name in images], tmp_path / "ground_truth" / "crack")
    assert [mask and mask.stem for mask in found] == [None] * 3 + ["000_mask", "001_mask"] + [
        None
    ] * 3


@pytest.mark.parametrize("kind", ["good", "pit"])
def test_masks_of_another_kind_are_refused(tmp_path, kind):
    images = [f"test/{name}/000.png" for name in ("good", "crack", "pit")]
    touch(tmp_path, *images, "ground_truth/crack/000_mask.png", "ground_truth/pit/000_mask.png")
    with pytest.raises(ImageReadError, match="those of their names are of images in another fold"):
        find_masks([tmp_path / "test" / kind / "000.png"], tmp_path / "ground_truth" / "crack")


@pytest.mark.parametrize("folder", ["set/defects", "set/masks", "other/masks", "other/new"])
def test_folders_of_masks_may_have_any_name(tmp_path, folder):
    touch(tmp_path, "set/new/000.png", "set/masks/000.png", f"{folder}/000.png")
    found = find_masks([tmp_path / "set" / "new" / "000.png"], tmp_path / folder)
    assert found == [tmp_path / folder / "000.png"]


def test_an_image_may_be_named_like_a_mask(tmp_path):
    touch(tmp_path, "masks/a_gt.png", "masks/b_label.png")
    images = [Path("images/a.png"), Path("images/a_gt.png"), Path("images/b.png")]
    found = find_masks(images, tmp_path / "masks")
    assert [mask and mask.name for mask in found] == [None, "a_gt.png", "b_label.png"]
