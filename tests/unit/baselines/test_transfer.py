"""`TransferClassifier`: features and fine-tuning, conformance, files, skipped images, real ones."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from support.counting import CountingImage, count_passes
from support.fine_tuning import keep_the_last_epoch
from torch.nn.functional import cross_entropy

import hypervlad
from hypervlad import ImageReadError, ModelFileError
from hypervlad.evaluation import expected_calibration_error
from hypervlad.features import Preprocessing, WeightsNotFoundError, get_backbone
from hypervlad.features.backbones import build_network
from hypervlad.images import SkippedImagesWarning
from hypervlad.models import TransferClassifier
from hypervlad.models.baselines import finetuning, training, transfer
from hypervlad.models.baselines.finetuning import (
    SoftmaxHead,
    TransferNetwork,
    fit_head,
    imagenet_size,
)
from hypervlad.models.baselines.training import Schedule, SoftmaxCrossEntropy
from hypervlad.results import TrainingCurvesDisplay, model_facts

Images = tuple[list[np.ndarray], np.ndarray]

pytestmark = pytest.mark.filterwarnings("ignore:fine-tuning is validated on:UserWarning")


def small(**parameters: Any) -> TransferClassifier:
    """A classifier on the tiny network, that learns in a fraction of a second."""
    usual = {
        "weights": "random",
        "image_size": 16,
        "learning_rate": 1e-3,
        "batch_size": 6,
        "max_epochs": 3,
        "random_state": 0,
    }
    return TransferClassifier("tiny", **usual | parameters)


@pytest.fixture(scope="module")
def features(tiny_backbone: None, texture_images: Images) -> TransferClassifier:
    return small().fit(*texture_images)


@pytest.fixture(scope="module")
def tuned(tiny_backbone: None, texture_images: Images) -> TransferClassifier:
    return small(mode="finetune").fit(*texture_images)


MODES = [
    {},
    {"mode": "finetune", "trainable": "head"},
    {"mode": "finetune", "trainable": "last"},
    {"mode": "finetune", "trainable": "all"},
]
modes = pytest.mark.parametrize("mode", MODES, ids=lambda m: m.get("trainable", "features"))


# --- learning ----------------------------------------------------------------------------------


@modes
def test_it_learns_and_its_probabilities_are_probabilities(
    mode: dict[str, Any], texture_images: Images
) -> None:
    images, labels = texture_images
    model = small(**mode).fit(images[:18], labels[:18])
    assert model.score(images[18:], labels[18:]) == 1
    proba = model.predict_proba(images)
    assert model.classes_.tolist() == ["flat", "rings", "stripes"]
    np.testing.assert_allclose(softmax(model.decision_function(images), axis=1), proba)
    assert model.n_images_ == 18
    codes = np.searchsorted(model.classes_, labels)
    assert expected_calibration_error(codes, proba) < 0.25


def test_two_classes_have_one_margin(texture_images: Images) -> None:
    images, labels = texture_images
    model = small(mode="finetune").fit(images, labels == "flat")
    margins, proba = model.decision_function(images), model.predict_proba(images)
    np.testing.assert_allclose(margins, np.log(proba[:, 1] / proba[:, 0]), atol=1e-9)
    np.testing.assert_array_equal(model.predict(images), margins > 0)
    assert model.predict(images).dtype == bool


def test_features_are_the_last_maps_averaged_and_the_head_is_logistic_regression(
    texture_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the same in a few plain lines, without any of the code under test."""
    monkeypatch.setattr(finetuning, "_CS", (10.0,))
    images, labels = texture_images
    backbone = get_backbone("tiny")
    module = build_network("tiny", "random").original
    rows = []
    for image in images:
        batch = backbone.preprocessing.prepare(image, (16, 16))[None]
        rows.append(module(batch).mean(dim=(2, 3))[0].detach().double().numpy())
    X = np.array(rows)
    model = small().fit(images, labels)
    np.testing.assert_allclose(model._encode(images).vectors, X, rtol=1e-4, atol=1e-6)
    Z = X - X.mean(axis=0)
    Z /= np.sqrt((Z**2).sum(axis=1).mean())
    plain = LogisticRegression(C=10.0, max_iter=1000, tol=1e-6).fit(Z, labels)
    expected = plain.decision_function(Z)
    found = model.decision_function(images) * model.head_.temperature
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert model.history_ is None


