import csv
import os
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hypervlad.metrics import Evaluation
from hypervlad.reports import evaluation as report_module
from hypervlad.reports import write_report
from hypervlad.reports.evaluation import one_of_each_class, selective_rows

VOID = {"meta", "img", "br", "link", "hr"}


class Page(HTMLParser):
    """Collects text, images and links, and insists that every element is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.open, self.images, self.links, self.headings = [], [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        assert tag not in ("script", "link", "iframe")
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attributes)
        if tag == "a":
            self.links.append(attributes["href"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture
def unsaved_figures(monkeypatch):
    """Draw figures without saving them, which takes most of the time."""

    def touch(draw, path):
        path.touch()
        return draw(Figure().add_subplot()).figure_size

    monkeypatch.setattr(report_module, "save_png", touch)


class Encoder:
    codebook_ = SimpleNamespace(codewords=(np.eye(4),))

    def codeword_maps(self, image):
        return np.arange(16).reshape(1, 4, 4) % 4


def example(n=40, seed=0):
    rng = np.random.default_rng(seed)
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


def test_a_report_is_a_page_with_its_pictures_and_its_table(tmp_path):
    index = write_report(
        tmp_path / "deep" / "report",
        **example(),
        title="Nanotubes",
        how_measured="A fifth of the images was held out.",
        encoder=Encoder(),
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
    for words in ("Nanotubes", "A fifth of the images was held out.", "mobilenet_v2"):
        assert words in page.words


@pytest.mark.usefixtures("unsaved_figures")
def test_the_headline_has_the_figures(tmp_path):
    content = example()
    result = Evaluation(content["y_true"], content["proba"], content["classes"])
    page = Page(write_report(tmp_path, **content))
    right = int(result.correct.sum())
    assert 0 < right < 40
    assert f"classified {right} of 40 images correctly: {100 * right / 40:.1f} %" in page.words
    label, share = result.baseline
    assert f"{100 * share:.1f} % accuracy of always predicting “{label}”" in page.words


@pytest.mark.usefixtures("unsaved_figures")
def test_the_table_of_predictions_is_complete_and_exact(tmp_path):
    content = example(n=7)
    groups = list("aabbccd")
    names = [f"scan {i}, left.tif" for i in range(7)]
    write_report(tmp_path, **content, groups=groups, names=names)
    with open(tmp_path / "predictions.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
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
    page = Page(write_report(tmp_path, **content, names=names, title=evil, details={evil: evil}))
    assert evil in page.words
    assert "\x1b" not in page.words
    table = (tmp_path / "predictions.csv").read_bytes()
    assert b"\xff.png" in table


@pytest.mark.usefixtures("unsaved_figures")
def test_a_report_without_mistakes_says_so_and_removes_the_old_figure(tmp_path):
    write_report(tmp_path, **example())
    assert (tmp_path / "mistakes.png").exists()
    content = example()
    content["y_true"] = [content["classes"][k] for k in content["proba"].argmax(axis=1)]
    page = Page(write_report(tmp_path, **content))
    assert not (tmp_path / "mistakes.png").exists()
    assert "The model made none on these images." in page.words
    assert "There are no mistakes." in page.words


@pytest.mark.usefixtures("unsaved_figures")
def test_labels_that_the_model_does_not_know_are_explained(tmp_path):
    content = example()
    content["y_true"][:5] = ["ghost"] * 5
    page = Page(write_report(tmp_path, **content))
    assert (
        "Of these images, 5 have a label that the model was not trained on (“ghost”)" in page.words
    )
    assert "ghost (unknown to the model)" in page.words


@pytest.mark.usefixtures("unsaved_figures")
def test_groups_are_explained(tmp_path):
    page = Page(write_report(tmp_path, **example(), groups=[i // 4 for i in range(40)]))
    assert "The images tested come from 10 groups" in page.words


def test_a_single_image_makes_a_report(tmp_path):
    content = example(n=1)
    assert (
        "of 1 image correctly" in Page(write_report(tmp_path, **content, encoder=Encoder())).words
    )


@pytest.mark.usefixtures("unsaved_figures")
def test_only_files_of_a_report_are_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "index.html").write_text("old", encoding="utf-8")
    write_report(tmp_path, **example(n=6))
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert "<!DOCTYPE html>" in (tmp_path / "index.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("unsaved_figures")
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("the disk is full")])
def test_an_interrupted_report_leaves_the_old_one(tmp_path, monkeypatch, error):
    write_report(tmp_path, **example(n=6))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def interrupted(*_args, **_options):
        raise error

    monkeypatch.setattr(report_module, "predictions_as_bytes", interrupted)
    with pytest.raises((KeyboardInterrupt, OSError)):
        write_report(tmp_path, **example(n=9))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["one"]}, "1 name"),
        ({"images": []}, "got 0 images"),
        ({"y_true": ["fibre"]}, "shape"),
        ({"groups": [1]}, "groups"),
    ],
)
def test_lengths_that_differ_are_refused_before_anything_is_made(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path / "report", **{**example(n=6), **change})
    assert not (tmp_path / "report").exists()


def test_a_file_in_the_place_of_the_folder_is_an_os_error(tmp_path):
    (tmp_path / "report").touch()
    with pytest.raises(OSError, match="report"):
        write_report(tmp_path / "report", **example(n=6))


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
    index = write_report(tmp_path / "report", **example(n=6))
    assert {path.stat().st_mode for path in index.parent.iterdir()} == {expected}


@pytest.mark.usefixtures("unsaved_figures")
def test_a_model_no_better_than_guessing_is_reported(tmp_path):
    content = example(n=12)
    content["proba"] = np.roll(content["proba"], 1, axis=1)
    assert "not clearly better than always" in Page(write_report(tmp_path / "a", **content)).words
    good = example(n=40)
    codes = [list(good["classes"]).index(label) for label in good["y_true"]]
    good["proba"] = np.eye(len(good["classes"]))[codes]
    assert "not clearly better than always" not in Page(write_report(tmp_path / "b", **good)).words


@pytest.mark.usefixtures("unsaved_figures")
def test_doubtful_images_are_left_to_an_expert(tmp_path):
    y = ["fibre", "matrix", "ghost", "fibre"]
    proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    rows = selective_rows(Evaluation(y, proba, ["fibre", "matrix"]))
    assert rows[0] == (0, 4, "50.0 %", "0.0 %")
    assert rows[-1] == (2, 2, "100.0 %", "100.0 %")
    images = [np.eye(8)] * 4
    index = write_report(
        tmp_path, images=images, y_true=y, proba=proba, classes=["fibre", "matrix"]
    )
    assert "2 100.0 % 100.0 %" in Page(index).words
