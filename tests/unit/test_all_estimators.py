"""What every public estimator and preset promises, with settings that are not the defaults."""

import functools
import inspect
import pickle
import random
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from support.few_crops import few_crops
from support.surfaces import PATCH, blotted, surface

import hypervlad
from hypervlad import (
    AlignmentClassifier,
    BoostedSoftmaxClassifier,
    HypercolumnSegmenter,
    HypercolumnVLAD,
    ImageReadError,
    MicrographClassifier,
    PatchDefectScorer,
    make_fibre_images,
    models,
)
from hypervlad.models import (
    PatchCNNClassifier,
    TransferClassifier,
    default_alignment_encoder,
    default_encoder,
    default_patch_encoder,
)
from hypervlad.models.presets import carrillo2020, luo2021, modarres2017

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

Calls = dict[str, Callable[[Any], Any]]

TINY = {"weights": "random", "n_codewords": 3}
SMALL = TINY | {"image_size": 20, "sampling": 300}
WINDOWS = HypercolumnVLAD("tiny", taps=["1", "3"], image_size=None, **TINY)
FINE_TUNED = {"mode": "finetune", "max_epochs": 1}
NETWORK = {"weights": "random", "random_state": 0}
NAN = float("nan")


class Case(NamedTuple):
    """An unfitted model, what it is fitted on, and calls of its public methods."""

    model: Any
    data: tuple[Any, ...]
    calls: Calls
    named: Mapping[str, Any] = {}


def of_labels(images, labels):
    return {
        "predict": lambda model: model.predict(images),
        "predict_proba": lambda model: model.predict_proba(images),
        "decision_function": lambda model: model.decision_function(images),
        "score": lambda model: model.score(images, labels),
    }


def of_micrographs(images, labels):
    def of_vectors(model):
        return model.judge_vectors(model.encoder_.transform(images), 0.4).kind

    return {
        **of_labels(images, labels),
        "predict_set": lambda model: model.predict_set(images, 0.8),
        "judge": lambda model: model.judge(images, 0.4),
        "judge_vectors": of_vectors,
        "classify": lambda model: model.classify(images, coverage=0.8, max_error=0.4),
        "explain": lambda model: model.explain(images[0]).maps,
        "held_out_evaluation": lambda model: model.held_out_evaluation().proba,
        "label_issues": lambda model: model.label_issues(),
        "check_calibrated": lambda model: model.check_calibrated(coverage=0.8, max_error=0.4),
    }


def of_defects(images):
    return {
        "predict": lambda model: model.predict(images),
        "score_samples": lambda model: model.score_samples(images),
        "score_map": lambda model: model.score_map(images[-1]),
        "predict_map": lambda model: model.predict_map(images[-1]),
        "find": lambda model: model.find(images[-1]).mask,
        "limits_": lambda model: model.limits_.sentences(),
        "training_": lambda model: (len(model.training_), model.training_.n_copies),
    }


def encoder(images, _labels):
    def explain(model):
        return model.explain_vector(images[0], np.ones((model.n_features_out_, 1)))

    calls = {
        "transform": lambda model: model.transform(images),
        "encode": lambda model: model.encode(images).vectors,
        "codeword_maps": lambda model: model.codeword_maps(images[0]),
        "explain_vector": explain,
        "fingerprint": HypercolumnVLAD.fingerprint,
        "get_feature_names_out": lambda model: model.get_feature_names_out(),
        "batch_encoder": lambda model: type(model.batch_encoder()).__name__,
        "loader": lambda model: model.loader().image_size,
        "network": lambda model: str(model.network().device),
        "torch_codebook": lambda model: type(model.torch_codebook()).__name__,
        "portable_copy": lambda model: model.portable_copy().transform(images[:2]),
        "check_run_parameters": HypercolumnVLAD.check_run_parameters,
    }
    options = {"turns": np.int64(2), "blocks": ("joint", "pooled"), "random_state": 1}
    return Case(HypercolumnVLAD("tiny", **options, **SMALL), (images,), calls)


def boosting(images, labels):
    pixels = np.stack([image.mean(axis=0)[:8] for image in images]).astype(np.float64)
    calls = of_labels(pixels, labels)
    calls["tree_margins"] = lambda model: model.tree_margins(pixels)
    calls["check_labels"] = lambda model: model.check_labels(labels)
    options = {"n_estimators": 7, "init": None, "n_iter_no_change": None}
    options |= {"prior": {"flat": np.float32(2), "rings": 1, "stripes": 1}}
    options |= {"Cs": np.array([0.5, 5])}
    return Case(BoostedSoftmaxClassifier(random_state=0, **options), (pixels, labels), calls)


