import csv
import dataclasses
import os
import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.base import clone
from support.displays import TwoCodebooks
from support.pages import Page

from hypervlad import MicrographClassifier
from hypervlad.evaluation import Evaluation
from hypervlad.models import BoostedSoftmaxClassifier, SureAnswers
from hypervlad.results import report_on_held_out, report_on_model, save_png
from hypervlad.results.reports import evaluation as report_module
from hypervlad.results.reports.evaluation import (
    EvaluatedImages,
    HeldOutFindings,
    one_of_each_class,
    selective_rows,
    sure_rows,
    write_report,
)


@pytest.fixture(autouse=True)
def unsaved_figures(monkeypatch):
    """Draw figures without saving them, which takes most of the time."""

    def touch(draw, path):
        path.touch()
        return draw(Figure().add_subplot()).figure_size

    monkeypatch.setattr(report_module, "save_png", touch)


MODEL = SimpleNamespace(encoder_=TwoCodebooks(), boosting_=None)


def report(folder, *, images, y_true, proba, classes, groups=None, names=None, **options):
    result = Evaluation(y_true, np.asarray(proba), classes, groups)
    names = names or [f"image {i}" for i in range(len(images))]
    return write_report(folder, EvaluatedImages(images, names, result, MODEL), **options)


def rows_of(folder):
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def example(n=40):
    rng = np.random.default_rng(0)
    classes = ["fibre", "matrix", "cluster"]
    codes = rng.integers(3, size=n)
    proba = rng.dirichlet([0.5] * 3, size=n)
    proba[np.arange(n), codes] += 0.4
    return {
        "images": [rng.random((12, 16)).astype("float32") for _ in range(n)],
        "y_true": [classes[code] for code in codes],
        "proba": proba / proba.sum(axis=1, keepdims=True),
        "classes": classes,
    }


def test_a_report_is_a_page_with_its_pictures_and_its_table(tmp_path, monkeypatch):
    monkeypatch.setattr(report_module, "save_png", save_png)
    index = report(
        tmp_path / "deep" / "report",
        **example(),
        title="Nanotubes",
        how_measured="A fifth of the images was held out.",
        details={"backbone": "mobilenet_v2"},
        files={"model.hvlad": "the trained model."},
    )
    page = Page(index)
    assert {path.name for path in index.parent.iterdir()} == {
        "index.html",
        "predictions.csv",
        *(image["src"] for image in page.images),
    }
    assert [image["src"] for image in page.images] == [
        "confusion.png",
        "reliability.png",
        "selective_accuracy.png",
        "least_certain.png",
        "mistakes.png",
        "codewords.png",
    ]
    for image in page.images:
        assert len(image["alt"]) > 20
        with Image.open(index.parent / image["src"]) as picture:
            # Drawn half as fine again as shown, so that it is sharp on fine screens.
            assert picture.width == pytest.approx(1.5 * int(image["width"]), abs=2)
    assert page.links == ["predictions.csv", "model.hvlad"]
    assert page.scripts == []
    for words in ("Nanotubes", "A fifth of the images was held out.", "mobilenet_v2"):
        assert words in page.spaced


def test_the_table_of_predictions_is_complete_and_exact(tmp_path):
    content = example(n=7)
    groups = list("aabbccd")
    names = [f"scan {i}, left.tif" for i in range(7)]
    page = Page(report(tmp_path, **content, groups=groups, names=names))
    assert "The images tested come from 4 groups" in page.spaced
    rows = rows_of(tmp_path)
    assert list(rows[0]) == [
        *("path", "label", "confidence", "true_label", "correct", "group"),
        *("p_fibre", "p_matrix", "p_cluster"),
    ]
    assert [row["path"] for row in rows] == names
    assert [row["true_label"] for row in rows] == content["y_true"]
    assert [row["group"] for row in rows] == groups
    found = [[float(row[f"p_{name}"]) for name in content["classes"]] for row in rows]
    np.testing.assert_allclose(found, content["proba"], atol=5e-7)  # six decimals


