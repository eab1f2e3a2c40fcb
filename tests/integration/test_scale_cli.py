"""``hypervlad scale``: from a folder of images to a table of pixel sizes and a page."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from support import commands

from hypervlad import load, load_features
from hypervlad.data import ImageFolderWarning, load_pixel_sizes
from hypervlad.images import scale_labels

run, refused = partial(commands.run, "scale"), partial(commands.refused, "scale")


def barred(length: int, seed: int) -> np.ndarray:
    image = np.random.default_rng(seed).integers(60, 120, (120, 200), dtype=np.uint8)
    if length:
        image[100:104, 20 : 20 + length] = 255
    return image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Bars of 50 and 100 px without metadata, one that contradicts them, and none."""
    root = tmp_path / "images"
    for name, length in {"one/a.png": 50, "two/deep/b.png": 100, "one/none.png": 0}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(barred(length, len(name))).save(root / name)
    options = {"resolution": (1 / 4.0,) * 2, "metadata": {"unit": "nm"}}
    tifffile.imwrite(root / "one" / "stated.tif", barred(50, 7), imagej=True, **options)
    return root


def table(path: Path) -> dict[str, dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return {row["path"]: row for row in csv.DictReader(stream)}


def test_one_length_for_all(folder: Path, tmp_path: Path) -> None:
    done = run(folder, "-o", folder / "sizes.csv", "--scale-bar", "500 nm", "-q")
    rows = table(folder / "sizes.csv")
    assert list(rows) == ["one/a.png", "one/none.png", "one/stated.tif", "two/deep/b.png"]
    assert float(rows["one/a.png"]["pixel_size"]) == pytest.approx(10, rel=0.01)
    assert float(rows["two/deep/b.png"]["pixel_size"]) == pytest.approx(5, rel=0.01)
    a = rows["one/a.png"]
    assert (a["source"], a["scale_bar"], a["remark"]) == ("scale bar", "500 nm", "")
    assert [a[f"bar_{side}"] for side in ("top", "left", "bottom", "right")] == [
        *("100", "20", "104", "70")
    ]
    assert rows["one/none.png"]["remark"] == "no scale bar found"
    assert rows["one/none.png"]["pixel_size"] == rows["one/none.png"]["source"] == ""
    stated = rows["one/stated.tif"]
    assert (stated["pixel_size"], stated["source"]) == ("4", "metadata")
    assert stated["remark"].startswith("contradiction: ")
    assert "warning: one/stated.tif: contradiction" in done.stderr


def test_metadata_that_agree_are_no_contradiction(folder: Path, tmp_path: Path) -> None:
    run(folder / "one", "-o", folder / "sizes.csv", "--scale-bar", "0.2 µm", "-q")
    assert table(folder / "sizes.csv")["one/stated.tif"]["remark"] == ""


def test_lengths_by_folder(folder: Path, tmp_path: Path) -> None:
    bars = tmp_path / "bars.csv"
    bars.write_text("folder,scale_bar\none,1 um\ntwo,1 mm\ntwo/deep,200 nm\n")
    run(folder, "-o", folder / "sizes.csv", "--scale-bar", bars, "-q")
    rows = table(folder / "sizes.csv")
    assert float(rows["one/a.png"]["pixel_size"]) == pytest.approx(20, rel=0.01)
    assert float(rows["two/deep/b.png"]["pixel_size"]) == pytest.approx(2, rel=0.01)
    bars.write_text("folder,scale_bar\none,1 um\nthree,1 mm\n")
    assert "1 folder of the scale bars contains no image: three; give" in refused(
        folder, "--scale-bar", bars
    )
    bars.write_text("folder,scale_bar\none,1\n")
    assert f"{bars}, line 2: '1' is not what a scale bar says; give a length" in refused(
        folder, "--scale-bar", bars
    )
    bars.write_text("folder,length\none,1\n")
    assert "its columns are folder, length; expected folder and scale_bar" in refused(
        folder, "--scale-bar", bars
    )


def test_without_a_length_the_bars_are_still_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)  # paths of a printed table are relative to it
    done = run(folder)
    assert "give what the bars say with --scale-bar" in done.stderr
    lines = list(csv.DictReader(done.stdout.splitlines()))
    found = {row["path"]: row["bar_length_px"] for row in lines}
    assert found.pop("one/none.png") == ""
    assert [round(float(length)) for length in found.values()] == [50, 50, 100]
    assert lines[0]["remark"] == "what the scale bar says is not known"


