"""Networks of timm: vectors by a slow oracle on timm's own maps, taps, weights, clear errors.

All weights are random: what is tested is that nothing depends on the kind of network.
"""

import sys

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.base import clone
from support.model_files import forged
from support.networks import KINDS, SMALL, check_network, save_whole, timms_own, torchvisions_own

import hypervlad
from hypervlad import (
    AlignmentClassifier,
    HypercolumnVLAD,
    MicrographClassifier,
    ModelFileError,
    PatchDefectScorer,
    make_tem_images,
)
from hypervlad.features import WeightsNotFoundError, find_weights, get_backbone
from hypervlad.models import TransferClassifier
from hypervlad.results import model_facts

# Each large network takes seconds. What does not depend on the network's kind is tested on one.
NAMES = [*SMALL, *(pytest.param(name, marks=pytest.mark.full) for name in KINDS)]
IN_ALL = ["test_vit", *(pytest.param(n, marks=pytest.mark.full) for n in [*SMALL, *KINDS][1:])]


@pytest.fixture(scope="module")
def images():
    return make_tem_images(16, size=64, random_state=0)[0]


@pytest.fixture(scope="module")
def vit():
    return timms_own("test_vit")


@pytest.fixture(scope="module")
def vit_weights(vit, tmp_path_factory):
    return save_whole(vit, tmp_path_factory.mktemp("vit") / "w.pth")


@pytest.fixture
def encoder(vit_weights):
    return HypercolumnVLAD(
        "timm/test_vit", weights=vit_weights, image_size=64, n_codewords=4, random_state=0
    )


# --- vectors and answers --------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_those_of_timms_maps(name):
    """Of images whose sides suit no patch and no window."""
    images, _ = make_tem_images(4, size=(90, 133), random_state=0)
    check_network(images, f"timm/{name}", n_codewords=16)


@pytest.mark.parametrize("codebooks", [["joint"], ["joint", "per_layer"]])
def test_class_tokens_are_pooled_and_have_no_codewords(codebooks, vit, encoder, images, tmp_path):
    encoder.set_params(blocks=[*codebooks, "pooled"]).fit(images[:6])
    assert encoder.taps_ == (*get_backbone("timm/test_vit").taps, "blocks.5.class")
    batch = [encoder.preprocessing_.prepare(image, (64, 64))[None] for image in images[:6]]
    with torch.no_grad():
        ((_, prefix),) = vit.forward_intermediates(
            torch.cat(batch), indices=[5], intermediates_only=True, return_prefix_tokens=True
        )
    tokens = prefix[:, 0].double().numpy()
    vectors = encoder.transform(images[:6])
    expected = (tokens - tokens.mean(0)) / tokens.std(0) / np.sqrt(5 * 64)
    np.testing.assert_allclose(vectors[:, -64:], expected, atol=1e-4)
    plain = clone(encoder).set_params(blocks=codebooks).fit(images[:6])
    np.testing.assert_array_equal(plain.transform(images[:6]), vectors[:, : -5 * 64])
    weights = np.random.default_rng(0).normal(size=(vectors.shape[1], 2))
    evidence = encoder.explain_vector(images[0], weights)
    total = sum(block.sum(axis=(1, 2)) for block in evidence.blocks.values())
    np.testing.assert_allclose(total, vectors[0] @ weights, atol=1e-4)
    encoder.save(tmp_path / "e.hvlad", include_backbone=True)
    loaded = hypervlad.load(tmp_path / "e.hvlad")
    np.testing.assert_array_equal(loaded.transform(images[:6]), vectors)


def test_one_state_dict_gives_the_vectors_of_torchvision(tmp_path, images):
    weights = save_whole(torchvisions_own("resnet18"), tmp_path / "w.pth")
    own, other = (
        HypercolumnVLAD(
            name, weights=weights, image_size=64, n_codewords=4, sampling=400, random_state=0
        ).fit_transform(images[:4])
        for name in ("resnet18", "timm/resnet18.tv_in1k")
    )
    np.testing.assert_allclose(own, other, atol=1e-4)


