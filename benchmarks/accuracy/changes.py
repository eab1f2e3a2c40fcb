"""Has the default become better or worse? Its predictions now against those of an earlier state.

Both results have the same data sets and folds. Groups are resampled, the same ones before and now.
The intervals hold together: with n comparisons, each is one of 1 - 0.05 / n (Bonferroni).

    git show REVISION:benchmarks/results/accuracy/accuracy_mobilenet_v2.json > before.json
    git show REVISION:benchmarks/results/accuracy/accuracy_mobilenet_v2.npz > before.npz
    python -m benchmarks.accuracy.changes before.json --data ../shared/data

Other labelled folders are compared too, if both states have measured them with the same
``--folder DIR --methods default --repeats 1 --out FILE``:

    python -m benchmarks.accuracy.changes before.json other_before.json \\
        --now accuracy.json other_now.json --data ../shared/data --folder DIR
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.predictions import load_predictions
from benchmarks.accuracy.tables import DEFAULT
from benchmarks.common.folds import DataSet
from benchmarks.common.results import RESULTS, save_result
from benchmarks.common.scores import GroupDraws, OutOfFold
from benchmarks.common.tables import table

N_DRAWS = 20_000  # the corrected quantiles lie far out
# Larger is better; the loss is shown as it is, and its difference is turned.
SCORES = ("accuracy", "balanced accuracy", "log-loss")


def score_draws(found: OutOfFold, draws: GroupDraws) -> np.ndarray:
    """Return the scores of resampled groups, larger is better: (3, n_draws)."""
    counts = np.stack([draws.sums(found.codes == k) for k in np.unique(found.codes)])
    right = np.stack([draws.sums(found.right * (found.codes == k)) for k in np.unique(found.codes)])
    with np.errstate(invalid="ignore"):  # a sample may lack a rare class: it has no recall then
        recalls = right / counts
    return np.stack(
        [draws.means(found.right), np.nanmean(recalls, axis=0), -draws.means(found.losses)]
    )


def scores(found: OutOfFold) -> np.ndarray:
    """Return the scores, larger is better: (3,)."""
    return np.array([found.right.mean(), found.balanced_accuracy, -found.losses.mean()])


def changes(
    before: Mapping[str, Any], now: Mapping[str, Any], load: Callable[[str], DataSet]
) -> list[dict[str, Any]]:
    """Return a row for each set and score. Both are stored results with their ``predictions``."""
    names = [name for name in now["sets"] if name in before["sets"]]
    level = 0.05 / (len(names) * len(SCORES))
    rows = []
    for name in names:
        if before["sets"][name]["digest"] != now["sets"][name]["digest"]:
            raise ValueError(f"{name} has other images than before")
        data = load(name)
        old, new = (
            OutOfFold.of(data, f["predictions"][name].proba[DEFAULT]) for f in (before, now)
        )
        draws = GroupDraws(new.groups, name, N_DRAWS)
        low, high = np.percentile(
            score_draws(new, draws) - score_draws(old, draws),
            [50 * level, 100 - 50 * level],
            axis=1,
        )
        for i, score in enumerate(SCORES):
            values = {"before": float(scores(old)[i]), "now": float(scores(new)[i])}
            rows.append({"set": name, "score": score, "low": float(low[i]), "high": float(high[i])})
            rows[-1] |= values
    return rows


def changes_table(facts: Mapping[str, Any]) -> str:
    """Return the table of a stored result, and what has become worse."""
    lines, fallen = [], []
    for row in facts["changes"]:
        gain = row["now"] - row["before"]
        lines.append(
            [
                row["set"],
                row["score"],
                f"{abs(row['before']):.3f}",
                f"{abs(row['now']):.3f}",
                f"{gain:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]",
            ]
        )
        if gain < 0:
            beyond = "beyond" if row["high"] < 0 else "within"
            fallen.append(f"{row['score']} on {row['set']} ({beyond} the interval)")
    head = ["set", "score", f"before (revision `{facts['before']}`)", "now", "gain"]
    falls = f"Worse than before: {', '.join(fallen)}." if fallen else "Nothing is worse."
    return f"**{facts['backbone']}**\n\n{table(head, lines)}\n\n{falls}"


def read(paths: Sequence[Path]) -> dict[str, Any]:
    """Return stored results of the same network, with their predictions, as one."""
    joined: dict[str, Any] = {"sets": {}, "rows": [], "predictions": {}}
    for path in paths:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["backbone"] != joined.setdefault("backbone", facts["backbone"]):
            raise SystemExit(f"{path}: of {facts['backbone']}, not of {joined['backbone']}")
        joined["sets"] |= facts["sets"]
        joined["rows"] += facts["rows"]
        joined["predictions"] |= load_predictions(path.with_suffix(".npz"), facts)
    return joined


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, nargs="+", help="JSON files of the earlier results")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument(
        "--folder", type=Path, action="append", default=[], help="another labelled folder"
    )
    parser.add_argument("--now", type=Path, nargs="+", help="by default, the stored results")
    parser.add_argument("--out", type=Path, help="JSON file to write, none by default")
    arguments = parser.parse_args(argv)
    before = read(arguments.before)
    name = before["backbone"]
    now = read(arguments.now or [RESULTS / "accuracy" / f"accuracy_{name}.json"])
    folders = {folder.name: folder for folder in arguments.folder}
    revisions = {row["measured"]["revision"] for row in before["rows"] if row["method"] == DEFAULT}
    facts = {
        "backbone": name,
        "before": ", ".join(sorted(revisions)),
        "changes": changes(before, now, lambda n: DataSet.load(folders.get(n, arguments.data / n))),
    }
    if arguments.out:
        save_result(arguments.out, facts)
    print(changes_table(facts))


if __name__ == "__main__":
    main()
