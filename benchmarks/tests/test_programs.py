"""Each program once, on tiny data and a tiny network."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from support.few_crops import few_crops

from benchmarks.common.data import save_grey
from benchmarks.common.results import Facts, load_result
from benchmarks.particles import cost, faults, looks
from benchmarks.scale_bars import __main__ as scale_bars
from benchmarks.speed.tables import REFERENCE
from hypervlad import HypercolumnVLAD, make_particle_fields

pytestmark = [
    pytest.mark.full,  # models are trained, and images made
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

N_GROUPS = 14  # of each class, with two images each
THREAD = "--threads 1"
TINY = f"--backbone tiny --weights random {THREAD}"
ONE_ROUND = f"--rounds 1 {THREAD}"


class Case(NamedTuple):
    """Arguments, in which DATA is the folder of data and OUT one to write to.

    ``small``: constants of the program that are replaced, or of another module by its name.
    ``holds``: what must be true of what was stored.
    """

    arguments: str
    small: Mapping[str, Any] = {}
    holds: Callable[[Facts], bool] = bool


# --- data ----------------------------------------------------------------------------------------


def small_encoder(**parameters: Any) -> HypercolumnVLAD:
    blocks = ("joint", "pooled_unit", *(["shape"] if parameters.pop("particles", False) else []))
    usual = {"image_size": 32, "n_codewords": 3, "blocks": blocks}
    return HypercolumnVLAD(**{**usual, **parameters, "backbone": "tiny", "weights": "random"})


def textures(root: Path) -> None:
    """Two textures with two images per group."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :40] / 4.0
    lines = ["path,group"]
    for name, pattern in {"stripes": np.sin(2 * x), "rings": np.cos(3 * np.hypot(x, y))}.items():
        for i in range(2 * N_GROUPS):
            image = 0.5 + 0.3 * pattern + 0.06 * rng.standard_normal(x.shape)
            save_grey(root / name / f"{i:02d}.png", image)
            lines.append(f"{name}/{i:02d}.png,{name}-{i // 2}")
    (root / "groups.csv").write_text("\n".join(lines), encoding="utf-8")


def plates(root: Path) -> None:
    """Noise; some images have a dark square, and a mask of it."""
    rng = np.random.default_rng(0)
    for i in range(24):
        image, mask = 0.6 + 0.02 * rng.standard_normal((96, 108)), np.zeros((96, 108))
        kind = "square" if i % 2 else "free"
        if i % 2:
            mask[20:44, 20:44] = 1
            image[20:44, 20:44] *= 0.2
            save_grey(root / "masks" / kind / f"{i}.png", mask)
        save_grey(root / "images" / kind / f"{i}.png", image)


def particles(root: Path) -> None:
    images, truths = make_particle_fields(
        4, classes=("sphere", "rod"), size=(96, 128), random_state=0
    )
    for number, (image, truth) in enumerate(zip(images, truths, strict=True)):
        names = np.searchsorted(["", "rod", "sphere"], ["", *truth.classes])
        for kind, pixels in (("outlines", truth.labels), ("classes", names[truth.labels])):
            save_grey(root / kind / f"{number}.png", pixels / 255)
        save_grey(root / "images" / f"{number}.png", image)


def line_of_scale(root: Path) -> None:
    image = np.full((90, 160), 60, np.uint8)
    image[70:74, 50:110] = 250
    save_grey(root / "a.png", image / 255)
    (root / "lengths.csv").write_text("path,label,pixels,kind\na.png,1 um,60,line\n")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for make in (textures, plates):
        make(root / make.__name__)
    particles(root / "sem")
    line_of_scale(root / "scale_bars")
    return root


# --- the programs --------------------------------------------------------------------------------

OWN = "--data DATA --sets textures"
FOLDS = f"--folder DATA/textures {TINY} --methods"
MATS = {"benchmarks.fibres.__main__.SIZE": (160, 200)}
DEFECTS = f"--data DATA/plates {TINY}"
SCALES = {"SIZE": (200, 300), "LENGTHS": (40, 100), "WITHOUT": ("plates",)}


class Plain(nullcontext):
    """In place of a process, which does not know the tiny network."""

    def __init__(self, *_: Any) -> None:
        super().__init__(self)
        self.seconds = lambda: 0.1


