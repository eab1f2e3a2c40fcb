"""``hypervlad scale``: from a folder of images to a table of pixel sizes and a page."""

import re
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image
from support import commands
from support.commands import rows_of

from hypervlad import load_features
from hypervlad.data import ImageFolderWarning, load_pixel_sizes

run, refused = partial(commands.run, "scale"), partial(commands.refused, "scale")


def barred(length, seed):
    image = np.random.default_rng(seed).integers(60, 120, (120, 200), dtype=np.uint8)
    if length:
        image[100:104, 20 : 20 + length] = 255
    return image


@pytest.fixture
def folder(tmp_path):
    """Bars of 50 and 100 px without metadata, one that contradicts them, and none."""
    root = tmp_path / "images"
    for name, length in {"one/a.png": 50, "two/deep/b.png": 100, "one/none.png": 0}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(barred(length, len(name))).save(root / name)
    options = {"resolution": (1 / 4.0,) * 2, "metadata": {"unit": "nm"}}
    tifffile.imwrite(root / "one" / "stated.tif", barred(50, 7), imagej=True, **options)
    return root


def table(path, key="path"):
    return {row[key]: row for row in rows_of(path)}


def test_one_length_for_all_and_a_page_of_bars(folder, tmp_path):
    (folder / "one" / "broken.png").write_bytes(b"no image")
    page, sizes = tmp_path / "scale.html", folder / "sizes.csv"
    options = ["--scale-bar", "500 nm", "--page", page, "--on-error", "skip", "-q"]
    run(folder, "-o", sizes, *options)
    rows = table(sizes)
    assert list(rows) == ["one/a.png", "one/none.png", "one/stated.tif", "two/deep/b.png"]
    assert float(rows["one/a.png"]["pixel_size"]) == pytest.approx(10, rel=0.01)
    assert float(rows["two/deep/b.png"]["pixel_size"]) == pytest.approx(5, rel=0.01)
    a, none, stated = (rows[f"one/{name}"] for name in ("a.png", "none.png", "stated.tif"))
    assert (a["source"], a["scale_bar"], a["remark"]) == ("scale bar", "500 nm", "")
    assert [a[f"bar_{side}"] for side in ("top", "left", "bottom", "right")] == [
        *("100", "20", "104", "70")
    ]
    assert (none["remark"], none["pixel_size"], none["source"]) == ("no scale bar found", "", "")
    assert (stated["pixel_size"], stated["source"]) == ("4", "metadata")
    assert stated["remark"].startswith("contradiction: ")
    text = page.read_text(encoding="utf-8")
    assert text.index("one/stated.tif") < text.index("one/a.png")  # with its contradiction first
    assert "one/none.png" in text.partition("Without a scale bar")[2]


def test_lengths_by_folder(folder, tmp_path):
    bars = tmp_path / "bars.csv"
    bars.write_text("folder,scale_bar\none,0.2 µm\ntwo,1 mm\ntwo/deep,5e-4mm\n", encoding="utf-8")
    two = barred(100, 3)
    two[20:24, 20:70] = 255  # that of an inset
    Image.fromarray(two).save(folder / "two" / "inset.png")
    run(folder, "-o", folder / "sizes.csv", "--scale-bar", bars, "-q")
    rows = table(folder / "sizes.csv")
    assert rows["two/inset.png"]["pixel_size"] == ""
    assert re.match(r"scale bars of [\d.]+, [\d.]+ px", rows["two/inset.png"]["remark"])
    assert float(rows["one/a.png"]["pixel_size"]) == pytest.approx(4, rel=0.01)
    assert float(rows["two/deep/b.png"]["pixel_size"]) == pytest.approx(5, rel=0.01)
    assert rows["one/stated.tif"]["remark"] == ""  # as its metadata agree


