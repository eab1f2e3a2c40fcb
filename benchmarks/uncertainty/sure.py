"""Are no more of the sure answers wrong than requested? On synthetic groups, drawn again and again.

    python -m benchmarks.uncertainty.sure

Vectors of a class scatter around its mean, those of a group around a mean of its own. A logistic
regression is calibrated on some groups as `MicrographClassifier` does, by folds and with a third of
the groups held out, and its answers for many new groups are compared with the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table, with_interval
from hypervlad.classify.fitting import cross_predict
from hypervlad.evaluation import wilson_interval
from hypervlad.statistics.conformal import CERTAINTY

N_FEATURES = 8
N_NEW = 2000  # groups
MAX_ERRORS = (0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Scene:
    """What is drawn.

    Attributes
    ----------
    n_groups, n_images, n_classes : int
        Groups to learn from, images of each, and classes.
    apart : float
        Standard deviation of the means of classes; that of images in a group is 1.
    of_group : float
        Standard deviation of the means of the groups of a class.
    C : float
        Of the logistic regression: the lower, the less confident it is.
    """

    n_groups: int
    n_images: int
    n_classes: int = 4
    apart: float = 1.0
    of_group: float = 0.5
    C: float = 1.0

    def draw(
        self, rng: np.random.Generator, means: np.ndarray, n_groups: int, n_images: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return vectors, classes and groups of images."""
        classes = rng.integers(self.n_classes, size=n_groups)
        own = means[classes] + self.of_group * rng.standard_normal((n_groups, N_FEATURES))
        vectors = np.repeat(own, n_images, axis=0)
        vectors = vectors + rng.standard_normal(vectors.shape)
        return vectors, np.repeat(classes, n_images), np.repeat(np.arange(n_groups), n_images)


SCENES = (
    Scene(20, 3, 3, apart=2),
    Scene(60, 1, apart=0.8),
    Scene(60, 1, apart=2, C=0.001),
    Scene(60, 5, apart=1.5, of_group=1),
    Scene(60, 5, 3, apart=1.2, C=1e4),
    Scene(150, 1, apart=0.8),
    Scene(150, 3, apart=1, of_group=0.6),
    Scene(300, 1, 6, of_group=0.3),
    Scene(300, 1, 6, of_group=0.3, C=0.003),
    Scene(300, 2, 6, apart=2),
    Scene(300, 1, 2, apart=0.4, C=0.001),
    Scene(300, 1, 2, of_group=0.3, apart=0.5, C=0.01),
)


def one_draw(scene: Scene, seed: int) -> dict[str, Any]:
    """Return the share of sure answers, and of wrong ones among them, by error."""
    rng = np.random.default_rng(seed)
    means = scene.apart * rng.standard_normal((scene.n_classes, N_FEATURES))
    vectors, classes, groups = scene.draw(rng, means, scene.n_groups, scene.n_images)
    new, truth, _ = scene.draw(rng, means, N_NEW, scene.n_images)
    learner = LogisticRegression(C=scene.C, max_iter=500).fit(vectors, classes)
    folds = cross_predict(learner, vectors, classes, groups, {}, seed)
    assert folds is not None
    proba = learner.predict_proba(new)
    confidence = folds.confidence(folds.by_learner(new, proba), proba)
    is_right = learner.classes_[proba.argmax(axis=1)] == truth
    found: dict[str, Any] = {"accuracy": float(is_right.mean())}
    for error in MAX_ERRORS:
        is_sure = confidence >= folds.threshold(error)
        wrong = float((~is_right[is_sure]).mean()) if is_sure.any() else 0.0
        found[f"tested {error:g}"] = [float(is_sure.mean()), wrong]
    return found


def measure(scene: Scene, n_draws: int) -> dict[str, Any]:
    """Return the means over draws, and the share of draws in which too many are wrong."""
    draws = [one_draw(scene, seed) for seed in range(n_draws)]
    row: dict[str, Any] = {"scene": asdict(scene)}
    row["accuracy"] = float(np.mean([draw["accuracy"] for draw in draws]))
    for error in MAX_ERRORS:
        values = np.array([draw[f"tested {error:g}"] for draw in draws])
        n_sure = values[:, 0].sum()
        row[f"tested {error:g}"] = {
            "sure": float(values[:, 0].mean()),
            "wrong": float((values[:, 0] * values[:, 1]).sum() / n_sure) if n_sure else 0.0,
            "broken": float((values[:, 1] > error).mean()),
        }
    return row


def sure_table(result: Facts) -> str:
    """Return a table of scenes x requested errors."""
    rows, n_draws = result["rows"], result["n_draws"]
    by_scene = []
    for row in rows:
        scene = row["scene"]
        strength = "" if scene["C"] == 1 else f", C = {scene['C']:g}"
        cells = [f"{scene['n_groups']} x {scene['n_images']}, {scene['n_classes']}{strength}"]
        cells.append(f"{row['accuracy']:.2f}")
        for error in MAX_ERRORS:
            own = row[f"tested {error:g}"]
            sure = f"{own['sure']:.0%}, {own['wrong']:.1%} wrong; {_broken(own, n_draws)}"
            cells.append(sure if own["sure"] else "none")
        by_scene.append(cells)
    errors = [f"at most {error:.0%}" for error in MAX_ERRORS]
    return (
        f"{n_draws} draws of each. Share of sure answers, share of wrong ones among them; share of "
        "draws in which more are wrong than requested [Wilson's 95 % interval], where at most "
        f"{1 - CERTAINTY:.0%} are allowed.\n\n"
        f"{table(['groups x images, classes', 'accuracy', *errors], by_scene)}"
    )


def _broken(own: dict[str, float], n_draws: int) -> str:
    return with_interval(own["broken"], wilson_interval(own["broken"], n_draws), ".1%")


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "uncertainty" / "sure.json")
    parser.add_argument("--draws", type=int, default=200)
    options = parse(parser, argv)
    rows = [measure(scene, options.draws) for scene in SCENES]
    result = {"n_draws": options.draws, "rows": rows, "origin": origin()}
    save_result(options.out, result)
    print(sure_table(result))


if __name__ == "__main__":
    main()
