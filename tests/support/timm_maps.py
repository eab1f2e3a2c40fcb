"""Maps of networks of timm as timm itself returns them, and how far ours are from them."""

from __future__ import annotations

import numpy as np
import timm
import torch

from hypervlad.features.backbones import build_network

#: timm's networks for tests (a transformer, one with squeeze-and-excitation, a residual network)
#: and large ones, with what the sides of their images must be multiples of, in pixels. Other images
#: are mirrored at the lower and right edge.
SMALL = {"test_vit": 16, "test_efficientnet": 1, "test_resnet": 1}
LARGE = {
    **dict.fromkeys(("resnet50", "convnext_tiny", "convnextv2_nano", "efficientnet_b0"), 1),
    **dict.fromkeys(("mobilenetv3_large_100", "regnety_008"), 1),
    "swin_tiny_patch4_window7_224": 32,
    "maxvit_tiny_tf_224": 224,
    "vit_small_patch16_224": 16,
    "vit_small_patch14_dinov2": 14,
    "vit_small_patch14_reg4_dinov2": 14,
    "vit_small_patch16_dinov3": 16,
}


def timms_own(name: str) -> torch.nn.Module:
    """Return a network for images of any size, with the weights that "random" stands for."""
    options: dict[str, bool] = {}
    if name.startswith(("vit", "test_vit")):
        options = {"dynamic_img_size": True}
    elif name.startswith("swin"):
        options = {"strict_img_size": False}
    network = timm.create_model(name, num_classes=0, **options).eval()
    ours = build_network(f"timm/{name}", "random").module.network
    network.load_state_dict(ours.state_dict())
    return network


def difference_from_timm(name: str, height: int, width: int) -> float:
    """Return the largest difference of our maps of noise from timm's, relative to their maximum.

    Of all blocks that have maps, not only of those that are tapped by default.
    """
    blocks = build_network(f"timm/{name}", "random").module.taps
    network = build_network(f"timm/{name}", "random", list(blocks))
    images = np.random.default_rng(0).standard_normal((1, 3, height, width), dtype=np.float32)
    multiple = {**SMALL, **LARGE}[name]
    missing = [(0, -n % multiple) for n in (height, width)]
    mirrored = np.pad(images, [(0, 0), (0, 0), *missing], mode="symmetric")
    with torch.no_grad():
        expected = timms_own(name).forward_intermediates(
            torch.from_numpy(mirrored), intermediates_only=True
        )
    differences = []
    for found, theirs in zip(network(torch.from_numpy(images)), expected, strict=True):
        rows, columns = (
            -(-n * cells // n_mirrored)
            for n, cells, n_mirrored in zip(
                (height, width), theirs.shape[2:], mirrored.shape[2:], strict=True
            )
        )
        theirs = theirs[:, :, :rows, :columns]
        assert found.shape == theirs.shape
        differences.append(float((found - theirs).abs().max() / theirs.abs().max()))
    return float(np.max(differences))
