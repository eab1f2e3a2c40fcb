"""Do two states of the code give the same answers, and is the new one as fast?

    python -m benchmarks.compare OLD NEW --data ../shared/data --quick
    python -m benchmarks.compare OLD NEW --data ../shared/data --out compared.json

OLD and NEW are two checkouts of the project. What the old side has learnt is given to the new one
as plain arrays, and the answers of both must be equal. Refitted models must be as close to the old
ones as these are to each other over batch sizes. An extraction that is killed and resumed must give
the same bytes. Everything is timed in turns. The exit code is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.program import in_turns
from benchmarks.common.results import save_result
from benchmarks.common.tables import table
from hypervlad import read_image
from hypervlad.fibres import aligned_fraction

WORKER = Path(__file__).with_name("worker.py")
TOLERANCE = 1e-5  # of vectors and predictions, and of maps relative to their largest value
MAX_IMPORT_SECONDS = 0.3
MIN_FILES = 4  # beside an unfinished extraction, before it is killed
SLACK = 1.05  # a median ratio up to this counts as no slower
KINDS = ("classifier", "scorer", "masked scorer", "alignment")
TIMED = {  # what is timed, of which model
    "encoding": "classifier",
    "map of scorer": "scorer",
    "map of masked scorer": "masked scorer",
    "alignment map": "alignment",
    "extraction": "classifier",
}


@dataclass(frozen=True)
class Sizes:
    """How many images are trained on, half as many being tested, and how often things are timed."""

    per_class: int  # for the classifier
    surfaces: int  # defect-free tiles
    fibres: int  # micrographs of nanofibres
    rounds: int
    batch_sizes: tuple[int, ...]  # with which the old state fits again


QUICK = Sizes(per_class=3, surfaces=24, fibres=6, rounds=2, batch_sizes=(3,))
FULL = Sizes(per_class=25, surfaces=40, fibres=16, rounds=5, batch_sizes=(1, 3, 16))


@dataclass(frozen=True)
class Check:
    """A requirement, whether it holds, and what was found."""

    name: str
    holds: bool
    found: str


# --- images ---------------------------------------------------------------------------------------


def make_plan(data: Path, sizes: Sizes, folder: Path) -> dict[str, Any]:
    """Choose the images that both sides work on.

    Of the folders neu_steel, micrographs, magnetic_tile and nanofibre. ``folder`` is for maps of
    aligned windows to train on: the structure tensor's answers, because there are no others.
    """
    train, labels, test = [], [], []
    for name in ("neu_steel", "micrographs"):
        for kind in sorted(path for path in (data / name).iterdir() if path.is_dir()):
            files = _spread_out(sorted(kind.iterdir()), sizes.per_class + sizes.per_class // 2)
            train += files[: sizes.per_class]
            test += files[sizes.per_class :]
            labels += [kind.name] * len(files[: sizes.per_class])
    tiles = data / "magnetic_tile"
    good = _spread_out(sorted((tiles / "images" / "free").iterdir()), sizes.surfaces * 3 // 2)
    defective = [
        path
        for kind in ("blowhole", "break", "crack")
        for path in _spread_out(sorted((tiles / "images" / kind).iterdir()), sizes.surfaces // 2)
    ]
    learnt = defective[::2]
    masks = [tiles / "masks" / path.parent.name / f"{path.stem}.png" for path in learnt]
    fibres = _spread_out(sorted((data / "nanofibre").glob("*/*.jpg")), sizes.fibres * 3 // 2)
    return {
        "encoder": {},
        "image_options": {},
        "root": str(data),
        "train": _texts(train),
        "labels": labels,
        "groups": None,
        "test": _texts(test),
        "good": _texts(good[: sizes.surfaces]),
        "defective": _texts(learnt),
        "masks": [None] * sizes.surfaces + _texts(masks),
        "surface_test": _texts([*good[sizes.surfaces :], *defective[1::2]]),
        "fibres": _texts(fibres[: sizes.fibres]),
        "fibre_maps": _texts(write_maps(fibres[: sizes.fibres], folder)),
        "fibre_test": _texts(fibres[sizes.fibres :]),
        "extraction": _texts([*train, *test]),
    }


def write_maps(images: Sequence[Path], folder: Path) -> list[Path]:
    """Write a map of the aligned pixels of each image, NaN where there are no fibres."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, path in enumerate(images):
        pixels = read_image(path)
        found = aligned_fraction(pixels, window=32)
        values = np.where(found.background, np.nan, found.aligned.astype(float))
        rows, columns = (
            np.linspace(0, n, m + 1) for n, m in zip(pixels.shape, values.shape, strict=False)
        )
        at = [
            np.clip(np.searchsorted(edges, np.arange(n), side="right") - 1, 0, len(edges) - 2)
            for edges, n in zip((rows, columns), pixels.shape, strict=False)
        ]
        written.append(folder / f"{number}.npy")
        np.save(written[-1], values[np.ix_(*at)])
    return written


def _spread_out(files: Sequence[Path], n: int) -> list[Path]:
    """Return at most n files, as far apart in the list as they can be."""
    if len(files) <= n:
        return list(files)
    return [files[i] for i in np.linspace(0, len(files) - 1, n).round().astype(int)]


