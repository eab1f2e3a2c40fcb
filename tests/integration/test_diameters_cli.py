"""``hypervlad diameters``: from images to tables of diameters and groups, and a page."""

import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from support import commands
from support.commands import rows_of
from support.pages import Page

from hypervlad.data import make_fibre_images
from hypervlad.fibres import compare_groups, cross_lines, fibre_diameters
from hypervlad.results import write_diameters

run = partial(commands.run, "diameters")
PIXEL_SIZE = 12.5
GROUPS = {"a.png": "thin", "b.png": "thin", "c.png": "thick", "d.png": "thick"}


def numbers(rows, column):
    return np.array([float(row[column]) for row in rows])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("mats") / "in"
    root.mkdir()
    for seed, (name, diameter) in enumerate(zip(GROUPS, (7, 7.5, 12, 13), strict=True)):
        (image,), _ = make_fibre_images(
            1, diameter=diameter, cover=0.3, contrast_to_noise=20, size=176, random_state=seed
        )
        Image.fromarray(np.uint8(np.round(255 * image))).save(root / name)
    for header, line in (("path,group", "{0},{1}"), ("path,group,sample", "{0},{0},{1}")):
        lines = [header, *(line.format(*each) for each in GROUPS.items())]
        (root.parent / f"{header.rsplit(',')[-1]}s.csv").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def first(folder, tmp_path_factory):
    out, groups = tmp_path_factory.mktemp("found"), folder.parent / "groups.csv"
    run(folder, "-o", out, "--groups", groups, "--pixel-size", PIXEL_SIZE, "-q")
    return out


@pytest.fixture
def found(first, tmp_path):
    """A copy of the results, which may be changed."""
    return Path(shutil.copytree(first, tmp_path / "found"))


@pytest.fixture
def again(folder, found):
    """Continue in the copy, with the same pixel size."""
    return partial(run, folder, "-o", found, "--pixel-size", PIXEL_SIZE, "--resume", "-q")


def test_tables_agree_with_the_library(folder, first):
    own = [fibre_diameters(folder / name, pixel_size=PIXEL_SIZE) for name in GROUPS]
    places = rows_of(first / "places.csv")
    for row, each in zip(rows_of(first / "diameters.csv"), own, strict=True):
        expected = {"median": each.median, "median_low": each.interval.low, "mean": each.mean}
        expected["standard_deviation"] = each.standard_deviation
        expected["d10"] = each.percentiles([10])[0]
        for column, value in expected.items():
            assert float(row[f"{column}_nm"]) == pytest.approx(value, rel=1e-4)
            assert float(row[f"{column}_px"]) == pytest.approx(value / PIXEL_SIZE, rel=1e-4)
        assert (row["profile"], row["polarity"]) == (each.profile, each.polarity)
        assert (row["annotations"], float(row["annotation_share"])) == ("", each.annotation_share)
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
    _, _, ratio, interval = compared.ratio("thick", "thin")
    assert (row["group"], row["over"]) == ("thick", "thin")
    assert float(row["ratio"]) == pytest.approx(ratio, rel=1e-4)
    assert float(row["ratio_low"]) == pytest.approx(interval.low, rel=1e-4)
    page = Page(first / "diameters.html")
    drawn = re.findall(r'id="f0-\d+" d="M(\S+) (\S+)L(\S+) (\S+)"', page.source)
    ends = np.array(drawn, float).reshape(-1, 2, 2)[..., ::-1]  # in half pixels
    np.testing.assert_allclose((ends - 1) / 2, cross_lines(own[0], PIXEL_SIZE), atol=0.02)
    assert len(page.images) == 4


