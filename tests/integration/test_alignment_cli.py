"""``hypervlad align``: from images to tables, maps and pictures."""

from __future__ import annotations

import csv
import inspect
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from support import commands

from hypervlad import make_nanowire_images, read_image, read_micrograph
from hypervlad.apps.cli.alignment import align
from hypervlad.apps.cli.files import check_folders
from hypervlad.fibres import AlignmentRecipe, aligned_fraction, local_orientation
from hypervlad.results.reports import alignment as alignment_files
from hypervlad.results.reports import results_folder
from hypervlad.results.reports.files import write_tiff

PIXEL_SIZE = 4.0


run = partial(commands.run, "align")


def table(path: Path, key: str = "path") -> dict[str, dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return {row[key]: row for row in csv.DictReader(stream)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of one name; one knows its pixel size."""
    root = tmp_path_factory.mktemp("wires")
    images, _ = make_nanowire_images(2, aligned=0.7, size=(96, 128), random_state=0)
    stored = [np.round(255 * image).astype(np.uint8) for image in images]
    for place, pixels in zip(("one", "two"), stored, strict=True):
        (root / place).mkdir()
        options = {"resolution": (1 / PIXEL_SIZE,) * 2, "metadata": {"unit": "nm"}}
        given = options if place == "one" else {}
        tifffile.imwrite(root / place / "a.tif", pixels, imagej=True, **given)
    return root


@pytest.fixture(scope="module")
def found(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("found")
    result = run(folder, "-o", out, "--window", 24, "--quiet").output
    assert "2 of 2 images done" in result
    return out


def test_one_line_per_image_agrees_with_the_library(folder: Path, found: Path) -> None:
    rows = table(found / "alignment.csv")
    assert list(rows) == ["one/a.tif", "two/a.tif"]
    for name, row in rows.items():
        image = read_image(folder / name)
        aligned = aligned_fraction(image, window=24)
        directions = local_orientation(image, 1.75)
        of_all = directions.statistics()
        for column, value in (
            ("fraction", aligned.fraction),
            ("fibre_fraction", aligned.fibre_fraction),
            ("mean_direction_deg", np.rad2deg(of_all.mean)),
            ("order_parameter", of_all.order),
            ("spread_deg", np.rad2deg(of_all.spread)),
            ("n_regions", len(aligned.regions)),
            ("largest_region_px2", aligned.regions[0].area),
            ("fibre_share", directions.mask.mean()),
            ("window_px", 24),
            ("tolerance_deg", 20),
            ("sigma_px", 1.75),
        ):
            assert float(row[column]) == pytest.approx(value, rel=1e-4), column
        assert row["method"] == "structure_tensor"


def test_lengths_have_units_where_the_pixel_size_is_known(found: Path) -> None:
    rows = table(found / "alignment.csv")
    known, unknown = rows["one/a.tif"], rows["two/a.tif"]
    assert (known["pixel_size_nm"], known["window_nm"], known["sigma_nm"]) == ("4", "96", "7")
    area = float(known["largest_region_px2"]) * (PIXEL_SIZE / 1000) ** 2
    assert float(known["largest_region_um2"]) == pytest.approx(area, rel=1e-4)
    metric = ("pixel_size_nm", "window_nm", "sigma_nm", "largest_region_um2")
    assert [unknown[column] for column in metric] == [""] * 4


def test_maps_are_those_of_the_library_and_know_their_pixel_size(folder: Path, found: Path) -> None:
    for name, pixel_size in (("one/a.tif", PIXEL_SIZE), ("two/a.tif", None)):
        image = read_image(folder / name)
        directions = local_orientation(image, 1.75)
        expected = {
            "orientation": directions.orientation,
            "coherence": directions.coherence,
            "regions": aligned_fraction(image, window=24).labels,
        }
        for kind, values in expected.items():
            path = found / "maps" / f"{name}.{kind}.tif"
            stored = tifffile.imread(path)
            assert stored.dtype == (np.uint16 if kind == "regions" else np.float32)
            np.testing.assert_allclose(stored, values, atol=1e-6)
            assert read_micrograph(path).pixel_size == (pixel_size and pytest.approx(pixel_size))
        overlay = np.asarray(Image.open(found / "overlays" / f"{name}.png")).astype(int)
        assert overlay.shape == (96, 128, 3)
        assert np.ptp(overlay, axis=-1).max() > 60
        with Image.open(found / "figures" / f"{name}.png") as figure:
            assert min(figure.size) > 300


def test_regions_have_lines_of_their_own(found: Path) -> None:
    rows = table(found / "alignment.csv")
    with open(found / "regions.csv", encoding="utf-8", newline="") as stream:
        regions = list(csv.DictReader(stream))
    for name, row in rows.items():
        own = [region for region in regions if region["path"] == name]
        labels = tifffile.imread(found / "maps" / f"{name}.regions.tif")
        assert len(own) == int(row["n_regions"]) == labels.max()
        for region in own:
            inside = labels == int(region["region"])
            assert int(region["area_px2"]) == inside.sum()
            left, top = int(region["x_px"]), int(region["y_px"])
            right, bottom = left + int(region["width_px"]), top + int(region["height_px"])
            assert inside[top:bottom, left:right].sum() == inside.sum()


def test_a_window_with_a_unit_needs_a_pixel_size(folder: Path, tmp_path: Path) -> None:
    asked = ["--window", "96nm", "--tolerance", 15, "--method", "lgo", "--quiet"]
    result = run(folder, "-o", tmp_path / "out", *asked, code=2)
    assert "1 of 2 images left out" in result.output
    assert "two/a.tif: 96nm cannot be converted to pixels" in result.output.replace("\\", "/")
    rows = table(tmp_path / "out" / "alignment.csv")
    assert list(rows) == ["one/a.tif"]
    row = rows["one/a.tif"]
    columns = ("window_px", "sigma_px", "tolerance_deg", "method")
    assert [row[column] for column in columns] == ["24", "1.75", "15", "lgo"]
    run(folder, "-o", tmp_path / "both", *asked, "--pixel-size", 8)
    rows = table(tmp_path / "both" / "alignment.csv")
    assert [row["window_px"] for row in rows.values()] == ["24", "12"]


def test_intervals_on_request(folder: Path, tmp_path: Path) -> None:
    wanted = ["--window", 24, "--bootstrap", 50, "--quiet"]
    run(folder / "one" / "a.tif", "-o", tmp_path / "out", *wanted)
    (row,) = table(tmp_path / "out" / "alignment.csv").values()
    assert row["path"] == "a.tif"
    for name in ("mean_direction{}_deg", "order_parameter{}", "spread{}_deg"):
        low, value, high = (float(row[name.format(end)]) for end in ("_low", "", "_high"))
        if name.startswith("mean"):  # may cross 0
            value, high = low + (value - low) % 180, low + (high - low) % 180
        assert low <= value <= high
        assert low < high


def test_bad_images_are_reported_at_the_end_and_cost_the_others_nothing(
    folder: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "broken.png").write_bytes(b"no image")
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(images / "flat.png")
    colour = np.repeat(tifffile.imread(folder / "one" / "a.tif")[..., None], 3, axis=2)
    Image.fromarray(colour).save(images / "colour.png")
    out = tmp_path / "out"
    result = run(images, "-o", out, "--quiet", code=2)
    assert "1 of 3 images done" in result.stdout
    assert "2 of 3 images left out" in result.stderr
    assert "broken.png: not an image" in result.stderr
    assert "flat.png: the image is flat" in result.stderr
    assert list(table(out / "alignment.csv")) == ["colour.png"]
    accepted = run(images, "-o", out, "--quiet", "--on-error", "skip")
    assert "warning: 2 of 3 images left out" in accepted.stderr
    before = (out / "alignment.csv").read_bytes()
    result = run(images / "flat.png", "-o", out, "--on-error", "skip", "--quiet", code=2)
    assert "done" not in result.output
    assert (out / "alignment.csv").read_bytes() == before


def wires(folder: Path, *names: str) -> Path:
    images, _ = make_nanowire_images(len(names), size=64, random_state=1)
    for image, name in zip(images, names, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(255 * image).astype(np.uint8)).save(folder / name)
    return folder


def files_of(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def failing_at_the_third(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    calls, find = iter(range(99)), AlignmentRecipe.find

    def sometimes(recipe: AlignmentRecipe, image: object) -> object:
        if next(calls) == 2:
            raise error
        return find(recipe, image)

    monkeypatch.setattr(AlignmentRecipe, "find", sometimes)


@pytest.mark.parametrize("error", [RuntimeError("bang"), KeyboardInterrupt()])
def test_what_ends_a_run_costs_nothing_that_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    images = wires(tmp_path / "in", "a.png", "b.png", "c.png", "d.png")
    failing_at_the_third(monkeypatch, error)
    code = 130 if isinstance(error, KeyboardInterrupt) else 2
    run(images, "-o", tmp_path / "out", "--quiet", code=code)
    assert list(table(tmp_path / "out" / "alignment.csv")) == ["a.png", "b.png"]
    with open(tmp_path / "out" / "regions.csv", encoding="utf-8", newline="") as stream:
        assert {row["path"] for row in csv.DictReader(stream)} <= {"a.png", "b.png"}
    assert {name for name in files_of(tmp_path / "out") if "c.png" in name} == set()


def test_tables_grow_while_a_run_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be written when the power fails."""
    images = wires(tmp_path / "in", "a.png", "b.png", "c.png")
    monkeypatch.setattr(results_folder, "SECONDS_BETWEEN_TABLES", -1.0)
    monkeypatch.setattr(results_folder, "_MAX_WRITING", np.inf)
    monkeypatch.setattr(results_folder.ResultsFolder, "__exit__", lambda *_: None)
    failing_at_the_third(monkeypatch, RuntimeError("as if the machine had stopped"))
    run(images, "-o", tmp_path / "out", "--quiet", code=2)
    assert list(table(tmp_path / "out" / "alignment.csv")) == ["a.png", "b.png"]


def test_results_of_an_earlier_run_go_when_those_of_this_one_are_complete(tmp_path: Path) -> None:
    images, out = wires(tmp_path / "in", "a.png", "sub/b.png"), tmp_path / "out"
    run(images, "-o", out, "--bootstrap", 9, "--quiet")
    notes = [out / "notes.txt", out / "maps" / "mine.png", out / "maps" / "b.png.regions.tif"]
    for own in notes:
        own.write_text("not of this program")
    (images / "sub" / "b.png").unlink()
    result = run(images, "-o", out, "--quiet")
    assert "removed the results of an earlier run for sub/b.png" in result.stderr
    assert all(own.is_file() for own in notes)
    assert {name for name in files_of(out) if "sub" in name} == set()
    assert not (out / "maps" / "sub").exists()
    (row,) = table(out / "alignment.csv").values()
    assert row["path"] == "a.png"
    assert "spread_low_deg" not in row
    again = run(images, "-o", out, "--quiet", "--no-figures")
    assert "removed" not in again.stderr
    assert {"alignment.csv", "regions.csv", "maps/a.png.regions.tif"} <= files_of(out)
    assert not (out / "overlays").exists()
    assert not (out / "figures").exists()


def test_until_then_the_table_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in the folder is in the table, whichever run wrote it."""
    images, out = wires(tmp_path / "in", "a.png", "b.png", "c.png"), tmp_path / "out"
    run(images, "-o", out, "--quiet", "--bootstrap", 9)
    before = files_of(out)
    with monkeypatch.context() as patch:
        failing_at_the_third(patch, KeyboardInterrupt())
        run(images, "-o", out, "--window", 16, "--quiet", code=130)
    rows = table(out / "alignment.csv")
    assert [row["window_px"] for row in rows.values()] == ["16", "16", "32"]
    assert [bool(row["spread_low_deg"]) for row in rows.values()] == [False, False, True]
    assert files_of(out) == before
    (images / "c.png").unlink()
    run(images, "-o", out, "--window", 16, "--quiet")
    assert files_of(out) == {name for name in before if "c.png" not in name}


def test_a_table_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    images, out = wires(tmp_path / "in", "a.png"), tmp_path / "out"
    kept = out / "kept.png"
    out.mkdir()
    kept.write_text("no result")
    (out / "alignment.csv").write_text("path,fraction\n../kept,1\nsub/../../kept,1\n")
    assert "removed" not in run(images, "-o", out, "--quiet").stderr
    assert kept.read_text() == "no result"


@pytest.mark.parametrize("text", ["name,score\na,1\n", "path\na,b,c\n"])
def test_a_table_of_somebody_elses_is_not_overwritten(tmp_path: Path, text: str) -> None:
    images, out = wires(tmp_path / "in", "a.png"), tmp_path / "out"
    out.mkdir()
    (out / "alignment.csv").write_text(text)
    result = run(images, "-o", out, "--quiet", code=2)
    assert "not a table of an earlier run" in result.stderr
    assert (out / "alignment.csv").read_text() == text
    (out / "alignment.csv").rename(out / "regions.csv")  # as `hypervlad defects` writes one
    (out / "regions.csv").write_text("path,x,y\na.png,1,2\n")
    assert "regions.csv is not a table of" in run(images, "-o", out, "--quiet", code=2).stderr


def test_pixels_that_are_not_square_are_reported(folder: Path, tmp_path: Path) -> None:
    pixels = tifffile.imread(folder / "one" / "a.tif")
    options = {"resolution": (1 / 5, 1 / 10), "metadata": {"unit": "nm"}}
    tifffile.imwrite(tmp_path / "a.tif", pixels[:79, :64], imagej=True, **options)
    result = run(tmp_path / "a.tif", "-o", tmp_path / "out", "--no-figures", "--quiet").stderr
    assert "a.tif: pixels of 5 x 10 nm are not square" in result
    (row,) = table(tmp_path / "out" / "alignment.csv").values()
    assert row["pixel_size_nm"] == row["window_nm"] == ""
    sides = [row[name] for name in ("window_px", "window_width_px", "window_height_px")]
    assert sides == ["32", "32", "39.5"]


def test_more_regions_than_imagej_counts_to_are_plain_integers(tmp_path: Path) -> None:
    labels = np.arange(70_000, dtype=np.int32).reshape(700, 100)
    stored = alignment_files._as_integers(labels)
    write_tiff(tmp_path / "many.tif", stored, 2.0)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "many.tif"), labels)
    with tifffile.TiffFile(tmp_path / "many.tif") as file:
        per_centimetre = file.pages[0].tags["XResolution"].value
    assert per_centimetre[0] / per_centimetre[1] == pytest.approx(5e6)


def test_a_file_without_a_model_of_alignment_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypervlad.models.loading.load", lambda path, **_: object())
    result = run(folder, "-o", tmp_path / "out", "--method", tmp_path / "m.hvlad", code=2).stderr
    assert "contains a object" in result


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "fft"], "expected structure_tensor, lgo or the name of a model file"),
        (["--method", "missing.hvlad"], "there is no such file"),
        (["--window", "wide"], "'wide' is not a length"),
        (["--tolerance", "120"], "expected degrees above 0, at most 90"),
        (["--pixel-size", "-1"], "must be nanometres per pixel"),
        (["--window", "1000"], "larger than the image"),
    ],
)
def test_what_does_not_fit_is_refused(
    folder: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    assert message in run(folder, "-o", tmp_path / "out", *options, "--quiet", code=2).stderr
    assert not (tmp_path / "out" / "alignment.csv").exists()


def test_the_commands_defaults_are_the_librarys_own() -> None:
    command, recipe = inspect.signature(align).parameters, AlignmentRecipe()
    assert command["method"].default == recipe.method
    assert command["window"].default is None  # the recipe's, or a model's
    assert math.radians(command["tolerance"].default) == pytest.approx(recipe.tolerance)
    of_fraction = inspect.signature(aligned_fraction).parameters
    for name in ("method", "window", "sigma", "tolerance"):
        assert getattr(recipe, name) == of_fraction[name].default


def test_results_do_not_go_among_the_images(folder: Path) -> None:
    assert "is inside the image folder" in run(folder, "-o", folder / "out", code=2).stderr
    path = folder / "one" / "a.tif"
    assert "is a file; give a folder" in run(path, "-o", path, code=2).stderr
    assert "is in" in run(path, "-o", folder / "one", code=2).stderr
    assert "is in" in run(folder / "*" / "*.tif", "-o", folder, code=2).stderr
    for pattern in (folder / "**" / "*.tif", folder / "*" / "*" / "*.tif"):
        assert "results to another folder" in run(pattern, "-o", folder / "out", code=2).stderr
    assert not list(folder.rglob("alignment.csv"))


def test_results_may_go_beside_what_a_pattern_finds(folder: Path, tmp_path: Path) -> None:
    for pattern in (folder / "*" / "*.tif", folder / "o*" / "a.tif"):
        check_folders(tmp_path / "out", [str(pattern)])
        check_folders(folder / "found", [str(pattern)])