def classifier(images, labels):
    trees = {"n_estimators": 7, "max_depth": 2, "learning_rate": 0.3}
    learner = BoostedSoftmaxClassifier(Cs=(0.5, 5), prior="uniform", **trees)
    model = MicrographClassifier(encoder(images, labels).model, boosting=learner, random_state=3)
    groups = np.arange(len(images)) // 2
    return Case(model, (images, labels), of_micrographs(images, labels), {"groups": groups})


def luo(images, labels):
    options = {"grid": 40, "n_codewords": 2, "n_estimators": 4}
    model = luo2021(backbone="tiny", **options, **NETWORK)
    return Case(model, (images, labels), of_labels(images, labels))


def normal(_images, _labels):
    model = PatchDefectScorer(
        WINDOWS, patch=PATCH, fpr=0.1, n_planted=12, n_codewords=5, tile_size=64, random_state=2
    )
    good = [surface(seed) for seed in range(12)]
    return Case(model, (good,), of_defects([*good[:3], blotted(0, (20, 25))[0]]))


def with_masks(images, labels):
    given = normal(images, labels)
    spots, masks = zip(*(blotted(seed, (20, 25 + seed)) for seed in range(4)), strict=True)
    calls = {**given.calls, "probability_map": lambda model: model.probability_map(spots[0])}
    model = clone(given.model).set_params(threshold="f1", boosting__Cs=(0.5, 5))
    return Case(model, ([*given.data[0][:4], *spots],), calls, {"masks": [None] * 4 + list(masks)})


def with_patches(images, labels):
    given, spots = with_masks(images, labels), [blotted(s, (20, 25 + s))[0] for s in range(4)]
    patches = [surface(seed)[:PATCH, :PATCH] for seed in range(8)]
    patches += [spot[14 : 14 + PATCH, 20 : 20 + PATCH] for spot in spots]
    model = clone(given.model).set_params(threshold="fpr", fpr=0.3)
    return Case(model, (patches, ["normal"] * 8 + ["anomalous"] * 4), given.calls)


def alignment(_images, _labels):
    wires, truths = make_fibre_images(4, aligned=0.5, size=72, random_state=0)
    maps = [truth.aligned_map(window=24) for truth in truths]
    calls = {
        "predict": lambda model: model.predict(wires),
        "score": lambda model: model.score(wires, maps),
        "aligned_fraction": lambda model: model.aligned_fraction(wires[0]).proba,
        "aligned_proba": lambda model: model.aligned_proba(wires[0], *[np.arange(0, 73, 24)] * 2),
    }
    model = AlignmentClassifier(WINDOWS, window=24, tile_size=64, random_state=0)
    return Case(model, (wires, maps), calls)


def segmenter(_images, _labels):
    fields, spots = zip(*(blotted(seed, (20, 30), radius=9) for seed in range(4)), strict=True)
    calls = {
        "predict": lambda model: model.predict(fields[:1]),
        "predict_proba": lambda model: model.predict_proba(fields[:1]),
        "find_particles": lambda model: np.asarray(model.find_particles(fields[0])),
    }
    model = HypercolumnSegmenter("tiny", n_epochs=1, min_area=5, tile_size=512, **NETWORK)
    return Case(model, (list(fields), [spot.astype(int) for spot in spots]), calls)


def transfer(images, labels):
    data = images, labels == "flat"
    return Case(modarres2017("features", backbone="tiny", **NETWORK), data, of_labels(*data))


def fine_tuned(images, labels):
    data = images, labels == "flat"
    return Case(TransferClassifier("tiny", **FINE_TUNED, **NETWORK), data, of_labels(*data))


def carrillo(images, labels):
    patches, large = [np.resize(image, (29, 29)) for image in images], surface(0, (40, 40))
    calls = of_labels(patches, labels == "flat")
    calls |= {
        "as_network_input": lambda model: model.as_network_input(patches),
        "score_map": lambda model: model.score_map(large),
        "predict_map": lambda model: model.predict_map(large),
    }
    model = carrillo2020(max_epochs=1, batch_size=9, random_state=0)
    return Case(model, (patches, labels == "flat"), calls)


