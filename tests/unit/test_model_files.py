"""Model files: written completely or not at all; hostile or damaged ones are refused."""

import copy
import functools
import json
import os
import pickle
import re
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from support.model_files import forged, read_entry, write_file
from support.tiny import build_tiny, make_tiny_encoder

import hypervlad
from hypervlad import BoostedSoftmaxClassifier, MicrographClassifier, ModelFileError
from hypervlad.features import WeightsNotFoundError
from hypervlad.images import ImageReadError
from hypervlad.models import PatchCNNClassifier, TransferClassifier

NAN = float("nan")


@pytest.fixture(scope="module")
def model_of(tiny_backbone, texture_images):
    """Fitted models, by name; tests leave them as they are."""
    images, labels = texture_images
    patches = list(np.random.default_rng(0).random((20, 28, 28)).astype(np.float32))
    X = np.random.default_rng(0).normal(size=(90, 4))
    y = X[:, 0] * X[:, 1] > 0
    options = {"n_estimators": 3, "n_iter_no_change": None, "random_state": 0}
    linear = BoostedSoftmaxClassifier(n_estimators=0, Cs=1.0)
    transfer = TransferClassifier("tiny", "random", image_size=16, random_state=0)
    makers = {
        "trees": lambda: BoostedSoftmaxClassifier(init=None, n_jobs=3, **options).fit(X, y),
        "both": lambda: BoostedSoftmaxClassifier(**options).fit(X, y),
        "encoder": lambda: make_tiny_encoder().fit(images),
        "joint and pooled": lambda: (
            make_tiny_encoder().set_params(blocks=("joint", "pooled")).fit(images)
        ),
        "classifier": lambda: MicrographClassifier(
            make_tiny_encoder(), boosting=linear, random_state=0
        ).fit(images, labels),
        "patches": lambda: PatchCNNClassifier(max_epochs=1).fit(patches, ["a", "b"] * 10),
        "transfer": lambda: transfer.fit(images, labels),
    }
    return functools.cache(lambda name: makers[name]())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.hvlad"


