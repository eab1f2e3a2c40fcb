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
    done = run(folder, "-o", tmp_path / "sizes.csv", "--scale-bar", "500 nm", "-q")
    rows = table(tmp_path / "sizes.csv")
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
    run(folder / "one", "-o", tmp_path / "sizes.csv", "--scale-bar", "0.2 µm", "-q")
    assert table(tmp_path / "sizes.csv")["stated.tif"]["remark"] == ""


def test_lengths_by_folder(folder: Path, tmp_path: Path) -> None:
    bars = tmp_path / "bars.csv"
    bars.write_text("folder,scale_bar\none,1 um\ntwo,1 mm\ntwo/deep,200 nm\n")
    run(folder, "-o", tmp_path / "sizes.csv", "--scale-bar", bars, "-q")
    rows = table(tmp_path / "sizes.csv")
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


def test_without_a_length_the_bars_are_still_measured(folder: Path) -> None:
    lines = list(csv.DictReader(run(folder, "-q").stdout.splitlines()))
    found = {row["path"]: row["bar_length_px"] for row in lines}
    assert found.pop("one/none.png") == ""
    assert [round(float(length)) for length in found.values()] == [50, 50, 100]
    assert lines[0]["remark"] == "what the scale bar says is not known"


def test_lengths_without_a_unit_are_refused(folder: Path) -> None:
    assert "--scale-bar: '10' is not what a scale bar says" in refused(folder, "--scale-bar", "10")


def test_the_page_shows_each_bar_and_lists_the_others(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "scale.html"
    (folder / "one" / "broken.png").write_bytes(b"no image")
    output = tmp_path / "sizes.csv"
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
