"""Every command runs once on small images: its exit code, the files it writes, what it says."""

import contextlib
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from support.commands import RUNNER, TINY, all_commands, app, save, write_folder, write_table
from support.surfaces import PATCH, blotted, surface

from hypervlad import make_fibre_images
from hypervlad.apps.review import Queue

TINY_LINE = " ".join(TINY)
OWN_SIZE = "--backbone tiny --weights random"


class Run(NamedTuple):
    """A command line, its exit code, the files that it writes, and words that it prints."""

    line: str
    files: str = ""
    words: str = ""
    code: int = 0


# What needs an answer, an earlier run or a model of particles, or excludes others, has tests of
# its own.
ELSEWHERE = {
    *("--help", "--watch", "--resume", "--port", "--open", "--leave-out"),
    *("--read-labels", "--accept-labels"),
}
READING = "--set page=0 --set channel=0 --set banner=remove"
USING = "--device cpu --on-error skip -q --pixel-size all.csv"

# In this order, since later commands use what earlier ones have made. Each takes as many of its
# options as go together.
RUNS = {
    "check": Run(
        f"check few --groups few.csv --write-groups written.csv {READING} --set scaling=dtype -q",
        "written.csv",
        "10 images in 2 classes",
    ),
    "train": Run(
        f"train images -o m.hvlad {TINY_LINE} {READING} {USING} --set scaling=0,255 --seed 1 "
        "--cache c --groups images.csv --include-backbone --set prior=uniform --resample-to 5 "
        "--report trained",
        "m.hvlad trained/index.html trained/predictions.csv",
        "balanced accuracy: ",
    ),
    "info": Run("info m.hvlad", words="equal class shares"),
    "predict": Run(
        f"predict m.hvlad images -o p.csv {USING} --cache c --coverage 0.9 --max-error 0.2 "
        "--sort-into sorted --page p.html --groups images.csv",
        "p.csv p.html",
        "page: p.html",
    ),
    "explain": Run(
        "explain m.hvlad images/flat/03.png -o 3.png --class flat --pixel-size all.csv -q",
        "3.png",
        "picture: 3.png",
    ),
    "evaluate": Run(
        f"evaluate m.hvlad images -o report --groups images.csv {USING} --cache c",
        "report/index.html report/predictions.csv",
        "24 of 24 images are training images",
    ),
    "suspects": Run("suspects m.hvlad -o suspects.csv", "suspects.csv", "0 of 24 labels are"),
    "extract": Run(
        "extract images -m m.hvlad -o f.parquet --root . --include '*.png' "
        f"--jobs 1 --exclude 'images/flat/*' {USING} --skipped none.csv --cache cached",
        "f.parquet none.csv",
        "features: f.parquet",
    ),
    "cache": Run("cache cached", words="cached: 48 entries"),
    "workbook": Run("workbook sizes.csv -o s.xls", words="ends in .xlsx", code=2),
    "demo": Run(
        "demo -o demo --n-images 24 --set backbone=tiny --set weights=random "
        "--set image_size=32 -q",
        "demo/index.html demo/model.hvlad",
        "balanced accuracy: ",
    ),
    "scale": Run(
        "scale bars -o sizes.csv --scale-bar '500 nm' --page bars.html --set channel=0 -q",
        "sizes.csv bars.html",
    ),
    "align": Run(
        f"align wires -o directions --window 120nm --tolerance 20 --groups wires.csv "
        f"{READING} --decimal-comma --no-figures --keep-annotations {USING}",
        "directions/alignment.csv directions/regions.csv directions/alignment.json",
        "1 of 1",
    ),
    "align-train": Run(
        f"align-train wires --masks 'wire masks' --set window=24 -o a.hvlad --keep-annotations "
        f"{OWN_SIZE} "
        f"{READING} --seed 1 --groups wires.csv --device cpu --on-error skip --include-backbone -q",
        "a.hvlad",
        "windows of 1 image",
    ),
    "diameters": Run(
        "diameters wires -o thick --groups wires.csv --samples samples.csv --polarity bright "
        f"--roi {READING} --on-error skip -q --pixel-size all.csv --keep-annotations",
        "thick/diameters.csv thick/diameters.json thick/diameters.html thick/roi/a.png.zip",
        "1 of 1",
    ),
    "defects fit": Run(
        f"defects fit good -o s.hvlad {OWN_SIZE} --set patch={PATCH} --set aligned=true "
        f"--set fpr=0.2 --set tile_size=64 {READING} {USING} --groups good.csv --seed 1 "
        "--include-backbone --keep-annotations",
        "s.hvlad",
        "held out from training, 0 of 6 images",
    ),
    "defects score": Run(
        "defects score s.hvlad blots -o scored --threshold 1e6 --tile-size 64 --keep-annotations "
        f"--groups blots.csv {USING}",
        "scored/scores.csv scored/scores.json scored/report.html",
        "0 called anomalous",
    ),
    "defects evaluate": Run(
        "defects evaluate s.hvlad blots --masks masks -o e.html --threshold 0 --tile-size 64 "
        "--on-error skip -q",
        "e.html",
        "report: e.html",
    ),
    "particles find": Run(
        "particles find fields -o found --groups fields.csv --samples fields2.csv --polarity dark "
        f"--set min_area=20 {READING} {USING} --format geojson --format roi --keep-annotations",
        "found/particles.csv found/run.json found/geojson/0.png.geojson found/roi/0.png.zip",
        "particles",
    ),
    "particles classify": Run(
        "particles classify m.hvlad found", words="the model is one of whole images", code=2
    ),
    "particles count": Run(
        "particles count found -o counts.csv --rule 'length > 10 nm' --measure length "
        "--pixel-size-error 3 --format coco "
        "--set edges=leave_out --set corrected=false --page counts.html",
        "counts.csv counts.html found/coco.json",
    ),
    "report": Run(
        "report found -o paper --weight area --set measure=length -q",
        "paper/report.html paper/figure.pdf paper/budget.csv",
    ),
    "particles train": Run(
        "particles train fields masks -o p.hvlad", words="none of the 2 images has", code=2
    ),  # it takes long
    "review start": Run(
        "review start m.hvlad images -o queue --training images --max-error 0.01 "
        f"{USING} --cache c",
        "queue/queue.sqlite",
        "queue: queue",
    ),
    "app": Run("app c -o d9 -q", words="c: no images here", code=2),  # it does not end
    "review export": Run(
        "review export queue -o labels.csv --source model -q", "labels.csv", "labels: labels.csv"
    ),
    "review retrain": Run(
        "review retrain queue --training images -o n.hvlad --model m.hvlad --groups images.csv "
        f"--keep-queue {USING} --cache c",
        "n.hvlad",
        "model: n.hvlad",
    ),
}


