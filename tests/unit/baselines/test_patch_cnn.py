"""`PatchCNNClassifier`: the network of the report, training, maps and files."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logit
from support.counting import CountingImage
from torch.nn import functional

import hypervlad
from hypervlad import ModelFileError
from hypervlad.features import patch_positions
from hypervlad.features.encoder.encoding import NotFiniteError
from hypervlad.images import ImageReadError
from hypervlad.models import PatchCNNClassifier
from hypervlad.models.baselines import patch_cnn
from hypervlad.models.baselines.patch_cnn import build_patch_network, evaluation_batch
from hypervlad.models.baselines.training import BinaryCrossEntropy, Samples, Schedule, Trainer
from hypervlad.results import PatchNetworkDisplay, TrainingCurvesDisplay, model_facts, save_png

SIDE = 28


def small(**parameters: Any) -> PatchCNNClassifier:
    """A classifier that learns in a second."""
    usual = {"learning_rate": 0.003, "batch_size": 20, "max_epochs": 12, "random_state": 0}
    return PatchCNNClassifier(**usual | parameters)


def make_patches(n: int, seed: int = 0, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and noise with a bright spot as the defect."""
    rng = np.random.default_rng(seed)
    patches = rng.uniform(0.2, 0.4, (n, side, side)).astype(np.float32)
    labels = np.where(np.arange(n) % 2, "anomalous", "normal")
    for i in np.flatnonzero(labels == "anomalous"):
        row, column = rng.integers(4, side - 14, 2)
        patches[i, row : row + 10, column : column + 10] += 0.5
    return patches, labels


