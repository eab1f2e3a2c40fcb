"""Networks that OpenVINO runs: the same vectors, when it is chosen, and what if it cannot."""

import shutil
import sys
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from support.oracle import threads

import hypervlad
from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images, register_backbone

openvino = pytest.importorskip("openvino")

Settings = list[dict[str, Any]]


@pytest.fixture(scope="module")
def images():
    return make_tem_images(12, size=64, random_state=0)[0]


@pytest.fixture
def compiled(monkeypatch):
    """The settings of each network that OpenVINO compiles."""
    compile_model, settings = openvino.Core.compile_model, Settings()

    def watched(core, model, device, given):
        settings.append(given)
        return compile_model(core, model, device, given)

    monkeypatch.setattr(openvino.Core, "compile_model", watched)
    return settings


def own_size(name, **parameters):
    """Return an encoder of images at their own size, run by OpenVINO."""
    usual = {"weights": "random", "n_codewords": 4, "random_state": 0}
    usual |= {"runtime": "openvino", "image_size": None, "blocks": ("joint", "pooled")}
    return HypercolumnVLAD(name, **usual | parameters)


def layers(*modules, taps):
    register_backbone("layers", lambda: torch.nn.Sequential(*modules), taps)


# --- the same vectors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "n_compiled"),
    [
        ("mobilenet_v2", {"taps": ["features.1", "features.6"]}, 1),  # once for all sizes
        ("tiny", {"turns": 2}, 3),  # a user's network, for each size, that of turned images, too
        ("tiny", {"taps": ["0", "1", "4"]}, 2),  # of a map that a later layer overwrites
        # It fails at this size, where torch crashed; importing timm takes seconds.
        pytest.param("timm/levit_128s", {"image_size": 160}, 1, marks=pytest.mark.full),
    ],
)
def test_vectors_are_those_of_torch(name, parameters, n_compiled, images, compiled):
    images = [*images[:3], *(image[:40, :48] for image in images[3:6])]
    in_torch = own_size(name, runtime="torch", **parameters).fit(images)
    expected = in_torch.transform(images)
    assert not compiled
    with threads(1):
        found = in_torch.set_params(runtime="openvino").transform(images)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert len(compiled) == n_compiled


# --- what it cannot run ---------------------------------------------------------------------------


class Bessel(torch.nn.Conv2d):
    def forward(self, x):
        return torch.special.bessel_j0(super().forward(x))


class Drifting(torch.nn.Conv2d):
    """A layer that does something else in each pass."""

    n_passes = 0

    def forward(self, x):
        self.n_passes += 1
        return super().forward(x) * self.n_passes


@pytest.mark.parametrize(
    ("layer", "message"),
    [(Bessel, "OpenVINO cannot convert the network"), (Drifting, "OpenVINO's maps differ")],
)
def test_torch_runs_what_cannot_be_converted_or_differs(layer, message, images):
    layers(layer(3, 4, 1), taps=["0"])
    encoder = own_size("layers")
    with pytest.warns(UserWarning, match=message) as caught:
        vectors = encoder.fit(images[:2]).transform(images[:2])
    assert len(caught) == 1
    assert np.isfinite(vectors).all()


def test_without_openvino_the_error_says_what_to_install(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    encoder = own_size("mobilenet_v2", taps=["features.1"])
    with pytest.raises(ValueError, match=r'pip install "hypervlad\[fast\]"'):
        encoder.fit(images)
    assert encoder.set_params(runtime="auto").fit(images).n_images_ == 12


# --- when it is chosen ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "is_chosen"),
    [
        ("mobilenet_v2", {}, True),
        ("mobilenet_v2", {"runtime": "torch"}, False),
        ("vgg16", {"taps": ["features.3"]}, False),
        ("tiny", {"taps": None}, False),  # users' networks may do what a recording does not show
        ("timm/test_efficientnet", {"taps": None}, False),  # each size would be converted
        ("timm/test_efficientnet", {"taps": None, "image_size": 64}, True),
    ],
)
def test_openvino_is_chosen_where_it_is_faster(name, parameters, is_chosen, images, compiled):
    usual = {"taps": ["features.1"], "runtime": "auto"}
    own_size(name, **usual | parameters).fit(images[:1])
    assert bool(compiled) == is_chosen


@pytest.mark.filterwarnings("ignore:Classes with only one or two:UserWarning")
def test_answers_depend_on_the_call_alone(images, tmp_path, compiled):
    """Bit by bit: fitted, loaded, called again, and one image at a time."""
    _, labels = make_tem_images(12, size=64, random_state=0)
    encoder = own_size("mobilenet_v2", taps=["features.1", "features.6"], runtime="auto")
    model = MicrographClassifier(encoder, calibrate=False, random_state=0).fit(images, labels)
    model.save(tmp_path / "model.hvlad")
    loaded = hypervlad.load(tmp_path / "model.hvlad")
    compiled.clear()
    answers = []
    for one in (loaded, model, loaded):
        single = [one.predict_proba(images[i : i + 1])[0] for i in range(3)]
        many, chunks = one.predict_proba(images), one.classify(images, chunk_size=3).proba
        answers.append((np.stack(single), many, chunks))
    assert compiled
    np.testing.assert_allclose(answers[0][0], answers[0][1][:3], atol=1e-6)
    for answer in answers[1:]:
        for found, own in zip(answer, answers[0], strict=True):
            np.testing.assert_array_equal(found, own)


# --- what is kept ---------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The folder below which converted networks are kept."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path


def test_a_converted_network_is_kept_and_one_that_is_damaged_replaced(images, kept, monkeypatch):
    encoder = own_size("mobilenet_v2", taps=["features.1"])
    expected = encoder.fit(images[:2]).transform(images[:2])
    (file,) = kept.rglob("network.xml")
    with monkeypatch.context() as patch:
        patch.setattr(torch.jit, "trace", None)  # nothing is converted
        np.testing.assert_array_equal(
            clone(encoder).fit(images[:2]).transform(images[:2]), expected
        )
    for each in file.parent.iterdir():
        each.chmod(0o600)
        each.write_bytes(each.read_bytes()[:999])
    np.testing.assert_array_equal(clone(encoder).fit(images[:2]).transform(images[:2]), expected)
    assert file.stat().st_size > 999
    assert list(file.parent.parent.iterdir()) == [file.parent]  # nothing half written is left


def test_eight_networks_of_torchvision_are_kept_those_used_last(images, kept):
    own_size("tiny", taps=None).fit(images[:1])
    assert not list(kept.rglob("network.xml")), "a user's may do something else next time"
    for seed in range(9):
        own_size("mobilenet_v2", taps=[f"features.{seed + 1}"]).fit(images[:1])
    assert len(list(kept.rglob("network.xml"))) == 8


def test_what_is_kept_may_be_deleted_at_any_moment(images, kept):
    encoder = own_size("mobilenet_v2", taps=["features.1"]).fit(images[:2])
    again = clone(encoder).fit(images[:2])
    expected = again.transform(images[:1])
    shutil.rmtree(kept / "hub")
    with threads(3):
        found = again.transform(images)
    np.testing.assert_allclose(found[:1], expected, atol=1e-6)


def test_networks_are_converted_each_time_where_nothing_can_be_written(images, kept):
    (kept / "hub").write_text("a file, not a folder")
    vectors = own_size("mobilenet_v2", taps=["features.1"]).fit(images[:2]).transform(images[:2])
    assert np.isfinite(vectors).all()