MAKERS = {
    "encoder": encoder,
    "boosting": boosting,
    "classifier": classifier,
    "luo2021": luo,
    "normal": normal,
    "masks": with_masks,
    "patches": with_patches,
    "alignment": alignment,
    "segmenter": segmenter,
    "modarres2017": transfer,
    "fine-tuned": fine_tuned,
    "carrillo2020": carrillo,
}
#: A patch takes as long as a batch of 4,096, and there are six calls.
DEAR = {"carrillo2020"}


@pytest.fixture(scope="module")
def case_of(tiny_backbone, texture_images):
    return functools.cache(lambda name: MAKERS[name](*texture_images))


def marked(names):
    dear = pytest.mark.full
    return [pytest.param(name, marks=dear if name in DEAR else ()) for name in names]


def states():
    """Return a digest of the random numbers of torch, NumPy and Python that belong to others."""
    of_numpy = np.random.get_state()  # noqa: NPY002
    return joblib.hash((torch.get_rng_state().numpy(), of_numpy, random.getstate()))


class Fitted(NamedTuple):
    case: Case
    model: Any
    loaded: Any
    path: Path


@pytest.fixture(scope="module")
def ready(case_of):
    """Fitted models, by the names of their cases; to fit changes neither parameters nor others."""

    def of(name):
        case = case_of(name)
        model = clone(case.model)
        before, parameters = states(), repr(model.get_params())
        with few_crops(8), pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "manual_seed_all", None)  # all GPUs: called, it is an error
            assert model.fit(*case.data, **case.named) is model
        assert states() == before
        assert repr(model.get_params()) == parameters
        return model

    return functools.cache(of)


@pytest.fixture(scope="module", params=marked(MAKERS))
def fitted(request, case_of, ready, tmp_path_factory):
    """A fitted model, and one that was loaded."""
    path, model = tmp_path_factory.mktemp("model") / "m.hvlad", ready(request.param)
    model.save(path)
    return Fitted(case_of(request.param), model, hypervlad.load(path), path)


# --- fitted and loaded ----------------------------------------------------------------------------


def test_calls_change_nothing_and_a_loaded_model_answers_and_is_saved_alike(fitted, tmp_path):
    pickled, others = [pickle.dumps(model) for model in fitted[1:3]], states()
    for name, call in fitted.case.calls.items():
        own, of_loaded = (joblib.hash(call(model)) for model in fitted[1:3])
        assert of_loaded == own, name
        assert [pickle.dumps(model) for model in fitted[1:3]] == pickled, name
        assert states() == others, name
    fitted.loaded.save(tmp_path / "again.hvlad")
    assert (tmp_path / "again.hvlad").read_bytes() == fitted.path.read_bytes()


#: Of a machine or a run: a file does not hold them, and they are the defaults after loading.
UNSAVED = {"batch_size", "device", "memory", "n_jobs", "runtime", "tile_size", "verbose"}


