"""Page and report of found particles: what is in them, and that nothing breaks or leaves them."""

import re

import numpy as np
import pytest
from PIL import Image
from support.commands import refused, rows_of, run
from support.pages import Page

from hypervlad.images import PixelSizes
from hypervlad.particles import find_in_images
from hypervlad.results import write_particles_page

EVIL = "a & <b>'\" <script>alert(1)<!--"
# Particles 1 to 4: 20 x 10, 6 x 6 and 12 x 12 pixels, and one at the edge of 8 x 30.
LABELS = np.zeros((60, 90), int)
LABELS[10:20, 10:30], LABELS[30:36, 40:46], LABELS[40:52, 60:72] = 1, 2, 3
LABELS[52:60, 20:50] = 4


class Classifier:
    """Gives the particles of each field the classes in turn, ever less certain."""

    held_out_ = None

    def __init__(self, classes):
        self.classes_ = classes

    def predict_proba(self, found):
        n, rows = len(self.classes_), np.arange(len(found))
        share = 0.95 - 0.1 * rows
        proba = np.tile(((1 - share) / (n - 1))[:, None], n)
        proba[rows, rows % n] = share
        return proba


@pytest.fixture
def found(tmp_path):
    """Write a folder of fields that are called so, and classify their particles."""

    def made(fields, classes=None, pixel_size=2.0, **given):
        files = {}
        for number, (name, labels) in enumerate(fields.items()):
            file = tmp_path / "images" / name
            file.parent.mkdir(exist_ok=True, parents=True)
            Image.fromarray(np.uint8(40 + number + 150 * (labels > 0))).save(file)
            files[file] = labels
        out = f"found {len(list(tmp_path.iterdir()))}"
        given |= {"root": tmp_path / "images", "pixel_size": pixel_size}
        folder, _ = find_in_images(tmp_path / out, list(files), files.__getitem__, **given)
        if classes is not None:
            folder.classify(Classifier(classes))
        return folder

    return made


def saved(folder):
    folder.table.to_csv(folder.path / "particles.csv", index=False)
    return folder


def page_of(folder):
    page = Page(write_particles_page(folder.path.parent / "page.html", folder))
    page.assert_safe()
    return page


def test_counts_sizes_and_every_outline_are_shown(found):
    fields = {f"{letter}.png": LABELS for letter in "abcde"}
    folder = found(fields, ["rod", "cube"], groups=["new", "new", "old", "old", "old"])
    page, counts = page_of(folder), folder.count()
    for name, (own, _) in counts.groups.items():
        (shown,) = [row for row in page.rows if row[0] == f"{name}: all"]
        assert float(shown[2]) == pytest.approx(own["count"].iloc[-1], rel=0.006)
    assert "new: rod, by area" in [row[0] for row in page.rows]
    cells = {row[0]: row[1:] for row in page.rows}
    for row in counts.sizes.to_dict("records"):
        shown = [float(cells[f"{row['class']}, by {row['by']}"][k]) for k in (1, 3, 5)]
        assert shown == pytest.approx([row["d10"], row["d50"], row["d90"]], rel=0.006)
    for row in counts.counts.to_dict("records"):
        (shown,) = [r for r in page.rows if r[:2] == [row["class"], str(row["particles"])]]
        numbers = [float(shown[2]), *map(float, shown[3].split(" to "))]
        assert numbers == pytest.approx([row["count"], row["low"], row["high"]], rel=0.006)
    for words in (
        *("20 particles outlined", "5 touch an edge", "5 images searched"),
        *("0 images without particles", "Not corrected for wrong classes"),
        *("equivalent diameter in nm", "methods for a paper: hypervlad report FOLDER"),
    ):
        assert words in page.spaced
    sizes = [4 * np.sqrt(area / np.pi) for area in (200, 36, 144, 240)]  # of 2 nm per pixel
    for number, (size, share, label) in enumerate(
        zip(sizes, (95, 85, 75, 65), ["rod", "cube"] * 2, strict=True), start=1
    ):
        words = f"Particle {number}: {label}, {share}.0 %, {size:.3g} nm"
        assert page.spaced.count(words) >= 5, "of each field"
    assert page.spaced.count("20 nm") == 5, "scale bars"
    assert ["e.png", "4", "2", "2"] in page.rows
    assert "e.png 4 particles, 90 x 60 pixels, 2 nm per pixel" in page.spaced


def test_without_classes_pixel_size_and_particles(found):
    page = page_of(found({"a.png": LABELS, "b.png": 0 * LABELS}, pixel_size=None))
    assert "The pixel size is unknown" in page.spaced
    assert "equivalent diameter in px" in page.spaced
    assert "Particle 1: 16 px" in page.spaced
    assert " nm" not in page.spaced
    assert "Least certain" not in page.spaced
    assert "1 images without particles" in page.spaced
    assert ["b.png", "0"] in page.rows
    nothing = page_of(found({"a.png": 0 * LABELS}))
    assert "There are none." in nothing.spaced
    assert "0 particles outlined" in nothing.spaced


