"""Tables of the speed of encoding, extraction and the first commands, from the stored results."""

from __future__ import annotations

import math
from statistics import linear_regression, median

from benchmarks.common.results import Facts
from benchmarks.common.tables import table, times

REFERENCE = "import torch, torchvision"  # what times of whole processes are compared with


def speed_table(rows: list[Facts]) -> str:
    """Return times relative to the network, as medians over rounds of the ratio in a round."""
    heads = ["network", "image", "codebook", "network alone", "the same, folded"]
    heads += ["ours, finest grid", "ours, every pixel", "naive dense", "5,000 pixels"]
    heads += ["classifier's encoder", "VLAD part: naive / ours, finest"]
    lines = []
    for row in rows:
        ms = row["ms"]
        cells = [row["backbone"], f"{row['size']} px", row["codebook"]]
        cells.append(f"{median(ms['network']):.1f} ms")
        cells += [times(ms, m, "network") for m in ("folded", "finest", "image")]
        cells += [times(ms, m, "network") for m in ("naive", "sampled", "classifier")]
        cells += [times(ms, "VLAD part, naive", f"VLAD part, {g}") for g in ("finest", "image")]
        lines.append(cells)
    return table([*heads, "naive / ours, every pixel"], lines)


def fast_table(rows: list[Facts]) -> str:
    """Return times with OpenVINO beside those in torch alone, relative to the network."""
    heads = ["network", "image", "codebook", "network, folded", "finest grid", "every pixel"]
    lines = []
    for row in rows:
        ms = row["ms"]
        if "fast finest" in ms:
            cells = [row["backbone"], f"{row['size']} px", row["codebook"]]
            for method in ("folded", "finest", "image", "classifier"):
                pair = (times(ms, each, "network") for each in (method, f"fast {method}"))
                cells.append(" → ".join(pair))
            lines.append(cells)
    return table([*heads, "classifier's encoder"], lines)


def calls_table(calls: dict[str, dict[str, list[float]]]) -> str:
    """Return times per image of calls with few and many images, relative to the network alone."""
    ways = {"vlad": "`HypercolumnVLAD()`", "classifier": "classifier's encoder"}
    lines = [
        [f"{name}, `runtime={runtime!r}`"]
        + [times(ms, f"{way}, {runtime}", "network") for ms in calls.values()]
        for way, name in ways.items()
        for runtime in ("torch", "auto")
    ]
    return table(["call", *(f"{n} images" if n != "1" else "1 image" for n in calls)], lines)


def memory_table(rows: list[Facts]) -> str:
    """Return peaks of memory for one image: in torch alone, then with OpenVINO."""
    methods = {"network": "network alone", "folded": "the same, folded"}
    methods |= {"finest": "ours, finest grid", "image": "ours, every pixel"}
    methods |= {"naive": "naive dense", "sampled": "5,000 pixels"}
    methods["classifier"] = "classifier's encoder"

    def peaks(row: Facts, method: str) -> str:
        both = [row["peak_mb"].get(each) for each in (method, f"fast {method}")]
        return " → ".join(f"{peak:.0f} MB" for peak in both if peak is not None) or "–"

    return table(
        ["network", "image", "codebook", *methods.values()],
        [
            [
                row["backbone"],
                f"{row['size']} px",
                row["codebook"],
                *(peaks(row, m) for m in methods),
            ]
            for row in rows
        ],
    )


def front_sentence(rows: list[Facts]) -> str:
    """Return the first row of the speeds as a sentence."""
    row, ms = rows[0], rows[0]["ms"]
    return (
        f"On two CPU threads, encoding a {row['size']} px image with `HypercolumnVLAD()` takes "
        f"{times(ms, 'finest', 'network')} the time of one pass of the network "
        f"({row['backbone']}); the encoder of the classifier, with two passes per image, takes "
        f"{times(ms, 'classifier', 'network')} (with OpenVINO "
        f"{times(ms, 'fast finest', 'network')} and {times(ms, 'fast classifier', 'network')}). "
        "The naive method, which upsamples every channel to every pixel, takes "
        f"{times(ms, 'naive', 'network')}."
    )


