"""The page of classified images: what is in it, and that nothing breaks or leaves it."""

from __future__ import annotations

import base64
import copy
import dataclasses
import hashlib
import html
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from PIL import Image
from support.classifications import classification
from support.pages import Page

from hypervlad import HypercolumnVLAD, MicrographClassifier
from hypervlad.images import ImageReadError, ReadOptions, SkippedImage, SkippedImagesWarning
from hypervlad.results import write_classified_page
from hypervlad.results.reports import classified_page
from hypervlad.results.reports.classified_page import link_to, thumbnails
from hypervlad.results.reports.predictions import prediction_remarks

Made = Callable[..., Page]
EVIL = "</script><script>alert(1)</script><!-- & \"quoted\" 'names' ]]>"


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@pytest.fixture(scope="module")
def fitted(texture_images: Any) -> MicrographClassifier:
    images, labels = texture_images
    encoder = HypercolumnVLAD(
        "tiny", weights="random", image_size=16, n_codewords=4, sampling=400, random_state=0
    )
    return MicrographClassifier(encoder, random_state=0).fit(images, labels)


@pytest.fixture
def model(fitted: MicrographClassifier) -> MicrographClassifier:
    return copy.deepcopy(fitted)


@pytest.fixture
def files(texture_images: Any, tmp_path: Path) -> list[Path]:
    folder = tmp_path / "new"
    folder.mkdir()
    paths = [folder / f"{i:02d}.png" for i in range(9)]
    for path, image in zip(paths, texture_images[0], strict=False):
        Image.fromarray(np.round(255 * image).astype(np.uint8)).save(path)
    return paths


@pytest.fixture
def made(model: MicrographClassifier, tmp_path: Path) -> Made:
    """Write the page of images, and take it apart."""
    path = tmp_path / "page.html"
    return lambda images, **options: Page(write_classified_page(path, model, images, **options))


# --- what is in it ------------------------------------------------------------------------------


def test_the_page_holds_what_the_model_says(
    model: MicrographClassifier, files: list[Path], tmp_path: Path
) -> None:
    path = write_classified_page(tmp_path / "out" / "page.html", model, files, max_error=0.6)
    assert path == tmp_path / "out" / "page.html"
    page, judged = Page(path), model.judge(files, 0.6)
    data = page.data
    assert data["classes"] == list(model.classes_)
    assert data["names"] == [str(file) for file in files]
    np.testing.assert_allclose(data["proba"], judged.proba, atol=1e-6)
    assert [data["classes"][code] for code in data["predicted"]] == judged.labels.tolist()
    assert data["kinds"] == judged.kind.tolist()
    assert data["reasons"] == judged.reasons
    np.testing.assert_allclose(data["novelty"], judged.novelty, atol=1e-4)
    training = [[str(model.training_.names[r]), model.training_.labels[r]] for r in range(24)]
    for found, rows in zip(data["nearest"], judged.nearest, strict=True):
        assert [data["training"][k] for k in found] == [training[row] for row in rows]
    assert [path.parent / link for link in data["links"]] == [
        tmp_path / "out" / ".." / "new" / file.name for file in files
    ]
    assert f"{(judged.kind == 'sure').sum()}sure" in page.words
    assert "at most 60.0 % should be wrong" in page.words
    assert "could not be read" not in page.words


def test_the_page_notes_what_the_terminal_says(
    made: Made, model: MicrographClassifier, files: list[Path], tmp_path: Path
) -> None:
    deep, blank = tmp_path / "deep.png", tmp_path / "blank.png"
    Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16)).save(deep)
    Image.fromarray(np.full((16, 16), 80, np.uint8)).save(blank)
    with pytest.warns(UserWarning, match="1 of 11 images is blank") as warned:
        page = made([*files, deep, blank])
    found = model.classify([*files, deep, blank])
    assert found.differences
    remarks = prediction_remarks(found, [str(file) for file in [*files, deep, blank]])
    for note in [str(warned[0].message), *found.differences, *remarks]:
        assert f"{note}." in page.words


@pytest.mark.filterwarnings("ignore:.* blank, all pixels equal")
def test_unlike_images_that_are_blank_are_named_so(
    model: MicrographClassifier, texture_images: Any
) -> None:
    images = [np.full((16, 16), 0.3), np.eye(16), texture_images[0][0]]
    names, found = ["blank", "eye", "known"], model.classify(images)
    assert found.images.is_blank.tolist() == [True, False, False]
    both = dataclasses.replace(found, novelty=np.array([5.0, 5.0, 0.5]))
    known = "1 of 3 images is a training image (the same pixels): known"
    assert prediction_remarks(both, names) == [
        "2 of 3 images are unlike all training images (1 blank): probabilities "
        "of such images mean little",
        known,
    ]