def test_names_are_text_and_cannot_break_the_page(found):
    page = page_of(found({f"{EVIL}.png": LABELS, "b.png": LABELS}, [EVIL, "x"]))
    assert page.words.count(EVIL) > 7
    assert all((image["src"] or "").startswith("data:image/jpeg") for image in page.images)
    assert all((link or "").startswith("#") for link in page.links)


def test_what_cannot_be_read_is_listed(found):
    folder = found({"a.png": LABELS, "b.png": LABELS})
    file = folder.images / "a.png"
    file.unlink()
    for words in ("a.png: no such image in", "a.png: outlines of 60 x 90 pixels for an image of"):
        with pytest.warns(UserWarning, match="1 image without a picture") as caught:
            page = page_of(folder)
        assert words in str(caught[0].message)
        assert words in page.spaced
        assert [image["alt"] for image in page.images if image["alt"]] == ["b.png"]
        assert ["a.png", "4"] in page.rows, "its particles are still counted"
        Image.new("L", (90, 61)).save(file)


def test_tables_and_outlines_that_people_have_changed_are_explained(found):
    folder = found({"a.png": LABELS, "b.png": LABELS}, ["rod", "cube"])
    folder.table.loc[0, "class"] = None
    page = page_of(saved(folder))
    assert "No counts and sizes: " in page.spaced
    assert "1 particle without a class" in page.spaced
    assert "no class 1" in page.spaced, "the legend"
    assert "b.png 4 particles" in page.spaced
    folder = found({"a.png": LABELS})
    folder.table = folder.table.drop(index=2)
    page = page_of(saved(folder))
    assert "Particle 3: not in the table" in page.spaced
    assert "Particle 4: 35 nm" in page.spaced


def report_of(folder, *options):
    """Return the lines of the table of a report, by group and quantity, and its files."""
    out = folder.path.parent / "report"
    run("report", folder.path, "-o", out, *options)
    Page(out / "report.html").assert_safe()
    return {(row["group"], row["quantity"]): row for row in rows_of(out / "results.csv")}, out


def numbers(row):
    return [float(row[name] or "nan") for name in ("value", "low", "high")]


FIELDS = {f"{letter}.png": np.roll(LABELS, k, axis=1) for k, letter in enumerate("abcde")}
FIELDS["f.png"] = LABELS * (LABELS < 3)
SIZE = "equivalent diameter"


