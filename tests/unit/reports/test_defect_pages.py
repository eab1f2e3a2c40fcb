"""What scoring writes, and the pages on which the threshold can be moved."""

from __future__ import annotations

import csv
import dataclasses
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.measure import grid_points_in_poly
from support.dark_spots import Darkness, spotted
from support.pages import Page

from hypervlad.evaluation import evaluate_defects
from hypervlad.images import ImageReadError, TrainingImagesWarning, read_image, read_mask
from hypervlad.models import DetectionLimits, Finding
from hypervlad.results import write_defect_report, write_findings
from hypervlad.results.reports import defects, threshold_page

EVIL = "</script><script>alert(1)</script><!-- & \"quoted\" 'names' ]]>.png"


@pytest.fixture(autouse=True)
def no_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threshold_page, "page_facts", lambda scorer: {"kind of model": "Darkness"})


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def write(folder: Path, images: list[Any], **options: Any) -> Any:
    names = [f"{i}.png" for i in range(len(images))]
    return write_findings(folder, Darkness(), images, names, **options)


# --- files ------------------------------------------------------------------------------------


def test_every_image_has_a_mask(tmp_path: Path) -> None:
    written = write(tmp_path, [spotted(0.9), spotted(0.3)])
    first, second = (read_mask(tmp_path / "masks" / f"{i}.png.png") for i in range(2))
    np.testing.assert_array_equal(first, spotted(0.9) < 0.5)
    assert second.shape == (40, 60)
    assert not second.any()
    with Image.open(tmp_path / "masks" / "0.png.png") as image:
        assert (image.mode, image.getextrema()) == ("L", (0, 255))
    assert (written.n_scored, written.n_anomalous, written.n_regions) == (2, 1, 1)


def test_sizes_are_in_micrometres_where_the_pixel_size_is_known(tmp_path: Path) -> None:
    file = tmp_path / "known.tif"  # 250 nm per pixel
    tifffile.imwrite(
        file,
        np.round(255 * spotted(0.9)).astype(np.uint8),
        imagej=True,
        resolution=(4, 4),
        metadata={"unit": "um"},
    )
    write(tmp_path / "out", [file, spotted(0.9)])
    known, unknown = rows_of(tmp_path / "out" / "scores.csv")
    assert float(known["area_um2"]) == pytest.approx(64 / 16)
    assert unknown["area_um2"] == ""
    assert (known["highest_x"], known["highest_y"]) == ("20", "10")
    known, unknown = rows_of(tmp_path / "out" / "regions.csv")
    assert (known["x"], known["y"], known["width"], known["area"]) == ("20", "10", "8", "64")
    assert float(known["diameter"]) == pytest.approx(2 * np.sqrt(64 / np.pi))
    in_um = {name: float(known[f"{name}_um"]) for name in ("width", "height", "diameter")}
    assert in_um == pytest.approx({"width": 2, "height": 2, "diameter": 4 / np.sqrt(np.pi)})
    assert float(known["area_um2"]) == pytest.approx(4)
    assert {unknown[name] for name in unknown if "_um" in name} == {""}
    measured = ["contrast", "area_low", "area_high"]
    assert {known[name] for name in measured} == {""}, "not known"
    page = Page(tmp_path / "out" / "report.html")
    assert page.source.count('class="scale"') == 1
    assert ">2 µm<" in page.source, "a fifth of 15 µm at most"


def test_bad_images_are_left_out(tmp_path: Path) -> None:
    written = write(tmp_path, [spotted(0.9), np.ones((5, 5)), spotted(0.1)])
    assert len(written.left_out) == 1
    assert len(rows_of(tmp_path / "scores.csv")) == 2
    assert "too small" in Page(tmp_path / "report.html").words
    write(tmp_path / "none", [np.ones((5, 5))])
    assert "Of 0 images, 0 are called anomalous" in Page(tmp_path / "none" / "report.html").words


