"""Networks of timm: maps, taps, any size of image, weights, tiles, clear errors."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from sklearn.base import clone

import hypervlad
from hypervlad import (
    AlignmentClassifier,
    HypercolumnVLAD,
    ModelFileError,
    PatchDefectScorer,
    make_tem_images,
)
from hypervlad.features import WeightsNotFoundError, find_weights, get_backbone, tap_names
from hypervlad.features.backbones import Reach, build_network, reach_of
from hypervlad.features.backbones.weights import check_may_be_included, licence_of
from hypervlad.features.windows.vectors import TiledNetwork, Tiling
from hypervlad.models import TransferClassifier
from hypervlad.models.presets import anyloc
from hypervlad.results import model_facts

# Of each kind that `test_timm_end_to_end.py` has not among its small networks.
NAMES = [
    *("convnext_tiny", "swin_tiny_patch4_window7_224", "maxvit_tiny_tf_224"),
    *("vit_small_patch14_reg4_dinov2.lvd142m", "vit_small_patch16_dinov3.lvd1689m"),
]


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_the_intermediates_of_timm(name: str) -> None:
    network = build_network(f"timm/{name}", "random")
    plain = timm.create_model(name, num_classes=0).eval()
    plain.load_state_dict(network.module.network.state_dict(), strict=False)
    size = plain.pretrained_cfg["input_size"][1]
    images = torch.randn(2, 3, size, size)
    numbers = [list(network.module.taps).index(tap) for tap in network.taps]
    with torch.no_grad():
        expected = plain.forward_intermediates(images, indices=numbers, intermediates_only=True)
    for found, one in zip(network(images), expected, strict=True):
        torch.testing.assert_close(found, one, atol=1e-5 * float(one.abs().max()), rtol=0)
    # And images of any size are taken.
    strides = [network.module.taps[tap] for tap in network.taps]
    for layer, stride in zip(network(torch.randn(1, 3, 90, 133)), strides, strict=True):
        for n_cells, n_pixels in zip(layer.shape[2:], (90, 133), strict=True):
            assert n_pixels // stride <= n_cells <= -(-n_pixels // stride)


@pytest.mark.parametrize(
    ("name", "taps"),
    [
        ("resnet50", ("act1", "layer1", "layer2", "layer3", "layer4")),
        ("convnext_tiny", tuple(f"stages.{n}" for n in range(4))),
        ("vit_small_patch14_dinov2", ("blocks.2", "blocks.5", "blocks.8", "blocks.11")),
    ],
)
def test_default_taps_are_one_per_resolution_or_four_over_the_depth(
    name: str, taps: tuple[str, ...]
) -> None:
    backbone = get_backbone(f"timm/{name}")
    assert backbone.taps == taps
    assert set(taps) <= set(tap_names(backbone.name))


def test_taps_may_be_numbers() -> None:
    network = build_network("timm/test_vit", "random", [1, -1, "blocks.3"])
    assert network.taps == ("blocks.1", "blocks.5", "blocks.3")
    with pytest.raises(ValueError, match=r"has no layer 6\. Its layers: blocks\.0, .*, blocks\.5"):
        build_network("timm/test_vit", "random", [6])
    with pytest.raises(ValueError, match="has no layer 1"):
        build_network("mobilenet_v2", "random", [1])


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch16_dinov3"])
def test_values_of_attention_and_cells_of_unit_length(name: str) -> None:
    taps = [f"blocks.1{facet}" for facet in ("", ".unit", ".value", ".value.unit")]
    network = build_network(f"timm/{name}", "random", taps)
    seen: list[torch.Tensor] = []
    inner = network.module.network
    inner.blocks[1].attn.register_forward_hook(lambda _m, inputs, _y: seen.append(inputs[0]))
    plain, unit, values, unit_values = network(torch.randn(2, 3, 64, 80))
    with torch.no_grad():
        expected = inner.blocks[1].attn.qkv(seen[0])[:, inner.num_prefix_tokens :]
    expected = expected[:, :, -plain.shape[1] :].transpose(1, 2).reshape(values.shape)
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(unit, plain / plain.norm(dim=1, keepdim=True))
    torch.testing.assert_close(unit_values, values / values.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("codebooks", [["joint"], ["joint", "per_layer"]])
def test_class_tokens_are_pooled_and_have_no_codewords(codebooks: Any, tmp_path: Path) -> None:
    images, _ = make_tem_images(6, size=48, random_state=0)
    given = {"weights": "random", "image_size": 48, "n_codewords": 3}
    blocks = [*codebooks, "pooled"]
    encoder = HypercolumnVLAD("timm/test_vit", blocks=blocks, random_state=0, **given).fit(images)
    assert encoder.taps_ == (*get_backbone("timm/test_vit").taps, "blocks.5.class")
    network = build_network("timm/test_vit", "random").module.network
    batch = torch.cat([encoder.loader().load_batch(image).tensors for image in images])
    with torch.no_grad():
        pairs = network.forward_intermediates(
            batch, return_prefix_tokens=True, intermediates_only=True
        )
    tokens = pairs[-1][1][:, 0].double().numpy()
    (layer,) = encoder.codebook_.only_pooled
    np.testing.assert_allclose(layer.mean, tokens.mean(0), atol=1e-5)
    vectors = encoder.transform(images)
    expected = (tokens - tokens.mean(0)) / tokens.std(0) / np.sqrt(5 * 64)
    np.testing.assert_allclose(vectors[:, -64:], expected, atol=1e-4)
    plain = clone(encoder).set_params(blocks=codebooks).fit(images)
    np.testing.assert_array_equal(plain.transform(images), vectors[:, : -5 * 64])
    weights = np.random.default_rng(0).normal(size=(vectors.shape[1], 2))
    evidence = encoder.explain_vector(images[0], weights)
    total = sum(block.sum(axis=(1, 2)) for block in evidence.blocks.values())
    np.testing.assert_allclose(total, vectors[0] @ weights, atol=1e-4)
    encoder.save(tmp_path / "e.hvlad")
    np.testing.assert_array_equal(hypervlad.load(tmp_path / "e.hvlad").transform(images), vectors)


def test_class_tokens_are_refused_where_they_mean_nothing() -> None:
    images = [np.zeros((32, 32), dtype=np.float32)]
    encoder = HypercolumnVLAD("timm/test_vit", weights="random", taps=["blocks.1.class"])
    with pytest.raises(ValueError, match=r"'blocks.1.class' can only be pooled: add 'pooled'"):
        encoder.fit(images)
    with pytest.raises(ValueError, match=r"'blocks.1.class' has no map: give at least one other"):
        encoder.set_params(blocks=("joint", "pooled")).fit(images)
    with pytest.raises(ValueError, match="is of a whole image, not of its windows"):
        PatchDefectScorer(encoder.set_params(image_size=None)).fit(images)
    assert get_backbone("timm/test_vit").class_tokens[-1] == "blocks.5.class"
    for name in ("vit_base_patch16_siglip_224", "test_resnet"):
        assert get_backbone(f"timm/{name}").class_tokens == ()


def test_only_plain_attention_has_values() -> None:
    for name in ("samvit_base_patch16", "swin_tiny_patch4_window7_224", "eva02_small_patch14_224"):
        assert not any("value" in tap for tap in tap_names(f"timm/{name}"))


def test_anyloc_is_vlad_of_unit_tokens() -> None:
    images, _ = make_tem_images(12, size=64, random_state=0)
    for facet in ("token", "value"):
        model = anyloc(
            "timm/test_vit", facet=facet, weights="random", image_size=160, random_state=0
        )
        encoder = model.encoder.set_params(n_codewords=4).fit(images)
        tap = "blocks.4" if facet == "token" else "blocks.4.value"
        network = build_network("timm/test_vit", "random", [tap])
        (tokens,) = network(encoder.loader().load_batch(images[0]).tensors)
        tokens = torch.nn.functional.normalize(tokens[0].flatten(1).T, dim=1).numpy()
        projection, codewords = encoder.codebook_.projections[0], encoder.codebook_.joint
        tokens = tokens - projection.mean
        nearest = ((tokens[:, None] - codewords) ** 2).sum(axis=2).argmin(axis=1)
        sums = np.stack([(tokens[nearest == k] - codewords[k]).sum(axis=0) for k in range(4)])
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        sums = np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)
        expected = sums.ravel() / np.linalg.norm(sums)
        np.testing.assert_allclose(encoder.transform(images[:1])[0], expected, atol=2e-4)
    with pytest.raises(ValueError, match="no blocks of tokens; choose a transformer"):
        anyloc("resnet18")
    with pytest.raises(ValueError, match="facet must be one of 'token', 'value': 'key'"):
        anyloc("timm/test_vit", facet="key")  # type: ignore[arg-type]


def test_images_are_prepared_as_for_the_published_weights() -> None:
    own = get_backbone("timm/vit_small_patch16_224.augreg_in21k_ft_in1k").preprocessing
    assert (own.mean, own.std, own.interpolation) == ((0.5,) * 3, (0.5,) * 3, "bicubic")
    assert own.minimum_size == 16
    assert get_backbone("timm/resnet50.tv_in1k").preprocessing.interpolation == "bilinear"
    assert get_backbone("timm/vgg16").preprocessing.minimum_size == 32


def test_one_state_dict_gives_the_vectors_of_torchvision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pth")
    images, _ = make_tem_images(4, size=(90, 130), random_state=0)
    own, other = (
        HypercolumnVLAD(
            name,
            weights=tmp_path / "w.pth",
            n_codewords=4,
            sampling=400,
            blocks=("joint", "pooled"),
            random_state=0,
        ).fit_transform(images)
        for name in ("resnet18", "timm/resnet18.tv_in1k")
    )
    np.testing.assert_allclose(own, other, atol=1e-4)


# --- tiles ---------------------------------------------------------------------------------------


def test_transformers_see_all_of_a_tile() -> None:
    assert reach_of(build_network("timm/test_vit", "random")) == Reach(stride=16, margin=None)
    windows = build_network("timm/swin_tiny_patch4_window7_224", "random", ["layers.0"])
    assert reach_of(windows) == Reach(stride=4, margin=None)  # the windows are fixed in the image
    dinov2 = build_network("timm/vit_small_patch14_dinov2", "random", ["blocks.0", "blocks.1"])
    assert reach_of(dinov2) == Reach(stride=14, margin=None)


def test_seams_between_tiles_are_bounded() -> None:
    """Along an overlap of n cells, two tiles that differ by d change by d / (n + 1) at most."""
    network = build_network("timm/test_vit", "random")
    side, stride = 128, 16
    image = torch.randn(3, 96, 192, generator=torch.Generator().manual_seed(0))
    tiled = TiledNetwork(network, Tiling(side), border=0).padded_maps(image, "image").maps
    n_cells, n_overlap = 192 // stride, 2
    firsts = [0, 4]  # of two tiles of 8 cells, which overlap in 4 and may overlap in 2
    tiles = [network(image[None, :, :, f * stride : (f + 8) * stride]) for f in firsts]
    for layer, one, other in zip(tiled, *tiles, strict=True):
        one, other = (each[0].permute(1, 2, 0) for each in (one, other))
        torch.testing.assert_close(layer[:, :4], one[:, :4])
        torch.testing.assert_close(layer[:, 8:], other[:, 4:])
        both = torch.stack([one[:, 4:], other[:, :4]])
        own = both.diff(dim=2).abs().amax(dim=0)
        bound = own + (both[0] - both[1]).abs().amax(dim=1, keepdim=True) / (n_overlap + 1)
        assert (layer[:, 4:8].diff(dim=1).abs() <= bound + 1e-5).all()
        assert layer.shape[1] == n_cells
        outside = both.amin(dim=0) - 1e-5, both.amax(dim=0) + 1e-5
        assert ((layer[:, 4:8] >= outside[0]) & (layer[:, 4:8] <= outside[1])).all()


# --- weights -------------------------------------------------------------------------------------


def test_files_and_folders_of_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = timm.create_model("test_vit").state_dict()  # with its head
    torch.save(state, tmp_path / "weights.pth")
    save_file(state, tmp_path / "model.safetensors")
    networks = [
        build_network("timm/test_vit", path) for path in (tmp_path / "weights.pth", tmp_path)
    ]
    assert networks[0].digest == networks[1].digest
    assert networks[0].digest != build_network("timm/test_vit", "random").digest
    with pytest.raises(WeightsNotFoundError, match=r"not weights of 'timm/test_resnet'.*missing"):
        build_network("timm/test_resnet", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsNotFoundError, match=r"empty: no weights in this folder"):
        build_network("timm/test_vit", tmp_path / "empty")


def test_position_embeddings_of_another_grid_are_interpolated(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit", img_size=96).state_dict(), tmp_path / "w.pth")
    network = build_network("timm/test_vit", tmp_path / "w.pth").module.network
    assert network.pos_embed.shape[1] == network.num_prefix_tokens + (160 // 16) ** 2


def test_names_of_efficientnet_pytorch_are_translated(tmp_path: Path) -> None:
    state = timm.create_model("tf_efficientnet_b0").state_dict()
    path = tmp_path / "efficientnet-b0_pretrained_microscopynet_v1.0.pth.tar"
    torch.save({"state_dict": _efficientnet_pytorch_keys(state)}, path)
    found = build_network("timm/tf_efficientnet_b0", path).module.network.state_dict()
    for key, value in found.items():
        assert key.endswith("num_batches_tracked") or torch.equal(value, state[key])


def _efficientnet_pytorch_keys(state: dict[str, Any]) -> dict[str, Any]:
    """Name tensors as EfficientNet-PyTorch does, and as MicroNet's files do before that."""
    blocks = list(dict.fromkeys(k.split(".conv")[0] for k in state if ".conv" in k))
    blocks = [each.removesuffix(".se") for each in blocks]
    blocks = list(dict.fromkeys(blocks))
    inner = [("conv_pw", "_expand_conv"), ("bn1", "_bn0"), ("conv_dw", "_depthwise_conv")]
    inner += [("bn2", "_bn1"), ("conv_pwl", "_project_conv"), ("bn3", "_bn2")]
    inner += [("se.conv_reduce", "_se_reduce"), ("se.conv_expand", "_se_expand")]
    first = [("conv_dw", "_depthwise_conv"), ("bn1", "_bn1"), ("conv_pw", "_project_conv")]
    first += [("bn2", "_bn2"), *inner[-2:]]
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    outer["classifier"] = "_fc"
    found = {}
    for key, value in state.items():
        layer, _, tensor = key.rpartition(".")
        if layer.startswith("blocks."):
            block, name = ".".join(layer.split(".")[:3]), ".".join(layer.split(".")[3:])
            names = dict(inner if f"{block}.conv_pwl.weight" in state else first)
            layer = f"_blocks.{blocks.index(block)}.{names[name]}"
        else:
            layer = outer[layer]
        found[f"module.encoder.{layer}.{tensor}"] = value
    return found


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


