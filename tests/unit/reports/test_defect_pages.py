"""What scoring writes, and the pages on which the threshold can be moved."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.commands import rows_of
from support.dark_spots import Darkness, spotted
from support.pages import Page

from hypervlad.evaluation import evaluate_defects
from hypervlad.images import ImageReadError, read_mask, read_micrograph
from hypervlad.models import Finding
from hypervlad.results import write_defect_report, write_findings

EVIL = "</script><script>alert(1)</script><!-- & \"quoted\" 'names' ]]>.png"


def write(folder, images, scorer=None, **options):
    names = [f"{i}.png" for i in range(len(images))]
    return write_findings(folder, scorer or Darkness(), images, names, **options)


def scorer_of(find):
    scorer = Darkness()
    scorer.find = find
    return scorer


def page_of(path):
    page = Page(path)
    page.assert_safe()
    return page


def with_pixel_size(path, image):
    """Write an image of 250 nm per pixel."""
    scale = {"resolution": (4, 4), "metadata": {"unit": "um"}}
    tifffile.imwrite(path, np.round(255 * image).astype(np.uint8), imagej=True, **scale)
    return path


# --- files ------------------------------------------------------------------------------------


def test_every_image_has_a_map_a_mask_and_an_overlay(tmp_path):
    images = [spotted(0.9), spotted(0.3)]
    written = write(tmp_path, images)
    assert (written.n_scored, written.n_anomalous, written.n_regions) == (2, 1, 1)
    for i, image in enumerate(images):
        mask = read_mask(tmp_path / "masks" / f"{i}.png.png", shape=image.shape)
        np.testing.assert_array_equal(mask, (image < 0.5) & (i == 0))
        map_ = tifffile.imread(tmp_path / "maps" / f"{i}.png.tif")
        np.testing.assert_allclose(map_, 1 - image, atol=1e-6)
        overlay = np.asarray(Image.open(tmp_path / "overlays" / f"{i}.png.png"))
        is_coloured = np.ptp(overlay, axis=2) > 0
        inner = np.zeros_like(mask)
        inner[12:16, 22:26] = True  # the outline is two pixels wide
        np.testing.assert_array_equal(is_coloured, mask & ~inner)
    with Image.open(tmp_path / "masks" / "0.png.png") as opened:
        assert (opened.mode, opened.getextrema()) == ("L", (0, 255))


def test_sizes_are_in_micrometres_where_the_pixel_size_is_known(tmp_path):
    file = with_pixel_size(tmp_path / "known.tif", spotted(0.9))
    write(tmp_path / "out", [file, spotted(0.9)])
    known, unknown = rows_of(tmp_path / "out" / "scores.csv")
    assert (known["area_um2"], unknown["area_um2"]) == ("4.0", "")
    assert (known["highest_x"], known["highest_y"]) == ("20", "10")
    known, unknown = rows_of(tmp_path / "out" / "regions.csv")
    expected = {"x": 20, "y": 10, "width": 8, "height": 8, "area": 64, "width_um": 2}
    expected |= {"height_um": 2, "area_um2": 4, "diameter": 2 * np.sqrt(64 / np.pi)}
    expected |= {"diameter_um": 4 / np.sqrt(np.pi)}
    assert {name: float(known[name]) for name in expected} == pytest.approx(expected)
    assert {unknown[name] for name in unknown if "_um" in name} == {""}
    assert {known[name] for name in ("contrast_of_range", "area_low")} == {""}, "not known"
    _, pictures = page_of(tmp_path / "out" / "report.html").spaced.split(" Pictures ")
    assert pictures.count("2 µm") == 1, "a scale bar, of a fifth of 15 µm at most"


def test_regions_are_measured(tmp_path):
    def measured(image):
        """Regions at the top are large enough for an area."""
        found = Darkness().find(image)
        own = {"length": 12.0, "breadth": 6.0, "contrast": -0.25}
        small = own | {"area_interval": (0.0, 16.0)}
        large = own | {"area": 40, "area_interval": (20.0, 80.0)}
        regions = [replace(each, **(small if each.row > 20 else large)) for each in found.regions]
        return replace(found, regions=regions)

    image = spotted(0.9)
    image[30:33, 40:44] = 0.2
    known = with_pixel_size(tmp_path / "known.tif", image)
    write_findings(tmp_path, scorer_of(measured), [known, image], ["known.tif", "b.png"])
    names = "length breadth contrast_of_range area area_low area_high length_um breadth_um"
    columns = f"{names} area_um2 area_low_um2 area_high_um2".split()
    large, small, unknown, _ = rows_of(tmp_path / "regions.csv")
    for row, text in [
        (large, "12.0 6.0 -0.25 40 20.0 80.0 3.0 1.5 2.5 1.25 5.0"),
        (small, "12.0 6.0 -0.25 12 0.0 16.0 3.0 1.5 0.75 0.0 1.0"),
        (unknown, "12.0 6.0 -0.25 40 20.0 80.0"),
    ]:
        assert " ".join(row[name] for name in columns).strip() == text
    words = page_of(tmp_path / "report.html").spaced
    assert "2.5 µm² (1.25 to 5) 1.78 µm 3 µm 1.5 µm −25 %" in words
    assert "0.75 µm² (up to 1) 977 nm 3 µm 1.5 µm −25 %" in words
    assert "40 px² (20 to 80) 7.14 px 12 px 6 px −25 %" in words


def test_bad_images_are_left_out_and_named(tmp_path):
    def find(image):
        if image is None:
            raise KeyboardInterrupt
        if image.max() == 0:
            raise ImageReadError(EVIL)
        return Darkness().find(image)

    images = [spotted(0.9), np.ones((5, 5)), spotted(0.1), np.zeros((40, 60))]
    assert len(write(tmp_path, images, scorer_of(find)).left_out) == 2
    assert [row["path"] for row in rows_of(tmp_path / "scores.csv")] == ["0.png", "2.png"]
    page = page_of(tmp_path / "report.html")
    assert "too small" in page.words
    assert EVIL in page.words
    write(tmp_path / "none", [np.ones((5, 5))])
    assert "Of 0 images, 0 are called anomalous" in page_of(tmp_path / "none/report.html").spaced
    # An interrupted run keeps what is complete.
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "some", [spotted(0.9), None], scorer_of(find))
    assert [row["path"] for row in rows_of(tmp_path / "some" / "scores.csv")] == ["0.png"]
    assert [file.name for file in (tmp_path / "some" / "masks").iterdir()] == ["0.png.png"]
    assert "0.png" in page_of(tmp_path / "some" / "report.html").words


def test_names_outside_the_folder_are_refused(tmp_path):
    for names in (["../a"], ["/a"], ["a", "a"]):
        with pytest.raises(ValueError, match="names must be different relative paths"):
            write_findings(tmp_path / "out", Darkness(), [spotted(0.2)] * len(names), names)
    assert not list(tmp_path.iterdir())


# --- the page of scored images ----------------------------------------------------------------


def test_the_threshold_s_text_calls_the_same_images_anomalous(tmp_path):
    at = np.float32(0.53677)
    threshold, below = (float(1 - each) for each in (at, np.nextafter(at, np.float32(1))))
    for levels, n_digits in (((at, 0.6), 4), ((at, np.nextafter(at, np.float32(1))), 8)):
        images = [np.full((40, 60), level, np.float32) for level in levels]
        assert write(tmp_path, images, Darkness(threshold)).n_anomalous == 1
        words = page_of(tmp_path / "report.html").words
        (text,) = set(re.findall(r"--threshold (\d\.\d+)", words))
        assert len(text) <= n_digits + 2
        assert float(text) <= threshold
        assert below < float(text) or n_digits == 4


LEVELS = [*np.linspace(0.1, 0.15, 6), *np.linspace(0.8, 0.85, 4)]
NARROW = sorted([0.5 + step for step in (0, 1e-6, 2e-6, 1e-4, 1.01e-4, 1.02e-4)] * 3)


@pytest.mark.parametrize(
    ("levels", "threshold", "words", "n_low"),
    [
        (LEVELS, 0.12, "up to 0.15 and from 0.8, but the threshold, 0.12,", 6),
        (LEVELS, 0.9, "up to 0.15 and from 0.8, but the threshold, 0.9,", 6),
        (NARROW, 0.9, "up to 0.5 and from 0.5001, but the threshold, 0.9,", 9),
        *((LEVELS, 0.5, "", 0), (LEVELS, 0.16, "", 0), (LEVELS[:6], 0.12, "", 0)),
    ],
)
def test_a_threshold_outside_a_gap_is_warned_of(tmp_path, levels, threshold, words, n_low):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write(tmp_path, [spotted(level) for level in levels], Darkness(threshold))
    page = page_of(tmp_path / "report.html")
    assert ("Check the threshold" in page.words) == bool(words)
    assert len(caught) == bool(words)
    if words:
        text = str(caught[0].message)
        assert words in text
        assert text in page.spaced
        value = float(re.findall(r"--threshold ([\d.]+) does", text)[0])
        assert levels[n_low - 1] + 1e-7 < value <= levels[n_low] + 1e-7


# --- the page of an evaluation ----------------------------------------------------------------


def test_an_evaluation_counts_found_images_and_false_alarms(tmp_path):
    images = [spotted(level) for level in (0.9, 0.8, 0.2, 0.7, 0.1)]
    masks = [image < 1 for image in images[:3]] + [None, None]
    result = evaluate_defects(Darkness(), images, masks, [EVIL, "b", "c", "d", "e"])
    page = page_of(write_defect_report(tmp_path / "p.html", Darkness(), images, result))
    clean, defective = (
        sum(each.confusion.false_positives for each in result.images if each.is_defective == kind)
        for kind in (False, True)
    )
    assert clean != defective
    for words in (
        "the scorer finds 2 of them. False alarms: 1 of 2 (50.0 %, 95 % interval 9.5 to 90.5 %)",
        f"it calls {clean + defective} other patch{'es' * (clean + defective != 1)} defective, "
        f"{clean} in images without defects and {defective} in images with defects",
        "found: 2 of 3 (66.7 %, 95 % interval 20.8 to 93.9 %) missed: 1 of 3 (33.3 %)",
        "false alarms: 1 of 2 (50.0 %, 95 % interval 9.5 to 90.5 %)",
        "false alarms: 1 of 3 (33.3 %, 95 % interval 6.1 to 79.2 %)",
    ):
        assert words in page.spaced
    calls = {row[0]: row[2:5] for row in page.rows if len(row) == 7}
    assert calls == {
        "Image": ["Called", "Mask", "Truly defective"],
        EVIL: ["anomalous", "defective", "2.7 %"],
        "b": ["anomalous", "defective", "2.7 %"],
        "d": ["anomalous", "defect-free", "0.0 %"],
        "c": ["normal", "defective", "2.7 %"],
        "e": ["normal", "defect-free", "0.0 %"],
    }


def test_pixels_of_normal_images_are_not_found(recwarn):
    """As in the tables: such an image has no defective pixel, whatever its map is."""
    strict = scorer_of(
        lambda own: replace(Finding.of(1 - own, 0.5, score=0.4), digest=read_micrograph(own).digest)
    )
    image = spotted(0.9)
    result = evaluate_defects(strict, [image], [image < 1], ["a"])
    (only,) = result.images
    assert (only.is_called, only.found_fraction, only.confusion.true_positives) == (False, 0, 0)
    assert not result.worst[0].found.any()
    images = [image, *(spotted(0.8 - k / 100) for k in range(10)), *[image, spotted(0)] * 2]
    many = evaluate_defects(strict, images, [image < 1] * 15, [*"abcdefghijklmno"])
    assert "without l, n, copies of other images" in str(recwarn.pop(UserWarning).message)
    assert (len(many.images), len(many.worst)) == (13, 12), "so many of the worst are shown"