def test_messages_cannot_break_the_page(tmp_path: Path) -> None:
    class Refusing(Darkness):
        def find(self, image: Any) -> Finding:
            raise ImageReadError(EVIL)

    write_findings(tmp_path, Refusing(), [spotted(0.9)], ["a.png"])
    page = Page(tmp_path / "report.html")
    assert len(page.scripts) == 2
    assert EVIL in page.words


def test_an_interrupted_run_keeps_what_is_complete(tmp_path: Path) -> None:
    class Interrupted(Darkness):
        def find(self, image: Any) -> Finding:
            if image is None:
                raise KeyboardInterrupt
            return super().find(image)

    with pytest.raises(KeyboardInterrupt):
        write_findings(tmp_path, Interrupted(), [spotted(0.9), None], ["0.png", "1.png"])
    (row,) = rows_of(tmp_path / "scores.csv")
    assert row["path"] == "0.png"
    assert [file.name for file in (tmp_path / "masks").iterdir()] == ["0.png.png"]
    assert "0.png" in Page(tmp_path / "report.html").words


# --- the page of scored images ----------------------------------------------------------------


def test_the_page_has_scores_calls_and_counts(tmp_path: Path) -> None:
    levels = [0.3, 0.9, 0.1, 0.6]
    write(tmp_path, [spotted(level) for level in levels])
    page = Page(tmp_path / "report.html")
    words = re.sub(r"\s+", " ", page.words)
    assert "Of 4 images, 2 are called anomalous, with 2 defective regions." in words
    assert "called anomalous: 2 of 4 (50.0 %)" in words
    assert "false alarms: 1 of 3 (33.3 %)" in words
    assert "--threshold 0.5" in words
    order = re.findall(r"(\d)\.png0\.\d+ ?(anomalous|normal)", words)
    assert order == [("1", "anomalous"), ("3", "anomalous"), ("0", "normal"), ("2", "normal")]
    assert page.data["threshold"] == 0.5
    assert page.data["groups"][1] == [0.1, 0.2, 0.55]
    assert np.sort(page.data["groups"][0]) == pytest.approx(sorted(levels), abs=1e-6)
    assert "default-src 'none'" in page.policy


def test_only_the_highest_scores_have_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(defects, "_MAX_PICTURES", 3)
    monkeypatch.setattr(defects, "_MAX_REGIONS", 4)
    levels = [0.6, 0.9, 0.2, 0.8, 0.55, 0.7]
    write(tmp_path, [spotted(level) for level in levels])
    page = Page(tmp_path / "report.html")
    assert [each["name"] for each in page.data["images"]] == ["1.png", "3.png", "5.png"]
    assert page.data["images"][0] == {"name": "1.png", "height": 40, "width": 60}
    assert "The 3 images with the highest scores, of 6" in page.words
    assert "The 4 regions with the highest peaks; regions.csv has all 5." in page.words
    assert re.findall(r"(\d)\.png, 1", page.words) == ["1", "3", "5", "0"]
    assert page.links == ["#r0-1", "#r1-1", "#r2-1"]
    assert page.words.count("no picture") == 1
    monkeypatch.setattr(defects, "_MAX_OUTLINES", 100)  # of one image
    write(tmp_path, [spotted(level) for level in levels])
    assert len(Page(tmp_path / "report.html").data["images"]) == 2


def test_paths_enclose_regions_also_in_the_box_of_another(tmp_path: Path) -> None:
    image = np.ones((40, 60), np.float32)
    image[5:30, 5:40], image[7:28, 7:38], image[12:20, 15:23] = 0.1, 1, 0.3
    image[35, 50:52] = image[36, 52] = 0.2  # a corner joins them
    write(tmp_path, [image])
    paths = re.findall(r'<path class="region".*? d="(.+?)"', Page(tmp_path / "report.html").source)
    found = Darkness().find(image)
    assert [each.area for each in found.regions] == [25 * 35 - 21 * 31, 3, 64]
    drawn = [inside(path, image.shape) for path in paths]
    np.testing.assert_array_equal(sum(drawn), found.mask)
    assert [each.sum() for each in drawn] == [each.area for each in found.regions]


