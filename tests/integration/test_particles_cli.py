"""``hypervlad particles``: from outlined fields to a table of counts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from support.commands import TINY, refused, run, save
from support.few_crops import few_crops
from support.pages import Page

from hypervlad import load, make_particle_fields
from hypervlad.particles import FoundFolder, write_outlines

RANDOM = ["--weights", "random", "-q"]
NAMES = ["a.png", "a.tif", "day 1/=b ü.png", "day 1/c.png"]


@pytest.fixture(scope="module")
def fields() -> tuple[Any, Any]:
    return make_particle_fields(
        6, kind="sem", classes=["sphere", "rod"], n_particles=(4, 6), size=128, random_state=0
    )


@pytest.fixture(scope="module")
def images(fields: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("new")
    for name, image in zip(NAMES, fields[0], strict=False):
        save(root / name, image)
    return root


@pytest.fixture(scope="module")
def training(fields: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    coco = {"images": entries, "annotations": annotations}
    (root / "coco.json").write_text(json.dumps(coco))
    return root


@pytest.fixture(scope="module")
def model(training: Path) -> Path:
    path = training / "m.hvlad"
    with few_crops(5, side=32):
        command = ["particles", "train", training / "images", training / "outlines", "-o", path]
        said = run(*command, "--on-error", "skip", *RANDOM)
    assert "warning: 1 image without outlines left out: " in said.stderr
    first, second, last = said.stdout.splitlines()
    assert first.startswith("trained on 5 images with ")
    assert second.startswith("held out: 1 image; the area of particles agrees by ")
    assert last == f"model: {path}"
    assert f"trained on: {first.removeprefix('trained on ')}" in " ".join(
        run("info", path).stdout.split()
    )
    return path


def test_images_without_outlines_stop_training(training: Path, tmp_path: Path) -> None:
    images = training / "images"
    to = ["-o", tmp_path / "m.hvlad", *RANDOM]
    line = refused("particles", "train", images, training / "outlines", *to)
    assert f"1 image without outlines in {training / 'outlines'}: {images / '5.png'}" in line
    assert "5.png" in refused("particles", "train", images, training / "coco.json", *to)
    assert "none of the 6 images has" in refused("particles", "train", images, tmp_path, *to)
    assert not (tmp_path / "m.hvlad").exists()


@pytest.mark.full  # trains two segmenters
def test_outlines_of_one_file_and_scribbles(training: Path, tmp_path: Path) -> None:
    marks = np.zeros((128, 128), np.uint8)
    marks[:10], marks[60:70] = 1, 2
    write_outlines(tmp_path / "marks" / "0.tif", marks)
    image, options = training / "images" / "0.png", ["-o", tmp_path / "m.hvlad", *RANDOM]
    with few_crops(1, side=32):
        both = training / "images" / "[01].png"
        run("particles", "train", both, training / "coco.json", *options)
        assert load(tmp_path / "m.hvlad").n_images_ == 2
        of_marks = [tmp_path / "marks", "--annotation", "scribbles"]
        said = run("particles", "train", image, *of_marks, *options).stdout
    assert "held out: none, because scribbles show no whole particles" in said


def test_the_particles_of_a_model_are_labelled_classified_and_counted(
    model: Path, images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "found"
    command = ["particles", "find", model, images, "-o", folder, "--pixel-size", "4", "-q"]
    said = run(*command).stdout
    found = FoundFolder(folder)
    n_particles = len(found.table)
    assert f"{n_particles} particles in 4 images" in said
    for name in NAMES:
        np.testing.assert_array_equal(
            found.outlines(name).label_image(), load(model).predict(images / name)
        )
    assert "is not empty, and nothing is overwritten" in refused(*command)
    run(*command, "--resume")
    assert "min_area 20, not 30" in refused(*command, "--resume", "--min-area", "30")
    assert "are for finding without a model" in refused(*command, "--resume", "--remove-banner")

    middle = found.table["aspect_ratio"].median()
    labels = np.where(found.table["aspect_ratio"] < middle, "round", "long")
    found.table.assign(**{"class": labels}).to_csv(folder / "labels.csv", index=False)
    classes = tmp_path / "classes.hvlad"
    run("train", folder / "labels.csv", "-o", classes, *TINY, "-q")
    blocks = load(classes).encoder_.blocks
    assert "shape" in blocks
    told = refused("train", folder / "labels.csv", "-o", classes, *TINY, "--remove-banner", "-q")
    assert "particles are read as they were found" in told
    said = run("particles", "classify", classes, folder, "--cache", tmp_path / "cache", "-q").stdout
    assert f"{n_particles} particles classified: long " in said
    assert any((tmp_path / "cache").iterdir())
    assert {"class", "confidence", "p_long", "p_round"} <= set(FoundFolder(folder).table)
    options = ["-o", tmp_path / "counts.csv", "--page", tmp_path / "page.html"]
    said = run("particles", "count", folder, *options, "--rule", "area > 0 nm2")
    header, *lines, outlined, note, last, of_page = said.stdout.splitlines()
    assert header.split()[:3] == ["class", "particles", "count"]
    assert [line.split()[0] for line in lines] == ["long", "round", "all"]
    assert outlined.startswith("note: no interval covers what the model missed, joined or split")
    assert "held out: 1 image; the area of particles agrees by" in outlined
    assert note.startswith("note: counts are corrected")
    assert int(lines[-1].split()[1]) == n_particles
    assert last == f"counts: {tmp_path / 'counts.csv'}"
    assert of_page.startswith(f"page: {tmp_path / 'page.html'} (")
    page = Page(tmp_path / "page.html")
    assert "Only particles that meet 'area > 0 nm2' are counted." in page.words
    assert f"{n_particles}particles outlined" in page.words
    counts = pd.read_csv(tmp_path / "counts.csv")
    assert counts["class"].tolist() == ["long", "round", "all"]
    assert counts["per_um2"].iloc[-1] > 0
    warned = run("train", folder / "particles.csv", "-o", classes, *TINY, "-q").stderr
    assert f"{n_particles} of {n_particles} labels are a model's own" in warned


def test_without_a_model_what_stands_out_is_found(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "images")
    (tmp_path / "x.hvlad").touch()
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")
    save(tmp_path / "images" / "empty.png", np.full((60, 60), 0.4))
    dark = np.full((60, 60), 0.8)
    dark[20:40, 20:40] = 0.1
    save(tmp_path / "images" / "dark.png", dark)
    pages = np.full((2, 60, 80), 40, np.uint8)
    tifffile.imwrite(tmp_path / "images" / "pages.tif", pages)
    command = ["particles", "find", tmp_path / "images", "-o", tmp_path / "found", "-q"]
    result = run(*command, "--format", "geojson", code=2)
    assert "1 of 8 images left out: " in result.stderr
    assert "particles are bright in 4 images and dark in " in result.stderr
    assert "dark.png" in result.stderr
    assert "files of several pages" in result.stderr
    assert "in 7 images, 2 of them without any; 1 left out" in result.stdout
    assert (tmp_path / "found" / "geojson" / "a.png.geojson").exists()
    assert (tmp_path / "found" / "geojson" / "a.tif.geojson").exists()
    run(*command, "--resume", "--on-error", "skip")
    found = tmp_path / "found"
    for arguments, words in (
        (["count", found, "-o", found / "run.json"], "is read by this command"),
        (["count", found, "-o", found / "particles.csv"], "is read by this command"),
        (["find", found, "-o", tmp_path / "again"], "a folder of found particles, whose outlines"),
        (["count", found / "particles.csv"], "is no folder of found particles"),
        (["count", images], "is no folder of found particles"),
        (["find", images, "-o", images / "found"], "is inside the image folder"),
        (["find", "no.hvlad", images, "-o", tmp_path / "f"], "no such file"),
        (["find", tmp_path / "x.hvlad", "-o", tmp_path / "f"], "x.hvlad is a model; give"),
    ):
        assert words in refused("particles", *arguments)
    assert not (tmp_path / "f").exists()
    result = run("particles", "count", tmp_path / "found", "--page", tmp_path / "page.html")
    assert "note: the pixel size is unknown" in result.stdout
    assert "D50 (px)" in result.stdout
    assert "files of several pages" not in result.stderr
