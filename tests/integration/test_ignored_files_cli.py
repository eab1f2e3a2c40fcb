"""Files of a folder that are no images: commands count them, in one line."""

import shutil

import pytest
from support.commands import run

COMMANDS = [
    ("predict", "{model}", "{images}"),
    ("extract", "{images}", "-m", "{model}", "-o", "{out}/f.parquet"),
    ("scale", "{images}", "-o", "{out}/sizes.csv"),
    ("review start", "{model}", "{images}", "-o", "{out}/queue"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=[command[0] for command in COMMANDS])
def test_ignored_files_are_counted_in_one_line(command, folder, model, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(folder, images)
    for name in ("a.txt", "flat/b.TXT", "flat/c.txt", "rings/d.xlsx", "LICENSE", ".DS_Store"):
        (images / name).touch()
    (images / ".git").mkdir()
    (images / ".git" / "e.txt").touch()
    texts = [text.format(images=images, model=model, out=tmp_path) for text in command[1:]]
    said = run(*command[0].split(), *texts).stderr.splitlines()
    expected = "ignored 6 files: 3 .txt, 1 .xlsx, 1 hidden, 1 without a suffix"
    assert [line for line in said if line.startswith("ignored")] == [expected]
