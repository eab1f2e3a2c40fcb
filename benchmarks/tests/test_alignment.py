"""The alignment benchmark: other methods under the same rule, agreement by hand, resumed runs."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.alignment import __main__ as alignment
from benchmarks.alignment import methods as alignment_methods
from benchmarks.alignment import scenes as alignment_images
from benchmarks.alignment import speed as alignment_speed
from benchmarks.alignment.figures import write_figures
from benchmarks.alignment.methods import all_methods, by_fibriltool
from benchmarks.alignment.published import fibriltool
from benchmarks.alignment.scores import (
    Answers,
    agreement,
    gain,
    hard_by_error,
    hard_by_noise,
    within,
)
from benchmarks.alignment.tables import (
    alignment_section,
    best_table,
    clean_section,
    hard_section,
    overall_table,
    speed_table,
)
from hypervlad import AlignmentClassifier
from hypervlad.alignment import default_alignment_encoder
from hypervlad.datasets import make_nanowire_images
from hypervlad.fibres import axial_difference

CLASSICAL = ["structure_tensor", "lgo", "orientationj", "orientationj_wide", "fibriltool"]


def made_up(errors: dict[str, list[float]], snr: list[float | None]) -> dict[str, Any]:
    """Return a result in which truth is 0.5 and errors are the same at windows of 16 and 32 px."""
    n = len(snr)
    scenes = [
        {"set": "grid", "seed": i, "density": 0.5, "snr": level, "blur": 0.5, "aligned": 0.5}
        for i, level in enumerate(snr)
    ]
    methods = {
        name: {
            "fraction": {w: [0.5 + e for e in each] for w in ("16", "32")},
            "right": {w: [0.9] * n for w in ("16", "32")},
            "background": {w: [0.25] * n for w in ("16", "32")},
        }
        for name, each in errors.items()
    }
    truth = {w: [0.5] * n for w in ("16", "32")}
    return {"windows": [16, 32], "scenes": scenes, "truth": truth, "methods": methods}


def test_limits_of_agreement_are_those_of_a_loop() -> None:
    errors = np.random.default_rng(0).normal(0.1, 0.2, 40)
    mean = sum(errors) / 40
    deviation = (sum((e - mean) ** 2 for e in errors) / 39) ** 0.5
    found = agreement(errors)
    assert found.bias == pytest.approx(mean)
    assert found.mae == pytest.approx(sum(abs(e) for e in errors) / 40)
    assert (found.low, found.high) == pytest.approx(
        (mean - 1.96 * deviation, mean + 1.96 * deviation)
    )
    assert abs(found.worst) == max(abs(errors))
    assert found.worst in errors


def test_stripes_are_aligned_to_fibriltool_and_crossed_ones_are_not() -> None:
    y, x = np.mgrid[:64, :96]
    stripes = np.sin(0.8 * (x * np.sin(0.4) + y * np.cos(0.4)))
    crossed = np.sin(0.8 * x) + np.sin(0.8 * y)
    found = by_fibriltool(np.where(x < 48, stripes, crossed), 16)
    assert not found.background.any()
    assert found.aligned[:, :2].all()
    assert not found.aligned[:, 4:].any()
    assert axial_difference(found.angle[:, :2], 0.4).max() < 0.02


def test_a_window_s_order_is_fibriltool_s_anisotropy_of_it() -> None:
    (image,), _ = make_nanowire_images(1, snr=4.0, size=96, random_state=3)
    found = by_fibriltool(image, 32)
    grey = alignment_methods.as_8_bit(image)
    for i, j in np.ndindex(3, 3):
        region = np.zeros(image.shape, bool)
        region[32 * i : 32 * (i + 1), 32 * j : 32 * (j + 1)] = True
        alone = fibriltool(grey, region)
        assert found.order[i, j] == pytest.approx(alone.anisotropy)
        assert axial_difference(found.angle[i, j], alone.direction) < 1e-9
        spread = np.sqrt(-2 * np.log(alone.anisotropy)) / 2
        assert found.aligned[i, j] == (spread < np.deg2rad(20))


def test_eight_bits_span_all_grey_levels() -> None:
    grey = alignment_methods.as_8_bit(np.array([[0.1, 0.6], [1.1, 2.1]], np.float64))
    assert grey.tolist() == [[0, 64], [128, 255]]


def test_a_learned_method_classifies_window_by_window(monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: list[tuple[int, int]] = []

    class Stand:
        """Says that all is aligned."""

        def __init__(self, window: int, random_state: int) -> None:
            self.window = window

        def fit(self, images: list[Any], masks: list[Any]) -> Stand:
            learnt.append((self.window, len(images)))
            return self

        def aligned_proba(self, image: Any, rows: Any, columns: Any) -> np.ndarray:
            return np.ones((len(rows) - 1, len(columns) - 1))

    module = ModuleType("hypervlad.alignment")
    module.AlignmentClassifier = Stand  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hypervlad.alignment", module)
    monkeypatch.setattr(alignment_images, "SIZE", (96, 96))
    way = all_methods(2)["learned"]
    (image,), _ = make_nanowire_images(1, size=96, random_state=0)
    assert [way(image, window).fraction for window in (16, 32, 16)] == [1, 1, 1]
    assert learnt == [(16, 2), (32, 2)]


def test_no_image_is_learnt_from_that_is_tested_on() -> None:
    tested = [scene.seed for scene in alignment_images.scenes()]
    assert len(set(tested)) == len(tested)
    assert alignment_images.seed_of(alignment_images._TRAINING) not in tested


def test_the_hard_half_is_what_all_methods_together_find_hard() -> None:
    errors = {"lgo": [0.0, 0.1, -0.2, 0.3], "learned": [0.5, 0.0, 0.0, 0.0]}
    answers = Answers.of(made_up(errors, [None, 4, 2, 1]), "grid")
    # Mean absolute errors of .25, .05, .1 and .15, the median .125; windows of 32 px alone.
    assert hard_by_error(answers).tolist() == [[False, x] for x in (True, False, False, True)]
    assert hard_by_noise(answers).tolist() == [[False, x] for x in (False, False, True, True)]
    apart, (low, high) = gain(answers, hard_by_noise(answers), "learned", "lgo")
    assert (apart, low, high) == pytest.approx((-0.25, -0.3, -0.2))
    assert within(answers, "lgo", answers.where(window=32), 0.2) == 0.75


def test_no_answer_counts_as_nothing_aligned() -> None:
    result = made_up({"lgo": [0.0, 0.0]}, [None, 1])
    result["methods"]["lgo"]["fraction"]["32"][1] = None
    result["methods"]["lgo"]["background"]["32"][1] = 1.0
    answers = Answers.of(result, "grid")
    assert answers.errors("lgo").tolist() == [[0, 0], [0, -0.5]]
    assert "| lgo | -0.125 | 0.125 " in overall_table(answers)
    assert "| 1 of 4 |" in overall_table(answers)


def test_tables_of_made_up_results() -> None:
    errors = {"lgo": [0.01, -0.02, 0.3], "learned": [0.02, 0.0, 0.1]}
    result = made_up(errors, [None, 2, 1])
    text = alignment_section(result)
    assert text.startswith("3 images, each in windows of 16, 32 px. Not measured yet: structure")
    assert "| lgo | +0.097 | 0.110 (" in text
    assert "| SNR without noise | 0.010 (+0.010) | 0.020 (+0.020) |" in text
    assert text.endswith(
        "Windows classified as background, SNR without noise, 2, 1: lgo 25, 25, 25 %; "
        "learned 25, 25, 25 %."
    )
    best = best_table(Answers.of(result, "grid")).splitlines()
    assert best[2:] == [
        "| SNR without noise | lgo 0.010 |",
        "| SNR 2 | learned 0.000 |",
        "| SNR 1 | learned 0.100 |",
    ]
    hard = hard_section(result)
    assert "| signal-to-noise ratio of at most 2 (2 images) | 0.160 (+0.140) | 0.050" in hard
    assert "minus that of lgo is -0.110 (95 % -0.200 to -0.020" in hard
    del result["methods"]["learned"]
    assert "learned not measured yet." in hard_section(result)


@pytest.fixture
def two_small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """One image of the grid and one of each other set, of 96 px."""
    monkeypatch.setattr(alignment_images, "SIZE", (96, 96))
    few = {
        name: {factor: levels[-1:] for factor, levels in factors.items()}
        for name, factors in alignment_images.SETS.items()
    }
    few["grid"]["snr"] = (None, 2)
    monkeypatch.setattr(alignment_images, "SETS", few)


def in_folder(folder: Path, *more: str) -> list[str]:
    kept, out = str(folder / "kept"), str(folder / "out.json")
    return ["--threads", "1", "--checkpoints", kept, "--out", out, *more]


@pytest.mark.usefixtures("two_small_images")
def test_a_small_run_is_stored_shown_and_drawn(tmp_path: Path) -> None:
    alignment.main(
        in_folder(tmp_path, "--figures", str(tmp_path / "drawn"), "--methods", *CLASSICAL)
    )
    result = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert list(result["methods"]) == CLASSICAL
    assert [scene["set"] for scene in result["scenes"]] == [
        "grid",
        "grid",
        "clean",
        "extras",
        "noise",
    ]
    answers = Answers.of(result, "grid")
    assert all(each.shape == (2, 3) for each in (answers.truth, *answers.fraction.values()))
    assert np.abs(answers.errors("structure_tensor")[0]).max() < 0.3
    for section in (alignment_section, hard_section, clean_section):
        assert "| OrientationJ" in section(result)
    assert "On 1 image of noise alone" in clean_section(result)
    for name in ("alignment_agreement.png", "alignment_by_noise.png"):
        with Image.open(tmp_path / "drawn" / name) as picture:
            assert min(picture.size) > 300


@pytest.mark.usefixtures("two_small_images")
def test_a_run_resumes_and_adds_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alignment.main(in_folder(tmp_path, "--methods", "lgo"))
    first = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    pieces = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.json")}
    alignment.main(in_folder(tmp_path, "--add", "--methods", "structure_tensor"))
    both = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert list(both["methods"]) == ["structure_tensor", "lgo"]
    assert both["methods"]["lgo"] == first["methods"]["lgo"]
    assert all(path.stat().st_mtime_ns == time for path, time in pieces.items())

    def never(*_: Any) -> None:
        raise AssertionError("an image was made although all is known")

    monkeypatch.setattr(alignment_images.Scene, "make", never)
    alignment.main(in_folder(tmp_path, "--methods", "lgo"))
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == first


@pytest.mark.usefixtures("two_small_images")
def test_methods_are_not_added_to_answers_about_other_images(tmp_path: Path) -> None:
    alignment.main(in_folder(tmp_path, "--methods", "lgo"))
    alignment_images.SETS["grid"]["density"] = (0.5,)
    with pytest.raises(SystemExit, match="results of the same scenes"):
        alignment.main(in_folder(tmp_path, "--add", "--methods", "structure_tensor"))


def test_the_cost_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment_speed, "TILE", (64, 96))
    arguments = ["--rounds", "3", "--threads", "1", "--methods", "lgo"]
    alignment_speed.main([*arguments, "--out", str(tmp_path / "speed.json")])
    result = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert result["size"] == [256, 384]
    text = speed_table(result)
    assert f"| {alignment_speed.BASELINE} |" in text
    assert text.splitlines()[2].endswith("| 1.00 x |")
    ours = np.array(result["seconds"]["aligned fraction, lgo"])
    ratio = np.median(ours / np.array(result["seconds"][alignment_speed.BASELINE]))
    assert f"| {ratio:.2f} x |" in text.splitlines()[-1]


def test_the_learned_method_runs_in_torch_and_in_openvino() -> None:
    images, truths = make_nanowire_images(4, aligned=0.5, size=128, random_state=0)
    encoder = default_alignment_encoder(weights="random")
    model = AlignmentClassifier(encoder, random_state=0)
    model.fit(images, [truth.aligned_map(window=32) for truth in truths])
    runs = alignment_speed.by_runtime(model, images[0])
    assert list(runs) == ["learned", *(["learned, fast"] if find_spec("openvino") else [])]
    expected = model.aligned_fraction(images[0]).proba
    for run in runs.values():
        np.testing.assert_allclose(run().proba, expected, atol=1e-4)


def test_figures_take_any_number_of_methods(tmp_path: Path) -> None:
    names = list(all_methods(0))
    write_figures(tmp_path, made_up({names[0]: [0.1, -0.1, 0.0]}, [None, 2, 1]))
    write_figures(tmp_path, made_up({name: [0.1, -0.1] for name in names}, [None, 2]))
