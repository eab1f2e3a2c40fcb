"""From a model to a queue and back: starting, exporting and retraining, as a user does."""

import contextlib
import itertools
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import commands
from support.commands import TINY, refused, rows_of, write_table
from support.review_queues import Judging
from support.surfaces import texture_patterns

import hypervlad
from hypervlad.apps.review import Queue, start_queue
from hypervlad.data import load_image_folder

run = partial(commands.run, "review")


def textures(n, seed):
    """Images of three textures, and from the first two every fourth one half and half."""
    rng, patterns = np.random.default_rng(seed), texture_patterns()
    images, labels = [], []
    for i in range(n):
        label = list(patterns)[i % 3]
        pattern = patterns[label]
        if i % 4 == 3:
            pattern = 0.5 * pattern + 0.5 * patterns["stripes"]
        noisy = 0.5 + 0.3 * pattern + 0.08 * rng.standard_normal(pattern.shape)
        images.append(np.round(255 * np.clip(noisy, 0, 1)).astype(np.uint8))
        labels.append(label)
    return images, labels


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of training images, one of new ones, and a model of the first."""
    root = tmp_path_factory.mktemp("place")
    for i, (image, label) in enumerate(zip(*textures(36, 0), strict=True)):
        (root / "images" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / "images" / label / f"{i:03d}.png")
    (root / "new").mkdir()
    images, labels = textures(30, 1)
    for i, image in enumerate(images):
        Image.fromarray(image).save(root / "new" / f"{i:03d}.png")
    commands.run("train", root / "images", "-o", root / "model.hvlad", *TINY, "-q")
    truth = {f"{i:03d}.png": label for i, label in enumerate(labels)}
    return SimpleNamespace(
        root=root, images=root / "images", new=root / "new", model=root / "model.hvlad", truth=truth
    )


@pytest.fixture
def started(place, tmp_path):
    folder = tmp_path / "queue"
    # So strict that some images are doubtful.
    options = ["--training", place.images, "--max-error", "0.02", "-q"]
    run("start", place.model, place.new, "-o", folder, *options)
    return folder


@contextlib.contextmanager
def opened(folder):
    with contextlib.closing(Queue(folder)) as queue:
        yield queue


def label(folder, labels):
    with opened(folder) as queue:
        for item, name in labels.items():
            category = queue.add_category(name).id
            queue.label("window-1", f"click-{item:04d}", item, category)


def images_of(folder):
    with opened(folder) as queue:
        return queue.images()


# --- start and export -------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:1 of 4 images is a training image")
def test_sure_images_are_not_queued_and_others_are_ranked(tmp_path):
    class Model(Judging):
        def classify(self, images, **options):
            found = super().classify(images, **options)
            found.judgement = replace(
                found.judgement,
                proba=np.array([[0.99, 0.01, 0], [0.6, 0.4, 0], [0.5, 0.5, 0], [0.9, 0.1, 0]]),
                kind=np.array(["sure", "ambiguous", "ambiguous", "out_of_distribution"]),
                novelty=np.array([0.5, 0.5, 0.5, 9.0]),
            )
            found.in_training[2] = True
            return found

    names = ["flat/a.png", "images/flat/a.png", "../secret.png", "flat/../../secret.png"]
    names += [str(tmp_path / "secret.png"), "flat/b.png", ""]
    for name in ("images/flat/a.png", "secret.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    model: Any = Model(3)
    model.training_ = SimpleNamespace(names=names, labels=["flat"] * len(names))
    images = [tmp_path / f"{name}.png" for name in "abcd"]
    found = start_queue(model, images, tmp_path / "q", training=tmp_path / "images")
    assert (found.n_sure, found.n_doubtful, found.n_unreadable) == (1, 3, 0)
    with opened(tmp_path / "q") as queue:
        items = queue.next("window-1", 4).items
        assert [item.id for item in items] == [4, 2, 3], "the most doubtful first, the known last"
        assert items[1].scores == [(1, 0.6), (2, 0.4), (3, 0.0)]
        assert [near.row for near in items[1].nearest] == [1, 2]
        inside = (tmp_path / "images" / "flat" / "a.png").resolve()
        assert [queue.image_of_training(row) for row in range(2)] == [inside, inside]
        for row in range(2, len(names)):  # not inside the folder, or not there
            with pytest.raises(ValueError):
                queue.image_of_training(row)


def test_a_queue_holds_every_image_and_the_sure_ones_are_labelled(started, place, tmp_path):
    known = images_of(started)
    assert [image.image.name for image in known] == sorted(place.truth)
    n_doubtful = sum(image.doubtful for image in known)
    assert 0 < n_doubtful <= 30
    result = run("export", started, "-o", tmp_path / "labels.csv")
    rows = rows_of(tmp_path / "labels.csv")
    assert len(rows) == 30 - n_doubtful
    assert all(Path(row["file"]).is_absolute() and Path(row["file"]).exists() for row in rows)
    assert all(row["source"] == "model" and float(row["confidence"]) > 0.5 for row in rows)
    assert f"{n_doubtful} uncertain images not yet labelled" in result.stderr


def test_what_cannot_be_started_or_learnt_from_leaves_no_file(
    started, place, tmp_path, monkeypatch
):
    words = refused("review", "start", place.model, place.new, "-o", started)
    assert "holds a queue already" in words
    training = ["--training", place.images, "-o", tmp_path / "m.hvlad"]
    assert "no image is labelled by a person" in refused("review", "retrain", started, *training)
    before = (started / "queue.sqlite").read_bytes()
    assert "is read by this" in refused("review", "export", started, "-o", started / "queue.sqlite")
    assert (started / "queue.sqlite").read_bytes() == before
    data, model = load_image_folder(place.images), hypervlad.load(place.model)
    images = [place.new / "000.png"]
    with pytest.warns(UserWarning, match="holds none of the 36 images"):
        start_queue(model, images, tmp_path / "q", training=place.new, max_error=0.2)
    model.set_params(calibrate=False).fit(data.images, data.target)
    with pytest.raises(ValueError):  # before images are read
        start_queue(model, [tmp_path / "none.png"], tmp_path / "s")
    moved = place.model.rename(tmp_path / "moved.hvlad")
    label(started, {1: "flat"})
    words = refused("review", "retrain", started, *training)
    moved.rename(place.model)
    assert "give its file with --model" in words
    assert not {tmp_path / "s", tmp_path / "m.hvlad"} & set(tmp_path.iterdir())
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert 'pip install "hypervlad[review]"' in refused("app", started)


@pytest.mark.filterwarnings("ignore:1 of 1 image could not be read")
def test_unreadable_images_are_left_out_and_others_are_queued_once(place, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "link.png").symlink_to(place.new / "000.png")
    paths = [place.new / "000.png", place.new / "001.png"]  # and one of them twice again
    paths += [place.new / "001.png", tmp_path / "link.png", tmp_path / "broken.png"]
    result = run("start", place.model, *paths, "-o", tmp_path / "q", "-q", code=2)
    assert "1 of 3 images could not be read" in result.stderr
    assert result.stderr.count("broken.png") == 1
    assert len(images_of(tmp_path / "q")) == 2, "what was done is not lost"
    run("start", place.model, *paths, "-o", tmp_path / "r", "-q", "--on-error", "skip")
    model = hypervlad.load(place.model)
    model.encoder_.set_params(on_error="skip")
    with pytest.raises(ValueError):
        start_queue(model, [tmp_path / "broken.png"], tmp_path / "s", max_error=0.2)
    assert not (tmp_path / "s").exists()


# --- retrain ----------------------------------------------------------------------------------


def test_from_the_first_image_to_the_new_model(started, place, tmp_path, served):
    """Start, label over HTTP as a person would, export, retrain; a new class among them."""
    server = served(started)
    answer = server.post("next", client="window-1", want=1)
    number = {c["name"]: c["id"] for c in answer["categories"]}
    number["discs"] = server.post("category", name="discs")["id"]  # what the model calls rings
    queued: dict[str, str] = {}
    while answer["items"]:
        (item,) = answer["items"]
        name = Path(item["name"]).name
        queued[name] = place.truth[name].replace("rings", "discs")
        click: dict[str, Any] = {"client": "window-1", "click": f"click-{len(queued):04d}"}
        click |= {"want": 1, "item": item["id"], "category": number[queued[name]]}
        answer = server.post("label", **click)
    server.kill()
    run("export", started, "-o", tmp_path / "labels.csv")
    rows = rows_of(tmp_path / "labels.csv")
    assert len(rows) == 30
    by_person = {Path(row["path"]).name: row["label"] for row in rows if row["source"] == "person"}
    assert by_person == queued
    data = load_image_folder(tmp_path / "labels.csv")  # the labels can be trained on as they are
    labels = dict(zip(data.images, data.target.tolist(), strict=True))
    assert labels == {row["file"]: row["label"] for row in rows}
    before, new, n = images_of(started), tmp_path / "new.hvlad", len(queued)
    reported = run("retrain", started, "--training", place.images, "-o", new, "-q").stdout
    assert f"model: {new}" in reported
    assert re.search(rf"of {n} manually labelled images .* held out", reported)
    assert re.search(r": [\d.]+ % when queued, [\d.]+ % now, held out", reported)
    assert "new classes: discs" in reported
    assert re.search(rf"uncertain among {30 - n} images .*: 0 before, \d+ now", reported)
    model = hypervlad.load(new)
    assert "discs" in model.classes_.tolist()
    assert len(model.training_) == 36 + n
    labelled = [(image.label, image.predicted) for image in before if image.label is not None]
    check_comparison(reported, model, *np.array(labelled).T)
    with opened(started) as queue:
        assert queue.fact("model") == str(new)
        known = {image.item: image for image in queue.images()}
    for image in before:  # labels stay, with what was predicted before them
        if image.label is not None:
            assert known[image.item] == image


def check_comparison(printed, model, truth, before):
    """The printed figures are those of held-out answers; the test counts all patterns of signs."""
    held = model.held_out_
    positions = model.training_.positions[held.rows].tolist()
    answers = dict(zip(positions, model.classes_[held.proba.argmax(axis=1)], strict=True))
    now = np.array([answers[36 + i] for i in range(len(truth))])
    gains = (now == truth).astype(int) - (before == truth)
    found = [100 * np.mean(labels == truth) for labels in (before, now)]
    assert "{:.1f} % when queued, {:.1f} % now, held out".format(*found) in printed
    recalls = [
        100 * np.mean([np.mean(labels[truth == own] == own) for own in set(truth)])
        for labels in (before, now)
    ]
    assert "balanced accuracy: {:.1f} % when queued, {:.1f} % now".format(*recalls) in printed
    changes = [gain for gain in gains if gain][:16]
    signs = itertools.product((-1, 1), repeat=len(changes))
    p_value = np.mean([abs(sum(each)) >= abs(sum(changes)) for each in signs])
    if len(truth) >= 6 and len(changes) < 16:
        assert ("may be due to chance" in printed) == (p_value > 0.05)


def test_answers_are_held_out_and_what_was_skipped_stays_doubtful(started, place, tmp_path):
    """With labels that are noise, only a model that has seen them could be right on them all."""
    doubtful = [image.item for image in images_of(started) if image.doubtful]
    noise = np.random.default_rng(0).choice(["flat", "rings", "stripes"], len(doubtful) - 2)
    label(started, dict(zip(doubtful[2:], noise.tolist(), strict=True)))
    with opened(started) as queue:
        for item in doubtful[:2]:
            queue.skip("window-1", f"skip-{item:04d}", item)
        queue.set_facts(max_error="0.9")  # more answers are sure now
    new = tmp_path / "n.hvlad"
    printed = run("retrain", started, "--training", place.images, "-o", new, "-q").stdout
    (after,) = re.findall(r"when queued, ([\d.]+) % now, held out", printed)
    model = hypervlad.load(new)
    files = [image.image for image in images_of(started) if image.label is not None]
    assert float(after) < 100 * max(0.75, np.mean(model.predict(files) == noise))
    assert ": 2 before, 2 now" in printed
    known = images_of(started)
    assert [image.item for image in known if image.doubtful and image.label is None] == doubtful[:2]
    run("export", started, "-o", tmp_path / "labels.csv")
    assert len(rows_of(tmp_path / "labels.csv")) == 28, "the model does not answer for a person"


def test_groups_of_training_images_come_from_a_table_or_last_in_the_model(place, tmp_path):
    files = sorted(place.images.rglob("*.png"))
    names = [path.relative_to(place.images).as_posix() for path in files]
    pairs = [(name, f"s{number // 2}") for number, name in enumerate(names)]
    table = write_table(tmp_path / "groups.csv", "path,group", [*pairs, ("new/000.png", "s0")])
    own = write_table(tmp_path / "own.csv", "path,group", pairs)
    queue, model, again = (tmp_path / name for name in ("q", "m.hvlad", "again.hvlad"))
    commands.run("train", place.images, "-o", model, "--groups", own, *TINY, "-q")
    queued = [place.new / "000.png", place.new / "001.png", files[2]]
    run("start", model, *queued, "-o", queue, "-q", "--max-error", "0.001")
    label(queue, {1: "flat", 2: "rings", 3: "stripes"})
    training = ["--training", place.images, "-o", again, "-q"]
    for options, is_listed in ((["--groups", table, "--keep-queue"], True), ([], False)):
        run("retrain", queue, *training, *options)
        known = hypervlad.load(again).training_
        ends = ["/".join(Path(name).parts[-2:]) for name in known.names]
        group = dict(zip(ends, known.groups.tolist(), strict=True))
        assert len(group) == len(files) + 2, "a training image that a person labelled counts once"
        assert group[names[0]] == group[names[1]]
        assert group[names[2]] == group[names[3]], "also of one that is in the queue"
        assert (group["new/000.png"] == group[names[0]]) == is_listed
        assert len(set(group.values())) == len(files) // 2 + (1 if is_listed else 2)