@pytest.mark.parametrize("name", IN_ALL)
def test_a_saved_classifier_gives_identical_answers(name, images, tmp_path):
    _, labels = make_tem_images(16, size=64, random_state=0)
    encoder = HypercolumnVLAD(f"timm/{name}", weights="random", image_size=64, n_codewords=4)
    encoder.set_params(blocks=("joint", "pooled"), random_state=0)
    classifier = MicrographClassifier(encoder, calibrate=False, random_state=0)
    classifier.fit(images, labels)
    assert np.ptp(classifier.encoder_.transform(images[:3]), axis=0).max() > 0.01
    assert np.isfinite(classifier.explain(images[0]).maps).all()
    classifier.save(tmp_path / "m.hvlad", include_backbone=True)
    loaded = hypervlad.load(tmp_path / "m.hvlad")
    np.testing.assert_array_equal(loaded.predict_proba(images), classifier.predict_proba(images))


# --- taps, sizes, preparation ---------------------------------------------------------------------


def test_images_are_prepared_as_for_the_published_weights():
    own = get_backbone("timm/vit_small_patch16_224.augreg_in21k_ft_in1k").preprocessing
    assert (own.mean, own.std, own.interpolation) == ((0.5,) * 3, (0.5,) * 3, "bicubic")
    assert own.minimum_size == 16
    assert get_backbone("timm/resnet50.tv_in1k").preprocessing.interpolation == "bilinear"
    assert get_backbone("timm/vgg16").preprocessing.minimum_size == 32
    assert get_backbone("timm/test_vit").class_tokens[-1] == "blocks.5.class"
    for name in ("vit_base_patch16_siglip_224", "test_resnet"):
        assert get_backbone(f"timm/{name}").class_tokens == ()


def test_other_failures_are_not_taken_for_a_wrong_size(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(timm.models.VisionTransformer, "forward_intermediates", fail)
    encoder = HypercolumnVLAD("timm/test_vit", weights="random", n_codewords=2, image_size=160)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        encoder.fit([np.zeros((160, 160), dtype=np.float32)])


def test_a_network_for_images_of_one_size_is_refused_for_others():
    images = [np.zeros((300, 90), dtype=np.float32)]
    encoder = HypercolumnVLAD("timm/mixer_s32_224", weights="random", n_codewords=2)
    assert encoder.fit(images).n_images_ == 1
    assert encoder.set_params(image_size=100).fit(images).codeword_maps(images[0]).shape == (
        1,
        4,
        4,
    )
    of_windows = clone(encoder).set_params(image_size=None)
    for model, given in (
        (clone(of_windows), {}),
        (clone(encoder), {"image_size": 256}),
        (clone(encoder), {"pixel_size": 1.0}),
        (PatchDefectScorer(of_windows), {}),
        (AlignmentClassifier(of_windows), {}),
        (TransferClassifier("timm/mixer_s32_224", "random"), {"image_size": 256}),
    ):
        with pytest.raises(ValueError):
            model.set_params(**given).fit(images * 2, ["a", "b"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"taps": [6]}, r"has no layer 6\. Its layers: blocks\.0, .*, blocks\.5"),
        ({"backbone": "mobilenet_v2", "taps": ["feature.3"]}, r"Did you mean 'features\.3'"),
        ({"taps": ["blocks.1.class"]}, "'blocks.1.class' can only be pooled: add 'pooled'"),
        (
            {"taps": ["blocks.1.class"], "blocks": ("joint", "pooled")},
            "'blocks.1.class' has no map: give at least one other",
        ),
        ({"backbone": "timm/vit_smal_patch14_dinov2"}, "near are timm/vit_small_patch14_dinov2, "),
        ({"backbone": "timm/hf-hub:someone/something"}, "has no network"),
        ({"backbone": "test_vit.r160_in1k"}, r"Did you mean 'timm/test_vit\.r160_in1k'\?"),
        ({"backbone": "hf-hub:timm/test_vit"}, r"Did you mean 'timm/test_vit'\?"),
        ({"backbone": "vgg15"}, "unknown backbone 'vgg15'. Did you mean 'vgg1"),
    ],
)
def test_networks_and_taps_that_there_are_not(parameters, message, encoder, images):
    with pytest.raises(ValueError, match=message):
        encoder.set_params(weights="random", **parameters).fit(images[:2])