REFUSED_TABLES = {
    "folder,scale_bar\none,1 um\nthree,1 mm": "1 folder of the scale bars contains no image: three",
    "folder;scale_bar\none;0,5 \udcb5m": "line 2: not UTF-8 text; in a spreadsheet, save as",
    "folder,scale_bar\none,1": "line 2: '1' is not what a scale bar says; give a length",
    "folder,scale_bar\none,1 um\n./one,1um\none,2 um": "line 4: one has another length in line 2",
    "folder;scale_bar\none;2,500 um": "line 2: '2,500 um' may be 2.5um or 2500um; write one",
    "folder,scale_bar\none,1.000 nm": "line 2: '1.000 nm' may be 1nm or 1000nm; write one",
}
NO_LENGTHS = ["10", "nm", "0 nm", "nan", "3 apples", "1e999 nm", "1,00,0 nm"]


@pytest.mark.parametrize("given", [*REFUSED_TABLES, *NO_LENGTHS])
def test_what_is_no_length_with_a_unit_is_refused(folder, tmp_path, given):
    words = f"--scale-bar: '{given}' is not what a scale bar says; give a length with its unit"
    if given in REFUSED_TABLES:
        words = REFUSED_TABLES[given]
        (tmp_path / "bars.csv").write_bytes(given.encode("utf-8", "surrogateescape"))
        given = tmp_path / "bars.csv"
    assert words in refused(folder, "--scale-bar", given)


@pytest.fixture
def labels(monkeypatch):
    """Let the program for recognising characters find these texts beside bars, in turn."""

    def answer(*answers):
        rest = iter(answers)

        def read(pixels):
            assert (pixels.dtype, pixels.shape[2]) == (np.uint8, 3)
            texts = tuple(next(rest)) or None
            boxes = [[(20, 90), (60, 90), (60, 99), (20, 99)]] * len(texts or ())
            return SimpleNamespace(txts=texts, boxes=np.array(boxes))

        monkeypatch.setitem(sys.modules, "rapidocr", SimpleNamespace(RapidOCR=lambda params: read))

    return answer


def read_labels(root, *options):
    run(root, "-o", root / "sizes.csv", "--page", root / "page.html", "-q", *options)
    return table(root / "sizes.csv")


def test_labels_are_proposals_until_they_are_accepted(folder, labels):
    sizes, page = folder / "sizes.csv", folder / "page.html"
    labels(["200 nm"], ["200 nm"], ["1 um"])
    said = run(folder, "-o", sizes, "--page", page, "--read-labels").stderr
    assert f"labels read: 2; check them on {page}, then repeat this command with --acc" in said
    b, stated = (table(sizes)[name] for name in ("two/deep/b.png", "one/stated.tif"))
    assert (b["pixel_size"], b["source"], b["label"]) == ("", "", "1 um")
    assert float(b["proposed_pixel_size"]) == pytest.approx(10, rel=0.01)
    assert (stated["pixel_size"], stated["proposed_pixel_size"], stated["remark"]) == ("4", "", "")
    with pytest.warns(ImageFolderWarning):
        known = load_pixel_sizes(sizes)
    assert [known.of(folder / name) for name in ("one/stated.tif", "one/a.png")] == [4, None]
    labels(["200 nm"], ["200 nm"], ["1 um"])
    b = read_labels(folder, "--accept-labels")["two/deep/b.png"]
    assert (b["source"], b["proposed_pixel_size"], b["remark"]) == ("read", "", "")
    assert load_pixel_sizes(sizes).of(folder / "two/deep/b.png") == pytest.approx(10, rel=0.01)


def test_what_is_given_takes_precedence_over_labels(folder, labels):
    labels(["200 nm"], ["200 nm"], [])
    rows = read_labels(folder, "--scale-bar", "100 nm", "--accept-labels")
    a, b = rows["one/a.png"], rows["two/deep/b.png"]
    assert a["remark"] == "contradiction: the label reads 200 nm, not 100 nm"
    assert [float(each["pixel_size"]) for each in (a, b)] == pytest.approx([2, 1], rel=0.01)
    assert (b["source"], b["label"]) == ("scale bar", "")