def _texts(paths: Sequence[Path]) -> list[str]:
    return [str(path) for path in paths]


# --- processes ------------------------------------------------------------------------------------


class Worker:
    """A process that runs the package of one checkout, and answers commands."""

    def __init__(self, checkout: Path, plan: Path, threads: int) -> None:
        self.checkout, self.plan, self.threads = checkout.resolve(), plan, threads
        self._process = subprocess.Popen(
            self.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.env
        )

    @property
    def env(self) -> dict[str, str]:
        """The environment in which this checkout's package is imported."""
        threads = str(self.threads)
        return {**os.environ, "PYTHONPATH": str(self.checkout), "OMP_NUM_THREADS": threads}

    def command(self, *more: str) -> list[str]:
        """Return the command line of the worker."""
        given = ["--checkout", str(self.checkout), "--plan", str(self.plan)]
        given += ["--threads", str(self.threads)]
        return [sys.executable, "-W", "ignore", str(WORKER), *given, *more]

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"the process of {self.checkout} ended during {do!r} {arguments}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def import_seconds(self) -> float:
        """Return the time of ``import hypervlad`` in a fresh process."""
        code = (
            "import time; t = time.perf_counter(); import hypervlad; print(time.perf_counter() - t)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=self.env,
            capture_output=True,
            text=True,
            check=True,
            cwd=self.plan.parent,
        )
        return float(done.stdout)

    def stop(self) -> None:
        """End the process."""
        self._process.communicate(timeout=60)


