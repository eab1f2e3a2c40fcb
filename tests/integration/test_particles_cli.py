"""``hypervlad particles``: from outlined fields to a table of counts."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from support.commands import TINY, refused, run, save
from support.few_crops import few_crops
from support.pages import Page

from hypervlad import load, make_particle_fields
from hypervlad.particles import FoundFolder, write_outlines

RANDOM = ["--weights", "random", "-q"]
NAMES = ["a.png", "a.tif", "day 1/=b ü.png", "day 1/c.png"]


@pytest.fixture(scope="module")
def fields():
    return make_particle_fields(
        6, classes=["sphere", "rod"], n_particles=(4, 6), size=128, random_state=0
    )


@pytest.fixture(scope="module")
def images(fields, tmp_path_factory):
    root = tmp_path_factory.mktemp("new")
    for name, image in zip(NAMES, fields[0], strict=False):
        save(root / name, image)
    return root


@pytest.fixture(scope="module")
def training(fields, tmp_path_factory):
    """Images with outlines in a folder and in one COCO file, and one image without."""
    root = tmp_path_factory.mktemp("training")
    entries, annotations = [], []
    for number, (image, truth) in enumerate(zip(*fields, strict=True)):
        save(root / "images" / f"{number}.png", image)
        if number == 5:
            continue
        write_outlines(root / "outlines" / f"{number}.geojson", truth.outlines)
        entries.append({"id": number, "file_name": f"{number}.png", "height": 128, "width": 128})
        for outline in truth.outlines:
            top, left, bottom, right = outline.box
            ring = [left, top, right, top, right, bottom, left, bottom]
            annotations.append({"image_id": number, "segmentation": [ring]})
    (root / "coco.json").write_text(json.dumps({"images": entries, "annotations": annotations}))
    return root


@pytest.fixture(scope="module")
def model(training):
    path = training / "m.hvlad"
    with few_crops(10, side=64):
        command = ["particles", "train", training / "images", training / "outlines", "-o", path]
        options = "--set", "n_epochs=7", "--on-error", "skip", "--pixel-size", "4"
        said = run(*command, *options, *RANDOM)
    assert load(path).pixel_size_ == 4
    words = r"; \d+ of \d+ particles were found, and \d+ of \d+ outlines are false \(F1 score 0\.\d"
    assert re.search(words, said.stdout)
    assert "warning: 1 image without outlines left out: " in said.stderr
    assert said.stdout.startswith("trained on 5 images with ")
    return path


def test_images_without_outlines_stop_training(training, tmp_path):
    images, to = training / "images", ["-o", tmp_path / "m.hvlad", *RANDOM]
    line = refused("particles", "train", images, training / "outlines", *to)
    assert f"1 image without outlines in {training / 'outlines'}: {images / '5.png'}" in line
    assert "5.png" in refused("particles", "train", images, training / "coco.json", *to)
    assert not (tmp_path / "m.hvlad").exists()


def test_the_particles_of_a_model_are_labelled_classified_and_counted(model, images, tmp_path):
    folder = tmp_path / "found"
    command = ["particles", "find", model, images, "-o", folder, "--pixel-size", "4", "-q"]
    said, found = run(*command).stdout, FoundFolder(folder)
    n_particles = len(found.table)
    assert f"{n_particles} particles in 4 images" in said
    for name in NAMES:
        np.testing.assert_array_equal(
            found.outlines(name).label_image(), *load(model, pixel_size=4).predict([images / name])
        )
    assert not (load(model).read_options or {}).get("pixel_size"), "others may have another one"
    run(*command, "--resume")
    assert "are for finding without a model" in refused(*command, "--resume", "--set", "page=0")

    middle = found.table["aspect_ratio"].median()
    labels = np.where(found.table["aspect_ratio"] < middle, "round", "long").astype(object)
    labels[:3] = None
    found.table.assign(**{"class": labels}).to_csv(folder / "labels.csv", index=False)
    classes = tmp_path / "classes.hvlad"
    run("train", folder / "labels.csv", "-o", classes, *TINY, "-q")
    assert "shape" in load(classes).encoder_.blocks
    told = refused("train", folder / "labels.csv", "-o", classes, *TINY, "--set", "page=0", "-q")
    assert "particles are read as they were found" in told
    said = run("particles", "classify", classes, folder, "--cache", tmp_path / "cache", "-q").stdout
    assert f"{n_particles} particles classified: long " in said
    assert f"; {n_particles - 3} of them as a person named them, in training" in said
    assert any((tmp_path / "cache").iterdir())
    assert {"class", "confidence", "p_long", "p_round"} <= set(FoundFolder(folder).table)
    options = ["-o", tmp_path / "counts.csv", "--page", tmp_path / "page.html"]
    said = run("particles", "count", folder, *options, "--rule", "area > 0 nm2")
    assert "note: counts and sizes are corrected for what finding misses" in said.stdout
    assert "note: counts are corrected" in said.stdout
    assert f"{n_particles}particles outlined" in Page(tmp_path / "page.html").words
    counts = pd.read_csv(tmp_path / "counts.csv")
    assert counts["class"].tolist() == ["long", "round", "all"]
    assert counts["particles"].iloc[-1] == n_particles
    assert counts["per_um2"].iloc[-1] > 0
    warned = run("train", folder / "particles.csv", "-o", classes, *TINY, "-q").stderr
    assert f"3 of {n_particles} labels are a model's own" in warned


def test_without_a_model_what_stands_out_is_found(images, tmp_path):
    shutil.copytree(images, tmp_path / "images")
    (tmp_path / "x.hvlad").touch()
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")
    save(tmp_path / "images" / "empty.png", np.full((60, 60), 0.4))
    dark = np.full((60, 60), 0.8)
    dark[20:40, 20:40] = 0.1
    save(tmp_path / "images" / "dark.png", dark)
    command = ["particles", "find", tmp_path / "images", "-o", tmp_path / "found", "-q"]
    result = run(*command, "--format", "geojson", code=2)
    assert "1 of 7 images left out: " in result.stderr
    assert "particles are bright in 4 images and dark in " in result.stderr
    assert "dark.png" in result.stderr
    assert "in 6 images, 1 of them without any\n" in result.stdout
    assert (tmp_path / "found" / "geojson" / "a.png.geojson").exists()
    run(*command, "--resume", "--on-error", "skip")
    found = tmp_path / "found"
    for arguments, words in (
        (["count", found, "-o", found / "particles.csv"], "is read by this command"),
        (["find", found, "-o", tmp_path / "again"], "a folder of found particles, whose outlines"),
        (["find", tmp_path / "x.hvlad", "-o", tmp_path / "f"], "x.hvlad is a model; give"),
    ):
        assert words in refused("particles", *arguments)
    assert not (tmp_path / "f").exists()
    result = run("particles", "count", tmp_path / "found", "--page", tmp_path / "page.html")
    assert "D50 (px)" in result.stdout
    (sizes := tmp_path / "sizes.csv").write_text("path,pixel_size\nimages/a.png,2\n")
    run(*command, "--resume", "--on-error", "skip", "--pixel-size", sizes)
    assert "in 1 image; " in (said := run("particles", "count", found).stdout)
    assert "the pixel size of 5 images is unknown" in said
