"""The defects benchmark: methods find dark squares, splits are halves, the table has means."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist

from benchmarks.defects import __main__ as defects
from benchmarks.defects import methods as defects_methods
from benchmarks.defects import speed as defects_speed
from benchmarks.defects.methods import all_methods
from benchmarks.defects.rivals import PatchCore, SquareNetwork
from benchmarks.defects.speed import RUNTIMES
from benchmarks.defects.surfaces import FREE, Surface
from benchmarks.defects.tables import defects_section, front_table, speed_table
from benchmarks.papers import carrillo2020

SIZE = (64, 72)


def surface(n: int) -> Surface:
    """Noise; every second image has a dark square."""
    rng = np.random.default_rng(0)
    examples = []
    for i in range(n):
        image = (0.6 + 0.05 * rng.standard_normal(SIZE)).astype(np.float32).clip(0, 1)
        mask = np.zeros(SIZE, dtype=bool)
        if i % 2:
            top, left = rng.integers(4, 30, 2)
            mask[top : top + 24, left : left + 24] = True
            image[mask] *= 0.3
        examples.append(("square" if i % 2 else FREE, image, mask))
    return Surface.of("noise", examples)


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = defects_methods.carrillo2020
    quick = functools.partial(whole, max_epochs=25)
    monkeypatch.setattr(defects_methods, "carrillo2020", quick)


@pytest.mark.parametrize("title", list(all_methods("", "", 0)))
def test_every_method_finds_dark_squares(title: str) -> None:
    make = all_methods("tiny", "random", 0)[title]
    found = defects.measure(make, surface(16), 0, title.endswith("masks"))
    assert found["image_auroc"] > 0.8
    assert found["pixel_auroc"] > 0.8
    assert 0 < found["best_patch_f1"] <= 1
    assert found["bytes"] > 0


def test_halves_share_no_image_and_each_has_both_kinds() -> None:
    whole = surface(14)
    train, test = defects.halves(whole, seed=3)
    assert sorted([*train, *test]) == list(range(14))
    for part in (train, test):
        assert 0 < whole.defective[part].mean() < 1
    assert set(train) != set(defects.halves(whole, seed=4)[0])
    paired = replace(whole, specimens=np.arange(14) // 2 * 2)
    for seed in range(5):
        train, test = defects.halves(paired, seed)
        assert not set(paired.specimens[train]) & set(paired.specimens[test])
        assert 0 < paired.defective[test].mean() < 1


def test_patchcore_s_memory_spreads_out() -> None:
    method = PatchCore(SquareNetwork("tiny", "random"), 0, share=0.02)
    method.fit(surface(6).images[::2], None)
    cells = method.cells(surface(6).images[::2])

    def farthest(memory: np.ndarray) -> float:
        """The largest distance of any cell to the memory."""
        return float(cdist(cells, memory).min(axis=1).max())

    rng = np.random.default_rng(0)
    by_chance = [farthest(rng.permutation(cells)[: len(method.memory)]) for _ in range(5)]
    assert farthest(method.memory) < 0.8 * min(by_chance)
    known = method.features(surface(6).images[0])
    assert method.score(surface(6).images[0]).score < np.linalg.norm(known, axis=-1).max()


def test_a_folder_s_results_are_stored_and_shown(tmp_path: Path) -> None:
    whole = surface(12)
    for i, (image, mask) in enumerate(zip(whole.images, whole.masks, strict=True)):
        kind = "bad" if mask.any() else "good"
        for place, picture in (("images", image), ("masks", mask)):
            if place == "images" or mask.any():
                path = tmp_path / "plates" / place / kind / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.round(255 * picture).astype(np.uint8)).save(path)
    arguments = ["--data", str(tmp_path / "plates"), "--good", "good", "--repeats", "2"]
    arguments += ["--backbone", "tiny", "--weights", "random", "--threads", "1"]
    arguments += ["--methods", "hypervlad, good images", "LBP + isolation forest"]
    arguments += ["--checkpoints", str(tmp_path / "kept"), "--out", str(tmp_path / "out")]
    defects.main(arguments)
    result = json.loads((tmp_path / "out" / "defects_plates.json").read_text(encoding="utf-8"))
    assert (result["n_images"], result["n_defective"]) == (12, 6)
    text = defects_section([result])
    assert "**plates** (12 images, 6 with defects; 2 splits)" in text
    mean = np.mean(result["rows"][0]["image_auroc"])
    assert f"| hypervlad, good images | {mean:.3f} ±" in text
    pixels = np.mean(result["rows"][0]["pixel_auroc"])
    other = result | {"surface": "other", "rows": result["rows"][:1]}
    front = front_table([result, other])
    cell = f"{mean:.3f} / {pixels:.3f}"
    assert f"| hypervlad, good images | {cell} | {cell} |" in front
    assert front.endswith(" | – |")
    kept = sorted((tmp_path / "kept").glob("*.json"))
    defects.main(arguments)  # nothing is run again
    assert sorted((tmp_path / "kept").glob("*.json")) == kept
    again = json.loads((tmp_path / "out" / "defects_plates.json").read_text(encoding="utf-8"))
    assert all(all(row["reused"]) for row in again["rows"])


@pytest.fixture
def few_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrillo2020, "N_FEW", 2)
    monkeypatch.setattr(carrillo2020, "N_MANY", 5)
    monkeypatch.setattr(carrillo2020, "N_GOOD", 6)
    monkeypatch.setattr(carrillo2020, "N_TRAIN", {"anomalous": 20, "normal": 25})


@pytest.mark.usefixtures("few_patches")
def test_the_papers_protocol_on_small_mats(tmp_path: Path) -> None:
    arguments = ["--images", "20", "--new", "3", "--size", "96", "128", "--repeats", "1"]
    arguments += ["--max-epochs", "2", "--weights", "random", "--threads", "1"]
    arguments += ["--checkpoints", str(tmp_path), "--out", str(tmp_path / "out.json")]
    carrillo2020.main(arguments)
    result = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    leaking, honest, masks, good = (runs[0] for runs in result["runs"].values())
    for run in (leaking, honest):
        assert run["n_train"] == {"anomalous": 20, "normal": 25}
        assert run["n_tested"] == {"few": 4, "many": 10, "elsewhere": 10}
    assert honest["many"] == honest["elsewhere"]
    assert "many" not in masks
    assert "learnt" not in good
    text = carrillo2020.result_table(result)
    assert "| CNN, leaking | 20 anomalous + 25 normal |" in text
    assert text.count("\n") == 3 + len(result["runs"])


@pytest.mark.usefixtures("few_patches")
def test_only_the_leaking_split_mixes_images_and_mixed_patches() -> None:
    mats = carrillo2020.make_mats(20, 1, (96, 128), 0)
    leaking, honest = carrillo2020.leaking_parts(mats, 0), carrillo2020.honest_parts(mats, 0)
    images = [
        {part: set(p.image_index.tolist()) for part, p in parts.items()}
        for parts in (leaking, honest)
    ]
    assert images[0]["train"] & images[0]["few"]
    assert not images[1]["train"] & images[1]["validation"]
    assert not (images[1]["train"] | images[1]["validation"]) & images[1]["many"]
    assert images[0]["train"] <= set(carrillo2020.split_images(mats, 0)[0].tolist())
    for parts, is_mixed in ((leaking, True), (honest, False)):
        shares = np.concatenate([p.defective[p.labels == "normal"] for p in parts.values()])
        assert (shares > 0).any() == is_mixed


@pytest.mark.usefixtures("few_patches")
def test_the_leaking_parts_share_no_patch_but_their_neighbours() -> None:
    mats = carrillo2020.make_mats(20, 1, (96, 128), 0)
    parts = carrillo2020.leaking_parts(mats, 0)
    places = [
        {(i, *at) for i, at in zip(p.image_index.tolist(), p.positions.tolist(), strict=True)}
        for p in parts.values()
    ]
    assert len(set().union(*places)) == sum(map(len, places))


def test_too_few_patches_for_the_protocol_are_reported() -> None:
    mats = carrillo2020.make_mats(10, 1, (96, 128), 0)
    with pytest.raises(SystemExit, match=r"anomalous patches, but .* more images"):
        carrillo2020.leaking_parts(mats, 0)


def test_the_speed_of_maps_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defects_speed, "SIZE", (64, 96))
    monkeypatch.setattr(defects_speed, "FIT_SIZE", (64, 64))
    arguments = ["--rounds", "1", "--batches", "1", "--images", "12", "--weights", "random"]
    defects_speed.main([*arguments, "--threads", "1", "--out", str(tmp_path / "speed.json")])
    result = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert result["patches"] == {"side by side": 12, "at the map's stride": 66}
    text = speed_table(result)
    masks, alone = (result["seconds"][name][0] for name in ("map, masks", "network alone"))
    assert f"| masks | {1000 * masks:.0f} ms | {masks / alone:.2f} x |" in text
    each = result["seconds"]["patches at 224 px"][0]
    assert f"| {12 * each / masks:.0f} x as fast |" in text
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.endswith("as fast |")]
    expected = [name + suffix for name in ("good images", "masks") for suffix in RUNTIMES]
    assert rows == [f"| {name}" for name in expected]
