"""What holds for every public estimator and preset, with settings that are not the defaults."""

from __future__ import annotations

import pickle
import random
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from support.surfaces import PATCH, blotted, surface

import hypervlad
from hypervlad import (
    AlignmentClassifier,
    BoostedSoftmaxClassifier,
    HypercolumnSegmenter,
    HypercolumnVLAD,
    MicrographClassifier,
    PatchDefectScorer,
    make_nanowire_images,
    make_particle_fields,
)
from hypervlad.models import TransferClassifier
from hypervlad.models.loading import KINDS
from hypervlad.models.presets import anomalydino, carrillo2020, luo2021, modarres2017

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

Images = tuple[list[np.ndarray], np.ndarray]
Calls = Mapping[str, Callable[[Any], Any]]

TINY: dict[str, Any] = {"weights": "random", "n_codewords": 3}
SMALL = TINY | {"image_size": 20, "sampling": 300}
WINDOWS = HypercolumnVLAD("tiny", taps=["1", "3"], image_size=None, **TINY)


class Case(NamedTuple):
    """An unfitted model, what it is fitted on, and calls of its public methods."""

    model: Any
    data: tuple[Any, ...]
    calls: Calls
    named: Mapping[str, Any] = {}

    def fitted(self) -> Any:
        return clone(self.model).fit(*self.data, **self.named)


def encoder_calls(images: list[np.ndarray]) -> Calls:
    def explain(model: HypercolumnVLAD) -> Any:
        return model.explain_vector(images[0], np.ones((model.n_features_out_, 1)))

    return {
        "transform": lambda model: model.transform(images),
        "encode": lambda model: model.encode(images).vectors,
        "codeword_maps": lambda model: model.codeword_maps(images[0]),
        "explain_vector": explain,
        "fingerprint": HypercolumnVLAD.fingerprint,
        "get_feature_names_out": lambda model: model.get_feature_names_out(),
        "batch_encoder": lambda model: model.batch_encoder() and None,
        "loader": lambda model: model.loader() and None,
        "network": lambda model: model.network() and None,
        "torch_codebook": lambda model: model.torch_codebook() and None,
        "portable_copy": lambda model: model.portable_copy() and None,
        "check_run_parameters": HypercolumnVLAD.check_run_parameters,
    }


def classifier_calls(images: list[np.ndarray], labels: np.ndarray) -> Calls:
    return {
        "predict": lambda model: model.predict(images),
        "predict_proba": lambda model: model.predict_proba(images),
        "decision_function": lambda model: model.decision_function(images),
        "score": lambda model: model.score(images, labels),
    }


def micrograph_calls(images: list[np.ndarray], labels: np.ndarray) -> Calls:
    def of_vectors(model: MicrographClassifier) -> Any:
        return model.judge_vectors(model.encoder_.transform(images), 0.4).kind

    return {
        **classifier_calls(images, labels),
        "predict_set": lambda model: model.predict_set(images, 0.8),
        "judge": lambda model: model.judge(images, 0.4),
        "judge_vectors": of_vectors,
        "classify": lambda model: model.classify(images, coverage=0.8, max_error=0.4),
        "explain": lambda model: model.explain(images[0]).maps,
        "held_out_evaluation": lambda model: model.held_out_evaluation().proba,
        "label_issues": lambda model: model.label_issues(),
        "check_calibrated": lambda model: model.check_calibrated(coverage=0.8, max_error=0.4),
    }


def scorer_calls(images: list[np.ndarray]) -> Calls:
    return {
        "predict": lambda model: model.predict(images),
        "score_samples": lambda model: model.score_samples(images),
        "score_map": lambda model: model.score_map(images[-1]),
        "predict_map": lambda model: model.predict_map(images[-1]),
        "find": lambda model: model.find(images[-1]).mask,
        "score_patches": lambda model: model.score_patches(images[-1]),
        "limits_": lambda model: model.limits_.sentences(),
        "training_": lambda model: (len(model.training_), model.training_.n_copies),
    }


@pytest.fixture(scope="module")
def cases(tiny_backbone: None, texture_images: Images) -> Iterator[dict[str, Case]]:
    with pytest.MonkeyPatch.context() as patch:
        # Padded batches of patches, and crops, would take most of the time.
        patch.setattr("hypervlad.models.baselines.patch_cnn._MAX_BATCH", 16)
        patch.setattr("hypervlad.models.segmentation.decoder.N_CROPS", 8)
        patch.setattr("hypervlad.models.segmentation.decoder.CROP", 64)
        yield make_cases(texture_images)


