"""Particles in the queue: from found outlines to corrected counts and a better classifier."""

import contextlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from support.commands import TINY, refused, rows_of, run, save

from hypervlad import load, make_particle_fields
from hypervlad.apps.review import Queue
from hypervlad.data import load_image_folder
from hypervlad.particles import FoundFolder, find_in_images, read_outlines, write_outlines

NOT_A_PARTICLE = "not a particle"


def key(item):
    return item.image.field, item.image.number


def label(queue, classes):
    """Give the doubtful particles their classes."""
    with contextlib.closing(Queue(queue)) as opened:
        for item in opened.images():
            if item.doubtful and key(item) in classes:
                category = opened.add_category(classes[key(item)]).id
                opened.label("window-1", f"click-{item.item}", item.item, category)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two folders of found particles with their true classes, and a classifier of the first."""
    root = tmp_path_factory.mktemp("place")
    images, truths = make_particle_fields(
        14, classes=["sphere", "rod"], n_particles=(5, 8), size=128, touching=0, random_state=0
    )
    of_field = {}
    for number, image in enumerate(images):
        file = root / ("training" if number < 8 else "new") / f"{number:02d}.png"
        save(file, image)
        of_field[file.name] = truths[number]
    for name in ("training", "new"):
        find_in_images(
            root / f"{name}-found",
            sorted((root / name).glob("*.png")),
            lambda file: of_field[file.name].outlines,
            root=root / name,
            pixel_size=4.0,
            formats=["geojson"],
        )
    truth = {
        (name, outline.label): str(own)
        for name, field in of_field.items()
        for outline, own in zip(field.outlines, field.classes, strict=True)
    }
    table = root / "training-found" / "labels.csv"
    rows = [f"{name},{n},{own}" for (name, n), own in truth.items() if name < "08"]
    table.write_text("\n".join(["micrograph,particle,class", *rows]), encoding="utf-8")
    model = root / "classes.hvlad"
    run("train", table, "-o", model, *TINY, "-q")
    return SimpleNamespace(root=root, table=table, model=model, truth=truth)


def start(place, found, queue):
    options = ["--training", place.table, "--max-error", "0.3", "-q"]
    run("review", "start", place.model, found, "-o", queue, *options)
    return queue


@pytest.fixture(scope="module")
def reviewed(place, tmp_path_factory):
    """A folder that is classified and queued, and of whose outlines a person called two wrong."""
    root = tmp_path_factory.mktemp("reviewed")
    found = Path(shutil.copytree(place.root / "new-found", root / "found"))
    run("particles", "classify", place.model, found, "-q")
    queue = start(place, found, root / "queue")
    with contextlib.closing(Queue(queue)) as opened:
        # As a model is that has learnt more: with these few particles, no answer is sure.
        opened.connection.execute("UPDATE items SET place = NULL, kind = 'sure' WHERE id % 4 = 0")
        doubtful = [key(item) for item in opened.images() if item.doubtful]
    given = {each: place.truth[each] for each in doubtful[:-1]}
    given |= dict.fromkeys(doubtful[:2], NOT_A_PARTICLE)
    label(queue, given)
    return SimpleNamespace(found=found, queue=queue, given=given, wrong=doubtful[:2])


def test_classes_of_people_are_counted_and_wrong_outlines_are_kept_aside(place, reviewed, tmp_path):
    before, queue = FoundFolder(shutil.copytree(reviewed.found, tmp_path / "b")), reviewed.queue
    found = reviewed.found.rename(tmp_path / "found")  # as a person may move it
    said = run("review", "export", queue, "-o", found).stdout
    n_given = len(reviewed.given) - 2
    assert f"classes given by people: {n_given} particles\nremoved: 2 wrong outlines" in said
    after, old = FoundFolder(found), before.table.set_index(["micrograph", "particle"])
    new = after.table.set_index(["micrograph", "particle"])
    assert set(old.index) - set(new.index) == set(reviewed.wrong)
    for each, row in new.iterrows():
        by_person = each in reviewed.given
        assert row["class"] == (reviewed.given if by_person else old["class"])[each]
        assert row["source"] == ("person" if by_person else "model")
    assert after.is_by_model.sum() == len(new) - n_given, "also where people confirm the model"
    for name, number in reviewed.wrong:
        gone = before.outlines(name).label_image() == number
        assert not after.outlines(name).label_image()[gone].any()
        removed = read_outlines(found / "removed" / f"{name}-1.tif").label_image()
        assert (removed[gone] == number).all()
        polygons = json.loads((found / "geojson" / f"{name}.geojson").read_text())["features"]
        assert len(polygons) == (new.index.get_level_values(0) == name).sum()
    counts = run("particles", "count", found).stdout
    assert f"; {n_given} particles of {len(new)} count as the class that" in counts
    assert "removed: 0 wrong outlines" in run("review", "export", queue, "-o", found).stdout
    pd.testing.assert_frame_equal(FoundFolder(found).table, after.table)
    shutil.copytree(before.path, reviewed.found)


def test_a_classifier_learns_from_corrected_particles(place, reviewed, tmp_path):
    queue = Path(shutil.copytree(reviewed.queue, tmp_path / "queue"))
    options = ["--training", place.table, "-o", tmp_path / "better.hvlad"]
    said = run("review", "retrain", queue, *options)
    n_training, n_given = sum(name < "08" for name, _ in place.truth), len(reviewed.given) - 2
    assert f"training on {n_training + n_given} images, {n_given} of them labelled" in said.stderr
    assert "2 outlines called 'not a particle' left out" in said.stderr
    better = load(tmp_path / "better.hvlad")
    micrographs = [name.partition(",")[0] for name in better.training_.names]
    groups = better.training_.groups.tolist()
    assert len({*groups}) == len({*micrographs}) == len({*zip(micrographs, groups, strict=True)})
    with contextlib.closing(Queue(queue)) as opened:
        assert opened.fact("model") == str(tmp_path / "better.hvlad")
    # In folders of its training, the labels are the classes, beside held-out answers.
    confusion = np.zeros((2, 2), int)
    of_training = {each: own for each, own in place.truth.items() if each[0] < "08"}
    named = {each: own for each, own in reviewed.given.items() if own != NOT_A_PARTICLE}
    for folder, own in ((place.table.parent, of_training), (reviewed.found, named)):
        found = FoundFolder(shutil.copytree(folder, tmp_path / folder.name))
        found.classify(better)
        is_wrong = (found.table["class"] == NOT_A_PARTICLE).to_numpy()
        assert is_wrong.sum() == 2 * (folder == reviewed.found), "wrong outlines stay wrong"
        assert (found.table["source"][is_wrong] == "training").all()
        trained = found.table.set_index(["micrograph", "particle"]).query(
            "source.str.startswith('training') and `class` != 'not a particle'", engine="python"
        )
        assert (trained["source"] == "training (review)").all() == (own is named)
        assert trained["class"].to_dict() == own
        answers = trained[["p_rod", "p_sphere"]].to_numpy().argmax(axis=1)
        if own is of_training:  # those of a review were chosen as doubtful
            np.add.at(confusion, (np.int64(trained["class"] == "sphere"), answers), 1)
    np.testing.assert_array_equal(confusion, found.confusion)
    with pytest.warns(match="2 outlines called 'not a particle' left out"):
        data = load_image_folder(found.path / "particles.csv")
    assert data.chosen.sum() == n_given, "they stay those of a review in further training"
    options[1:] = place.table, "-o", tmp_path / "again.hvlad"
    label(following := start(place, reviewed.found, tmp_path / "next"), named)
    run("review", "retrain", following, "--model", tmp_path / "better.hvlad", *options)
    assert load(tmp_path / "again.hvlad").wrong_outlines_ == better.wrong_outlines_
    notes = found.count().notes
    assert notes[0] == "without 2 wrong outlines"
    assert f"; {n_given} particles of {len(found.table) - 2} count as the" in notes[1]
    name, number = next(iter(named))
    outlines = found.outlines(name).label_image()
    outlines[tuple(np.argwhere(outlines == number)[0])] = 0  # one pixel: another particle
    write_outlines(found.outlines_file(name), outlines, pixel_size=4.0)
    with pytest.warns(match="1 particle of .* that a person left out or gave a class has no such"):
        found.classify(better)
    assert (found.table["source"].str.startswith("training")).sum() == n_given + 2 - 1
    other, n = [*named][1]
    table = found.table
    is_other = (table["micrograph"] == other) & (table["particle"] == n)
    table.assign(**{"class": table["class"].mask(is_other, "tube")}).to_csv(
        found.path / "particles.csv", index=False
    )
    with pytest.warns(match=rf"1 class of earlier training, .* particle {n} \(tube\)"):
        found.classify(better)


def test_outlines_that_were_changed_since_are_reported(place, reviewed, tmp_path):
    found = Path(shutil.copytree(reviewed.found, tmp_path / "found"))
    queue = Path(shutil.copytree(reviewed.queue, tmp_path / "queue"))
    with contextlib.closing(Queue(queue)) as opened:
        paths = str(reviewed.found), str(found)
        opened.connection.execute(
            "UPDATE items SET path = CAST(REPLACE(path, ?, ?) AS BLOB)", paths
        )
    (name, number), (other, gone) = list(reviewed.given)[2:4]
    folder = FoundFolder(found)
    for field, n, value in ((name, number, number), (other, gone, 0)):
        labels = folder.outlines(field).label_image()
        own = np.argwhere(labels == n)
        labels[labels == n] = value
        labels[tuple(own[0])] = 0  # one pixel
        write_outlines(folder.outlines_file(field), labels, pixel_size=4.0)
    table = tmp_path / "labels.csv"
    said = run("review", "export", queue, "-o", table, "--source", "person")
    assert "2 labels left out, of outlines that have changed" in said.stderr
    assert len(rows_of(table)) == len(reviewed.given) - 2
    line = refused("review", "export", queue, "-o", found)
    assert "run 'hypervlad particles classify', then repeat this command" in line
    run("particles", "classify", place.model, found, "-q")
    said = run("review", "export", queue, "-o", found)
    assert f"{len(reviewed.given) - 4} particles" in said.stdout


def test_folders_of_others_are_refused(place, reviewed, tmp_path):
    other, found = place.root / "training-found", reviewed.found
    unclassified = Path(shutil.copytree(place.root / "new-found", tmp_path / "found"))
    queue = start(place, unclassified, tmp_path / "queue")
    label(queue, place.truth)
    for arguments, words in (
        (["export", reviewed.queue, "-o", other], f"has the particles of {found}"),
        (["export", reviewed.queue, "-o", found / "particles.csv"], "is read by this command"),
        (["start", place.model, other, found, "-o", tmp_path / "q"], "give only this one"),
        (["export", queue, "-o", unclassified], "'hypervlad particles classify'"),
    ):
        assert words in refused("review", *arguments)
