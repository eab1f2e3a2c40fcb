"""Are scale bars found, how exact are their lengths, and is anything else taken for one?

Bars of many layouts are drawn on ten kinds of images, which are stored in three ways in turn. With
--data, real images with a bar of known length are measured, and real images without one searched.
With the extra `ocr`, the labels of bars of the right length are read. With --annotations, it is
measured how much of what is drawn would be left out of an analysis, and how much of the sample.

    python -m benchmarks.scale_bars --data ../shared/data
    python -m benchmarks.scale_bars --annotations
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.common.data import as_jpeg
from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table
from benchmarks.scale_bars.layouts import APART, CHOSEN, backgrounds
from hypervlad.images import find_annotations, find_images, find_scale_bar
from hypervlad.images.annotations import annotation_mask
from hypervlad.images.metadata import length_in_nm, parse_length
from hypervlad.images.reading import decode_stored
from hypervlad.images.scale_labels import LabelReader, new_label_reader

SEED = 4801
SIZE = (512, 768)
LENGTHS = (30, 400)  # pixels
N_ROUNDS, N_WITHOUT = 1, 2  # drawings of each layout on each background; scans without a bar
N_CHOSEN = 5  # backgrounds that thresholds were chosen on
DRAWN_LENGTHS, VISIBLE, MOSTLY = (60, 200), 40, 0.9  # of what is left out: pixels, grey levels
TOLERANCE = (2, 0.02)  # pixels, or as a share of the length
# Sets without scale bars. In `micrographs`, most images have one.
WITHOUT = (
    "nanofibre",
    "neu_steel",
    "magnetic_tile/images",
    "particles/sem/images",
    "particles/tsem/images",
)


def stored(image: np.ndarray, number: int) -> tuple[str, np.ndarray, float]:
    """Return an image as it may be stored, in three ways in turn, with its enlargement."""
    height, width = image.shape
    if number % 3 == 1:
        return "JPEG, quality 60", as_jpeg(image, 60), 1.0
    if number % 3 == 2:
        size = (width * 3 // 2, height * 3 // 2)
        larger = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
        return "enlarged 1.5 times", np.asarray(larger), 1.5
    return "as drawn", image, 1.0


def outcome(
    image: np.ndarray, true: float, label: str = "", read: LabelReader | None = None
) -> Facts:
    """Return whether a bar is found, by how much its length is wrong, and what is read."""
    bar = find_scale_bar(image)
    if bar is None:
        return {"result": "missed"}
    difference = bar.length - true
    is_right = abs(difference) <= max(TOLERANCE[0], TOLERANCE[1] * true)
    found = {
        "result": "right" if is_right else "wrong",
        "difference": round(difference, 2),
        "error": bar.error,
        "kind": bar.kind,
    }
    if read is not None and is_right:
        found |= {"label": label, "read": read(image / np.float32(255), bar)}
    return found


def measure(seed: int, read: LabelReader | None = None) -> Iterator[Facts]:
    """Yield the outcome for each drawn bar."""
    rng = np.random.default_rng(seed)
    for number in range(N_ROUNDS):
        scans = backgrounds(SIZE, seed + number)
        drawings = [("chosen", *each) for each in CHOSEN.items()]
        drawings += [("apart", *each) for each in APART.items()]
        for order, (half, layout, drawn) in enumerate(drawings):
            for place, (scan, pixels) in enumerate(scans.items()):
                length = int(np.exp(rng.uniform(*np.log(LENGTHS))))
                image, true, label = drawn.draw(pixels, rng, length)
                is_chosen = half == "chosen" and place < N_CHOSEN
                kind, image, scale = stored(image, number + order + place)
                yield {
                    "half": "chosen" if is_chosen else "apart",
                    "layout": layout,
                    "scan": scan,
                    "stored": kind,
                    "length": true * scale,
                    **outcome(image, true * scale, label, read),
                }
            print(layout, flush=True)


def with_text(scan: np.ndarray) -> np.ndarray:
    image = Image.fromarray(scan)
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, scan.shape[0] - 40, 300, scan.shape[0]], 0)
    draw.text((8, scan.shape[0] - 8), "SU3500 15.0kV 9.1mm", 255, font_size=20, anchor="ls")
    draw.text((8, 40), "(a) as-spun - TiO2", 255, font_size=24, anchor="ls")
    return np.asarray(image)


def measure_without(seed: int) -> Iterator[Facts]:
    """Yield how many of the images without a bar have one invented."""
    for name, change in {"no bar": np.asarray, "text, but no bar": with_text}.items():
        images = [
            stored(change(scan), number + place)[1]
            for number in range(N_WITHOUT)
            for place, scan in enumerate(backgrounds(SIZE, seed + 100 + number).values())
        ]
        found = sum(find_scale_bar(image) is not None for image in images)
        yield {"data": name, "n_images": len(images), "invented": found}


def measure_real(data: Path, read: LabelReader | None = None) -> tuple[list[Facts], list[Facts]]:
    """Return the outcomes for real images with a bar, and counts for those without."""
    folder = data / "scale_bars"
    with_bar = []
    for row in csv.DictReader((folder / "lengths.csv").read_text().splitlines()):
        pixels = decode_stored(folder / row["path"], row["path"]).pixels
        found = outcome(pixels, float(row["pixels"]), row["label"], read)
        with_bar.append({"path": row["path"], "length": int(row["pixels"]), **found})
    without = []
    for name in WITHOUT:
        paths = find_images(data / name)
        found_in = [
            str(p) for p in paths if find_scale_bar(decode_stored(p, str(p)).pixels) is not None
        ]
        without.append({"data": name, "n_images": len(paths), "invented": len(found_in)})
    return with_bar, without


def measure_annotations(seed: int) -> list[Facts]:
    """Return the shares of drawn pixels that are covered, and of others that are lost."""
    rng, found = np.random.default_rng(seed), []
    for place, scan in backgrounds(SIZE, seed).items():
        for layout, drawn in ({"nothing": None} | CHOSEN | APART).items():
            image, is_drawn = scan, np.zeros(scan.shape, bool)
            if drawn is not None:
                image = drawn.draw(scan, rng, int(rng.integers(*DRAWN_LENGTHS)))[0]
                is_drawn = np.abs(image.astype(int) - scan) > VISIBLE
            left_out = annotation_mask(find_annotations(image), image.shape)
            covered = float(left_out[is_drawn].mean()) if is_drawn.any() else None
            lost = float((left_out & ~is_drawn).mean())
            found.append({"layout": layout, "scan": place, "covered": covered, "lost": lost})
    return found


def annotations_table(result: Facts) -> str:
    """Return by layout how much of what is drawn is left out, and how much of the sample."""
    rows = []
    for layout in dict.fromkeys(case["layout"] for case in result["drawings"]):
        own = [case for case in result["drawings"] if case["layout"] == layout]
        covered = [case["covered"] for case in own if case["covered"] is not None]
        shares = ["–", "–", "–"]
        if covered:
            few = sum(each < MOSTLY for each in covered)
            shares = [f"{100 * np.mean(covered):.0f} %", f"{100 * min(covered):.0f} %"]
            shares.append(f"{few} of {len(covered)}")
        rows.append([layout, *shares, f"{100 * np.mean([case['lost'] for case in own]):.1f} %"])
    heads = ["drawn", "covered", "least", f"below {100 * MOSTLY:.0f} %", "sample left out"]
    return table(heads, rows)


def counts(cases: Sequence[Facts], key: str) -> dict[str, Facts]:
    """Count outcomes by layout, scan, storage or half."""
    found: dict[str, Facts] = {}
    for name in dict.fromkeys(case[key] for case in cases):
        own = [case for case in cases if case[key] == name]
        right = [abs(case["difference"]) for case in own if case["result"] == "right"]
        found[name] = {
            "n": len(own),
            "missed": sum(case["result"] == "missed" for case in own),
            "wrong": sum(case["result"] == "wrong" for case in own),
            "median_difference": round(float(np.median(right)), 2) if right else None,
            "largest_difference": round(max(right), 2) if right else None,
        }
    return found


def count_labels(cases: Sequence[Facts]) -> Facts:
    """Count what was read beside bars that were found."""
    pairs = [[_nm(case[name]) for name in ("label", "read")] for case in cases if "read" in case]
    printed = [(label, read) for label, read in pairs if label]
    return {
        "n": len(printed),
        "right": sum(label == read for label, read in printed),
        "not_read": sum(read is None for _, read in printed),
        "n_without": len(pairs) - len(printed),
        "invented": sum(bool(read) and not label for label, read in pairs),
    }


def _nm(label: str) -> float | None:
    return length_in_nm(*parse_length(label)) if label else None


def found_table(result: Facts) -> str:
    """Return the outcomes of images with a bar, by half, layout, scan and storage."""
    titles = {
        "chosen": "layouts and scans that thresholds were chosen on",
        "apart": "all others",
    }
    rows = []
    for head in ("half", "layout", "scan", "stored"):
        rows += [[f"**by {head}**", *[""] * 5]] if head != "half" else []
        for name, n in result["with_bar"][head].items():
            right = n["n"] - n["missed"] - n["wrong"]
            difference = "–"
            if right:
                difference = f"{n['median_difference']:.1f}, {n['largest_difference']:.1f} px"
            rows.append(
                [
                    titles.get(name, name),
                    str(n["n"]),
                    f"{100 * right / n['n']:.0f} %",
                    str(n["missed"]),
                    str(n["wrong"]),
                    difference,
                ]
            )
    real = result["real"]
    if real:
        right = [each for each in real if each["result"] == "right"]
        differences = sorted(abs(each["difference"]) for each in right)
        rows.append(
            [
                "**real images**",
                str(len(real)),
                f"{100 * len(right) / len(real):.0f} %",
                str(sum(each["result"] == "missed" for each in real)),
                str(sum(each["result"] == "wrong" for each in real)),
                f"{np.median(differences):.1f}, {differences[-1]:.1f} px" if right else "–",
            ]
        )
    heads = ["bar", "images", "right", "missed", "wrong", "median and largest difference"]
    return table(heads, rows)


def invented_table(result: Facts) -> str:
    rows = [
        [each["data"], str(each["n_images"]), str(each["invented"])] for each in result["without"]
    ]
    return table(["images without a bar", "number", "bars invented"], rows)


def labels_table(result: Facts) -> str:
    rows = []
    for name, n in result["labels"].items():
        n_wrong = n["n"] - n["right"] - n["not_read"]
        counts = n["n"], n["right"], n["not_read"], n_wrong, f"{n['invented']} of {n['n_without']}"
        rows.append([name, *map(str, counts)])
    heads = ["bars", "labels", "right", "not read", "wrong", "read without a label"]
    return table(heads, rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "scale_bars" / "scale_bars.json")
    parser.add_argument("--data", type=Path, help="folder of the real sets")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--annotations", action="store_true", help="measure what is left out")
    options = parse(parser, argv)
    if options.annotations:
        left_out = {"drawings": measure_annotations(options.seed), "origin": origin()}
        save_result(options.out.with_name("annotations.json"), left_out, indent=None)
        print(annotations_table(left_out))
        return
    read = new_label_reader() if find_spec("rapidocr") else None
    cases = list(measure(options.seed, read))
    with_bar, without = measure_real(options.data, read) if options.data else ([], [])
    result = {
        **origin(),
        "seed": options.seed,
        "with_bar": {key: counts(cases, key) for key in ("half", "layout", "scan", "stored")},
        "without": [*measure_without(options.seed), *without],
        "real": with_bar,
        "labels": {"drawn": count_labels(cases), "real images": count_labels(with_bar)},
        "failures": [case for case in cases if case["result"] != "right"],
    }
    print(found_table(result))
    print(invented_table(result))
    print(labels_table(result))
    save_result(options.out, result)


if __name__ == "__main__":
    main()
