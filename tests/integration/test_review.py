"""From a model to a queue and back: starting, exporting and retraining, in Python and a shell."""

from __future__ import annotations

import csv
import json
import re
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from support import commands
from support.commands import TINY
from support.review_queues import Served

import hypervlad
from hypervlad.apps.review import Labels, Queue, QueueError, start_queue
from hypervlad.apps.review.creation import entries_of, judge_images, training_images
from hypervlad.apps.review.retraining import (
    compare,
    gather,
    groups_from_table,
    groups_of_model,
    held_out_labels,
    refit,
    requeue,
)
from hypervlad.common.tables import write_table
from hypervlad.data import load_image_folder
from hypervlad.features.backbones import build_network
from hypervlad.models import Judgement, TrainingImages

run = partial(commands.run, "review")


def read_table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def textures(n: int, seed: int) -> tuple[list[np.ndarray], list[str]]:
    """Images of three textures, and from the first two every fourth one half and half."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:20, :24] / 4.0
    patterns = {
        "flat": 0 * x,
        "rings": np.cos(3 * np.hypot(x - 3, y - 2)),
        "stripes": np.sin(2 * x),
    }
    images, labels = [], []
    for i in range(n):
        label = list(patterns)[i % 3]
        pattern = patterns[label]
        if i % 4 == 3:
            pattern = 0.5 * pattern + 0.5 * patterns["stripes"]
        noisy = 0.5 + 0.3 * pattern + 0.08 * rng.standard_normal(x.shape)
        images.append(np.round(255 * np.clip(noisy, 0, 1)).astype(np.uint8))
        labels.append(label)
    return images, labels


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
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
def started(place: SimpleNamespace, tmp_path: Path) -> Path:
    folder = tmp_path / "queue"
    # So strict that some images are doubtful.
    options = ["--training", place.images, "--max-error", "0.02", "-q"]
    run("start", place.model, place.new, "-o", folder, *options)
    return folder


def label_all(folder: Path, truth: dict[str, str]) -> None:
    """Label what is doubtful as it truly is."""
    queue = Queue(folder)
    for image in queue.images():
        if image.doubtful:
            category = queue.add_category(truth[image.image.name]).id
            queue.label("window-1", f"click-{image.item}", image.item, category)
    queue.close()


# --- judging ----------------------------------------------------------------------------------


def test_sure_images_are_not_queued_and_others_are_ranked() -> None:
    proba = np.array([[0.99, 0.01], [0.6, 0.4], [0.5, 0.5], [0.9, 0.1]])
    judged = Judgement(
        classes=np.array(["flat", "rings"]),
        proba=proba,
        confidence=proba.max(axis=1),
        kind=np.array(["sure", "ambiguous", "ambiguous", "out_of_distribution"]),
        reasons=list("abcd"),
        novelty=np.array([0.5, 0.5, 0.5, 9.0]),
        nearest=np.array([[0], [1], [0], [1]]),
        projected=np.eye(4, dtype=np.float32),
        threshold=0.95,
    )
    model = SimpleNamespace(classes_=np.array(["flat", "rings"]))
    entries = entries_of(model, judged, list("abcd"), [Path(c) for c in "abcd"])
    assert [entry.place for entry in entries] == [None, 2, 0, 1]
    assert entries[1].scores == [("flat", 0.6), ("rings", 0.4)]
    assert entries[3].nearest == [1]


def test_where_all_are_labelled_nothing_is_judged(place: SimpleNamespace) -> None:
    model = hypervlad.load(place.model)
    judged, positions = judge_images(model, [], max_error=0.2)
    assert len(positions) == 0
    assert entries_of(model, judged, [], []) == []


def test_training_images_are_shown_from_inside_the_folder_only(tmp_path: Path) -> None:
    (tmp_path / "images" / "flat").mkdir(parents=True)
    for name in ("images/flat/a.png", "secret.png"):
        (tmp_path / name).touch()
    outside = ["../secret.png", "flat/../../secret.png", str(tmp_path / "secret.png")]
    names = ["flat/a.png", "images/flat/a.png", *outside, "flat/b.png", ""]
    model = SimpleNamespace(training_=SimpleNamespace(names=names, labels=["flat"] * len(names)))
    found = [image.image for image in training_images(model, tmp_path / "images")]
    inside = (tmp_path / "images" / "flat" / "a.png").resolve()
    assert found == [inside, inside, None, None, None, None, None]
    assert {image.image for image in training_images(model, None)} == {None}


# --- start and export -------------------------------------------------------------------------


def test_a_queue_holds_every_image_and_the_sure_ones_are_labelled(
    started: Path, place: SimpleNamespace, tmp_path: Path
) -> None:
    queue = Queue(started)
    known = queue.images()
    queue.close()
    assert [image.image.name for image in known] == sorted(place.truth)
    n_doubtful = sum(image.doubtful for image in known)
    assert 0 < n_doubtful <= 30
    database = (started / "queue.sqlite").read_bytes()
    run("export", started, "-o", started / "queue.sqlite", code=2)
    assert (started / "queue.sqlite").read_bytes() == database
    result = run("export", started, "-o", tmp_path / "labels.csv")
    rows = read_table(tmp_path / "labels.csv")
    assert len(rows) == 30 - n_doubtful
    assert all(Path(row["file"]).is_absolute() and Path(row["file"]).exists() for row in rows)
    assert all(row["source"] == "model" and float(row["confidence"]) > 0.5 for row in rows)
    assert f"{n_doubtful} uncertain images not yet labelled" in result.stderr


def test_invalid_requests_are_refused_before_anything_is_written(
    started: Path, place: SimpleNamespace, tmp_path: Path
) -> None:
    with pytest.raises(QueueError, match="holds a queue already"):
        start_queue(hypervlad.load(place.model), [place.new / "000.png"], started)
    (tmp_path / "file").touch()
    for folder, options, words in (
        (started, [], "holds a queue already"),
        (tmp_path / "file", [], "a file"),
        (tmp_path / "q", ["--max-error", 2], "--max-error"),
        (tmp_path / "q", ["--training", tmp_path / "no"], "no such folder"),
    ):
        result = run("start", place.model, place.new, "-o", folder, *options, code=2)
        assert words in result.stderr
    arguments = ["--training", place.images, "-o", tmp_path / "m.hvlad"]
    words = run("retrain", started, *arguments, code=2).stderr
    assert "no image is labelled by a person yet" in words
    assert not {tmp_path / "q", tmp_path / "m.hvlad"} & set(tmp_path.iterdir())


def test_a_folder_of_other_training_images_is_reported(
    place: SimpleNamespace, tmp_path: Path
) -> None:
    model = hypervlad.load(place.model)
    images = sorted(place.new.iterdir())[:2]
    with pytest.warns(UserWarning, match="holds none of the 36 images that the model was trained"):
        start_queue(model, images, tmp_path / "q", max_error=0.2, training=place.new)


def test_training_images_in_a_queue_and_another_type_of_pixels_are_reported(
    place: SimpleNamespace, tmp_path: Path
) -> None:
    known = next(place.images.rglob("*.png"))
    deep = tmp_path / "deep.png"
    Image.fromarray(np.array(Image.open(place.new / "000.png"), dtype=np.uint16)).save(deep)
    said = run("start", place.model, known, deep, "-o", tmp_path / "q").stderr
    assert "1 of 2 images is a training image (the same pixels)" in said
    assert "1 of 2 images has pixels of another type (uint16)" in said


@pytest.mark.filterwarnings("ignore:1 of 1 image could not be read")
def test_unreadable_images_are_left_out_and_reported(
    place: SimpleNamespace, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    paths = [place.new / "000.png", place.new / "001.png", tmp_path / "broken.png"]
    result = run("start", place.model, *paths, "-o", tmp_path / "q", "-q", code=2)
    assert "1 of 3 images could not be read" in result.stderr
    assert result.stderr.count("broken.png") == 1
    queue = Queue(tmp_path / "q")
    assert len(queue.images()) == 2, "what was done is not lost"
    queue.close()
    run("start", place.model, *paths, "-o", tmp_path / "r", "-q", "--on-error", "skip")
    model = hypervlad.load(place.model)
    model.encoder_.set_params(on_error="skip")
    with pytest.raises(ValueError, match="none of 1 image could"):
        start_queue(model, [tmp_path / "broken.png"], tmp_path / "s", max_error=0.2)
    assert not (tmp_path / "s").exists()


def test_without_flask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    words = run("serve", tmp_path, code=2).stderr
    assert 'pip install "hypervlad[review]"' in words


def test_an_image_given_twice_is_queued_once(place: SimpleNamespace, tmp_path: Path) -> None:
    one, other = place.new / "000.png", place.new / "001.png"
    link = tmp_path / "link.png"
    link.symlink_to(one)
    start_queue(hypervlad.load(place.model), [one, other, one, link], tmp_path / "q", max_error=0.9)
    queue = Queue(tmp_path / "q")
    assert sorted(image.image.name for image in queue.images()) == ["000.png", "001.png"]
    queue.close()


def test_a_model_that_held_nothing_out_is_refused_before_images_are_read(
    place: SimpleNamespace, tmp_path: Path
) -> None:
    model = hypervlad.load(place.model).set_params(calibration_size=0)
    data = load_image_folder(place.images)
    model.fit(data.images, data.target)
    with pytest.raises(ValueError, match="calibration size of 0"):
        start_queue(model, [tmp_path / "none.png"], tmp_path / "q")


def test_a_model_that_carries_its_network_learns_again_with_it(
    started: Path, place: SimpleNamespace, tmp_path: Path
) -> None:
    """Where the file that it was trained with is not at hand."""
    label_all(started, place.truth)
    network = build_network("tiny", "random")
    weights = {
        name: (1.5 * tensor).contiguous() for name, tensor in network.original.state_dict().items()
    }
    save_file(weights, tmp_path / "weights.safetensors")
    model = tmp_path / "m.hvlad"
    options = ["--weights", str(tmp_path / "weights.safetensors"), "--include-backbone", "-q"]
    commands.run("train", place.images, "-o", model, *TINY, *options)
    (tmp_path / "weights.safetensors").unlink()
    new = tmp_path / "new.hvlad"
    names = [path.relative_to(place.images).as_posix() for path in place.images.rglob("*.png")]
    write_table(tmp_path / "groups.csv", ["path", "group"], zip(names, range(99), strict=False))
    with_model = ["--model", model, "--groups", tmp_path / "groups.csv", "-o", new, "-q"]
    run("retrain", started, "--training", place.images, *with_model)
    again, old = hypervlad.load(new), hypervlad.load(model)
    assert again.encoder_.weights_digest_ == old.encoder_.weights_digest_
    assert len(again.predict([place.new / "000.png"])) == 1


# --- retrain ----------------------------------------------------------------------------------


def test_from_the_first_image_to_the_new_model(
    started: Path,
    place: SimpleNamespace,
    tmp_path: Path,
    served: Callable[[Path], Served],
) -> None:
    """Start, label over HTTP as a person would, export, retrain; a new category among them."""
    server = served(started)
    origin = re.match(r"http://[^/]+", server.link)[0]

    def post(action: str, **body: object):
        request = urllib.request.Request(
            server.link + action,
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Origin": origin},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    answer = post("next", client="window-1", want=1)
    number = {c["name"]: c["id"] for c in answer["categories"]}
    number["discs"] = post("category", name="discs")["id"]  # what the model calls rings
    n = 0
    while answer["items"]:
        (item,) = answer["items"]
        label = place.truth[Path(item["name"]).name].replace("rings", "discs")
        click = {"client": "window-1", "click": f"click-{n:04d}", "want": 1}
        answer = post("label", item=item["id"], category=number[label], **click)
        n += 1
    server.kill()
    run("export", started, "-o", tmp_path / "labels.csv")
    rows = read_table(tmp_path / "labels.csv")
    assert len(rows) == 30
    assert sum(row["source"] == "person" for row in rows) == n
    data = load_image_folder(tmp_path / "labels.csv")  # the labels can be trained on as they are
    labels = dict(zip(data.images, data.target.tolist(), strict=True))
    assert labels == {row["file"]: row["label"] for row in rows}
    new = tmp_path / "new.hvlad"
    reported = run("retrain", started, "--training", place.images, "-o", new, "-q").stdout
    assert f"model: {new}" in reported
    assert re.search(rf"of {n} manually labelled images .* held out", reported)
    assert re.search(r": [\d.]+ % when queued, [\d.]+ % now, held out", reported)
    assert re.search(r"balanced accuracy: [\d.]+ % when queued, [\d.]+ % now, the mean", reported)
    assert "new categories: discs" in reported
    assert re.search(rf"uncertain among {30 - n} images .*: 0 before, \d+ now", reported)
    assert "discs" in hypervlad.load(new).classes_.tolist()
    queue = Queue(started)
    assert queue.fact("model") == str(new)
    assert "discs" in {image.label for image in queue.images()}
    queue.close()


def test_training_images_of_a_table_and_a_queue_that_stays_unchanged(
    started: Path, place: SimpleNamespace, tmp_path: Path
) -> None:
    queue = Queue(started)
    first = next(image for image in queue.images() if image.doubtful)
    queue.label("window-1", "click-1", first.item, 1)
    before = queue.images()
    table = tmp_path / "training.csv"
    data = load_image_folder(place.images)
    write_table(table, ["path", "label"], zip(data.images, data.target, strict=True))
    options = ["--training", table, "-o", tmp_path / "m.hvlad", "-q", "--keep-queue"]
    assert "the queue is unchanged" in run("retrain", started, *options).stdout
    assert len(hypervlad.load(tmp_path / "m.hvlad").training_) == len(data.images) + 1
    assert queue.images() == before
    assert queue.fact("model") == str(place.model)
    queue.close()


def test_answers_are_held_out_by_group(
    started: Path, place: SimpleNamespace, tmp_path: Path
) -> None:
    """With labels that are noise, only a model that has seen them could be right on them all."""
    noise = np.random.default_rng(0).permutation(sorted(place.truth.values()))
    label_all(started, dict(zip(sorted(place.truth), noise, strict=True)))
    queue = Queue(started)
    material = gather(queue, load_image_folder(place.images))
    queue.close()
    old = hypervlad.load(place.model)
    new = refit(old, material)
    found = compare(new, old.classes_.tolist(), material)
    assert found.n_compared <= found.n_labelled == material.by_person.sum()
    seen = np.mean(
        new.predict(material.images)[material.by_person] == material.labels[material.by_person]
    )
    assert found.after < max(0.75, seen)
    answered = np.array([answer is not None for answer in held_out_labels(new, material)])
    assert answered[material.by_person].all()
    assert not answered[~material.by_person].any(), "only for images labelled by people"


def test_corrected_sure_answers_are_learnt_but_not_compared(
    place: SimpleNamespace, tmp_path: Path
) -> None:
    """The old model was wrong on all of them, so that a comparison would favour any new model."""
    model = hypervlad.load(place.model)
    folder = tmp_path / "q"
    start_queue(model, sorted(place.new.iterdir()), folder, max_error=0.4, model_file=place.model)
    queue = Queue(folder)
    sure = Labels(queue).page(order="name").labels
    assert len(sure) >= 4
    chosen = {label.id: label.event for label in sure[:4]}
    category = queue.add_category("onion").id
    Labels(queue).correct("window-1", "click-1", chosen, category)
    material = gather(queue, load_image_folder(place.images))
    assert material.labels[-4:].tolist() == ["onion"] * 4
    assert material.by_person.sum() == 4
    assert set(material.predicted) == {None}
    queue.close()
    arguments = ["retrain", folder, "--training", place.images, "-o", tmp_path / "new.hvlad", "-q"]
    result = run(*arguments)
    printed = result.stdout
    assert result.output.count("never predicted") == 1
    assert "accuracy: not compared, because" in printed
    assert printed.startswith("held out: 40 of ")
    assert "\nwarning: onion is never predicted: " in printed
    found = compare(hypervlad.load(tmp_path / "new.hvlad"), model.classes_.tolist(), material)
    assert (found.n_labelled, found.n_compared) == (0, 0)
    assert found.new_categories == ["onion"]
    queue = Queue(folder)
    assert [image.label for image in queue.images() if image.item in chosen] == ["onion"] * 4
    queue.close()


def test_a_training_image_that_a_person_labelled_counts_once(
    place: SimpleNamespace, tmp_path: Path
) -> None:
    files = sorted(place.images.rglob("*.png"))[:4]
    run("start", place.model, *files, "-o", tmp_path / "q", "-q", "--max-error", "0.001")
    queue = Queue(tmp_path / "q")
    item = queue.images()[0]
    queue.label("window-1", "click-1", item.item, 2)
    material = gather(queue, load_image_folder(place.images))
    queue.close()
    assert len(material.images) == 36
    assert material.images[-1] == str(files[0])
    assert material.labels[-1] == "rings"
    assert material.by_person.tolist() == [False] * 35 + [True]


def test_groups_of_training_images_and_of_the_queues_come_from_one_table(tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text("path,group\nflat/1.png,s1\nrings/2.png,s2\nnew/7.png,s1\n", encoding="utf-8")
    training = [str(tmp_path / "images" / name) for name in ("flat/1.png", "rings/2.png")]
    added = [tmp_path / "new" / "7.png", tmp_path / "new" / "8.png", tmp_path / "new" / "9.png"]
    found = groups_from_table(training, tmp_path / "images", added, table).tolist()
    assert found[:3] == ["s1", "s2", "s1"]
    assert len(set(found)) == 4, "those without a line are each a group of their own"


def test_without_a_table_training_images_keep_the_models_groups(
    place: SimpleNamespace, tmp_path: Path
) -> None:
    data = load_image_folder(place.images)
    groups = np.arange(len(data.images)) // 2
    model = hypervlad.load(place.model).fit(data.images[:-1], data.target[:-1], groups=groups[:-1])
    files = [place.new / "000.png", data.images[0]]
    run("start", place.model, *files, "-o", tmp_path / "q", "-q", "--max-error", "0.001")
    queue = Queue(tmp_path / "q")
    for item in queue.images():
        queue.label("window-1", f"click-{item.item}", item.item, 1)
    material = gather(queue, data, model=model)
    queue.close()
    assert len(material.images) == len(data.images) + 1
    assert material.groups is not None
    group_of = dict(zip(material.images, material.groups.tolist(), strict=True))
    of_training = [group_of[image] for image in data.images]
    assert of_training[0] == of_training[1], "also of one that is in the queue"
    n_known = len(set(groups[:-1].tolist()))
    assert len(set(of_training[:-1])) == n_known
    assert len(set(group_of.values())) == n_known + 2, "two that the model never saw"


def test_groups_last_from_one_retraining_to_the_next(
    place: SimpleNamespace, tmp_path: Path
) -> None:
    data = load_image_folder(place.images)
    groups = np.arange(len(data.images)) // 2
    model = old = hypervlad.load(place.model).fit(data.images, data.target, groups=groups)
    run("start", place.model, place.new, "-o", tmp_path / "q", "-q", "--max-error", "0.001")
    queue = Queue(tmp_path / "q")
    for number in range(2):  # the second model's names begin farther up: with the queue's images
        item = next(image for image in queue.images() if image.label is None)
        queue.label("window-1", f"click-{number}", item.item, 1)
        material = gather(queue, data, model=model)
        assert material.groups is not None
        of_training = material.groups[: len(data.images)]
        assert len(set(of_training.tolist())) == len(set(groups.tolist()))
        if number == 0:
            model = refit(old, material)
            assert len(set(model.training_.groups.tolist())) == len(set(groups.tolist())) + 1
    queue.close()


def test_a_folder_that_the_model_does_not_know_is_reported(
    place: SimpleNamespace, tmp_path: Path
) -> None:
    data = load_image_folder(place.images)
    names, groups = [f"x/{i}.png" for i in range(4)], np.array([0, 0, 1, 1])
    labels, digests = np.array(list("abab")), np.zeros((4, 32), dtype=np.uint8)
    points = [np.zeros((4, 2)), np.zeros((0, 2)), np.ones(2), np.ones(2)]
    known = TrainingImages(names, labels, groups, np.arange(4), digests, *points, 2)
    with pytest.warns(UserWarning, match=r"of 36 training images only 0 are known"):
        found = groups_of_model(known, data.images, range(36), [])
    assert len(set(found.tolist())) == 36


def test_what_a_person_skipped_still_counts_as_doubtful(
    started: Path, place: SimpleNamespace, tmp_path: Path
) -> None:
    queue = Queue(started)
    images = queue.images()
    doubtful = [image for image in images if image.doubtful]
    queue.label("window-1", "click-1", doubtful[0].item, 1)
    for image in doubtful[1:]:
        queue.skip("window-1", f"skip-{image.item}", image.item)
    model = hypervlad.load(place.model)
    material = gather(queue, load_image_folder(place.images), model=model)
    queue.set_facts(max_error="0.9")  # more answers are sure now
    left = requeue(queue, model, material, place.model)
    assert (left.before, left.after) == (len(doubtful) - 1, len(doubtful) - 1)
    assert sum(image.doubtful for image in queue.images() if image.label is None) == left.after
    queue.close()


def test_the_path_of_a_missing_model_is_reported(place: SimpleNamespace, tmp_path: Path) -> None:
    model = tmp_path / "model.hvlad"
    model.write_bytes(place.model.read_bytes())
    run("start", model, place.new / "000.png", "-o", tmp_path / "q", "-q")
    model.unlink()
    words = run(
        "retrain", tmp_path / "q", "--training", place.images, "-o", tmp_path / "m", code=2
    ).stderr
    assert "give its file with --model" in words
