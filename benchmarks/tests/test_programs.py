"""Each program once, on tiny data and a tiny network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.accuracy import __main__ as accuracy
from benchmarks.accuracy import curve, methods, rare
from benchmarks.accuracy.features import WordHistograms
from benchmarks.alignment import __main__ as alignment
from benchmarks.alignment import methods as alignment_methods
from benchmarks.alignment import scenes
from benchmarks.alignment import speed as alignment_speed
from benchmarks.alignment.tables import alignment_section, clean_section
from benchmarks.bars import __main__ as bars
from benchmarks.common.data import DataSet, save_grey
from benchmarks.common.results import BENCHMARKS, Facts, load_result
from benchmarks.copies import __main__ as copies
from benchmarks.defects import __main__ as defects
from benchmarks.defects import kinds, surfaces
from benchmarks.defects import methods as defects_methods
from benchmarks.defects import speed as defects_speed
from benchmarks.defects.scores import Resampling, SplitScores, differences
from benchmarks.fibres import __main__ as fibres
from benchmarks.fibres import groups as fibre_groups
from benchmarks.fibres import pores, singles, train
from benchmarks.formats import __main__ as formats
from benchmarks.networks import accuracy as networks_accuracy
from benchmarks.networks import agreement, cost
from benchmarks.papers import carrillo2020, luo2021, modarres2017, mosaic
from benchmarks.particles import __main__ as outlines
from benchmarks.particles import classes as particle_classes
from benchmarks.particles import masks, mixed
from benchmarks.particles import speed as particles_speed
from benchmarks.scale_bars import __main__ as scale_bars
from benchmarks.speed import encoding, extraction, first_minutes, fitting, large_images
from benchmarks.uncertainty import __main__ as uncertainty
from benchmarks.uncertainty import novelty, specimens, sure
from hypervlad import (
    HypercolumnVLAD,
    MicrographClassifier,
    make_nanofibre_images,
    make_particle_fields,
)
from hypervlad.data import make_fibre_images
from hypervlad.features.encoder import ImageLoader
from hypervlad.fibres import axial_difference, diameters
from hypervlad.fibres.places import Places
from hypervlad.fibres.profile_network import ProfileNetwork, seen_by_network

N_GROUPS = 14  # of each class, with two images each
TINY = ["--backbone", "tiny", "--weights", "random", "--threads", "1"]
Run = Callable[..., Facts]


def textures(root: Path, seed: int = 0) -> Path:
    """Write two textures with two images per group."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :40] / 4.0
    lines = ["path,group"]
    for name, pattern in {"stripes": np.sin(2 * x), "rings": np.cos(3 * np.hypot(x, y))}.items():
        for i in range(2 * N_GROUPS):
            image = 0.5 + 0.3 * pattern + 0.06 * rng.standard_normal(x.shape)
            save_grey(root / name / f"{i:02d}.png", image)
            lines.append(f"{name}/{i:02d}.png,{name}-{i // 2}")
    (root / "groups.csv").write_text("\n".join(lines), encoding="utf-8")
    return root