def first_minutes_table(facts: Facts) -> str:
    """Return the times of whole processes, also relative to the imports of the same round."""
    seconds, processor = facts["seconds"], facts["processor"]
    heads = ["what", "time", "of the processor", f"times `{REFERENCE}`", "the same, processor"]
    return table(
        heads,
        [
            [
                f"`{name}`" if name.startswith("import") else name,
                f"{median(seconds[name]):.1f} s",
                f"{median(processor[name]):.1f} s",
                times(seconds, name, REFERENCE),
                times(processor, name, REFERENCE),
            ]
            for name in seconds
        ],
    )


def large_images_table(facts: Facts) -> str:
    """Return the peak of memory and the time of the processor, for each command and size."""
    rows = facts["rows"]
    sizes = sorted({row["size"] for row in rows})
    cells: dict[str, dict[int, str]] = {}
    for row in rows:
        own = f"{row['peak_mb'] / 1e3:.1f} GB, {row['processor']:.0f} s"
        cells.setdefault(row["what"], {})[row["size"]] = own
    heads = ["peak of memory, processor time", *(f"{size:,} px" for size in sizes)]
    return table(heads, [[what, *(own[size] for size in sizes)] for what, own in cells.items()])


def fitting_table(facts: Facts) -> str:
    """Return the time of a fit by stage, for each number of images, and how it grows."""
    rows = facts["rows"]
    stages = list(rows[0]["stages"])
    heads = ["images", *stages, "all", "per image", "peak of memory"]
    cells = [
        [
            f"{row['n']:,}",
            *(f"{row['stages'][stage]:.1f} s" for stage in stages),
            f"{row['seconds']:.1f} s",
            f"{1000 * row['seconds'] / row['n']:.0f} ms",
            f"{row['peak_mb'] / 1000:.1f} GB",
        ]
        for row in rows
    ]
    if len(rows) < 2:
        return table(heads, cells)
    power = _slope([(row["n"], row["seconds"]) for row in rows])
    memory = linear_regression(*zip(*((r["n"], r["peak_mb"]) for r in rows), strict=True))
    grown = (
        f"The time of a fit grows with the power {power:.2f} of the number of images; each image "
        f"adds {1000 * memory.slope:.0f} kB to the peak of memory."
    )
    return f"{table(heads, cells)}\n\n{grown}"


def scale_section(facts: Facts) -> str:
    """Return the table and what follows from it."""
    return "\n\n".join([_table(facts), "\n".join(f"- {line}" for line in verdicts(facts))])


def verdicts(facts: Facts) -> list[str]:
    """Return whether time grows linearly and memory stays constant, and the costs."""
    bare = {name: median(values) for name, values in facts["bare"].items()}
    large = {name: median(values) for name, values in facts["large"].items()}
    small, most = min(_sizes(facts)), max(_sizes(facts))
    lines = []
    for way in _setups(facts):
        for state in ("cold", "cached"):
            growth = _peak(facts, most, way, state) / _peak(facts, small, way, state) - 1
            lines.append(
                f"{way}, {state}: time grows with the power {exponent(facts, way, state):.2f} of "
                f"the number of images; memory {growth:+.0%} from {small:,} to {most:,}."
            )
    rates = {way: _row(facts, most, way, "cold")["steady"] for way in _setups(facts)}
    first = rates["1 job"]
    lines.append(
        "Steady rates, without start-up, against one job of two threads: "
        + ", ".join(f"{way} {rate / first:.2f} x" for way, rate in rates.items())
        + "."
    )
    lines.append(
        f"Extraction of {facts['n_bare']} images takes "
        f"{bare['extraction'] / bare['bare loop']:.2f} x the bare loop *decode, resize, "
        f"encoder.transform*, and {bare['extraction'] / bare['network']:.2f} x the network's "
        "passes alone."
    )
    lines.append(
        f"{facts['n_large']} images of 1,024 px: from the cache, unchanged, "
        f"{large['cold'] / large['cached']:.0f} x as fast as cold "
        f"({1000 * large['cold'] / facts['n_large']:.1f} and "
        f"{1000 * large['cached'] / facts['n_large']:.2f} ms per image)."
    )
    lines.append(
        f"The file has {facts['bytes'] / 1000:.1f} kB per image, with "
        f"{facts['features']:,} features."
    )
    return lines