def interrupted_extraction(worker: Worker, model: Path, folder: Path) -> tuple[bool, str]:
    """Kill an extraction after a few batches, resume it, and compare it with an undisturbed one."""
    whole, killed = folder / "whole.parquet", folder / "killed" / "features.parquet"
    killed.parent.mkdir(parents=True)

    def start(out: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(worker.command("--extract", str(model), str(out)), env=worker.env)

    if start(whole).wait():
        return False, "the extraction failed"
    process = start(killed)
    while process.poll() is None and _n_files(killed.parent) < MIN_FILES:
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = _n_files(killed.parent)
    if killed.exists():
        return False, "the extraction had ended before it was killed: give more images"
    if start(killed).wait():
        return False, "the resumed extraction failed"
    same = whole.read_bytes() == killed.read_bytes()
    bytes_in_words = "the same bytes" if same else "OTHER bytes"
    return same, f"{bytes_in_words}, resumed with {kept} files of finished batches"


def _n_files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


# --- comparisons ----------------------------------------------------------------------------------


def difference(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """Return the largest difference between two sets of arrays, infinite if they do not match.

    Relative to the largest absolute value if that is above 1; NaN must be in the same places.
    """
    if one.keys() != other.keys():
        return float("inf")
    largest = 0.0
    for name, values in one.items():
        others = other[name]
        if values.shape != others.shape or (np.isnan(values) != np.isnan(others)).any():
            return float("inf")
        known = ~np.isnan(values)
        if known.any():
            scale = max(1.0, float(np.abs(values[known]).max()))
            largest = max(largest, float(np.abs(values - others)[known].max()) / scale)
    return largest


def refit_check(
    kind: str,
    old: Sequence[Mapping[str, np.ndarray]],
    new: Mapping[str, np.ndarray],
) -> Check:
    """Compare the answers of a refitted model with the old state's, over its batch sizes.

    The first of the old ones and the new one have the default batch size.
    """
    spread = max(difference(one, other) for one in old for other in old)
    apart = difference(old[0], new)
    holds = apart <= max(spread, TOLERANCE)
    return Check(f"refitted {kind}", holds, f"differs by {apart:.1e}; old state's own {spread:.1e}")


def ratio_check(name: str, seconds: Mapping[str, Sequence[float]]) -> Check:
    """Compare the times of both states, round by round."""
    ratios = [new / old for old, new in zip(seconds["old"], seconds["new"], strict=True)]
    middle = statistics.median(ratios)
    old, new = (statistics.median(seconds[side]) for side in ("old", "new"))
    found = f"{middle:.2f} x ({min(ratios):.2f} to {max(ratios):.2f}); {old:.2f} s, {new:.2f} s"
    return Check(name, middle < SLACK, found)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all arrays of a file."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


# --- the comparison -------------------------------------------------------------------------------


class Comparison:
    """Both sides, and what is compared of them; ``folder`` is for arrays, models, extractions."""

    def __init__(
        self,
        old: Path,
        new: Path,
        plan: Mapping[str, Any],
        sizes: Sizes,
        folder: Path,
        threads: int = 2,
    ) -> None:
        self.sizes, self.folder = sizes, folder
        path = folder / "plan.json"
        path.write_text(json.dumps(plan), encoding="utf-8")
        self.sides = {
            "old": Worker(old, path, threads),
            "new": Worker(new, path, threads),
        }
        self.seconds: dict[str, dict[str, list[float]]] = {}

    def run(self) -> Iterator[Check]:
        """Yield every check as soon as it is done."""
        yield from self.imports()
        for kind in KINDS:
            self.timed(f"fit {kind}", partial(self.fit, kind=kind))
            yield ratio_check(f"fit {kind}", self.seconds[f"fit {kind}"])
            yield from self.same_model(kind)
            yield from self.refitted(kind)
        for what, kind in TIMED.items():
            self.timed(what, partial(self.ask_seconds, what=what, kind=kind))
            yield ratio_check(what, self.seconds[what])
        yield from self.extractions()

    def stop(self) -> None:
        """End both sides."""
        for side in self.sides.values():
            side.stop()

    def imports(self) -> Iterator[Check]:
        """Time ``import hypervlad``."""
        self.timed("import", Worker.import_seconds)
        middle = statistics.median(self.seconds["import"]["new"])
        before = statistics.median(self.seconds["import"]["old"])
        found = f"{middle:.2f} s, before {before:.2f} s; at most {MAX_IMPORT_SECONDS} s"
        yield Check("import hypervlad", middle <= MAX_IMPORT_SECONDS, found)

    def timed(self, name: str, run: Callable[[Worker], float]) -> None:
        """Time both sides in turns."""
        runs = {name: partial(run, side) for name, side in self.sides.items()}
        self.seconds[name] = in_turns(runs, self.sizes.rounds)

    def ask_seconds(self, side: Worker, what: str, kind: str) -> float:
        """Return the seconds that a side takes for the answers of a model."""
        seconds: float = side.ask("time", what=what, name=kind)["seconds"]
        return seconds

    def fit(self, side: Worker, kind: str, name: str | None = None, **options: Any) -> float:
        """Fit an estimator; return the seconds."""
        seconds: float = side.ask("fit", kind=kind, name=name or kind, **options)["seconds"]
        return seconds

    def answers(self, side: str, kind: str, name: str) -> dict[str, np.ndarray]:
        """Return what a model answers about the test images."""
        path = self.folder / f"{side} {name}.npz"
        self.sides[side].ask("answer", kind=kind, name=name, path=str(path))
        return load_arrays(path)

    def same_model(self, kind: str) -> Iterator[Check]:
        """Compare the answers of one and the same model in both states."""
        arrays = str(self.folder / f"{kind} model.npz")
        self.sides["old"].ask("export", kind=kind, name=kind, path=arrays)
        adopted = f"{kind} of the old state"
        self.sides["new"].ask("adopt", kind=kind, name=kind, path=arrays, adopted=adopted)
        old, new = self.answers("old", kind, kind), self.answers("new", kind, adopted)
        if kind == "classifier":
            parts = {name: ({name: old[name]}, {name: new[name]}) for name in old}
        else:
            parts = {f"maps of {kind}": (old, new)}
        for name, (one, other) in parts.items():
            apart = difference(one, other)
            found = f"differ by {apart:.1e}; at most {TOLERANCE:.0e}"
            yield Check(f"same model, {name}", apart <= TOLERANCE, found)

    def refitted(self, kind: str) -> Iterator[Check]:
        """Compare refitted models with the spread of the old state over batch sizes."""
        old = [self.answers("old", kind, kind)]
        for size in self.sizes.batch_sizes:
            name = f"{kind} of batches of {size}"
            self.fit(self.sides["old"], kind, name, batch_size=size)
            old.append(self.answers("old", kind, name))
        new = self.answers("new", kind, kind)
        for answers in (*old, new):
            answers.pop("vectors", None)  # the order of codewords means nothing
        yield refit_check(kind, old, new)

    def extractions(self) -> Iterator[Check]:
        """Interrupt and resume an extraction of the new state."""
        model = self.folder / "model.hvlad"
        self.sides["new"].ask("save", name="classifier", path=str(model))
        holds, found = interrupted_extraction(self.sides["new"], model, self.folder / "extraction")
        yield Check("resumed extraction", holds, found)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, help="checkout of the old state")
    parser.add_argument("new", type=Path, help="checkout of the new state")
    parser.add_argument("--data", type=Path, required=True, help="folder of real images")
    parser.add_argument("--quick", action="store_true", help="few images and rounds: four minutes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file of checks and times")
    arguments = parser.parse_args(argv)
    sizes = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = make_plan(arguments.data.resolve(), sizes, folder / "maps")
        comparison = Comparison(
            arguments.old, arguments.new, plan, sizes, folder, arguments.threads
        )
        checks = []
        try:
            for check in comparison.run():
                checks.append(check)
                print(
                    f"{'ok  ' if check.holds else 'FAIL'} {check.name}: {check.found}", flush=True
                )
        finally:
            comparison.stop()
    rows = [(c.name, "yes" if c.holds else "**no**", c.found) for c in checks]
    print("\n" + table(["check", "holds", "found"], rows))
    if arguments.out is not None:
        facts = {"checks": [asdict(check) for check in checks], "seconds": comparison.seconds}
        save_result(arguments.out, facts | {"sizes": asdict(sizes)})
    return int(not all(check.holds for check in checks))


if __name__ == "__main__":
    sys.exit(main())
