"""``hypervlad defects``: from folders to a model, maps, tables and a page."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from support.commands import rows_of, run, save
from support.surfaces import PATCH, blotted, surface

from hypervlad import load
from hypervlad.images import read_mask

TINY = ["--backbone", "tiny", "--weights", "random", "--set", f"patch={PATCH}", "--quiet"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Defect-free surfaces, and a folder of others with masks for those that have a dark spot."""
    root = tmp_path_factory.mktemp("surfaces")
    for seed in range(8):
        save(root / "good" / f"{seed}.png", surface(seed))
    for i, centre in enumerate([(12, 20), (30, 44)]):
        image, mask = blotted(100 + i, centre)
        save(root / "new" / "blots" / f"{i}.tif", image)
        save(root / "masks" / "blots" / ["0_mask.png", "1.png"][i], mask.astype(float))
    save(root / "new" / "fine.png", surface(50))
    return root


@pytest.fixture(scope="module")
def model(folder):
    run("defects", "fit", folder / "good", "-o", folder / "m.hvlad", *TINY)
    facts = run("info", folder / "m.hvlad").stdout
    assert "PatchDefectScorer" in facts
    assert "at most 5.0 % of defect-free images" in facts
    return folder / "m.hvlad"


def test_scores_become_maps_overlays_and_tables(model, folder, tmp_path):
    printed = run("defects", "score", model, folder / "new", "-o", tmp_path / "out", "--quiet")
    rows = {row["path"]: row for row in rows_of(tmp_path / "out" / "scores.csv")}
    assert sorted(rows) == ["blots/0.tif", "blots/1.tif", "fine.png"]
    scorer = load(model)
    for name, row in rows.items():
        expected = scorer.score_map(folder / "new" / name)
        stored = tifffile.imread(tmp_path / "out" / "maps" / f"{name}.tif")
        assert stored.dtype == np.float32
        np.testing.assert_array_equal(stored, expected)
        found = scorer.find(folder / "new" / name)
        assert float(row["score"]) == found.score
        assert float(row["area_fraction"]) == found.area_fraction
        assert row["area_um2"] == ""
        mask = read_mask(tmp_path / "out" / "masks" / f"{name}.png")
        np.testing.assert_array_equal(mask, found.mask)
        assert (row["called"] == "anomalous") == (found.score >= scorer.threshold_)
    called = [row["called"] for row in rows.values()].count("anomalous")
    n_regions = sum(int(row["n_regions"]) for row in rows.values())
    assert f"3 images scored: {called} called anomalous, with {n_regions} def" in printed.output
    made = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    assert made["model"] == hashlib.sha256(model.read_bytes()).hexdigest()
    run("report", tmp_path / "out", "-o", tmp_path / "paper", "--quiet")
    methods = (tmp_path / "paper" / "methods.txt").read_text(encoding="utf-8")
    assert f"hypervlad {made['version']} and a model (SHA-256 {made['model'][:12]})" in methods
    assert all(words in methods for words in ("at most 5.0 % of defect-free", made["held_out"]))
    assert made["extrapolated"] == (len(scorer.held_out_.scores) < 19)
    told = (tmp_path / "paper" / "report.html").read_text(encoding="utf-8")
    assert ("it is extrapolated from too few" in told) == made["extrapolated"]
    (last,) = (folder / "new").glob("*.png")
    run("defects", "score", model, last, "-o", tmp_path / "own", "--threshold", 0.1, "--quiet")
    run("report", tmp_path / "own", "-o", tmp_path / "paper", "--quiet")
    assert "at most" not in (tmp_path / "paper" / "methods.txt").read_text(encoding="utf-8")
    regions = rows_of(tmp_path / "out" / "regions.csv")
    assert sum(r["path"] == "blots/0.tif" for r in regions) == int(rows["blots/0.tif"]["n_regions"])


def test_a_report_counts_copies_once_and_leaves_out_areas_of_unknown_size(model, folder, tmp_path):
    images, sizes = shutil.copytree(folder / "new" / "blots", tmp_path / "in"), tmp_path / "nm.csv"
    shutil.copy(images / "0.tif", images / "copy.tif")
    shutil.copy(folder / "good" / "0.png", images / "learnt.png")
    sizes.write_text("path,pixel_size\nin/0.tif,5\nin/copy.tif,5\nin/learnt.png,5\n")
    out, paper = tmp_path / "out", tmp_path / "paper"
    run("defects", "score", model, images, "-o", out, "--pixel-size", sizes, "--quiet")
    said = run("report", out, "-o", paper).stdout
    assert "without copy.tif, a copy of other images" in said
    assert "of 1 image is unknown, while the others have one; without it, 1.tif cannot" in said
    shown = {row["quantity"]: row["value"] for row in rows_of(paper / "results.csv")}
    areas = [float(row["area_um2"]) for row in rows_of(out / "regions.csv") if "0" in row["path"]]
    assert shown["images scored"] == "3"
    assert float(shown["area of regions, mean"]) == pytest.approx(np.mean(areas), rel=1e-4)
    new = [row["called"] == "anomalous" for row in rows_of(out / "scores.csv")][:2]
    called = "images called anomalous, of those not trained on"
    assert float(shown[called]) == 100 * np.mean(new)
    assert (shown["pixel size"], "1 of 3 images is a training image" in said) == ("5 nm", True)
    assert "letters were looked for, and none was found" in (paper / "methods.txt").read_text()


