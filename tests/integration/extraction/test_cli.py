"""``hypervlad extract``, and the ``--cache`` of the other commands."""

import csv
from pathlib import Path

import numpy as np
import pytest
from support.commands import run
from support.extraction_fixtures import during, stop
from support.feature_folders import write_image

from hypervlad import load, load_features


@pytest.fixture
def model(encoder, tmp_path):
    """The file of an encoder; what else ``load`` reads has one inside."""
    encoder.save(tmp_path / "model.hvlad")
    return tmp_path / "model.hvlad"


def test_features_of_a_folder(model, folder, tmp_path):
    out = tmp_path / "new" / "f.parquet"
    result = run("extract", folder, "-m", model, "-o", out)
    assert result.stdout == f"features: {out}\n"
    assert result.stderr.startswith("20 images in ")
    X, frame = load_features(out, encoder=load(model))
    files = [folder / path for path in frame["path"]]
    np.testing.assert_allclose(X, load(model).transform(files), atol=1e-5)

    options = ("--include", "a/*", "--include", "w*", "--exclude", "0.png", "-q")
    assert run("extract", folder, "-m", model, "-o", out, *options).stderr == ""
    assert load_features(out)[1]["path"].tolist() == [f"a/{i}.png" for i in range(1, 8)] + ["w.png"]


def test_bad_files_are_listed_and_affect_no_others(model, folder, tmp_path, out):
    names = [f"bad, {i:02d}.png" for i in range(25)]
    for name in names:
        (folder / "a" / name).write_text("no image")
    table = tmp_path / "new" / "skipped.csv"
    command = ("extract", folder, "-m", model, "-o", out)
    result = run(*command, "--skipped", table, code=2)
    assert "error: 25 images could not be read (listed in the warning)" in result.stderr
    assert "warning: 25 of 45 images could not be read" in result.stderr
    assert "bad, 00.png" in result.stderr
    assert len(load_features(out)[0]) == 20
    with table.open(newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["image", "reason"]
    assert [Path(name).name for name, _ in rows] == names
    assert all(reason for _, reason in rows)
    run(*command, "--on-error", "skip")


def test_a_stopped_run_is_resumed(model, tmp_path, out, network):
    rng, many = np.random.default_rng(0), tmp_path / "many"
    for number in range(300):
        write_image(many / f"{number}.png", rng)
    command = ("extract", many, "-m", model, "-o")
    run(*command, tmp_path / "whole.parquet")
    assert network.n_batches == 2
    result = during(1, lambda: stop(KeyboardInterrupt), lambda: run(*command, out, code=130))
    assert "continue with --resume" in result.stderr
    assert "256 images had been finished before" in run(*command, out, "--resume").stderr
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_impossible_options_are_errors_before_any_work(model, folder, tmp_path, out):
    for images, output, options, message in (
        (folder, model, [], "give NAME.parquet"),
        (folder, model / "f.parquet", [], "is a file, not a folder"),
        (folder, tmp_path, [], "is a folder; give the name of a file"),
        (folder, out, ["--jobs", "0"], "--jobs 0: give a number of processes"),
        (folder, out, ["--cache", model], "a file; give a folder"),
        (folder, out, ["--skipped", out], "would overwrite the output or the model"),
        (folder / "a", out, ["--root", folder / "b"], "is not in root="),
        (folder / "a" / "0.png", out, [], "--include"),
    ):
        result = run("extract", images, "-m", model, "-o", output, *options, code=2)
        assert message in " ".join(result.output.split())
    assert not out.exists()
    assert load(model)
