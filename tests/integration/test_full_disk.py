"""No room for a result: the file is named, and nothing incomplete or empty is left."""

import contextlib
import shlex
import shutil

import pytest
from support.commands import TINY, run
from support.surfaces import PATCH

resource = pytest.importorskip("resource", reason="Windows has no limits for the size of files")

SCORER = ["--backbone", "tiny", "--weights", "random", "--set", f"patch={PATCH}", "-q"]
# The limit in bytes, the command, and what the error names.
COMMANDS = [
    (100, "predict m.hvlad images -q -o new/deep/p.csv", "new/deep/p.csv"),
    (100, "predict m.hvlad images -q --page new/p.html", "new/p.html"),
    (100, "predict m.hvlad images -q --sort-into new", "images/flat/00.png (File too large)"),
    (100, "predict m.hvlad images -q --watch -o new/p.csv", "new/_p.csv.settings.txt"),
    (100, "explain m.hvlad images -q -o new/why.png", "new/why.png"),
    (100, "evaluate m.hvlad images -q -o new", "new"),
    (20, "suspects m.hvlad -o new/s.csv", "new/s.csv"),
    (100, "check images --write-groups new/groups.csv", "new/groups.csv"),
    (100, "extract images -m m.hvlad -q -o new/f.parquet", "manifest.parquet"),
    (100, "review start m.hvlad images -q -o new", "new: the queue could not be written"),
    (100, "defects score d.hvlad images/flat -q -o new", "new/maps/00.png.tif"),
    (100, "align images/rings -q --window 12 -o new", "new/maps/01.png.orientation.tif"),
    (1000, shlex.join(["train", "images", "-o", "new/n.hvlad", *TINY]), "new/n.hvlad"),
    (1000, shlex.join(["defects", "fit", "good", "-o", "new/e.hvlad", *SCORER]), "hypervlad-"),
    (20, "demo -o new -q --n-images 24", "new"),
]
LONG = ("train", "evaluate", "defects fit", "demo")  # seconds of training


@pytest.fixture(scope="module")
def work(tmp_path_factory, folder, model, surfaces, scorer):
    root = tmp_path_factory.mktemp("full")
    shutil.copytree(folder, root / "images")
    shutil.copytree(surfaces, root / "good")
    shutil.copy(model, root / "m.hvlad")
    shutil.copy(scorer, root / "d.hvlad")
    with contextlib.chdir(root):
        yield root


@contextlib.contextmanager
def room_for(size):
    """Let this process write no file beyond a size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("size", "command", "named"),
    [
        pytest.param(*each, marks=[pytest.mark.full] * each[1].startswith(LONG), id=each[1])
        for each in COMMANDS
    ],
)
@pytest.mark.filterwarnings("ignore:.*joblib will operate in serial mode")  # semaphores are files
def test_the_error_names_the_file_and_nothing_is_left(work, size, command, named):
    before = sorted(work.rglob("*"))
    with room_for(size):
        result = run(*shlex.split(command), code=2)
    assert named in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(work.rglob("*")) == before


def test_what_is_complete_stays(work):
    """The tables of the images that are done, without the page, for which there is no room."""
    with room_for(15_000):
        result = run(*shlex.split("defects score d.hvlad images/flat -q -o found"), code=2)
    assert "error: found/report.html: " in result.stderr
    assert "make room on this disk" in result.stderr
    n_images = len(list((work / "images" / "flat").iterdir()))
    assert (work / "found" / "scores.csv").read_text("utf-8").count("\n") == 1 + n_images
    assert not (work / "found" / "report.html").exists()
