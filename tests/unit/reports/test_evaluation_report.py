"""Reports of evaluations, and their lines in the terminal: figures, and what cannot be said."""

import base64
import csv
import io
import os
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.linear_model import LogisticRegression
from support.classifications import classification
from support.pages import Page
from support.tiny import make_tiny_encoder

from hypervlad import MicrographClassifier
from hypervlad.evaluation import Evaluation
from hypervlad.results import report_on_held_out, report_on_model

CLASSES = ["fibre", "matrix", "cluster"]


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """Figures are not saved, which takes most of the time."""
    monkeypatch.setattr(Figure, "savefig", lambda _, stream, **options: None)


@pytest.fixture
def scripted(fitted):
    """A classifier of three other classes, whose learner has no linear part, and no evidence."""
    fitted.classes_, fitted.held_out_ = np.array(CLASSES), None
    fitted.boosting_ = LogisticRegression()
    return fitted


def report(folder, model, y_true, proba, *, known=(), unlike=(), images=None, same=(), **options):
    """Report on a model that gives images these probabilities; some are the `same` image."""
    found = classification(proba, unlike=unlike, same=same)
    found = replace(found, in_training=np.isin(np.arange(len(found.proba)), known))
    model.classify = lambda _: found
    rng = np.random.default_rng(0)
    if images is None:
        images = [rng.random((12, 16)).astype("float32") for _ in y_true]
    index, _, lines = report_on_model(folder, model, images, y_true, **options)
    return Page(index), lines


def proba_of(codes, confidence=0.8, n=3):
    table = np.full((len(codes), n), (1 - confidence) / (n - 1))
    table[np.arange(len(codes)), codes] = confidence
    return table


def example(n=40):
    rng = np.random.default_rng(0)
    codes, proba = rng.integers(3, size=n), rng.dirichlet([0.5] * 3, size=n)
    proba[np.arange(n), codes] += 0.4
    proba /= proba.sum(axis=1, keepdims=True)
    return {"y_true": [CLASSES[code] for code in codes], "proba": proba}


def rows_of(folder):
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


# --- files --------------------------------------------------------------------------------------


def test_a_report_is_a_page_with_its_pictures_and_its_table(tmp_path, fitted, monkeypatch):
    monkeypatch.undo()  # figures are saved here
    names, given = [str(label) for label in fitted.classes_], example()
    given["y_true"] = [names[CLASSES.index(label)] for label in given["y_true"]]
    folder = tmp_path / "deep" / "report"
    given |= {"title": "Nanotubes", "how_measured": "A fifth of the images was held out."}
    page, _ = report(folder, fitted, **given)
    assert len(page.images) == 3
    for image in page.images:
        assert len(image["alt"] or "") > 20
        content = base64.b64decode((image["src"] or "").partition(",")[2])
        with Image.open(io.BytesIO(content)) as picture:
            # Drawn half as fine again as shown, so that it is sharp on fine screens.
            assert picture.width == pytest.approx(1.5 * int(image["width"] or 0), abs=2)
    assert {*page.links, "index.html"} == {path.name for path in folder.iterdir()}
    page.assert_safe()
    for words in ("Nanotubes", "A fifth of the images was held out.", "Why the model decided so"):
        assert words in page.spaced
    if os.name != "nt":
        (tmp_path / "plain").touch()
        modes = {path.stat().st_mode for path in folder.iterdir()}
        assert modes == {(tmp_path / "plain").stat().st_mode}, "others can read it"


def test_the_table_of_predictions_is_complete_and_exact(tmp_path, scripted):
    given, names = example(n=7), [f"scan {i}, left.tif" for i in range(7)]
    page, _ = report(tmp_path, scripted, **given, groups=list("aabbccd"), names=names)
    assert "The images tested come from 4 groups" in page.spaced
    rows = rows_of(tmp_path)
    columns = "path label confidence true_label correct group p_fibre p_matrix p_cluster"
    assert list(rows[0]) == columns.split()
    assert [row["path"] for row in rows] == names
    assert [row["true_label"] for row in rows] == given["y_true"]
    assert "".join(row["group"] for row in rows) == "aabbccd"
    found = [[float(row[f"p_{name}"]) for name in CLASSES] for row in rows]
    np.testing.assert_allclose(found, given["proba"], atol=5e-7)  # six decimals
    for row, proba in zip(rows, given["proba"], strict=True):
        assert row["label"] == CLASSES[proba.argmax()]
        assert float(row["confidence"]) == pytest.approx(proba.max(), abs=5e-7)
        assert row["correct"] == str(int(row["label"] == row["true_label"]))