@pytest.mark.parametrize("by", ["number", "area"])
def test_a_report_has_the_counted_sizes_and_draws_their_interval(found, by):
    folder = found(FIELDS, ["rod", "cube"])
    rows, out = report_of(folder, "--weight", by)
    sizes = folder.count().sizes
    for name, row in sizes[sizes["by"] == by].set_index("class").iterrows():
        for key, words in {"d10": "D10", "d50": "median (D50)", "d90": "D90"}.items():
            wanted = row[[key, f"{key}_low", f"{key}_high"]].tolist()
            if wanted[1] == wanted[2]:  # of too few different sizes
                wanted[1:] = [np.nan] * 2
            shown = numbers(rows["" if name == "all" else name, f"{SIZE}, {words}"])
            assert shown == pytest.approx(wanted, rel=1e-5, nan_ok=True)
    counts = folder.count().counts.set_index("class")
    for name, row in counts[:-1].iterrows():
        wanted = 100 * row[["share", "share_low", "share_high"]].to_numpy(float)
        assert numbers(rows["", f"share of {name} by number"]) == pytest.approx(wanted, rel=1e-5)
        assert wanted[1] < wanted[0] == pytest.approx(100 * row["count"] / counts["count"]["all"])
    svg = (out / "figure.svg").read_text(encoding="utf-8")
    assert "Equivalent diameter (nm)</text>" in svg
    ticks = re.findall(r'middle" x="([\d.]+)"[^>]*>([\d.]+)</text>', svg)
    (one, low), *_, (other, high) = [tuple(map(float, tick)) for tick in ticks]
    for k, name in enumerate(["rod", "cube"], start=1):
        middle, *ends = numbers(rows[name, f"{SIZE}, median (D50)"])
        for gid, wanted in {f"median-{k}": [middle], f"interval-{k}": ends}.items():
            if np.isnan(wanted).any():
                continue
            path = re.search(rf'id="{gid}">\s*<path d="([^"]+)"', svg)[1]
            at = [float(x) for x in re.findall(r"[ML] ([\d.]+)", path)]
            drawn = [low + (x - one) / (other - one) * (high - low) for x in (min(at), max(at))]
            assert drawn == pytest.approx([wanted[0], wanted[-1]], rel=0.005)
    pdf = (out / "figure.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/MediaBox [ 0 0 240.9" in pdf, "85 mm"


def test_many_classes_have_a_row_of_the_figure_each(found):
    square, names = np.pad(np.ones((12, 10), int), 5), [f"class {k}" for k in range(8)]
    labels = np.hstack([k * square for k in range(1, 9)])
    _, out = report_of(found({"a.png": labels, "b.png": labels}, names))
    svg = (out / "figure.svg").read_text(encoding="utf-8")
    assert re.findall(r">(class \d)</text>", svg) == names
    assert svg.count('id="range-') == svg.count('id="median-') == len(names)
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "Lines: percentiles 10 to 90; dots: medians. From above: class 0, n = 2 whole" in html


@pytest.mark.parametrize("labels", [LABELS, LABELS * 0])
def test_a_report_says_what_is_not_known(found, labels):
    rows, out = report_of(found({"a.png": labels}, pixel_size=None))
    known = {name for (_, name), row in rows.items() if row["value"] != "not known"}
    assert not known & {"pixel size", "share below 100 nm", "samples", "particles per area"}
    assert (("", "fibres by NIOSH 7402") in rows) == labels.any(), "only of elongated particles"
    assert all(row["source"] for row in rows.values() if row["value"] == "not known")
    assert "(px)</text>" in (out / "figure.svg").read_text()
    assert rows["", "fields of view"]["value"] == "1"
    budget = [row["quantity"] for row in rows_of(out / "budget.csv")]
    assert ("count" in budget) == labels.any(), "none has an upper end only"
    assert "pixel size not known" in (out / "methods.txt").read_text()


def test_a_report_says_where_pixel_sizes_are_from(found, tmp_path):
    files = {f"{letter}.png": tmp_path / "images" / f"{letter}.png" for letter in "abc"}
    sizes = PixelSizes(dict.fromkeys(files.values(), 2.0), {files["a.png"]: 0.02})
    folder = found(dict.fromkeys(files, LABELS), pixel_size=sizes)
    made = folder.path / "run.json"
    made.write_text(re.sub(r',\s*"c.png": 2.0', "", made.read_text()))  # as if its file states it
    methods, words = (report_of(folder)[1] / "methods.txt").read_text(), "measured on scale bars"
    assert f"size 2 nm, {words} for a.png and given by the user for b.png and from" in methods


def test_a_mean_contains_the_error_of_the_pixel_size_and_more_fields_do_not_reduce_it(found):
    folder = found(FIELDS)
    errors = 0, 0.04, 0.5
    rows = [report_of(folder, "--set", f"pixel_size_error={each}")[0] for each in errors]
    (mean, low, high), _, (best, *wider) = (numbers(own["", f"{SIZE}, mean"]) for own in rows)
    reach = [np.hypot(np.log(end / mean), np.log(1.5)) for end in (low, high)]
    assert best == mean
    assert wider == pytest.approx([mean / np.exp(reach[0]), mean * np.exp(reach[1])], rel=1e-5)
    methods = (folder.path.parent / "report/methods.txt").read_text()
    assert "They contain an error of the pixel size of 50 %." in methods
    needed = "", "fields needed for a median within 5 %"
    few, more, none = (own[needed]["value"] for own in rows)
    assert (2.5 < int(more) / int(few) < 3, none) == (True, "not known")


def test_nothing_is_said_of_sizes_that_are_mostly_missed(found):
    folder = found(FIELDS)
    lines = [f"{k % 2},{150 + 250 * (k > 20)},{400 if k > 20 else ''}" for k in range(40)]
    text = "\n".join(["field,true_diameter_nm,found_diameter_nm", *lines])
    (folder.path / "detection.csv").write_text(text)
    rows, out = report_of(folder)
    assert rows["", "share below 100 nm"]["value"] == "not known"
    assert "nm most may be missed" in rows["", "share below 100 nm"]["source"]
    assert not rows["", f"{SIZE}, mean"]["low"]
    assert "the 2 fields that a person corrected" in (out / "methods.txt").read_text()


def test_a_measure_that_particles_lack_is_reported_without_them(found):
    rows, out = report_of(found({"a.png": LABELS}), "--set", "measure=persistence_length")
    assert rows["", "particles that count"]["value"] == "3"
    assert rows["", "persistence length, mean"]["value"] == "not known"
    assert "combined, without finding" in (out / "budget.csv").read_text()


def test_nothing_is_reported_of_other_folders_nor_replaced(found, tmp_path):
    folder, new = found({"a.png": LABELS}), ("-o", tmp_path / "new")
    assert "no folder of results" in refused("report", tmp_path, *new)
    assert "no earlier report" in refused("report", folder.path, "-o", folder.path)
    assert "only number and area" in refused("report", folder.path, *new, "--weight", "length")
