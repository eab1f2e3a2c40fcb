"""Model files forged through their layout: other values, arrays, trees, with the right digest."""

import copy
import hashlib
import json
import re
import tempfile
import warnings
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from sklearn.base import clone
from support.surfaces import PATCH, blotted, surface
from support.tiny import make_tiny_encoder, register_tiny

import hypervlad
from hypervlad import (
    AlignmentClassifier,
    BoostedSoftmaxClassifier,
    MicrographClassifier,
    ModelFileError,
    PatchDefectScorer,
    make_tem_images,
)
from hypervlad.features import WeightsNotFoundError
from hypervlad.images import ImageReadError
from hypervlad.models import PatchCNNClassifier, TransferClassifier
from tests.campaign.case import Case

_N_PER_SEED = 200
_MAX_COLUMNS = 10_000  # of a table to predict
_RAW = "\x00raw "  # marks text that stands in the JSON as it is
_DIGEST = re.compile(rb"0{64}")
_NUMBERS = (-1, 0, 1, 2, 3, 7, 255, 3000, 2**16, 2**31 - 1, 2**31, 2**40, 2**63, -(2**63), 10**30)
_VALUES: tuple[Any, ...] = (
    *_NUMBERS,
    *(-1.5, 0.0, 1e-320, 0.5, 1e30, 1e300),
    *(None, True, False, "", "inf", "nan", "<U1000000000", "M8[D]", "x" * 5000, "../../x", "own"),
    *([], {}, [[]], [None], [1] * 500, {"pairs": []}, {"pairs": [[[], []]]}),
    *(_RAW + text for text in ("1e400", "NaN", "-Infinity", '{"a":1,"a":2}', "1" * 5000)),
    *(_RAW + "[" * depth + "]" * depth for depth in (20, 40, 5000)),
)
_DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u4", "u8", "?")
_FLOATS = (np.nan, np.inf, -np.inf, 0.0, -1.0, 1e-38, 1e6, 1e19, 3e38)

Arrays = dict[str, NDArray[Any]]


def cases(seed: int, folder: Path) -> Iterator[Case]:
    """Write forged models, each over the one before it of the same kind."""
    rng = np.random.default_rng(seed)
    names = sorted(sound_models())
    for number in range(_N_PER_SEED):
        name = names[number % len(names)]
        path = folder / f"{name}.hvlad"
        path.write_bytes(forge(sound_models()[name], rng))
        yield Case(f"{name} {number}", partial(attack, path), (path,))


def attack(path: Path) -> None:
    """Load a model and predict: it is refused as SECURITY.md says, or predicts finite numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = hypervlad.load(path)
        except ModelFileError:
            return
        try:
            found = predict(model)
        except WeightsNotFoundError:
            if getattr(getattr(model, "encoder_", model), "network_state_", None):
                raise
            return
        except (ModelFileError, ImageReadError):
            return
        except ValueError as error:
            if "are not finite for" not in str(error):  # what the network makes of an image
                raise
            return
    for values in found:
        assert np.isfinite(values).all(), f"{type(model).__name__} predicts {values}"


def predict(model: Any) -> list[NDArray[Any]]:
    """Return some of the model's numbers."""
    image = surface(0)
    if isinstance(model, BoostedSoftmaxClassifier):
        if model.n_features_in_ > _MAX_COLUMNS:
            return []
        X = np.random.default_rng(0).normal(size=(4, model.n_features_in_))
        if hasattr(model, "feature_names_in_"):
            del model.feature_names_in_
        return [model.predict_proba(X)]
    if isinstance(model, MicrographClassifier):
        found = [model.predict_proba([image])]
        return found if model.held_out_ is None else [*found, model.predict_set([image])]
    if isinstance(model, PatchDefectScorer):
        return [model.score_map(image)]
    if isinstance(model, AlignmentClassifier):
        return [model.predict([image])]
    if isinstance(model, PatchCNNClassifier):
        patches = [model.predict_proba([np.zeros((model.patch_, model.patch_), np.float32)])]
        return [*patches, model.score_map(image)] if "anomalous" in model.classes_ else patches
    if isinstance(model, TransferClassifier):
        return [model.predict_proba([image])]
    return [model.transform([image])]


# --- models to forge ----------------------------------------------------------------------------


class Sound(NamedTuple):
    """What a model file holds: its entry in JSON, and its arrays."""

    entry: dict[str, Any]
    arrays: Arrays


