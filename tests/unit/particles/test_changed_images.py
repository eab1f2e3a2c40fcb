"""What a run that is resumed makes of images that were replaced, removed or scaled anew."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from hypervlad.particles import find_in_images, write_outlines

REPLACED = "b.png: the image was replaced or changed after a person had corrected its outlines"


def draw(root, names, n, pixel_size=10):
    """Save images with n squares, and their pixel size beside them."""
    (root / "images").mkdir(exist_ok=True)
    pixels = np.random.default_rng(n).integers(40, 48, (80, 120)).astype(np.uint8)
    for left in range(10, 10 + 35 * n, 35):
        pixels[30:46, left : left + 16] = 200
    for name in names:
        Image.fromarray(pixels).save(root / f"images/{name}.png")
        facts = f"InstructName=SU8000\nImageName={name}.png\nPixelSize={pixel_size}\n"
        (root / f"images/{name}.txt").write_text(f"[SemImageFile]\n{facts}DataSize=120x80\n")


def outline(image):
    return ndimage.label(np.asarray(Image.open(image)) > 100)[0]


def find(root, folder="found", **options):
    images, files = root / "images", sorted((root / "images").glob("*.png"))
    return find_in_images(root / folder, files, outline, root=images, **options)[0]


def test_a_changed_image_is_searched_again_and_one_that_is_gone_counts_no_more(tmp_path, recwarn):
    draw(tmp_path, "abc", 2)
    found = find(tmp_path)
    draw(tmp_path, "ab", 3)
    (tmp_path / "images" / "c.png").unlink()
    write_outlines(found.outlines_file("b.png"), found.outlines("b.png")[:1])
    for _ in range(2):
        table = find(tmp_path, resume=True).table
        assert table["micrograph"].value_counts().to_dict() == {"a.png": 3, "b.png": 1}
    said = [str(each.message) for each in recwarn]
    for text, n in (("once they are back: c.png", 1), (REPLACED, 2)):
        assert len([each for each in said if text in each]) == n
    assert REPLACED in str(found.count().notes)
    draw(tmp_path, "b", 2)
    draw(tmp_path, "c", 1)
    again, new = find(tmp_path, resume=True), find(tmp_path, "new")
    assert REPLACED not in str(again.count().notes)
    assert [len(again.outlines(f"{name}.png")) for name in "abc"] == [3, 1, 1]
    for name in ("fields.csv", "particles.csv"):
        texts = [(each.path / name).read_text().splitlines() for each in (again, new)]
        one, other = ([line for line in each if line[:5] != "b.png"] for each in texts)
        assert one == other


@pytest.mark.parametrize("gone", ["", "ab"])
def test_what_people_wrote_stays_if_images_are_gone_for_a_while(tmp_path, gone, recwarn):
    draw(tmp_path, "abc", 2)
    own = (found := find(tmp_path)).outlines("b.png")
    rods = [replace(each, class_name="rod") for each in own]  # written as polygons, without a scale
    found.replace_outlines("b.png", replace(own, outlines=rods))
    before = found.table.assign(left_out=[1, 0, 0, 1, 0, 0], own=list("xyzxyz"))
    before.to_csv(found.path / "particles.csv", index=False)
    for name in gone:
        (tmp_path / "images" / f"{name}.png").unlink()
    assert {*find(tmp_path, resume=True).table["micrograph"]}.isdisjoint(f"{n}.png" for n in gone)
    draw(tmp_path, "abc", 2, 20)
    after = find(tmp_path, resume=True)
    assert after.outlines_file("b.png").suffix == ".geojson"
    np.testing.assert_allclose(after.table["area_nm2"], 4 * before["area_nm2"], equal_nan=False)
    assert [field.by_person for field in after.fields] == [False, True, False]
    same = ["micrograph", "particle", "area_px2", "class", "left_out", "own"]
    assert after.table[same].equals(before[same])
    (found.path / "gone_particles.csv").write_text("damaged\n")
    after.count()
    assert "gone_particles.csv: no column" in str(recwarn.list[-1].message)
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"gone_particles.csv: no column"):
        find(tmp_path, resume=True)