def plates(root: Path) -> Path:
    """Write noise; some images have a dark square, and a mask of it."""
    rng = np.random.default_rng(0)
    for i in range(24):
        image, mask = 0.6 + 0.02 * rng.standard_normal((64, 72)), np.zeros((64, 72))
        kind = "square" if i % 2 else "free"
        if i % 2:
            mask[20:44, 20:44] = 1
            image[20:44, 20:44] *= 0.2
            save_grey(root / "masks" / kind / f"{i}.png", mask)
        save_grey(root / "images" / kind / f"{i}.png", image)
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    textures(root / "textures")
    plates(root / "plates")
    return root


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a program and return what it stored; its tables must be printed."""

    def function(program: Any, name: str, *arguments: Any) -> Facts:
        out = tmp_path / name
        folder = out.suffix == ""
        kept = ["--checkpoints", tmp_path / "kept"] if hasattr(program, "load_or_run") else []
        program.main([str(each) for each in [*arguments, "--out", out, *kept]])
        assert "|---|" in capsys.readouterr().out
        (path,) = out.glob("*.json") if folder else [out]
        return load_result(path)

    return function


def small_encoder(**parameters: Any) -> HypercolumnVLAD:
    usual = {"image_size": 32, "n_codewords": 3, "blocks": ("joint", "pooled_unit")}
    return HypercolumnVLAD(**{**usual, **parameters, "backbone": "tiny", "weights": "random"})


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (methods, curve, rare, uncertainty, novelty, modarres2017):
        monkeypatch.setattr(module, "default_encoder", small_encoder)
    monkeypatch.setattr("benchmarks.accuracy.features.IMAGE_SIZE", 32)
    monkeypatch.setattr(methods, "N_SAMPLED", 60)
    monkeypatch.setattr(WordHistograms.__init__, "__defaults__", (0, 8))


few = pytest.mark.filterwarnings("ignore:Classes with only one or two:UserWarning")


def test_accuracy_and_networks(
    data: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ["--folder", data / "textures", *TINY]
    short = [name for name in methods.NAMES if not name.startswith("luo2021")]
    facts = run(accuracy, "own.json", *own, "--methods", *short)
    assert len(facts["rows"]) == len(facts["means"]) == len(short)
    assert all(row["accuracy"] > 0.9 for row in facts["rows"])
    added = run(accuracy, "own.json", *own, "--methods", "texture", "--repeats", "2")
    assert [row["repeats"] for row in added["rows"]] == [1] * (len(short) - 1) + [2]
    assert added["rows"][0] == facts["rows"][0]
    sets = {"textures": DataSet.load(data / "textures")}
    monkeypatch.setattr(networks_accuracy, "OWN", "tiny")
    found = networks_accuracy.compare([tmp_path / "own.json"], sets)
    assert "| tiny | " in networks_accuracy.networks_table(found)
    others = ["--folder", textures(tmp_path / "textures", seed=1), *TINY]
    with pytest.raises(SystemExit, match="is not of the same images"):
        run(accuracy, "own.json", *others, "--methods", "texture")


def test_the_default_is_measured_as_users_get_it(data: Path) -> None:
    fold = accuracy.folds_of(DataSet.load(data / "textures"), repeats=1, seed=3)[0]
    measured = methods.Default("tiny", "random", "digest")(fold)
    model = MicrographClassifier(small_encoder(), random_state=3)
    model.fit(fold.train_paths, fold.y, groups=fold.groups)
    np.testing.assert_array_equal(measured["proba"], model.predict_proba(fold.test_paths))
    assert len(measured["train_vectors"]) == len(fold.train)


@few
def test_curve_and_rare(data: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve, "SIZES", (1, 9, 10))
    monkeypatch.setattr(curve, "N_DRAWS", 2)
    monkeypatch.setattr(rare, "N_DRAWS", 20)
    own = ["--data", data, "--sets", "textures", "--tem", "0"]
    rows = run(curve, "curve.json", *own, *TINY)["rows"]["textures"]
    # No group is left to test where ten images of each class are learnt from.
    assert [(row["size"], row["draw"]) for row in rows] == [(1, 0), (1, 1), (9, 0), (9, 1)]
    train, test = curve.draw(DataSet.load(data / "textures"), 9, 0)
    groups = DataSet.load(data / "textures").groups
    assert not set(groups[train]) & set(groups[test])
    means = run(rare, "rare.json", *own, "--threads", "1")["means"]
    assert means[0]["gain"] == [0.0] * 5


@few
@pytest.mark.filterwarnings("ignore:with a coverage of 0.9, every prediction set:UserWarning")
@pytest.mark.filterwarnings("ignore:5 of 27 images are blank:UserWarning")
def test_uncertainty(data: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ["--data", data, "--sets", "textures"]
    facts = run(uncertainty, "sets.json", *own, "--splits", "2", "--few", "1", *TINY)
    assert facts["sets"]["textures"]["cross_coverage"][0] > 0.8
    monkeypatch.setattr(novelty, "N_EACH", 2)
    cells = run(novelty, "novelty.json", *own, "--others", "plates/images")["cells"]
    assert len(cells) == 2 * len(novelty.METHODS)
    assert {"white noise", "photographs", "plates"} <= set(cells[0]["outside_reported"])
    monkeypatch.setattr(sure, "SCENES", (sure.Scene(60, 1, 3, apart=3),))
    (scene,) = run(sure, "sure.json", "--draws", "3")["rows"]
    assert scene["tested 0.2"]["sure"] > 0.5


def test_models_of_few_specimens(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    cheap = {"backbone": "tiny", "weights": "random", "n_codewords": 2, "sampling": 400}
    monkeypatch.setattr(specimens, "CHEAP", cheap)
    monkeypatch.setattr(specimens, "SIZE", 64)
    monkeypatch.setattr(specimens, "CLASSES", (20.0, 30.0, 40.0))
    monkeypatch.setattr(specimens, "DIAMETERS", (20.0, 30.0))
    monkeypatch.setattr(specimens, "N_IMAGES", 4)
    monkeypatch.setattr(specimens, "N_NEW", 2)
    monkeypatch.setattr(specimens, "N_FITS", {"scorer": 2, "classifier": 2})
    monkeypatch.setattr(specimens, "N_SPECIMENS", {"scorer": (2, 4), "classifier": (2,)})
    rows = run(specimens, "specimens.json")["rows"]
    known = [(row["model"], row["n_specimens"], row["groups"]) for row in rows]
    scorers = [("scorer", 2, True), ("scorer", 2, False), ("scorer", 4, True)]
    assert known == [*scorers, ("classifier", 2, True), ("classifier", 2, False)]
    assert all(fit["warned 0.05"] for row in rows[:3] for fit in row["fits"])
    assert all(fit["covered 0.9"] == 1 for fit in rows[3]["fits"])  # six groups: all classes


def test_defects(data: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = defects_methods.carrillo2020
    quick = {"max_epochs": 25}
    monkeypatch.setattr(
        defects_methods, "carrillo2020", lambda **given: whole(**{**given, **quick})
    )
    own = ["--data", data / "plates", *TINY]
    facts = run(defects, "found", *own, "--repeats", "1")
    assert (facts["n_images"], facts["n_defective"]) == (24, 12)
    assert all(row["image_auroc"][0] > 0.8 for row in facts["rows"]), facts["rows"]
    monkeypatch.setattr(surfaces, "IMAGE_DEFECTS", ("scratch", "pits"))
    few_images = ["--train", "3", "6", "--test", "5", "--splits", "1", "--false-alarm-splits", "1"]
    rows = run(kinds, "kinds", *own, *few_images)["rows"]
    assert [(row["method"], row["n_train"]) for row in rows[:3]] == [
        ("hypervlad", 6), ("PatchCore", 6), ("PaDiM", 6)
    ]  # fmt: skip
    assert list(rows[0]["image_auroc"]) == ["square", "scratch", "pits"]


def test_splits_keep_specimens_and_made_defects_together() -> None:
    rng = np.random.default_rng(0)
    examples = [("free", rng.random((64, 72)), np.zeros((64, 72), bool)) for _ in range(12)]
    specimens = np.array([0, 1, 2, 2, 4, 4, 6, 7, 8, 8, 10, 11])
    surface = surfaces.Surface.of("noise", examples, specimens).with_made_defects()
    train, test = surfaces.split_surface(surface, 4, 5, seed=0)
    assert not set(surface.specimens[train]) & set(surface.specimens[test])
    assert (surface.kinds[test] == "free").sum() == (surface.kinds[test] == "pits").sum() == 5
    with pytest.raises(SystemExit, match="8 images to learn from and 5 to test, but only 12"):
        surfaces.split_surface(surface, 8, 5, seed=0)
    names = ["exp1_num_32128", "exp2_num_32153", "exp1_num_9", "exp3_num_32240", "other"]
    assert surfaces.specimens_of(names).tolist() == [0, 0, 2, 0, 4]


def test_intervals_over_kinds_cover_the_true_difference() -> None:
    """Both methods are equally good, so that 95 % of the intervals should contain 0."""
    labels = np.repeat(["free", "dent"], [60, 30])
    contained = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        signal = (labels == "dent") + rng.standard_normal(90)
        scores = {name: signal + rng.standard_normal(90) for name in "ab"}
        splits = [SplitScores(labels, np.arange(90), scores)]
        found = differences(splits, "a", "b", Resampling(labels, np.arange(90), splits))["mean"]
        contained.append(found["low"] <= 0 <= found["high"])
    assert np.mean(contained) > 0.85


def test_alignment(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "SIZE", (96, 96))
    few_scenes = {
        name: {factor: levels[-1:] for factor, levels in factors.items()}
        for name, factors in scenes.SETS.items()
    }
    monkeypatch.setattr(scenes, "SETS", few_scenes)
    classical = [name for name in alignment.TITLES if name != "learned"]
    own = ["--methods", *classical, "--figure", tmp_path / "drawn.png", "--threads", "1"]
    result = run(alignment, "alignment.json", *own)
    assert list(result["methods"]) == classical
    assert "| SNR 1 | " in alignment_section(result)
    assert "On 1 image of noise alone" in clean_section(result)
    assert (tmp_path / "drawn.png").stat().st_size > 5_000
    monkeypatch.setattr(alignment_speed, "TILE", (64, 96))
    own = ["--rounds", "1", "--threads", "1", "--methods", "lgo"]
    assert "aligned fraction, lgo" in run(alignment_speed, "speed.json", *own)["seconds"]


@pytest.mark.parametrize("degrees", [0, 25, 160])
def test_published_formulas_find_the_direction_of_stripes(degrees: int) -> None:
    angle = np.deg2rad(degrees)
    y, x = np.mgrid[:96, :96]
    image = 100 * np.sin(0.8 * (x * np.sin(angle) + y * np.cos(angle)))
    orientation, coherency = alignment_methods.orientationj(image, 2.0)
    inside = (slice(12, -12), slice(12, -12))
    assert np.rad2deg(axial_difference(orientation[inside], angle)).max() < 1.5
    assert coherency[inside].min() > 0.95
    found = alignment_methods.by_fibriltool(image, 32)
    assert found.aligned.all()
    assert np.rad2deg(axial_difference(found.angle, angle)).max() < 1.5


def test_bars(data: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(bars.LAYOUTS["Zeiss, white, logo"], size=(240, 320), rows=32)
    for name, value in {"FRAME": (240, 320), "MADE": (120, 160), "WHOLE": (120, 160)}.items():
        monkeypatch.setattr(bars, name, value)
    monkeypatch.setattr(bars, "LAYOUTS", {"small": small})
    monkeypatch.setattr(bars, "WITHOUT", {"no bar": bars.WITHOUT["no bar"]})
    monkeypatch.setattr(bars, "REAL", {"plates": (), "textures": ("01",)})
    found = run(bars, "bars.json", "--data", data)
    layout = found["with_bar"]["layout"]["small"]
    assert layout["n"] == 5 * (14 + bars.N_REAL)
    assert layout["missed"] + layout["too_many"] + layout["left"] < 0.3 * layout["n"]
    assert found["without"]["no bar"]["missed"] == layout["n"]
    assert [each["invented"] for each in found["real"]] == [0, 0]
    assert [each["with_bar"] for each in found["real"]] == [0, 1]


def test_scale_bars(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    plates(data / "plates")
    monkeypatch.setattr(scale_bars, "SIZE", (200, 300))
    monkeypatch.setattr(scale_bars, "LENGTHS", (40, 100))
    monkeypatch.setattr(scale_bars, "APART", {"grey line": scale_bars.APART["grey line"]})
    monkeypatch.setattr(scale_bars, "CHOSEN", {"white line": scale_bars.CHOSEN["white line"]})
    monkeypatch.setattr(scale_bars, "WITHOUT", ("plates",))
    image = np.full((90, 160), 60, np.uint8)
    image[70:74, 50:110] = 250
    save_grey(data / "scale_bars" / "a.png", image / 255)
    (data / "scale_bars" / "lengths.csv").write_text("path,label,pixels,kind\na.png,1 um,60,line\n")
    monkeypatch.setattr(scale_bars, "find_spec", lambda name: True)
    monkeypatch.setattr(scale_bars, "new_label_reader", lambda: lambda pixels, bar: "0.001 mm")
    found = run(scale_bars, "scale_bars.json", "--data", data)
    labels = found["labels"]["real images"]
    assert (labels["n"], labels["right"]) == (1, 1)
    halves = found["with_bar"]["half"]
    assert [each["n"] for each in halves.values()] == [5, 15]
    assert sum(each["missed"] + each["wrong"] for each in halves.values()) < 4
    assert [each["result"] for each in found["real"]] == ["right"]
    assert [each["data"] for each in found["without"]] == ["no bar", "text, but no bar", "plates"]
    assert sum(each["invented"] for each in found["without"]) <= 1


def test_fibres(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fibres, "SIZE", (160, 200))
    found = run(fibres, "fibres.json", "--mats", 3)
    assert len(found["mats"]) == 3
    assert "| all |" in fibres.factor_table(found)
    assert "| no answer |" in fibres.unresolved_table(found)
    assert all(row["skeleton"] > 1 for row in found["mats"])


def test_the_network_of_diameters_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "BATCH", 4)
    weights = ProfileNetwork.pretrained().weights
    layers = {name: torch.tensor(each) for name, each in weights.items() if "." in name}

    def well_trained(*given: Any) -> train.Network:
        network = trained(*given)
        network.load_state_dict(layers)  # mats are measured by a network that has learnt more
        return network

    trained = train.trained
    monkeypatch.setattr(train, "trained", well_trained)
    out = tmp_path / "network.npz"
    train.main(["--images", "40", "--epochs", "4", "--processes", "1", "--out", str(out)])
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()[-5:-1]]
    assert losses[-1] < losses[0] - 0.3
    with np.load(out) as stored:
        assert {name: stored[name].shape for name in stored.files} == {
            name: each.shape for name, each in weights.items()
        }
        assert all(np.isfinite(stored[name]).all() for name in stored.files)


def test_half_of_few_places_may_be_none_at_all() -> None:
    torch.manual_seed(0)
    network, there = train.Network(245), torch.zeros(2, 5)
    there[0, :2] = 1
    out = network(torch.randn(2, 5, 245), there, torch.randn(2, 24))
    assert all(each.isfinite().all() for each in out)


def test_mirrored_places_have_mirrored_truths() -> None:
    n_profile = train.N_ROWS * train.N_SAMPLES
    profile = np.arange(n_profile, dtype=np.float32) / n_profile
    sample = train.Sample(
        seen=np.tile(np.append(profile, [1, 2, 3]), (train.N_PLACES, 1)).astype(np.float16),
        spectrum=np.zeros(24, np.float32),
        is_fibre=np.ones(train.N_PLACES, np.float32),
        truth=np.tile(np.float32([0.5, 0.2, 0.1]), (train.N_PLACES, 1)),
        look=0,
        log_blur=0.0,
    )
    drawn = train.Batch.of([sample], "cpu").drawn(torch.zeros(1, dtype=torch.long))
    found = set()
    for seen, truth in zip(drawn.seen[0], drawn.truth[0], strict=True):
        rows = seen[:n_profile].reshape(train.N_ROWS, train.N_SAMPLES)
        along, across = bool(rows[0, 0] > rows[-1, 0]), bool(rows[0, 0] > rows[0, -1])
        side, turn = (-1 if across else 1), (-1 if across != along else 1)
        assert truth.tolist() == pytest.approx([0.5, 0.2 * side, 0.1 * turn])
        found.add((along, across))
    assert len(found) == 4


def test_enlarged_mats_have_their_truth_enlarged() -> None:
    (image,), (truth,) = make_fibre_images(1, diameter=6, cover=0.1, size=96, random_state=0)
    larger, scaled = train.resized(image, truth, 2.5, order=1)
    assert larger.shape == scaled.fibres.shape == (240, 240)
    assert scaled.median == pytest.approx(2.5 * truth.median)
    assert scaled.cover == pytest.approx(truth.cover, abs=0.01)
    for line, former in zip(scaled.centre_lines, truth.centre_lines, strict=True):
        assert line[[0, -1]] == pytest.approx((former[[0, -1]] + 0.5) * 2.5 - 0.5)
        assert np.linalg.norm(np.diff(line, axis=0), axis=1).max() < 1.01


def test_what_is_learnt_from_mats_rights_their_means_and_holds_their_errors() -> None:
    rng, mats = np.random.default_rng(0), []
    for _ in range(200):
        logs = 0.3 * rng.standard_normal(300)
        facts = np.array([1, *rng.standard_normal(2)])
        shift = rng.normal(0, 0.05)  # of all places of a mat
        lengths = np.exp((0.5 + 0.2 * facts[1]) * logs)  # thick fibres are measured more often
        true = diameters.around_middle(logs + shift, np.median(logs + shift))
        mats.append(train.Measured(facts, logs + shift, lengths, float(true.mean())))
    learnt = train.learnt_from_mats(mats)
    assert learnt["acceptance"] == pytest.approx([0.5, 0.2, 0], abs=0.1)
    width = np.exp([learnt["interval"] @ each.facts for each in mats])
    assert width.mean() == pytest.approx(1.96 * np.hypot(0.05, 0.02), rel=0.3)


def test_the_trained_network_is_that_of_the_package() -> None:
    rng = np.random.default_rng(0)
    profiles, facts = rng.standard_normal((9, 6, 40)), rng.standard_normal((9, 5))
    seen = seen_by_network(profiles.astype(np.float32), facts.astype(np.float32))
    spectrum = rng.standard_normal(24).astype(np.float32)
    network = train.Network(seen.shape[1])
    with torch.no_grad():  # three places are not there
        padded = torch.from_numpy(np.pad(seen, ((0, 3), (0, 0)), constant_values=7))[None]
        there = (torch.arange(12) < 9).float()[None]
        own, _, image = network(padded, there, torch.from_numpy(spectrum[None]))
    found = network.exported()(profiles.astype(np.float32), facts.astype(np.float32), spectrum)
    np.testing.assert_allclose(found.log_ratio, own[0, :9, 1].numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.turn, own[0, :9, 4].numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.blur, np.exp(float(image[0, -1])), rtol=1e-4)


def test_true_fibres_are_the_uppermost_in_the_middle_of_which_places_lie() -> None:
    _, (truth,) = make_fibre_images(
        1, diameter=12, spread=0, size=(160, 200), cover=0.3, random_state=0
    )
    lines = [line[(line > 8).all(1) & (line < [150, 190]).all(1)] for line in truth.centre_lines]
    number = np.repeat(np.arange(len(lines)), [len(line) for line in lines])
    steps = np.concatenate([np.gradient(line, axis=0) for line in lines])
    normals = np.stack([-steps[:, 1], steps[:, 0]], axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    middle, unknown = np.concatenate(lines).astype(float), np.zeros(len(number))
    for off in (2.0, 5.5):
        places = Places(middle + off * normals, normals, unknown + 12, *[unknown] * 3)
        fibre, offset, turn = train.true_fibres(places.turned(0.1 + unknown), truth)
        found = fibre == number
        assert turn[found] == pytest.approx(-0.1, abs=0.03)
        assert (found.mean() > 0.4) == (off < 0.35 * 12)
        assert offset[found] == pytest.approx(-off, abs=0.6)
    crossed = train.true_fibres(
        Places(middle, np.flip(normals, 1), unknown + 12, *[unknown] * 3), truth
    )
    assert (crossed[0] == number).mean() < 0.2


def test_groups_of_fibre_mats(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fibre_groups, "SIZE", (160, 200))
    monkeypatch.setattr(fibre_groups, "N_PER_GROUP", 2)
    monkeypatch.setattr(fibre_groups, "DIFFERENCES", (0.0, 0.2))
    found = run(fibre_groups, "groups.json", "--images", 4, "--draws", 3)
    assert [row["difference"] for row in found["groups"]] == [0, 0.2]
    assert "| 20% |" in fibre_groups.power_table(found)


def test_single_fibres(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(singles, "SIZE", (160, 200))
    found = run(singles, "singles.json", "--images", 4)
    assert "| look: transmission |" in singles.singles_table(found)
    assert all(row["find_fibres"]["fibres"] >= row["branches"]["found"] for row in found["images"])


def test_pores(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fibres, "SIZE", (160, 200))
    found = run(pores, "pores.json", "--mats", 4)
    assert "| uneven light | 4 |" in pores.pores_table(found)
    answered = [row for row in found["mats"] if row["found"]]
    assert np.median([abs(row["found"][0] - row["true"][0]) for row in answered]) < 0.1


def test_copies(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_nanofibre_images(4, size=96, random_state=0)[0]
    monkeypatch.setattr(copies, "SYNTHETIC", {"mats": lambda: images})
    monkeypatch.setattr(copies, "COSTS", (("tubes in TEM", 3),))
    found = run(copies, "found")["sets"]["mats"]
    assert sum(found["planted"].values()) == sum(found["found"].values()) == 2
    assert (found["wrong"], found["other"], found["largest_set"]) == (0, 0, 2)
    assert run(copies, "cost", "--cost")["costs"][0]["n_images"] == 3
    for change in copies.CHANGES.values():
        first, second = change(images[0], np.random.default_rng(0))
        assert first.shape != second.shape or np.abs(first - second).max() > 0.01


def test_formats(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "default_encoder", small_encoder)
    for row in run(formats, "made", *TINY, "--images", "2")["rows"]:
        n_right = 2 if row["lossless"] else 0
        assert [row[name] for name in ("pixels", "same")] == [n_right] * 2, row
        assert (row["size"], row["bar"]) == (2, 2), row
    save_grey(tmp_path / "files" / "a.png", np.eye(40))
    (tmp_path / "files" / "b.png").write_bytes(b"GIF is this none")
    found = run(formats, "found", "--data", tmp_path / "files")
    assert found["refused"] == {"not an image that can be read": {".png": 1}}
    (row,) = found["read"]
    assert (row["files"], row["compared"], row["pixels"], row["sizes"]) == (1, 1, 1, 0)


@pytest.mark.slow  # two processes
@pytest.mark.long
def test_speed_of_reading(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "N_TIMED", 2)
    seconds = run(formats, "speed", "--old", BENCHMARKS.parent, "--rounds", "5")["seconds"]
    assert all(len(each["old"]) == len(each["new"]) == 5 for each in seconds.values())


def test_agreement_of_a_small_network(run: Run) -> None:
    (row,) = run(agreement, "agreement.json", "--networks", "test_vit", "--image-size", "96")[
        "rows"
    ]
    assert max(*row["maps"].values(), *row["vectors"].values()) < 1e-5


def test_speed_of_encoding_and_networks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")

    class Plain:
        """A process that does not know the tiny network."""

        seconds = staticmethod(lambda: 0.1)

        def __init__(self, *_: Any) -> None: ...

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda *_: None  # noqa: E731

    monkeypatch.setattr(encoding, "PlainNetwork", Plain)
    for module in (encoding, cost):
        monkeypatch.setattr(module, "peak_memory", lambda *_: 1.0)
    monkeypatch.setattr(cost, "DEFAULT", "tiny")
    few_rounds = ["--sizes", "64", "--rounds", "1", "--threads", "1"]
    rows = run(encoding, "encoding.json", "--backbones", "tiny", *few_rounds)["rows"]
    assert [row["codebook"] for row in rows] == list(encoding.CODEBOOKS)
    assert len(rows[0]["ms"]["fast finest"]) == 4
    (row,) = run(cost, "cost.json", "--networks", "tiny", *few_rounds)["rows"]
    assert len(row["ms"]["finest"]) == 1


def test_speed_of_defect_maps(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defects_speed, "SIZE", (64, 96))
    monkeypatch.setattr(defects_speed, "FIT_SIZE", (64, 64))
    own = ["--rounds", "1", "--batches", "1", "--images", "12", "--weights", "random"]
    result = run(defects_speed, "speed.json", *own, "--threads", "1")
    assert result["patches"] == {"side by side": 12, "at the map's stride": 60}


def test_first_minutes(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    named = first_minutes.commands
    quick = {key: ["-c", "pass"] for key in [first_minutes.REFERENCE, "predict"]}

    def without_models(folder: Path, weights: str) -> dict[str, list[str]]:
        assert Path(named(folder, weights)["classify an image"][4]).is_file()
        return quick

    monkeypatch.setattr(first_minutes, "commands", without_models)
    facts = run(first_minutes, "first.json", "--rounds", "1")
    assert set(facts["seconds"]) == set(facts["processor"]) == set(quick)
    with pytest.raises(SystemExit, match="no such luck"):
        first_minutes.run(["-c", "raise ValueError('no such luck')"])


def test_a_command_on_a_large_image_is_measured(tmp_path: Path) -> None:
    large_images.write_image(tmp_path / "image.png", 300)
    found = large_images.run_measured(["align", "image.png", "-o", "aligned"], tmp_path)
    assert 50 < found["peak_mb"] < 5000
    with pytest.raises(SystemExit, match="exit code 2"):
        large_images.run_measured(["align", "missing.png", "-o", "aligned"], tmp_path)


@pytest.mark.long
def test_speeds_of_whole_processes(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = run(fitting, "fitting.json", "--sizes", "24", "--image-size", "64")["rows"]
    assert 0 < sum(row["stages"].values()) < row["seconds"]
    monkeypatch.setattr(extraction, "SETUPS", ("1 job",))
    monkeypatch.setattr(extraction, "ROUNDS", 1)
    monkeypatch.setattr(extraction, "N_BARE", 8)
    monkeypatch.setattr(extraction, "N_LARGE", 4)
    facts = run(extraction, "scale.json", "--folder", tmp_path / "files", "--sizes", "24", "40")
    assert [row["n_found"] for row in facts["rows"]] == [0, 24, 0, 40]
    rows = run(large_images, "large.json", "--sizes", "64")["rows"]
    assert [row["what"] for row in rows] == list(large_images.COMMANDS)
    encoding.fit_encoders(tmp_path, "mobilenet_v2", 64, encoding.DEFAULT, "cpu")
    assert encoding.peak_memory(tmp_path, 64, "naive", "cpu", 1) > 1
    with encoding.PlainNetwork(tmp_path, 64, 2, 1) as plain:
        assert plain.seconds() > 0


def test_luo2021(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for k, name in enumerate("abcd"):
        for i in range(15):
            grey = rng.normal(0.2 + 0.15 * k, 0.05, (24, 24))
            save_grey(tmp_path / "squares" / name / f"{i}.png", grey)
    whole = luo2021.build

    def build(method: str, *given: Any) -> Any:
        if method in luo2021.BASELINES:
            return whole(method, *given)
        return MicrographClassifier(small_encoder(), random_state=0)

    monkeypatch.setattr(luo2021, "build", build)
    monkeypatch.setattr(
        luo2021, "ImageLoader", lambda **given: ImageLoader(**{**given, "image_size": 32})
    )
    own = ["--data", tmp_path / "squares", "--seeds", "0", "1", "--figures", tmp_path / "drawn"]
    facts = run(luo2021, "papers", *own, "--weights", "random", "--threads", "1")
    assert [row["method"] for row in facts["rows"]] == ["luo2021", "default", "pooled-conv5_3"]
    assert all(row["accuracy"] > 0.5 and row["n_train"] == 48 for row in facts["rows"])
    assert (tmp_path / "drawn" / "luo2021_mosaic.png").exists()
    places, _ = mosaic.snap_to_grid(rng.normal(size=(150, 2)))
    assert len({tuple(place) for place in places.tolist()}) == 150  # none covers another


@few
@pytest.mark.filterwarnings("ignore:fine-tuning is validated on:UserWarning")
def test_modarres2017(
    data: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = modarres2017.modarres2017

    def small_preset(*given: Any, **parameters: Any) -> Any:
        return preset(*given, **parameters).set_params(image_size=32, batch_size=4)

    monkeypatch.setattr(modarres2017, "modarres2017", small_preset)
    own = ["--data", data / "textures", "--weights", "mobilenet_v2=random", "--max-epochs", "1"]
    own += ["--folds", "2", "--threads", "1"]
    facts = run(modarres2017, "papers", *own)
    assert len(facts["rows"]) == 3
    assert np.sum(facts["rows"][0]["confusion"]) == pytest.approx(4 * N_GROUPS)
    assert len(run(modarres2017, "papers", *own, "--kinds", "features")["rows"]) == 3
    assert not list((tmp_path / "kept").rglob("training-*"))
    made = DataSet.load(modarres2017.synthetic_folder(tmp_path, 2, 64))
    assert np.unique(made.y, return_counts=True)[1].tolist() == [2] * 10


def test_carrillo2020(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"N_FEW": 2, "N_MANY": 5, "N_GOOD": 6, "N_TRAIN": {"anomalous": 20, "normal": 25}}
    for name, value in sizes.items():
        monkeypatch.setattr(carrillo2020, name, value)
    own = ["--images", "20", "--new", "3", "--size", "96", "128", "--max-epochs", "2"]
    result = run(carrillo2020, "out.json", *own, "--weights", "random", "--threads", "1")
    leaking, honest, masks, good = (runs[0] for runs in result["runs"].values())
    assert leaking["n_train"] == honest["n_train"] == {"anomalous": 20, "normal": 25}
    assert "many" not in masks
    assert "learnt" not in good
    mats = carrillo2020.make_mats(20, 1, (96, 128), 0)
    parts = carrillo2020.honest_parts(mats, 0)
    assert not set(parts["train"].image_index) & set(parts["many"].image_index)
    parts = carrillo2020.leaking_parts(mats, 0)
    assert set(parts["train"].image_index) & set(parts["many"].image_index)


@pytest.fixture
def small_particles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few crops to train the segmenter with, small vectors, and small images."""
    for name, value in {"N_CROPS": 8, "CROP": 64}.items():
        monkeypatch.setattr(f"hypervlad.models.segmentation.decoder.{name}", value)
    monkeypatch.setattr("benchmarks.particles.methods.N_TREES", 5)
    monkeypatch.setattr(outlines, "CURVE", (1,))

    def encoder(*, particles: bool = False, **parameters: Any) -> HypercolumnVLAD:
        blocks = ("joint", "pooled_unit", *(["shape"] if particles else []))
        return small_encoder(blocks=blocks, **parameters)

    for module in (particle_classes, mixed, masks):
        monkeypatch.setattr(module, "default_encoder", encoder)
    sizes = {"EXTENT": (16, 40), "SIZE": 128, "N_OUTLINED": 4, "ALONE_SIZE": 64}
    for module, names in ((mixed, list(sizes)), (masks, list(sizes)[:3])):
        for name in names:
            monkeypatch.setattr(module, name, sizes[name])