def inside(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """Pixels whose centre is inside an odd number of the rings of a path in half pixels."""
    found = np.zeros(shape, dtype=int)
    for start, moves in re.findall("M(.+?)l(.+?)z", path):
        ring = np.array(f"{start} {moves}".split(), int).reshape(-1, 2).cumsum(axis=0)
        found += grid_points_in_poly((2 * shape[0], 2 * shape[1]), ring[:, ::-1])[1::2, 1::2]
    return found % 2


class Measured(Darkness):
    """Its regions are measured: those at the top are large enough for an area."""

    def find(self, image: Any) -> Finding:
        found = super().find(image)
        for each in found.regions:
            measures = {"length": 12.0, "breadth": 6.0, "contrast": -0.25}
            if each.row > 20:
                measures |= {"area_interval": (0.0, 16.0)}
            else:
                measures |= {"area": 40, "area_interval": (20.0, 80.0)}
            found.regions[found.regions.index(each)] = dataclasses.replace(each, **measures)
        return found


def test_regions_are_measured(tmp_path: Path) -> None:
    image = spotted(0.9)
    image[30:33, 40:44] = 0.2
    known = tmp_path / "known.tif"
    scale = {"resolution": (4, 4), "metadata": {"unit": "um"}}  # 250 nm per pixel
    tifffile.imwrite(known, np.round(255 * image).astype(np.uint8), imagej=True, **scale)
    write_findings(tmp_path / "out", Measured(), [known, image], ["known.tif", "b.png"])
    rows = rows_of(tmp_path / "out" / "regions.csv")
    columns = ["length", "breadth", "contrast", "area", "area_low", "area_high"]
    assert [rows[0][name] for name in columns] == ["12.0", "6.0", "-0.25", "40", "20.0", "80.0"]
    assert [rows[1][name] for name in columns] == ["12.0", "6.0", "-0.25", "12", "0.0", "16.0"]
    in_um = ["length_um", "breadth_um", "area_um2", "area_low_um2", "area_high_um2"]
    assert [rows[0][name] for name in in_um] == ["3.0", "1.5", "2.5", "1.25", "5.0"]
    assert [rows[1][name] for name in in_um] == ["3.0", "1.5", "0.75", "0.0", "1.0"]
    assert {rows[2][name] for name in in_um} == {""}
    words = Page(tmp_path / "out" / "report.html").spaced
    assert "known.tif, 1 2.5 µm² (1.25 to 5) 1.78 µm 3 µm 1.5 µm −25 %" in words
    assert "known.tif, 2 below 1 µm² below 1.13 µm 3 µm 1.5 µm −25 %" in words
    assert "b.png, 1 40 px² (20 to 80) 7.14 px 12 px 6 px −25 %" in words
    assert "b.png, 2 below 16 px²" in words


def test_detection_limits_are_drawn(tmp_path: Path) -> None:
    write(tmp_path, [spotted(0.9)])
    assert "What may be missed" not in Page(tmp_path / "report.html").words
    areas = np.geomspace(10, 1000, 40)
    limits = DetectionLimits(np.repeat("stains", 40), areas, np.full(40, 0.2), areas, areas > 100)
    write_findings(tmp_path, Darkness(limits_=limits), [spotted(0.9)], ["0.png"])
    page = Page(tmp_path / "report.html")
    assert "What may be missed" in page.words
    assert page.images[-1]["alt"] == "Smallest area that is found, by contrast and kind of defect"


def test_a_threshold_outside_a_gap_is_warned_of(tmp_path: Path) -> None:
    low, high = np.linspace(0.1, 0.15, 6), np.linspace(0.8, 0.85, 4)
    images = [spotted(level) for level in [*low, *high]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(tmp_path / "inside", images)
    assert "Check the threshold" not in Page(tmp_path / "inside" / "report.html").words
    with pytest.warns(UserWarning, match=r"up to 0\.15 and from 0\.8, but.* --threshold 0\.4"):
        write_findings(
            tmp_path / "above", Darkness(0.9), images, [f"{i}.png" for i in range(len(images))]
        )
    assert "Check the threshold" in Page(tmp_path / "above" / "report.html").words


# --- the page of an evaluation ----------------------------------------------------------------


def test_an_evaluation_counts_found_images_and_false_alarms(tmp_path: Path) -> None:
    levels = [0.9, 0.8, 0.2, 0.7, 0.1]
    images = [spotted(level) for level in levels]
    masks = [image < 1 for image in images[:3]] + [None, None]
    result = evaluate_defects(Darkness(), images, masks, [EVIL, "b", "c", "d", "e"])
    path = write_defect_report(tmp_path / "p.html", Darkness(), images, result)
    page = Page(path)
    words = re.sub(r"\s+", " ", page.words)
    assert "Of 5 images, 3 have defects, and the scorer finds 2 of them; it calls 1 of" in words
    clean, defective = (
        sum(
            image.confusion.false_positives for image in result.images if image.is_defective == kind
        )
        for kind in (False, True)
    )
    assert clean != defective
    assert (
        f"it calls {clean + defective} other patch{'es' * (clean + defective != 1)} defective, "
        f"{clean} in images without defects and {defective} in images with defects"
    ) in words
    assert "found: 2 of 3 (66.7 %) missed: 1 of 3 (33.3 %)" in words
    assert "false alarms: 1 of 2 (50.0 %)" in words
    assert "false alarms: 1 of 3 (33.3 %)" in words
    calls = re.findall(r"(anomalous|normal) \((\w+ ?\w*)\)", words)
    assert [outcome for _, outcome in calls] == ["found", "found", "false alarm", "missed", "right"]
    assert EVIL in page.words
    assert [len(scores) for scores in page.data["groups"]] == [3, 2, 3]


def test_pixels_of_normal_images_are_not_found(tmp_path: Path) -> None:
    """As in the tables: such an image has no defective pixel, whatever its map is."""

    class Strict(Darkness):
        def find(self, image: Any) -> Finding:
            return Finding.of(1 - read_image(image), self.threshold_, score=0.4)

    image = spotted(0.9)
    result = evaluate_defects(Strict(), [image], [image < 1], ["a"])
    (only,) = result.images
    assert not only.is_called
    assert only.found_fraction == 0
    assert only.confusion.true_positives == 0
    assert not result.worst[0].found.any()


class Known(Darkness):
    """Was trained on dark images."""

    def find(self, image: Any) -> Finding:
        own = super().find(image)
        return dataclasses.replace(own, in_training=own.is_defective)


def test_pages_say_how_many_images_are_training_images(tmp_path: Path) -> None:
    images = [spotted(0.9), spotted(0.8), spotted(0.2)]
    for n_known, own in ((2, images), (1, images[1:]), (0, images[2:])):
        names = [f"{i}.png" for i in range(len(own))]
        written = write_findings(tmp_path / f"{n_known}", Known(), own, names)
        assert written.n_in_training == n_known
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TrainingImagesWarning)
            result = evaluate_defects(Known(), own, [image < 1 for image in own], names)
        assert result.n_in_training == n_known
        path = write_defect_report(tmp_path / f"{n_known}.html", Known(), own, result)
        for page in (tmp_path / f"{n_known}" / "report.html", path):
            words = {0: "", 1: "1 of them is a training image", 2: "2 of them are training images"}
            found = Page(page).words.replace("of these images", "of them")
            assert words[n_known] in found
            assert ("training image (" in found or "training images (" in found) == bool(n_known)


@pytest.mark.parametrize("names", [["../a"], ["/a"], ["a", "a"]])
def test_names_outside_the_folder_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"names must be different relative paths"):
        write_findings(tmp_path / "out", Darkness(), [spotted(0.2)] * len(names), names)
    assert not list(tmp_path.iterdir())
