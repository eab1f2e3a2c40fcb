"""The command line from end to end: training, tables, pages, pictures, reports and errors."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.commands import TINY, refused, rows_of, run, write_table

import hypervlad


def read_table(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def groups(folder, tmp_path):
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))]
    rows = [[name, f"sample {number // 2}"] for number, name in enumerate(names)]
    return write_table(tmp_path / "groups.csv", "path,group", rows)


def test_a_model_is_trained_and_classifies_to_standard_output(model, folder):
    result = run("predict", model, folder, "-q")
    assert result.stderr == ""
    rows = read_table(result.stdout)
    further = ["unlike_training", "in_training", "novelty", "note", "image_digest"]
    further += ["p_flat", "p_rings", "p_stripes"]
    assert list(rows[0]) == ["path", "label", "confidence", *further]
    files = sorted(folder.rglob("*.png"))
    assert [row["path"] for row in rows] == [file.relative_to(folder).as_posix() for file in files]
    assert np.mean([row["label"] == Path(row["path"]).parent.name for row in rows]) > 0.8
    for row in rows:
        shares = {name: float(row[f"p_{name}"]) for name in ("flat", "rings", "stripes")}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert float(row["confidence"]) == max(shares.values()) == shares[row["label"]]
    expected = hypervlad.load(model).predict_proba(files)
    found = [[float(row[column]) for column in further[5:]] for row in rows]
    np.testing.assert_allclose(found, expected, atol=5e-7)  # six decimals


def test_an_evaluation_leaves_training_images_out(model, folder, groups, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(folder, mixed)
    for path in sorted(mixed.rglob("*.png"))[::4]:
        pixels = np.asarray(Image.open(path)).copy()
        pixels[0] = 255 - pixels[0]
        Image.fromarray(pixels).save(path)
    lines = run("evaluate", model, mixed, "-o", tmp_path / "report", "-q").stdout.splitlines()
    words = "18 of 24 images are training images (the same pixels) and left out; with them, the "
    assert lines[0].startswith(f"{words}accuracy would be ")
    assert any(re.match(r"accuracy: [\d.]+ % of 6 images", line) for line in lines)
    assert len((tmp_path / "report" / "predictions.csv").read_text("utf-8").splitlines()) == 7
    # So does the report of shares of classes, in each group.
    names = [path.relative_to(mixed).as_posix() for path in sorted(mixed.rglob("*.png"))]
    halves = write_table(tmp_path / "halves.csv", "path,group", zip(names, "ab" * 12, strict=True))
    found, paper = tmp_path / "found", tmp_path / "paper"
    predict = "predict", model, mixed, "-q", "-o", found / "predictions.csv", "--coverage", 0.6
    found.mkdir()
    for name in ("predictions.csv", "predictions.json"):
        (found / "predictions.json").write_text("[1]")
        assert "json: how a table was made is" in refused(*predict[:4], "-o", found / name)
    (found / "predictions.json").unlink()
    run(*predict, "--groups", halves)
    run("report", found, "-o", paper)
    rows = {f"{row['group']} {row['quantity']}": row for row in rows_of(paper / "results.csv")}
    numbers = [rows[f" images {of}"]["value"] for of in ("classified", "not trained on")]
    assert numbers == ["24", "6"]
    for group in ("", "a"):
        shares = [rows[f"{group} share of {name}"] for name in ("flat", "rings", "stripes")]
        assert sum(float(row["value"]) for row in shares) == pytest.approx(100, abs=1e-3)
        assert all(float(row["low"]) < 100 / 3 < float(row["high"]) for row in shares)
    assert "18 of 24 images are training images" in (paper / "report.html").read_text("utf-8")
    assert "stripes</text>" in (paper / "figure.svg").read_text("utf-8")
    record = json.loads((found / "predictions.json").read_text())
    without = json.dumps(record | {"confusion": None, "accuracy": None})
    (found / "predictions.json").write_text(without)
    run("report", found, "-o", paper)
    assert "not corrected for mistakes" in (paper / "report.html").read_text("utf-8")


def test_shares_are_corrected_by_each_held_out_image_once(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "images")
    for name in "abc":
        shutil.copy(min(folder.rglob("*.png")), tmp_path / "images" / "flat" / f"{name}.png")
    run("train", tmp_path / "images", "-o", tmp_path / "m.hvlad", *TINY, "-q")
    run("predict", tmp_path / "m.hvlad", folder, "-q", "-o", tmp_path / "p.csv")
    record = json.loads((tmp_path / "p.json").read_text("utf-8"))
    assert np.sum(record["confusion"], axis=1).tolist() == [8, 8, 8]


def test_labels_from_a_table(model, folder, groups, tmp_path):
    """The table gives the same model as folders of the same names, byte for byte."""
    codes = dict(csv.reader(groups.read_text(encoding="utf-8").splitlines()))
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))]
    rows = [[name, name.split("/")[0], codes[name]] for name in names]
    shutil.copytree(folder, tmp_path / "images")
    grouped = tmp_path / "images" / "labels.csv"
    write_table(grouped, "path,label,group", rows)
    done = run("train", grouped, "-o", tmp_path / "g.hvlad", *TINY)
    assert "training on 24 images of 3 classes, 12 groups" in done.stderr
    run("train", folder, "--groups", groups, "-o", tmp_path / "f.hvlad", *TINY)
    assert (tmp_path / "g.hvlad").read_bytes() == (tmp_path / "f.hvlad").read_bytes()
    run("evaluate", model, grouped, "-o", tmp_path / "report", "-q")
    assert "come from 12 groups" in (tmp_path / "report" / "index.html").read_text("utf-8")
    assert f"{grouped}: 24 images in 3 classes" in run("check", grouped, "-q", code=1).stdout


def test_a_file_of_weights_is_found_beside_the_model(folder, tmp_path, monkeypatch):
    import torch

    from hypervlad.features import get_backbone

    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    Path("elsewhere").mkdir()
    torch.save(get_backbone("tiny").builder().state_dict(), "elsewhere/tiny.pth")
    run("train", folder, "-o", "m.hvlad", *TINY, "--weights", "elsewhere/tiny.pth")
    assert "file:tiny.pth" in run("info", "m.hvlad").stdout
    words = refused("predict", "m.hvlad", folder / "flat", "-q")
    assert "from a file, 'tiny.pth', which is not beside the model: put it there" in words
    Path("m.hvlad").replace("elsewhere/m.hvlad")
    assert len(read_table(run("predict", "elsewhere/m.hvlad", folder / "flat").stdout)) == 8


def test_an_unreadable_image_stops_or_is_left_out(model, folder, tmp_path):
    spoilt_folder = tmp_path / "spoilt"
    shutil.copytree(folder, spoilt_folder)
    (spoilt_folder / "flat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n half an image")
    page, table = tmp_path / "page.html", tmp_path / "predictions.csv"
    result = run("predict", model, spoilt_folder, "-q", "-o", table, "--page", page, code=2)
    assert "1 of 25 images could not be read" in result.stderr
    assert "broken.png" in result.stderr
    assert len(read_table(table.read_text("utf-8"))) == 24, "what was computed is not lost"
    assert "broken.png" in page.read_text("utf-8").split("Could not be read")[1]
    result = run("predict", model, spoilt_folder, "--on-error", "skip", "-q")
    assert len(read_table(result.stdout)) == 24
    assert re.search(r"^warning: 1 of 25 images.*\n.*broken\.png", result.stderr)
    assert ".py:" not in result.stderr
    output = tmp_path / "m.hvlad"
    words = refused("train", spoilt_folder, "-o", output, *TINY, "-q")
    assert "broken.png" in words
    assert "--on-error skip leaves them out" in words
    assert not output.exists()
    report = tmp_path / "report"
    run("train", spoilt_folder, "-o", output, *TINY, "-q", "--on-error", "skip", "--report", report)
    assert output.exists()
    assert "1 of 25 images could not be read" in (report / "index.html").read_text("utf-8")


REFUSED = {
    "train nowhere -o m.hvlad": "nowhere",
    "train {folder} -o {folder}": "is a folder; give the name of a file",
    "train {folder} -o m.hvlad --groups none.csv": "none.csv",
    "train {folder} -o m.hvlad --backbone vgg61": "vgg61",
    "train {folder} -o m.hvlad --set image_size=-3": "image_size",
    "train {folder} -o m.hvlad --set imagesize=3": "did you mean image_size?",
    "particles find few -o f --set polarity=dark": "error: --set polarity: it has an option of its",
    "train {folder} -o m.hvlad --set prior": "give its value too, --set prior=VALUE",
    "train {folder} -o m --report {folder}/r": "inside the image folder",
    "train {folder} -o mine.csv": "mine.csv exists and is not a model",
    "train mine.csv -o mine.csv": "mine.csv is read by this command",
    "train {folder} -o m.hvlad {tiny} -q --set prior={{'flat':1}}": "prior must name every class:",
    "predict {folder}/flat/00.png {folder}": "looks like a PNG image",
    "predict {model} {folder}/*.tif": "no images here",
    "predict {model} {folder} --page page.csv": "end in .html",
    "predict {model} {folder} -o p.html --page p.html": "same file",
    "predict {model} {folder} --max-error 5": "(5 % is written 0.05)",
    "predict {model} {folder} --coverage 90": "(90 % is written 0.9)",
    "predict {model} {folder} --watch": "--watch takes folders and a table",
    "predict {model} *.tif --watch -o t.csv": "--watch takes folders",
    "predict {model} {few} -o few/flat/00.png": "is read by this command; give the result another",
    "predict {model} few/*/*.png -o ./few/../few/flat/00.png": "is read by this command",
    "predict {model} few/flat/00.png -o few/flat/00.png": "is read by this command",
    "predict {model} few/flat --sort-into few": "choose another folder for --sort-into",
    "predict {model} few --sort-into few/flat/new": "is inside the image folder few",
    "explain {model} {folder}/flat/00.png -o why.jpg": "ends in .png",
    "explain {model} {folder}/flat -o why.png --class ring": (
        "no class 'ring'; its classes: flat, rings, stripes"
    ),
    "evaluate {model} {folder} -o {folder}/r": "write the results elsewhere",
    "demo -o mine.csv": "mine.csv is a file, not a folder",
    "info {folder}": "is a folder",
    "align few -o o --model missing.hvlad": "no such file",
    "align few -o o --window wide": "'wide' is not a length",
    "align few -o o --tolerance 120": "expected degrees above 0, at most 90",
    "align few -o o --pixel-size -1": "must be nanometres per pixel",
    "align-train few --masks few -o m.hvlad": "is in the folder of masks",
    "align-train few/flat --masks few/rings -o few/flat/00.png": "is read by this command",
    "align few -o . --pixel-size alignment.csv": "alignment.csv is read by this command",
    "diameters few -o . --groups places.csv": "places.csv is read by this command",
    "defects score m few -o . --pixel-size scores.csv": "scores.csv is read by this command",
    "particles find few -o . --groups fields.csv": "fields.csv is read by this command",
    "extract few -m m -o f.parquet --skipped mine.csv --pixel-size mine.csv": "mine.csv is read",
    "review start {model} {folder} -o mine.csv": "a file",
    "review start {model} {folder} -o q --max-error 2": "--max-error",
    "review start {model} {folder} -o q --training no": "no such folder",
}


@pytest.mark.parametrize("line", REFUSED)
def test_errors_are_one_sentence_and_change_nothing(line, model, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for label in ("flat", "rings"):
        Path("few", label).mkdir(parents=True)
        shutil.copy(min((folder / label).iterdir()), Path("few", label, "00.png"))
    for name in ("mine", "alignment", "places", "scores", "fields"):
        Path(f"{name}.csv").write_text("mine")
    before = contents()
    words = line.format(folder=folder, model=model, few="few", tiny=" ".join(TINY)).split()
    assert REFUSED[line] in refused(*words)
    assert contents() == before


def contents():
    return {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def test_explain_draws_the_others_beside_a_bad_file(model, folder, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    good, output = folder / "flat" / "00.png", tmp_path / "why.png"
    result = run("explain", model, tmp_path / "bad.png", good, "-o", output, code=2)
    assert "error: 1 of 2 images left out" in result.stderr
    assert "bad.png" in result.stderr
    assert output.exists()
    alone = tmp_path / "none.png"
    refused("explain", model, tmp_path / "bad.png", "-o", alone)
    assert not alone.exists()


def test_labels_of_a_model_test_nothing_and_are_counted_in_training(model, folder, tmp_path):
    files = sorted(folder.rglob("*.png"))
    rows = [
        [path, path.parent.name, ("model", "person")[i % 4 == 0]] for i, path in enumerate(files)
    ]
    table = tmp_path / "labels.csv"
    write_table(table, "path,label,source", rows)
    result = run("evaluate", model, table, "-o", tmp_path / "report", "-q")
    assert f"{table}: 18 of 24 labels left out, because a model gave them" in result.stderr
    assert re.search(r"^accuracy: [\d.]+ % of 6 images", result.stdout, re.MULTILINE)
    result = run("train", table, "-o", tmp_path / "m.hvlad", *TINY, "-q")
    assert "18 of 24 labels are a model's own (source model)" in result.stderr
    write_table(table, "path,label,source", [row for row in rows if row[2] == "model"])
    message = refused("evaluate", model, table, "-o", tmp_path / "other")
    assert f"{table}: all 18 labels are a model's own" in message
