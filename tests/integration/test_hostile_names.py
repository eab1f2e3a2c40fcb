"""Names of files and classes that attack spreadsheets, terminals and browsers, in every command."""

import csv
import json
import os
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from support.commands import TINY, run, save
from support.surfaces import PATCH, blotted, surface

from hypervlad import make_fibre_images

pytestmark = pytest.mark.skipif(os.name == "nt", reason="such names are not allowed")

# A formula at the start, after a semicolon and after a tab; a tag; codes of a terminal; reversal.
HOSTILE = "=1+1;=2\t\uff1d3,@4\"'><img src=x onerror=alert(1)>\x1b[31m\x9b2J\u202egnp"
SHOWN = r"\x1b[31m\x9b2J\u202egnp"  # the last part, in a terminal
CLASS = f"+{HOSTILE}"
CONTROLS = {"\x1b", "\x9b", "\u202e"}


PATCHES = ["--backbone", "tiny", "--weights", "random"]
# What the other commands use, with the exit codes.
MODELS = [
    (["check", "copies", "--write-groups", "groups.csv"], 1),
    (["train", "copies", "-o", "m.hvlad", "--groups", "groups.csv", *TINY], 0),
    (["defects", "fit", "good", "-o", f"{HOSTILE}.hvlad", "--set", f"patch={PATCH}", *PATCHES], 0),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory, texture_images):
    """Images, masks and models with hostile names, in the current folder."""
    root, before = tmp_path_factory.mktemp("work"), Path.cwd()
    os.chdir(root)
    images, labels = texture_images
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        # Two wrong labels, for suspects.
        place = CLASS if (label == "flat") != (i in (0, 3)) else str(label)
        save(Path("images", place, f"{HOSTILE}{i}.png"), image)
    shutil.copytree("images", "copies")
    shutil.copy(next(Path("copies", CLASS).iterdir()), Path("copies", "rings", f"{HOSTILE}.png"))
    shutil.copytree("images", "damaged")
    Path("damaged", CLASS, f"{HOSTILE}.png").write_text("no image")
    for seed in range(6):
        save(Path("good", f"{HOSTILE}{seed}.png"), surface(seed))
    image, mask = blotted(100, (12, 20))
    save(Path("blots", f"{HOSTILE}.png"), image)
    save(Path("masks", f"{HOSTILE}.png"), mask.astype(float))
    save(Path("wires", f"{HOSTILE}.png"), make_fibre_images(1, size=96, random_state=0)[0][0])
    aligned = np.tile(np.arange(96) < 48, (96, 1))
    save(Path("wire masks", f"{HOSTILE}.png"), aligned.astype(float))
    printed = ""
    for command, code in MODELS:
        result = run(*command, code=code)
        printed += result.stdout + result.stderr
    check_words(printed)
    assert SHOWN in printed
    check_table(Path("groups.csv"))
    yield root
    os.chdir(before)


