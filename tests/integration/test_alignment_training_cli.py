"""``hypervlad align-train``: from masks, from synthetic images, to a model for ``align``."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.commands import run

from hypervlad import AlignmentClassifier, load, make_nanowire_images
from hypervlad.data import make_alignment_examples

SMALL = ("--backbone", "tiny", "--weights", "random", "--window", 24, "--quiet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images, three of which have a mask."""
    root = tmp_path_factory.mktemp("wires")
    images, truths = make_nanowire_images(4, aligned=0.5, size=96, random_state=0)
    for name, values in (
        ("images", images),
        ("masks", [np.nan_to_num(truth.aligned_map(24)) for truth in truths[:3]]),
    ):
        (root / name).mkdir()
        for i, value in enumerate(values):
            stored = np.round(255 * value).astype(np.uint8)
            Image.fromarray(stored).save(root / name / f"{i}.png")
    return root


def test_from_masks_to_a_model_that_align_uses(folder: Path, tmp_path: Path) -> None:
    model, found = tmp_path / "new" / "alignment.hvlad", tmp_path / "found"
    result = run("align-train", folder / "images", "--masks", folder / "masks", "-o", model, *SMALL)
    assert "images have one; those without are left out" in result.output
    assert "windows of 3 images" in result.output
    run("align", folder / "images", "--method", model, "-o", found, "--quiet")
    with open(found / "alignment.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["method"] for row in rows] == ["AlignmentClassifier"] * 4
    assert [row["window_px"] for row in rows] == ["24"] * 4
    learnt = load(model)
    assert isinstance(learnt, AlignmentClassifier)
    expected = learnt.aligned_fraction(folder / "images" / "0.png")
    assert float(rows[0]["fraction"]) == pytest.approx(expected.fraction, rel=1e-3)
    facts = run("info", model).output
    assert "AlignmentClassifier" in facts
    assert "24 x 24 pixels, in four turns of the image" in facts


def test_from_synthetic_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(n: int, size: tuple[int, int], random_state: int) -> object:
        return make_alignment_examples(n, size=96, random_state=random_state)

    judged = []
    score = AlignmentClassifier.score

    def spy(self: AlignmentClassifier, images: list[Any], y: list[Any]) -> float:
        judged.extend(images)
        return score(self, images, y)

    monkeypatch.setattr(AlignmentClassifier, "score", spy)
    monkeypatch.setattr("hypervlad.data.synthetic.make_alignment_examples", small)
    model = tmp_path / "alignment.hvlad"
    result = run("align-train", "--synthetic", 5, "-o", model, *SMALL).output
    assert "of 5 images" in result
    assert (
        "of the windows of 2 other synthetic images; this says nothing about real images" in result
    )
    assert load(model).window_ == 24
    made, _ = make_alignment_examples(7, size=96, random_state=0)
    np.testing.assert_array_equal(judged, made[5:])


def test_groups_go_by_their_table_and_flat_images_may_be_skipped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "images"
    shutil.copytree(folder / "images", images)
    Image.fromarray(np.zeros((96, 96), np.uint8)).save(images / "1.png")
    table = tmp_path / "groups.csv"
    table.write_text("path,group\n0.png,a\n1.png,a\n2.png,a\n3.png,b\n", encoding="utf-8")
    result = {}
    fit = AlignmentClassifier.fit

    def spy(self: AlignmentClassifier, *given: Any, groups: Any) -> AlignmentClassifier:
        result["groups"] = groups
        return fit(self, *given, groups=groups)

    monkeypatch.setattr(AlignmentClassifier, "fit", spy)
    given = (images, "--masks", folder / "masks", "--groups", table, "-o", tmp_path / "m.hvlad")
    assert "flat" in run("align-train", *given, *SMALL, code=2).output
    done = run("align-train", *given, *SMALL, "--on-error", "skip")
    assert "windows of 2 images" in done.output
    assert len(set(result["groups"])) == 1


def test_only_a_model_is_overwritten(folder: Path) -> None:
    image = folder / "images" / "0.png"
    before = image.read_bytes()
    result = run("align-train", "--synthetic", 2, "-o", image, *SMALL, code=2).output
    assert "exists and is not a model" in result
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no training images"),
        (("{images}",), "need --masks"),
        (("--synthetic", 3, "--masks", "{masks}"), "refer to images"),
        (("{images}", "--masks", "{images}"), "is in the folder of masks"),
        (("--synthetic", 3, "--window", 500), "synthetic images have"),
    ],
)
def test_what_is_missing_is_reported(
    folder: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    given = [
        str(each).format(images=folder / "images", masks=folder / "masks") for each in arguments
    ]
    result = run("align-train", *SMALL, "-o", tmp_path / "m.hvlad", *given, code=2)
    assert message in result.output
    assert not (tmp_path / "m.hvlad").exists()