def plain(value):
    """Return a parameter as a file gives it back: tuples, and numbers of Python."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return tuple(plain(each) for each in value)
    return value.item() if isinstance(value, np.generic) else value


def test_a_file_keeps_the_parameters_of_the_model_and_not_of_the_machine(fitted):
    kept, loaded = fitted.model.get_params(), fitted.loaded.get_params()
    defaults = type(fitted.model)().get_params(deep=False)
    unsaved = UNSAVED - ({"batch_size"} if "patience" in kept else set())  # of a training
    for name, value in kept.items():
        part, _, own = name.rpartition("__")
        is_of_part = isinstance(value, BaseEstimator) or (part and kept[part] is None)
        if is_of_part or value is None or own == "taps" or (part and own in unsaved):
            continue
        is_kept = own not in unsaved or hasattr(fitted.model, f"{own}_")
        assert loaded[name] == (plain(value) if is_kept else defaults[name]), name


EDGES = {
    "constant": np.full((32, 32), 0.5),
    "one pixel": np.ones((1, 1), np.float32),
    "one row": np.arange(40.0)[None],
    "one hot pixel": np.eye(32) * (np.arange(32) == 9),
    "16 bit": np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64,
    "boolean": np.eye(32, dtype=bool),
    "colours": np.random.default_rng(0).random((32, 32, 3)),
    "transparent": np.random.default_rng(0).integers(0, 255, (32, 32, 4), np.uint8),
}
NO_IMAGES = {
    "NaN": np.full((32, 32), np.nan),
    "infinite": np.full((32, 32), np.inf),
    "no pixels": np.zeros((0, 5)),
    "a row": np.zeros(9),
    "a stack": np.zeros((2, 8, 8, 3)),
    "complex": np.ones((32, 32), complex),
    "objects": np.array([[None]]),
    "nothing": None,
    "a number": 3,
    "no file": "absent.png",
}
NO_LISTS = ["a.png", b"a.png", Path("a.png"), [], None, 5, {1: 2}, np.zeros((20, 24))]


@pytest.mark.parametrize("name", ["encoder", "classifier", "normal", "modarres2017"])
@pytest.mark.parametrize("edge", EDGES)
def test_any_image_has_an_answer(name, edge, ready):
    model = ready(name)
    answer = next(n for n in ("transform", "predict_proba", "score_samples") if hasattr(model, n))
    image = EDGES[edge]
    if name == "normal" and min(image.shape[:2]) < PATCH:
        with pytest.raises(ImageReadError):
            getattr(model, answer)([image])
    else:
        assert np.isfinite(getattr(model, answer)([image])).all()


@pytest.mark.parametrize("name", ["encoder", "classifier", "normal", "modarres2017"])
def test_what_is_no_image_is_refused(name, ready):
    model, labels = ready(name), ["normal", "anomalous"]
    answer = next(n for n in ("transform", "predict", "score_samples") if hasattr(model, n))
    for images in NO_LISTS:
        for call in (getattr(model, answer), lambda given: clone(model).fit(given, labels)):
            with pytest.raises(ImageReadError):
                call(images)
    for image in NO_IMAGES.values():
        with pytest.raises(ImageReadError, match=r"image 0 of the list|absent\.png"):
            getattr(model, answer)([image, np.eye(32)])
        with pytest.raises(ImageReadError):
            clone(model).fit([surface(0), image], labels)


# --- before fit -----------------------------------------------------------------------------------


#: Public methods that need no fit.
ANY_TIME = ("check_run_parameters", "check_labels", "as_network_input", "portable_copy")
#: Attributes, or methods that only some fitted models have.
LOOKED_UP = ("limits_", "training_", "probability_map", "judge_vectors")


@pytest.mark.parametrize("name", MAKERS)
def test_an_unfitted_model_says_so(name, case_of):
    case = case_of(name)
    with pytest.raises(NotFittedError):
        clone(case.model).save("m.hvlad")
    for called, call in case.calls.items():
        if called not in ANY_TIME:
            with pytest.raises(AttributeError if called in LOOKED_UP else NotFittedError):
                call(clone(case.model))


def test_all_public_methods_are_called(case_of):
    """Except those that construct, change or save a model, and scikit-learn's of parameters."""
    others = r"fit.*|from_state|set_.*|.*_request|get_(params|metadata_routing)|save|to_state"
    called = {}
    for name in MAKERS:
        case = case_of(name)
        called.setdefault(type(case.model), set()).update(case.calls)
    public = [getattr(models, name) for name in models.__all__]
    estimators = {each for each in public if inspect.isclass(each) and hasattr(each, "fit")}
    assert set(called) == estimators | {HypercolumnVLAD}
    for kind, names in called.items():
        methods = {
            n for n in dir(kind) if not n.startswith("_") and callable(getattr(kind, n, None))
        }
        missing = {name for name in methods - names if not re.fullmatch(others, name)}
        assert missing == {"check_parameters"}, kind


# --- parameters -----------------------------------------------------------------------------------