@modes
def test_same_seed_same_model_in_any_order(mode: dict[str, Any], texture_images: Images) -> None:
    images, labels = texture_images
    groups = np.arange(24) // 2
    order = np.random.default_rng(0).permutation(24)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = small(**mode).fit(images, labels, groups=groups).predict_proba(images)
    again = small(**mode).fit(images, labels, groups=groups).predict_proba(images)
    assert torch.equal(torch.rand(3), expected)  # torch's own generator is left alone
    np.testing.assert_array_equal(first, again)
    other = small(**mode).fit([images[i] for i in order], labels[order], groups=groups[order])
    np.testing.assert_array_equal(other.predict_proba(images), first)
    if mode:
        another = small(**mode | {"random_state": 1})
        assert (another.fit(images, labels, groups=groups).predict_proba(images) != first).any()


@pytest.mark.parametrize("trainable", ["head", "last", "all"])
def test_only_trainable_layers_change(
    trainable: Any,
    features: TransferClassifier,
    texture_images: Images,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep_the_last_epoch(monkeypatch)
    model = small(mode="finetune", trainable=trainable).fit(*texture_images)
    before = build_network("tiny", "random").original.state_dict()
    after = model._network().original.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    of_layers = {"head": [], "last": ["4"], "all": ["0", "2", "4"]}[trainable]
    expected = {f"{layer}.{part}" for layer in of_layers for part in ("weight", "bias")}
    assert changed == set(model.network_state_) == expected
    assert (features.head_.coef != model.head_.coef).any()


@pytest.mark.parametrize("mode", ["features", "finetune"])
def test_groups_stay_on_one_side_and_copies_do_too(
    mode: Any, texture_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = texture_images
    seen: list[Any] = []
    for module, name in ((training, "holdout_split"), (finetuning, "group_folds")):
        original = getattr(module, name)

        def spy(codes: Any, groups: Any, *, original: Any = original, **given: Any) -> Any:
            sides = original(codes, groups, **given)
            seen.extend((groups, *each) for each in (sides if isinstance(sides, list) else [sides]))
            return sides

        monkeypatch.setattr(module, name, spy)
    copies, theirs = [*images, *images], np.tile(labels, 2)
    # The second copy of each image is in a group of another name, together with the next image.
    apart = np.r_[np.arange(24), 100 + np.arange(24) // 2]
    for groups, n_groups in ((None, 24), (apart, 12), (np.arange(48) // 6 % 4, 4)):
        seen.clear()
        small(mode=mode, max_epochs=1).fit(copies, theirs, groups=groups)
        assert seen
        for joined, learnt, held_out in seen:
            assert not set(joined[learnt]) & set(joined[held_out])
        assert len(np.unique(seen[0][0])) == n_groups


def held_out_of(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The validation images of each fine-tuning from here on, and the number of their groups."""
    seen: list[Any] = []
    original = transfer.fine_tune

    def spy(*given: Any, **named: Any) -> Any:
        seen.append((given[4], named["n_validation_groups"]))
        return original(*given, **named)

    monkeypatch.setattr(transfer, "fine_tune", spy)
    return seen


def test_validation_loss_is_that_of_the_probabilities_that_the_model_gives(
    texture_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = texture_images
    keep_the_last_epoch(monkeypatch)
    seen = held_out_of(monkeypatch)
    model = small(mode="finetune").fit(images, labels)
    ((samples, n_groups),) = seen
    rows = [
        i
        for i in range(24)
        if (samples.pixels[samples.rows] == stored_pixels(images[i])).all(axis=(1, 2, 3)).any()
    ]
    assert len(rows) == n_groups == model.history_.n_validation
    proba = model.predict_proba([images[i] for i in rows])
    codes = np.searchsorted(model.classes_, labels[rows])
    loss = -np.log(proba[np.arange(len(rows)), codes]).mean()
    assert loss == pytest.approx(model.history_.validation_loss[-1], abs=1e-5)


def stored_pixels(image: np.ndarray) -> np.ndarray:
    plain = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)
    return plain.prepare(image, (16, 16)).numpy()[:1]


def test_a_start_that_is_not_improved_on_is_the_model_of_features_of_all_images(
    features: TransferClassifier, texture_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = texture_images
    start = property(lambda curves: -1)
    monkeypatch.setattr("hypervlad.models.baselines.training.FineTuningCurves.best_epoch", start)
    model = small(mode="finetune", trainable="all", max_epochs=40, patience=4).fit(images, labels)
    assert len(model.history_) == 4
    assert model.network_state_ == {}
    np.testing.assert_array_equal(model.predict_proba(images), features.predict_proba(images))
    assert model_facts(model)["fine-tuned"] == "no: 4 epochs did not improve it"
    display = TrainingCurvesDisplay.from_estimator(model)
    assert display.ax_.lines[2].get_xydata().tolist() == [[0, model.history_.start_loss]]
    with pytest.raises(ValueError, match=r"was not trained \(mode='features'"):
        TrainingCurvesDisplay.from_estimator(features)


def test_the_epochs_of_the_weights_that_were_kept_are_reported(tuned: TransferClassifier) -> None:
    model = copy.deepcopy(tuned)
    model.history_.validation_loss[:] = [0.0, 1.0, 1.0]
    assert model_facts(model)["fine-tuned"] == "its head and last layers, for 1 of 3 epochs"


def test_few_held_out_groups_are_reported(texture_images: Images) -> None:
    images, labels = texture_images
    with pytest.warns(UserWarning, match="validated on 6 images of 1 group only"):
        small(mode="finetune").fit(images, labels, groups=np.arange(24) // 6)


def test_the_scale_of_the_margins_decides_nothing() -> None:
    rng = np.random.default_rng(0)
    answers = torch.from_numpy(rng.standard_normal((12, 3)))
    targets = torch.arange(12) % 3
    plain, scaled = (SoftmaxCrossEntropy(temperature, 12) for temperature in (1.0, 20.0))
    loss = plain.validation_loss(answers, targets)
    assert scaled.validation_loss(20 * answers, targets) == pytest.approx(loss)
    temperature = plain.temperature_for(answers, targets)
    assert loss == pytest.approx(float(cross_entropy(answers / temperature, targets)))
    # Between that of the start and that of the held-out images, nearer to these if they are many.
    few, many = (SoftmaxCrossEntropy(0.5, n) for n in (2, 200))
    assert 0.5 < few.temperature_for(answers, targets) < many.temperature_for(answers, targets)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_fine_tuning_starts_at_the_optimum_of_its_own_loss(n_classes: int) -> None:
    """The head's gradient, penalty included, is zero; its margins are those without temperature."""
    rng = np.random.default_rng(0)
    codes = np.arange(30) % n_classes
    features = rng.standard_normal((30, 8)) + codes[:, None]
    fitted = fit_head(features, codes, np.arange(30), n_classes, seed=0)
    trunk = torch.nn.Identity()
    network = TransferNetwork(trunk, get_backbone("tiny"), fitted.head, False).eval()
    network.head.double()
    margins = network.head((torch.from_numpy(features) - network.mean) / network.scale)
    expected = fitted.head.margins(features) * fitted.head.temperature
    np.testing.assert_allclose(margins.detach(), expected, atol=1e-4)
    loss = SoftmaxCrossEntropy(1.0, 1).loss(margins, torch.from_numpy(codes))
    (gradient,) = torch.autograd.grad(loss, network.head.weight)
    gradient = gradient + fitted.penalty * network.head.weight.detach()
    assert gradient.abs().max() < 1e-3


def test_mixed_precision_does_not_judge() -> None:
    trunk = build_network("tiny", "random").original
    head = SoftmaxHead(np.zeros(10), np.ones(10), np.ones((10, 2)), np.zeros(2))
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    plain, mixed = (TransferNetwork(trunk, get_backbone("tiny"), head, m) for m in (False, True))
    assert torch.equal(plain.eval()(images), mixed.eval()(images))
    for network in (plain, mixed):
        network.train().dropout.eval()
    assert not torch.equal(plain(images), mixed(images))


def test_rates_rise_and_batches_are_nearly_equal() -> None:
    schedule = Schedule(1.0, 32, 1, 1, warm_up=4, even_batches=True)
    assert [schedule.rate_factor(step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert [len(rows) for rows in schedule.batches(torch.arange(65))] == [22, 22, 21]
    assert [len(rows) for rows in schedule.batches(torch.arange(64))] == [32, 32]
    plain = Schedule(1.0, 32, 1, 1)
    assert [len(rows) for rows in plain.batches(torch.arange(65))] == [32, 32, 1]
    assert plain.rate_factor(0) == 1


def test_colour_and_grey_are_prepared_by_the_same_code(
    tuned: TransferClassifier, texture_images: Images
) -> None:
    images, labels = texture_images
    colour = [np.repeat(image[..., None], 3, axis=-1) for image in images]
    np.testing.assert_allclose(tuned.predict_proba(colour), tuned.predict_proba(images), atol=1e-4)
    tinted = [image * np.array([1.0, 0.7, 0.4], dtype=np.float32) for image in colour]
    mixed = small(mode="finetune").fit([*images[:12], *tinted[12:]], labels)
    assert mixed.predict_proba(tinted).shape == (24, 3)


def test_many_images_lie_in_a_temporary_file(
    tuned: TransferClassifier, texture_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_MAX_IN_MEMORY", 0)
    found = small(mode="finetune").fit(*texture_images)
    images, _ = texture_images
    np.testing.assert_array_equal(found.predict_proba(images), tuned.predict_proba(images))


def test_image_size_is_at_least_what_the_network_accepts() -> None:
    backbone = dataclasses.replace(
        get_backbone("tiny"), preprocessing=Preprocessing(minimum_size=256)
    )
    assert TransferClassifier()._size_for(backbone) == 256
    assert imagenet_size(get_backbone("tiny")) == 224


@pytest.mark.parametrize("mode", ["features", "finetune"])
def test_each_image_is_read_and_encoded_once(
    mode: Any, texture_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = texture_images
    counted = [CountingImage(image) for image in images]
    passes = count_passes(monkeypatch)
    model = small(mode=mode).fit(counted, labels)
    assert [image.n_reads for image in counted] == [1] * 24
    if mode == "features":  # fine-tuning passes them again and again
        assert sum(passes) == 24
    passes.clear()
    model.predict(counted)
    assert [image.n_reads for image in counted] == [2] * 24
    assert sum(passes) == 24


# --- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "include_backbone", "layers"),
    [
        (MODES[0], False, ""),
        (MODES[0], True, "024"),
        (MODES[2], False, "4"),
        (MODES[2], True, "024"),
        (MODES[3], False, "024"),
    ],
)
def test_saved_and_loaded_predicts_bit_identically(
    mode: dict[str, Any],
    include_backbone: bool,
    layers: str,
    texture_images: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, labels = texture_images
    keep_the_last_epoch(monkeypatch)
    model = small(**mode).fit(images, labels)
    path = tmp_path / "m.hvlad"
    model.save(path, include_backbone=include_backbone)
    loaded = hypervlad.load(path)
    assert isinstance(loaded, TransferClassifier)
    for method in ("predict", "predict_proba", "decision_function"):
        found, expected = getattr(loaded, method)(images), getattr(model, method)(images)
        np.testing.assert_array_equal(found, expected)
    assert loaded.history_ == model.history_
    assert {name[0] for name in loaded.network_state_} == set(layers)
    loaded.save(tmp_path / "again.hvlad", include_backbone=include_backbone)
    assert (tmp_path / "again.hvlad").read_bytes() == path.read_bytes()
    facts = model_facts(loaded)
    assert facts["network"] == "tiny"
    assert facts["trained on"] == "24 images"


def test_weights_that_are_not_those_of_the_model_are_reported(
    texture_images: Images, tmp_path: Path
) -> None:
    images, labels = texture_images
    state = build_network("tiny", "random").original.state_dict()
    torch.save(state, tmp_path / "own.pth")
    torch.save({name: value + 1 for name, value in state.items()}, tmp_path / "other.pth")
    model = small(weights=tmp_path / "own.pth", mode="finetune").fit(images, labels)
    model.save(tmp_path / "m.hvlad")
    model.save(tmp_path / "whole.hvlad", include_backbone=True)
    expected = model.predict_proba(images)
    shutil.copy(tmp_path / "own.pth", tmp_path / "moved.pth")
    with pytest.raises(WeightsNotFoundError, match="which is not looked for"):
        hypervlad.load(tmp_path / "m.hvlad").predict(images)
    with pytest.raises(WeightsNotFoundError, match="not those that the model was trained with"):
        hypervlad.load(tmp_path / "m.hvlad", weights=tmp_path / "other.pth").predict(images)
    found = hypervlad.load(tmp_path / "m.hvlad", weights=tmp_path / "moved.pth")
    np.testing.assert_array_equal(found.predict_proba(images), expected)
    alone = hypervlad.load(tmp_path / "whole.hvlad")
    np.testing.assert_array_equal(alone.predict_proba(images), expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"head_": {"state": {"temperature": 0.0}}}, "head_: a value must be a number .* not 0"),
        ({"classes_": {"values": ["flat", "rings"]}}, "3 classes for 2 labels"),
        ({"backbone_": "absent"}, "'absent', which is not registered here"),
        ({"arrays": {"head_.mean": np.zeros(3)}}, "arrays do not fit"),
        ({"arrays": {"head_.coef": np.full((10, 3), np.nan)}}, "coef has values from nan"),
        ({"arrays": {"head_.scale": np.zeros(10)}}, "scale has values from 0.0"),
        ({"arrays": {"network_state_.4.weight": None}}, "arrays are missing"),
        ({"arrays": {"network_state_.4.bias": np.zeros(3, np.float32)}}, "of another shape"),
        ({"trainable_": "xx"}, "trainable_ must be one of"),
        ({"image_size_": 0}, "image_size_: a value must be a whole number"),
        ({"history_": {"loss": 3}}, "not iterable"),
        ({"history_": {"loss": [1.0]}}, "curves differ in length"),
        ({"history_": {"start_loss": "low"}}, "not numbers"),
    ],
)
def test_an_impossible_state_is_reported(
    changed: dict[str, Any],
    message: str,
    texture_images: Images,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep_the_last_epoch(monkeypatch)
    header, arrays = small(mode="finetune").fit(*texture_images).to_state()
    ((part, values),) = changed.items()
    if part == "arrays":
        arrays = {k: v for k, v in (arrays | values).items() if v is not None}
    else:
        fitted = header["fitted"]
        values = fitted[part] | values if isinstance(values, dict) else values
        header = header | {"fitted": fitted | {part: values}}
    with pytest.raises(ModelFileError, match=message):
        TransferClassifier.from_state(header, arrays)


def test_a_fit_needs_the_weights_file_once(
    texture_images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = texture_images
    keep_the_last_epoch(monkeypatch)
    path = tmp_path / "own.pth"
    torch.save(build_network("tiny", "random").original.state_dict(), path)
    original = transfer.load_training_images

    def load(*given: Any) -> Any:
        path.unlink()
        return original(*given)

    expected = small(mode="finetune").fit(images, labels).predict_proba(images)
    monkeypatch.setattr(transfer, "load_training_images", load)
    model = small(mode="finetune", weights=path).fit(images, labels)
    np.testing.assert_array_equal(model.predict_proba(images), expected)


def test_parameters_set_later_wait_for_the_next_fit(
    tuned: TransferClassifier, texture_images: Images
) -> None:
    images, _ = texture_images
    expected = tuned.predict_proba(images)
    changed = pickle.loads(pickle.dumps(tuned))
    assert not any(isinstance(value, torch.nn.Module) for value in vars(changed).values())
    changed.set_params(mode="features", image_size=32, backbone="resnet18")
    np.testing.assert_array_equal(changed.predict_proba(images), expected)


# --- images that cannot be read, input that cannot be ------------------------------------------


@modes
def test_skipped_images_are_left_out_and_marked(
    mode: dict[str, Any], texture_images: Images, tmp_path: Path
) -> None:
    images, labels = texture_images
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"")
    mixed = [bad, *images]
    with pytest.raises(ImageReadError, match=r"bad\.tif"):
        small(**mode).fit(mixed, ["flat", *labels])
    model = small(on_error="skip", **mode)
    with pytest.warns(SkippedImagesWarning, match=r"bad\.tif"):
        model.fit(mixed, ["flat", *labels], groups=np.arange(25))
    assert model.n_images_ == 24
    expected = model.score(images, labels)
    with pytest.warns(SkippedImagesWarning):
        score, predicted, margins = (
            model.score(mixed, ["flat", *labels]),
            model.predict(mixed),
            model.decision_function(mixed),
        )
    assert score == expected
    assert predicted.tolist() == [None, *model.predict(images)]
    assert np.isnan(margins[0]).all()
    with pytest.warns(SkippedImagesWarning), pytest.raises(ValueError, match="one class"):
        model.fit([bad, *images[:3]], ["other", "flat", "flat", "flat"])
    assert model.score(images, labels) == expected  # a fit that fails leaves the model as it was


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"weights": "nowhere.pth"}, "no such weights file"),
        ({"image_size": 2}, "image_size must be .* at least 4 and at most 2048 or 'auto', not 2"),
        ({"checkpoint": 3}, "checkpoint must be a file or a folder"),
    ],
)
def test_parameters_that_cannot_be(
    parameters: dict[str, Any], message: str, texture_images: Images
) -> None:
    model = small(mode="finetune").set_params(**parameters)
    with pytest.raises(ValueError, match=message):
        model.fit(*texture_images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": ["a"] * 23}, "23 labels .* for 24 images"),
        ({"y": ["a"] * 24}, "one class only"),
        ({"groups": [1, 2]}, "2 groups values for 24 images"),
    ],
)
def test_bad_input_is_reported_before_images_are_read(
    change: dict[str, Any],
    message: str,
    texture_images: Images,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_early(*_: object, **__: object) -> None:
        raise AssertionError("a network was built before the input was checked")

    monkeypatch.setattr("hypervlad.models.baselines.transfer.build_network", too_early)
    images, labels = texture_images
    given = {"images": images, "y": labels} | change
    with pytest.raises(ValueError, match=message):
        small(mode="finetune").fit(**given)


def test_what_cannot_be_held_out_is_reported(texture_images: Images) -> None:
    images, labels = texture_images
    with pytest.raises(ValueError, match="no group of images can be held out"):
        small(mode="finetune").fit(images, labels, groups=labels)
    assert small().fit(images, labels, groups=labels).head_.temperature == 1


def test_features_that_are_not_finite_are_reported(texture_images: Images, tmp_path: Path) -> None:
    state = build_network("tiny", "random").original.state_dict()
    huge = {name: torch.full_like(value, 1e30) for name, value in state.items()}
    torch.save(huge, tmp_path / "m.pth")
    with pytest.raises(ValueError, match="not finite for 24 images"):
        small(weights=tmp_path / "m.pth").fit(*texture_images)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="there is no posix_fallocate here")
def test_a_full_disk_is_reported(texture_images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training, "_MAX_IN_MEMORY", 0)
    monkeypatch.setattr(training.os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"prepared images need .* set TMPDIR"):
        small().fit(*texture_images)


def test_a_loss_that_is_nan_is_reported(texture_images: Images) -> None:
    with pytest.raises(ValueError, match=r"loss is (nan|inf) after .* use a smaller one"):
        small(mode="finetune", trainable="all", learning_rate=1e30, max_epochs=9).fit(
            *texture_images
        )