@pytest.fixture(scope="module", autouse=True)
def small_batches() -> Iterator[None]:
    """All batches are padded to one size, which would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patch_cnn, "_MAX_BATCH", 8)
        yield


@pytest.fixture(scope="module")
def fitted() -> PatchCNNClassifier:
    patches, labels = make_patches(120)
    return small().fit(patches, labels)


# --- the network -------------------------------------------------------------------------------


@pytest.mark.parametrize("n_channels", [1, 3])
def test_the_papers_parameters_layer_by_layer(n_channels: int) -> None:
    network = build_patch_network(n_channels, 29)
    found = [sum(p.numel() for p in layer.parameters()) for layer in network]
    first = {1: 416, 3: 1216}[n_channels]
    assert [n for n in found if n] == [first, 12_832, 18_496, 4_160, 65]
    assert network(torch.zeros(2, n_channels, 29, 29)).shape == (2, 1)


def test_the_network_against_its_steps_one_by_one() -> None:
    torch.manual_seed(0)
    network = build_patch_network(1, 29).eval()
    weights = {name: value.double() for name, value in network.state_dict().items()}
    patch = torch.rand(1, 1, 29, 29, dtype=torch.float64)
    signal = patch
    for at in ("0", "3", "6"):
        signal = functional.conv2d(signal, weights[f"{at}.weight"], weights[f"{at}.bias"])
        signal = functional.max_pool2d(signal.clamp(min=0), 2)
    hidden = (weights["10.weight"] @ signal.ravel() + weights["10.bias"]).clamp(min=0)
    expected = weights["13.weight"] @ hidden + weights["13.bias"]
    torch.testing.assert_close(network.double()(patch)[0], expected)
    assert network[12].p == 0.6


def test_weights_begin_as_in_keras() -> None:
    torch.manual_seed(0)
    for layer in build_patch_network(1, 29):
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            receptive = layer.weight[0, 0].numel() if layer.weight.ndim == 4 else 1
            incoming, outgoing = (receptive * n for n in layer.weight.shape[:2])
            limit = np.sqrt(6 / (incoming + outgoing))
            assert 0.8 * limit < float(layer.weight.detach().abs().max()) <= limit
            assert not layer.bias.any()


def test_the_smallest_and_the_largest_patch() -> None:
    assert build_patch_network(1, 28)(torch.zeros(1, 1, 28, 28)).shape == (1, 1)
    for side in (27, 2049):
        with pytest.raises(ValueError, match=r"at least 28 x 28 and takes at most 2048 x 2048"):
            build_patch_network(1, side)


def test_batches_of_patches_fit_into_memory() -> None:
    assert evaluation_batch(1000) == 4
    assert evaluation_batch(2048) == 1


# --- learning ----------------------------------------------------------------------------------


def test_it_learns(fitted: PatchCNNClassifier) -> None:
    patches, labels = make_patches(100, seed=1)
    assert fitted.score(patches, labels) > 0.95
    assert fitted.classes_.tolist() == ["anomalous", "normal"]
    assert (fitted.patch_, fitted.n_channels_) == (SIDE, 1)


def test_the_best_weights_are_kept_and_patience_ends_it() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, targets = np.arange(40), np.arange(40, dtype=np.float32) % 2
    training, held_out = (
        Samples(
            torch.rand(40, 1, 8, 8, generator=generator).numpy(),
            rows,
            targets,
            torch.device("cpu"),
            evaluation_batch=40,
        )
        for _ in range(2)
    )
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1)
    )
    # Noise: the more it learns of it, the worse on other noise.
    schedule = Schedule(learning_rate=0.02, batch_size=10, max_epochs=100, patience=10)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02, eps=1e-7)

    def unchanged(images: torch.Tensor, _: torch.Generator) -> torch.Tensor:
        return images

    trainer = Trainer(network, BinaryCrossEntropy(), optimiser, unchanged, schedule, seed=0)
    curves = trainer.fit(training, held_out)
    losses = curves.validation_loss
    assert len(losses) < 100
    assert len(losses) - 1 - int(np.argmin(losses)) == 10
    assert losses[-1] > min(losses) + 0.01
    network.eval()
    answers = network(torch.from_numpy(held_out.pixels))[:, 0].detach().double()
    expected = torch.from_numpy(targets).double()
    loss = functional.binary_cross_entropy_with_logits(answers, expected)
    assert float(loss) == pytest.approx(min(losses), rel=1e-6)
    assert {len(each) for each in vars(curves).values()} == {len(losses)}


def test_groups_stay_on_one_side(monkeypatch: pytest.MonkeyPatch) -> None:
    patches, labels = make_patches(60)
    groups = np.arange(60) // 6
    patches += groups[:, None, None] * np.float32(0.001)
    seen: dict[str, Samples] = {}

    class Spy(Trainer):
        def fit(self, training: Samples, validation: Samples, **options: Any) -> Any:
            seen.update(training=training, held_out=validation)
            return super().fit(training, validation, **options)

    monkeypatch.setattr(patch_cnn, "Trainer", Spy)
    small(max_epochs=1).fit(patches, labels, groups=groups)
    where = {
        side: {
            int(groups[np.flatnonzero((patches == pixels[0]).all(axis=(1, 2)))[0]])
            for pixels in samples.pixels[samples.rows]
        }
        for side, samples in seen.items()
    }
    assert where["held_out"]
    assert not where["training"] & where["held_out"]
    assert where["training"] | where["held_out"] == set(range(10))


def test_the_seed_decides_and_torchs_own_generator_is_left_alone() -> None:
    patches, labels = make_patches(60)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (
        small(max_epochs=2, random_state=seed).fit(patches, labels) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(
        first.decision_function(patches), again.decision_function(patches)
    )
    assert (first.decision_function(patches) != other.decision_function(patches)).any()


def test_own_validation_patches_decide(fitted: PatchCNNClassifier) -> None:
    patches, labels = make_patches(60)
    others, theirs = make_patches(20, seed=7)
    model = small(max_epochs=3).fit(patches, labels, validation=(others, theirs))
    answers = torch.from_numpy(model.decision_function(others))
    targets = torch.from_numpy((theirs == "normal").astype(float))
    loss = functional.binary_cross_entropy_with_logits(answers, targets)
    assert float(loss) == pytest.approx(min(model.curves_.validation_loss), rel=1e-6)


def test_each_patch_is_read_once() -> None:
    patches, labels = make_patches(40)
    counted = [CountingImage(patch) for patch in patches]
    model = small(max_epochs=2).fit(counted, labels)
    assert [patch.n_reads for patch in counted] == [1] * 40
    image = CountingImage(np.tile(patches[0], (2, 2)))
    model.score_map(image, stride=5, edges="shift")
    assert image.n_reads == 1


def test_colour_and_grey() -> None:
    patches, labels = make_patches(40)
    colour = np.stack([patches, 0.5 * patches, patches], axis=-1)
    model = small(max_epochs=1).fit(colour, labels)
    assert model.n_channels_ == 3
    grey = model.decision_function(patches)
    three = model.decision_function(np.repeat(patches[..., None], 3, axis=-1))
    np.testing.assert_array_equal(grey, three)
    of_grey = small(max_epochs=1).fit(patches, labels)
    same = of_grey.decision_function(np.repeat(patches[..., None], 3, axis=-1))
    np.testing.assert_allclose(same, of_grey.decision_function(patches), atol=1e-4)


# --- maps --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stride", "edges"), [(None, "drop"), (20, "pad"), (12, "shift")])
def test_maps_against_patches_one_by_one(
    fitted: PatchCNNClassifier, stride: int | None, edges: Any
) -> None:
    image = np.random.default_rng(0).random((61, 75)).astype(np.float32)
    image[10:20, 30:40] = 1.0
    padded = np.pad(image, [(0, SIDE), (0, SIDE)], mode="symmetric")
    sums, counts = np.zeros(image.shape), np.zeros(image.shape)
    for row, column in patch_positions(image.shape, SIDE, stride, edges=edges):
        patch = padded[row : row + SIDE, column : column + SIDE]
        window = np.s_[row : row + SIDE, column : column + SIDE]
        sums[window] += logit(fitted.predict_proba([patch])[0, 0])  # "anomalous"
        counts[window] += 1
    with np.errstate(invalid="ignore"):
        expected = sums / counts
    found = fitted.score_map(image, stride=stride, edges=edges)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.isnan(found).any() == (edges == "drop")
    called = fitted.predict_map(image, stride=stride, edges=edges)
    np.testing.assert_array_equal(called, np.nan_to_num(expected, nan=-1.0) >= 0)
    assert called.dtype == bool


def test_maps_that_forget_to_divide_by_255(fitted: PatchCNNClassifier) -> None:
    image = np.random.default_rng(0).random((2 * SIDE, 2 * SIDE)).astype(np.float32)
    image *= np.float32(0.3)
    forgetful = pickle.loads(pickle.dumps(fitted)).set_params(rescale_maps=False)
    assert (forgetful.score_map(image) != fitted.score_map(image)).any()
    np.testing.assert_array_equal(
        forgetful.score_map(image / np.float32(255)),
        fitted.score_map(image / np.float32(255) * np.float32(255)),
    )


def test_the_class_that_is_not_normal_is_mapped() -> None:
    patches, labels = make_patches(40)
    renamed = np.where(labels == "anomalous", "speck", "normal")
    model = small(max_epochs=1).fit(patches, renamed)
    assert model.classes_.tolist() == ["normal", "speck"]
    image = patches[1]
    np.testing.assert_allclose(model.score_map(image), model.decision_function([image])[0], 1e-5)
    for names, sign in ((("good", "anomalous"), -1), (("normal", "speck"), 1), ((0, 1), 1)):
        model.classes_ = np.array(sorted(names))
        found = model.score_map(image)
        np.testing.assert_allclose(found, sign * model.decision_function([image])[0], 1e-5)
    model.classes_ = np.array(["bad", "good"])
    with pytest.raises(ValueError, match="none is known to be the defective one"):
        model.predict_map(image)


# --- files -------------------------------------------------------------------------------------


def test_a_file_keeps_all(fitted: PatchCNNClassifier, tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((40, 50))
    path = tmp_path / "cnn.hvlad"
    fitted.save(path)
    loaded = hypervlad.load(path)
    facts = model_facts(loaded)
    assert facts["classes"] == "2: anomalous, normal"
    assert facts["network"] == f"{fitted.n_parameters_:,} parameters"
    np.testing.assert_array_equal(loaded.score_map(image), fitted.score_map(image))
    assert loaded.curves_ == fitted.curves_
    assert loaded.classes_.tolist() == fitted.classes_.tolist()
    with pytest.raises(ModelFileError, match="has all its weights in the file"):
        hypervlad.load(path, weights="somewhere.pth")


def test_a_file_that_does_not_fit_is_reported(fitted: PatchCNNClassifier) -> None:
    header, arrays = fitted.to_state()
    with pytest.raises(ModelFileError, match="incomplete"):
        PatchCNNClassifier.from_state(
            header, {k: v for k, v in arrays.items() if "0.weight" not in k}
        )
    wider = {name: np.zeros((*array.shape, 2), np.float32) for name, array in arrays.items()}
    with pytest.raises(ModelFileError, match="incomplete"):
        PatchCNNClassifier.from_state(header, wider)


def test_outputs_that_are_not_finite_are_reported(fitted: PatchCNNClassifier) -> None:
    damaged = copy.copy(fitted)
    damaged.weights_ = {name: np.full_like(each, 1e30) for name, each in fitted.weights_.items()}
    with pytest.raises(NotFiniteError, match="outputs are not finite"):
        damaged.predict_proba([np.ones((SIDE, SIDE))])


def test_patches_and_images_are_scaled_alike() -> None:
    """Whatever greys a patch of many bits happens to have."""
    patches, labels = make_patches(120)
    wide = np.round(patches * 65535).astype(np.uint16)
    model = small().fit(wide, labels)
    assert model.score(wide, labels) > 0.9
    image = np.full((3 * SIDE, 3 * SIDE), wide[0].min(), dtype=np.uint16)
    image[:SIDE, :SIDE] = wide[1]
    np.testing.assert_allclose(model.score_map(image)[0, 0], -model.decision_function(wide[1:2]))
    with pytest.raises(ImageReadError, match="floats in"):
        small().fit(255 * patches, labels)


@pytest.mark.parametrize("grouped", [False, True])
def test_neither_order_nor_names_of_groups_change_the_model(grouped: bool) -> None:
    patches, labels = make_patches(40)
    patches[31] = patches[1]  # a copy, in another group
    groups = np.arange(40) // 4
    order = np.random.default_rng(0).permutation(40)
    named = [f"sample {99 - groups[i]}" for i in order]
    one = small(max_epochs=1).fit(patches, labels, groups=groups if grouped else None)
    other = small(max_epochs=1)
    other.fit(patches[order], labels[order], groups=named if grouped else None)
    np.testing.assert_array_equal(one.predict_proba(patches), other.predict_proba(patches))


# --- what is wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"learning_rate": 0}, "learning_rate must be a number above 0, not 0"),
        ({"read_options": {"scaling": "minmax"}}, "would scale each patch by its own greys"),
    ],
)
def test_parameters_that_cannot_be(parameters: dict[str, Any], message: str) -> None:
    patches, labels = make_patches(20)
    with pytest.raises(ValueError, match=message):
        small(**parameters).fit(patches, labels)


def test_labels_that_cannot_be_learnt(fitted: PatchCNNClassifier) -> None:
    patches, labels = make_patches(20)
    model, expected = copy.copy(fitted), fitted.decision_function(patches)
    with pytest.raises(ValueError, match=r"of one class, \['normal'\]; expected two"):
        model.fit(patches, ["normal"] * 20)
    np.testing.assert_array_equal(model.decision_function(patches), expected)
    with pytest.raises(ValueError, match="of 3 classes"):
        small().fit(patches, [*labels[:-1], "other"])
    with pytest.raises(ValueError, match="no group of patches can be held out"):
        small().fit(patches, labels, groups=labels)
    with pytest.raises(ValueError, match="groups decide which patches are held out"):
        small().fit(patches, labels, groups=labels, validation=(patches, labels))
    with pytest.raises(ValueError, match=r"\['other'\] are not among the training labels"):
        small().fit(patches, labels, validation=(patches[:2], ["normal", "other"]))


def test_patches_that_do_not_fit(fitted: PatchCNNClassifier) -> None:
    patches, labels = make_patches(20)
    mixed = [*patches[:-1], np.zeros((SIDE, SIDE + 1))]
    with pytest.raises(ImageReadError, match=r"19.*28 x 29 pixels.*28 x 28, as the others"):
        small().fit(mixed, labels)
    with pytest.raises(ImageReadError, match=r"7 x 7 pixels.*28 x 28"):
        fitted.predict([np.zeros((7, 7))])
    with pytest.raises(ValueError, match="smaller than"):
        fitted.score_map(np.zeros((5, 5)), edges="drop")


# --- figures -----------------------------------------------------------------------------------


def test_training_curves_show_what_is_remembered(fitted: PatchCNNClassifier) -> None:
    display = TrainingCurvesDisplay.from_estimator(fitted)
    learnt, held_out = display.ax_.lines[:2]
    np.testing.assert_array_equal(learnt.get_ydata(), fitted.curves_.loss)
    np.testing.assert_array_equal(held_out.get_ydata(), fitted.curves_.validation_loss)
    assert f"epoch {fitted.curves_.best_epoch + 1}," in display.ax_.get_title()


def test_filters_and_activations_are_shown(fitted: PatchCNNClassifier, tmp_path: Path) -> None:
    patches, _ = make_patches(2)
    answers = fitted.activations(patches[1])
    assert [each.shape for each in answers] == [(16, 24, 24), (32, 8, 8), (64, 2, 2)]
    kernels = fitted.weights_["0.weight"]
    padded = torch.from_numpy(patches[1])[None, None]
    expected = functional.conv2d(
        padded, torch.from_numpy(kernels), torch.from_numpy(fitted.weights_["0.bias"])
    ).clamp(min=0)
    np.testing.assert_allclose(answers[0], expected[0].numpy(), atol=1e-5)
    display = PatchNetworkDisplay.from_estimator(fitted, patches[1])
    np.testing.assert_array_equal(display.patch, patches[1])
    assert display.caption.startswith("anomalous")
    save_png(lambda ax: display.plot(ax), tmp_path / "network.png")
    assert (tmp_path / "network.png").stat().st_size > 3000