def test_published_weights_are_found_in_the_cache(hub: Path) -> None:
    commit = "0" * 40
    repository = hub / "models--timm--test_vit.r160_in1k"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit, encoding="utf-8")
    save_file(timm.create_model("test_vit").state_dict(), snapshot / "model.safetensors")
    expected = snapshot / "model.safetensors"
    for weights in ("pretrained", "imagenet"):
        assert find_weights("timm/test_vit.r160_in1k", weights) == expected
    images = [np.random.default_rng(n).random((160, 160)) for n in range(2)]
    encoder = HypercolumnVLAD("timm/test_vit", n_codewords=2).fit(images)
    assert "pretrained (r160_in1k, SHA" in model_facts(encoder)["network's weights"]
    direct = build_network("timm/test_vit.r160_in1k", expected)
    assert build_network("timm/test_vit.r160_in1k").digest == direct.digest


def test_without_the_internet_the_error_names_the_file_to_bring(
    hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = r"https://\S+/timm/test_vit\.r160_in1k/resolve/main/model\.safetensors"
    with pytest.raises(
        WeightsNotFoundError,
        match=rf"not on this machine.*Download {address}.*weights=\"path/to/model\.safetensors\", "
        r"or copy the folder models--timm--test_vit\.r160_in1k of the cache",
    ):
        find_weights("timm/test_vit")
    assert "looking for timm/test_vit weights at huggingface.co" in capsys.readouterr().err
    with pytest.raises(WeightsNotFoundError, match="downloads not allowed"):
        find_weights("timm/test_vit", download=False)


def test_downloads_are_announced(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = SimpleNamespace(size=12_345_678)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, timeout: metadata)
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *given, revision: tmp_path / given[1]
    )
    assert find_weights("timm/test_vit") == tmp_path / "model.safetensors"
    message = r"downloading timm/test_vit weights, 12 MB, from huggingface.co"
    assert message in capsys.readouterr().err


