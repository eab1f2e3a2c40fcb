"""Copies in one folder per class: nothing is replaced, nothing is lost, nothing is copied twice."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.commands import run, save
from support.ome_zarr_folders import write_ome_zarr
from support.tiny import make_tiny_encoder

from hypervlad import MicrographClassifier

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no such names, and no links")
LABEL = "flat"  # of the images of these tests, which are in the training images


@pytest.fixture
def new(tmp_path):
    (tmp_path / "new").mkdir()
    return tmp_path / "new"


@pytest.fixture
def add(new, folder):
    """Put an image there: by default one that the model calls flat."""
    images = sorted((folder / LABEL).iterdir())

    def added(name, number=0, label=LABEL):
        (new / name).parent.mkdir(exist_ok=True)
        source = images[number] if label == LABEL else sorted((folder / label).iterdir())[number]
        shutil.copyfile(source, new / name)
        return new / name

    return added


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def tree(root):
    """Return the content of every file, hidden ones too."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_images_go_to_the_folder_of_their_class(add, new, model, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.chdir(new)
    files = [add("a.png"), add("day 1/a.png", label="rings"), add("day 2/b.png", 1)]
    os.utime(files[0], ns=(10**18, 10**18))
    noise = np.random.default_rng(0).random((40, 40))
    save(new / "noise.png", noise)
    (new / "bad.png").write_text("no image")
    for source, target in ((new, out), ("../new", "../out")):
        done = run("predict", model, source, "--sort-into", target, "--on-error", "skip")
        assert tree(out) == {
            f"{LABEL}/a.png": files[0].read_bytes(),
            "rings/day 1/a.png": files[1].read_bytes(),
            f"{LABEL}/day 2/b.png": files[2].read_bytes(),
            "unlike_training/noise.png": (new / "noise.png").read_bytes(),
        }
        assert "4 images (flat 2, rings 1, unlike_training 1)" in done.stdout
        assert ("; 4 there before" in done.stdout) == (source != new)
    assert (out / LABEL / "a.png").stat().st_mtime_ns == 10**18
    (new / "bad.png").unlink()
    judged = run("predict", model, new, "--sort-into", out, "--max-error", "0.01")
    assert "4 images (unlike_training 1, unsure 3); 1 there before" in judged.stdout
    assert "3 images lie in another folder too, from an earlier run" in judged.stderr
    assert str(out / LABEL / "a.png") in judged.stderr
    assert len(tree(out)) == 7, "nothing is removed"


def test_what_has_the_name_of_a_copy_is_kept(add, model, tmp_path, monkeypatch):
    """Another file, a link, a folder, and a file that another program makes meanwhile."""
    out, long_name = tmp_path / "out" / LABEL, "é" * 125 + ".tiff"  # 255 bytes
    image = add("a.png")
    image.chmod(0o444)
    Image.open(add("long.png", 1)).save(image.with_name(long_name))
    (image.with_name("long.png")).unlink()
    put(out / "a.png", "of somebody")
    (out / "a-2.png").mkdir()
    os.symlink(tmp_path / "nowhere", out / "a-3.png")
    put(out / long_name, "of somebody")
    lexists = os.path.lexists

    def raced(path):
        was = lexists(path)
        if Path(path).name == "a-4.png" and not was:
            Path(path).write_text("theirs")
        return was

    monkeypatch.setattr(os.path, "lexists", raced)
    for _ in range(2):
        done = run("predict", model, image.parent, "--sort-into", out.parent)
        assert tree(out) == {
            "a.png": b"of somebody",
            "a-4.png": b"theirs",
            "a-5.png": image.read_bytes(),
            long_name: b"of somebody",
            "é" * 124 + "-2.tiff": image.with_name(long_name).read_bytes(),
        }
        assert "2 copies with a number in the name" in done.stdout
        assert str(out / "a-5.png") in done.stdout
    assert not (tmp_path / "nowhere").exists()
    assert (out / "a-5.png").stat().st_mode & 0o200, "not read-only, as on a disk"


def test_what_describes_an_image_is_copied_with_it(add, new, model, tmp_path):
    out, image = tmp_path / "out" / LABEL, add("a.png")
    (new / "a.txt").write_text("[SemImageFile]")
    (new / "a-png.hdr").write_text("[MAIN]")
    (new / "a.csv").write_text("no")
    put(out / "a.png", "another")
    put(out / "a-2.txt", "theirs")
    (new / "a.hdr").write_text("x" * 2**21)
    run("predict", model, image, "--sort-into", out.parent)
    assert tree(out) == {
        "a.png": b"another",
        "a-2.png": image.read_bytes(),
        "a-2.txt": b"theirs",
        "a-2-png.hdr": b"[MAIN]",
    }


def test_a_copy_that_fails_does_not_stop_the_others(add, new, model, tmp_path):
    out = tmp_path / "out" / LABEL
    files = [add("a.png"), add("sub/b.png", 1), add("c.png", 2)]
    put(out / "sub", "a file where a folder should be")
    write_ome_zarr(new / "d.zarr", [np.asarray(Image.open(files[0]))])
    done = run("predict", model, new, "--sort-into", out.parent, code=2)
    expected = {"a.png": files[0].read_bytes(), "c.png": files[2].read_bytes()}
    assert tree(out) == expected | {"sub": b"a file where a folder should be"}
    assert "2 images could not be copied" in done.stderr
    assert f"{new / 'd.zarr'} (a folder, as of OME-Zarr, which is not copied" in done.stderr
    assert f"{files[1]} ({out / 'sub'}: " in done.stderr
    (out / "sub").unlink()
    shutil.rmtree(new / "d.zarr")
    run("predict", model, new, "--sort-into", out.parent)
    assert tree(out) == expected | {"sub/b.png": files[1].read_bytes()}


def test_folders_of_all_classes_are_valid_on_every_system_and_distinct(tmp_path):
    odd = ["..", "a/../b", "A", "a", "con", "unsure", "UNSURE", "é" * 150, "e\u0301", "\u00e9", " "]
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16]
    images, labels = list[np.ndarray](), list[str]()
    for number, label in enumerate(odd):
        for _ in range(3):
            wave = np.sin(x * (0.2 + 0.25 * (number % 4)) + y * 0.4 * (number // 4))
            noise = 0.02 * rng.standard_normal(x.shape)
            images.append(np.clip(0.1 + 0.08 * number + 0.1 * wave + noise, 0, 1))
            labels.append(label)
            save(tmp_path / "new" / f"{len(images):02d}.png", images[-1])
    files = sorted((tmp_path / "new").iterdir())
    model = MicrographClassifier(make_tiny_encoder(), random_state=0).fit(files, labels)
    model.save(tmp_path / "m.hvlad")
    run("predict", tmp_path / "m.hvlad", tmp_path / "new", "--sort-into", tmp_path / "out")
    predicted = model.predict(files)
    folder_of = {file.name: file.parent.name for file in (tmp_path / "out").rglob("*.png")}
    names = dict[str, str]()
    for file, label in zip(files, predicted, strict=True):
        assert (tmp_path / "out" / folder_of[file.name] / file.name).is_file()
        assert names.setdefault(label, folder_of[file.name]) == folder_of[file.name]
    assert len(names) > 8, "most classes are predicted"
    assert len({name.casefold() for name in names.values()}) == len(names)
    for name in names.values():
        assert name.lower() not in ("unsure", "unlike_training", "con")
        assert len(name.encode()) <= 220
        assert not set(name) & set('<>:"/\\|?*\0\n\t')
        assert name[0] not in ". "
        assert name[-1] not in ". "
