"""The comparison of variants on a small folder of textures and a tiny network."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage.io import imsave

from benchmarks.accuracy import blocks, variants
from benchmarks.accuracy.tables import border_table, variants_table
from benchmarks.common.folds import DataSet, folds_of
from hypervlad.backbones import build_network
from hypervlad.codebook import learn_codebook
from hypervlad.encoder.encoding import TorchCodebook
from hypervlad.hypercolumns import dense_hypercolumns, feature_maps

INPUTS = {
    "224 px": blocks.Input(32),
    "own aspect": blocks.Input(32, "own"),
    "448 px": blocks.Input(48),
    "reflection padding": blocks.Input(32, padding="reflect"),
}
NAMES = (
    variants.DEFAULT,
    "the default, own aspect",
    "the default and pooled of 448 px",
    "the default in one vector, one penalty",
    "the default, blocks weighted by stacking",
    "the default, each block on 64 whitened components",
    "the default's blocks, linear discriminants of 64 whitened components, stacked",
    "covariance",
    "per layer, soft",
    "pooled mean and deviation",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set of three textures, two images per group."""
    root = tmp_path_factory.mktemp("data") / "textures"
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :48] / 4.0
    patterns = {"stripes": np.sin(2 * x), "rings": np.cos(3 * np.hypot(x, y)), "flat": 0 * x}
    lines = [("path", "group")]
    for name, pattern in patterns.items():
        (root / name).mkdir(parents=True)
        for i in range(8):
            image = 128 + 70 * pattern + 15 * rng.standard_normal(x.shape)
            imsave(root / name / f"{i}.png", np.clip(image, 0, 255).astype(np.uint8))
            lines.append((f"{name}/{i}.png", f"{name}-{i // 2}"))
    with open(root / "groups.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    return root.parent


@pytest.fixture(scope="module", autouse=True)
def small() -> Any:
    """Small codebooks, few variants."""
    few = {
        name: replace(block, n_codewords=3, components=4) for name, block in blocks.BLOCKS.items()
    }
    border = {name: block for name, block in few.items() if block.margin}
    few |= {name: replace(block, margin=block.margin // 4) for name, block in border.items()}
    kept = ("joint", "per layer", "pooled", *NAMES[-3:], *border)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "BLOCKS", {name: few[name] for name in kept})
        patch.setattr(blocks, "BLOCKS", {name: few[name] for name in kept})
        patch.setattr(blocks, "N_SAMPLES", 600)
        patch.setattr(variants, "INPUTS", INPUTS)
        patch.setattr(variants, "VARIANTS", {name: variants.VARIANTS[name] for name in NAMES})
        yield


def run(data: Path, out: Path, *more: str) -> dict[str, Any]:
    options = ["--data", str(data), "--sets", "textures", "--backbone", "tiny", *more]
    options += ["--weights", "random", "--repeats", "1", "--threads", "1"]
    options += [
        "--checkpoints",
        str(out / "checkpoints"),
        "--out",
        str(out / "new" / "variants.json"),
    ]
    variants.main(options)
    facts: dict[str, Any] = json.loads((out / "new" / "variants.json").read_text(encoding="utf-8"))
    return facts


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("out")
    return out, run(data, out)


def test_every_variant_has_scores_and_errors(done: tuple[Path, dict[str, Any]]) -> None:
    _, facts = done
    assert [row["variant"] for row in facts["rows"]] == list(NAMES)
    for row in facts["rows"]:
        assert row["accuracy"] > 0.8, row["variant"]  # textures that any method can distinguish
        assert row["log_loss_against"]["default"]["error"] >= 0
    default, *others = facts["rows"]
    assert default["log_loss_against"]["default"]["gain"] == 0
    assert all(row["log_loss_against"]["default"]["error"] > 0 for row in others)
    gain = default["log_loss"] - others[0]["log_loss"]
    assert others[0]["log_loss_against"]["default"]["gain"] == pytest.approx(gain)


def test_variants_of_the_border(data: Path, tmp_path: Path) -> None:
    rows = run(data, tmp_path, "--border")["rows"]
    assert [row["variant"] for row in rows] == list(variants.BORDER)
    default, *others = rows
    for row in others:
        assert row["accuracy"] > 0.8
        assert row["log_loss"] != default["log_loss"]


@pytest.mark.parametrize("grid", ["finest", "own"])
def test_sums_inside_are_those_of_a_loop(grid: str) -> None:
    rng = np.random.default_rng(0)
    maps = [torch.from_numpy(rng.normal(size=(2, n, n, 3)).astype(np.float32)) for n in (8, 4)]
    layers = [layer.reshape(-1, 3).numpy() for layer in maps]
    kind = "joint" if grid == "finest" else "per_layer"
    learnt = learn_codebook([layers[0][:32], layers[1]], 4, kind=kind, layer_components=None)
    book = TorchCodebook(learnt, torch.device("cpu"))
    maps, margin = book.project(maps), 5
    for (part, words), found in zip(
        book.blocks(maps), blocks.sums_inside(book, maps, grid, (32, 32), margin), strict=True
    ):
        n = part[0].shape[1]
        columns = dense_hypercolumns(part, (n, n))
        expected = torch.zeros_like(found)
        for i, row, column in np.ndindex(2, n, n):
            centre = [(at + 0.5) * 32 / n for at in (row, column)]
            if all(margin <= at <= 32 - margin for at in centre):
                difference = columns[i, row, column] - words
                nearest = int(difference.square().sum(1).argmin())
                expected[i, nearest] += difference[nearest]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("margin", [0, 3, 16])
def test_pixels_and_cells_inside(margin: int) -> None:
    inside = [
        row * 50 + column
        for row, column in np.ndindex(40, 50)
        if min(row, column) >= margin and row < 40 - margin and column < 50 - margin
    ]
    np.testing.assert_array_equal(blocks.pixels_inside((40, 50), margin), inside)
    centres = (np.arange(8) + 0.5) * 5
    kept = np.flatnonzero((centres >= margin) & (centres <= 40 - margin))
    np.testing.assert_array_equal(np.arange(8)[blocks.cells_inside(8, 40, margin)], kept)


def test_with_reflection_a_constant_image_has_constant_maps() -> None:
    network = build_network("mobilenet_v2", "random")
    image = torch.full((1, 3, 64, 64), 0.7)

    def spread(of: Any) -> list[float]:
        maps = feature_maps(of, image)
        return [float(layer.std(dim=(1, 2)).max() / layer.abs().max()) for layer in maps]

    before = spread(network)
    assert min(before[:-1]) > 1e-3  # zeros beyond the border are seen in every map
    assert max(spread(blocks.with_reflection(network))) < 1e-4
    assert spread(network) == before


def test_the_table_has_every_variant(done: tuple[Path, dict[str, Any]]) -> None:
    _, facts = done
    text = variants_table(facts)
    assert "| variant | textures | mean |" in text
    for name in NAMES:
        assert text.count(f"| {name} |") == 1
    assert "±" not in next(x for x in text.splitlines() if x.startswith(f"| {variants.DEFAULT}"))
    facts = json.loads(json.dumps(facts))
    facts["rows"][1]["accuracy"], facts["rows"][1]["log_loss"] = 0.75, 0.5
    for kind in ("accuracy", "log_loss"):
        facts["rows"][1][f"{kind}_against"]["default"] = {"gain": 0.125, "error": 0.25}
    assert "0.750 (+0.125 ± 0.250); 0.500 (-0.125 ± 0.250)" in variants_table(facts)
    ends = "(+0.125 [-0.365, +0.615]); 0.500 (-0.125 [-0.615, +0.365])"
    assert ends in border_table(facts)


def test_a_second_run_computes_nothing(
    done: tuple[Path, dict[str, Any]], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("computed again")

    out, facts = done
    monkeypatch.setattr(variants, "probabilities", refuse)
    monkeypatch.setattr(variants, "Extraction", refuse)
    assert run(data, out)["rows"] == facts["rows"]
    monkeypatch.setattr(variants, "SEED", 7)
    with pytest.raises(AssertionError, match="computed again"):
        run(data, out)


def parts_of(data: Path, out: Path) -> variants.Blocks:
    options = ["--data", str(data), "--backbone", "tiny", "--weights", "random", "--threads", "1"]
    arguments = variants.parse([*options, "--out", "x", "--checkpoints", str(out / "checkpoints")])
    return variants.Blocks(DataSet.load(data / "textures"), arguments)


@pytest.mark.parametrize("change", ["same", "size", "block", "weights"])
def test_parts_belong_to_their_settings(
    done: tuple[Path, dict[str, Any]], data: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    found = parts_of(data, done[0])
    written: list[Path] = []

    class Extraction:
        def __init__(self, *_: Any) -> None: ...

        def __call__(self, data: DataSet, folder: Path) -> None:
            folder.mkdir()
            np.save(folder / "pooled @2.npy", np.zeros((24, 2), np.float32))
            written.append(folder)

    monkeypatch.setattr(variants, "Extraction", Extraction)
    if change == "size":
        monkeypatch.setitem(variants.INPUTS, "224 px", blocks.Input(40))
    elif change == "block":
        monkeypatch.setitem(
            variants.BLOCKS, "joint", replace(variants.BLOCKS["joint"], grid="image")
        )
    elif change == "weights":
        found.network.digest = "other"
    (part,) = found.of(variants.Variant(("pooled",)))
    assert isinstance(part, np.memmap)  # from the disk, row by row
    assert bool(written) == (change != "same")


def test_parts_are_rows_of_every_image(done: tuple[Path, dict[str, Any]], data: Path) -> None:
    found = parts_of(data, done[0])
    pooled, joint = found.of(variants.Variant(("pooled", "joint")))
    assert pooled.dtype == joint.dtype == np.float32
    np.testing.assert_allclose((joint**2).sum(axis=1), 1, rtol=1e-5)
    assert len({row.tobytes() for row in pooled}) == len(pooled) == 24
    (once,) = found.of(variants.Variant(("pooled",), turns=1))
    assert (once != pooled).any()


def test_stacking_finds_the_part_that_knows() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(3, size=400)
    good = np.eye(3)[codes] + 0.5 * rng.standard_normal((400, 3))
    noise, wrong = rng.standard_normal((400, 3)), -good
    weights = variants.stacking_weights(np.array([good, noise, wrong]), codes)
    assert weights[0] > 1
    assert abs(weights[1]) < 0.3
    assert weights[2] == 0
    none = np.zeros((3, 0, 3))
    np.testing.assert_allclose(variants.stacking_weights(none, codes[:0]), 1 / 3)


@pytest.mark.parametrize("learner", ["softmax", "discriminants"])
def test_no_weight_is_learnt_from_a_label_that_was_seen(
    data: Path, monkeypatch: pytest.MonkeyPatch, learner: Any
) -> None:
    """Labels are random: models trained on these rows would get weight, and do not."""
    found = DataSet.load(data / "textures")
    rng = np.random.default_rng(0)
    found = replace(found, y=rng.permutation(found.y), groups=np.arange(24).astype(str))
    fold = folds_of(found, repeats=1, seed=0)[0]
    parts = [rng.standard_normal((24, 40)).astype(np.float32) for _ in range(2)]
    seen: list[np.ndarray] = []
    real = variants.stacking_weights
    monkeypatch.setattr(
        variants, "stacking_weights", lambda m, codes: seen.append(real(m, codes)) or seen[0]
    )
    variant = variants.Variant(join="stacked", reduction="whitened", learner=learner)
    proba = variants.probabilities(parts, fold, variant)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    assert seen[0].sum() < 1.0


def test_only_the_whole_run_replaces_the_projects_results(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert variants.parse(["--data", "x"]).out.name == "variants_mobilenet_v2.json"
    assert variants.parse(["--data", "x", "--border"]).out.name == "border_mobilenet_v2.json"
    with pytest.raises(SystemExit):
        variants.parse(["--data", "x", "--sets", "nanofibre"])
    assert "give --out FILE" in capsys.readouterr().err