@pytest.fixture(scope="module")
def saved(model_of, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.hvlad"
    model_of("trees").save(path)
    return path


# --- what does not fit ----------------------------------------------------------------------------


def put(value, *keys):
    """Return a change of the header at these keys."""

    def change(header, _arrays):
        *outer, last = keys
        functools.reduce(lambda level, key: level[key], outer, header)[last] = value

    return change


def parameter(name, value):
    return put(value, "parameters", name)


def pop(*keys):
    def change(header, _arrays):
        *outer, last = keys
        functools.reduce(lambda level, key: level[key], outer, header).pop(last)

    return change


def labels(**changes):
    """Change the classes of a model."""
    return lambda header, _: header["fitted"]["classes_"].update(changes)


def array(name, damage):
    """Change an array, and the shape that the header has for it."""

    def change(header, arrays):
        arrays[name] = damage(arrays[name])
        part, _, field = name.partition(".")
        own = header["fitted"].get(part) or {}
        own = own["state"].get(field, {}) if field and "state" in own else own
        if "shape" in own:
            own["shape"] = list(arrays[name].shape)

    return change


def no_array(name):
    return lambda _, arrays: arrays.pop(name)


def of_channels(n):
    """Give the first layer's projection fewer channels."""

    def change(_header, arrays):
        for name, own in arrays.items():
            if ".0." in name and own.ndim and len(own) > 1:
                arrays[name] = own[..., :n]

    return change


def narrower(header, arrays):
    (name,) = [name for name in arrays if name.endswith("2.weight")]
    arrays[name] = arrays[name][:5]
    if "network_state_" in header["fitted"]:
        header["fitted"]["network_state_"]["2.weight"][0] = 5


def shorter_head(header, arrays):
    for name in ("mean", "scale", "coef"):
        array(f"head_.{name}", lambda a: a[:7])(header, arrays)


def wider_learner(header, arrays):
    learner = header["fitted"]["boosting_"]["state"]["fitted"]
    learner["n_features_in_"], learner["block_widths_"] = 48, [48]
    learner["linear_coef_"]["shape"] = [48, 3]
    arrays["boosting_.linear_coef_"] = np.zeros((48, 3))


def without_trees(header, arrays):
    header["fitted"]["trees_"] = None
    for name in [name for name in arrays if name.startswith("trees_")]:
        del arrays[name]


TRAINING = ("fitted", "training_", "state")
ROWS = [
    # parameters
    ("encoder", parameter("memory", "/tmp/pickles"), r"unknown parameters \['memory'\]"),
    ("trees", parameter("n_jobs", 1024), r"unknown parameters \['n_jobs'\]"),
    ("encoder", pop("parameters", "turns"), r"missing parameters \['turns'\]"),
    (
        "classifier",
        put("/tmp", "fitted", "encoder_", "state", "parameters", "memory"),
        r"HypercolumnVLAD is incomplete .*unknown parameters \['memory'\].*train it again",
    ),
    (
        "classifier",
        put(0, "fitted", "encoder_", "state", "parameters", "n_codewords"),
        "n_codewords must be a whole number of at least 1, not 0",
    ),
    ("trees", parameter("max_depth", 0), "incomplete.*max_depth must be"),
    ("encoder", parameter("image_size", 3000), "image_size must be a whole number"),
    ("encoder", parameter("sampling", "anyloc"), "does not fit no components"),
    ("encoder", parameter("n_codewords", 5), "codewords of shapes"),
    ("encoder", parameter("blocks", ["joint", "per_layer"]), "codewords of shapes"),
    *(
        ("encoder", parameter("weights", weights), 'weights must be "pretrained", "micronet", "ra')
        for weights in ({"pairs": [["a", 1]]}, 3, ["imagenet"])
    ),
    (
        "patches",
        parameter("read_options", {"pairs": [["scaling", "minmax"]]}),
        "would scale each patch by its own greys",
    ),
    # attributes: unknown, missing, of other types or shapes
    ("classifier", pop("fitted", "n_images_"), "MicrographClassifier is incomplete"),
    ("classifier", pop("fitted", "held_out_"), "MicrographClassifier is incomplete"),
    ("classifier", put(1, "fitted", "more_"), r"unknown entries \['more_'\]"),
    ("classifier", put("3", "fitted", "n_images_"), "'3' is not of type int"),
    ("classifier", put(0, "fitted", "n_images_"), "at least 1, not 0"),
    ("classifier", put(10**400, "fitted", "n_images_"), "not laid out as a hypervlad model"),
    ("classifier", put("Outer", "fitted", "encoder_", "class"), "KeyError in encoder_"),
    ("classifier", put(1, "fitted", "formats_", "more"), "ImageFormats has fields"),
    *(
        ("classifier", put(sides, "fitted", "formats_", "sides"), "formats")
        for sides in ([0, 5], [9, 5])
    ),
    (
        "trees",
        put(2**24 + 1, "fitted", "n_features_in_"),
        "at least 1 and at most 1.6.*, not 16777217",
    ),
    ("trees", put("nan", "fitted", "tree_gain_"), "'nan' is not of type float"),
    ("both", put("nan", "fitted", "tree_gain_error_"), "'nan' is not of type float"),
    ("both", put("1e400", "fitted", "tree_gain_error_"), "'1e400' is not of type float"),
    ("both", put([4, None], "fitted", "block_widths_"), "None is not of type int"),
    ("both", put([4, 6], "fitted", "block_widths_"), r"\(4, 6\), which must .* the 4 features"),
    ("both", put([0, 4], "fitted", "block_widths_"), "at least 1"),
    ("both", put(["a"], "fitted", "feature_names_in_"), "1 column names for 4"),
    ("both", array("linear_intercept_", lambda _: np.zeros(3)), r"\(3,\).*\(1,\)"),
    ("both", array("linear_coef_", lambda a: a.astype("f4")), "type float32"),
    ("both", array("linear_coef_", lambda a: a[:3]), r"\(3, 1\).*\(4, 1\)"),
    ("both", put([9, 1], "fitted", "linear_coef_", "shape"), r"shape \(4, 1\); expected \[9, 1\]"),
    ("both", no_array("linear_coef_"), "KeyError in linear_coef_"),
    ("both", lambda _, arrays: arrays.update(more=np.zeros(1)), r"unknown entries \['more'\]"),
    *(
        ("both", array("linear_coef_", lambda a, v=v: a * 0 + v), r"expected numbers from -1e\+30")
        for v in (NAN, np.inf, -np.inf, 2e30)
    ),
    # labels
    ("classifier", labels(values=["a", "b"]), "the learner has other classes|damaged|classes"),
    ("classifier", labels(values=["fibre"]), "expected at least two"),
    ("classifier", labels(values=["b", "a", "c"]), "not sorted and distinct"),
    ("classifier", labels(dtype="object", values=["a", "a", "b"]), "not sorted and distinct"),
    ("classifier", labels(dtype="object", values=["a", None, "b"]), "not all strings"),
    ("classifier", labels(dtype="<M8[D]"), "unexpected type"),
    ("classifier", labels(dtype="(2,)i8"), "unexpected type"),
    ("classifier", labels(dtype=[["a", "i8"]]), "unexpected type"),
    ("classifier", labels(dtype="<U100000000"), "16 characters in all"),
    ("classifier", labels(dtype="<U1", values=["a", "bc", "c"]), "not of type <U1"),
    ("classifier", labels(dtype="<i8", values=[1, 2.5, 3]), "not of type <i8"),
    ("classifier", labels(dtype="<i4", values=[10**12, 1, 2]), "incomplete"),
    # trees
    ("trees", put(0, "fitted", "n_estimators_"), "3 rounds of trees; expected 0"),
    ("trees", without_trees, "0 rounds of trees; expected 3"),
    ("trees", array("trees_.column", lambda a: a + 4), "not among the 4"),
    ("both", array("trees_.column", lambda a: a + 5), "not among the 5"),
    ("trees", put(0, "fitted", "trees_", "state", "sha256"), "unknown entries"),
    ("trees", no_array("trees_.left"), "left is missing"),
    ("trees", lambda _, a: a.update({"trees_.x": a["trees_.left"]}), "incomplete.*x"),
    # held-out predictions and training images
    ("classifier", array("held_out_.models", lambda a: a + 7), "predictions are damaged"),
    ("classifier", array("held_out_.codes", lambda a: a + 9), "predictions are damaged"),
    ("classifier", array("held_out_.groups", lambda a: a[1:]), "predictions are damaged"),
    ("classifier", array("held_out_.rows", lambda a: a + 99), "predictions are damaged"),
    ("classifier", array("held_out_.proba", lambda a: a * NAN), "proba: an array has values"),
    ("classifier", array("training_.groups", lambda a: a[1:]), "training images is damaged"),
    ("classifier", array("training_.points", lambda a: a + np.inf), "points: an array has values"),
    ("classifier", array("training_.points", lambda a: a[:, 1:]), "damaged: its points"),
    ("classifier", array("training_.empty", lambda a: a[:, :3]), "damaged: its points"),
    ("classifier", array("training_.usual", lambda _: np.ones(9)), "damaged: usual distances"),
    ("classifier", array("training_.usual", lambda a: 0 * a), "usual: an array has values"),
    ("classifier", array("training_.digests.digests", lambda a: a[:2]), "images is damaged"),
    *(
        ("classifier", array("training_.digests.digests", change), r"expected uint8 and \(n, 32\)")
        for change in (lambda a: a[:, :31], lambda a: a[0], lambda a: a.astype("<i8"))
    ),
    ("classifier", array("training_.limits", lambda a: a * NAN), "limits: an array has values"),
    ("classifier", array("training_.limits", lambda a: -1 - a), "limits: an array has values"),
    ("classifier", array("training_.limits", lambda _: np.ones(1)), "damaged: its limits"),
    *(
        ("classifier", put({"dtype": "<U1", "values": list(own) * 8}, *TRAINING, "labels"), words)
        for own, words in (("?ab", "not among the classes"), ("ab", "is damaged"))
    ),
    ("classifier", wider_learner, "the learner takes 48 features where the encoder gives"),
    # networks
    *(("patches", put(n, "fitted", "patch_"), "of at least 28 and at most") for n in (27, 16384)),
    ("patches", put(2048, "fitted", "patch_"), "size mismatch for 10.weight"),
    ("patches", put(2, "fitted", "n_channels_"), "a value must be one of 1, 3"),
    ("transfer", shorter_head, "a head of 7 features for a network of 10 channels"),
    ("transfer", put(3, "fitted", "image_size_"), "image_size_ must be .* of at least 4"),
    ("transfer", narrower, "not weights of 'tiny': 1 of another shape"),
    ("encoder", narrower, "not weights of 'tiny': 1 of another shape"),
    (
        "encoder",
        lambda _, arrays: arrays["network_state_.2.weight"].fill(NAN),
        r"array '2\.weight' are not finite",
    ),
    # Looked for, a path could be a device, or, on Windows, log in on another computer.
    *(
        (name, parameter("weights", named), re.escape(f"names the weights {named!r}, a path"))
        for name in ("encoder", "transfer")
        for named in (
            "/etc/passwd",
            "../weights.pth",
            r"\\server\share\weights.pth",
            "/dev/zero",
            "",
        )
    ),
]


@pytest.mark.parametrize(("name", "change", "words"), ROWS)
def test_what_does_not_fit_is_refused(name, change, words, model_of, path):
    with pytest.raises(ModelFileError, match=rf"(?s)m\.hvlad: .*({words})"):
        hypervlad.load(forged(model_of(name), path, change))


def test_a_message_quotes_little_of_the_file(model_of, path):
    change = put("x" * 10**6, "fitted", "n_images_")
    with pytest.raises(ModelFileError) as error:
        hypervlad.load(forged(model_of("classifier"), path, change))
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("encoder", of_channels(3)),
        ("joint and pooled", of_channels(3)),
        ("encoder", put(["1", "3", "nowhere"], "fitted", "taps_")),
        ("encoder", array("network_state_.2.weight", lambda a: 2 * a)),
    ],
)
def test_a_codebook_of_another_network_is_refused_when_it_is_used(name, change, model_of, path):
    with pytest.raises(ModelFileError):
        hypervlad.load(forged(model_of(name), path, change)).transform([np.zeros((16, 16))])