COUNT = ([1, 7, np.int64(3)], [0, -1, 2.5, True, "1", None])
SEED = (
    [None, 0, 2**32 - 1, np.random.RandomState(0)],
    [-1, 2**32, 1.5, True, "a", np.random.default_rng(0)],
)
#: Of each parameter, values that are allowed and values that are not, of all that have it.
VALUES = {
    "Cs": ([2, 0.5, (1, 10.0), np.array([1.0])], [(), 0, -1, NAN, "1", (1, 0), [[1.0]], None]),
    "aligned": ([True, np.bool_(False)], [0, "True", None]),
    "backbone": ([], [5, None]),
    "batch_size": ([1, np.int32(8)], [0, -1, 2.5, True, "1"]),
    "blocks": (
        ["joint", ["per_layer", "pooled"]],
        ["pooled", [], ["joint", "joint"], ["pooled", "pooled_unit"], 3, None],
    ),
    "annotations": (["keep"], ["no", None, 1]),
    "boosting": ([None], ["boosted", 5, BoostedSoftmaxClassifier, HypercolumnVLAD()]),
    "calibrate": ([True, np.bool_(False)], [0, "True", None]),
    "device": (["cpu", "auto", torch.device("cpu")], [0, None]),
    "encoder": ([None], ["vgg16", 5, HypercolumnVLAD]),
    "fpr": ([0.01, 0.99], [0, 1, NAN, True, "0.1", None]),
    "grid": (["finest", "image", 1, 2**18], [0, 2**18 + 1, "all", 2.5, True, None]),
    "image_size": ([224, 2048], [0, 2049, 2.5, True, "large"]),
    "init": (["linear", None], ["zero", 0, True]),
    "learning_rate": ([1e-9, 0.5, 1], [0, -0.1, NAN, True, "0.1", None]),
    "max_depth": ([1, 64], [0, 65, 2.5, True, None]),
    "max_epochs": COUNT,
    "min_area": COUNT,
    "mode": (["features", "finetune"], ["Features", None, True]),
    "n_codewords": COUNT,
    "n_epochs": ([1, 1000], [0, 1001, 2.5, True, None]),
    "n_estimators": ([0, 7], [-1, 2.5, True, "1", None]),
    "n_iter_no_change": ([1, None], [0, 2.5, True, "1"]),
    "n_jobs": ([1, -1, None], [2.5, "1", True]),
    "n_planted": ([0, 100_000], [-1, 100_001, 2.5, True, None]),
    "on_error": (["raise", "skip"], ["Skip", None, 0]),
    "patch": ([1, 2**16], [0, 2**16 + 1, 2.5, True, None]),
    "patience": COUNT,
    "pixel_size": ([None, 0.5], [0, -1, NAN, True, "1 nm"]),
    "prior": (["training", "sqrt", "uniform", {"a": 1}], ["equal", None, 3, {0: 1, 1: -1}]),
    "random_state": SEED,
    "read_options": ([None, {"banner": "remove"}, hypervlad.images.ReadOptions()], [5, "minmax"]),
    "runtime": (["auto", "torch"], ["onnx", None, True]),
    "sampling": (["anyloc", 5000], ["paper", 0, 2.5, True, None]),
    "threshold": (["fpr", "f1"], ["f2", 0.5, None]),
    "tile_size": ([512, 1024], [0, 2.5, True, "large", None]),
    "turns": ([1, 2, 4, np.int32(8)], [0, 3, 2.0, True, "2", None]),
    "verbose": ([True, 0, 2, np.bool_(False)], [-1, "loud", None, 0.5]),
    "weights": (["random", "pretrained"], [5, None, ["random"]]),
    "window": ([2, 2**16], [1, 2**16 + 1, 2.5, True, None]),
}
DEFAULTS = [
    functools.partial(HypercolumnVLAD, "tiny", weights="random"),
    BoostedSoftmaxClassifier,
    MicrographClassifier,
    PatchDefectScorer,
    AlignmentClassifier,
    functools.partial(HypercolumnSegmenter, "tiny", weights="random"),
    PatchCNNClassifier,
    functools.partial(TransferClassifier, "tiny", weights="random"),
]


@pytest.mark.parametrize("make", DEFAULTS)
def test_parameters_are_checked_and_none_is_lost_in_a_copy(make):
    for name in make().get_params(deep=False):
        if name not in ("memory", "taps"):  # they are checked later
            allowed, refused = VALUES[name]
            for value in allowed:
                make().set_params(**{name: value}).check_parameters()
            for value in [*refused, object()]:
                with pytest.raises(ValueError, match=name):
                    make().set_params(**{name: value}).check_parameters()
    with pytest.raises(ValueError):
        make().set_params(n_words=3)
    model = make()
    assert repr(clone(model).get_params()) == repr(model.get_params())
    assert repr(model.set_params(**model.get_params()).get_params()) == repr(make().get_params())


@pytest.mark.parametrize("kind", [MicrographClassifier, PatchDefectScorer, AlignmentClassifier])
def test_parameters_of_parts_are_set_on_a_new_estimator(kind):
    model = clone(kind()).set_params(encoder__n_codewords=5, boosting__n_estimators=3)
    makers = {
        MicrographClassifier: (default_encoder, {"prior": "sqrt"}),
        PatchDefectScorer: (default_patch_encoder, {}),
        AlignmentClassifier: (default_alignment_encoder, {}),
    }
    make_encoder, of_learner = makers[kind]
    assert model.encoder.get_params() == make_encoder(n_codewords=5).get_params()
    learner = BoostedSoftmaxClassifier(n_estimators=3, **of_learner)
    assert model.boosting.get_params() == learner.get_params()
    again = model.set_params(encoder__n_codewords=6, encoder__turns=4).encoder
    assert (again.n_codewords, again.turns) == (6, 4)
    assert model.set_params(encoder=None, encoder__turns=8).encoder.n_codewords != 6
    with pytest.raises(ValueError):
        kind().set_params(encoder__codewords=5)