# What does not go together with these.
MORE = [
    Run("cache c --limit 1MB", words="entries"),
    Run("cache c --limit 0", words="0 entries"),
    Run("align wires -o d3 --model a.hvlad --set sigma=2 --pixel-size 5 -q", "d3/regions.csv"),
    Run(
        f"defects fit good blots --masks masks -o s3.hvlad {OWN_SIZE} --set patch={PATCH}",
        "s3.hvlad",
        "masks: 1 of 7 images",
    ),
    Run("defects score s3.hvlad blots -o scored3", "scored3/report.html", "1 called anomalous"),
    Run("particles find fields -o again --corrected found -q", "again/run.json", "particles"),
    Run("report scored3 -o defects -q", "defects/figure-2.svg defects/results.csv"),
    Run("report directions -o alignment -q", "alignment/figure.svg alignment/methods.txt"),
    Run("report thick -o diameters", "diameters/figure.png"),
]
ALL = RUNS | {each.line: each for each in MORE}


class Result(NamedTuple):
    code: int
    new: set[str]
    printed: str


def files():
    return {path.as_posix() for path in Path().rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def results(tmp_path_factory, texture_images):
    """What came of all commands, one after the other, in the current folder."""
    with contextlib.chdir(tmp_path_factory.mktemp("work")):
        write_material(texture_images)
        found = {}
        for name, each in ALL.items():
            known, result = files(), RUNNER.invoke(app, shlex.split(each.line))
            found[name] = Result(result.exit_code, files() - known, result.output)
            if "review start" in name:
                label_one(Path(each.files).parent)
        yield found


def write_material(texture_images):
    write_folder(Path("images"), *texture_images)
    few = [i for name in ("flat", "stripes") for i in np.flatnonzero(texture_images[1] == name)[:5]]
    write_folder(Path("few"), [texture_images[0][i] for i in few], texture_images[1][few])
    for seed in range(6):
        save(Path(f"good/{seed}.png"), surface(seed))
    image, mask = blotted(100, (12, 20))
    save(Path("blots/a.png"), image)
    save(Path("masks/a.png"), mask.astype(float))
    save(Path("wires/a.png"), make_fibre_images(1, size=96, random_state=0)[0][0])
    save(Path("wire masks/a.png"), np.tile(np.arange(96) < 48, (96, 1)).astype(float))
    y, x = np.indices((96, 96))
    for number in range(2):
        field = 0.7 + np.random.default_rng(number).normal(0, 0.02, y.shape)
        field[(y % 32 - 16) ** 2 + (x % 32 - 16) ** 2 < 60 + 20 * number] -= 0.4
        save(Path(f"fields/{number}.png"), field.clip(0, 1))
    bar: Any = np.full((200, 240), 90, np.uint8)
    bar[170:176, 20:120] = 255
    for name in ("images", "few", "good", "blots", "wires", "fields"):
        groups = [(path.as_posix(), path.stem) for path in sorted(Path(name).rglob("*.png"))]
        write_table(Path(f"{name}.csv"), "path,group", groups)
    write_table(Path("samples.csv"), "path,sample", [("wires/a.png", "a")])
    write_table(Path("fields2.csv"), "path,sample", [(f"fields/{i}.png", i) for i in range(2)])
    sizes = [(path.as_posix(), 5) for path in sorted(Path().rglob("*.png"))]
    write_table(Path("all.csv"), "path,pixel_size", sizes)
    Path("bars").mkdir()
    Image.fromarray(bar).save("bars/a.png")


def label_one(folder):
    queue = Queue(folder)
    item = queue.next("window-1", 1).items[0]
    queue.label("window-1", "click-0001", item.id, queue.categories()[0].id)
    queue.close()


def test_the_table_is_complete():
    assert set(RUNS) == set(all_commands())


def test_every_option_is_used():
    """Of the commands that are not only refused here, for want of time or an end."""
    missing = set()
    for name, command in all_commands().items():
        own = [run for run in ALL.values() if run.line.startswith(f"{name} ")]
        lines = "".join(f"{run.line} " for run in own)
        if all(run.code == 2 for run in own):
            continue
        for option in command.params:
            names = set(option.opts) if option.param_type_name == "option" else ELSEWHERE
            if not names & ELSEWHERE and not any(f" {each} " in lines for each in names):
                missing.add((name, *names))
    assert not missing


@pytest.mark.parametrize("name", [*RUNS, *(each.line for each in MORE)])
def test_every_command(name, results):
    expected, found = ALL[name], results[name]
    assert found.code == expected.code, found.printed
    assert "Traceback" not in found.printed
    assert set(expected.files.split()) <= found.new
    assert expected.code != 2 or not found.new
    assert expected.words in found.printed