@pytest.mark.usefixtures("small_particles")
def test_outlines_and_classes_of_particles(tmp_path: Path, run: Run) -> None:
    images, truths = make_particle_fields(
        4, kind="sem", classes=("sphere", "rod"), size=(96, 128), random_state=0
    )
    for number, (image, truth) in enumerate(zip(images, truths, strict=True)):
        names = np.searchsorted(["", "rod", "sphere"], ["", *truth.classes])
        for kind, pixels in (("outlines", truth.labels), ("classes", names[truth.labels])):
            save_grey(tmp_path / "sem" / kind / f"{number}.png", pixels / 255)
        save_grey(tmp_path / "sem" / "images" / f"{number}.png", image)
    own = ["--checkpoints", tmp_path / "kept", *TINY]
    facts = run(outlines, "outlines.json", "--data", tmp_path, "--sets", "sem", *own)
    assert [row["n_train"] for row in facts["whole"]] == [3] * 4
    assert facts["whole"][0]["scores"]["f1"] > 0.8  # find_particles
    assert [row["n_train"] for row in facts["curve"]] == [1, 3] * 3
    facts = run(particle_classes, "classes.json", "--data", tmp_path / "sem", *TINY)
    assert facts["n"] == sum(len(truth.classes) for truth in truths)
    shape = facts["methods"][-1]
    assert shape["given"]["accuracy"] > 0.8
    assert shape["found"]["accuracy_interval"][0] <= shape["found"]["accuracy"]


