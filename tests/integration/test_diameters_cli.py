"""``hypervlad diameters``: from images to tables of diameters and groups, and a page."""

from __future__ import annotations

import csv
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from support import commands
from support.pages import Page

from hypervlad import read_image
from hypervlad.data import make_fibre_images
from hypervlad.fibres import compare_groups, cross_lines, fibre_diameters
from hypervlad.fibres.diameters import REFUSALS
from hypervlad.results.reports import diameter_page, diameters

run, refused = partial(commands.run, "diameters"), partial(commands.refused, "diameters")
PIXEL_SIZE = 12.5
GROUPS = {"a.png": "thin", "b.png": "thin", "c.png": "thick", "d.png": "thick"}


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def numbers(rows: list[dict[str, str]], column: str) -> np.ndarray:
    return np.array([float(row[column]) for row in rows])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mats") / "in"
    root.mkdir()
    for seed, (name, diameter) in enumerate(zip(GROUPS, (7, 7.5, 12, 13), strict=True)):
        (image,), _ = make_fibre_images(
            1, diameter=diameter, cover=0.3, contrast_to_noise=20, size=192, random_state=seed
        )
        Image.fromarray(np.uint8(np.round(255 * image))).save(root / name)
    for column in ("group", "sample"):
        lines = [f"{name},{value}" for name, value in GROUPS.items()]
        (root.parent / f"{column}s.csv").write_text("\n".join([f"path,{column}", *lines]))
    return root