def make_cases(texture_images: Images) -> dict[str, Case]:
    images, labels = texture_images
    groups = np.arange(len(images)) // 2
    pixels = np.stack([image.mean(axis=0)[:8] for image in images]).astype(np.float64)
    encoder = HypercolumnVLAD("tiny", turns=2, blocks=("joint", "pooled"), random_state=1, **SMALL)
    classifier = MicrographClassifier(
        encoder,
        boosting=BoostedSoftmaxClassifier(
            n_estimators=7, max_depth=2, Cs=(0.5, 5), prior="uniform", learning_rate=0.3
        ),
        random_state=3,
    )
    split = MicrographClassifier(encoder, calibration_size=0.4, random_state=3)
    trees = luo2021(
        grid=40, backbone="tiny", weights="random", n_codewords=2, n_estimators=4, random_state=0
    )
    good = [surface(seed) for seed in range(22)]
    spots, masks = zip(*(blotted(seed, (20, 25 + seed)) for seed in range(4)), strict=True)
    patches = [image[:PATCH, :PATCH] for image in [*good[:8], *(s[14:, 20:] for s in spots)]]
    kinds = ["normal"] * 8 + ["anomalous"] * 4
    normal = PatchDefectScorer(
        WINDOWS, patch=PATCH, fpr=0.1, n_planted=24, n_codewords=5, tile_size=64, random_state=2
    )
    large = [surface(seed, (96, 160)) for seed in range(8)]
    wires, truths = make_nanowire_images(4, aligned=0.5, size=96, random_state=0)
    maps = [truth.aligned_map(window=24) for truth in truths]
    fields, outlines = make_particle_fields(4, size=64, random_state=0)
    large_patches = [np.resize(image, (29, 29)) for image in images]
    on_images, on_patches = (
        classifier_calls(each, labels == "flat") for each in (images, large_patches)
    )
    of_patches: Calls = {
        "activations": lambda model: model.activations(large_patches[0]),
        "as_network_input": lambda model: model.as_network_input(large_patches),
        "score_map": lambda model: model.score_map(large[0][:40, :40]),
        "predict_map": lambda model: model.predict_map(large[0][:40, :40]),
    }
    probable: Calls = {"probability_map": lambda model: model.probability_map(spots[0])}
    of_learner: Calls = {
        "tree_margins": lambda model: model.tree_margins(pixels),
        "check_labels": lambda model: model.check_labels(labels),
    }
    of_wires: Calls = {
        "predict": lambda model: model.predict(wires),
        "score": lambda model: model.score(wires, maps),
        "aligned_fraction": lambda model: model.aligned_fraction(wires[0]).proba,
        "aligned_proba": lambda model: model.aligned_proba(wires[0], *[np.arange(0, 97, 24)] * 2),
    }
    of_fields: Calls = {
        "predict": lambda model: model.predict(fields[0]),
        "predict_proba": lambda model: model.predict_proba(fields[0]),
    }
    transfer = modarres2017("features", backbone="tiny", weights="random", random_state=0)
    tuned = TransferClassifier(
        "tiny", mode="finetune", trainable="all", max_epochs=1, weights="random", random_state=0
    )
    return {
        "encoder": Case(encoder, (images,), encoder_calls(images)),
        "boosting": Case(
            BoostedSoftmaxClassifier(
                n_estimators=7, init=None, n_iter_no_change=None, random_state=0
            ),
            (pixels, labels),
            classifier_calls(pixels, labels) | of_learner,  # type: ignore[arg-type, operator]
        ),
        "classifier": Case(
            classifier, (images, labels), micrograph_calls(images, labels), {"groups": groups}
        ),
        "split": Case(split, (images, labels), micrograph_calls(images, labels)),
        "luo2021": Case(trees, (images, labels), classifier_calls(images, labels)),
        "normal": Case(normal, (good,), scorer_calls([*good[:3], spots[0]])),
        "anomalydino": Case(
            anomalydino(
                "tiny", weights="random", n_references=3, fpr=0.3, tile_size=64, random_state=0
            ),
            (large,),
            scorer_calls(large[:3]),
        ),
        "masks": Case(
            clone(normal).set_params(threshold="f1", boosting__Cs=(0.5, 5)),
            ([*good[:4], *spots],),
            scorer_calls([*good[:3], spots[0]]) | probable,  # type: ignore[operator]
            {"masks": [None] * 4 + list(masks)},
        ),
        "patches": Case(
            clone(normal).set_params(fpr=0.3),
            (patches, kinds),
            scorer_calls([*good[:3], spots[0]]) | probable,  # type: ignore[operator]
        ),
        "alignment": Case(
            AlignmentClassifier(WINDOWS, window=24, tile_size=64, random_state=0),
            (wires, maps),
            of_wires,
        ),
        "segmenter": Case(
            HypercolumnSegmenter(
                "tiny", weights="random", n_epochs=1, min_area=5, tile_size=512, random_state=0
            ),
            (fields, [each.labels for each in outlines]),
            of_fields,
        ),
        "modarres2017": Case(transfer, (images, labels == "flat"), on_images),
        "fine-tuned": Case(tuned, (images, labels == "flat"), on_images),
        "carrillo2020": Case(
            carrillo2020(max_epochs=1, batch_size=9, random_state=0),
            (large_patches, labels == "flat"),
            on_patches | of_patches,  # type: ignore[operator]
        ),
    }


