"""``hypervlad align`` and ``align-train``: from images to tables, maps, pictures and a model."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image
from support import commands
from support.commands import rows_of, save

from hypervlad import AlignmentClassifier, load, make_fibre_images, read_image, read_micrograph
from hypervlad.fibres import AlignmentRecipe, aligned_fraction, local_orientation

PIXEL_SIZE = 4.0  # nm


def run(*arguments, code=0, figures=False):
    options = ["--quiet"] if figures else ["--quiet", "--no-figures"]
    return commands.run("align", *arguments, *options, code=code)


def table(folder):
    return {row["path"]: row for row in rows_of(folder / "alignment.csv")}


def files_of(out):
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def wires(folder, *names):
    images, _ = make_fibre_images(len(names), size=64, random_state=1)
    for image, name in zip(images, names, strict=True):
        save(folder / name, image)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two images of one name; one knows its pixel size."""
    root = tmp_path_factory.mktemp("wires")
    images, _ = make_fibre_images(2, aligned=0.7, size=(96, 128), random_state=0)
    for place, image in zip(("one", "two"), images, strict=True):
        (root / place).mkdir()
        options = {"resolution": (1 / PIXEL_SIZE,) * 2, "metadata": {"unit": "nm"}}
        given = options if place == "one" else {}
        pixels = np.round(255 * image).astype(np.uint8)
        tifffile.imwrite(root / place / "a.tif", pixels, imagej=True, **given)
    return root


@pytest.fixture(scope="module")
def found(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("found")
    assert "2 of 2 images done" in run(folder, "-o", out, "--window", 24, figures=True).output
    return out


# --- what is written -----------------------------------------------------------------------------


def test_tables_and_maps_are_those_of_the_library(folder, found):
    rows, columns = table(found), ("fraction", "fibre_fraction", "mean_direction_deg")
    columns += "order_parameter", "spread_deg", "n_regions", "largest_region_px2", "fibre_share"
    assert list(rows) == ["one/a.tif", "two/a.tif"]
    for (name, row), pixel_size in zip(rows.items(), (PIXEL_SIZE, None), strict=True):
        image = read_image(folder / name)
        aligned = aligned_fraction(image, window=24)
        directions, of_all = local_orientation(folder / name, 1.75), aligned.statistics
        angles = np.rad2deg([of_all.mean, of_all.spread])
        values = [aligned.fraction, aligned.fibre_fraction, angles[0], of_all.order, angles[1]]
        values += [len(aligned.regions), aligned.regions[0].area, directions.mask.mean()]
        assert [float(row[each]) for each in columns] == pytest.approx(values, rel=1e-4)
        given = [row[each] for each in ("window_px", "tolerance_deg", "sigma_px", "method")]
        assert given == ["24", "20", "1.75", "structure_tensor"]
        maps = {"orientation": directions.orientation, "coherence": directions.coherence}
        for kind, values in (maps | {"regions": aligned.labels}).items():
            path = found / "maps" / f"{name}.{kind}.tif"
            stored = tifffile.imread(path)
            assert stored.dtype == (np.uint16 if kind == "regions" else np.float32)
            np.testing.assert_allclose(stored, values, atol=1e-6)
            assert read_micrograph(path).pixel_size == (pixel_size and pytest.approx(pixel_size))
        overlay = np.asarray(Image.open(found / "overlays" / f"{name}.png")).astype(int)
        assert overlay.shape == (96, 128, 3)
        assert np.ptp(overlay, axis=-1).max() > 60
    known, unknown = rows.values()
    assert (known["pixel_size_nm"], known["window_nm"], known["sigma_nm"]) == ("4", "96", "7")
    area = float(known["largest_region_px2"]) * (PIXEL_SIZE / 1000) ** 2
    assert float(known["largest_region_um2"]) == pytest.approx(area, rel=1e-4)
    metric = ("pixel_size_nm", "window_nm", "sigma_nm", "largest_region_um2")
    assert [unknown[column] for column in metric] == [""] * 4


def test_pixels_that_are_not_square_are_reported(folder, tmp_path):
    pixels = tifffile.imread(folder / "one" / "a.tif")
    options = {"resolution": (1 / 5, 1 / 10), "metadata": {"unit": "nm"}}
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, pixels[:79, :64], imagej=True, **options)
    result = run(tmp_path / "a.tif", tmp_path / "b.tif", "-o", tmp_path / "out").stderr
    assert "pixels are not square" in result
    assert all(f"{name}.tif (5 x 10 nm)" in result for name in "ab")
    row, _ = table(tmp_path / "out").values()
    assert row["pixel_size_nm"] == row["window_nm"] == ""
    sides = [row[name] for name in ("window_px", "window_width_px", "window_height_px")]
    assert sides == ["32", "32", "39.5"]