QUICK = ["-c", "pass"]
FOLDERS = ["defects", "defects.kinds", "defects.wide", "speed.commands"]
CASES: dict[str, Case] = {
    "accuracy": Case(
        f"{FOLDS} default pooled_last",
        holds=lambda facts: all(row["accuracy"] > 0.9 for row in facts["rows"]),
    ),
    "accuracy.curve": Case(
        f"{OWN} --tem 0 {TINY}",
        {"SIZES": (1, 9), "N_DRAWS": 1},
        lambda facts: [row["size"] for row in facts["rows"]["textures"]] == [1, 9],
    ),
    "alignment": Case(
        "--training 4",
        {
            "SIZE": (96, 96),
            "WINDOWS": (32,),
            "FACTORS": {"cover": (0.5,), "contrast_to_noise": (9.0,), "aligned": (0.5, 1.0)},
        },
        lambda facts: {"learned"} <= set(facts["images"][0]["found"]),
    ),
    "defects": Case(
        f"{DEFECTS} --repeats 1",
        holds=lambda facts: all(row["image_auroc"][0] > 0.7 for row in facts["rows"]),
    ),
    "defects.kinds": Case(
        f"{DEFECTS} --train 3 --test 5 --splits 1 --false-alarm-splits 1",
        {"benchmarks.defects.surfaces.IMAGE_DEFECTS": ("scratch", "pits")},
        lambda facts: list(facts["rows"][0]["image_auroc"]) == ["square", "scratch", "pits"],
    ),
    "defects.wide": Case(
        f"{DEFECTS} --train 3 --test 5 --planted 4",
        {"IMAGE_DEFECTS": ("pits",), "WIDE": ("glow", "frayed edge")},
        lambda facts: {row["n"] > 0 for row in facts["rows"] if row["area"]} == {True},
    ),
    "fibres": Case("--mats 3", MATS, lambda facts: len(facts["mats"]) == 3),
    "fibres.pores": Case("--mats 3", MATS, lambda facts: len(facts["mats"]) > 2),
    "fibres.singles": Case("--images 4", {"SIZE": (160, 200)}),
    "particles": Case(
        f"--data DATA --sets sem {TINY}",
        {"CURVE": (1,)},
        lambda facts: facts["whole"][0]["scores"]["f1"] > 0.7,  # find_particles
    ),
    "particles.classes": Case(
        f"--data DATA/sem {TINY}",
        holds=lambda facts: facts["methods"][-1]["given"]["accuracy"] > 0.8,
    ),
    "particles.cost": Case(
        "--rounds 1",
        {"SIZE": (128, 160), "FIELDS": {"30 discs": cost.FIELDS["30 discs"]}},
        lambda facts: facts["rows"][0]["n_particles"] > 0,
    ),
    "particles.faults": Case(
        "--images 1 --data DATA --test 6",
        {
            "FAULTS": {"none": faults.FAULTS["none"]},
            "CLASSES": ("textures", "textures"),
            "SURFACE": "plates",
            "SPLIT": (7, 5),
        },
    ),
    "particles.looks": Case(
        "--fields 1 --empty 1",
        {"SIDE": 160, "LOOKS": {"discs apart": looks.LOOKS["discs apart"]}},
        lambda facts: facts["looks"]["discs apart"]["find_particles"]["f1"] > 0.8,
    ),
    "scale_bars": Case(
        "--data DATA",
        {
            **SCALES,
            "APART": {"grey line": scale_bars.APART["grey line"]},
            "CHOSEN": {"white line": scale_bars.CHOSEN["white line"]},
            "find_spec": lambda name: True,
            "new_label_reader": lambda: lambda pixels, bar: "0.001 mm",
        },
        lambda facts: [each["result"] for each in facts["real"]] == ["right"],
    ),
    "speed.commands": Case(
        "--rounds 1 --sizes 64",
        {"first_commands": lambda *_: {REFERENCE: QUICK, "predict": QUICK}},
        lambda facts: list(facts["seconds"]) == [REFERENCE, "predict"],
    ),
    "speed.encoding": Case(
        f"--backbones tiny --sizes 64 {ONE_ROUND}",
        {"PlainNetwork": Plain, "in_fresh_process": lambda *_: 1.0},
        lambda facts: len(facts["rows"][0]["ms"]) > 2,
    ),
    "speed.extraction": Case(
        "--folder OUT/files --sizes 24 32",
        {"SETUPS": ("1 job",), "ROUNDS": 1, "N_BARE": 8, "N_LARGE": 4},
        lambda facts: [row["n_found"] for row in facts["rows"]] == [0, 24, 0, 32],
    ),
    "speed.fitting": Case("--sizes 24 --image-size 64"),
    "speed.gpu": Case(
        "--device cpu --networks tiny --batches 2 --images 24 --rounds 1 --threads 1",
        {"SIZE": 64, "LARGE": (96, 128), "PARTICLES": {"n_particles": (4, 8), "extent": (16, 40)}},
        lambda facts: {row["task"] for row in facts["tasks"]} >= {"defects, map"},
    ),
    "uncertainty": Case(
        f"{OWN} --splits 2 --few 1 {TINY}",
        holds=lambda facts: facts["sets"]["textures"]["cross_coverage"][0] > 0.8,
    ),
}


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small encoders, few crops to train a segmenter with, small trees."""
    modules = "accuracy.methods", "accuracy.curve", "particles.classes", "uncertainty.__main__"
    for name in modules:
        module = importlib.import_module(f"benchmarks.{name}")
        monkeypatch.setattr(module, "default_encoder", small_encoder)
    monkeypatch.setattr("benchmarks.accuracy.methods.IMAGE_SIZE", 32)
    monkeypatch.setattr("benchmarks.particles.methods.N_TREES", 5)
    with few_crops(8):
        yield


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.usefixtures("cheap")
def test_a_program_runs_and_prints_its_tables(
    name: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program, case = module_of(name), CASES[name]
    for constant, value in case.small.items():
        where = constant if "." in constant else f"{program.__name__}.{constant}"
        monkeypatch.setattr(where, value)
    named = case.arguments.replace("DATA", str(data)).replace("OUT", str(tmp_path))
    out = tmp_path / (name if name in FOLDERS else f"{name}.json")
    kept = ["--checkpoints", tmp_path / "kept"] if hasattr(program, "load_or_run") else []
    program.main([str(each) for each in [*named.split(), "--out", out, *kept]])
    assert "|---|" in capsys.readouterr().out
    path = min(out.glob("*.json")) if name in FOLDERS else out
    assert case.holds(load_result(path)), load_result(path)


def module_of(name: str) -> Any:
    full = f"benchmarks.{name}"
    if importlib.util.find_spec(full).submodule_search_locations:
        full += ".__main__"
    return importlib.import_module(full)