def test_names_cannot_break_the_page(tmp_path):
    content = example(n=12)
    evil = '<script>alert("1")</script>&amp;'
    content["classes"] = [evil, "b\x00\x1b[31m", "c\udcff"]
    content["y_true"] = [content["classes"][i % 3] for i in range(12)]
    names = [f"{evil}{i}\udcff.png" for i in range(12)]
    page = Page(report(tmp_path, **content, names=names, title=evil, details={evil: evil}))
    assert evil in page.spaced
    assert "\x1b" not in page.spaced
    table = (tmp_path / "predictions.csv").read_bytes()
    assert b"\xff.png" in table


def test_a_report_without_mistakes_says_so_and_removes_the_old_figure(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    report(tmp_path, **example())
    assert (tmp_path / "mistakes.png").exists()
    content = example()
    content["y_true"] = [content["classes"][k] for k in content["proba"].argmax(axis=1)]
    page = Page(report(tmp_path, **content))
    assert not (tmp_path / "mistakes.png").exists()
    assert "The model made none on these images." in page.spaced
    assert "There are no mistakes." in page.spaced
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_labels_that_the_model_does_not_know_are_explained(tmp_path):
    content = example()
    content["y_true"][:5] = ["ghost"] * 5
    page = Page(report(tmp_path, **content))
    assert (
        "Of these images, 5 have a label that the model was not trained on (“ghost”)" in page.spaced
    )
    assert "ghost (unknown to the model)" in page.spaced


def test_of_particles_the_page_says_particle(tmp_path, monkeypatch):
    monkeypatch.setattr(TwoCodebooks, "is_of_particles_", True)
    names = [f"images/image.tif, particle {i}" for i in range(40)]
    page = Page(report(tmp_path, **example() | {"names": names}))
    assert "particles tested" in page.words
    assert set(re.findall(r"\bimages?\b.", page.words)) <= {"images/", "image."}


def test_what_a_person_called_image_is_never_called_particle(tmp_path, monkeypatch):
    monkeypatch.setattr(TwoCodebooks, "is_of_particles_", True)
    classes = ["image a", "an image", "image"]
    result = Evaluation(["image a"] * 3 + ["image"], np.eye(3)[[1, 1, 2, 2]], classes)
    named = EvaluatedImages([np.eye(9)] * 4, ["an image.png"] * 4, result, MODEL)
    own = {"title": "An image a day", "how_measured": "By images."}
    page = Page(write_report(tmp_path, named, **own, notes=["2 images lost"]))
    for text in (*classes, *own.values(), "2 images lost", "image a is never predicted"):
        assert text in page.spaced
    assert "not recognised in any of its 3 particles" in page.spaced
    assert not re.search(r"\bparticle a\b|\ba particle\.png", page.spaced)


def test_a_single_image_makes_a_report(tmp_path):
    content = example(n=1)
    assert "of 1 image correctly" in Page(report(tmp_path, **content)).spaced


@pytest.mark.parametrize("name", ["index.html", "predictions.csv"])
def test_files_that_are_of_no_report_are_kept(tmp_path, name):
    (tmp_path / name).write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match=f"would replace {name}, which is of no earlier report"):
        report(tmp_path, **example(n=6))
    assert {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()} == {name: "mine"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("the disk is full")])
def test_an_interrupted_report_leaves_the_old_one(tmp_path, monkeypatch, error):
    report(tmp_path, **example(n=6))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def interrupted(*_args, **_options):
        raise error

    monkeypatch.setattr(report_module, "predictions_as_bytes", interrupted)
    with pytest.raises((KeyboardInterrupt, OSError)):
        report(tmp_path, **example(n=9))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "what"),
    [({"y_true": ["a"]}, "true label"), ({"groups": ["a"]}, "group"), ({"names": ["a"]}, "name")],
)
def test_lengths_that_differ_are_refused_before_anything_is_read(tmp_path, change, what):
    given = {"images": ["missing.png"] * 2, "y_true": ["a", "b"]} | change
    with pytest.raises(ValueError, match=f"one {what} for each of 2 images; got 1"):
        report_on_model(tmp_path / "report", MODEL, **given)
    assert not (tmp_path / "report").exists()