# --- what is in the folder already, and what goes wrong ------------------------------------------


def test_bad_images_are_reported_at_the_end_and_cost_the_others_nothing(tmp_path):
    images, out = wires(tmp_path / "images", "good.png", "near.png"), tmp_path / "out"
    (images / "broken.png").write_bytes(b"no image")
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(images / "flat.png")
    save(images / "none.png", np.random.default_rng(0).normal(0.5, 0.04, (64, 64)))
    (images / f"{'n' * 240}.png").write_bytes((images / "good.png").read_bytes())
    (images / "sizes.csv").write_text("path,pixel_size\ngood.png,4\nnear.png,2\n")
    result = run(images, "-o", out, "--pixel-size", images / "sizes.csv", code=2)
    assert "3 of 6 images done" in result.stdout
    assert "flat.png: the image is flat" in result.stderr
    assert "nn.png: names of files of its results would have more than 255" in result.stderr
    assert list(table(out)) == ["good.png", "near.png", "none.png"]
    said = " ".join(commands.run("report", out, "-o", tmp_path / "paper").output.split())
    for text in ("broken.png: not an image", "no fibres in none.png", "are 64 to 128 nm wide"):
        assert text in said
    assert "fibres in 2 images" in (tmp_path / "paper" / "methods.txt").read_text()
    assert "warning: 3 of 6 images left out" in run(images, "-o", out, "--on-error", "skip").stderr
    before = (out / "alignment.csv").read_bytes()
    assert "done" not in run(images / "flat.png", "-o", out, "--on-error", "skip", code=2).output
    assert (out / "alignment.csv").read_bytes() == before


def test_what_ends_a_run_costs_nothing_that_was_found(tmp_path, monkeypatch):
    images, out = wires(tmp_path / "in", "a.png", "b.png", "c.png"), tmp_path / "out"
    shutil.copy(images / "c.png", images / "copy.png")
    run(images, "-o", out)
    before, killed = files_of(out), tmp_path / "killed"
    calls, find = iter(range(99)), AlignmentRecipe.find

    def sometimes(recipe, image):
        if (n_done := next(calls)) >= 2:
            if n_done == 2:
                shutil.copytree(out, killed)  # as it would be if the process were killed now
            raise KeyboardInterrupt
        return find(recipe, image)

    with monkeypatch.context() as patch:
        patch.setattr(AlignmentRecipe, "find", sometimes)
        run(images, "-o", out, "--window", 16, code=130)
        with (killed / "alignment.jsonl").open("a") as stream:
            stream.write('[{"path')
        run(images, "-o", killed, code=130)
    assert table(killed) == table(out)
    made = json.loads((out / "alignment.json").read_text())
    assert (made["window"], made["images of another run"]) == ("16", 2)
    assert json.loads((killed / "alignment.json").read_text()) == made
    (out / "scores.csv").touch()
    done = commands.run("report", out, "-o", tmp_path / "paper")
    assert "without copy.png, a copy of other images" in done.stdout
    assert "2 images of another run" in done.stderr
    assert "scores.csv: not in the report" in done.stderr
    (out / "scores.csv").unlink()
    for text in ("fibres in 3 images", "letters were looked for, and none", "16 or 32 pixels"):
        assert text in (tmp_path / "paper" / "methods.txt").read_text()
    (out / "alignment.json").write_text("{")  # what does not stop the next run
    said = commands.run("report", out, "-o", tmp_path / "none", code=2).stderr
    assert "alignment.json: damaged" in said
    # Everything in the folder is in the table, whichever run wrote it.
    rows = table(out)
    assert [row["window_px"] for row in rows.values()] == ["16", "16", "32", "32"]
    assert all(row["spread_low_deg"] for row in rows.values())
    assert {row["path"] for row in rows_of(out / "regions.csv")} <= set(rows)
    assert files_of(out) == before
    groups = tmp_path / "groups.csv"
    groups.write_text("path,group\na.png,x\nb.png,x\nc.png,x\ncopy.png,y\n")
    run(images, "-o", out, "--window", 16, "--groups", groups)
    assert "images of another run" not in (out / "alignment.json").read_text()
    said = commands.run("report", out, "-o", tmp_path / "paper").stdout
    assert "all groups together are counted without copy.png, a copy of images in other" in said
    lines = rows_of(tmp_path / "paper" / "results.csv")
    assert [row["value"] for row in lines if row["quantity"] == "images"] == ["3", "3", "1"]