def test_without_timm_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r'needs timm: pip install "hypervlad\[timm\]"'):
        get_backbone("timm/resnet50.a1_in1k")


def test_a_model_file_names_a_network_that_timm_knows(encoder, images, tmp_path):
    def change(header, _):
        header["parameters"]["backbone"] = "timm/local-dir:/tmp"

    path = forged(encoder.fit(images[:2]), tmp_path / "m.hvlad", change)
    with pytest.raises(ModelFileError):
        hypervlad.load(path)


# --- weights --------------------------------------------------------------------------------------


def digest(name, weights, **parameters):
    """Return the digest of a network's weights, from a fit to two images."""
    images = list(np.random.default_rng(0).random((2, 32, 32)))
    encoder = HypercolumnVLAD(f"timm/{name}", weights=weights, image_size=32, n_codewords=2)
    return str(encoder.set_params(**parameters).fit(images).weights_digest_)


def test_files_and_folders_of_weights(vit, vit_weights, tmp_path):
    save_file(vit.state_dict(), tmp_path / "model.safetensors")
    assert digest("test_vit", tmp_path) == digest("test_vit", vit_weights)
    assert digest("test_vit", tmp_path) != digest("test_vit", "random")
    with pytest.raises(WeightsNotFoundError):
        digest("test_resnet", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsNotFoundError, match=r"no weights in this folder; .* model\.safete"):
        digest("test_vit", tmp_path / "empty")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


def test_published_weights_are_found_in_the_cache(hub, vit, images):
    commit = "0" * 40
    repository = hub / "models--timm--test_vit.r160_in1k"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit, encoding="utf-8")
    expected = snapshot / "model.safetensors"
    save_file(vit.state_dict(), expected)
    for weights in ("pretrained", "imagenet"):
        assert find_weights("timm/test_vit.r160_in1k", weights) == expected
    encoder = HypercolumnVLAD("timm/test_vit", n_codewords=2, image_size=64).fit(images[:2])
    assert "pretrained (r160_in1k, SHA" in model_facts(encoder)["network's weights"]
    assert encoder.weights_digest_ == digest("test_vit.r160_in1k", expected)


def test_without_the_internet_the_error_names_the_file_to_bring(hub, capsys):
    address = r"https://\S+/timm/test_vit\.r160_in1k/resolve/main/model\.safetensors"
    for download, reason in ((True, "not on this machine"), (False, "downloads not allowed")):
        with pytest.raises(
            WeightsNotFoundError,
            match=rf"{reason}.*Download {address}.*weights=\"path/to/model\.safetensors\", "
            r"or copy the folder models--timm--test_vit\.r160_in1k of the cache",
        ):
            find_weights("timm/test_vit", download=download)
    assert "looking for timm/test_vit weights at huggingface.co" in capsys.readouterr().err
    with pytest.raises(
        WeightsNotFoundError, match="publishes no weights of timm/cspresnet50d; giv"
    ):
        find_weights("timm/cspresnet50d")


@pytest.mark.full  # a large network
def test_weights_whose_licence_must_go_with_them_stay_outside(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model("vit_small_patch16_dinov3").state_dict(), path)
    encoder = HypercolumnVLAD("timm/vit_small_patch16_dinov3", weights=path, image_size=32)
    encoder.set_params(n_codewords=2, random_state=0)
    encoder.fit([np.random.default_rng(n).random((32, 32)) for n in range(4)])
    with pytest.raises(ValueError, match=r"dinov3.*without include_backbone"):
        encoder.save(tmp_path / "m.hvlad", include_backbone=True)
    encoder.save(tmp_path / "m.hvlad")
    assert "if the file is the published one" in model_facts(encoder)["licence of the weights"]
