"""The README and the documentation's pages: all their blocks run as a reader would run them.

The blocks of a page run in their order, in a folder of their own, which has what `workplace` made.
What a page shows directly below a block is compared with what the block prints. Numbers may differ,
because codebooks depend on the machine.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from typing import Any

import pytest
import typer
from support.commands import app
from support.documents import PAGES, blocks
from support.paths import ROOT
from support.review_queues import Served

# Imports once what all blocks import, which takes seconds. It reads, line by line, steps with
# their folders. Each step then has a process of its own: a block is the main module in it, as if
# it had been started with ``python -c``. What it prints goes to a file.
FORKING = """
import glob, json, os, runpy, shlex, subprocess, sys, types
import jinja2, matplotlib.pyplot, PIL.Image, skimage.filters, tifffile, typer.main
import hypervlad
import hypervlad.results
from support.commands import app
for name in hypervlad.__all__:
    getattr(hypervlad, name)
typer.main.get_command(app)

def run(language, block):
    if language == "python":
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(block, "<page>", "exec"), vars(main))
    elif block.startswith("hypervlad ") and not set("|><$&;") & set(block):
        words = shlex.split(block)
        sys.argv = [own for word in words for own in sorted(glob.glob(word)) or [word]]
        runpy.run_module("hypervlad", run_name="__main__")
    else:
        subprocess.run(["bash", "-euc", block], check=True)

def in_child(folder, printed, language, block):
    output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder)
    run(language, block)
    sys.exit()

for line in sys.stdin:
    step = json.loads(line)
    if not (child := os.fork()):
        in_child(*step)
    print(os.waitpid(child, 0)[1], flush=True)
"""
# The few images here leave few held-out groups, for early stopping and for sure answers.
STRICT = ["-W", "error", "-W", "ignore:fine-tuning is validated on"]
STRICT += ["-W", "ignore:no answer is sure", "-W", "ignore:the threshold is extrapolated"]
# Another test may run a cluster at the same time: dask then takes another port.
STRICT += ["-W", "ignore:Port 8787 is already in use"]


def label_all(queue):
    """Serve a queue, and label its images as the page does."""
    server = Served(queue)
    answer = server.post("next", client="window-1", want=1)
    while answer["items"]:
        item, scores = answer["items"][0]["id"], answer["items"][0]["scores"]
        click = {"client": "window-1", "click": f"click-{item:04d}", "want": 1}
        answer = server.post("label", item=item, category=scores[0][0], **click)
    assert answer["progress"]["labelled"]
    server.kill()


@pytest.fixture(scope="module")
def forking():
    """A process that runs steps."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    with subprocess.Popen(
        [sys.executable, *STRICT, "-c", FORKING],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def run_step(forking, folder, language, block):
    """Run a block of Python, or one command, and return what it prints."""
    printed = folder.with_suffix(".txt")
    assert forking.stdin is not None
    assert forking.stdout is not None
    forking.stdin.write(json.dumps([str(folder), str(printed), language, block]) + "\n")
    forking.stdin.flush()
    status = int(forking.stdout.readline())
    found = printed.read_text(encoding="utf-8")
    assert status == 0, found + block
    return found


# Shapes such as (24, 8) and numbers in names, such as uint8, do not depend on the machine.
NUMBER = re.compile(r"(?P<shape>\(\d+(?:, \d+)*,?\))|(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")


def without_numbers(text):
    """Return a text with `#` for numbers; line breaks, where pages wrap, count as spaces."""
    return " ".join(NUMBER.sub(lambda found: found["shape"] or "#", text).split())


def assert_prints(shown, printed):
    """Check that a block prints what its page shows; a line ``...`` there stands for any lines."""
    parts = re.split(r"^\.\.\.$", shown, flags=re.MULTILINE)
    pattern = ".*".join(re.escape(without_numbers(part)) for part in parts)
    fits = re.fullmatch(pattern, without_numbers(printed))
    assert fits or not shown, f"the page shows\n{shown}\nprinted was\n{printed}"


@pytest.mark.full  # trains, segments and extracts as a reader of all pages would
@pytest.mark.real
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_all_blocks_run(page, workplace, forking, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(workplace, folder)
    for language, block, shown in blocks(page):
        lines = block.replace("\\\n", " ").splitlines() if language == "console" else [block]
        printed = ""
        for line in lines:
            if line == "hypervlad app queue/":  # runs until Ctrl-C, and needs a user
                label_all(folder / "queue")
            elif not line.startswith("hypervlad app"):
                printed += run_step(forking, folder, language, line)
        assert_prints(shown, printed)


def _commands_not_run():
    """Return the words of the hypervlad commands in blocks that are only shown."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
            lines = block.replace("\\\n", " ").splitlines()
            found += [shlex.split(line)[1:] for line in lines if line.startswith("hypervlad ")]
    return found


@pytest.mark.parametrize("words", _commands_not_run(), ids=" ".join)
def test_commands_that_are_only_shown_have_these_options(words):
    command: Any = typer.main.get_command(app)
    parameters = list(command.params)  # that may follow any command
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    options = {name for parameter in parameters + command.params for name in parameter.opts}
    assert {word for word in words if re.match("--?[a-z]", word)} <= options
