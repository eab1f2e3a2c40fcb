"""Which network? The default method on several networks, compared on the same folds.

    python -m benchmarks.accuracy --data ../shared/data --methods default --out lite0.json \\
        --backbone timm/tf_efficientnet_lite0 --weights efficientnet-lite0-57934424.pth
    python -m benchmarks.networks.accuracy --data ../shared/data lite0.json

Each file is a result of `benchmarks.accuracy`; the first to compare with is the project's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy.predictions import Predictions, read_predictions
from benchmarks.accuracy.tables import DEFAULT
from benchmarks.common.data import DATA_SETS, DataSet
from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, load_result, save_result
from benchmarks.common.scores import GroupDraws, OutOfFold, mean_rows, set_rows
from benchmarks.common.tables import table

OWN = "mobilenet_v2"


def compare(files: Sequence[Path], data_sets: dict[str, DataSet]) -> dict[str, Any]:
    """Return the scores of each network on each data set, and their means over the sets."""
    by_network: dict[str, dict[str, Predictions]] = {
        str(load_result(file)["backbone"]): read_predictions(file, data_sets) for file in files
    }
    results, draws, rows = [], [], []
    for name, data in data_sets.items():
        found = {
            network: OutOfFold.of(data, predictions[name].proba[DEFAULT])
            for network, predictions in by_network.items()
        }
        results.append(found)
        draws.append(GroupDraws(next(iter(found.values())).groups, name))
        for network, row in set_rows(found, OWN, draws[-1]).items():
            rows.append({"data": name, "network": network} | row)
    means = mean_rows(results, OWN, draws)
    return {"rows": rows, "means": [{"network": name} | row for name, row in means.items()]}


def networks_table(facts: dict[str, Any]) -> str:
    """Return accuracy and log-loss of each network, and its gain on the default one."""
    names = list(dict.fromkeys(row["data"] for row in facts["rows"]))
    lines = []
    for mean in facts["means"]:
        own = [row for row in facts["rows"] if row["network"] == mean["network"]]
        gains = []
        for kind in ("accuracy", "log_loss"):
            against = mean[f"{kind}_against"]["default"]
            gains.append(f"{against['gain']:+.3f} ± {against['error']:.3f}")
        lines.append(
            [mean["network"]]
            + [f"{row['accuracy']:.3f} ({row['log_loss']:.3f})" for row in own]
            + [f"{mean['accuracy']:.3f} ({mean['log_loss']:.3f})"]
            + (["", ""] if mean["network"] == OWN else gains)
        )
    head = ["network", *names, "mean", "gain in accuracy", "gain in log-loss"]
    return table(head, lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "networks" / "accuracy.json")
    parser.add_argument("results", nargs="+", type=Path, help="JSON files of other networks")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    options = parse(parser, argv)
    files = [RESULTS / "accuracy" / f"accuracy_{OWN}.json", *options.results]
    result = compare(files, {name: DataSet.load(options.data / name) for name in DATA_SETS})
    save_result(options.out, result)
    print(networks_table(result))


if __name__ == "__main__":
    main()