def test_networks_without_published_weights() -> None:
    with pytest.raises(
        WeightsNotFoundError, match="publishes no weights of timm/cspresnet50d; give"
    ):
        find_weights("timm/cspresnet50d")


def test_licences_are_known_and_kept(tmp_path: Path) -> None:
    for name, licence in (("timm/vit_small_patch16_dinov3", "dinov3"), ("vgg16", "bsd")):
        assert licence_of(name, "pretrained").startswith(licence)
        assert licence in licence_of(name, tmp_path / "weights.pth")
    assert licence_of("resnet50", "micronet") == "mit"
    check_may_be_included("timm/vit_small_patch16_dinov3", "random")
    check_may_be_included("timm/vit_small_patch14_dinov2", "pretrained")
    path = tmp_path / "weights.safetensors"
    name = "timm/vit_small_patch16_dinov3"
    save_file(timm.create_model("vit_small_patch16_dinov3").state_dict(), path)
    encoder = HypercolumnVLAD(name, weights=path, image_size=32, n_codewords=2, random_state=0)
    encoder.fit([np.random.default_rng(n).random((32, 32)) for n in range(4)])
    with pytest.raises(ValueError, match=r"dinov3.*without include_backbone"):
        encoder.save(tmp_path / "m.hvlad", include_backbone=True)
    encoder.save(tmp_path / "m.hvlad")
    assert "if the file is the published one" in model_facts(encoder)["licence of the weights"]


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("vit_smal_patch14_dinov2", "near are timm/vit_small_patch14_dinov2, "),
        ("test_vit.of_nobody", r"near are timm/test_vit\.r160_in1k "),
        ("", "lacks the name of a network, such as timm/resnet50"),
        ("hf-hub:someone/something", "has no network"),
    ],
)
def test_unknown_names_list_near_ones(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=near):
        get_backbone(f"timm/{name}")