def test_maps_show_different_classes_first():
    y = ["a"] * 5 + ["b"] * 2 + ["c"]
    proba = np.full((8, 3), 0.1)
    proba[:5, 0] = [0.3, 0.8, 0.5, 0.4, 0.6]
    proba[5:7, 1] = [0.3, 0.9]
    proba[7, 0] = 0.9
    result = Evaluation(y, proba, ["a", "b", "c"])
    assert one_of_each_class(result, 2) == [1, 6]
    assert one_of_each_class(result, 4) == [1, 6, 7, 4]
    assert sorted(one_of_each_class(result, 100)) == list(range(8))


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_report_can_be_read_by_others(tmp_path):
    (tmp_path / "plain").touch()
    expected = (tmp_path / "plain").stat().st_mode
    index = report(tmp_path / "report", **example(n=6))
    assert {path.stat().st_mode for path in index.parent.iterdir()} == {expected}


def test_a_model_no_better_than_guessing_is_reported(tmp_path):
    content = example(n=12)
    content["proba"] = np.roll(content["proba"], 1, axis=1)
    assert "not clearly better than always" in Page(report(tmp_path / "a", **content)).spaced
    content["y_true"] = [*content["y_true"][:-1], "elsewhere"]
    words = Page(report(tmp_path / "c", **content)).spaced
    assert "not clearly better than always" not in words, "it cannot predict this label"
    right = sum(
        content["classes"][row.argmax()] == label
        for row, label in zip(content["proba"], content["y_true"], strict=True)
    )
    assert f"Of the other 11 images, {right} {'is' if right == 1 else 'are'} correct." in words


def test_doubtful_images_are_left_to_an_expert(tmp_path):
    y = ["fibre", "matrix", "ghost", "fibre"]
    proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    rows = selective_rows(Evaluation(y, proba, ["fibre", "matrix"]))
    assert rows[0] == (0, 4, "50.0 %", "0.0 %")
    assert rows[-1] == (2, 2, "100.0 %", "100.0 %")
    images = [np.eye(8)] * 4
    index = report(tmp_path, images=images, y_true=y, proba=proba, classes=["fibre", "matrix"])
    assert "2 100.0 % 100.0 %" in Page(index).spaced


def test_the_headline_has_the_accuracies_unless_the_images_are_known(tmp_path):
    content = example()
    result = Evaluation(content["y_true"], content["proba"], content["classes"])
    words = Page(report(tmp_path / "a", **content)).spaced
    right = int(result.correct.sum())
    assert 0 < right < 40
    assert f"classified {right} of 40 images correctly: {100 * right / 40:.1f} %" in words
    assert "not clearly better than always" not in words
    label, share = result.baseline
    assert f"{100 * share:.1f} % accuracy of always predicting “{label}”" in words
    low, high = result.balanced_interval
    card = f"{100 * result.balanced_accuracy:.1f} % balanced accuracy; 95 % interval "
    assert f"{card}{100 * low:.0f} to {100 * high:.0f} %" in words
    assert "With other images of the same kind, expect between" in words
    words = Page(report(tmp_path / "b", **content, in_training=True)).spaced
    assert "but it was trained on all of them, so this is no forecast for new images." in words
    assert "expect between" not in words
    assert "nothing follows for new ones" in words
    words = Page(report(tmp_path / "c", **content, remarks=["1 of 40 is odd"])).spaced
    assert "1 of 40 is odd." in words


