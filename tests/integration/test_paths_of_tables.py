"""Every table names images by the same rule, from whatever folder a command is run."""

import shutil

import pytest
from support.commands import rows_of, run, save
from support.surfaces import blotted

ALL = ["a/0.png", "a/1.png", "b/0.png"]
# What is given, seen from the folder "work" beside "images", and the names of the images.
GIVEN = [
    (["../images"], ALL),
    (["../images/a"], ["0.png", "1.png"]),
    (["../images/a", "../images/b"], ALL),
    (["../images/**/*.png"], ALL),
    (["../images/*/0.png"], ["a/0.png", "b/0.png"]),
    (["../images/a/1.png"], ["1.png"]),
    (["../images/b", "../images/a/0.png", "../images/a/1.png"], ALL),
    (["../images/a", "../images/b/*.png"], ALL),
]


@pytest.fixture
def work(model, scorer, tmp_path, monkeypatch):
    """The folder in which commands are run, with models, beside a folder of images."""
    for seed, name in enumerate(ALL):
        save(tmp_path / "images" / name, blotted(seed, (20, 20))[0])
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    shutil.copy(model, "m.hvlad")
    shutil.copy(scorer, "d.hvlad")


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize(("given", "expected"), GIVEN, ids=[" ".join(g) for g, _ in GIVEN])
def test_images_are_named_below_the_folder_given(given, expected):
    run("predict", "m.hvlad", *given, "-q", "-o", "out.csv")
    assert sorted(row["path"] for row in rows_of("out.csv")) == expected