def test_what_is_doubtful_stays_in_tables_and_pages(folder, tmp_path):
    (tmp_path / "in").mkdir()
    pixels = np.asarray(Image.open(folder / "a.png"))
    Image.fromarray(pixels // 48 * 48).save(tmp_path / "in" / "few.png")
    for options in ((), ("--resume",)):
        said = run(tmp_path / "in", "-o", tmp_path / "out", "-q", *options)
        files = (tmp_path / "out" / f"diameters.{each}" for each in ("csv", "html"))
        for text in (said.stderr, *(file.read_text("utf-8") for file in files)):
            assert "grey levels: edges may" in " ".join(text.split())


def test_images_are_measured_again_with_other_options(folder, found, again):
    again("--polarity", "dark")
    assert {row["polarity"] for row in rows_of(found / "diameters.csv")} == {"dark"}
    again("--polarity", "bright")
    run(folder, "-o", found, "--pixel-size", 1, "--resume", "-q")
    rows = rows_of(found / "diameters.csv")
    ratio = numbers(rows, "median_nm") / numbers(rows, "median_px")
    np.testing.assert_allclose(ratio, 1, rtol=1e-4)
    commands.run("report", found, "-o", found.parent / "report")
    rows = rows_of(found.parent / "report/results.csv")
    thin = [row for row in rows if row["quantity"] == "thinner than 100 nm"]
    assert {row["value"] for row in thin} == {row["high"] for row in thin} == {"100"}
    assert all(10 < float(row["low"]) < 90 for row in thin), "other fibres may be thicker"


def test_another_image_of_the_same_name_is_another_one(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, places = [], Path("out", "places.csv")
    for name, source in {"x": "a.png", "y": "b.png"}.items():
        Path(name).mkdir()
        shutil.copy(folder / source, Path(name, "a.png"))
    for image in (Path("x", "a.png"), tmp_path / "x" / "a.png", tmp_path / "y" / "a.png"):
        if places.exists():  # all are left out
            places.write_text(places.read_text().replace(",0\n", ",1\n"))
        said = run(image, "-o", "out", "--resume", "-q").stderr
        found += [(row["path"], row["median_px"]) for row in rows_of(Path("out", "diameters.csv"))]
    (one, median), (two, same), (three, other) = found
    assert (one, two, three) == ("x/a.png", "a.png", "a.png")
    assert median == same != other
    assert "a.png: other pixels than when places were left out there" in said
    facts = "InstructName=SU8000\nImageName=a.png\nDataSize=176x176\nPixelSize=4\n"
    Path("y", "a.txt").write_text(f"[SemImageFile]\n{facts}")
    run(tmp_path / "y" / "a.png", "-o", "out", "--resume", "-q")
    (row,) = rows_of(Path("out", "diameters.csv"))
    assert float(row["median_nm"]) == pytest.approx(4 * float(other), rel=1e-4)
    for name, expected in (("a.png", median), ("b.png", other)):
        array = np.asarray(Image.open(folder / name))
        compared, _ = write_diameters("arrays", [array], ["a"], resume=True)
        assert compared.groups[0].median == pytest.approx(float(expected), rel=1e-4)


def test_a_report_weighs_as_the_table_of_groups_does_and_counts_a_copy_once(folder, tmp_path):
    images, out, sizes = tmp_path / "in", tmp_path / "out", tmp_path / "sizes.csv"
    images.mkdir()
    for name, source in {"c.png": "c.png", "copy.png": "c.png"}.items():
        shutil.copy(folder / source, images / name)
    Image.open(folder / "a.png").resize((352, 352), Image.Resampling.BICUBIC).save(images / "a.png")
    bars = ",bar_length_px,bar_error_px\nin/a.png,20.000001,9,1\nin/c.png,2\nin/copy.png,2\n"
    sizes.write_text("path,pixel_size" + bars)
    for again in ([], ["--resume"]):
        run(images, "-o", out, "--pixel-size", sizes, "-q", *again)
    assert numbers(rows_of(out / "diameters.csv"), "enlarged") == pytest.approx([2, 1, 1], rel=0.01)
    said = commands.run("report", out, "-o", tmp_path / "report").stdout
    assert "without copy.png, a copy of other images in the same group" in said
    methods = (tmp_path / "report/methods.txt").read_text()
    assert "1 image, which a program had enlarged up to 2 times, was measured at" in methods
    assert "contain an error of the pixel size of 22.2 %" in methods
    (group,) = rows_of(out / "groups.csv")
    shown = {row["quantity"]: row["value"] for row in rows_of(tmp_path / "report/results.csv")}
    assert shown["images with diameters"] == group["images"] == "2"
    for name, column in (("D10", "d10_nm"), ("D90", "d90_nm"), ("mean", "mean_nm")):
        assert float(shown[f"diameter, {name}"]) == pytest.approx(float(group[column]), rel=1e-3)
    for file, said in (("diameters", "lines of a.png, of which"), ("places", "places, while")):
        lines = (out / f"{file}.csv").read_text().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith("a.png")]
        (out / f"{file}.csv").write_text("".join(kept))
        assert said in commands.run("report", out, "-o", tmp_path / "report", code=2).stderr


def test_places_are_left_out_and_taken_back(folder, found, again, tmp_path):
    def is_as_before():
        columns = ("median_px", "median_low_px", "median_high_px", "places", "left_out")
        old, new = ([float(row[c]) for c in columns] for row in (before, first_row()))
        return new == pytest.approx(old, rel=1e-4)

    def first_row():
        return rows_of(found / "diameters.csv")[0]

    table = found / "diameters.csv"
    table.write_text(table.read_text().replace("annotations,", "renamed,", 1))
    again()  # measures again, as a column is missing
    before, places = first_row(), rows_of(found / "places.csv")
    own = [place for place in places if place["path"] == "a.png"]
    chosen = sorted(own, key=lambda place: float(place["diameter_px"]))[len(own) // 2 :]
    choice = tmp_path / "choice.csv"
    lines = [f"a.png;{place['x_px']};{place['y_px']}" for place in chosen]
    choice.write_text("\n".join(["path;x_px;y_px", *lines, "a.png;-50;-50", "gone.png;1;1"]))
    said = again("--leave-out", choice).stderr
    assert "a.png: 1 place to leave out is not among those measured" in said
    assert "1 image is not among those measured: gone.png" in said
    row = first_row()
    assert (int(row["left_out"]), int(row["places"])) == (len(chosen), len(own) - len(chosen))
    assert float(row["median_high_px"]) < float(before["median_high_px"])
    marked = [place for place in rows_of(found / "places.csv") if place["left_out"] == "1"]
    assert {place["place"] for place in marked} == {place["place"] for place in chosen}
    assert "once they are: a.png" in run(folder / "b.png", "-o", found, "-q", "--resume").stderr
    again()
    assert all(first_row()[name] == row[name] for name in ("left_out", "places"))
    again("--leave-out", "none")
    assert is_as_before()


def test_samples_are_the_unit_of_intervals_and_regions_end_where_diameters_do(folder, found, again):
    roifile = pytest.importorskip("roifile")
    again("--samples", folder.parent / "samples.csv", "--roi")
    (row,) = rows_of(found / "groups.csv")
    assert (row["group"], row["samples"], row["interval_of"]) == ("all images", "2", "samples")
    assert not (found / "ratios.csv").exists()
    said = again("--samples", folder.parent / "groups.csv", "--roi").stderr
    assert "groups.csv: no column is called sample, so group is taken for it" in said
    own = [place for place in rows_of(found / "places.csv") if place["path"] == "a.png"]
    regions = roifile.roiread(found / "roi" / "a.png.zip")
    assert {region.roitype for region in regions} == {roifile.ROI_TYPE.LINE}
    ends = np.array([region.coordinates() for region in regions])  # x and y, with fractions
    lengths = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
    np.testing.assert_allclose(lengths, numbers(own, "diameter_px"), rtol=1e-4)
    middle = np.stack([numbers(own, "x_px"), numbers(own, "y_px")], axis=1)
    np.testing.assert_allclose(ends.mean(axis=1), middle, atol=0.01)


def test_images_without_a_pixel_size_or_fibres_or_sense(folder, tmp_path):
    images, out = tmp_path / "in", tmp_path / "out"
    images.mkdir()
    pixels = np.asarray(Image.open(folder / "a.png"))
    options = {"resolution": (1 / PIXEL_SIZE,) * 2, "metadata": {"unit": "nm"}}
    tifffile.imwrite(images / "known.tif", pixels, imagej=True, **options)
    shutil.copy(folder / "b.png", images / "unknown.png")
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(images / "flat.png")
    groups = tmp_path / "groups.csv"
    lines = [f"in/{name},{name}" for name in ("known.tif", "unknown.png", "flat.png")]
    groups.write_text("\n".join(["path,group", *lines]))
    done = run(images, "-o", out, "--groups", groups, "-q")
    assert "flat.png: nothing is measured: the image is flat" in done.stderr
    assert "the pixel size of 1 image is unknown, while the others have one" in done.stderr
    flat, known, unknown = rows_of(out / "diameters.csv")
    assert (flat["reason"], flat["median_px"]) == ("the image is flat", "")
    assert [bool(each["median_nm"]) for each in (known, unknown)] == [True, False]
    (group,) = rows_of(out / "groups.csv")
    assert (group["images"], group["median_nm"]) == ("1", known["median_nm"])


def test_what_stops_a_run_leaves_tables_that_it_continues_from(folder, tmp_path, monkeypatch):
    out, plain = tmp_path / "out", open
    errors = {"c.png": KeyboardInterrupt}

    def open_file(file, *arguments, **options):
        if error := errors.get(Path(str(file)).name):
            raise error
        return plain(file, *arguments, **options)

    for name in ("builtins.open", "io.open"):
        monkeypatch.setattr(name, open_file)
    run(folder, "-o", out, "-q", code=130)
    before = rows_of(out / "diameters.csv")
    errors = {"d.png": PermissionError(13, "Permission denied")}
    done = run(folder, "-o", out, "-q", "--resume", "--on-error", "skip")
    assert "1 of 4 images left out: d.png: " in done.stderr
    rows = rows_of(out / "diameters.csv")
    assert [row["path"] for row in rows] == ["a.png", "b.png", "c.png"]
    medians = [[float(row["median_px"]) for row in own[:2]] for own in (rows, before)]
    assert medians[0] == pytest.approx(medians[1], rel=1e-5)  # diameters in the table are rounded