def test_classes_that_are_not_recognised_or_not_tested_are_named(tmp_path):
    content = example(n=6)
    content["y_true"] = ["fibre", "matrix"] * 3
    content["proba"] = np.tile([0.8, 0.1, 0.1], (6, 1))
    words = Page(report(tmp_path / "a", **content)).spaced
    assert "Warning: matrix is never predicted: matrix is not recognised in any of its 3" in words
    assert "Not tested: there is no image of “cluster”" in words
    assert "2 of 3 classes tested" in words
    assert "Warning" not in Page(report(tmp_path / "b", **example())).spaced


# --- held-out training images -------------------------------------------------------------------


@pytest.fixture
def trained(tiny_encoder, texture_images):
    images, labels = texture_images
    wrong = [*labels[:-1], "flat" if labels[-1] != "flat" else "rings"]
    learner = BoostedSoftmaxClassifier(n_estimators=0, Cs=1.0)
    model = MicrographClassifier(tiny_encoder, boosting=learner, random_state=0)
    return model.fit(images, wrong), images


def test_held_out_images_are_reported_with_their_own_predictions(trained, tmp_path):
    model, images = trained
    names = [f"image {i:02d}.png" for i in range(24)]
    index, result = report_on_held_out(tmp_path, model, images, names=names)
    assert result.accuracy == model.held_out_evaluation().accuracy
    rows = rows_of(tmp_path)
    known = model.training_
    for row, number in zip(rows, model.held_out_.rows, strict=True):
        assert row["path"] == names[known.positions[number]]
        assert row["true_label"] == known.labels[number]
    found = [[float(row[f"p_{name}"]) for name in model.classes_] for row in rows]
    np.testing.assert_allclose(found, model.held_out_.proba, atol=5e-7)
    page = Page(index)
    for words in ("Held out from training, ", "24 of 24 training images, in 5 folds"):
        assert words in page.spaced
    assert "evidence.png" not in [image["src"] for image in page.images], "of another model"


def test_held_out_images_have_the_names_of_their_groups(trained, tmp_path):
    model, images = trained
    images = [*images, images[5]]  # a copy is in the group of its original
    groups = [f"sample {i // 2}" for i in range(24)] + ["sample of the copy"]
    labels = [*model.training_.labels[np.argsort(model.training_.positions)], "flat"]
    labels[24] = labels[5]
    model = clone(model).fit(images, labels, groups=groups)
    report_on_held_out(tmp_path, model, images, groups=groups, names=list(map(str, range(25))))
    found = {int(row["path"]): row["group"] for row in rows_of(tmp_path)}
    assert found == {i: groups[i] if i < 24 else groups[5] for i in found}
    assert len(found) > 20
    with pytest.raises(ValueError, match="one group for each of 25 images; got 2"):
        report_on_held_out(tmp_path, model, images, groups=["a", "b"])
    with pytest.raises(ValueError, match="groups are not those given to fit, such as 'one'"):
        report_on_held_out(tmp_path, model, images, groups=["one"] * 25)


def test_probably_wrong_labels_are_shown_if_they_can_be_found(trained, tmp_path, monkeypatch):
    pytest.importorskip("cleanlab", reason="cleanlab is not installed")
    model, images = trained
    n_issues = len(model.label_issues())
    assert n_issues
    page = Page(report_on_held_out(tmp_path / "a", model, images)[0])
    assert f"The label of {n_issues} image" in page.spaced
    assert "label_issues.png" in [image["src"] for image in page.images]
    monkeypatch.setattr(model, "label_issues", list)
    page = Page(report_on_held_out(tmp_path / "a", model, images)[0])
    assert "None was found among these images." in page.spaced
    assert not (tmp_path / "a" / "label_issues.png").exists()

    def missing():
        raise ImportError("cleanlab")

    monkeypatch.setattr(model, "label_issues", missing)
    page = Page(report_on_held_out(tmp_path / "b", model, images)[0])
    assert 'this needs cleanlab: pip install "hypervlad[review]"' in page.spaced