NAMES = "encoder boosting classifier split luo2021 normal anomalydino masks patches alignment "
NAMES += "segmenter modarres2017 fine-tuned carrillo2020"


@pytest.fixture(scope="module", params=NAMES.split())
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


@pytest.fixture(scope="module")
def fitted(case: Case) -> Any:
    return case.fitted()


@pytest.fixture
def loaded(fitted: Any, tmp_path: Path) -> Any:
    fitted.save(tmp_path / "m.hvlad")
    return hypervlad.load(tmp_path / "m.hvlad")


def test_no_call_changes_what_is_pickled(case: Case, fitted: Any, loaded: Any) -> None:
    for model in (fitted, loaded):
        before = pickle.dumps(model)
        for name, call in case.calls.items():
            call(model)
            assert pickle.dumps(model) == before, name


def test_a_saved_model_answers_as_the_fitted_one(case: Case, fitted: Any, loaded: Any) -> None:
    for name, call in case.calls.items():
        assert joblib.hash(call(loaded)) == joblib.hash(call(fitted)), name


def test_memory_stays_the_machines(cases: dict[str, Case], tmp_path: Path) -> None:
    """Tiles of a file are used up to the size at which one takes 2.4 GB."""
    scorer = cases["anomalydino"].fitted()
    scorer.tile_size_ = 4096
    scorer.save(tmp_path / "m.hvlad")
    loaded = hypervlad.load(tmp_path / "m.hvlad")
    assert (loaded.tile_size, loaded.tile_size_) == (2048, 4096)


def test_random_numbers_of_others_stay_as_they_are(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of torch, NumPy and Python that belong to the process."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", None)  # all GPUs: called, it is an error

    def states() -> str:
        of_numpy = np.random.get_state()  # noqa: NPY002
        return joblib.hash((torch.get_rng_state().numpy(), of_numpy, random.getstate()))

    before = states()
    model = case.fitted()
    assert states() == before, "fit"
    for name, call in case.calls.items():
        call(model)
        assert states() == before, name


def test_all_public_methods_are_called(cases: dict[str, Case]) -> None:
    """Except those that construct, change or save a model, and scikit-learn's of parameters."""
    others = r"fit.*|from_state|set_.*|.*_request|get_(params|metadata_routing)|save|to_state"
    called: dict[type[Any], set[str]] = {}
    for each in cases.values():
        called.setdefault(type(each.model), set()).update(each.calls)
    assert {kind.__name__ for kind in called} == {name for _, name in KINDS.values()}
    for kind, names in called.items():
        public = {
            n for n in dir(kind) if not n.startswith("_") and callable(getattr(kind, n, None))
        }
        missing = {name for name in public - names if not re.fullmatch(others, name)}
        assert missing == {"check_parameters"}, kind


# --- parameters of parts --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MicrographClassifier, PatchDefectScorer, AlignmentClassifier])
def test_parameters_of_parts_are_set_on_a_new_estimator(kind: type[Any]) -> None:
    default = kind()._new_part("encoder", None), kind()._new_part("boosting", None)
    model = clone(kind()).set_params(encoder__n_codewords=5, boosting__n_estimators=3)
    assert model.encoder.get_params() == default[0].get_params() | {"n_codewords": 5}
    assert model.boosting.get_params() == default[1].get_params() | {"n_estimators": 3}
    again = model.set_params(encoder__n_codewords=6, encoder__turns=4).encoder
    assert (again.n_codewords, again.turns) == (6, 4)
    assert model.set_params(encoder=None, encoder__turns=8).encoder.n_codewords != 6
    with pytest.raises(ValueError, match="Invalid parameter 'codewords'"):
        kind().set_params(encoder__codewords=5)


def test_a_default_encoder_has_the_taps_of_the_network_that_is_set() -> None:
    scorer = PatchDefectScorer().set_params(encoder__backbone="resnet18")
    assert scorer.encoder.taps == ("layer2", "layer3")


def test_grid_search_needs_no_encoder(texture_images: Images) -> None:
    images, labels = texture_images
    grid = {
        "encoder__backbone": ["tiny"],
        "encoder__weights": ["random"],
        "encoder__image_size": [16],
        "encoder__n_codewords": [2, 4],
        "boosting__n_estimators": [0],
    }
    search = GridSearchCV(MicrographClassifier(calibration_size=0), grid, cv=2, refit=False)
    search.fit(images, labels)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