TEXTS = {
    "20 nm": "20 nm", "20nm": "20 nm", "1 mm": "1 mm", "5 Å": "5 A", "100µm1": "100 um",
    "-10.0μm": "10 um", "0,5 µm": "0.5 um",  # a Greek letter, and the micro sign
    "2 pm": "2 um", "49 pm": "49 um",  # misread: no microscope resolves it
    "50 pm": "50 pm", "200pm": "200 pm",  # which some resolve: asked
    "1,000 nm": "1000 nm", "2 000 nm": "2000 nm", "1,234,000.5 nm": "1234000.5 nm",
    "0,125 µm": "0.125 um", "1.000 µm": "1 um", "1,00 µm": "1 um", "1'000 nm": "1000 nm",
    "Scale bar = 20 microns": "20 um", "10 u": "10 um", "1.000 nm": "",
    **dict.fromkeys(["WD 9.1 mm", "10 m", "20 kV", "20 nmol", "x20 n", "a5 nm", "0 nm", ""], ""),
}  # fmt: skip


def test_the_length_in_a_text(tmp_path, labels):
    for number in range(len(TEXTS)):
        Image.fromarray(barred(50, 0)).save(tmp_path / f"{number:02d}.png")
    labels(*([text] for text in TEXTS))
    rows = read_labels(tmp_path, "--read-labels").values()
    assert dict(zip(TEXTS, [row["label"] for row in rows], strict=True)) == TEXTS
    sizes = {row["label"]: row["proposed_pixel_size"] for row in rows}
    assert sizes["200 pm"] == ""
    for text, nm in {"20 nm": 20, "1000 nm": 1000, "10 um": 1e4, "5 A": 0.5, "1 mm": 1e6}.items():
        assert float(sizes[text]) == pytest.approx(nm / 50, rel=0.01)


def test_the_sizes_are_those_of_other_commands(folder, tmp_path):
    (tmp_path / "deep" / "results").mkdir(parents=True)
    (tmp_path / "results").symlink_to(tmp_path / "deep" / "results")
    sizes = tmp_path / "results" / "sizes.csv"
    run(folder, "-o", sizes, "--scale-bar", "200 nm", "-q")
    assert "../../images/one/a.png" in table(sizes)
    (tmp_path / "link").symlink_to(folder)
    options = ["--window", "100nm", "--no-figures", "--on-error", "skip", "--pixel-size", sizes]
    for number, place in enumerate((folder / "two" / "..", tmp_path / "link")):
        out = tmp_path / f"align-{number}"
        done = commands.run("align", place, "-o", out, *options)
        rows = table(out / "alignment.csv")
        known = {name: float(row["pixel_size_nm"]) for name, row in rows.items()}
        expected = {"one/a.png": 4, "one/stated.tif": 4, "two/deep/b.png": 2}
        assert known == pytest.approx(expected, rel=0.01)
        assert "one/none.png: " in done.stderr  # it has no size


def test_a_model_is_trained_and_used_with_sizes(texture_images, tmp_path):
    images = commands.write_folder(tmp_path / "images", *texture_images)
    sizes, model = images / "sizes.csv", tmp_path / "model.hvlad"
    files = [file.relative_to(images).as_posix() for file in sorted(images.rglob("*.png"))]
    sizes.write_text("\n".join(["path;pixel_size", *(f"{file};2,5" for file in files)]))
    given = ["--pixel-size", sizes, "-q"]
    commands.run("train", images, "-o", model, *commands.TINY, "--resample-to", "5", *given)
    out = tmp_path / "vectors.parquet"
    extract = partial(commands.run, "extract", images, "-m", model, "-o", out)
    cache = ["--cache", tmp_path / "cache"]
    extract(*given, *cache)
    assert set(load_features(out)[1]["pixel_size"]) == {2.5}
    sizes.write_text(sizes.read_text().replace("2,5", "3,5"))
    out.unlink()
    extract(*given, *cache)
    assert set(load_features(out)[1]["pixel_size"]) == {3.5}