# --- what a file may not decide -------------------------------------------------------------------


def test_weights_that_are_given_are_those_of_a_new_fit(texture_images, tmp_path, path, saved):
    images, own = texture_images[0], tmp_path / "elsewhere" / "own.pth"
    own.parent.mkdir()
    torch.save(build_tiny().state_dict(), own)
    encoder = make_tiny_encoder().set_params(weights=own).fit(images)
    encoder.save(path)
    with pytest.raises(WeightsNotFoundError, match=r"'own\.pth', which is not beside"):
        clone(hypervlad.load(path)).fit(images)
    model = MicrographClassifier(clone(encoder), calibrate=False).fit(*texture_images)
    model.save(path)
    clone(hypervlad.load(path, weights=own)).fit(*texture_images)
    with pytest.raises(ModelFileError):  # of trees, which need none
        hypervlad.load(saved, weights="own.pth")


@pytest.mark.parametrize("name", ["encoder", "transfer", "patches"])
def test_the_file_does_not_decide_how_large_images_may_be(name, model_of, path):
    def change(header, _arrays):
        pairs = [["max_pixels", None], ["banner", "keep"]]
        header["parameters"]["read_options"] = {"pairs": pairs}
        if "read_options_" in header["fitted"]:
            header["fitted"]["read_options_"]["max_pixels"] = None

    image = np.arange(784, dtype=np.uint16).reshape(28, 28)
    predict = "transform" if name == "encoder" else "predict_proba"
    forged(model_of(name), path, change)
    loaded = hypervlad.load(path)
    assert loaded.read_options.max_pixels == 400_000_000
    assert np.isfinite(getattr(loaded, predict)([image])).all()
    loaded = hypervlad.load(path, max_pixels=783)
    with pytest.raises(ImageReadError, match=r"max_pixels=783.*or of hypervlad\.load"):
        getattr(loaded, predict)([image])
    assert hypervlad.load(path, max_pixels=None).read_options["max_pixels"] is None
    with pytest.raises(ValueError):
        hypervlad.load(path, max_pixels=0)


