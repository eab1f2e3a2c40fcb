"""``hypervlad extract``, ``hypervlad cache`` and the ``--cache`` of the other commands."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from support.commands import TINY, run, write_folder
from support.extraction_fixtures import stopping_after
from support.tiny import make_tiny_encoder

from hypervlad import HypercolumnVLAD, MicrographClassifier, load, load_features
from hypervlad.features.cache import CacheFolder
from hypervlad.features.encoder.loading import ImageLoader


@pytest.fixture(scope="module")
def model(
    texture_images: tuple[list[np.ndarray], np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.hvlad"
    MicrographClassifier(make_tiny_encoder(), random_state=0).fit(*texture_images).save(path)
    return path


def test_features_of_a_folder(model: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "f.parquet"
    result = run("extract", folder, "-m", model, "-o", out)
    assert result.stdout == f"features: {out}\n"
    assert result.stderr.startswith("20 images in ")
    X, frame = load_features(out, encoder=load(model))
    files = [folder / path for path in frame["path"]]
    np.testing.assert_allclose(X, load(model).encoder_.transform(files), atol=1e-5)


def test_an_encoder_without_a_classifier(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path, out: Path
) -> None:
    encoder.save(tmp_path / "encoder.hvlad")
    result = run("extract", folder, "-m", tmp_path / "encoder.hvlad", "-o", out, "-q")
    assert result.stderr == ""
    assert len(load_features(out, encoder=encoder)[0]) == 20


def test_patterns(model: Path, folder: Path, out: Path) -> None:
    run(
        *("extract", folder, "-m", model, "-o", out),
        *("--include", "a/*", "--include", "w*", "--exclude", "0.png"),
    )
    assert load_features(out)[1]["path"].tolist() == [f"a/{i}.png" for i in range(1, 8)] + ["w.png"]


def test_bad_files_are_named_and_affect_no_others(model: Path, folder: Path, out: Path) -> None:
    (folder / "a" / "2.png").write_bytes(b"no image")
    result = run("extract", folder, "-m", model, "-o", out, code=2)
    assert "error: 1 image could not be read (listed in the warning)" in result.stderr
    assert re.search(r"warning: 1 of 20 images could not be read.*\n.*2\.png", result.stderr)
    assert len(load_features(out)[0]) == 19
    run("extract", folder, "-m", model, "-o", out, "--on-error", "skip")


def test_a_stopped_run_is_resumed(
    model: Path, folder: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageLoader, "n_per_batch", 4)
    run("extract", folder, "-m", model, "-o", tmp_path / "whole.parquet")
    with stopping_after(2, KeyboardInterrupt):
        result = run("extract", folder, "-m", model, "-o", out, code=130)
    assert "extract, diameters and particles find continue with --resume" in result.stderr
    again = ("extract", folder, "-m", model, "-o", out, "--resume")
    assert "20 images: 8 finished before" in run(*again, "--dry-run").stdout
    assert "8 images had been finished before" in run(*again).stderr
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_the_cache_command(model: Path, folder: Path, tmp_path: Path, out: Path) -> None:
    cache = tmp_path / "cache"
    run("extract", folder, "-m", model, "-o", out, "--cache", cache)
    shown = run("cache", cache).stdout
    assert shown.startswith(f"{cache}: 40 entries, ")
    size = CacheFolder(cache).usage().n_bytes
    run("cache", cache, "--limit", f"{size // 2}B")
    assert 0 < CacheFolder(cache).usage().n_bytes <= size // 2
    n_entries = CacheFolder(cache).usage().n_entries
    assert "write it like 500MB or 20GB" in run("cache", cache, "--limit", "2", code=2).output
    assert "give only one" in run("cache", cache, "--clear", "--limit", "1GB", code=2).output
    assert CacheFolder(cache).usage().n_entries == n_entries
    assert "0 entries" in run("cache", cache, "--clear").stdout
    assert "holds no cache" in run("cache", folder, code=2).stderr


def test_training_and_predicting_with_a_cache(
    texture_images: tuple[list[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    data = write_folder(tmp_path / "data", *texture_images)
    plain, cached, cache = tmp_path / "plain.hvlad", tmp_path / "cached.hvlad", tmp_path / "cache"
    run("train", data, "-o", plain, *TINY, "-q")
    for _ in range(2):
        run("train", data, "-o", cached, *TINY, "-q", "--cache", cache)
        assert cached.read_bytes() == plain.read_bytes()
    n_entries = CacheFolder(cache).usage().n_entries
    expected = run("predict", plain, data, "-q").stdout
    assert run("predict", plain, data, "-q", "--cache", cache).stdout == expected
    report = tmp_path / "report"
    run("evaluate", plain, data, "-o", report, "-q", "--cache", cache)
    assert CacheFolder(cache).usage().n_entries == n_entries


def test_a_list_of_all_that_was_skipped(
    model: Path, folder: Path, tmp_path: Path, out: Path
) -> None:
    for i in range(25):
        (folder / "a" / f"bad, {i:02d}.png").write_text("no image")
    table = tmp_path / "new" / "skipped.csv"
    run("extract", folder, "-m", model, "-o", out, "--skipped", table, "-q", code=2)
    with table.open(newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["image", "reason"]
    assert [Path(name).name for name, _ in rows] == [f"bad, {i:02d}.png" for i in range(25)]
    assert all(reason for _, reason in rows)


def test_paths_count_from_the_root(model: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    run("extract", folder / "a", "--root", folder, "-m", model, "-o", out, "-q")
    _, frame = load_features(out)
    assert frame["path"].tolist() == [f"a/{i}.png" for i in range(8)]
    assert frame["label"].isna().all()
    run("extract", folder, "--root", tmp_path, "-m", model, "-o", out, "-q")
    _, frame = load_features(out)
    assert frame["path"].tolist()[0] == "images/a/0.png"
    assert set(frame["label"].dropna()) == {"a", "b"}  # below DIR, as without --root
    result = run("extract", folder / "a", "--root", folder / "b", "-m", model, "-o", out, code=2)
    assert "is not in root=" in result.output


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_impossible_options_are_errors_before_any_work(
    dry: list[str], model: Path, folder: Path, tmp_path: Path, out: Path
) -> None:
    """A dry run fails where the run would."""
    for output, options, message in (
        (model, [], "give NAME.parquet"),
        (model / "f.parquet", [], "is a file, not a folder"),
        (tmp_path, [], "is a folder; give the name of a file"),
        (out, ["--jobs", "0"], "--jobs 0: give a number of processes"),
        (out, ["--cache", model], "a file; give a folder"),
        (out, ["--weights", "nope.pth"], "nope.pth"),
        (out, ["--skipped", out], "would overwrite the output or the model"),
    ):
        result = run("extract", folder, "-m", model, "-o", output, *options, *dry, code=2)
        assert message in " ".join(result.output.split())
    file = folder / "a" / "0.png"
    assert "--include" in run("extract", file, "-m", model, "-o", out, *dry, code=2).output
    assert not out.exists()
    assert model.exists()


def test_a_dry_run_creates_nothing(model: Path, folder: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    out, cache = tmp_path / "new" / "f.parquet", tmp_path / "cache"
    result = run("extract", folder, "-m", model, "-o", out, "--cache", cache, "--dry-run")
    assert result.stdout.startswith("20 images: 0 finished before, 0 in the cache, 20 to do")
    assert sorted(tmp_path.rglob("*")) == before
