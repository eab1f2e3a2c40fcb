"""Write the tables of the READMEs from the stored results; no figure is typed by hand.

python benchmarks/tables.py            # rewrite the tables
python benchmarks/tables.py --check    # fail if a README differs from the results
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accuracy_tables import LAYOUT, accuracy_section, front_table
from alignment_table import alignment_section, clean_section, hard_section
from alignment_table import speed_table as alignment_speed_table
from defects_table import carrillo_table, defects_section
from defects_table import front_table as front_defects
from defects_table import speed_table as map_speed_table
from doubt_table import doubt_sentence, doubt_table, labelling_table
from extract_scale_table import cost_table, scale_section
from luo2021_tables import experiment_table, stages_table
from modarres2017_tables import comparison
from review_load_table import load_table
from tried_table import tried_table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ACCURACY_OF = ("mobilenet_v2", "vgg16")  # networks of the accuracy benchmark
NOT_YET = "Not measured yet."


def speed_table(rows: list[dict[str, Any]]) -> str:
    """Return times beside the network's own, medians over rounds of the ratio within a round."""
    lines = [
        "| network | image | codebook | network alone | the same, folded | ours, finest grid "
        "| ours, every pixel | naive dense | 5,000 pixels | classifier's encoder "
        "| VLAD part: naive / ours, finest | naive / ours, every pixel |",
        f"|{'---|' * 12}",
    ]
    for row in rows:
        ms = row["ms"]
        cells = [row["backbone"], f"{row['size']} px", row["codebook"]]
        cells.append(f"{median(ms['network']):.1f} ms")
        cells += [times(ms, m, "network") for m in ("folded", "finest", "image")]
        cells += [times(ms, m, "network") for m in ("naive", "sampled", "classifier")]
        cells += [times(ms, "VLAD part, naive", f"VLAD part, {g}") for g in ("finest", "image")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def memory_table(rows: list[dict[str, Any]]) -> str:
    """Return peaks of memory, one image, the network's own pass included in each."""
    methods = {"network": "network alone", "folded": "the same, folded"}
    methods |= {"finest": "ours, finest grid", "image": "ours, every pixel"}
    methods |= {"naive": "naive dense", "sampled": "5,000 pixels"}
    methods["classifier"] = "classifier's encoder"
    lines = [
        f"| network | image | codebook | {' | '.join(methods.values())} |",
        f"|{'---|' * (3 + len(methods))}",
    ]
    for row in rows:
        peaks = [row["peak_mb"].get(method) for method in methods]
        cells = [row["backbone"], f"{row['size']} px", row["codebook"]]
        cells += ["–" if peak is None else f"{peak:.0f} MB" for peak in peaks]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def speed_sentence(rows: list[dict[str, Any]]) -> str:
    """Return the first row of the speeds in words."""
    row, ms = rows[0], rows[0]["ms"]
    classifier = ""
    if "classifier" in ms:
        classifier = (
            f", that of the classifier, which passes over an image twice, "
            f"{times(ms, 'classifier', 'network')}"
        )
    return (
        f"On two CPU threads the encoding of a {row['size']} px image by `HypercolumnVLAD()` takes "
        f"{times(ms, 'finest', 'network')} the time of one pass of the network "
        f"({row['backbone']}){classifier}; upsampling every channel to every pixel, the naive "
        f"way, takes {times(ms, 'naive', 'network')}."
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


def accuracy_results() -> list[dict[str, Any]]:
    """Return the stored results of `accuracy.py`, the default network's first."""
    files = sorted(
        (HERE / "results").glob("accuracy_*.json"),
        key=lambda f: ("mobilenet" not in f.name, f.name),
    )
    stored = [load(file.name) for file in files]
    for file, facts in zip(files, stored, strict=True):
        if facts.get("layout") != LAYOUT:
            sys.exit(
                f"{file.name} has another layout ({facts.get('layout')}, not {LAYOUT}): run "
                "accuracy.py again, or take the file away"
            )
    return [_largest_first(facts) for facts in stored]


def _largest_first(facts: dict[str, Any]) -> dict[str, Any]:
    """Put the data sets into one order, in whatever one they were measured."""
    names = sorted(facts["sets"], key=lambda name: -facts["sets"][name]["n"])
    rows = sorted(facts["rows"], key=lambda row: names.index(row["data"]))
    return facts | {"sets": {name: facts["sets"][name] for name in names}, "rows": rows}


def accuracy_tables(stored: list[dict[str, Any]]) -> str:
    """Return the tables of every network, and which have not been measured."""
    sections = [accuracy_section(facts) for facts in stored]
    known = {facts["backbone"] for facts in stored}
    sections += [f"**{name}**: {NOT_YET.lower()}" for name in ACCURACY_OF if name not in known]
    return "\n\n".join(sections)


def tried_tables() -> str:
    """Return the tables of what was tried on each network."""
    files = sorted((HERE / "results").glob("tried_*.json"))
    return "\n\n".join(tried_table(load(file.name)) for file in files) or NOT_YET


def scale_tables(section: Callable[[dict[str, Any]], str]) -> str:
    """Return what was measured of extraction."""
    files = sorted((HERE / "results").glob("extract_scale_*.json"))
    return "\n\n".join(section(load(file.name)) for file in files) or NOT_YET


def defects_tables(section: Callable[[list[dict[str, Any]]], str]) -> str:
    """Return how well defects are found on each surface."""
    files = sorted((HERE / "results").glob("defects_*.json"))
    return section([load(file.name) for file in files]) if files else NOT_YET


def modarres2017_tables() -> str:
    """Return what the 2017 paper's two ways gave on each set of images."""
    files = sorted((HERE / "results").glob("modarres2017_*.json"))
    return comparison([load(file.name) for file in files]) if files else NOT_YET


def stored_table(name: str, table: Callable[[dict[str, Any]], str]) -> str:
    """Return the table of one file of results, if there is one."""
    return table(load(name)) if (HERE / "results" / name).exists() else NOT_YET


def alignment_tables() -> dict[str, str]:
    """Return how well the aligned fraction is measured, by table."""
    sections = {"": alignment_section, "-hard": hard_section, "-clean": clean_section}
    tables = {f"alignment{k}": stored_table("alignment.json", v) for k, v in sections.items()}
    speed = stored_table("speed_of_alignment.json", alignment_speed_table)
    return tables | {"alignment-speed": speed}


def pages() -> dict[Path, dict[str, str]]:
    """Return every table by its page and name."""
    speed = load("encode_speed_cpu.json")["rows"]
    here = {"speed": speed_table(speed), "memory": memory_table(speed)}
    luo2021 = [load(path.name) for path in sorted((HERE / "results").glob("luo2021_*.json"))]
    here |= {"luo2021": experiment_table(luo2021), "luo2021-stages": stages_table(luo2021)}
    here["modarres2017"] = modarres2017_tables()
    accuracy = accuracy_results()
    here |= {"accuracy": accuracy_tables(accuracy), "tried": tried_tables()}
    here |= {"scale": scale_tables(scale_section), "defects": defects_tables(defects_section)}
    here["carrillo"] = stored_table("carrillo2020.json", carrillo_table)
    here["map-speed"] = stored_table("speed_of_defect_maps.json", map_speed_table)
    here["doubt"] = stored_table("doubt.json", doubt_table)
    here["labelling"] = stored_table("labelling.json", labelling_table)
    here["review"] = stored_table("review_load.json", load_table)
    here |= alignment_tables()
    scaling = {"cost": scale_tables(cost_table)}
    compared = front_table(accuracy[0]) if accuracy else NOT_YET
    front = {"compare": f"{compared}\n\n{speed_sentence(speed)}"}
    front["sets"] = stored_table("doubt.json", doubt_sentence)
    front["found"] = defects_tables(front_defects)
    return {
        ROOT / "README.md": front,
        ROOT / "docs" / "scaling.md": scaling,
        HERE / "README.md": here,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for page, tables in pages().items():
        before = page.read_text(encoding="utf-8")
        after = with_tables(before, tables)
        if before != after:
            stale.append(page.relative_to(ROOT).as_posix())
            if not check:
                page.write_text(after, encoding="utf-8", newline="\n")
    if check and stale:
        sys.exit(f"stale tables in {', '.join(stale)}: run python benchmarks/tables.py")


if __name__ == "__main__":
    main()
