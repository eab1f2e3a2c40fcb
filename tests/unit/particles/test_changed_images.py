"""What a run that is resumed makes of images that were replaced, removed or scaled anew."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from hypervlad.particles import find_in_images, write_outlines


def outline(image):
    return ndimage.label(np.asarray(Image.open(image)) > 100)[0]


def draw(image, n, pixel_size):
    pixels = np.random.default_rng(n).integers(40, 48, (80, 120)).astype(np.uint8)
    for left in range(10, 10 + 35 * n, 35):
        pixels[30:46, left : left + 16] = 200
    Image.fromarray(pixels).save(image)
    facts = f"InstructName=SU8000\nImageName={image.name}\nPixelSize={pixel_size}\n"
    image.with_suffix(".txt").write_text(f"[SemImageFile]\n{facts}DataSize=120x80\n")


@pytest.fixture
def find(tmp_path):
    (images := tmp_path / "images").mkdir()
    for name in "abc":
        draw(images / f"{name}.png", 2, 10)

    def find(folder="found", **options):
        files = sorted(images.glob("*.png"))
        return find_in_images(tmp_path / folder, files, outline, root=images, **options)[0]

    find.images = images
    return find


def test_a_changed_image_is_searched_again_and_one_that_is_gone_counts_no_more(find, recwarn):
    found, images = find(), find.images
    corrected = found.outlines("b.png")[:1]
    for name in ("a.png", "b.png"):
        draw(images / name, 3, 10)
    (images / "c.png").unlink()
    write_outlines(found.outlines_file("b.png"), corrected)
    recwarn.clear()
    for _ in range(2):
        table = find(resume=True).table
        assert table["micrograph"].value_counts().to_dict() == {"a.png": 3, "b.png": 1}
    said = [str(each.message) for each in recwarn]
    assert len([each for each in said if each.endswith("outlines are kept: c.png")]) == 1
    assert len([each for each in said if "b.png: the image was replaced or changed" in each]) == 2
    assert "b.png: the image was replaced or changed" in str(found.count().notes)
    draw(images / "b.png", 2, 10)
    draw(images / "c.png", 1, 10)
    again, new = find(resume=True), find("new")
    assert "was replaced" not in str(again.count().notes)
    assert [len(again.outlines(name)) for name in ("a.png", "b.png", "c.png")] == [3, 1, 1]
    for name in ("fields.csv", "particles.csv"):
        texts = [(each.path / name).read_text().splitlines() for each in (again, new)]
        one, other = ([line for line in each if line[:5] != "b.png"] for each in texts)
        assert one == other


def test_a_corrected_pixel_size_is_used_whatever_file_has_the_outlines(find):
    found = find()
    own = found.outlines("b.png")  # classes are in a file of polygons, which has no scale
    rods = [replace(each, class_name="rod") for each in own]
    found.replace_outlines("b.png", replace(own, outlines=rods))
    before = found.table
    for name in "abc":
        draw(find.images / f"{name}.png", 2, 20)
    after = find(resume=True)
    assert after.outlines_file("b.png").suffix == ".geojson"
    np.testing.assert_allclose(after.table["area_nm2"], 4 * before["area_nm2"], equal_nan=False)
    assert [field.by_person for field in after.fields] == [False, True, False]
    same = ["micrograph", "particle", "area_px2", "class"]
    pd.testing.assert_frame_equal(after.table[same], before[same])