@pytest.fixture(scope="module")
def first(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("found")
    groups = folder.parent / "groups.csv"
    run(folder, "-o", out, "--groups", groups, "--pixel-size", PIXEL_SIZE, "-q")
    return out


@pytest.fixture
def found(first: Path, tmp_path: Path) -> Path:
    """A copy of the results, which may be changed."""
    return Path(shutil.copytree(first, tmp_path / "found"))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The images that were measured, not resumed."""
    calls, measure = list[Any](), diameters.fibre_diameters

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(args)
        return measure(*args, **options)

    monkeypatch.setattr(diameters, "fibre_diameters", counted)
    return calls


def test_tables_agree_with_the_library(folder: Path, first: Path) -> None:
    own = [fibre_diameters(read_image(folder / name), pixel_size=PIXEL_SIZE) for name in GROUPS]
    places = rows_of(first / "places.csv")
    for row, each in zip(rows_of(first / "diameters.csv"), own, strict=True):
        expected = {"median": each.median, "median_low": each.interval.low, "mean": each.mean}
        expected |= {"standard_deviation": each.standard_deviation}
        expected |= {"d10": each.percentiles([10])[0]}
        for column, value in expected.items():
            assert float(row[f"{column}_nm"]) == pytest.approx(value, rel=1e-4)
            assert float(row[f"{column}_px"]) == pytest.approx(value / PIXEL_SIZE, rel=1e-4)
        assert (row["profile"], row["polarity"]) == (each.profile, each.polarity)
        assert int(row["refused_no_whole_fibre"]) == each.refused["no whole fibre"]
        of_image = [place for place in places if place["path"] == row["path"]]
        np.testing.assert_allclose(numbers(of_image, "diameter_nm"), each.diameters, rtol=1e-5)
        np.testing.assert_allclose(numbers(of_image, "y_px"), each.positions[:, 0], rtol=1e-5)
        lengths = PIXEL_SIZE * numbers(of_image, "length_px")
        np.testing.assert_allclose(lengths, each.weights, rtol=1e-5)
    compared = compare_groups(own, list(GROUPS.values()))
    for row, group in zip(rows_of(first / "groups.csv"), compared.groups, strict=True):
        assert (row["group"], row["interval_of"]) == (group.name, "images")
        for column, value in (("", group.median), ("_high", group.interval.high)):
            assert float(row[f"median{column}_nm"]) == pytest.approx(value, rel=1e-4)
        assert int(row["to_halve_interval"]) == group.n_to_halve
    (row,) = rows_of(first / "ratios.csv")
    ratio, interval = compared.ratio("thick", "thin")
    assert (row["group"], row["over"]) == ("thick", "thin")
    assert float(row["ratio"]) == pytest.approx(ratio, rel=1e-4)
    assert float(row["ratio_low"]) == pytest.approx(interval.low, rel=1e-4)


def test_a_run_is_resumed_only_with_its_own_options_and_network(
    folder: Path, found: Path, measured: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = ["--groups", folder.parent / "groups.csv"]
    same = [folder, "-o", found, *groups, "--pixel-size", PIXEL_SIZE, "--resume", "-q"]
    before = {path.name: rows_of(path) for path in found.glob("*.csv")}
    assert "thick over thin: 1." in run(*same).stdout
    assert measured == []
    for name, rows in before.items():
        for old, new in zip(rows, rows_of(found / name), strict=True):
            for column, value in old.items():
                try:
                    assert float(new[column]) == pytest.approx(float(value), rel=1e-4)
                except ValueError:
                    assert new[column] == value
    run(*same, "--polarity", "bright")
    assert len(measured) == 4
    run(*same)
    assert len(measured) == 8
    monkeypatch.setattr(diameters.ProfileNetwork, "digest", "0")
    run(*same)
    assert len(measured) == 12


def test_other_sizes_in_the_table_do_not_matter_to_an_image(
    folder: Path, found: Path, measured: list[Any]
) -> None:
    sizes = dict.fromkeys(GROUPS, PIXEL_SIZE) | {"a.png": 2 * PIXEL_SIZE}
    lines = [f"in/{name},{size}" for name, size in sizes.items()]
    table = folder.parent / "sizes.csv"
    table.write_text("\n".join(["path,pixel_size", *lines]))
    run(folder, "-o", found, "--pixel-sizes", table, "--resume", "-q")
    assert len(measured) == 1


def test_places_are_left_out_and_taken_back(folder: Path, found: Path, tmp_path: Path) -> None:
    before, places = rows_of(found / "diameters.csv"), rows_of(found / "places.csv")
    own = [place for place in places if place["path"] == "a.png"]
    chosen = sorted(own, key=lambda place: float(place["diameter_px"]))[len(own) // 2 :]
    choice = tmp_path / "choice.csv"
    lines = [f"a.png;{place['x_px']};{place['y_px']}" for place in chosen]
    choice.write_text("\n".join(["path;x_px;y_px", *lines, "a.png;-50;-50", "gone.png;1;1"]))
    same = [folder, "-o", found, "--pixel-size", PIXEL_SIZE, "--resume", "-q"]
    said = run(*same, "--leave-out", choice).stderr
    assert "a.png: 1 place to leave out is not among those measured" in said
    assert "1 image is not among those measured: gone.png" in said
    row = rows_of(found / "diameters.csv")[0]
    assert (int(row["left_out"]), int(row["places"])) == (len(chosen), len(own) - len(chosen))
    assert float(row["median_high_px"]) < float(before[0]["median_high_px"])
    marked = [place for place in rows_of(found / "places.csv") if place["left_out"] == "1"]
    assert {place["place"] for place in marked} == {place["place"] for place in chosen}
    run(*same)
    row = rows_of(found / "diameters.csv")[0]
    for column in ("median_px", "median_low_px", "median_high_px", "places", "left_out"):
        assert float(row[column]) == pytest.approx(float(before[0][column]), rel=1e-4)
    choice.write_text(
        "\n".join(["path,x_px,y_px", *(f"a.png,{p['x_px']},{p['y_px']}" for p in own)])
    )
    run(*same, "--leave-out", choice)
    row = rows_of(found / "diameters.csv")[0]
    assert (row["places"], row["median_px"]) == ("0", "")
    assert row["reason"] == "all places were left out"
    assert rows_of(found / "groups.csv")[0]["images"] == "3"
    run(*same)
    row = rows_of(found / "diameters.csv")[0]
    for column in ("median_px", "median_low_px", "median_high_px", "places", "left_out"):
        assert float(row[column]) == pytest.approx(float(before[0][column]), rel=1e-4)


@pytest.mark.parametrize("text", ["path,x,y\na.png,1,2\n", "path,x_px,y_px\na.png,1,b\n"])
def test_a_choice_that_is_none_is_refused(folder: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "choice.csv").write_text(text)
    said = refused(folder, "-o", tmp_path / "out", "--leave-out", tmp_path / "choice.csv")
    assert "expected a table with the columns path, x_px, y_px, as the page saves it" in said


def test_samples_are_the_unit_of_intervals(folder: Path, found: Path) -> None:
    samples = ["--samples", folder.parent / "samples.csv", "--pixel-size", PIXEL_SIZE]
    run(folder, "-o", found, *samples, "--resume", "-q")
    (row,) = rows_of(found / "groups.csv")
    assert (row["group"], row["samples"], row["interval_of"]) == ("all images", "2", "samples")
    assert not (found / "ratios.csv").exists()


def test_images_without_a_pixel_size_or_fibres_or_sense(folder: Path, tmp_path: Path) -> None:
    images, out = tmp_path / "in", tmp_path / "out"
    images.mkdir()
    pixels = np.asarray(Image.open(folder / "a.png"))
    options = {"resolution": (1 / PIXEL_SIZE,) * 2, "metadata": {"unit": "nm"}}
    tifffile.imwrite(images / "known.tif", pixels, imagej=True, **options)
    shutil.copy(folder / "b.png", images / "unknown.png")
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(images / "flat.png")
    (images / "broken.png").write_bytes(b"no image")
    groups = tmp_path / "groups.csv"
    names = {"known": "tif", "unknown": "png", "flat": "png", "broken": "png"}
    lines = [f"{name}.{suffix},{name}" for name, suffix in names.items()]
    groups.write_text("\n".join(["path,group", *(f"in/{line}" for line in lines)]))
    done = run(images, "-o", out, "--groups", groups, "-q", "--on-error", "skip")
    assert "1 of 4 images left out" in done.stderr
    assert "note: 2 images are in no group" in done.stdout
    assert "flat: no median, as none of its images has one" in done.stdout
    assert "the pixel size of 1 image is unknown, while the others have one" in done.stderr
    flat, known, unknown = rows_of(out / "diameters.csv")
    assert (flat["reason"], flat["median_px"]) == ("the image is flat", "")
    assert known["median_nm"]
    assert not unknown["median_nm"]
    (group,) = rows_of(out / "groups.csv")
    assert (group["images"], group["median_nm"]) == ("1", known["median_nm"])
    page = Page(out / "diameters.html")
    assert "broken.png" in page.source
    assert "because the pixel size is unknown: unknown.png" in page.source
    assert [image["group"] for image in page.data["images"]] == [None, 0, None]


def test_if_nothing_can_be_read_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert "1 of 1 image left out" in refused(tmp_path / "broken.png", "-o", tmp_path / "out", "-q")
    assert not list((tmp_path / "out").iterdir())


def test_regions_for_imagej_end_where_diameters_do(folder: Path, found: Path) -> None:
    roifile = pytest.importorskip("roifile")
    run(folder, "-o", found, "--pixel-size", PIXEL_SIZE, "--resume", "--roi", "-q")
    own = [place for place in rows_of(found / "places.csv") if place["path"] == "a.png"]
    ends = np.array([roi.coordinates() for roi in roifile.roiread(found / "roi" / "a.png.zip")])
    lengths = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
    np.testing.assert_allclose(lengths, numbers(own, "diameter_px"), rtol=1e-4)
    middle = np.stack([numbers(own, "x_px"), numbers(own, "y_px")], axis=1)
    np.testing.assert_allclose(ends.mean(axis=1), middle, atol=0.01)


def test_the_page_has_the_cross_lines_and_words_for_each_refusal(folder: Path, first: Path) -> None:
    page = Page(first / "diameters.html")
    found = fibre_diameters(read_image(folder / "a.png"))
    drawn = np.array(page.data["images"][0]["ends"])
    np.testing.assert_allclose(drawn, cross_lines(found), atol=0.02)
    assert len(page.images) == 4
    assert set(REFUSALS) - {"outside the mask"} <= set(diameter_page._REFUSALS)


def test_what_stops_a_run_leaves_tables_that_it_continues_from(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: list[Any]
) -> None:
    out, read, calls = tmp_path / "out", diameters.read_grey, iter(range(9))

    def stopping(*args: Any, **options: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return read(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(diameters, "read_grey", stopping)
        run(folder, "-o", out, "-q", code=130)
    assert [row["path"] for row in rows_of(out / "diameters.csv")] == ["a.png", "b.png"]
    run(folder, "-o", out, "-q", "--resume")
    assert len(measured) == 4
    assert len(rows_of(out / "diameters.csv")) == 4
