"""Browsing and correcting the labels of a queue: what is listed, changed, logged and restored."""

import dataclasses
import random

import pytest
from support.review_queues import CLASSES, write_queue

from hypervlad.apps.review import Labels, Queue, export_labels

N_DOUBTFUL, N_SURE = 3, 9


@pytest.fixture
def labels(tmp_path, clock):
    """Three doubtful images, then nine sure ones, three of each class, the later the surer."""
    write_queue(tmp_path, N_DOUBTFUL, N_SURE)
    opened = Queue(tmp_path / "queue")
    opened.now = clock
    yield Labels(opened)
    opened.close()


def events(labels, *items):
    known = {label.id: label.event for label in labels.page(source="all").labels}
    return {item: known[item] for item in items}


def test_sure_labels_are_listed_and_the_least_sure_come_first(labels):
    page = labels.page()
    assert [label.id for label in page.labels] == list(range(4, 13))
    first = page.labels[0]
    assert (first.name, first.category, first.by) == ("new/003.png", 1, "model")
    assert (first.confidence, first.event) == (0.9, None)
    assert page.total == 9
    assert page.counts == [(1, 3), (2, 3), (3, 3)]
    surest_first = labels.page(order="most_sure").labels
    assert [label.id for label in surest_first] == list(range(12, 3, -1))


def test_a_correction_is_a_persons_label_with_window_and_time(labels, clock):
    clock.now = 5000.0
    found = labels.correct("window-1", "click-1", {4: None, 5: None}, 3)
    assert (found.outcome, found.message) == ("kept", "2 images labelled “particle”")
    known = {image.item: image for image in labels.queue.images()}
    assert [known[item].label for item in (4, 5, 6)] == ["particle", "particle", None]
    assert (known[4].predicted, known[4].doubtful) == ("fibre", False)
    (label, _) = map(dataclasses.asdict, labels.page(source="person").labels)
    given = {"category": 3, "predicted": 1, "by": "person", "time": 5000.0}
    assert label | given == label
    row = labels.queue.connection.execute("SELECT * FROM events").fetchone()
    assert (row["client"], row["time"], row["what"]) == ("window-1", 5000.0, "correct")
    assert (row["category"], row["outcome"]) == (3, "kept")
    table, n_open = export_labels(labels.queue)
    assert "new/003.png,particle,person,," in table.decode()
    assert n_open == N_DOUBTFUL
    by_person, still_open = export_labels(labels.queue, "person")
    lines = table.splitlines()
    assert by_person.splitlines() == [lines[0], *(line for line in lines if b",person," in line)]
    assert (len(by_person.splitlines()), still_open) == (3, N_DOUBTFUL)


def test_what_another_window_has_changed_since_is_not_overwritten(labels):
    labels.correct("window-1", "click-1", {4: None}, 2)
    found = labels.correct("window-2", "click-2", {4: None, 5: None}, 3)
    assert found.outcome == "kept"
    assert found.message == (
        "1 image labelled “particle”; 1 image changed in another window: not labelled here"
    )
    assert [image.label for image in labels.queue.images()[3:5]] == ["matrix", "particle"]
    late = labels.correct("window-2", "click-3", {4: None}, 3)
    assert (late.outcome, labels.queue.images()[3].label) == ("late", "matrix")
    labels.correct("window-2", "click-4", events(labels, 4), 3)
    assert labels.undo("window-1", "click-5").outcome == "late"
    assert labels.queue.images()[3].label == "particle"


def test_images_that_have_no_label_are_not_corrected(labels):
    assert labels.correct("window-1", "click-1", {1: None}, 2).outcome == "late", "in the queue"
    labels.queue.connection.execute("UPDATE items SET place = 9 WHERE id = 4")  # by a new model
    assert labels.correct("window-1", "click-2", {4: None}, 2).outcome == "late"
    assert {image.label for image in labels.queue.images()} == {None}


@pytest.mark.parametrize("seed", range(4))
def test_any_sequence_of_clicks_leaves_what_a_record_says(labels, seed):
    """Corrections and undos by three windows, beside lists that keep every earlier label."""
    rng = random.Random(seed)
    history: dict[int, list[tuple[str, int] | None]] = {item: [None] for item in range(4, 10)}
    done: dict[str, list[tuple[str, list[int]]]] = {"window-1": [], "window-2": [], "window-3": []}
    for number in range(60):
        window, click = rng.choice(list(done)), f"click-{number}"
        if rng.random() < 0.6:
            chosen, category = rng.sample(list(history), rng.randint(1, 4)), rng.randint(1, 3)
            found = labels.correct(window, click, events(labels, *chosen), category)
            assert found.outcome == "kept"
            assert labels.correct(window, click, dict.fromkeys(chosen), 1) == found, "sent again"
            for item in chosen:
                history[item].append((click, category))
            done[window].append((click, chosen))
        else:
            found = labels.undo(window, click)
            assert labels.undo(window, click) == found, "sent again"
            if not done[window]:
                assert found.outcome == "nothing"
                continue
            name, chosen = done[window].pop()
            fresh = [item for item in chosen if (history[item][-1] or ("", 0))[0] == name]
            assert found.outcome == ("kept" if fresh else "late")
            for item in fresh:
                history[item].pop()
        known = {image.item: image.label for image in labels.queue.images()}
        for item, record in history.items():
            last = record[-1]
            assert known[item] == (None if last is None else CLASSES[last[1] - 1])