# --- what is no model file ------------------------------------------------------------------------


def entry_of(**changes):
    entry = {"sha256": "0" * 64, "format": 1, "kind": "test", "library": "0.1.0", "header": {}}
    kept = {key: value for key, value in (entry | changes).items() if value != "absent"}
    return json.dumps(kept, separators=(",", ":"))


LAID_OUT = "not laid out as a hypervlad model"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (entry_of(header="absent"), LAID_OUT),
        (entry_of(kind=["test"]), f"{LAID_OUT}.*is not a text"),
        (entry_of(format="1"), f"{LAID_OUT}.*version is not a number"),
        (entry_of(header=None), LAID_OUT),
        (entry_of()[:-1], LAID_OUT),
        (entry_of().replace("{}", "[" * 100_000), LAID_OUT),
        (entry_of().replace("{}", '{"a":1,"a":2}'), f"{LAID_OUT}.*occurs twice"),
        (entry_of(library="LONG"), f"{LAID_OUT}.*more than 33554432"),
        (entry_of(format=2, library="9.8.7"), r"9\.8\.7 in format 2.*pip install --upgrade"),
        (entry_of(kind="os:system"), "holds a model of kind 'os:system'.*known: alignment_clas"),
        (entry_of(kind="micrograph_classifier"), "incomplete"),
    ],
    ids=lambda value: value[78:100],
)
def test_forged_headers_are_refused(entry, words, path):
    with pytest.raises(ModelFileError, match=rf"(?s)m\.hvlad.*{words}"):
        hypervlad.load(write_file(path, entry.replace("LONG", "x" * 2**25)))