def read_sound(path: Path) -> Sound:
    with safetensors.safe_open(path, "numpy") as file:
        entry = json.loads(file.metadata()["hypervlad"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return Sound({key: entry[key] for key in entry if key != "sha256"}, arrays)


@cache
def sound_models() -> dict[str, Sound]:
    """Fit a small model of each kind, some with their network, trees or held-out predictions."""
    register_tiny()
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(90, 4)), np.arange(90) % 3
    X[:, 0] += np.sign(y - 1) ** 2
    images, labels = make_tem_images(24, size=32, random_state=0)
    good = [surface(seed) for seed in range(6)]
    flawed = [blotted(100 + i, (12 + 3 * i, 20)) for i in range(4)]
    learner = BoostedSoftmaxClassifier(n_estimators=3, Cs=1.0, random_state=0)
    trees = clone(learner).set_params(init=None, n_iter_no_change=None)
    linear = clone(learner).set_params(n_estimators=0)
    encoder = make_tiny_encoder()
    own_size = clone(encoder).set_params(image_size=None)
    scorer = PatchDefectScorer(own_size, patch=PATCH, n_codewords=8, boosting=trees, random_state=0)
    masks = [*[None] * 6, *(mask for _, mask in flawed)]
    network = PatchCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    transfer = TransferClassifier(
        "tiny", weights="random", image_size=16, device="cpu", random_state=0
    )
    patches = list(rng.random((40, 28, 28)).astype(np.float32))
    aligned = ["aligned", "not aligned"] * 3
    wires = AlignmentClassifier(own_size, window=32, boosting=learner, random_state=0)
    both = clone(encoder).set_params(blocks=("joint", "per_layer", "pooled"))
    classifier = MicrographClassifier(encoder, boosting=trees, random_state=0)

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        fitted: dict[str, Any] = {
            "linear": linear.fit(X, y > 0),
            "trees": trees.fit(X, y),
            "trees-on-margins": clone(trees).set_params(init="linear").fit(X, y, blocks=[1, 3]),
            "encoder-with-network": both.fit(images),
            "classifier": classifier.fit(images, labels),
            "labelled-scorer": scorer.fit([*good, *(each for each, _ in flawed)], masks=masks),
            "alignment": wires.fit(good, aligned),
            "patch-network": network.fit(patches, ["anomalous", "normal"] * 20),
            "transfer": transfer.fit(images, labels),
        }
        found = {}
        for name, model in fitted.items():
            path = Path(folder, name)
            model.save(path, include_backbone=name in ("encoder-with-network", "transfer"))
            attack(path)
            found[name] = read_sound(path)
    return found


# --- changes ------------------------------------------------------------------------------------


def forge(model: Sound, rng: np.random.Generator) -> bytes:
    """Return the bytes of a model with one to three changes, mostly one, or with one that fits."""
    entry = copy.deepcopy(model.entry)
    arrays = {name: array.copy() for name, array in model.arrays.items()}
    if rng.random() < 0.2:
        _change_length(entry, arrays, rng)
        return _written(entry, arrays)
    for _ in range(min(3, rng.geometric(0.65))):
        if arrays and rng.random() < 0.5:
            _change_array(entry, arrays, rng)
        else:
            _change_header(entry, rng)
    return _written(entry, arrays)


def _written(entry: dict[str, Any], arrays: Arrays) -> bytes:
    """Return a file of any content, with the digest that belongs to it."""
    text = json.dumps({"sha256": "0" * 64} | entry, separators=(",", ":"))
    marked = re.compile('"' + re.escape(json.dumps(_RAW)[1:-1]) + r'((?:[^"\\]|\\.)*)"')
    text = marked.sub(lambda found: json.loads(f'"{found[1]}"'), text)
    blank = safetensors.numpy.save(arrays, metadata={"hypervlad": text})
    at = _DIGEST.search(blank)
    assert at is not None
    digest = hashlib.sha256(blank[: at.start()] + blank[at.end() :]).hexdigest()
    return blank[: at.start()] + digest.encode() + blank[at.end() :]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each object or list in JSON, with the key of each of its items."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _change_header(entry: dict[str, Any], rng: np.random.Generator) -> None:
    places = list(_places(entry))
    owner, key = places[rng.integers(len(places))]
    other, other_key = places[rng.integers(len(places))]
    match rng.integers(5):
        case 0 | 1:
            owner[key] = copy.deepcopy(_VALUES[rng.integers(len(_VALUES))])
        case 2:
            del owner[key]
        case 3:
            owner[key] = copy.deepcopy(other[other_key])
        case _:
            owner[key] = [owner[key]]


def _change_length(entry: dict[str, Any], arrays: Arrays, rng: np.random.Generator) -> None:
    """Shorten or repeat all axes of one length, in all arrays and in the header."""
    lengths = sorted({n for array in arrays.values() for n in array.shape if n > 1})
    if not lengths:
        return
    length = lengths[rng.integers(len(lengths))]
    rows = np.arange(rng.integers(1, 2 * length)) % length
    for name in arrays:
        for axis in [axis for axis, n in enumerate(arrays[name].shape) if n == length]:
            arrays[name] = np.ascontiguousarray(arrays[name].take(rows, axis))
    for owner, key in list(_places(entry)):
        if type(owner[key]) is int and owner[key] == length:
            owner[key] = len(rows)


def _change_array(entry: dict[str, Any], arrays: Arrays, rng: np.random.Generator) -> None:
    """Change one number, often to one that could almost be right, or the type or shape."""
    name = sorted(arrays)[rng.integers(len(arrays))]
    trees = sorted(each for each in arrays if "trees_." in each)
    if trees and rng.random() < 0.4:
        name = trees[rng.integers(len(trees))]
    array = arrays[name]
    flat = array.reshape(-1)
    with np.errstate(all="ignore"):
        match rng.integers(9):
            case 0 | 1 | 2 | 3 if flat.size:
                numbers = range(-2, 12) if rng.random() < 0.5 else _NUMBERS[:-3]
                pool = _FLOATS if array.dtype.kind == "f" else numbers
                value = np.array(pool[rng.integers(len(pool))]).astype(array.dtype)
                flat[rng.integers(flat.size) if rng.random() < 0.8 else slice(None)] = value
            case 4:
                arrays[name] = array.astype(_DTYPES[rng.integers(len(_DTYPES))])
            case 5:
                arrays[name] = np.ascontiguousarray(array.T)
            case 6:
                arrays[name] = array[: len(array) // 2] if array.ndim else array[None]
            case 7:
                del arrays[name]
                return
            case _:
                arrays[name] = np.concatenate([array, array]) if array.ndim else flat
    if rng.random() < 0.7:  # the header states the new shape
        old = list(array.shape)
        for owner, key in _places(entry):
            if owner[key] == old and (key == "shape" or str(key) in name):
                owner[key] = list(arrays[name].shape)