# --- labels, groups and weights: one sentence, before any work ------------------------------------

FOUR = [np.full((12, 12), i / 4, dtype=np.float32) for i in range(4)]
ROWS = np.arange(12.0).reshape(4, 3)
AB = ["a", "b"] * 2
DATES = [datetime(2026, 1, i) for i in (1, 2, 1, 2)]
LEARNERS = {
    "boosted": (BoostedSoftmaxClassifier, ROWS, AB),
    "images": (MicrographClassifier, FOUR, AB),
    "transfer": (functools.partial(TransferClassifier, "tiny", weights="random"), FOUR, AB),
    "patches": (PatchCNNClassifier, FOUR, AB),
    "defects": (PatchDefectScorer, FOUR, ["normal", "anomalous"] * 2),
    "alignment": (AlignmentClassifier, FOUR, ["aligned", "not aligned"] * 2),
}
COLUMNS = {
    **{
        f"{what} in {type(values).__name__}": ({what: values}, f"{what} must be a list, a tuple")
        for what in ("y", "groups")
        for values in ("abab", {*"abcd"}, {1: "a"}, map(str, AB), 4)
    },
    "bytes": ({"y": np.array([b"a", b"b"] * 2)}, "y must be strings, int|expected 'al|label"),
    "dates": ({"y": DATES}, "y must be strings, integers|expected 'aligned'|label"),
    "days": ({"y": np.array(DATES, "M8[D]")}, "y must be strings, int|expected 'al|label"),
    "complex": ({"y": [1j, 2, 1j, 2]}, "y must be strings, integers|expected 'aligned'|label"),
    "few groups": ({"groups": [1, 2]}, "groups"),
    "a missing group": ({"groups": ["a", None, "b", "c"]}, r"groups\[1\] is missing"),
}


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("columns", COLUMNS)
def test_labels_and_groups_are_columns_that_can_be_saved(learner, columns):
    make, X, labels = LEARNERS[learner]
    given, words = COLUMNS[columns]
    with pytest.raises(ValueError, match=words):
        make().fit(X, **{"y": labels, **given})


@pytest.mark.parametrize("learner", ["boosted", "images", "transfer", "patches"])
@pytest.mark.parametrize("y", [["a"] * 4, AB[:3], [*AB, "a"], ["a", "b", "a", NAN], None, []])
def test_each_row_has_a_label_of_two_classes_or_more(learner, y):
    make, X, _ = LEARNERS[learner]
    with pytest.raises(ValueError):
        make().fit(X, y)


@pytest.mark.parametrize("learner", ["boosted", "images"])
@pytest.mark.parametrize(
    "weights",
    [
        np.ones((4, 1)),
        np.ones(4, dtype=complex),
        np.array(["1"] * 4),
        iter([1.0] * 4),
        [-1.0, 1, 1, 1],
        [NAN, 1, 1, 1],
        [1.0] * 3,
    ],
)
def test_weights_are_real_numbers_of_rows(learner, weights):
    make, X, labels = LEARNERS[learner]
    with pytest.raises(ValueError, match=r"weight|Input contains NaN|class"):
        make().fit(X, labels, sample_weight=weights)


@pytest.mark.parametrize("kind", ["tuple", "object", "series", "category", "bool", "int", "float"])
def test_labels_of_any_kind_come_back(kind):
    pandas, names = pytest.importorskip("pandas"), ["b", "a"] * 6
    given = {
        "tuple": tuple(names),
        "object": np.array(names, dtype=object),
        "series": pandas.Series(names),
        "category": pandas.Series(names, dtype="category"),
        "bool": [name == "a" for name in names],
        "int": np.array([7, 2] * 6, dtype=np.int16),
        "float": [2.0, 1.0] * 6,
    }[kind]
    X = np.random.default_rng(0).normal(size=(12, 3)) + 9 * np.arange(12)[:, None] % 18
    model = BoostedSoftmaxClassifier(n_estimators=0).fit(X, given, groups=DATES * 3)
    assert model.predict(X).tolist() == list(given)
    again = BoostedSoftmaxClassifier.from_state(*model.to_state())
    assert again.predict(X).dtype == model.classes_.dtype
