"""The command line in a separate process: fast help, Ctrl-C, closed pipes."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image
from support.commands import run
from support.paths import ROOT
from support.waiting import wait_until


def assert_equal_tables(found, expected):
    """Numbers may differ in the last digit: images were encoded alone, and in a batch."""
    found, expected = ([line.split(",") for line in t.splitlines()] for t in (found, expected))
    for row, other in zip(found, expected, strict=True):
        for cell, wanted in zip(row, other, strict=True):
            assert cell == wanted or float(cell) == pytest.approx(float(wanted), abs=1e-5)


@contextlib.contextmanager
def start(tmp_path, body, *arguments):
    """Run the command line in a process of its own, after a few lines; end it in any case."""
    script = tmp_path / "start.py"
    script.write_text(
        "import signal, sys\nsys.path[:0] = [r'{}', r'{}']\n".format(ROOT, ROOT / "tests")
        # Started in the background of a shell, a process may ignore Ctrl-C.
        + "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        + textwrap.dedent(body)
        + "\nimport runpy\nrunpy.run_module('hypervlad', run_name='__main__')\n",
        encoding="utf-8",
    )
    with subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to another process on Windows")
def test_ctrl_c_leaves_the_old_file_and_no_other(folder, tmp_path):
    """Interrupted in the middle of writing, which is as late as it can be."""
    body = """
        import os, threading
        def slow(_descriptor):
            print("writing", flush=True)
            threading.Event().wait()
        os.fsync = slow
    """
    output = tmp_path / "out" / "result"
    output.parent.mkdir()
    output.write_text("path,group\n", encoding="utf-8")
    with start(tmp_path, body, "check", folder, "--write-groups", output) as process:
        assert "writing\n" in iter(process.stdout.readline, "")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate()
    assert process.returncode == 130
    assert "stopped" in stderr
    assert "Traceback" not in stderr
    assert [path.name for path in output.parent.iterdir()] == ["result"]
    assert output.read_text(encoding="utf-8") == "path,group\n"


@pytest.mark.full  # two commands, and each imports torch
@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to another process on Windows")
def test_a_watch_ends_with_all_lines_and_goes_on(folder, model, tmp_path):
    new, output = tmp_path / "new", tmp_path / "predictions.csv"
    register = "from support.tiny import register_tiny\nregister_tiny()"
    new.mkdir()
    images = sorted(folder.rglob("*.png"))
    Image.new("L", (40, 40), 90).save(new / "a.png")
    (new / "broken.png").write_bytes(b"no image")
    images[2] = tmp_path / "noise.png"
    noise = np.random.default_rng(0).integers(0, 65535, (40, 40)).astype(np.uint16)
    Image.fromarray(noise).save(images[2])
    arguments = ["predict", model, new, "--watch", "-o", output, "--sort-into", tmp_path / "sorted"]

    def names():
        lines = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
        return [os.path.basename(line.split(",")[0]) for line in lines[1:]]

    for number, expected in enumerate((["a.png", "b.png"], ["a.png", "b.png", "c.png"])):
        further = [["--on-error", "skip"], []][number]
        with start(tmp_path, register, *arguments, *further) as process:
            wait_until(lambda: "a.png" in names(), "the first line")
            shutil.copy(images[number + 1], new / expected[-1])
            wait_until(lambda expected=expected: expected[-1] in names(), "the new line")
            process.send_signal([signal.SIGINT, signal.SIGTERM][number])
            stdout, stderr = process.communicate()
        assert process.returncode == [0, 2][number], stderr
        assert names() == expected, "each once, and none again"
        assert "Traceback" not in stderr
        assert "1 image could not be read" in stderr
        warned = re.findall(r"warning: 1 of \d images? is blank, all.*: (.*)\. What is", stderr)
        assert warned == [[str(new / "a.png")], []][number]
        note = ["a training image", "unlike all training images"][number]
        assert re.search(rf"{expected[-1]}: \w+, .* % \(.*{note}\)\n", stderr), stderr
        assert ("of another type than" in stderr) == (number == 1)
        assert stdout.startswith(f"classified {['2 images', '1 image'][number]}: {output}\n")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".predictions")]
    assert sum(path.is_file() for path in (tmp_path / "sorted").rglob("*")) == 3
    watched = output.read_text(encoding="utf-8")
    assert_equal_tables(watched, run("predict", model, new, "-q", "--on-error", "skip").stdout)
    assert "made with --watch" in run("predict", model, new, "-o", output, code=2).output
    words = run("predict", model, new, "--watch", "-o", output, "--max-error", "0.2", code=2).output
    assert "was made with another max_error" in words
    assert output.read_text(encoding="utf-8") == watched


@pytest.mark.skipif(os.name == "nt", reason="a closed pipe is another error on Windows")
def test_a_reader_that_stops_early_is_no_error(folder, tmp_path):
    with start(tmp_path, "", "check", folder, "-q") as process:
        process.stdout.close()
        stderr = process.stderr.read()
    assert "Traceback" not in stderr
    assert "error:" not in stderr