@pytest.mark.filterwarnings("ignore:.* blank, all pixels equal")
def test_pictures_are_small_and_those_of_their_images(made: Made) -> None:
    grey = np.linspace(0, 1, 3)
    images = [np.full((400, 900), value) for value in grey]
    page = made(images)
    assert page.data["names"] == ["image 0", "image 1", "image 2"]
    assert page.data["links"] == ["", "", ""]
    assert list(page.thumbnails) == [0, 1, 2]
    for number, picture in page.thumbnails.items():
        shown = Image.open(io.BytesIO(base64.b64decode(picture)))
        assert (shown.format, shown.size) == ("JPEG", (160, 71))
        assert np.mean(np.asarray(shown)) == pytest.approx(255 * grey[number], abs=2)


def test_true_labels_are_shown_and_counted(
    made: Made, model: MicrographClassifier, texture_images: Any
) -> None:
    images, labels = texture_images
    names = [str(label) for label in labels[:6]]
    given = [None, "<i>", *names[2:]]
    found = model.classify(images[:6])
    n_correct = sum(
        str(model.classes_[row.argmax()]) == label
        for row, label in zip(found.proba, given, strict=True)
    )
    assert n_correct
    page = made(images[:6], predictions=found, true_labels=given)
    assert page.data["truth"] == given
    words = "".join(page.words.split())
    assert f"{n_correct}of5({20 * n_correct}.0%)predictedcorrectly" in words
    assert "True label" in page.words
    plain = made(images[:6])
    assert "truth" not in plain.data
    assert "rue label" not in plain.words


@pytest.mark.filterwarnings("ignore:.* blank, all pixels equal")
def test_pictures_are_read_as_the_model_reads(
    made: Made, model: MicrographClassifier, texture_images: Any
) -> None:
    images, labels = texture_images
    scaled = [np.round(100 * image).astype(np.uint16) for image in images]
    model.set_params(encoder__read_options={"scaling": (0, 100)}).fit(scaled, labels)
    flat = np.full((20, 24), 50, dtype=np.uint16)
    page = made([flat])
    shown = Image.open(io.BytesIO(base64.b64decode(page.thumbnails[0])))
    assert np.mean(np.asarray(shown)) == pytest.approx(127, abs=3)


def test_without_a_judgement_there_are_probabilities_and_novelty(
    made: Made, model: MicrographClassifier, texture_images: Any, tmp_path: Path
) -> None:
    images, labels = texture_images
    model.set_params(calibration_size=0).fit(images, labels)
    found = model.classify([*images, np.eye(20)])
    page = made([*images, np.eye(20)])
    assert "possible" not in page.data
    assert "reasons" not in page.data
    assert page.data["kinds"][-1] == "out_of_distribution"
    np.testing.assert_allclose(page.data["novelty"], found.novelty, atol=1e-4)
    assert f"{found.unlike_training.sum()}unlike the training images" in page.words
    assert "24training images" in page.words
    assert "median confidence" in page.words
    with pytest.raises(ValueError, match="cannot tell which answers are sure"):
        write_classified_page(tmp_path / "other.html", model, images, max_error=0.1)
    assert not (tmp_path / "other.html").exists()


def test_images_that_cannot_be_read_are_listed_with_the_reason(
    made: Made, model: MicrographClassifier, files: list[Path], tmp_path: Path
) -> None:
    files[4].write_bytes(b"\x89PNG\r\n\x1a\n half an image")
    with pytest.raises(ImageReadError, match="04"):
        write_classified_page(tmp_path / "page.html", model, files)
    model.encoder_.set_params(on_error="skip")
    with pytest.warns(SkippedImagesWarning) as caught:
        page = made(files)
    (bad,) = caught[0].message.skipped  # type: ignore[union-attr]
    assert len(page.data["names"]) == len(page.thumbnails) == 8
    assert str(files[4]) not in page.data["names"]
    assert "1 image could not be read" in page.words
    name, reason = bad.reason.split(": ", 1)
    assert name == str(files[4])
    assert f"{name}{reason}" in page.words


def test_without_scripts_there_is_a_table(
    model: MicrographClassifier, files: list[Path], tmp_path: Path
) -> None:
    path = write_classified_page(tmp_path / "page.html", model, files, max_error=0.6)
    (plain,) = re.findall(r"<noscript>(.*?)</noscript>", Page(path).source, flags=re.DOTALL)
    judged = model.judge(files, 0.6)
    for file, label, reason in zip(files, judged.labels, judged.reasons, strict=True):
        (row,) = [line for line in plain.splitlines() if file.name in line]
        assert f">{label}<" in row
        assert f">{html.escape(reason)}<" in row
    for label in model.classes_:
        count = int((judged.labels == label).sum())
        assert f'<tr><th scope="row">{label}</th><td class="number">{count}</td></tr>' in plain


# --- what it costs ------------------------------------------------------------------------------