def test_groups_are_compared_each_copy_once(model, folder, tmp_path):
    images = tmp_path / "in"
    for i in range(4):
        save(images / f"fine{i}.png", surface(50 + i))
        for group in "pq"[: 1 + (i == 0)]:  # the first is in both
            save(images / f"{group}{i}.png", blotted(100 + i, (12, 20))[0])
    shutil.copy(images / "p1.png", images / "p9.png")
    names = sorted(each.name for each in images.iterdir())
    table, out = tmp_path / "groups.csv", tmp_path / "out"
    table.write_text("path,group\n" + "".join(f"{name},{name[0]}\n" for name in names))
    said = run("defects", "score", model, images, "-o", out, "--groups", table, "--quiet").stdout
    rows = rows_of(out / "scores.csv")
    assert {row["path"][0]: row["group"] for row in rows} == {"f": "f", "p": "p", "q": "q"}
    own = [row for row in rows if row["group"] == "p" and row["path"] != "p9.png"]
    mean = 100 * np.mean([float(row["area_fraction"]) for row in own])
    assert re.search(r"defective area of p over f: .* \(95 % from .*\): they differ", said)
    needed = "more images are needed, of several samples"
    assert re.search(rf"defective area of q over p: \S+: {needed}", said)
    notes = run("report", out, "-o", tmp_path / "paper", "--quiet").stdout
    assert "without p9.png, a copy of other images" in notes
    assert "all groups together are counted without q0.png, a copy of images in other" in notes
    results = rows_of(tmp_path / "paper" / "results.csv")
    shown = {(row["group"], row["quantity"]): row for row in results}
    counts = {name: shown[name, "images scored"]["value"] for name, _ in shown if name.isalpha()}
    assert float(shown["p over f", "ratio of defective area"]["low"]) > 1
    assert (counts, shown["", "images scored"]["value"]) == ({"f": "4", "p": "4", "q": "1"}, "8")
    area = shown["p", "defective share of the area, mean of images"]
    assert float(area["value"]) == pytest.approx(mean)
    assert float(area["low"]) < mean < float(area["high"])
    assert shown["q", "defective regions per image, mean"]["low"] == "", "of one image"
    pages = [Path(each, "report.html").read_text("utf-8") for each in (out, tmp_path / "paper")]
    assert all(f'<td class="number">{float(area["value"]):.3g} %</td>' in each for each in pages)
    assert "Without p9.png, a copy of other images in the same group." in pages[0]


def test_a_page_of_how_maps_compare_with_masks(model, folder, tmp_path):
    options = ["--masks", folder / "masks", "-o", tmp_path / "report.html", "--quiet"]
    out = run("defects", "evaluate", model, folder / "new", *options).stdout
    figures = dict(re.findall(r"^([\w\- ]+):\s+([\d.nan]+)$", out, flags=re.MULTILINE))
    assert float(figures["image AUROC"]) == 1
    assert float(figures["pixel AUROC"]) > 0.9
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.count('src="data:image/jpeg;base64,') == 3
    assert "://" not in re.sub(r"base64,[^\"]+|http://www.w3.org/2000/svg", "", html)
    assert "blots/0.tif" in html
    assert "Of 3 images, 2 have defects" in html
    assert re.search(r"3 images compared: \d called anomalous\n", out)
    # The same masks in one file, as pages save them, and one of another image.
    files = {"0.tif": "0_mask.png", "1.tif": "1.png", "gone.tif": "1.png"}
    masks = [read_mask(folder / "masks" / "blots" / file) for file in files.values()]
    images, marks = [], []
    for k, (name, mask) in enumerate(zip(files, masks, strict=True)):
        (height, width), flat = mask.shape, mask.T.ravel()
        counts = np.diff([0, *np.flatnonzero(np.diff(flat, prepend=False)), mask.size]).tolist()
        images.append({"id": k, "file_name": f"blots/{name}", "height": height, "width": width})
        marks.append({"image_id": k, "segmentation": {"size": mask.shape, "counts": counts}})
    stored = tmp_path / "masks.json"
    stored.write_text(json.dumps({"images": images, "annotations": marks}))
    options = ["--masks", stored, "-o", tmp_path / "again.html"]
    again = run("defects", "evaluate", model, folder / "new", *options)
    assert (
        out.splitlines()[:-1] == [line for line in again.stdout.splitlines() if ": " in line][:-1]
    )
    assert "1 mask fits no image: blots/gone.tif" in again.stderr


def test_what_does_not_fit_is_refused(model, folder, tmp_path):
    def refusal(*arguments):
        return run(*arguments, code=2).stderr

    to = ["-o", tmp_path / "x.html"]
    assert "none of the 8 images has a mask" in refusal(
        "defects", "evaluate", model, folder / "good", "--masks", tmp_path, *to
    )
    assert "is in the folder of masks" in refusal(
        "defects", "evaluate", model, folder, "--masks", folder / "masks", *to
    )
    assert "ends in .html" in refusal(
        *("defects", "evaluate", model, folder / "new", "--masks", folder / "masks"),
        *("-o", tmp_path / "report"),
    )
    options = ["--set", "threshold=f1", "-o", tmp_path / "m.hvlad", *TINY]
    assert "needs masks or labels" in refusal("defects", "fit", folder / "good", *options)
    assert "but this command needs" in refusal("predict", model, folder / "new")


def test_images_that_cannot_be_scored_are_left_out(model, tmp_path):
    save(tmp_path / "images" / "b.png", surface(1))
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    command = ["defects", "score", model, tmp_path / "images", "-o", tmp_path / "out", "--quiet"]
    assert "1 of 2 images left out: " in run(*command, code=2).output
    scores = tmp_path / "out" / "scores.csv"
    header, _ = scores.read_text(encoding="utf-8").splitlines()
    scores.write_text(f"{header}\n", encoding="utf-8")
    refused = run("report", tmp_path / "out", "-o", tmp_path / "paper", code=2).stderr
    assert "scores.csv: it lists no image" in refused