# A command, its exit code, the tables and the pages that it writes.
COMMANDS = [
    (["train", "damaged", "-o", "n.hvlad", *TINY], 2, [], []),
    (["info", "m.hvlad"], 0, [], []),
    (
        shlex.split("predict m.hvlad images -o p.csv --page p.html --coverage 0.9 --max-error 0.3"),
        *(0, ["p.csv"], ["p.html"]),
    ),
    (shlex.split("predict m.hvlad damaged -o d.csv --page d.html"), 2, ["d.csv"], ["d.html"]),
    (["explain", "m.hvlad", f"damaged/{CLASS}", "-o", "why.png"], 2, [], []),
    (["explain", "m.hvlad", "images", "-o", "why.png", "--class", HOSTILE], 2, [], []),
    (
        ["evaluate", "m.hvlad", "images", "-o", f"{HOSTILE}report", "-q"],
        *(0, [f"{HOSTILE}report/predictions.csv"], [f"{HOSTILE}report/index.html"]),
    ),
    (["suspects", "m.hvlad", "-o", "suspects.csv"], 0, ["suspects.csv"], []),
    (
        shlex.split("extract damaged -m m.hvlad -o f.parquet --skipped skipped.csv"),
        *(2, ["skipped.csv"], []),
    ),
    (shlex.split("review start m.hvlad damaged -o queue --max-error 0.9"), 2, [], []),
    (
        ["defects", "score", f"{HOSTILE}.hvlad", "blots", "-o", "found"],
        *(0, ["found/scores.csv", "found/regions.csv"], ["found/report.html"]),
    ),
    (
        ["defects", "evaluate", f"{HOSTILE}.hvlad", "blots", "--masks", "masks", "-o", "e.html"],
        *(0, [], ["e.html"]),
    ),
    (
        shlex.split("align wires -o directions --window 24"),
        *(0, ["directions/alignment.csv", "directions/regions.csv"], []),
    ),
    (["align", "wires", f"damaged/{CLASS}", "-o", "others"], 2, ["others/alignment.csv"], []),
    (
        ["align-train", "wires", "--masks", "wire masks", "-o", f"{HOSTILE}a.hvlad", *PATCHES],
        *(0, [], []),
    ),
    pytest.param(
        [
            "demo",
            "-o",
            f"{HOSTILE}demo",
            *shlex.split("--n-images 24 --set backbone=tiny --set weights=random"),
        ],
        *(0, [], []),
        marks=pytest.mark.full,  # trains a classifier
        id="demo",
    ),
]


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize(("command", "code", "tables", "pages"), COMMANDS)
def test_every_command(command, code, tables, pages):
    result = run(*command, code=code)
    check_words(result.stdout + result.stderr)
    if code:
        assert SHOWN in result.stdout + result.stderr, "not shown"
    for table in tables:
        check_table(Path(table))
    for page in pages:
        check_page(Path(page).read_text(encoding="utf-8"))


@pytest.mark.usefixtures("work")
def test_labels_of_a_review(served):
    """The page's data and the table of a queue."""
    run(*shlex.split("review start m.hvlad damaged -o reviewed --on-error skip --max-error 0.01"))
    server = served(Path("reviewed").absolute())
    shown = server.post("next", client="window-1", want=3)
    (category,) = [each["id"] for each in shown["categories"] if each["name"][:2] == "+="]
    item = shown["items"][0]
    assert "<img src=x onerror=alert(1)>" in item["name"], "the script writes it as text"
    click = {"client": "window-1", "click": "click-0001", "want": 1}
    answer = server.post("label", item=item["id"], category=category, **click)
    for each in (shown, answer):
        assert not CONTROLS & set(json.dumps(each, ensure_ascii=False))
    server.kill()
    run("review", "export", "reviewed", "-o", "labels.csv")
    check_table(Path("labels.csv"))
    assert CLASS in {row[1] for row in read_table(Path("labels.csv"))}


def read_table(path):
    """The cells as they were before an apostrophe was put in front of each sign of a formula."""
    sign = r"(?:\A|(?<=[,;\t\r\n\"]))'(?='*[=+\-@\t\r\n\uff1d])"
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return [[re.sub(sign, "", cell) for cell in row] for row in csv.reader(stream)]


def check_words(printed):
    """Nothing that was printed controls a terminal."""
    assert not CONTROLS & set(printed)
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", printed)


def check_table(path):
    """A table has the hostile name, and no text in it is a formula at any separator."""
    assert any(HOSTILE in cell for row in read_table(path) for cell in row), "changed"
    for delimiter in ",;\t":
        with open(path, encoding="utf-8", newline="") as stream:
            cells = [cell for row in csv.reader(stream, delimiter=delimiter) for cell in row]
        numbers = re.compile(r"-[0-9.e+-]+")
        formulas = [cell for cell in cells if cell[:1] in {*"=+-@\t\r\n\uff1d"} and cell]
        assert [cell for cell in formulas if not numbers.fullmatch(cell)] == []


class Tags(HTMLParser):
    """The elements and attributes of a page as a browser finds them, and its words."""

    def __init__(self):
        super().__init__()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.words = ""

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data):
        self.words += data


def check_page(page):
    """A page shows the hostile name as text, and has no element or attribute of it."""
    assert not CONTROLS & set(page)
    tags = Tags()
    tags.feed(page)
    assert [each for each in tags.attributes if each[1].startswith("on")] == []
    sources = [value or "" for _, name, value in tags.attributes if name in ("src", "href")]
    assert all(re.match(r"data:image/|#?[\w.-]+$", source) for source in sources)
    assert "<img src=x onerror=alert(1)>" in tags.words.replace("\\u003c", "<")  # JSON in a script