def test_only_the_most_doubtful_have_pictures_beyond_the_bound(
    made: Made, model: MicrographClassifier, files: list[Path], tmp_path: Path, monkeypatch: Any
) -> None:
    proba = np.random.default_rng(0).dirichlet([0.5] * 3, size=len(files))
    order = np.argsort(proba.max(axis=1))
    kinds = np.full(len(files), "sure", dtype=object)
    kinds[order[-2:]] = "ambiguous"  # answers that are not sure are the most doubtful
    found = classification(proba, kinds=kinds.tolist())
    monkeypatch.setattr(classified_page, "_MAX_THUMBNAILS", 4)
    page = made(files, predictions=found)
    assert sorted(page.thumbnails) == sorted([*order[-2:], *order[:2]])
    assert len(page.data["names"]) == 9
    assert "only the 4 most doubtful of the 9 images are shown here" in page.words
    monkeypatch.setattr(classified_page, "_MAX_THUMBNAILS", 9)
    all_of_them = write_classified_page(tmp_path / "all.html", model, files, predictions=found)
    assert "most doubtful" not in Page(all_of_them).words


def test_images_are_read_for_pictures_few_at_a_time(made: Made) -> None:
    class Counting(list):  # type: ignore[type-arg]
        drawn = 0

        def __getitem__(self, position: Any) -> Any:
            self.drawn += 1
            return super().__getitem__(position)

    images = Counting([np.zeros((8, 8))] * 100)
    made = thumbnails(images, range(100), ReadOptions())
    assert next(made)[0] == 0
    assert images.drawn < 10
    made.close()


# --- what it must survive -----------------------------------------------------------------------


def test_names_and_labels_cannot_break_the_page(
    made: Made, model: MicrographClassifier, texture_images: Any
) -> None:
    images, labels = texture_images
    renamed = {label: f"{EVIL} {label}" for label in set(labels)}
    model.fit(images, [renamed[label] for label in labels])
    names = [EVIL, "b\x00\x1b[31m", "c\udcff.png", "\u2028", "</noscript><p>"]
    title = f"{EVIL} {{}} $style"
    model.encoder_.set_params(on_error="skip")
    found = model.classify(images[:5], coverage=0.8, max_error=0.6)
    bad = dataclasses.replace(found.images, skipped=(SkippedImage(0, EVIL, EVIL),))
    found = dataclasses.replace(found, images=bad)
    page = made(images[:5], names=names, predictions=found, max_error=0.6, title=title)
    assert page.data["names"] == [
        EVIL,
        r"b\x00\x1b[31m",
        r"c\udcff.png",
        r"\u2028",
        "</noscript><p>",
    ]
    assert page.data["classes"] == sorted(renamed.values())
    assert len(page.scripts) == 1 + 5 + 1
    assert page.source.count("</noscript>") == 1
    assert title in page.words
    assert "<script>alert" not in page.source


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize(
    "name",
    [
        *(EVIL.replace("/", "|"), "javascript:alert(1)", "50%#a?b.png"),
        os.fsdecode(b"caf\xe9.png"),
    ],
)
def test_links_lead_to_files_of_any_name(name: str, tmp_path: Path) -> None:
    link = link_to(tmp_path / name, tmp_path)
    assert re.fullmatch(r"[\w%./~-]+", link)
    assert unquote_to_bytes(link) == os.fsencode(name)


def test_nothing_comes_from_outside_and_only_its_own_script_runs(
    made: Made, files: list[Path]
) -> None:
    page = made(files, max_error=0.6)
    assert "://" not in page.source
    assert not re.search(r"url\(|@import|\bimport\b\s*\(|fetch\(|XMLHttp", page.source)
    rules = dict(rule.strip().split(" ", 1) for rule in page.policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["style-src"] == digest(page.style)
    (script,) = [text for given, text in page.scripts if "type" not in given]
    assert rules["script-src"] == digest(script)


def test_an_interrupted_page_leaves_the_old_one(
    model: MicrographClassifier, files: list[Path], tmp_path: Path, monkeypatch: Any
) -> None:
    path = write_classified_page(tmp_path / "page.html", model, files)
    before = path.read_bytes()

    def interrupted(*_: Any) -> Any:
        yield 0, ""
        raise KeyboardInterrupt

    monkeypatch.setattr("hypervlad.results.reports.classified_page.thumbnails", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_classified_page(path, model, files[:3])
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.glob("*.*")] == ["page.html"]


def test_lengths_that_differ_are_refused(model: MicrographClassifier, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one name for each of 1 image; got 2"):
        write_classified_page(tmp_path / "page.html", model, [np.eye(8)], names=["a", "b"])


def test_a_picture_that_can_no_longer_be_read_is_left_out(
    made: Made, model: MicrographClassifier, files: list[Path]
) -> None:
    found = model.classify(files)
    files[2].unlink()
    page = made(files, predictions=found)
    assert sorted(page.thumbnails) == [0, 1, 3, 4, 5, 6, 7, 8]
    assert len(page.data["names"]) == 9


@pytest.mark.filterwarnings("ignore:no answer is sure:UserWarning")
def test_the_page_says_that_no_answer_is_sure(
    model: MicrographClassifier, files: list[Path], tmp_path: Path
) -> None:
    for max_error, is_said in ((0.6, False), (1e-6, True)):
        path = write_classified_page(tmp_path / "page.html", model, files, max_error=max_error)
        text = path.read_text(encoding="utf-8")
        assert ("No answer is sure: held-out images do not show" in text) == is_said
        assert ("Of the sure predictions" in text) != is_said
