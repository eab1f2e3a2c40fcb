"""The comparison of two states: what counts as equal, no slower and resumed; and a complete run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.common.data import save_grey
from benchmarks.common.results import BENCHMARKS
from benchmarks.compare import __main__ as compare
from hypervlad import make_nanofibre_images, make_nanowire_images, make_tem_images

SIZES = compare.Sizes(per_class=6, surfaces=4, fibres=2, rounds=1, batch_sizes=(3,))


def test_what_counts_as_equal_and_no_slower() -> None:
    one, other = {"a": np.array([200.0, np.nan])}, {"a": np.array([199.0, np.nan])}
    assert compare.difference(one, one) == 0
    assert compare.difference(one, other) == pytest.approx(1 / 200)  # of the largest value
    for unlike in ({"b": np.zeros(2)}, {"a": np.zeros(3)}, {"a": np.zeros(2)}):
        assert compare.difference(one, unlike) == float("inf")
    old = [{"a": np.array([value])} for value in (0.1, 0.2)]
    assert compare.refit_check("scorer", old, {"a": np.array([0.19])}).holds
    assert not compare.refit_check("scorer", old, {"a": np.array([0.25])}).holds
    noisy = {"old": [1.0, 10.0, 2.0], "new": [1.02, 9.0, 2.04]}
    assert compare.ratio_check("encoding", noisy).found.startswith("1.02 x (0.90 to 1.02)")
    assert not compare.ratio_check("encoding", {"old": [1.0], "new": [1.2]}).holds


def write(folder: Path, images: list[np.ndarray]) -> list[str]:
    """Write images as files."""
    paths = [folder / f"{i:02d}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        save_grey(path, image)
    return [str(path) for path in paths]


def small_plan(root: Path) -> dict[str, Any]:
    """Return a plan of small synthetic images and a random network."""
    images, labels = make_tem_images(24, size=64, random_state=0)
    files = write(root / "tem", images)
    mats, masks = make_nanofibre_images(8, defective=0.5, size=96, random_state=0)
    order = np.argsort([mask.any() for mask in masks], kind="stable")
    surfaces = write(root / "mats", [mats[i] for i in order])
    mask_files = write(root / "masks", [masks[i] for i in order])
    n_good = sum(not mask.any() for mask in masks)
    wires = write(root / "wires", make_nanowire_images(3, size=128, random_state=0)[0])
    return {
        "encoder": {"weights": "random", "sampling": 2000},
        "image_options": {"image_size": 64, "n_codewords": 8},
        "root": str(root),
        "train": files[:16],
        "labels": [str(label) for label in labels[:16]],
        "groups": None,
        "test": files[16:],
        "good": surfaces[: n_good - 1],
        "defective": surfaces[n_good:-1],
        "masks": [None] * (n_good - 1) + mask_files[n_good:-1],
        "surface_test": [surfaces[n_good - 1], surfaces[-1]],
        "fibres": wires[:2],
        "fibre_maps": [
            str(p) for p in compare.write_maps([Path(w) for w in wires[:2]], root / "m")
        ],
        "fibre_test": wires[2:],
        "extraction": files * 8,
    }


@pytest.mark.slow  # two processes, and three more for the extraction
@pytest.mark.long
def test_a_state_agrees_with_itself(tmp_path: Path) -> None:
    checkout, plan = BENCHMARKS.parent, small_plan(tmp_path)
    comparison = compare.Comparison(checkout, checkout, plan, SIZES, tmp_path, threads=1)
    try:
        checks = {check.name: check for check in comparison.run()}
    finally:
        comparison.stop()
    wrong = [check for check in checks.values() if not check.holds]
    # Times of one round on small images say nothing.
    assert all(check.name in comparison.seconds for check in wrong), wrong
    answers = ["vectors", "predictions", "maps of scorer", "maps of masked scorer"]
    for answer in [*answers, "maps of alignment"]:
        assert checks[f"same model, {answer}"].holds
    assert {f"refitted {kind}" for kind in compare.KINDS} <= checks.keys()
    assert "the same bytes" in checks["resumed extraction"].found


@pytest.mark.slow  # one process each
def test_another_package_than_the_checkouts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}", encoding="utf-8")
    worker = compare.Worker(tmp_path, tmp_path / "plan.json", threads=1)
    with pytest.raises(SystemExit, match="ended during 'fit'"):
        worker.ask("fit", kind="scorer", name="scorer")
    worker.stop()