def foreign_files(folder):
    """Write files that are no models; yield their names and what a message calls them."""

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(folder / "ran"),)

    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    yield "a.zip", "zip archive"
    for name, content, what in (
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG image"),
        ("a.pkl", pickle.dumps(Bomb()), "pickle"),
        ("a.txt", b"a note", "not a hypervlad model"),
        ("empty", b"", "is empty"),
    ):
        (folder / name).write_bytes(content)
        yield name, what
    for name, metadata in (("a.safetensors", None), ("b.safetensors", {"format": "pt"})):
        safetensors.numpy.save_file({"w": np.eye(2)}, folder / name, metadata)
        yield name, "safetensors file but not a hypervlad model"
    yield "none.hvlad", "there is no such file"
    (folder / "folder").mkdir()
    yield "folder", "is a folder"
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe")
        yield "pipe", "not an ordinary file"


def test_foreign_files_are_named_for_what_they_are(tmp_path):
    for name, what in foreign_files(tmp_path):
        with pytest.raises(ModelFileError, match=rf"{re.escape(name)}.*{what}"):
            hypervlad.load(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(FileNotFoundError):
        hypervlad.load(tmp_path / "none.hvlad")


@given(data=st.data())
@settings(max_examples=60)
def test_one_changed_byte_is_refused(saved, data):
    whole = bytearray(saved.read_bytes())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    damaged = saved.with_name("damaged")
    damaged.write_bytes(whole)
    with pytest.raises(ModelFileError):
        hypervlad.load(damaged)


def test_a_file_that_was_cut_and_more_bytes_are_refused(saved):
    whole, other = saved.read_bytes(), saved.with_name("cut")
    for content in [whole + b"\0", *(whole[:n] for n in range(0, len(whole), 31))]:
        other.write_bytes(content)
        with pytest.raises(ModelFileError):
            hypervlad.load(other)


# --- writing --------------------------------------------------------------------------------------


def test_the_file_is_a_safetensors_file_with_one_metadata_entry(saved):
    with safetensors.safe_open(saved, framework="np") as stored:
        assert set(stored.metadata()) == {"hypervlad"}
        assert "trees_.left" in stored.keys()  # noqa: SIM118
    assert list(read_entry(saved)) == ["sha256", "format", "kind", "library", "header"]


def test_arrays_of_any_layout_come_back(model_of, path):
    model = copy.deepcopy(model_of("classifier"))
    model.boosting_.linear_coef_ = coef = np.asfortranarray(model.boosting_.linear_coef_)
    model.training_ = replace(model.training_, points=model.training_.points[:, ::-1])
    model.save(path)
    loaded = hypervlad.load(path)
    np.testing.assert_array_equal(loaded.boosting_.linear_coef_, coef)
    np.testing.assert_array_equal(loaded.training_.points, model.training_.points)
    assert loaded.boosting_.linear_coef_.flags.writeable


def deep(n):
    return functools.reduce(lambda inner, _: [inner], range(n), [])


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [
        ("Cs", NAN, "JSON compliant"),
        ("Cs", object(), "not JSON serializable"),
        ("Cs", deep(40), "more than 32 deep"),
        ("prior", {"\ud800": 1.0}, r"'\\ud800', which is no character"),
        ("tree_gain_", NAN, "the value nan cannot be saved"),
        ("classes_", np.array([None, 3], object), "only if every one is a string"),
        ("classes_", np.array(["2026-01-01", "2026-01-02"], "M8[D]"), "cannot be saved; use strin"),
    ],
)
def test_what_cannot_be_stored_is_refused_without_a_file(attribute, value, words, model_of, path):
    model = copy.deepcopy(model_of("trees"))
    setattr(model, attribute, value)
    with pytest.raises(ModelFileError, match=words):
        model.save(path)
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize(
    ("interruption", "expected"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (PermissionError(13, "open elsewhere"), ModelFileError),
    ],
)
def test_an_interruption_leaves_the_old_file_and_nothing_else(
    model_of, path, monkeypatch, interruption, expected
):
    def interrupted(_source, _target):
        raise interruption

    path.write_bytes(b"what was there")
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(expected):
        model_of("trees").save(path)
    assert path.read_bytes() == b"what was there"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions and links")
def test_a_link_is_refused_and_the_usual_permissions_apply(model_of, tmp_path, path):
    link, target = tmp_path / "link.hvlad", tmp_path / "real.hvlad"
    target.touch()
    link.symlink_to(target)
    with pytest.raises(ModelFileError, match=r"link\.hvlad is a link to .*real\.hvlad"):
        model_of("trees").save(link)
    assert link.is_symlink()
    assert target.stat().st_size == 0
    model_of("trees").save(path)
    assert path.stat().st_mode == target.stat().st_mode
