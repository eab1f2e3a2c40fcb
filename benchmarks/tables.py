"""Write the tables of the READMEs from the stored results; no figure is typed by hand.

python benchmarks/tables.py            # rewrite the tables
python benchmarks/tables.py --check    # fail if a README differs from the results
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def speed_table(rows: list[dict[str, Any]]) -> str:
    """Return times beside the network's own, medians over rounds of the ratio within a round."""
    lines = [
        "| network | image | codebook | network alone | ours, finest grid | ours, every pixel "
        "| naive dense | 5,000 pixels | VLAD part: naive / ours, finest "
        "| naive / ours, every pixel |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ms = row["ms"]
        cells = [row["backbone"], f"{row['size']} px", row["codebook"]]
        cells.append(f"{median(ms['network']):.1f} ms")
        cells += [times(ms, m, "network") for m in ("finest", "image", "naive", "sampled")]
        cells += [times(ms, "VLAD part, naive", f"VLAD part, {g}") for g in ("finest", "image")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def memory_table(rows: list[dict[str, Any]]) -> str:
    """Return peaks of memory, one image, the network's own pass included in each."""
    methods = {"network": "network alone", "finest": "ours, finest grid"}
    methods |= {"image": "ours, every pixel", "naive": "naive dense", "sampled": "5,000 pixels"}
    lines = [
        f"| network | image | codebook | {' | '.join(methods.values())} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        peaks = [row["peak_mb"].get(method) for method in methods]
        cells = [row["backbone"], f"{row['size']} px", row["codebook"]]
        cells += ["–" if peak is None else f"{peak:.0f} MB" for peak in peaks]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def accuracy_table(rows: list[dict[str, Any]]) -> str:
    """Return out-of-fold scores, a line a method and data set."""
    lines = [
        "| data | method | accuracy [95 % interval] | balanced accuracy | log-loss "
        "| calibration error |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["interval"]
        lines.append(
            f"| {row['data']} ({row['n']}) | {row['method']} | {row['accuracy']:.3f} "
            f"[{low:.3f}, {high:.3f}] | {row['balanced_accuracy']:.3f} | {row['log_loss']:.3f} "
            f"| {row['calibration_error']:.3f} |"
        )
    return "\n".join(lines)


def comparison_table(accuracy: list[dict[str, Any]]) -> str:
    """Return accuracy and log-loss, methods x data sets, for the front page."""
    names = list(dict.fromkeys(row["data"] for row in accuracy))
    methods = dict.fromkeys(row["method"] for row in accuracy if "a layer" not in row["method"])
    lines = [
        f"| accuracy / log-loss | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for method in methods:
        by_name = {row["data"]: row for row in accuracy if row["method"] == method}
        cells = [f"{by_name[n]['accuracy']:.3f} / {by_name[n]['log_loss']:.3f}" for n in names]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def luo2021_table(results: list[dict[str, Any]]) -> str:
    """Return the 2021 experiment, a line a method, split and size, after the paper's own."""
    lines = [
        "| images | classes | split | method | accuracy | fit | fit, cached | predict, an image "
        "| cached | peak of memory |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        paper, n_classes = result["paper"], len(result["classes"])
        baseline = paper["baseline"]
        told = f"; its fc2 baseline {100 * baseline:.1f} %" if baseline else ""
        lines.append(
            f"| 5,323, the paper's own | {n_classes} | random | *the paper* "
            f"| *{100 * paper['accuracy']:.1f} %{told}* | *{paper['fit_hours']} h "
            f"({paper['fit_images']:,} images)* | | *{paper['image_seconds']} s* | | |"
        )
        lines += [_luo2021_line(result, row) for row in result["rows"]]
    return "\n".join(lines)


def _luo2021_line(result: dict[str, Any], row: dict[str, Any]) -> str:
    data = f"{row['n_images']:,} {'**synthetic**' if result['synthetic'] else result['data']}"
    accuracy = f"{100 * row['accuracy']:.1f} %"
    if row["interval"] is None:
        accuracy += f" ± {100 * row['spread']:.1f} ({len(row['seeds'])} splits)"
    else:
        accuracy += " [{:.1f}, {:.1f}]".format(*(100 * bound for bound in row["interval"]))
    peak = "–" if row["peak_mb"] is None else f"{row['peak_mb'] / 1000:.1f} GB"
    cells = [data, str(len(result["classes"])), row["split"], row["label"], accuracy]
    cells += [f"{duration(row['fit_seconds'])} ({row['n_train']:,} images)"]
    cells += [duration(row["cached_fit_seconds"]), f"{row['image_seconds']:.3f} s"]
    cells += [f"{row['cached_image_seconds']:.3f} s", peak]
    return f"| {' | '.join(cells)} |"


def luo2021_stages_table(results: list[dict[str, Any]]) -> str:
    """Return where the time of fit goes, without a cache."""
    rows = [(result, row) for result in results for row in result["rows"]]
    stages = list(dict.fromkeys(stage for _, row in rows for stage in row["fit_stages"]))
    lines = [
        f"| method | images learnt from | classes | {' | '.join(stages)} |",
        f"|---|---|---|{'---|' * len(stages)}",
    ]
    for result, row in rows:
        if row["split"] != "random":
            continue
        cells = [row["label"], f"{row['n_train']:,}", str(len(result["classes"]))]
        for stage in stages:
            seconds = row["fit_stages"].get(stage)
            cells.append("–" if seconds is None else duration(seconds))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a time with the unit that suits it."""
    if seconds < 99.5:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.2f} h"


def speed_sentence(rows: list[dict[str, Any]]) -> str:
    """Return the first row of the speeds in words."""
    row, ms = rows[0], rows[0]["ms"]
    return (
        f"On two CPU threads the whole encoding of a {row['size']} px image takes "
        f"{times(ms, 'finest', 'network')} the time of the network's own pass ({row['backbone']}); "
        f"upsampling every channel to every pixel, the naive way, takes "
        f"{times(ms, 'naive', 'network')}."
    )


def median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return (ordered[middle] + ordered[-middle - 1]) / 2


def times(ms: dict[str, list[float]], numerator: str, denominator: str) -> str:
    """Return the median over rounds of the ratio within a round."""
    if numerator not in ms:
        return "–"
    pairs = zip(ms[numerator], ms[denominator], strict=True)
    return f"{median([a / b for a, b in pairs]):.2f} x"


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((HERE / "results" / name).read_text(encoding="utf-8"))
    return content


def with_tables(text: str, tables: dict[str, str]) -> str:
    """Replace what stands between <!-- name:begin --> and <!-- name:end -->."""
    for name, table in tables.items():
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise SystemExit(f"no place for the table {name!r}")
        head, rest = text.split(begin)
        text = f"{head}{begin}{table}\n{end}{rest.split(end)[1]}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    speed = load("encode_speed_cpu.json")["rows"]
    accuracy = load("accuracy_mobilenet_v2.json")["rows"]
    luo2021 = [load(path.name) for path in sorted((HERE / "results").glob("luo2021_*.json"))]
    pages = {
        ROOT / "README.md": {"compare": f"{comparison_table(accuracy)}\n\n{speed_sentence(speed)}"},
        HERE / "README.md": {
            "speed": speed_table(speed),
            "memory": memory_table(speed),
            "accuracy": accuracy_table(accuracy),
            "luo2021": luo2021_table(luo2021),
            "luo2021-stages": luo2021_stages_table(luo2021),
        },
    }
    stale = []
    for page, tables in pages.items():
        before = page.read_text(encoding="utf-8")
        after = with_tables(before, tables)
        if before != after:
            stale.append(page.relative_to(ROOT).as_posix())
            if not check:
                page.write_text(after, encoding="utf-8")
    if check and stale:
        sys.exit(f"stale tables in {', '.join(stale)}: run python benchmarks/tables.py")


if __name__ == "__main__":
    main()