def test_the_sheet_of_wrong_labels_has_the_right_images(trained):
    model, images = trained
    result = model.held_out_evaluation()
    positions = model.training_.positions[model.held_out_.rows]
    names = [f"{i}.png" for i in positions]
    rows = [5, 2]
    held_out = HeldOutFindings([], None, rows)
    shown = EvaluatedImages([images[i] for i in positions], names, result, model, held_out)
    sheet = shown.drawing("label_issues")(Figure().add_subplot())
    assert [lines[0] for lines in sheet.captions] == [names[5], names[2]]
    assert [lines[2] for lines in sheet.captions] == [f"true: {result.true[i]}" for i in rows]


def test_evidence_is_of_the_linear_part_of_the_model_itself(trained):
    model, images = trained
    evaluation = model.held_out_evaluation()
    for given, held_out, is_shown in (
        (model, None, True),
        (model, HeldOutFindings([], None, []), False),
        (SimpleNamespace(encoder_=model.encoder_, boosting_=None), None, False),
    ):
        shown = EvaluatedImages(images, [], evaluation, given, held_out)
        assert (shown.drawing("evidence") is not None) == is_shown


def test_other_images_than_those_of_the_training_are_refused(trained, tmp_path, tiny_encoder):
    model, images = trained
    with pytest.raises(ValueError, match="needs the images given to fit"):
        report_on_held_out(tmp_path / "report", model, images[:-1])
    files = []
    for number, image in enumerate(images):
        files.append(tmp_path / f"{number:02d}.png")
        Image.fromarray(np.round(255 * image).astype(np.uint8)).save(files[-1])
    labels = [str(label) for label in model.training_.labels]
    model.fit(files, labels)
    with pytest.raises(
        ValueError, match=r"such as 00\.png, and these 24 are others, or in another"
    ):
        report_on_held_out(tmp_path / "report", model, files[::-1])
    assert not (tmp_path / "report").exists()
    model.set_params(calibration_size=0).fit(files, labels)
    with pytest.raises(ValueError, match="cannot tell its accuracy"):
        report_on_held_out(tmp_path / "report", model, files)


def test_sure_rows_have_no_shares_of_nothing():
    counts = [SureAnswers(0.05, np.inf, 0, 0), SureAnswers(0.2, 0.75, 8, 1)]
    assert sure_rows(counts, 16) == [
        ("5.0 %", "–", "0 of 16 (0.0 %)", "–"),
        ("20.0 %", "75.0 %", "8 of 16 (50.0 %)", "1 of 8 (12.5 %)"),
    ]


def test_a_report_repeats_what_the_terminal_warned_of(trained, tmp_path, monkeypatch):
    model, images = trained
    model.encoder_.set_params(on_error="skip")
    new = [np.clip(image + 0.01, 0, 1) for image in images[1:4]]
    tested = [images[0], *new, np.zeros((24, 24)), tmp_path / "missing.png"]
    labels = [*model.training_.labels[:4], "flat", "flat"]
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        index, result, lines = report_on_model(tmp_path / "report", model, tested, labels)
    words = Page(index).spaced
    warned = [str(warning.message) for warning in shown]
    assert len(warned) == 2, "a skipped image and a blank one"
    for sentence in warned:
        assert " ".join(f"Warning: {sentence}.".split()) in words
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again, *_ = report_on_model(tmp_path / "again", model, tested, labels)
    assert Page(again).spaced.count("Warning:") == 2, "also where Python shows a warning only once"
    assert len(result.true) == 4
    assert [line[:40] for line in lines[:2]] == [
        "1 of 5 images is a training image (the s",
        "1 of 4 images is unlike all training ima",
    ]
    for remark in lines[:2]:
        assert f"{remark}." in words
    assert "95 % interval" in lines[2]
    assert "Why the model decided so" in words
    found = dataclasses.replace(model.classify(images), novelty=np.full(24, 2.0))
    monkeypatch.setattr(model, "classify", lambda _: found)
    _, _, lines = report_on_model(tmp_path / "known", model, images, model.training_.labels)
    said = " ".join(lines)
    assert "no forecast" in said
    assert "interval" not in said, "what a model knows is no evidence"
    assert "unlike" not in said