def cost_table(facts: Facts) -> str:
    """Return the cost of up to a hundred million images at the measured steady rates."""
    most = max(_sizes(facts))
    best = max(_row(facts, most, way, "cold")["steady"] for way in _setups(facts))
    cached = _row(facts, most, "1 job", "cached")["steady"]
    cores = facts["machine"]["cores"]
    heads = ["images", "one machine like this one, cold", "machines for one day"]
    heads += ["machines for one week", "again, from the cache", "file of features", "cache"]
    lines = []
    for n in (100_000, 1_000_000, 100_000_000):
        hours = n / best / 3600
        cells = [
            f"{n:,}",
            _hours(hours),
            f"{math.ceil(hours / 24):,}",
            f"{math.ceil(hours / 168):,}",
            _hours(n / cached / 3600),
            _bytes(n * facts["bytes"]),
            _bytes(n * facts["cache_bytes"]),
            f"{math.ceil(n / facts['task_size']):,}",
        ]
        lines.append(cells)
    note = (
        f"At {best:.0f} images per second on {cores} CPU cores, {facts['features']:,} features "
        f"({facts['bytes'] / 1000:.1f} kB) and {facts['cache_bytes'] / 1000:.1f} kB of cache per "
        "image."
    )
    return f"{note}\n\n{table([*heads, 'batches'], lines)}"


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:,.0f} days"


def _bytes(n: float) -> str:
    for unit in ("MB", "GB", "TB"):
        n /= 1000 if unit != "MB" else 1e6
        if n < 1000 or unit == "TB":
            return f"{n:,.1f} {unit}"
    raise AssertionError


def exponent(facts: Facts, way: str, state: str) -> float:
    """Return the power of the number of images with which time grows, without start-up."""
    rows = [_row(facts, n, way, state) for n in _sizes(facts)]
    return _slope([(row["n"], row["seconds"] - row["first"]) for row in rows])


def _slope(points: list[tuple[float, float]]) -> float:
    """Return the slope of log(y) over log(x) by least squares."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    return linear_regression(*zip(*logs, strict=True)).slope


def _table(facts: Facts) -> str:
    head = ["way", "state", *(f"{n:,} images" for n in _sizes(facts)), "steady", "start-up", "peak"]
    lines = []
    most = max(_sizes(facts))
    for way in _setups(facts):
        for state in ("cold", "cached"):
            row = _row(facts, most, way, state)
            cells = [way, state]
            cells += [f"{_row(facts, n, way, state)['seconds']:.1f} s" for n in _sizes(facts)]
            cells += [f"{row['steady']:.0f} images/s", f"{row['before'] + row['first']:.1f} s"]
            peaks = f"{row['peak_mb']:.0f} MB"
            if row["peak_workers_mb"]:
                peaks += f" + {row['peak_workers_mb']:.0f} MB per worker"
            lines.append([*cells, peaks])
    return table(head, lines)


def _peak(facts: Facts, n: int, way: str, state: str) -> float:
    row = _row(facts, n, way, state)
    peak: float = row["peak_mb"] + row["peak_workers_mb"]
    return peak


def _row(facts: Facts, n: int, way: str, state: str) -> Facts:
    (row,) = [r for r in facts["rows"] if (r["n"], r["way"], r["state"]) == (n, way, state)]
    return row


def _sizes(facts: Facts) -> list[int]:
    return sorted({row["n"] for row in facts["rows"]})


def _setups(facts: Facts) -> list[str]:
    return list(dict.fromkeys(row["way"] for row in facts["rows"]))
