"""The accuracy benchmark on a small folder of textures: same folds, resumed, nothing straddles."""

from __future__ import annotations

import ast
import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.io import imsave
from sklearn.utils.validation import has_fit_parameter

from benchmarks import tables
from benchmarks.accuracy import __main__ as accuracy
from benchmarks.accuracy import encodings, methods
from benchmarks.accuracy.features import texture
from benchmarks.accuracy.tables import accuracy_section, claims, front_table
from benchmarks.common.folds import DataSet, folds_of, number_of_folds
from benchmarks.common.logistic import TunedLogisticRegression
from benchmarks.common.sources import code_digest
from hypervlad import MicrographClassifier, default_encoder
from hypervlad.backbones import WeightsNotFoundError

GROUPS_OF_CLASS = {"flat": 5, "rings": 4, "stripes": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three textures with two images per group; rings have only four groups."""
    root = tmp_path_factory.mktemp("textures")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :48] / 4.0
    patterns = {
        "stripes": np.sin(2 * x),
        "rings": np.cos(3 * np.hypot(x - 3, y - 2)),
        "flat": 0 * x,
    }
    lines = []
    for name, n_groups in GROUPS_OF_CLASS.items():
        (root / name).mkdir()
        for i in range(2 * n_groups):
            image = 128 + 70 * patterns[name] + 15 * rng.standard_normal(x.shape)
            imsave(root / name / f"{i}.png", np.clip(image, 0, 255).astype(np.uint8))
            lines.append((f"{name}/{i}.png", f"{name}-{i // 2}"))
    with open(root / "groups.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "group"), *lines])
    return root


def run(folder: Path, out: Path, *more: str) -> dict[str, Any]:
    arguments = ["--folder", str(folder), "--backbone", "tiny", "--weights", "random"]
    arguments += ["--repeats", "2", "--threads", "1", "--out", str(out / "accuracy.json")]
    accuracy.main([*arguments, "--checkpoints", str(out / "checkpoints"), *more])
    facts: dict[str, Any] = json.loads((out / "accuracy.json").read_text(encoding="utf-8"))
    return facts


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The benchmark, run once with every method but those that need VGG-16."""
    out = tmp_path_factory.mktemp("benchmark")
    short = ["default", "default_logistic", "default_temperature", "pooled_last", "pooled_all"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.accuracy.features.IMAGE_SIZE", 32)
        patch.setattr("benchmarks.accuracy.methods.MicrographClassifier", small_default)
        patch.setattr("benchmarks.accuracy.methods.N_SAMPLED", 60)
        patch.setattr("benchmarks.accuracy.encodings.WordHistograms.__init__.__defaults__", (0, 8))
        return out, run(folder, out, "--methods", *short, "words", "fisher", "texture")


def small_default(**parameters: Any) -> MicrographClassifier:
    encoder = default_encoder(image_size=32, n_codewords=4, sampling=600)
    return MicrographClassifier(encoder, **parameters)


def test_every_method_is_scored_on_the_same_images(finished: tuple[Path, dict[str, Any]]) -> None:
    _, facts = finished
    (facts_of_set,) = facts["sets"].values()
    assert facts_of_set["folds"] == 4  # the groups of the rarest class
    assert facts_of_set["n"] == 2 * sum(GROUPS_OF_CLASS.values())
    assert facts_of_set["n_groups"] == sum(GROUPS_OF_CLASS.values())
    assert [row["method"] for row in facts["rows"]] == [
        "hypervlad, default",
        "default vectors + logistic regression",
        "default vectors + temperature-scaled logistic regression",
        "last layer pooled + logistic regression",
        "all taps pooled + logistic regression",
        "bag of visual words + logistic regression",
        "Fisher vectors + logistic regression",
        "LBP and GLCM + xgboost",
    ]
    for row in facts["rows"]:
        assert row["accuracy"] > 0.9, row["method"]  # textures that any method can distinguish
        assert row["fit_seconds"] > 0
        assert row["predict_seconds"] > 0
        low, high = row["accuracy_interval"]
        assert low <= row["accuracy"] <= high
    default = facts["rows"][0]["accuracy_against"]["default"]
    assert (default["gain"], default["error"]) == (0, 0)


def test_the_default_is_measured_as_users_get_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.accuracy.methods.MicrographClassifier", small_default)
    fold = folds_of(DataSet.load(folder), repeats=1, seed=3)[0]
    measured = methods.Default("tiny", "random", "digest")(fold)
    model = small_default(random_state=3)
    model.encoder.set_params(backbone="tiny", weights="random")
    model.fit(fold.train_paths, fold.y, groups=fold.groups)
    np.testing.assert_array_equal(measured["proba"], model.predict_proba(fold.test_paths))
    # What the softmax was given: the vectors on which another learner can be tried.
    proba = model.boosting_.predict_proba(measured["test_vectors"])
    np.testing.assert_array_equal(measured["proba"], proba)
    assert len(measured["train_vectors"]) == len(fold.train)
    assert 0 < measured["softmax_seconds"] < measured["fit_seconds"]


def test_the_measured_softmax_takes_groups() -> None:
    assert has_fit_parameter(methods.RecordingSoftmax(), "groups")


def test_luo2021_needs_the_weights_of_vgg16(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def nothing(name: str, download: bool) -> Path:
        raise WeightsNotFoundError(f"no weights of {name}")

    monkeypatch.setattr("benchmarks.accuracy.methods.find_weights", nothing)
    runnable, missing = methods.all_methods("tiny", "random", None, tmp_path)
    assert set(missing) == {"luo2021", "luo2021_image"}
    assert not set(missing) & set(runnable)
    given, missing = methods.all_methods("tiny", "random", "vgg16.pth", tmp_path)
    assert not missing
    assert set(given) == {*runnable, "luo2021", "luo2021_image"}


def test_an_interrupted_run_resumes(
    folder: Path,
    finished: tuple[Path, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    out, before = finished
    shutil.copytree(out / "checkpoints", tmp_path / "checkpoints")
    missing = sorted((tmp_path / "checkpoints").rglob("repeat1_fold1*"))
    of_pooled = [file for file in missing if file.parent.name.startswith("last_layer")]
    assert of_pooled
    for file in of_pooled:
        file.unlink()
    calls = []
    real = methods.Pooled.__call__
    monkeypatch.setattr("benchmarks.accuracy.features.IMAGE_SIZE", 32)

    def counted(self: methods.Pooled, fold: Any) -> methods.Result:
        calls.append((fold.repeat, fold.number))
        return real(self, fold)

    monkeypatch.setattr(methods.Pooled, "__call__", counted)
    facts = run(folder, tmp_path, "--methods", "pooled_last", "texture")
    assert calls == [(1, 1)]
    scores = {row["method"]: row["log_loss"] for row in before["rows"]}
    for row in facts["rows"]:
        assert row["log_loss"] == scores[row["method"]]


def test_methods_are_added_to_results_of_another_day(
    folder: Path, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, before = finished
    for kind in ("json", "npz"):
        shutil.copy(out / f"accuracy.{kind}", tmp_path)
    facts = run(folder, tmp_path, "--add", "--methods", "texture", "--repeats", "1")
    texture_before, texture_now = before["rows"][-1], facts["rows"][-1]
    assert texture_now["method"] == texture_before["method"]
    assert (texture_before["repeats"], texture_now["repeats"]) == (2, 1)
    assert [row["repeats"] for row in facts["rows"][:-1]] == [2] * 7
    kinds = ("accuracy", "accuracy_interval", "calibration", "fit_seconds")
    for was, now in zip(before["rows"][:-1], facts["rows"][:-1], strict=True):
        assert [now[kind] for kind in kinds] == [was[kind] for kind in kinds]
        assert now["log_loss"] == pytest.approx(was["log_loss"])
    shutil.rmtree(tmp_path / "checkpoints")
    assert run(folder, tmp_path, "--add", "--methods", "texture", "--repeats", "1") == facts
    assert not (tmp_path / "checkpoints").exists()  # nothing was run again
    text = accuracy_section(facts)
    assert "2 x grouped folds" in text
    assert "Of LBP and GLCM + xgboost: 1 x" in text
    assert "other code or libraries" not in text
    facts["origins"].append(facts["origins"][0] | {"code": "changed"})
    facts["rows"][-1]["origin"] = 1
    assert "other code or libraries: LBP and GLCM + xgboost" in accuracy_section(facts)


def test_a_run_stopped_between_two_data_sets_resumes(
    folder: Path, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, before = finished  # of the first data set only
    for kind in ("json", "npz"):
        shutil.copy(out / f"accuracy.{kind}", tmp_path)
    second = tmp_path / "second"
    shutil.copytree(folder, second)
    facts = run(folder, tmp_path, "--folder", str(second), "--add", "--methods", "texture")
    assert list(facts["sets"]) == [folder.name, "second"]
    assert facts["rows"][:7] == before["rows"][:7]
    assert [row["method"] for row in facts["means"]] == ["LBP and GLCM + xgboost"]


def test_nothing_is_added_to_results_of_other_images(
    folder: Path, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, before = finished
    (name,) = before["sets"]
    facts = before | {"sets": {name: before["sets"][name] | {"digest": "other"}}}
    (tmp_path / "accuracy.json").write_text(json.dumps(facts), encoding="utf-8")
    shutil.copy(out / "accuracy.npz", tmp_path)
    with pytest.raises(SystemExit, match="--add needs results of the same data sets"):
        run(folder, tmp_path, "--add", "--methods", "texture")


def test_luo2021_is_taken_over_from_results_of_another_backbone(
    folder: Path, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, before = finished
    for kind in ("json", "npz"):
        shutil.copy(out / f"accuracy.{kind}", tmp_path)
    (name,) = before["sets"]
    texture_row = before["rows"][-1]
    row = texture_row | {"method": "luo2021"}
    other = before | {"backbone": "other", "rows": [*before["rows"], row]}
    (tmp_path / "other.json").write_text(json.dumps(other), encoding="utf-8")
    with np.load(out / "accuracy.npz") as arrays:
        borrowed = arrays[f"{name}/{texture_row['method']}"]
        np.savez(tmp_path / "other.npz", **arrays, **{f"{name}/luo2021": borrowed})
    facts = run(folder, tmp_path, "--add", "--luo2021-from", str(tmp_path / "other.json"))
    assert [r["method"] for r in facts["rows"]] == [r["method"] for r in other["rows"]]
    for kind in ("accuracy", "fit_seconds", "repeats"):
        assert facts["rows"][-1][kind] == texture_row[kind]
    assert not (tmp_path / "checkpoints").exists()  # nothing was run
    with pytest.raises(SystemExit):
        run(folder, tmp_path, "--luo2021-from", str(tmp_path / "other.json"))


def test_changed_images_are_not_taken_from_checkpoints(folder: Path) -> None:
    before = DataSet.load(folder).digest
    image = folder / "flat" / "0.png"
    content = image.read_bytes()
    try:
        imsave(image, np.zeros((40, 48), np.uint8), check_contrast=False)
        assert DataSet.load(folder).digest != before
    finally:
        image.write_bytes(content)
    assert DataSet.load(folder).digest == before


def test_no_group_straddles_and_repeats_differ(folder: Path) -> None:
    data = DataSet.load(folder)
    folds = folds_of(data, repeats=2, seed=0)
    assert [(f.repeat, f.number) for f in folds] == [(r, i) for r in range(2) for i in range(4)]
    for fold in folds:
        assert not set(data.groups[fold.train]) & set(data.groups[fold.test])
        assert set(fold.y) == set(data.classes)
    for repeat in range(2):
        tested = np.concatenate([f.test for f in folds if f.repeat == repeat])
        assert sorted(tested) == list(range(len(data.y)))
    assert any(list(a.test) != list(b.test) for a, b in zip(folds[:4], folds[4:], strict=True))


@pytest.mark.parametrize(
    ("groups_of_class", "expected"), [((9, 7), 5), ((9, 4), 4), ((2, 8), 2), ((1, 3, 8), 3)]
)
def test_number_of_folds(groups_of_class: tuple[int, ...], expected: int) -> None:
    y = np.repeat(np.arange(len(groups_of_class)), [2 * n for n in groups_of_class])
    groups = np.arange(len(y)) // 2
    assert number_of_folds(y, groups) == expected


def test_without_divisible_classes_there_is_nothing_to_validate() -> None:
    with pytest.raises(SystemExit, match="one group only"):
        number_of_folds(np.array(["a", "a", "b"]), np.array([0, 0, 1]))


def test_tables_hold_every_method_and_set(finished: tuple[Path, dict[str, Any]]) -> None:
    _, facts = finished
    text = accuracy_section(facts)
    (name,) = facts["sets"]
    for row in facts["rows"]:
        assert text.count(f"| {row['method']} |") == 3
    assert f"{name}: the default's accuracy" in text
    assert front_table(facts).count("\n") == 1 + len(facts["rows"])


def test_tables_mark_what_is_worse_and_what_is_miscalibrated(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    _, facts = finished
    facts = json.loads(json.dumps(facts))
    row = facts["rows"][0]
    row["accuracy_against"]["best"] = {
        "method": "another", "gain": -0.25, "error": 0.1, "within_two_errors": False
    }  # fmt: skip
    row["calibration"] = {"error": 0.3, "range": [0.0, 0.1], "inside": False}
    line = next(x for x in accuracy_section(facts).splitlines() if x.startswith("| hypervlad"))
    assert "†" in line
    assert "‡" in line
    assert "0.250 ± 0.100 behind another, more than two" in accuracy_section(facts)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results with the speeds only."""
    speed = (tables.RESULTS / "speed" / "encoding_cpu.json").read_bytes()
    for topic in ("speed", "accuracy"):
        (tmp_path / topic).mkdir()
    (tmp_path / "speed" / "encoding_cpu.json").write_bytes(speed)
    monkeypatch.setattr("benchmarks.tables.RESULTS", tmp_path)
    return tmp_path


def test_the_default_network_comes_first_and_what_is_missing_is_said(
    finished: tuple[Path, dict[str, Any]], results: Path
) -> None:
    _, facts = finished
    page = tables.pages()[tables.BENCHMARKS / "accuracy" / "README.md"]
    assert page["accuracy"].count("not measured yet") == 2
    assert page["curve"] == "Not measured yet."
    for name in ("mobilenet_v2", "vgg16"):
        text = json.dumps(facts | {"backbone": name})
        (results / "accuracy" / f"accuracy_{name}.json").write_text(text, encoding="utf-8")
        page = tables.pages()[tables.BENCHMARKS / "accuracy" / "README.md"]
        assert page["accuracy"].count(f"**{name}** (2 x grouped folds") == 1
    assert page["accuracy"].index("**mobilenet_v2**") < page["accuracy"].index("**vgg16**")
    assert "not measured yet" not in page["accuracy"]
    assert page["accuracy"].count("Not measured yet: luo2021; luo2021, every pixel") == 2


def test_results_of_another_layout_stop_the_tables(results: Path) -> None:
    (results / "accuracy" / "accuracy_vgg16.json").write_text('{"rows": []}', encoding="utf-8")
    with pytest.raises(SystemExit, match=r"accuracy_vgg16\.json has another layout"):
        tables.pages()


@pytest.mark.parametrize(
    "more",
    [
        ["--methods", "default"],
        ["--folder", "mine"],
        ["--sets", "nanofibre"],
        ["--weights", "random"],
        ["--repeats", "1"],
    ],
)
def test_only_the_whole_run_replaces_the_projects_results(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    standard = ["--data", "shared"]
    assert accuracy.parse(standard).out is None
    with pytest.raises(SystemExit):
        accuracy.parse([*standard, *more])
    assert "give --out FILE" in capsys.readouterr().err
    assert accuracy.parse([*standard, *more, "--out", "mine.json"]).out == Path("mine.json")


def test_methods_that_cannot_run_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"luo2021": "no weights of vgg16"}
    monkeypatch.setattr(
        accuracy, "all_methods", lambda *_: ({"default": methods.Texture()}, missing)
    )
    options = ["--data", "shared", "--out", "mine.json", "--methods"]
    with pytest.raises(SystemExit, match=r"(?s)none of the methods can run.*no weights of vgg16"):
        accuracy.choose(accuracy.parse([*options, "luo2021"]))
    chosen, _ = accuracy.choose(accuracy.parse([*options, "luo2021", "default"]))
    assert list(chosen) == ["default"]
    with pytest.raises(SystemExit, match=r"(?s)no weights of vgg16.*give --out"):
        accuracy.choose(accuracy.parse(["--data", "shared"]))  # not the whole run after all


def test_claims_have_the_sign_that_favours_the_default() -> None:
    def row(method: str, gain: float, error: float) -> dict[str, Any]:
        against = {"default": {"gain": gain, "error": error}}
        return {
            "data": "steel", "method": method,
            "accuracy_against": against, "log_loss_against": against,
        }  # fmt: skip

    rows = [
        row("default vectors + logistic regression", -0.05, 0.02),
        row("default vectors + temperature-scaled logistic regression", 0.03, 0.02),
        row("texture", -0.5, 0.01),
    ]
    plain, scaled = claims(rows)
    assert plain == "steel, plain: accuracy +0.050 ± 0.020 *; log-loss +0.050 ± 0.020 *."
    assert scaled == (
        "steel, temperature-scaled: accuracy -0.030 ± 0.020; log-loss -0.030 ± 0.020."
    )


@pytest.mark.parametrize("change", ["same", "threads", "GPU", "code", "versions"])
def test_a_checkpoint_belongs_to_code_libraries_and_machine(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    class Constant:
        title = "constant"
        settings: dict[str, Any] = {}  # noqa: RUF012
        n_runs = 0

        def __call__(self, fold: Any) -> methods.Result:
            self.n_runs += 1
            return {"proba": np.full((len(fold.test), 3), 1 / 3)}

    method, fold = Constant(), folds_of(DataSet.load(folder), repeats=1, seed=0)[0]
    methods.run(method, fold, tmp_path)
    if change == "threads":
        monkeypatch.setattr("benchmarks.accuracy.methods.torch.get_num_threads", lambda: 77)
    elif change == "GPU":
        monkeypatch.setattr("benchmarks.common.sources.torch.cuda.is_available", lambda: True)
        monkeypatch.setattr(
            "benchmarks.common.sources.torch.cuda.get_device_name", lambda: "some GPU"
        )
    elif change == "code":
        monkeypatch.setattr("benchmarks.accuracy.methods.CODE", (*methods.CODE, "common/scores"))
    elif change == "versions":
        monkeypatch.setattr("benchmarks.common.sources.platform.python_version", lambda: "3.99")
    methods.run(method, fold, tmp_path)
    assert method.n_runs == (1 if change == "same" else 2)


def test_the_code_of_methods_is_all_that_they_import() -> None:
    here = tables.BENCHMARKS
    no_results = {"accuracy/tables", "common/checkpoints", "common/results", "common/sources"}
    for module in methods.CODE:
        tree = ast.parse((here / f"{module}.py").read_text(encoding="utf-8"))
        imported = {
            node.module.removeprefix("benchmarks.").replace(".", "/")
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module
        }
        local = {name for name in imported if (here / f"{name}.py").exists()}
        assert local - no_results <= set(methods.CODE), module


def test_two_folders_of_one_name_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(folder, tmp_path, "--folder", str(tmp_path / "elsewhere" / folder.name))
    assert "name of their folder, which must differ" in capsys.readouterr().err


def test_unknown_method_lists_the_known(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no method sift; there are default, "):
        run(folder, tmp_path, "--methods", "sift")


def test_code_digest_ignores_words_but_not_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.common.sources.PACKAGE", tmp_path)
    monkeypatch.setattr("benchmarks.common.sources.BENCHMARKS", tmp_path)
    (tmp_path / "beside.py").write_text("y = 1\n", encoding="utf-8")
    for module in ("encoder", "cli"):
        (tmp_path / module).mkdir()
        (tmp_path / module / "some.py").write_text("x = 1\n", encoding="utf-8")

    def after(file: str, text: str) -> bool:
        """Whether the digest changes."""
        before = code_digest("beside")
        (tmp_path / file).write_text(text, encoding="utf-8")
        return code_digest("beside") != before

    assert not after("encoder/some.py", '"""Words."""\nx = 1  # why\n')
    assert after("encoder/some.py", "x = 2\n")
    assert after("beside.py", "y = 2\n")
    assert not after("cli/some.py", "x = 2\n")  # computes no result


def test_tuned_regression_with_a_class_missing_from_an_inner_fold() -> None:
    rng = np.random.default_rng(0)
    y = np.array(["a"] * 20 + ["b"] * 20 + ["c"] * 4)
    groups = np.concatenate([np.arange(40) // 4, [90, 90, 91, 91]])
    X = rng.standard_normal((44, 5)) + 3 * np.eye(5)[np.unique(y, return_inverse=True)[1]]
    model = TunedLogisticRegression(n_splits=5).fit(X, y, groups)
    assert np.isfinite(model.loss_)
    assert (model.predict(X) == y).mean() > 0.9
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)


@pytest.mark.parametrize("n_features", [4, 90])  # more columns than rows are rotated away
@pytest.mark.parametrize("n_classes", [2, 3])
def test_tuned_regression_is_plain_logistic_regression_at_its_choice(
    n_classes: int, n_features: int
) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(1)
    y = np.arange(60) % n_classes
    X = rng.standard_normal((60, n_features)) + y[:, None]
    model = TunedLogisticRegression().fit(X, y)
    Z = StandardScaler().fit_transform(X)
    plain = LogisticRegression(C=model.C_, max_iter=1000, tol=1e-8).fit(Z, y)
    np.testing.assert_allclose(model.predict_proba(X), plain.predict_proba(Z), atol=2e-3)


def test_temperature_lowers_the_loss_of_overconfident_margins() -> None:
    from benchmarks.common.logistic import _log_loss, _temperature

    rng = np.random.default_rng(2)
    margins = rng.standard_normal((2000, 3))
    codes = np.array([rng.choice(3, p=np.exp(m) / np.exp(m).sum()) for m in margins])
    found = _temperature(5 * margins, codes)
    assert found == pytest.approx(5, rel=0.15)
    assert _log_loss(5 * margins / found, codes) < _log_loss(5 * margins, codes)


def test_word_histograms_count_the_words_that_occur() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    counts = np.array([[40, 10, 0], [10, 10, 30], [0, 50, 0], [20, 20, 10]])
    local = np.stack([np.repeat(centres, row, axis=0) for row in counts])
    local += rng.standard_normal(local.shape)
    model = encodings.WordHistograms(n_codewords=3).fit(local)
    found = model.transform(local)
    # Whatever the numbers of the codewords.
    order = [int(word) for word in model.kmeans_.predict(centres)]
    np.testing.assert_allclose(found[:, order], np.sqrt(counts / 50))


def test_fisher_vectors_have_unit_length_and_tell_means_apart() -> None:
    local = np.random.default_rng(0).standard_normal((6, 50, 3)).astype(np.float32)
    local[3:] += 2
    fisher = encodings.FisherVectors(n_modes=2).fit(local).transform(local)
    assert fisher.shape == (6, 2 * 2 * 3 + 2)
    np.testing.assert_allclose((fisher**2).sum(axis=1), 1)
    alike = fisher @ fisher.T
    assert alike[:3, :3].min() > alike[:3, 3:].max()


def test_layer_pca_gives_layers_equal_say() -> None:
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((4, 200, 6)).astype(np.float32)
    loud = samples.copy()
    loud[..., :2] *= 1000
    quiet = encodings.LayerPCA([2, 4], n_components=6).fit_transform(samples)
    np.testing.assert_allclose(
        np.abs(encodings.LayerPCA([2, 4], n_components=6).fit_transform(loud)),
        np.abs(quiet),
        atol=1e-3,
    )


def test_texture_of_tiny_and_colour_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    imsave(tmp_path / "tiny.png", rng.integers(0, 255, (5, 4), dtype=np.uint8))
    imsave(tmp_path / "colour.png", rng.integers(0, 255, (30, 40, 3), dtype=np.uint8))
    rows = texture([str(tmp_path / "tiny.png"), str(tmp_path / "colour.png")])
    assert rows.shape == (2, 102)
    assert np.isfinite(rows).all()


@pytest.mark.slow  # a transformer passes over the textures twice
def test_transformers_are_compared_by_their_tokens(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("tokens")
    network = ["--backbone", "timm/test_vit", "--methods"]
    short = ["tokens_logistic", "tokens_neighbours", "anyloc"]
    facts = run(folder, out, *network, *short)
    titles = [f"class and mean token + {kind}" for kind in ("logistic regression", "nearest")]
    found = [row["method"] for row in facts["rows"]]
    assert found[0] == titles[0]
    assert found[1].startswith(titles[1])
    assert found[2] == "AnyLoc"
    assert all(row["accuracy"] > 0.5 for row in facts["rows"])
    methods_of_cnn, _ = methods.all_methods("tiny", "random", None, out)
    assert not set(short) & set(methods_of_cnn)