def test_names_cannot_break_the_page(tmp_path, scripted):
    evil = '<script>alert("1")</script>&amp;'
    scripted.classes_ = np.array([evil, "b\x00\x1b[31m", "c\udcff"])
    given = example(n=12) | {"y_true": [str(scripted.classes_[i % 3]) for i in range(12)]}
    names = [f"{evil}{i}\udcff.png" for i in range(12)]
    page, _ = report(tmp_path, scripted, **given, names=names, title=evil, how_measured=evil)
    assert page.spaced.count(evil) > 5
    page.assert_safe()
    assert "\x1b" not in page.spaced
    assert b"\xff.png" in (tmp_path / "predictions.csv").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "would replace predictions.csv, which is of no earlier report"),
        ({"y_true": ["a"]}, "one true label for each of 6 images; got 1"),
        ({"groups": ["a"]}, "one group for each of 6 images; got 1"),
        ({"names": ["a"]}, "one name for each of 6 images; got 1"),
    ],
)
def test_lengths_that_differ_and_files_of_others_are_refused(tmp_path, scripted, change, words):
    mine = "predictions.csv" if not change else "notes.txt"
    (tmp_path / mine).write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        report(tmp_path, scripted, **example(n=6) | {"images": [np.eye(9)] * 6} | change)
    assert {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()} == {mine: "mine"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("the disk is full")])
def test_an_interrupted_report_leaves_the_old_one(tmp_path, scripted, monkeypatch, error):
    report(tmp_path, scripted, **example(n=6))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def interrupted(_, stream, **options):
        raise error

    monkeypatch.setattr(Figure, "savefig", interrupted)
    with pytest.raises((KeyboardInterrupt, OSError)):
        report(tmp_path, scripted, **example(n=9))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# --- what it says -------------------------------------------------------------------------------


def test_the_headline_and_the_lines_have_the_accuracies(tmp_path, scripted):
    given = example()
    result = Evaluation(given["y_true"], given["proba"], CLASSES)
    page, lines = report(tmp_path, scripted, **given)
    right, (label, share) = int(result.correct.sum()), result.baseline
    low, high, least, most = (100 * each for each in result.interval + result.balanced_interval)
    mean = 100 * result.balanced_accuracy
    for words in (
        f"classified {right} of 40 images correctly: {100 * right / 40:.1f} %",
        f"expect between {low:.1f} % and {high:.1f} %",
        f"{100 * share:.1f} % accuracy of always predicting “{label}”",
        f"{mean:.1f} % balanced accuracy; 95 % interval {least:.0f} to {most:.0f} %",
    ):
        assert words in page.spaced
    assert not re.search("not clearly better than always|Warning", page.spaced)
    assert lines[:2] == [
        f"accuracy: {100 * right / 40:.1f} % of 40 images (95 % interval {low:.1f} to {high:.1f} %;"
        f" always predicting {label}: {100 * share:.1f} %)",
        f"balanced accuracy: {mean:.1f} %, the mean of 3 classes (95 % interval {least:.1f} to "
        f"{most:.1f} %)",
    ]
    for score in result.scores:
        assert f"{score.label} {score.recall * score.support:.0f} of {score.support}" in lines[2]
        (cells,) = [row for row in page.rows if row[0] == score.label and len(row) == 5]
        shares = [f"{100 * score.precision:.1f} %", f"{100 * score.recall:.1f} %"]
        assert cells[1:] == [*shares, f"{score.f1:.3f}", str(score.support)]
    assert "of 1 image correctly" in report(tmp_path, scripted, ["fibre"], [[1, 0, 0]])[0].spaced


def test_training_images_are_left_out_and_unlike_ones_counted(tmp_path, scripted):
    y, proba = ["fibre"] * 5, proba_of([0, 0, 1, 0, 0])
    page, lines = report(tmp_path, scripted, y, proba, known=[3], unlike=[2, 3])
    words = (
        "1 of 5 images is a training image .* the accuracy would be 80.0 %",
        "1 of 4 images is unlike all .* accuracy on the other 3: 100.0 %",
        "accuracy: 75.0 % of 4 images",
    )
    assert all(map(re.match, words, lines[:3]))
    assert f"{lines[0]}." in page.spaced
    assert f"{lines[1]}." in page.spaced
    assert [row["path"] for row in rows_of(tmp_path)] == [f"image {i}" for i in (0, 1, 2, 4)]
    _, lines = report(tmp_path, scripted, y, proba, unlike=range(5))
    assert re.match("5 of 5 images are unlike all training images(?!.*accuracy)", lines[0])
    page, lines = report(tmp_path, scripted, y, proba, known=range(5), unlike=range(5))
    assert lines[0].startswith("5 of 5 images are training images (the same pixels): the result is")
    assert not re.search("interval|unlike", " ".join(lines)), "what a model knows is no evidence"
    assert "was trained on all of them, so this is no forecast for new" in page.spaced
    assert "expect between" not in page.spaced


def test_copies_count_once_in_each_class(tmp_path, scripted, recwarn):
    y, proba = ["fibre", "fibre", "fibre", "matrix"], proba_of([0, 1, 0, 0])
    _, lines = report(tmp_path, scripted, y, proba, same=[0, 2, 3])
    assert "labels: image 0 (fibre) = image 3 (matrix)." in str(recwarn.pop(UserWarning).message)
    assert lines[0] == "without image 2, a copy of other images"
    assert lines[1].startswith("accuracy: 33.3 % of 3 images")


