"""``hypervlad align``: from images to tables, maps and pictures."""

from __future__ import annotations

import csv
import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner, Result

from hypervlad import make_nanowire_images, read_image, read_micrograph
from hypervlad.cli import app
from hypervlad.cli.alignment import align
from hypervlad.displays import AlignmentRecipe, alignment_files
from hypervlad.fibres import aligned_fraction, local_orientation

PIXEL_SIZE = 4.0


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["align", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, result.output
    return result


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
    told = run(folder, "-o", out, "--window", 24, "--quiet").output
    assert "2 of 2 images done" in told
    return out


def test_a_line_an_image_says_what_the_library_says(folder: Path, found: Path) -> None:
    rows = table(found / "alignment.csv")
    assert list(rows) == ["one/a.tif", "two/a.tif"]
    for name, row in rows.items():
        image = read_image(folder / name)
        aligned = aligned_fraction(image, window=24)
        directions = local_orientation(image, 1.75)
        of_all = directions.statistics(24)
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
            assert read_micrograph(path).pixel_size == (
                None if pixel_size is None else pytest.approx(pixel_size)
            )


def test_pictures_are_there(found: Path) -> None:
    for name in ("one/a.tif", "two/a.tif"):
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


def test_a_window_with_a_unit_wants_a_pixel_size(folder: Path, tmp_path: Path) -> None:
    asked = ["--window", "96nm", "--sigma", "7nm", "--tolerance", 15, "--method", "lgo", "--quiet"]
    told = run(folder, "-o", tmp_path / "out", *asked, code=2)
    assert "1 of 2 images left out" in told.output
    assert "two/a.tif: 96nm is so many pixels only where" in told.output.replace("\\", "/")
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
        assert low <= value <= high
        assert low < high


def test_bad_images_are_told_at_the_end_and_cost_the_others_nothing(
    folder: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "broken.png").write_bytes(b"no image")
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(images / "flat.png")
    colour = np.repeat(tifffile.imread(folder / "one" / "a.tif")[..., None], 3, axis=2)
    Image.fromarray(colour).save(images / "colour.png")
    out = tmp_path / "out"
    told = run(images, "-o", out, "--quiet", code=2)
    assert "1 of 3 images done" in told.stdout
    assert "2 of 3 images left out" in told.stderr
    assert "broken.png: not an image" in told.stderr
    assert "flat.png: the image is flat" in told.stderr
    assert list(table(out / "alignment.csv")) == ["colour.png"]
    accepted = run(images, "-o", out, "--quiet", "--on-error", "skip")
    assert "warning: 2 of 3 images left out" in accepted.stderr
    before = (out / "alignment.csv").read_bytes()
    told = run(images / "flat.png", "-o", out, "--on-error", "skip", "--quiet", code=2)
    assert "done" not in told.output
    assert (out / "alignment.csv").read_bytes() == before


def test_what_was_there_stays_until_its_successor_is_complete(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = folder / "one" / "a.tif"
    run(image, "-o", tmp_path, "--quiet")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}

    def fails(draw: object, stream: object) -> None:
        stream.write(b"half a picture")
        raise KeyboardInterrupt

    monkeypatch.setattr(alignment_files, "save_png", fails)
    run(image, "-o", tmp_path, "--quiet", code=130)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_more_regions_than_imagej_counts_to_are_plain_integers(tmp_path: Path) -> None:
    labels = np.arange(70_000, dtype=np.int32).reshape(700, 100)
    stored = alignment_files._as_integers(labels)
    alignment_files._write_tiff(tmp_path / "many.tif", stored, 2.0)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "many.tif"), labels)
    with tifffile.TiffFile(tmp_path / "many.tif") as file:
        per_centimetre = file.pages[0].tags["XResolution"].value
    assert per_centimetre[0] / per_centimetre[1] == pytest.approx(5e6)


def test_a_model_of_a_file_may_judge_the_windows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Everything:
        def aligned_proba(self, image: object, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
            return np.ones((len(rows) - 1, len(columns) - 1))

    monkeypatch.setattr("hypervlad.models.load", lambda path, weights=None: Everything())
    model = tmp_path / "m.hvlad"
    run(folder / "one", "-o", tmp_path / "out", "--method", model, "--quiet")
    (row,) = table(tmp_path / "out" / "alignment.csv").values()
    assert (row["fraction"], row["method"]) == ("1", "Everything")
    monkeypatch.setattr("hypervlad.models.load", lambda path, weights=None: object())
    told = run(folder, "-o", tmp_path / "out", "--method", model, code=2).stderr
    assert "holds a object" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "fft"], "method='fft': expected one of 'structure_tensor', 'lgo'"),
        (["--method", "missing.hvlad"], "missing.hvlad"),
        (["--window", "wide"], "'wide' is no length"),
        (["--tolerance", "120"], "expected an angle"),
        (["--pixel-size", "-1"], "expected a number of nm"),
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
    assert command["window"].default == str(recipe.window)
    assert command["sigma"].default == str(recipe.sigma)
    assert math.radians(command["tolerance"].default) == pytest.approx(recipe.tolerance)
    of_fraction = inspect.signature(aligned_fraction).parameters
    for name in ("method", "window", "sigma", "tolerance"):
        assert getattr(recipe, name) == of_fraction[name].default


def test_results_do_not_go_among_the_images(folder: Path) -> None:
    assert "lies in the image folder" in run(folder, "-o", folder / "out", code=2).stderr
    path = folder / "one" / "a.tif"
    assert "is a file; give a folder" in run(path, "-o", path, code=2).stderr