def test_results_of_an_earlier_run_go_when_those_of_this_one_are_complete(tmp_path):
    images, out = wires(tmp_path / "in", "a.png", "sub/b.png"), tmp_path / "out"
    run(images, "-o", out, figures=True)
    assert {"figures/sub/b.png.png", "overlays/sub/b.png.png"} <= files_of(out)
    notes = [out / "notes.txt", out / "maps" / "mine.png", out / "maps" / "b.png.regions.tif"]
    for own in notes:
        own.write_text("not of this program")
    (images / "sub" / "b.png").unlink()
    result = run(images, "-o", out, figures=True)
    assert "removed the results of an earlier run for sub/b.png" in result.stderr
    assert all(own.is_file() for own in notes)
    assert {name for name in files_of(out) if "sub" in name} == set()
    assert not (out / "maps" / "sub").exists()
    (row,) = table(out).values()
    assert row["path"] == "a.png"
    assert "removed 2 files of an earlier run with other" in run(images, "-o", out).stderr
    assert {"alignment.csv", "regions.csv", "maps/a.png.regions.tif"} <= files_of(out)
    assert not any((out / name).exists() for name in ("overlays", "figures"))


def test_tables_of_others_are_neither_followed_nor_overwritten(tmp_path):
    images, out = wires(tmp_path / "in", "a.png"), tmp_path / "out"
    out.mkdir()
    (out / "kept.png").write_text("no result")
    for text in ("name,score\na,1\n", "path\na,b,c\n"):
        (out / "alignment.csv").write_text(text)
        assert "not a table of an earlier run" in run(images, "-o", out, code=2).stderr
        assert (out / "alignment.csv").read_text() == text
    (out / "alignment.csv").unlink()
    (out / "regions.csv").write_text("path,x,y\na.png,1,2\n")  # of `hypervlad defects`
    assert "regions.csv is not a table of" in run(images, "-o", out, code=2).stderr
    (out / "regions.csv").unlink()
    (out / "alignment.csv").write_text("path,fraction\n../kept,1\nsub/../../kept,1\n")
    assert "removed" not in run(images, "-o", out).stderr
    assert (out / "kept.png").read_text() == "no result"


def test_results_do_not_go_among_the_images(tmp_path):
    folder = wires(tmp_path / "in", "one/a.png", "two/a.png")
    path = folder / "one" / "a.png"
    assert "is a file; give a folder" in run(path, "-o", path, code=2).stderr
    assert "is in" in run(path, "-o", folder / "one", code=2).stderr
    assert "is in" in run(folder / "*" / "*.png", "-o", folder, code=2).stderr
    assert not list(folder.rglob("alignment.csv"))
    run(folder / "o*" / "a.png", "-o", folder / "found")  # beside what a pattern finds
    assert list(table(folder / "found")) == ["one/a.png"]


# --- align-train ---------------------------------------------------------------------------------

SMALL = ("--backbone", "tiny", "--weights", "random", "--set", "window=24", "--quiet")


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Four images, three of which have a mask."""
    root = tmp_path_factory.mktemp("examples")
    images, truths = make_fibre_images(4, aligned=0.5, size=96, random_state=0)
    for i, image in enumerate(images):
        save(root / "images" / f"{i}.png", image)
    for i, truth in enumerate(truths[:3]):
        save(root / "masks" / f"{i}.png", np.nan_to_num(truth.aligned_map(24)))
    return root


def train(*arguments, code=0):
    return commands.run("align-train", *arguments, *SMALL, code=code).output


def test_from_masks_to_a_model_that_align_uses(examples, tmp_path):
    model, found = tmp_path / "new" / "alignment.hvlad", tmp_path / "found"
    output = train(examples / "images", "--masks", examples / "masks", "-o", model)
    assert "images have one; those without are left out" in output
    assert "windows of 3 images" in output
    run(examples / "images", "--model", model, "-o", found)
    rows = rows_of(found / "alignment.csv")
    assert {(row["method"], row["window_px"]) for row in rows} == {("AlignmentClassifier", "24")}
    learnt = load(model)
    assert isinstance(learnt, AlignmentClassifier)
    for row in rows:
        expected = learnt.aligned_fraction(examples / "images" / row["path"])
        assert float(row["fraction"]) == pytest.approx(expected.fraction, rel=1e-3)
        assert float(row["expected_fraction"]) == pytest.approx(
            expected.expected_fraction, rel=1e-3
        )
    facts = commands.run("info", model).output
    assert "AlignmentClassifier" in facts
    assert "24 x 24 pixels, in four turns of the image" in facts