def test_classes_that_are_not_recognised_tested_or_known_are_named(tmp_path, scripted):
    y = ["fibre", "matrix"] * 3
    page, lines = report(tmp_path, scripted, y, np.tile([0.8, 0.1, 0.1], (6, 1)))
    words = "matrix is never predicted: matrix is not recognised in any of its 3 images"
    assert f"Warning: {words}" in page.spaced
    assert {f"warning: {words}", "2 of 3 classes tested, none of cluster"} <= set(lines)
    assert "Not tested: there is no image of “cluster”" in page.spaced
    assert "not clearly better than always" in page.spaced
    _, lines = report(tmp_path, scripted, ["fibre", "matrix"], proba_of([1, 0]))
    assert sum("is predicted for 1 image, always wrongly" in line for line in lines) == 2
    given = example()
    given["y_true"][:5] = ["ghost"] * 5
    page, lines = report(tmp_path, scripted, **given)
    right = sum(row["correct"] == "1" for row in rows_of(tmp_path))
    assert "5 have a label that the model was not trained on (“ghost”)" in page.spaced
    assert f"Of the other 35 images, {right} are correct." in page.spaced
    assert lines[-1] == "classes that the model was not trained on: ghost"
    assert not [line for line in lines if line.startswith("warning")]


# --- held-out training images -------------------------------------------------------------------


@pytest.fixture
def files(folder):
    return sorted(folder.rglob("*.png"))


def test_held_out_images_are_reported_with_their_own_predictions(fitted, files, tmp_path):
    held_out = fitted.held_out_
    assert held_out is not None
    wrong = held_out.codes.copy()
    wrong[5] = (wrong[5] + 1) % 3  # a label that is probably wrong
    fitted.held_out_ = replace(held_out, codes=wrong)
    names = [f"image {i:02d}.png" for i in range(24)]
    index, result = report_on_held_out(tmp_path, fitted, files, names=names, notes=["2 lost"])
    assert result.accuracy == fitted.held_out_evaluation().accuracy
    rows, positions = rows_of(tmp_path), fitted.training_.positions[held_out.rows]
    assert [row["path"] for row in rows] == [names[position] for position in positions]
    assert [row["true_label"] for row in rows] == fitted.classes_[wrong].tolist()
    found = [[float(row[f"p_{name}"]) for name in fitted.classes_] for row in rows]
    np.testing.assert_allclose(found, held_out.proba, atol=5e-7)
    page = Page(index)
    for words in (
        *("Held out from training, ", "24 of 24 training images, in 5 folds", "Warning: 2 lost."),
        "The label of 1 image is improbable",
    ):
        assert words in page.spaced
    assert page.data["sheets"][0]["columns"][-1]["codes"].index(0) == 5, "probably wrong"
    assert "Why the model decided so" not in page.spaced, "another model decided"
    for error, share in ((0.05, "5.0 %"), (0.2, "20.0 %")):
        sure = held_out.sure_answers(error)
        (cells,) = [row for row in page.rows if row[0] == share and len(row) == 4]
        assert cells[1] == ("–" if np.isinf(sure.threshold) else f"{100 * sure.threshold:.1f} %")
        assert cells[2] == f"{sure.n_sure} of 24 ({100 * sure.n_sure / 24:.1f} %)"
    fitted.held_out_ = held_out
    fitted.label_issues = list  # type: ignore[method-assign]
    words = Page(report_on_held_out(tmp_path, fitted, files)[0]).spaced
    assert "None was found among these images." in words


def test_held_out_images_have_the_names_of_their_groups(texture_images, tmp_path):
    images, labels = ([*part, part[5]] for part in texture_images)  # a copy joins its original
    groups = [f"sample {i // 2}" for i in range(24)] + ["sample of the copy"]
    model = MicrographClassifier(make_tiny_encoder(), random_state=0)
    model.fit(images, labels, groups=groups)
    names = list(map(str, range(25)))
    index, _ = report_on_held_out(tmp_path, model, images, groups=groups, names=names)
    assert "(1 copy is in the group of the original)" in Page(index).spaced
    found = {int(row["path"]): row["group"] for row in rows_of(tmp_path)}
    assert found == {i: groups[i] if i < 24 else groups[5] for i in found}
    assert len(found) > 20


def test_other_images_and_groups_than_those_of_the_training_are_refused(fitted, files, tmp_path):
    nothing = {"held_out_": None}
    for images, groups, changes, words in (
        (files[:-1], None, {}, r"needs the images given to fit.* trained on 24 images, such as "),
        (files[::-1], None, {}, r"such as flat/.*, and these 24 are others, or in another order"),
        (files, ["a", "b"], {}, "one group for each of 24 images; got 2"),
        (files, ["one"] * 24, {}, "groups are not those given to fit, such as 'one'"),
        (files, None, nothing, "cannot tell its accuracy"),
    ):
        vars(fitted).update(changes)
        with pytest.raises(ValueError, match=words):
            report_on_held_out(tmp_path / "report", fitted, images, groups=groups)
    assert not (tmp_path / "report").exists()