def test_lengths_without_a_unit_are_refused(folder: Path) -> None:
    assert "--scale-bar: '10' is not what a scale bar says" in refused(folder, "--scale-bar", "10")


def test_the_page_shows_each_bar_and_lists_the_others(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "scale.html"
    (folder / "one" / "broken.png").write_bytes(b"no image")
    output = folder / "sizes.csv"
    options = ["--scale-bar", "500 nm", "--page", page, "--on-error", "skip", "-q"]
    run(folder, "-o", output, *options)
    text = page.read_text(encoding="utf-8")
    assert text.count("<img src=") == 3
    assert text.index("one/stated.tif") < text.index("one/a.png")  # with its contradiction first
    assert "Contradiction: " in text
    assert "one/none.png" in text.partition("Without a scale bar")[2]
    assert "one/broken.png" in text
    assert "50.1 ± " in text
    assert list(table(output)) == ["one/a.png", "one/none.png", "one/stated.tif", "two/deep/b.png"]


# --- labels that are read -----------------------------------------------------------------------


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """What is read beside bars of a length in pixels."""
    texts = {50: "200 nm", 100: "1 um"}
    monkeypatch.setattr(
        scale_labels, "new_label_reader", lambda: lambda _, bar: texts.get(round(bar.length), "")
    )
    return texts


def test_labels_are_proposals_until_they_are_accepted(
    folder: Path, tmp_path: Path, labels: dict[int, str]
) -> None:
    sizes, page = folder / "sizes.csv", tmp_path / "page.html"
    assert "--read-labels needs --page HTML" in refused(folder, "-o", sizes, "--read-labels")
    command = [folder, "-o", sizes, "--page", page]
    said = run(*command, "--read-labels").stderr
    assert f"labels read: 2; check them on {page}, then repeat this command with --acc" in said
    b = table(sizes)["two/deep/b.png"]
    assert (b["pixel_size"], b["source"], b["label"]) == ("", "", "1 um")
    assert float(b["proposed_pixel_size"]) == pytest.approx(10, rel=0.01)
    assert b["remark"] == "the label reads 1 um, which is not used before it is accepted"
    stated = table(sizes)["one/stated.tif"]
    assert (stated["pixel_size"], stated["proposed_pixel_size"], stated["remark"]) == ("4", "", "")
    text = page.read_text(encoding="utf-8")
    assert "<em>1 um</em>" in text
    assert "proposed" in text
    with pytest.warns(ImageFolderWarning, match="2 pixel sizes are only proposed, and not used"):
        known = load_pixel_sizes(sizes)
    assert [known.of(folder / name) for name in ("one/stated.tif", "one/a.png")] == [4, None]
    run(*command, "--accept-labels", "-q")
    b = table(sizes)["two/deep/b.png"]
    assert (b["source"], b["proposed_pixel_size"], b["remark"]) == ("read", "", "")
    assert load_pixel_sizes(sizes).of(folder / "two/deep/b.png") == pytest.approx(10, rel=0.01)


def test_what_is_given_takes_precedence_over_labels(
    folder: Path, tmp_path: Path, labels: dict[int, str]
) -> None:
    labels[100] = ""
    options = ["--scale-bar", "100 nm", "--accept-labels", "--page", tmp_path / "page.html", "-q"]
    said = run(folder, "-o", folder / "sizes.csv", *options).stderr
    assert "one/a.png: contradiction: the label reads 200 nm, not 100 nm" in said
    a, b = (table(folder / "sizes.csv")[name] for name in ("one/a.png", "two/deep/b.png"))
    assert [float(each["pixel_size"]) for each in (a, b)] == pytest.approx([2, 1], rel=0.01)
    assert b["source"] == "scale bar"


# --- the table in other commands ----------------------------------------------------------------


def test_the_sizes_are_those_of_other_commands(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep" / "results").mkdir(parents=True)
    (tmp_path / "results").symlink_to(tmp_path / "deep" / "results")
    sizes = tmp_path / "results" / "sizes.csv"
    run(folder, "-o", sizes, "--scale-bar", "200 nm", "-q")
    assert "../../images/one/a.png" in table(sizes)
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    for number, place in enumerate(("images", "./images/", folder / "two" / "..", "link")):
        out = tmp_path / f"align-{number}"
        options = ["--window", "100nm", "--no-figures", "--on-error", "skip", "-q"]
        done = commands.run("align", place, "-o", out, "--pixel-sizes", sizes, *options)
        rows = table(out / "alignment.csv")
        known = {name: float(row["pixel_size_nm"]) for name, row in rows.items()}
        expected = {"one/a.png": 4, "one/stated.tif": 4, "two/deep/b.png": 2}
        assert known == pytest.approx(expected, rel=0.01)
        assert "one/none.png: " in done.stderr  # it has no size


def test_a_resumed_run_has_the_same_sizes(folder: Path, tmp_path: Path) -> None:
    sizes, found = folder / "sizes.csv", tmp_path / "found"
    sizes.write_text("path,pixel_size\none/a.png,4\none/stated.tif,9\n")
    find = partial(commands.run, "particles", "find", folder, "-o", found, "--pixel-sizes", sizes)
    said = find("-q").stderr
    assert "one/stated.tif: 9 nm per pixel by the table, but 4 by its metadata, which are" in said
    field = sizes_in(found)
    assert field["one/a.png"] == field["one/stated.tif"] == "4.0"
    sizes.write_text("path,pixel_size\none/a.png,4\ntwo/deep/b.png,8\n")
    find("--resume", "-q")
    field = sizes_in(found)
    assert (field["two/deep/b.png"], field["one/none.png"]) == ("8.0", "")
    sizes.write_text("path,pixel_size\none/a.png,5\n")
    assert "pixel size of one/a.png 4.0, not 5.0; give the same" in commands.refused(
        "particles", "find", folder, "-o", found, "--pixel-sizes", sizes, "--resume", "-q"
    )


def test_one_size_or_a_table(folder: Path, tmp_path: Path) -> None:
    (folder / "sizes.csv").write_text("path,pixel_size\none/a.png,4\n")
    given = ["--pixel-size", "4", "--pixel-sizes", folder / "sizes.csv"]
    assert "--pixel-size and --pixel-sizes exclude each other" in commands.refused(
        "align", folder, "-o", tmp_path / "out", *given
    )


def test_every_command_with_a_pixel_size_takes_a_table() -> None:
    options = {
        name: {text for each in command.params for text in each.opts}
        for name, command in commands.all_commands().items()
    }
    both = {name for name, given in options.items() if "--pixel-size" in given}
    only = {"defects fit", "review retrain"}
    assert {name for name, given in options.items() if "--pixel-sizes" in given} == both | only


def test_a_model_is_trained_and_used_with_sizes(
    texture_images: tuple[list[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    images = commands.write_folder(tmp_path / "images", *texture_images)
    files = sorted(images.rglob("*.png"))
    sizes, model = images / "sizes.csv", tmp_path / "model.hvlad"
    lines = [f"{file.relative_to(images).as_posix()};2,5" for file in files]
    sizes.write_text("\n".join(["path;pixel_size", *lines]))
    given = ["--pixel-sizes", sizes, "-q"]
    commands.run("train", images, "-o", model, *commands.TINY, "--pixel-size", "5", *given)
    options = load(model).encoder_.fitted_params_.read_options
    assert options.pixel_size is None  # a model has no paths of files
    out = tmp_path / "vectors.parquet"
    extract = partial(commands.run, "extract", images, "-m", model, "-o", out)
    cache = ["--cache", tmp_path / "cache"]
    extract(*given, *cache)
    assert set(load_features(out)[1]["pixel_size"]) == {2.5}
    sizes.write_text(sizes.read_text().replace("2,5", "3,5"))
    with pytest.raises(AssertionError, match="holds features of another model"):
        extract(*given, "--resume")
    out.unlink()
    extract(*given, *cache)
    assert set(load_features(out)[1]["pixel_size"]) == {3.5}


def sizes_in(found: Path) -> dict[str, str]:
    with open(found / "fields.csv", encoding="utf-8", newline="") as stream:
        return {row["micrograph"]: row["pixel_size_nm"] for row in csv.DictReader(stream)}
