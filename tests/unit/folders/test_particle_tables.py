"""Tables of particles whose classes people filled in are tables of labels."""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hypervlad.data import (
    ImageFolderError,
    ImageFolderWarning,
    check_image_folder,
    load_image_folder,
)
from hypervlad.particles import find_in_images, find_particles


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for name in ("b.png", "day 1/a.png"):
        pixels = np.full((60, 80), 40, np.uint8)
        pixels[10:20, 10:20] = pixels[30:50, 40:60] = pixels[5:15, 60:70] = 200
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / name)
    folder = root.parent / "found"
    return find_in_images(folder, sorted(root.rglob("*.png")), find_particles, root=root)[0]


@pytest.fixture
def labelled(found):
    """Return a function that writes a table beside that of the folder."""

    def write(classes, **columns):
        path = found.path / "labels.csv"
        found.table.assign(**{"class": classes}, **columns).to_csv(path, index=False)
        return path

    return write


CLASSES = ["round", "square", "", "not a particle", "round", "square"]


def test_labelled_particles_are_images_in_groups_by_micrograph(found, labelled):
    table = labelled(CLASSES)
    with pytest.warns(ImageFolderWarning) as warned:
        data = load_image_folder(table)
    assert [str(each.message).rpartition(": ")[2] for each in warned] == [
        "1 outline without a class left out",
        "1 outline called 'not a particle' left out",
    ]
    assert data.target.tolist() == ["round", "square", "round", "square"]
    assert data.groups.tolist() == ["b.png", "b.png", "day 1/a.png", "day 1/a.png"]
    assert [particle.label for particle in data.images] == [1, 2, 2, 3]
    assert {particle.micrograph for particle in data.images} == {
        str(found.images / name) for name in ("b.png", "day 1/a.png")
    }
    np.testing.assert_array_equal(data.images[3].image, found.particles("day 1/a.png")[2].image)
    assert not data.by_model.any()
    assert data.target_names == ["round", "square"]


def test_answers_of_a_model_are_told_from_those_of_people(labelled):
    proba = {
        "p_round": [0.9, 0.9, 0.2, 0.2, 0.5, np.nan],
        "p_square": [0.1, 0.1, 0.8, 0.8, 0.5, np.nan],
    }
    data = load_image_folder(
        labelled(["round", "square", "square", "other", "square", "square"], **proba)
    )
    assert data.by_model.tolist() == [True, False, True, False, True, False]


def test_tables_that_do_not_fit_are_refused(labelled, found):
    for column, value, words in (
        ("particle", 9, "line 2: no outline of b.png has the number 9"),
        ("particle", "two", "line 2: no particle 'two'"),
        ("particle", 2, "particle 2 of b.png is round (line 2) and square (line 3)"),
        ("micrograph", "c.png", "c.png: no such image in"),
        ("class", "square", "particles of 1 class"),
        ("", "", "no column is called class; add it"),
    ):
        path = labelled(["round"] + ["square"] * 5)
        table = pd.read_csv(path, dtype=object)
        if column:
            table.loc[0, column] = value
        else:
            del table["class"]
        table.to_csv(path, index=False)
        with pytest.raises(ValueError, match=re.escape(words)):
            load_image_folder(path)
    with pytest.raises(ImageFolderError):
        check_image_folder(found.path / "particles.csv")
    with pytest.raises(ImageFolderError, match=r"give sizes\.csv to 'hypervlad particles find'"):
        load_image_folder(found.path / "particles.csv", pixel_sizes="sizes.csv")