@pytest.mark.parametrize("prefix", ["", "TIMM/", "timm:", "hf-hub:timm/"])
def test_other_forms_of_a_name_lead_to_the_right_one(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"Did you mean 'timm/test_vit\.r160_in1k'\?"):
        get_backbone(f"{prefix}test_vit.r160_in1k")


def test_without_timm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'needs timm: pip install "hypervlad\[timm\]"'):
        HypercolumnVLAD("timm/resnet50.a1_in1k", weights="random").fit([np.zeros((64, 64))])


def test_other_failures_are_not_taken_for_a_wrong_size(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_network("timm/test_vit", "random")
    with pytest.raises(RuntimeError, match="4 channels"):
        network(torch.zeros(1, 4, 160, 160))

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(network.module.network, "forward_intermediates", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        network(torch.zeros(1, 3, 160, 160))


def test_heads_of_any_name_are_left_out(tmp_path: Path) -> None:
    torch.save(timm.create_model("levit_128s").state_dict(), tmp_path / "w.pth")
    assert build_network("timm/levit_128s", tmp_path / "w.pth").taps


def test_maps_of_one_name_are_told_apart() -> None:
    network = build_network("timm/coat_tiny", "random")
    assert len(network.module.taps) == len(network.module.network.feature_info)
    assert any("@1" in tap for tap in network.module.taps)


def test_a_network_for_images_of_one_size_says_so() -> None:
    network = build_network("timm/mixer_b16_224", "random")
    assert network(torch.zeros(1, 3, 224, 224))[0].shape == (1, 768, 14, 14)
    assert network(torch.zeros(1, 3, 100, 224))[0].shape == (1, 768, 7, 14)
    with pytest.raises(ValueError, match=r"at most 224 x 224 pixels, not of 256 x 256"):
        network(torch.zeros(1, 3, 256, 256))


def test_a_network_for_images_of_one_size_is_refused_for_others() -> None:
    images = [np.zeros((300, 90), dtype=np.float32)]
    encoder = HypercolumnVLAD("timm/mixer_s32_224", weights="random", n_codewords=2)
    assert encoder.fit(images).n_images_ == 1
    for size in (None, 256):
        with pytest.raises(ValueError, match=r"image_size must be .*224"):
            clone(encoder).set_params(image_size=size).fit(images)
    with pytest.raises(ValueError, match="at most 224 x 224 pixels: leave out"):
        clone(encoder).set_params(pixel_size=1.0).fit(images)
    windows = clone(encoder).set_params(image_size=None)
    for model in (PatchDefectScorer(windows), AlignmentClassifier(windows)):
        with pytest.raises(ValueError, match=r"at most 224 x 224 pixels, but .* another network"):
            model.fit(images, ["a"])
    transfer = TransferClassifier("timm/mixer_s32_224", "random", image_size=256)
    with pytest.raises(ValueError, match=r"image_size must be .*224"):
        transfer.fit(images * 2, ["a", "b"])


def test_networks_with_five_dimensional_weights_run() -> None:
    network = build_network("timm/lambda_resnet26t", "random")
    assert network(torch.zeros(1, 3, 64, 64))[-1].shape == (1, 2048, 2, 2)


def test_a_network_without_maps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("timm.models.resnet.ResNet.forward_intermediates")
    get_backbone.__globals__["_timm_backbone"].cache_clear()
    with pytest.raises(ValueError, match="'test_resnet' has no feature maps in timm"):
        get_backbone("timm/test_resnet")


def test_a_model_file_names_a_network_that_timm_knows() -> None:
    images, _ = make_tem_images(4, size=64, random_state=0)
    encoder = HypercolumnVLAD("timm/test_vit", weights="random", image_size=64, n_codewords=2)
    header, arrays = encoder.fit(images).to_state()
    text = json.dumps(header).replace("timm/test_vit", "timm/local-dir:/tmp")
    with pytest.raises(ModelFileError, match=r"network is not known here: timm .* has no network"):
        HypercolumnVLAD.from_state(json.loads(text), arrays)