@few
@pytest.mark.usefixtures("small_particles")
def test_mixed_fields_and_masks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    solids = ("cube", "rod", "sphere")  # drawn faster than tubes
    monkeypatch.setattr(mixed, "TEM_CLASSES", solids)
    monkeypatch.setattr(masks, "CLASSES", {2: solids[:2], 3: solids})
    own = ["--train", "6", "--test", "4", "--sets", "2", "--draws", "1"]
    facts = run(mixed, "mixed.json", *own, *TINY)
    assert facts["accuracy"]["particles"][0]["n"] == facts["accuracy"]["whole"][0]["n"]
    assert np.shape(facts["counts"]["found outlines"]) == (2, 3, 3)
    rows = run(masks, "masks.json", "--train", "18", "--test", "6", *TINY)["rows"]
    assert [row["n_classes"] for row in rows] == [2] * 5 + [3] * 5


@few
@pytest.mark.usefixtures("small_particles")
def test_speed_of_particles(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"SIZE": (96, 128), "EXTENT": (16, 40), "N_EACH": (4, 8), "LARGE": 256}
    for name, value in sizes.items():
        monkeypatch.setattr(particles_speed, name, value)
    own = ["--rounds", "1", "--images", "2", "--weights", "random", "--threads", "1"]
    facts = run(particles_speed, "speed.json", *own)
    assert facts["memory"]["find_particles"]["peak"] > 50
