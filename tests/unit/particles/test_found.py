"""Folders of found particles: what a run writes, how it is resumed, classified and counted."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image, ImageDraw
from support.commands import run

from hypervlad import __version__
from hypervlad.images import Annotation, ImageReadError, PixelSizes
from hypervlad.particles import (
    Detection,
    FoundFolder,
    Outlines,
    count_particles,
    cut_particles,
    find_in_images,
    find_particles,
    match_rule,
    measure,
    particle_sizes,
    read_outlines,
    write_outlines,
)
from hypervlad.results import write_particles_page

pytestmark = pytest.mark.filterwarnings("ignore:.*no particle is found")

# The name of the field; upper left corners and sides of its bright squares.
FIELDS = {
    "a.png": [(10, 10, 12), (40, 30, 20), (60, 70, 12)],
    "a.tif": [(20, 40, 16)],
    "day 1/=b ü.png": [(30, 30, 20), (70, 60, 14)],
    "day 1/empty.png": [],
    "z.png": [(50, 20, 24), (0, 60, 12)],
}
SIZES = [5.0, 5.1, 5.0, 5.0, 5.0]  # nm per pixel; that of a.tif is in the file


class Classifier:
    """Calls particles of more than 200 pixels large."""

    classes_ = np.array(["large", "small"])
    held_out_ = SimpleNamespace(
        codes=np.array([0, 0, 0, 1, 1, 1, 1]),
        proba=np.array([[0.9, 0.1]] * 3 + [[0.6, 0.4]] + [[0.2, 0.8]] * 3),
    )

    def predict_proba(self, particles):
        large = np.array([p.mask.sum() > 200 for p in particles])
        return np.where(large[:, None], [0.9, 0.1], [0.25, 0.75])


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for name, squares in FIELDS.items():
        pixels = np.random.default_rng(0).integers(40, 48, (100, 120)).astype(np.uint8)
        for top, left, side in squares:
            pixels[top : top + side, left : left + side] = 200
        file = root / name
        file.parent.mkdir(exist_ok=True)
        if file.suffix == ".tif":
            scale = {"resolution": (1e3 / 5.1, 1e3 / 5.1), "metadata": {"unit": "um"}}
            tifffile.imwrite(file, pixels, imagej=True, **scale)
        else:
            Image.fromarray(pixels).save(file)
    return root


ONCE = {}


def find_once(image, **polarity):
    """Find particles, which takes long, once in each image, of which there are copies."""
    key = image.read_bytes(), *polarity.values()
    ONCE[key] = ONCE.get(key) or find_particles(image, **polarity)
    return ONCE[key]


def find(folder, images, outline=find_once, **options):
    files = sorted(file for file in images.rglob("*.*") if file.suffix in (".png", ".tif"))
    return find_in_images(folder, files, outline, root=images, **{"pixel_size": 5.0, **options})


@pytest.fixture(scope="module")
def original(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("found") / "found"
    _, left_out = find(path, images)
    assert left_out == []
    return path


@pytest.fixture(scope="module")
def classified_original(original, tmp_path_factory):
    path = shutil.copytree(original, tmp_path_factory.mktemp("classified") / "found")
    FoundFolder(path).update(formats=["coco", "geojson", "roi"])
    FoundFolder(path).classify(Classifier())
    return path


@pytest.fixture
def found(original, tmp_path):
    return FoundFolder(shutil.copytree(original, tmp_path / "copy"))


@pytest.fixture
def classified(classified_original, tmp_path):
    return FoundFolder(shutil.copytree(classified_original, tmp_path / "classified"))


def edit(folder, column, value, row=0, file="particles.csv"):
    """Change a cell of a table, as a person does; return the folder, opened again."""
    table = pd.read_csv(folder.path / file, dtype=object)
    table.loc[row, column] = value
    table.to_csv(folder.path / file, index=False)
    return FoundFolder(folder.path)


def begun(notes):
    """Return how notes begin, but for those of what finding misses, of an empty field, and D50."""
    others = (
        "finding misses or invents, as no",
        "empty.png: no particle is found",
        "interval of D50",
        "by what is doubtful of the images",
    )
    return [note[:20] for note in notes if not any(each in note for each in others)]


def test_each_field_has_outlines_and_each_particle_a_row(images, original):
    found = FoundFolder(original)
    assert [field.micrograph for field in found.fields] == list(FIELDS)
    assert [field.pixel_size for field in found.fields] == pytest.approx(SIZES)
    particles = []
    for (name, squares), size in zip(FIELDS.items(), SIZES, strict=True):
        labels = tifffile.imread(original / "outlines" / f"{name}.tif")
        np.testing.assert_array_equal(labels, found.outlines(name).label_image())
        assert labels.max() == len(squares)
        own = cut_particles(images / name, labels, name=name, pixel_size=size)
        particles += own
        for one, other in zip(found.particles(name), own, strict=True):
            np.testing.assert_array_equal(one.image, other.image)
    expected = measure(particles)
    pd.testing.assert_frame_equal(found.table[list(expected)], expected, check_dtype=False)


def test_an_unreadable_image_is_left_out_and_named(images, tmp_path):
    shutil.copytree(images, tmp_path / "images")
    (tmp_path / "images" / "m.png").write_bytes(b"no image")
    found, left_out = find(tmp_path / "found", tmp_path / "images")
    assert [field.micrograph for field in found.fields] == list(FIELDS)
    (reason,) = left_out
    assert "m.png" in reason
    assert f"left out while finding: {reason}" in found.count().notes
    assert find(tmp_path / "found", tmp_path / "images", resume=True)[1] == left_out
    Image.fromarray(np.zeros((50, 50), np.uint8)).save(tmp_path / "images" / "m.png")
    found, left_out = find(tmp_path / "found", tmp_path / "images", resume=True)
    assert (left_out, len(found.fields)) == ([], len(FIELDS) + 1)


def test_much_larger_files_are_searched_last(tmp_path):
    asked = list[str]()
    (images := tmp_path / "images").mkdir()
    for name, side in (("a.png", 200), ("b.png", 50), ("c.png", 60), ("d.png", 50)):
        noise = np.random.default_rng(0).integers(0, 255, (side, side), np.uint8)
        Image.fromarray(noise).save(images / name)

    def outline(path):
        asked.append(path.name)
        return np.zeros(np.asarray(Image.open(path)).shape, int)

    find_in_images(tmp_path / "found", sorted(images.iterdir()), outline, root=images)
    assert asked == ["b.png", "c.png", "d.png", "a.png"]


def test_a_run_that_was_stopped_is_resumed(images, original, tmp_path):
    asked = list[str]()

    def outline(image):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(image.name)
        return find_particles(image)

    path = tmp_path / "found"
    with pytest.raises(KeyboardInterrupt):
        find(path, images, outline)
    (path / "outlines" / ".0123.tmp").write_bytes(b"II")  # what killed writes leave
    journal = path / "fields.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"micrograph": "day')
    with pytest.raises(ValueError, match=r"csv: missing, as finding was stopped; continue it with"):
        FoundFolder(path).count()
    asked.append("")
    record, version = (path / "run.json").read_bytes(), f'"{__version__}"'.encode()
    (path / "run.json").write_bytes(record.replace(version, b'"0.0"'))
    find(path, images, outline, resume=True)
    assert asked[4:] == ["empty.png", "z.png"]
    assert (path / "run.json").read_bytes() == record.replace(version, b'"0.0 and ' + version[1:])
    for file in ("fields.csv", "particles.csv"):
        assert (path / file).read_bytes() == (original / file).read_bytes()
    assert not journal.exists()
    (path / "particles.csv").unlink()  # all is measured again
    find(path, images, resume=True)
    assert (path / "particles.csv").read_bytes() == (original / "particles.csv").read_bytes()


@pytest.mark.filterwarnings("ignore:.*(taken to be|look like)")
def test_a_polarity_is_decided_from_all_rows_also_after_a_stop(tmp_path, recwarn):
    (images := tmp_path / "images").mkdir()
    for name in ("a", "b", "both", "c", "d"):
        pixels = np.full((60, 60), 128, np.uint8)
        pixels[8:26, 8:26], pixels[34:56, 34:56] = 190, 50 if name == "both" else 190
        Image.fromarray(pixels).save(images / f"{name}.png")

    def failing(error, image, **polarity):
        if polarity:
            raise error(f"{image}: gone")
        return find_particles(image)

    find(tmp_path / "gone", images, partial(failing, ImageReadError))
    assert "regions look like particles, too" in " ".join(str(each.message) for each in recwarn)
    find(tmp_path / "found", images)
    with pytest.raises(KeyboardInterrupt):
        find(tmp_path / "again", images, partial(failing, KeyboardInterrupt))
    find(tmp_path / "again", images, resume=True)
    for file in ("fields.csv", "particles.csv"):
        found, again = ((tmp_path / name / file).read_text() for name in ("found", "again"))
        assert found == again
    result = FoundFolder(tmp_path / "found")
    assert "so they are taken to be bright" in (row := result.searched.rows()["both.png"])["doubt"]
    assert (row["polarity"], row["polarity_shown"] < 0) == ("bright", True)
    areas = result.table.set_index("micrograph")["area_px2"]
    assert areas["both.png"] == pytest.approx(18**2, rel=0.05)


def test_a_pixel_size_can_be_given_later(images, original, tmp_path, monkeypatch):
    path, own = tmp_path / "found", images / "day 1"
    result = find(path, own, pixel_size=None)[0].count()
    assert result.measure == "equivalent_diameter_px"
    assert result.counts["per_um2"].isna().all()
    assert "the pixel size is unknown" in result.notes[0]
    assert len(begun(result.notes)) == 1
    assert "with --resume --pixel-size NM" in result.notes[0]
    with monkeypatch.context() as at_the_page:
        at_the_page.setenv("HYPERVLAD_READ_BY_PROGRAM", "1")
        notes = FoundFolder(path).count().notes
        assert "type it at “Pixel size”" in notes[0]
        assert not any("--" in note or "hypervlad" in note for note in notes)
    found = find(path, own, resume=True)[0]
    expected = FoundFolder(original).table.query("micrograph.str.startswith('day 1/')")
    np.testing.assert_array_equal(found.table["area_nm2"], expected["area_nm2"])
    name = found.fields[0].micrograph
    write_outlines(found.outlines_file(name), found.outlines(name), pixel_size=0.5)  # by Fiji
    with pytest.warns(match=r"another pixel size, nm, than the image .* \(0\.5, not 5\)"):
        found.update()
    np.testing.assert_array_equal(found.table["area_nm2"], expected["area_nm2"])
    listed, halves = tmp_path / "listed", dict.fromkeys(own.iterdir(), 2.5)
    find(listed, own, pixel_size=PixelSizes(halves))
    for folder, size in ((path, 2.5), (path, PixelSizes({own / name: 2.5}, {})), (listed, 5.0)):
        with pytest.raises(ValueError, match=r"size.* (5\.0, not 2|2\.5, not 5)"):
            find(folder, own, pixel_size=size, resume=True)
    shutil.copytree(own, more := tmp_path / "more")
    for size in (5.0, PixelSizes({more / "z.png": 2.5}, {}), 5.0):
        sizes = find(tmp_path / "z", more, pixel_size=size, resume=True)[0].field_table
        shutil.copy(more / name, more / "z.png")
    assert sizes["pixel_size_nm"].tolist() == [*[5.0] * (len(sizes) - 1), 2.5]


def test_a_size_given_in_spite_of_a_scale_bar_is_told(images, tmp_path, recwarn):
    def outline(path):
        bar = Annotation("scale bar", (0, 0, 4, 9))
        return replace(find_particles(path), annotations=[bar], n_beside=2)

    given = tmp_path / "found", [images / "a.png"], outline
    find_in_images(*given, root=images)
    for _ in range(2):
        recwarn.clear()
        folder, _ = find_in_images(*given, root=images, pixel_size=5.0, resume=True)
        told = "".join(str(each.message) for each in recwarn), "".join(folder.count().notes)
        assert all("not the scale bar of a.png: if" in each for each in told)
        assert "2 particles of a.png are not counted" in told[1]


def test_classified_particles_are_measured_on_corrected_outlines(found):
    labels = found.outlines("z.png").label_image()
    labels[80:85, 100:110] = 7  # a new one, and a scale that the other program did not write
    labels[labels == 2] = 0
    tifffile.imwrite(found.outlines_file("z.png"), labels.astype(np.uint16))
    found.classify(Classifier())
    table = found.table[found.table["micrograph"] == "z.png"]
    assert table["particle"].tolist() == [1, 7]
    assert table["area_nm2"].tolist()[1] == pytest.approx(50 * 25)
    np.testing.assert_array_equal(found.table["class"] == "large", found.table["area_px2"] > 200)
    assert set(found.table["confidence"]) == {0.9, 0.75}
    assert found.classes == ["large", "small"]
    np.testing.assert_array_equal(found.confusion, [[3, 0], [1, 3]])
    assert pd.read_csv(found.path / "fields.csv")["particles"].tolist() == [3, 1, 2, 0, 2]


def test_classes_by_a_person_are_never_lost(images, classified):
    own = edit(classified, "class", "large", row=2)  # the folder in memory has the old table
    assert "; 1 particle of 8 counts as the class that a person gave" in own.count().notes[0]
    with pytest.raises(ValueError, match="gave 1 class, "):
        classified.classify(Classifier())
    find(own.path, images, resume=True)
    edit(own, "sample", "s1").correct({("z.png", 1): "small"})
    table = FoundFolder(own.path).table
    assert (table.loc[2, "class"], table["sample"].tolist()[0]) == ("large", "s1")


def test_a_correction_that_was_stopped_is_repeated_and_removes_nothing_twice(classified):
    own = classified.table["class"].tolist()
    for row in np.flatnonzero(classified.table["micrograph"] == "z.png"):
        edit(classified, "class", "other", row=row)
    classes = {("a.png", 1): own[0], ("a.png", 2): "not a particle", ("a.tif", 1): "new"}
    again = FoundFolder(classified.path)
    in_the_way = again.path / "geojson" / "z.png.geojson"
    in_the_way.unlink()
    in_the_way.mkdir()
    with pytest.raises(IsADirectoryError):
        again.correct(classes)
    in_the_way.rmdir()
    assert again.correct(classes) == (2, 0)
    (removed,) = (again.path / "removed").iterdir()
    assert removed.name == "a.png-1.tif"
    both = read_outlines(removed), again.outlines("a.png")
    assert [[outline.label for outline in each] for each in both] == [[2], [1, 3]]
    table = again.table.set_index(["micrograph", "particle"])
    assert ("a.png", 2) not in table.index
    assert table["source"].dropna().value_counts().to_dict() == {"person": 2, "model": 3}
    assert table.loc[("a.tif", 1), "class"] == "new"
    assert (~again.is_by_model).sum() == 4


def test_a_table_that_a_person_sorted_fits_the_outlines(classified):
    table = classified.table.sort_values("area_px2", ascending=False)
    table[list(table)[::-1]].to_csv(classified.path / "particles.csv", index=False)
    again = FoundFolder(classified.path)
    assert again.classes == classified.classes[::-1]
    counts, expected = (
        folder.count(measure="solidity").counts.set_index("class")["count"].to_dict()
        for folder in (again, classified)
    )
    assert counts == pytest.approx(expected)
    again.correct({("a.png", 1): "large"})
    content = json.loads((again.path / "geojson" / "a.png.geojson").read_text("utf-8"))
    own = [each["properties"] for each in content["features"]]
    areas = {each["name"]: each["measurements"]["area_px2"] for each in own}
    assert areas == {str(own.label): own.mask.sum() for own in again.outlines("a.png")}


def test_counts_are_those_of_the_table_and_the_fields(classified):
    found = classified
    options = {"classes": found.classes, "edges": "leave_out"}
    result = found.count(edges="leave_out", measure="length")
    expected = count_particles(found.table, found.fields, confusion=found.confusion, **options)
    pd.testing.assert_frame_equal(result.counts, expected)
    sizes = particle_sizes(found.table, found.fields, measure="length_nm", **options)
    pd.testing.assert_frame_equal(result.sizes, sizes)
    assert begun(result.notes) == ["counts are corrected"]
    names, rows = result.cells()
    assert rows[-1][names.index("notes")] == "; ".join(result.notes)
    assert dict(zip(names, rows[0], strict=True))["d50_by_area_nm"] == sizes.loc[1, "d50"]
    plain = found.count(edges="leave_out", corrected=False).counts
    assert plain["count"].tolist() == plain["counted"].tolist()
    rule = "feret_max < 100 nm"
    chosen, is_met = found.count(rule), match_rule(found.table, rule)
    assert chosen.counts["particles"].iloc[-1] == is_met.sum() > 0
    assert chosen.particles[""].table.index.tolist() == np.flatnonzero(is_met).tolist()
    for own_rule in ("class == 'large'", "confidence > 0.8", "p_small < 0.5"):
        assert "the rule chooses by the answers" in found.count(own_rule).notes[0]
    assert found.count("area > 1 um2").counts["count"].tolist() == [0, 0, 0]
    assert found.count(measure="area").measure == "area_nm2"
    short = found.count(measure="persistence_length")
    assert begun(short.notes) == ["counts are corrected", "sizes are without 8 "]
    assert short.sizes[["particles", "d50"]].fillna(-1).to_numpy().max() == 0


def test_wrong_outlines_are_not_counted(classified):
    result = edit(classified, "class", "not a particle").count()
    assert result.counts["particles"].tolist()[-1] == 7
    assert begun(result.notes) == ["without 1 wrong outl", "counts are corrected"]
    before = classified.confusion
    classified.correct({("a.png", 1): "not a particle"})
    np.testing.assert_array_equal(classified.confusion, before)
    assert begun(classified.count().notes) == ["counts are corrected"]


def test_outlines_that_were_changed_are_measured_again_before_they_are_counted(classified):
    table = classified.path / "particles.csv"
    pd.read_csv(table).to_csv(table, index=False, float_format="%.9g")  # as a spreadsheet does
    classified = FoundFolder(classified.path)
    file, before = classified.outlines_file("a.png"), classified.table
    write_outlines(file, classified.outlines("a.png"))  # the same again, as in a copied folder
    assert "changed" not in str(classified.count().notes)
    labels = classified.outlines("a.png").label_image()
    labels[labels == 3] = 0
    write_outlines(file, labels)
    with pytest.raises(ValueError, match=r"leave_out\['a.png'\]: expected points of shape"):
        classified.count(leave_out={"a.png": [12, 12]})
    places = {"a.png": [(12, 12), (0, 0)], "b": [(1, 1)]}
    with pytest.warns(UserWarning, match="place to leave out is not .*: x 0, y 0|x 1, y 1"):
        result = classified.count(leave_out=places)
    notes = [note for note in begun(result.notes) if "correct" not in note]
    assert notes == ["the outlines of a.pn", "without 1 particle t"]
    assert result.counts["particles"].iloc[-1] == 6
    kept, rest = FoundFolder(classified.path), before.drop(index=2).reset_index(drop=True)
    tables = (each.drop(columns="left_out") for each in (kept.table, rest))
    pd.testing.assert_frame_equal(*tables, check_dtype=False)
    assert kept.field_table["particles"].tolist() == [2, 1, 2, 0, 2]
    file.unlink()
    again = kept.count()
    pd.testing.assert_frame_equal(again.counts, result.counts)
    assert again.notes[0] == "no outlines of a.png are there any more"


def test_groups_are_counted_each_and_copies_once(images, tmp_path):
    root = shutil.copytree(images, tmp_path / "images")
    shutil.copy(root / "z.png", root / "zz.png")
    found, _ = find(tmp_path / "found", root, groups=[*"aabbbb"], samples=[*"112233"])
    result = found.count()
    assert result.notes[0] == "without zz.png, a copy of other images"
    assert result.counts["particles"].tolist() == [8]
    assert {name: len(own[0]) for name, own in result.groups.items()} == {"a": 1, "b": 1}
    names, rows = result.cells()
    assert [row[names.index("particles")] for row in rows] == [8, 4, 4]
    ((one, other, value, interval),) = result.ratios()["D50"]
    of = {name: own[1].query("by == 'number'").iloc[-1] for name, own in result.groups.items()}
    assert (one, other) == ("b", "a")
    assert value == pytest.approx(of["b"]["d50"] / of["a"]["d50"])
    assert np.isnan(interval.low)  # one sample is no group, however many images it has
    result = edit(found, "group", "a", row=5, file="fields.csv").count()  # where zz.png is
    assert "together are counted without zz.png, a copy" in result.notes[0]
    n_each = {name: own[0]["particles"].iloc[-1] for name, own in result.groups.items()}
    assert n_each | {"": result.counts["particles"].iloc[-1]} == {"": 8, "a": 6, "b": 4}
    assert {name: len(own.table) for name, own in result.particles.items()} == n_each | {"": 8}
    assert "no group" in edit(found, "group", "", row=0, file="fields.csv").count().groups
    write_outlines(found.outlines_file("zz.png"), found.outlines("zz.png")[1:])
    assert found.count().counts["particles"].tolist() == [7]  # corrected ones are counted
    found.outlines_file("zz.png").write_bytes(b"damaged")
    assert FoundFolder(found.path).count(on_error="skip").counts["particles"].tolist() == [8]


def test_ratios_of_groups_leave_out_what_finding_does_wrong_in_both(tmp_path):
    rows, columns = np.indices((160, 160))
    for seed in range(8):
        sides = np.random.default_rng(seed).integers(8, 24, (6, 6))[rows // 30, columns // 30]
        labels = (rows // 30 * 6 + columns // 30 + 1) * (np.maximum(rows, columns) < 150)
        labels *= (np.maximum(rows % 30, columns % 30) - 4 < sides) & (rows % 30 > 3)
        tifffile.imwrite(tmp_path / f"{seed}.tif", (labels * (columns % 30 > 3)).astype(np.uint16))
    names = {"groups": [*"aaaabbbb"], "samples": [*"12345678"]}
    found, _ = find(tmp_path / "found", tmp_path, tifffile.imread, **names)
    table = pd.read_csv(found.path / "fields.csv")
    table.loc[:, ["number_low", "number_high", "size_low", "size_high"]] = 0.5, 2.0, 0.8, 1.25
    table.loc[:3, ["size_low", "size_high"]] = 0.6, 1.5  # of group a, which is doubted more
    table.to_csv(found.path / "fields.csv", index=False)
    result = FoundFolder(found.path).count()
    doubts = {group: result.particles[group].finding_reach(result.measure) for group in "ab"}
    squares = np.zeros(2)
    for (group, (_, sizes)), way in zip(result.groups.items(), (-1, 1), strict=True):
        ends = sizes[sizes["by"] == "number"].iloc[-1][["d50_low", "d50", "d50_high"]].astype(float)
        own = np.diff(np.log(ends)) ** 2 - doubts[group] ** 2
        squares += (own + (doubts[group] - 0.5 * doubts["b"]) ** 2)[::way]
    ((*_, value, interval),) = result.ratios()["D50"]
    expected = value * np.exp([-1, 1] * np.sqrt(squares))
    assert [interval.low, interval.high] == pytest.approx(expected)


def test_marks_follow_outlines_that_have_other_numbers(found):
    for name, cell, file in (("batch", "1.10", "particles.csv"), ("holder", "007", "fields.csv")):
        edit(found, name, cell, row=1, file=file)
    found.count(leave_out={"a.png": [(12, 12), (62, 72)]})
    assert [found.table["batch"][1], found.field_table["holder"][1]] == ["1.10", "007"]
    assert found.count(rule="batch > 1").counts["particles"].tolist() == [1]
    labels = found.outlines("a.png").label_image()
    write_outlines(found.outlines_file("a.png"), np.where(labels, 4 - labels, 0))
    assert "without 2 particles " in begun(found.count().notes)
    write_outlines(found.outlines_file("a.png"), np.where(labels == 3, 0, labels))
    with pytest.warns(UserWarning, match=r"^1 particle of a\.png that a person left out"):
        found.count()


def test_outlines_that_change_while_they_are_classified_are_measured_again(found):
    changed = np.eye(*found.fields[0].shape, dtype=int)

    class Slow(Classifier):
        def predict_proba(self, particles):
            write_outlines(found.outlines_file("a.png"), changed)
            return super().predict_proba(particles)

    found.classify(Slow())
    assert found.update() == ["a.png"]
    found.replace_outlines("z.png", Outlines.of(found.outlines("z.png").label_image()[None] > 0))
    assert len(found.outlines("z.png")) == 1, "of two parts"


def test_damaged_outlines_cost_no_field(found, images):
    edit(found, "annotated_px", 50, file="fields.csv")
    before, file = FoundFolder(found.path).field_table, found.outlines_file("a.png")
    content = file.read_bytes()
    file.write_bytes(content[:200])
    (reason,) = find(found.path, images, resume=True)[1]
    assert "a.png.tif" in reason
    with pytest.raises(ImageReadError, match=r"a\.png\.tif"):
        found.count()
    result = found.count(on_error="skip")
    assert result.counts["particles"].tolist() == [5]
    assert begun(result.notes) == ["not counted as they "]
    file.write_bytes(content)
    find(found.path, images, resume=True)
    pd.testing.assert_frame_equal(FoundFolder(found.path).field_table, before)
    unmeasured = edit(found, "outlines_digest", None, file="fields.csv")
    assert begun(unmeasured.count().notes) == [], "not called changed"


def rewrite(folder, file, text, encoding="utf-8"):
    (folder.path / file).write_text(text, encoding=encoding)
    return FoundFolder(folder.path)


def in_another_encoding(folder, _):
    table = (folder.path / "particles.csv").read_text(encoding="utf-8")
    return rewrite(folder, "particles.csv", table, "cp1252").count()


def with_a_row_twice(folder, _):
    folder.table.loc[[0, 1, 2, 1]].to_csv(folder.path / "particles.csv", index=False)
    return FoundFolder(folder.path).count()


def with_images_that_are_gone(folder, _):
    run = json.loads((folder.path / "run.json").read_text())
    return rewrite(folder, "run.json", json.dumps(run | {"images": "gone"})).classify(Classifier())


def with_outlines_of_another_size(folder, _):
    write_outlines(folder.outlines_file("a.png"), np.ones((9, 9), int))
    return folder.classify(Classifier())


def counted(column, value, file="particles.csv"):
    return lambda folder, _: edit(folder, column, value, file=file).count()


REFUSED = [
    (counted("p_small", "0,1"), r"particles\.csv: p_small has cells that are no numbers; if a spr"),
    (counted("height", None, "fields.csv"), r"fields\.csv: damaged \(cannot convert float NaN"),
    (counted("width", -1, "fields.csv"), r"fields\.csv: damaged \(shape of a\.png must be"),
    (counted("micrograph", "../../z.png", "fields.csv"), r"no images are called \.\./\.\./z\.png"),
    (counted("class", None), "1 particle without a class"),
    (in_another_encoding, r"not a table .* save it as CSV UTF-8"),
    (with_a_row_twice, r"particles\.csv: particle 2 of a\.png has two lines"),
    (with_images_that_are_gone, r'write their folder behind "images" in '),
    (with_outlines_of_another_size, r"a\.png: outlines of 9 x 9 pixels for an image"),
    (lambda f, _: FoundFolder(f.path / "outlines"), "is no folder of found particles"),
    (
        lambda f, _: rewrite(f, "confusion.csv", "true,a,b\na,1,0\nb,0,1\n").count(),
        r"confusion\.csv: not of the classes in particles\.csv",
    ),
    (lambda f, _: f.count(measure="diameter"), "no measure is called 'diameter'; there are .*area"),
    (lambda f, images: find(f.path, images), "is not empty, and nothing is overwritten"),
    (
        lambda f, images: find(f.path, images, finder={"min_area": 9}, resume=True),
        "min_area None, not 9; give the same",
    ),
    (lambda f, images: find(f.path, images / "day 1", resume=True), "was made with images "),
    (lambda f, i: find(f.path / "x", i, finder={"a": Path("b")}), "JSON can store text, numbers"),
    (lambda f, i: find(f.path / "x", i, finder={"a": np.nan}), "not JSON compliant: nan"),
    (
        lambda f, i: find_in_images(f.path / "x", [i / "a.png"], find_particles, root=i / "day 1"),
        r"must contain all images, but not .*a\.png",
    ),
]


@pytest.mark.parametrize(("act", "words"), REFUSED)
def test_what_is_refused_changes_nothing(classified, images, act, words):
    before = {file: file.stat().st_size for file in (classified.path / "outlines").rglob("*.tif")}
    with pytest.raises(ValueError, match=words):
        act(classified, images)
    assert len(before) == len(FIELDS)
    assert all(file.exists() for file in before)


# --- outlines that were corrected in other programs -----------------------------------------------


def as_labelme(path, outlines):
    """Write rectangles as labelme does, of the class "rod"."""
    shapes = [
        {"label": "rod", "shape_type": "rectangle", "points": [[left, top], [right, bottom]]}
        for top, left, bottom, right in (each.box for each in outlines)
    ]
    height, width = outlines.shape
    path.write_text(json.dumps({"shapes": shapes, "imageHeight": height, "imageWidth": width}))


def as_label_image(path, outlines):
    Image.fromarray(outlines.label_image().astype(np.uint8)).save(path)


def as_coco(path, outlines):
    """Leave only given outlines of a.png, as a person does in the file of all images."""
    content, labels = json.loads(path.read_text()), [each.label for each in outlines]
    (own,) = (each["id"] for each in content["images"] if each["file_name"] == "a.png")
    kept = (e for e in content["annotations"] if e["image_id"] != own or e["particle"] in labels)
    path.write_text(json.dumps(content | {"annotations": [*kept]}))


CORRECTED = {  # what is saved where, by which program
    "found/outlines/a.png.zip": write_outlines,
    "found/outlines/a.png.geojson": write_outlines,
    "found/outlines/a.png_cp_masks.png": as_label_image,
    "found/geojson/a.png.geojson": write_outlines,
    "found/roi/a.png.zip": write_outlines,
    "found/coco.json": as_coco,
    "images/a.png.json": as_labelme,
    "images/a.png_RoiSet.zip": write_outlines,
    "images/a.png_cp_masks.png": as_label_image,
}


# Each writes and counts a folder several times; these are other formats at the same places.
FULL = "found/outlines/a.png.zip", "images/a.png_RoiSet.zip", "images/a.png_cp_masks.png"


@pytest.mark.parametrize(
    "place", [pytest.param(each, marks=[pytest.mark.full] * (each in FULL)) for each in CORRECTED]
)
def test_corrected_outlines_are_counted_and_kept_by_resume(images, tmp_path, place, recwarn):
    if place.endswith(".zip"):
        pytest.importorskip("roifile")
    shutil.copytree(images, tmp_path / "images")
    kinds = [kind for kind in ("geojson", "roi", "coco") if f"found/{kind}" in place]
    before = find(tmp_path / "found", tmp_path / "images", formats=kinds)[0]
    n_before = len(before.table)
    CORRECTED[place](tmp_path / place, before.outlines("a.png")[[0, 2]])
    fields = (before.path / "fields.csv").read_bytes()
    FoundFolder(before.path).count()
    # As if this had been stopped between the outlines and what is known of them.
    (before.path / "fields.csv").write_bytes(fields)
    (before.path / "corrections.jsonl").unlink(missing_ok=True)
    found = FoundFolder(before.path)
    found.count()
    n_said = len([each for each in recwarn if "corrected in another" in str(each.message)])
    assert len(found.table) == n_before - 1
    own = found.table[found.table["micrograph"] == "a.png"]
    assert own["area_px2"].tolist() == pytest.approx([144, 144], rel=0.1)
    assert "class" not in own or own["class"].tolist() == ["rod", "rod"]
    assert [*found.corrected_outlines()] == [str(tmp_path / "images" / "a.png")]
    named = found.table["micrograph"].where(found.table["particle"] == 1)
    wrong = found.table.assign(**{"class": np.where(named.notna(), "not a particle", "rod")})
    table, content = found.table, (found.path / "particles.csv").read_bytes()
    wrong.to_csv(found.path / "particles.csv", index=False)
    with pytest.warns(match="'not a particle' in .*z.png are not learnt"):
        learnt = found.corrected_outlines()
    assert [len(own) for own in learnt.values()] == [1]
    (found.path / "particles.csv").write_bytes(content)
    again = find(found.path, tmp_path / "images", resume=True)[0]
    pd.testing.assert_frame_equal(again.table, table)
    if kinds == ["coco"]:
        (tmp_path / place).unlink()  # which ends it
        FoundFolder(found.path).classify(Classifier())
        assert not (tmp_path / place).exists()
    said = [str(each.message) for each in recwarn if "corrected in another" in str(each.message)]
    # Of a file .geojson, which is the name of the folder's own, nothing is said.
    assert len(said) == n_said
    assert len(set(said)) == (place != "found/outlines/a.png.geojson")


@pytest.mark.filterwarnings("ignore:.*corrected in another")
def test_a_class_that_a_person_changed_for_qupath_leaves_the_others_to_the_model(classified):
    file = classified.path / "geojson" / "a.png.geojson"
    before, content = classified.table, json.loads(file.read_text("utf-8"))
    content["features"][0]["properties"]["classification"] = {"name": "rod"}
    file.write_text(json.dumps(content))
    with pytest.warns(match=r"in another program, and are used: a\.png"):
        classified.count(corrected=False)
    row = before.index[before["micrograph"] == "a.png"][0]
    after = FoundFolder(classified.path).table
    assert after.loc[row, ["class", "source"]].tolist() == ["rod", "outlines"]
    pd.testing.assert_frame_equal(after.drop(index=row)[[*before]], before.drop(index=row))


@pytest.mark.filterwarnings("ignore:.*(corrected in another|not written anew)")
def test_a_saved_coco_file_is_read_by_whole_names_and_left_as_it_is(images, tmp_path, monkeypatch):
    for place in ("a", "a/a"):
        shutil.copytree(images, tmp_path / place)
    monkeypatch.chdir(tmp_path / "a")
    found = find(tmp_path / "found", tmp_path / "a", formats=["coco"])[0]
    as_coco(file := found.path / "coco.json", found.outlines("a.png")[:1])
    content, outlines = json.loads(file.read_text()), found.outlines("z.png")
    for each in content["images"]:
        each["height"] -= each["file_name"] == "a/a.png"  # cannot be read
    content["images"].append({"id": 9, "file_name": "other.png"})
    file.write_text(json.dumps(content))
    write_outlines(found.path / "outlines" / "z.png.tif", outlines[:1])  # in the file, as it was
    with pytest.warns(match=r"coco\.json \(its images: other\.png\)"):
        found.update(on_error="skip")
    assert [*found.unreadable] == ["a/a.png"]
    assert [len(found.outlines(name)) for name in ("a.png", "z.png")] == [1, 1]
    assert json.loads(file.read_text()) == content


def test_outlines_that_a_person_drew_first_are_not_found_again(images, tmp_path):
    shutil.copytree(images, tmp_path / "images")
    found = find(tmp_path / "found", tmp_path / "images")[0]
    for name in ("new.png", "another.png"):
        shutil.copy(images / "z.png", tmp_path / "images" / name)
    (tmp_path / "images" / "another.json").write_text('{"kV": 10}')  # of a microscope
    overlapping = np.zeros((2, 100, 120), bool)
    overlapping[0, 5:9, 5:20] = overlapping[1, 7:19, 5:9] = True
    write_outlines(found.path / "outlines" / "new.geojson", overlapping)
    with (
        pytest.warns(match="by a person, and are used: new"),
        pytest.warns(match=r"not used as .*another\.json: JSON, but"),
    ):
        again = find(found.path, tmp_path / "images", resume=True)[0]
    assert "another.png" in again.table["micrograph"].tolist()
    assert again.table["area_px2"][again.table["micrograph"] == "new.png"].tolist() == [60, 48]
    (found.path / "outlines" / "new.geojson").unlink()
    as_label_image(found.path / "outlines" / "new.png", again.outlines("new.png")[:1])
    (tmp_path / "images" / "z.json").write_text('{"kV": 10}')
    with pytest.warns(match="are used: new"), pytest.warns(match=r"not used as .*z\.json"):
        again.update()
    assert sum(again.table["micrograph"] == "new.png") == 1
    assert again.outlines_file("new.png").name == "new.png.tif"


def test_intervals_contain_what_is_doubtful_of_all_images_or_of_none(images, tmp_path):
    shutil.copytree(images, tmp_path / "images")
    found, _ = find(tmp_path / "found", tmp_path / "images")
    known = found.count()
    assert not known.is_unknown
    assert known.counts["error_finding"].iloc[-1] > 0
    said = next(note for note in known.notes if "by what is doubtful" in note)
    run("report", found.path, "-o", tmp_path / "report")
    text = (tmp_path / "report" / "methods.txt").read_text("utf-8")
    assert said.removesuffix(", which intervals contain") in text
    by_shape = found.count(measure="aspect_ratio")
    assert not any("and sizes" in note for note in by_shape.notes if "doubtful" in note)
    older = edit(found, "number_low", "", row=0, file="fields.csv").count()
    assert (older.is_unknown, older.counts["error_finding"].iloc[-1]) == (True, 0)
    assert "is not known of a.png, so no" in str(older.notes)
    mixed = edit(found, "doubt", "the shells are outlined", row=0, file="fields.csv").count()
    assert "in 1 of 4 images, the shells are outlined around cores" in str(mixed.notes)
    found.outlines_file("z.png").unlink()
    Image.fromarray(np.zeros((100, 120), np.uint8)).save(tmp_path / "images" / "z.png")
    again, _ = find(found.path, tmp_path / "images", resume=True)
    assert again.searched.rows()["z.png"]["number_low"] is None
    with pytest.raises(ValueError, match=r"fields\.csv: damaged \(finding_range of a"):
        edit(found, "number_low", "1.5", row=0, file="fields.csv").count()


def test_counts_are_corrected_for_what_finding_misses(images, tmp_path):
    shutil.copytree(images, tmp_path / "images")
    pairs = np.array([[0, 60, 60], [0, 80, 0], [1, 200, 200], [1, 0, 70]], float)
    known = Detection(pairs, "nm", 3)  # nothing is in the third field
    strays = np.zeros((9, 9), int)
    strays[2:5, 2:5], strays[7, 7] = 1, 2
    assert len(Detection.of([(strays, 1 * (strays > 1), 1.0)], "px", min_area=2).pairs) == 2
    files = dict.fromkeys((tmp_path / "images").rglob("*.png"), 5.0)
    sizes = PixelSizes(files, {tmp_path / "images" / "z.png": 0.02})
    options = {"detection": known, "pixel_size": sizes}
    found = find(tmp_path / "found", tmp_path / "images", **options)[0]
    np.testing.assert_array_equal(found.detection.pairs, pairs)
    assert (found.detection.unit, found.detection.n_fields) == ("nm", 3)
    note = found.count().notes[0]
    assert note.endswith("2 of 3 particles were found, and 1 of 3 outlines is false")
    assert found.count().correction == "corrected for what finding misses"
    weak = Detection(np.vstack([pairs, [[1, 90, 0]] * 4]), "nm", 3)
    found, _ = find(found.path, tmp_path / "images", resume=True, **options | {"detection": weak})
    result = found.count()
    assert "2 of 7 particles were found, and 1 of 3 outlines is false; outline" in str(result.notes)
    assert (result.is_unknown, result.particles[""].detection) == (False, None)
    assert result.counts["count"].equals(found.count(corrected=False).counts["count"])
    said = run("report", found.path, "-o", tmp_path / "report").stdout
    assert "below 30 %, where the true outlines are known: 2 of 7 particles" in said
    for name in ("methods.txt", "report.html"):
        text = (tmp_path / "report" / name).read_text("utf-8")
        assert "weighted by number, not corrected for what finding misses" in text
    assert "counts and sizes,not corr" in (tmp_path / "report" / "results.csv").read_text("utf-8")
    text = write_particles_page(tmp_path / "page.html", found, counts=result).read_text("utf-8")
    assert text.count("are not corrected for what finding misses") == 3  # a note, counts, sizes
    (found.path / "detection.csv").unlink()
    assert "correct all outlines of two or more" in str(found.count().notes)
    assert "finding" in set(found.count().budget["source"])  # not known
    n_found = int(found.table["micrograph"].isin(["a.png", "z.png"]).sum())
    # A person deletes the first outline of each, here in the file of the folder.
    write_outlines(found.path / "outlines/a.png_rois.geojson", found.outlines("a.png")[1:])
    write_outlines(found.path / "outlines/z.png.tif", found.outlines("z.png")[1:])
    with pytest.warns(UserWarning, match="the outlines of 1 image were corrected"):
        result = found.count(edges="leave_out", pixel_size_error=0.03)
    budget = result.budget.set_index(["quantity", "source"])["percent"]
    for quantity, own in budget.groupby(level="quantity"):
        *parts, combined = own
        assert combined == pytest.approx(np.linalg.norm(parts), nan_ok=True)
        of_scale = 3 / 1.96 * (1 + ("um2" in quantity))
        assert own[quantity, "pixel size"] == pytest.approx(of_scale, rel=1e-3)
        assert own[quantity, "scale bar"] == pytest.approx(of_scale * 2 / 3, rel=1e-3)
    assert budget["per_um2", "finding"] > 0
    weighted = result.particles[""]
    assert (weighted.detection.pairs[:, 1:] > 0).sum(axis=0).tolist() == [n_found - 2, n_found]
    assert weighted.weights.max() == 1.0 > weighted.weights.min()  # corrected fields are true
    partly = edit(found, "pixel_size_nm", None, row=1, file="fields.csv").detection  # of a.tif
    np.testing.assert_array_equal(partly.pairs, weighted.detection.pairs)
    partly = edit(found, "pixel_size_nm", None, row=0, file="fields.csv").detection  # of a.png
    assert (partly.unit, partly.n_fields) == ("nm", 1)


@pytest.mark.filterwarnings("ignore:an information bar was")
def test_what_a_bar_cuts_counts_for_none_whoever_outlined_it(tmp_path):
    rows, columns = np.indices((256, 256))
    discs = [(rows - r) ** 2 + (columns - c) ** 2 <= 196 for r in (60, 216) for c in (60, 120, 200)]
    image = Image.fromarray(np.where(np.any(discs, axis=0) & (rows < 216), 180, 60).astype("u1"))
    ImageDraw.Draw(image).rectangle([0, 216, 255, 255], 0)
    ImageDraw.Draw(image).text((10, 228), "10.0 kV  x50,000  SE", 255)
    (images := tmp_path / "images").mkdir()
    image.save(images / "a.png")
    found = find(tmp_path / "found", images)[0]
    labels, before = found.outlines("a.png").label_image(), found.count().counts
    for number, disc in enumerate(discs[3:], start=4):
        labels[disc & (rows < 216)] = number
    write_outlines(found.outlines_file("a.png"), labels)
    again = find(tmp_path / "again", images, corrected=found)[0]
    for each in (found, again):
        counts = each.count().counts.loc[0, ["particles", "count", "per_um2"]].tolist()
        assert counts == [6, *before.loc[0, ["count", "per_um2"]]]
    assert found.detection.numbers == "3 of 3 particles were found, and 0 of 3 outlines are false"


@pytest.mark.filterwarnings("ignore:the outlines of 1 image")
def test_each_corrected_file_is_used_once_and_what_it_replaces_is_kept(found):
    outlines, folder = found.outlines("z.png"), found.path / "outlines"
    for name, chosen in {"z_rois.geojson": slice(1), "z.geojson": slice(1, None)}.items():
        write_outlines(folder / name, outlines[chosen])
        for _ in range(3):
            found.update()
            own = found.table[found.table["micrograph"] == "z.png"]
            assert own["area_px2"].tolist() == [each.mask.sum() for each in outlines[chosen]]
    assert len(list((found.path / "replaced").glob("z.png-*"))) == 2
    (folder / "lost (1).geojson").write_bytes((folder / "z.geojson").read_bytes())
    images = [{"id": 0, "file_name": "a_png.rf.0b1c.jpg"}]
    (folder / "coco.json").write_text(json.dumps({"images": images, "annotations": []}))
    (folder / "z.xml").write_text("<annotation/>")
    (folder / "z").mkdir()
    for number in range(len(outlines)):
        mask = outlines[number : number + 1].label_image() > 0
        Image.fromarray(mask).save(folder / "z" / f"{number}.png")
    with (
        pytest.warns(match=r"2 files .*/coco\.json \(its images: a_png\.rf.*, outlines/lost \(1\)"),
        pytest.warns(match=r"z\.xml not used: not a format of outlines that is read \(label im"),
    ):
        found.update()
    assert sum(found.table["micrograph"] == "z.png") == len(outlines)


def test_whose_outlines_a_file_has_must_be_clear(found):
    with pytest.raises(ValueError, match="no outlines were corrected"):
        found.corrected_outlines()
    squares = found.outlines("a.png")
    write_outlines(found.path / "outlines" / "a.geojson", squares)
    with pytest.raises(ImageReadError, match=r"outlines of a\.png or of a\.tif\? Call it a\.png"):
        found.count()
    (found.path / "outlines" / "a.geojson").rename(found.path / "outlines" / "z.geojson")
    write_outlines(found.path / "outlines" / "z_rois.geojson", squares)
    with pytest.raises(ImageReadError, match=r"z\.png: corrected in two files"):
        found.update()
