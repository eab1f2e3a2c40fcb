"""The benchmark of the 2021 paper, on a few small images and a tiny network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage.io import imread, imsave

from benchmarks.papers.luo2021 import __main__ as luo2021
from benchmarks.papers.luo2021 import methods
from benchmarks.papers.luo2021.data import (
    LabelledImages,
    random_split,
    read_folder,
    synthetic_images,
)
from benchmarks.papers.luo2021.figures import snap_to_grid
from benchmarks.papers.luo2021.results import interval_of, merge
from benchmarks.papers.luo2021.stages import (
    BOOSTER,
    ENCODING,
    KMEANS,
    NETWORK,
    READING,
    SAMPLING,
    Clock,
)
from hypervlad.backbones import Preprocessing, build_network
from hypervlad.encoder.loading import prepare
from hypervlad.images import read_image
from hypervlad.vlad import feature_maps

CLASSES = ("cluster", "fiber", "matrix", "matrix-surface")
TINY = ["encoder__backbone=tiny", "encoder__weights=random", "encoder__image_size=24"]
TINY += ["encoder__n_codewords=3", "encoder__kmeans=minibatch", "boosting__n_estimators=3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 48 images of four classes, two of each grid square."""
    root = tmp_path_factory.mktemp("data") / "squares"
    rng = np.random.default_rng(0)
    lines = ["path,group"]
    for k, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(12):
            image = np.clip(rng.normal(60 + 40 * k, 20, (24, 24)), 0, 255).astype(np.uint8)
            imsave(root / name / f"{i:02d}.png", image, check_contrast=False)
            lines.append(f"{name}/{i:02d}.png,{k}-{i // 2}")
    (root / "groups.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def options_for(folder: Path, out: Path) -> list[str]:
    plain = ["--classes", "4", "--preset", "default", "--threads", "1", "--in-process"]
    return ["--data", str(folder), "--out", str(out), *plain, "--set", *TINY]


def run(folder: Path, out: Path, *more: str) -> list[dict[str, Any]]:
    luo2021.main(
        [*options_for(folder, out), "--results", str(out), *more],
    )
    content = json.loads((out / f"luo2021_{folder.name}_4.json").read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = content["rows"]
    return rows


@pytest.fixture(scope="module")
def done(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    out = tmp_path_factory.mktemp("out")
    return out, run(folder, out, "--groups", str(folder / "groups.csv"), "--seeds", "0", "1")


def test_a_run_writes_rows_and_figures(done: tuple[Path, list[Any]]) -> None:
    out, rows = done
    assert [row["split"] for row in rows] == ["random", "grouped"]
    for row in rows:
        assert row["seeds"] == [0, 1]
        assert row["n_train"] == 39 if row["split"] == "random" else row["n_train"] > 30
        assert np.sum(row["confusion"]) == row["n_tested"]
        assert row["accuracy"] == pytest.approx(np.mean([s["accuracy"] for s in row["by_seed"]]))
        assert all(s["interval"][0] <= s["accuracy"] <= s["interval"][1] for s in row["by_seed"])
        assert {READING, NETWORK, SAMPLING, KMEANS, ENCODING, BOOSTER} == set(row["fit_stages"])
        assert row["fit_seconds"] == pytest.approx(sum(row["fit_stages"].values()))
        assert all(s["n_encoded_again"] == 0 for s in row["by_seed"])
        assert row["label"].startswith("default (encoder__backbone=tiny")
        assert row["versions"]["python"]
        assert row["machine"]["threads"] == 1
        assert row["interval"][0] <= row["accuracy"] <= row["interval"][1]
    figures = {path.name for path in (out / "figures").iterdir()}
    assert figures == {
        "squares_4_48_default_random_confusion.png",
        "squares_4_48_default_grouped_confusion.png",
        "squares_4_48_default_mosaic.png",
        "squares_4_48_default_mosaic_small.png",
    }
    picture = imread(out / "figures" / "squares_4_48_default_mosaic.png")
    assert picture.shape[1] > 1000
    assert not any((out / "cache").iterdir())


def test_results_hold_no_paths(done: tuple[Path, list[Any]], folder: Path) -> None:
    out, _ = done
    for path in [*out.glob("*.json"), *out.glob("checkpoints/*.json")]:
        assert str(folder.parent) not in path.read_text(encoding="utf-8")


def refuse(*_: Any, **__: Any) -> dict[str, Any]:
    raise AssertionError("computed again")


def test_existing_results_are_not_computed_again(
    done: tuple[Path, list[Any]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rows = done
    monkeypatch.setattr(methods, "encode", refuse)
    monkeypatch.setattr(methods, "learn", refuse)
    monkeypatch.setattr(luo2021, "make_figures", lambda *_: None)
    groups = ["--groups", str(folder / "groups.csv")]
    assert run(folder, out, *groups, "--seeds", "0", "1") == rows
    with pytest.raises(AssertionError, match="computed again"):
        run(folder, out, *groups, "--seeds", "0", "2")


@pytest.mark.parametrize(
    "change",
    ["parameter", "image", "listing", "split", "versions", "code", "threads", "GPU", "weights"],
)
def test_other_settings_do_not_find_it(
    done: tuple[Path, list[Any]],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    out, _ = done
    options = luo2021.parse(
        [
            *[*options_for(folder, out), "--results", str(out), "--seeds", "0", "1"],
            *["--groups", str(folder / "groups.csv")],
        ]
    )
    images = luo2021.list_images(options)
    monkeypatch.setattr(methods, "encode", refuse)
    same = luo2021.Run(images, options, luo2021.common_settings(images, options))
    same.scores("default", "random", 0)
    if change == "parameter":
        options.changed["encoder__n_codewords"] = 4
    elif change == "split":
        monkeypatch.setattr(
            "benchmarks.papers.luo2021.data.random_split", lambda n, seed: random_split(n, seed + 5)
        )
    elif change == "threads":
        options.threads = 2
    elif change == "GPU":
        monkeypatch.setattr("benchmarks.common.sources.torch.cuda.is_available", lambda: True)
        monkeypatch.setattr(
            "benchmarks.common.sources.torch.cuda.get_device_name", lambda: "some GPU"
        )
    elif change == "code":
        monkeypatch.setattr(luo2021, "CODE", (*luo2021.CODE, "papers/luo2021/results"))
    elif change == "versions":
        monkeypatch.setattr("benchmarks.common.sources.platform.python_version", lambda: "3.99")
    elif change == "weights":
        (tmp_path / "weights.pth").write_bytes(b"other weights")
        options.changed["encoder__weights"] = str(tmp_path / "weights.pth")
    elif change == "listing":
        options.n_images = 40
        images = read_folder(folder, 4, folder / "groups.csv", 40)
    else:
        images = _with_one_image_changed(folder, tmp_path)
    other = luo2021.Run(images, options, luo2021.common_settings(images, options))
    with pytest.raises(AssertionError, match="computed again"):
        other.scores("default", "random", 0)


def _with_one_image_changed(folder: Path, tmp_path: Path) -> LabelledImages:
    import shutil

    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    path = copy / "fiber" / "03.png"
    image = imread(path)
    image[0, 0] ^= 1  # name and size stay, unless the compression differs
    imsave(path, image, check_contrast=False)
    return read_folder(copy, 4, copy / "groups.csv")


def test_the_digest_knows_contents_of_the_same_size(tmp_path: Path) -> None:
    for name in CLASSES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(b"one")
    before = read_folder(tmp_path, 4).digest
    (tmp_path / CLASSES[0] / "a.png").write_bytes(b"two")
    assert read_folder(tmp_path, 4).digest != before


def test_an_interrupted_run_resumes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    encode, learn = methods.encode, methods.learn

    def count_encode(job: methods.Job) -> dict[str, Any]:
        calls.append(f"encode {job.seed}")
        return encode(job)

    def stop_at_second(job: methods.Job) -> dict[str, Any]:
        calls.append(f"learn {job.seed}")
        if calls.count("learn 1") == 1 and job.seed == 1:
            raise KeyboardInterrupt
        return learn(job)

    monkeypatch.setattr(methods, "encode", count_encode)
    monkeypatch.setattr(methods, "learn", stop_at_second)
    arguments = ("--seeds", "0", "1", "--no-figures")
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path, *arguments)
    assert len(list((tmp_path / "cache").iterdir())) == 1  # the vectors wait for the booster
    (row,) = run(folder, tmp_path, *arguments)
    assert calls == ["encode 0", "learn 0", "encode 1", "learn 1", "learn 1"]
    assert row["by_seed"][1]["n_encoded_again"] == 0


def test_without_groups_the_output_says_what_that_means(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path), "--results", str(tmp_path)]
    options = luo2021.parse(["--data", str(folder), "--classes", "4", *out])
    images = luo2021.list_images(options)
    assert images.groups is None
    assert "optimistic" in capsys.readouterr().out
    options = luo2021.parse(["--classes", "8", "--n-images", "80", "--out", str(tmp_path)])
    assert luo2021.list_images(options).title == "synthetic TEM images"
    assert "no split can share a specimen" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(5))
def test_groups_never_straddle_the_grouped_split(folder: Path, seed: int) -> None:
    images = read_folder(folder, 4, folder / "groups.csv")
    assert images.groups is not None
    train, test = images.split("grouped", seed)
    assert not set(images.groups[train]) & set(images.groups[test])
    assert sorted([*train, *test]) == list(range(48))
    assert set(images.labels[test]) == set(CLASSES)
    train, test = images.split("random", seed)
    assert set(images.groups[train]) & set(images.groups[test])


def test_the_random_split_has_the_papers_sizes() -> None:
    train, test = random_split(5323, seed=3)
    assert (len(train), len(test)) == (4259, 1064)
    assert not set(train) & set(test)


def test_fewer_images_keep_the_classes_shares(folder: Path) -> None:
    images = read_folder(folder, 4, folder / "groups.csv", 40)
    assert images.groups is not None
    assert len(images.paths) == len(images.groups) == 40
    assert [int((images.labels == name).sum()) for name in CLASSES] == [10] * 4


def test_synthetic_images_are_files_and_are_made_once(tmp_path: Path) -> None:
    first = synthetic_images(tmp_path, 44, 4)
    assert first.name == "synthetic"
    assert imread(first.paths[0]).dtype == np.uint8
    assert imread(first.paths[0]).shape == (224, 224)
    (root,) = tmp_path.iterdir()
    before = Path(first.paths[5]).read_bytes()
    Path(first.paths[5]).unlink()
    (marker,) = root.glob(".*-done")
    marker.unlink()  # as if interrupted
    assert synthetic_images(tmp_path, 44, 4).digest == first.digest
    assert Path(first.paths[5]).read_bytes() == before


def test_a_folder_of_other_classes_is_refused(folder: Path) -> None:
    with pytest.raises(SystemExit, match=r"has 4 class folders .* expected 8"):
        read_folder(folder, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes", "4", "--preset", "fc2"], "fc2 needs --vgg16 FILE"),
        (["--classes", "4", "--groups", "a.csv"], "--groups goes with --data"),
        (["--classes", "8", "--n-images", "20"], "at least 80 for 8 classes"),
        (["--classes", "4", "--set", "n_codewords"], "part__name=value"),
        (["--classes", "4", "--data", "mine"], "give --results FOLDER"),
        (["--classes", "4", "--weights", "random"], "give --results FOLDER"),
        (
            ["--classes", "4", "--preset", "default", "--set", "encoder__turns=4"],
            "give --results FOLDER",
        ),
        (
            ["--classes", "4", "--set", "encoder__n_codewords=5"],
            "pooled-conv5_3 has encoder__image_size only",
        ),
        (
            [
                *["--classes", "4", "--preset", "fc2", "--vgg16", "vgg16.pth"],
                *["--set", "encoder__weights=other.pth"],
            ],
            "fc2 has encoder__image_size only",
        ),
        (
            ["--classes", "4", "--preset", "default", "--set", "encoder__n_codeword=5"],
            "default cannot use --set: Invalid parameter 'n_codeword'",
        ),
        (
            ["--classes", "4", "--preset", "luo2021", "--set", "encoder__n_codewords=many"],
            "luo2021 cannot use --set: n_codewords must be",
        ),
        (
            ["--classes", "4", "--preset", "luo2021-sklearn", "--set", "boosting__Cs=1"],
            "luo2021-sklearn cannot use --set: Invalid parameter 'Cs'",
        ),
        (
            ["--classes", "4", "--preset", "luo2021-sklearn", "--set", "boosting__max_depth=deep"],
            "luo2021-sklearn cannot use --set: The 'max_depth' parameter",
        ),
        (
            ["--classes", "4", "--preset", "luo2021", "--set", "boosting__learning_rate=3"],
            "luo2021 cannot use --set: learning_rate must be",
        ),
        (
            ["--classes", "4", "--preset", "luo2021", "--set", "encoder__grid=own"],
            "luo2021 cannot use --set: grid=",
        ),
    ],
)
def test_bad_options(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        luo2021.parse(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("method", methods.CLASSIFIERS)
def test_every_preset_is_built_with_its_seed(method: str, tmp_path: Path) -> None:
    changed = {"encoder__n_codewords": 7}
    model = methods.build_classifier(
        _job(method, tmp_path, changed=changed, weights="random", seed=3)
    )
    assert model.encoder.random_state == model.boosting.random_state == 3
    assert model.encoder.n_codewords == 7
    assert model.encoder.backbone == ("mobilenet_v2" if method == "default" else "vgg16")
    assert (model.encoder.grid == "image") == (method == "luo2021-image")
    kind = "GradientBoostingClassifier" if "sklearn" in method else "BoostedSoftmaxClassifier"
    assert type(model.boosting).__name__ == kind


def _job(method: str, tmp_path: Path, **others: Any) -> methods.Job:
    none = np.array([], dtype=int)
    facts: dict[str, Any] = {
        "method": method, "changed": {}, "weights": "a.pth", "vgg16": "b.pth", "paths": [],
        "labels": none, "groups": None, "train": none, "test": none, "seed": 0,
        "cache": tmp_path, "threads": 1, "shown": False,
    }  # fmt: skip
    return methods.Job(**(facts | others))


@pytest.mark.parametrize(
    ("method", "plain", "changed"),
    [
        ("fc2", "b.pth", "b.pth"),
        ("pooled-conv5_3", "a.pth", "a.pth"),
        ("luo2021", "a.pth", "c.pth"),
        ("default", "imagenet", "c.pth"),
    ],
)
def test_the_key_holds_the_weights_that_are_used(
    method: str, plain: str, changed: str, tmp_path: Path
) -> None:
    assert _job(method, tmp_path).network_weights == plain
    job = _job(method, tmp_path, changed={"encoder__weights": "c.pth"})
    assert job.network_weights == changed


def test_the_substitute_baseline_is_the_mean_of_the_last_convolutions(
    folder: Path, tmp_path: Path
) -> None:
    options = ["--data", str(folder), "--classes", "4", "--preset", "pooled-conv5_3"]
    options += ["--weights", "random", "--set", "encoder__image_size=32", "--threads", "1"]
    options += ["--out", str(tmp_path), "--results", str(tmp_path), "--seeds", "0", "1"]
    luo2021.main([*options, "--in-process", "--no-figures"])
    content = json.loads((tmp_path / "luo2021_squares_4.json").read_text(encoding="utf-8"))
    (row,) = content["rows"]
    assert row["accuracy"] > 0.8  # classes are levels of grey
    assert row["n_features"] == 512
    paths = read_folder(folder, 4).paths[:11]  # a batch and a part of one
    changed = {"encoder__image_size": 32}
    job = _job("pooled-conv5_3", tmp_path, paths=paths, weights="random", changed=changed)
    vectors = methods.pooled_vectors(job)["vectors"]
    network = build_network("vgg16", "random", ["features.29"])
    for path, vector in zip(paths, vectors, strict=True):
        image = prepare(read_image(path), (32, 32), Preprocessing())
        expected = feature_maps(network, image[None])[0][0].mean(dim=(0, 1))
        np.testing.assert_allclose(vector, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_groups_of_rare", [1, 2])
def test_softmax_regression_of_a_class_in_few_groups(n_groups_of_rare: int, tmp_path: Path) -> None:
    """Inner folds lack the class of two groups; that of a single one is never in their tests."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "rare"], [40, 40, 4])
    groups = np.concatenate([np.arange(80) // 4, 100 + np.arange(4) * n_groups_of_rare // 4])
    codes = np.unique(labels, return_inverse=True)[1]
    vectors = rng.standard_normal((84, 6)) + 2.5 * np.eye(6)[codes]
    rows = np.arange(84)
    job = _job("fc2", tmp_path, labels=labels, groups=groups, train=rows, test=rows)
    found = methods.softmax(job, vectors)
    assert found["C"] > 1e-4  # not the first of the grid, as it would be without scores
    assert np.isfinite(found["proba"]).all()
    assert (found["classes"][found["proba"].argmax(axis=1)] == labels).mean() > 0.9


def test_the_interval_of_several_splits_is_nadeaus_and_bengios() -> None:
    scores = [{"accuracy": a, "n_test": 20, "n_train": 80} for a in (0.8, 0.7, 0.9)]
    low, high = interval_of(scores, None)
    # 4.303 is Student's quantile for two degrees of freedom; the standard deviation is 0.1.
    half = 4.3027 * 0.1 * np.sqrt(1 / 3 + 20 / 80)
    assert (low, high) == (pytest.approx(0.8 - half, abs=1e-4), 1.0)
    assert half > 0.1


def test_the_interval_of_several_splits_resamples_known_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(200) // 10
    of_group = rng.random(20) < 0.7  # images of a group stand or fall together
    scores = []
    for seed in range(4):
        test = np.sort(np.random.default_rng(seed).permutation(200)[:100])
        scores.append({"test": test, "right": of_group[groups[test]]})
    low, high = interval_of(scores, groups)
    tested = np.unique(np.concatenate([score["test"] for score in scores]))
    mean = of_group[groups[tested]].mean()
    error = np.sqrt(mean * (1 - mean) / 20)  # twenty groups are all that is known
    assert low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.25)


def test_fc2_needs_more_than_convolutions(tmp_path: Path) -> None:
    path = tmp_path / "convolutions.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(SystemExit, match=r"convolutions only.*--preset pooled-conv5_3"):
        methods.full_vgg16(str(path))
    state = {f"classifier.{k}.weight": torch.zeros(2, 2) for k in (0, 3)}
    torch.save(state, path)
    with pytest.raises(SystemExit, match="not a state dict of torchvision's vgg16"):
        methods.full_vgg16(str(path))


def test_seconds_count_once() -> None:
    clock = Clock()
    with clock.stage("outer"):
        read = clock.timed_reading(lambda images: iter(images))
        assert list(read([1, 2, 3])) == [1, 2, 3]
    assert set(clock.seconds) == {"outer", READING}
    assert all(value >= 0 for value in clock.seconds.values())


def test_no_thumbnail_covers_another() -> None:
    points = np.random.default_rng(0).normal(size=(150, 2))
    points[:20] = points[0]
    places, shape = snap_to_grid(points)
    assert len({tuple(place) for place in places.tolist()}) == 150
    assert (places.min(axis=0) == 0).all()
    assert tuple(places.max(axis=0) + 1) == shape
    # The map keeps its directions: columns go with x, rows with y.
    assert np.corrcoef(points[:, 0], places[:, 1])[0, 1] > 0.9
    assert np.corrcoef(points[:, 1], places[:, 0])[0, 1] > 0.9


def test_rows_of_the_same_images_stand_beside_each_other(folder: Path, tmp_path: Path) -> None:
    images = read_folder(folder, 4)
    path = tmp_path / "results.json"

    def put(method: str, n_images: int, digest: str, accuracy: float) -> list[tuple[str, float]]:
        row = {"method": method, "label": method, "split": "random", "n_images": n_images}
        merge(path, images, {**row, "data_digest": digest, "accuracy": accuracy})
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        return [(row["method"], row["accuracy"]) for row in rows]

    put("a", 48, "one", 0.1)
    put("b", 48, "one", 0.2)
    assert put("a", 48, "one", 0.3) == [("b", 0.2), ("a", 0.3)]
    assert put("a", 99, "big", 0.4) == [("a", 0.4), ("b", 0.2), ("a", 0.3)]
    assert put("a", 48, "two", 0.5) == [("a", 0.4), ("a", 0.5)]


@pytest.mark.long
def test_a_piece_in_a_separate_process_is_kept_and_its_failure_reported(tmp_path: Path) -> None:
    path = tmp_path / "piece.json"
    luo2021.run_apart(luo2021.load_or_run, path, {"a": 1}, dict)
    assert luo2021.load_or_run(path, {"a": 1}, refuse)["reused"]
    with pytest.raises(SystemExit, match="exit code 1"):
        luo2021.run_apart(luo2021.load_or_run, path, {"a": 2}, refuse)
