"""Networks of torchvision and timm as these libraries build them, with random weights."""

import numpy as np
import timm
import torch
import torchvision

from hypervlad.features import get_backbone, tap_names

from .oracle import check_against_oracle, maps_of  # as benchmarks import it, too

#: timm's networks for tests (a transformer, one with squeeze-and-excitation, a residual network),
#: and large ones, of which tests take one of each kind, with what the sides of their images must be
#: multiples of, in pixels. Other images are mirrored at the lower and right edge.
SMALL = {"test_vit": 16, "test_efficientnet": 1, "test_resnet": 1}
KINDS = {
    "convnext_tiny": 1,
    "swin_tiny_patch4_window7_224": 32,
    "maxvit_tiny_tf_224": 224,
    "vit_small_patch14_reg4_dinov2": 14,
    "vit_small_patch16_dinov3": 16,
}
LARGE = {
    **dict.fromkeys(("resnet50", "convnextv2_nano", "efficientnet_b0"), 1),
    **dict.fromkeys(("mobilenetv3_large_100", "regnety_008"), 1),
    "vit_small_patch16_224": 16,
    "vit_small_patch14_dinov2": 14,
    **KINDS,
}
_HEADS = ("classifier", "fc")


def torchvisions_own(name):
    """Return a network without its head, whose normalisations do something, as after training."""
    options = {"aux_logits": False, "init_weights": False} if name == "inception_v3" else {}
    with torch.device("meta"):  # the dense layers of a VGG weigh half a gigabyte
        module = torchvision.models.get_model(name, weights=None, **options)
    for head in _HEADS:
        if hasattr(module, head):
            setattr(module, head, torch.nn.Identity())
    if name == "inception_v3":  # it would scale what `Preprocessing` has scaled
        module.transform_input = False
    generator = torch.Generator().manual_seed(0)
    module = module.to_empty(device="cpu").eval().requires_grad_(False)
    for key, tensor in module.state_dict().items():
        if tensor.ndim > 1:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif key.endswith(("weight", "running_var")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.1, generator=generator)
        else:
            tensor.zero_()
    return module


def timms_own(name, **options):
    """Return a network for images of any size."""
    if name.startswith(("vit", "test_vit")):
        options = {"dynamic_img_size": True} | options
    elif name.startswith("swin"):
        options = {"strict_img_size": False} | options
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)  # not what "random" is
        module = timm.create_model(name, num_classes=0, **options)
    return module.eval().requires_grad_(False)


def timm_maps(name, module):
    """Return what reads the maps that timm itself returns, of images mirrored to whole patches."""
    blocks = [tap for tap in tap_names(f"timm/{name}") if not tap.endswith(".class")]
    multiple = {**SMALL, **LARGE}[name]

    def read(batch, taps):
        size = batch.shape[2:]
        missing = [(0, -n % multiple) for n in size]
        mirrored = np.pad(batch.numpy(), [(0, 0), (0, 0), *missing], mode="symmetric")
        with torch.no_grad():
            found = module.forward_intermediates(
                torch.from_numpy(mirrored), intermediates_only=True
            )
        maps = []
        for tap in taps:
            own = found[blocks.index(tap)][0].permute(1, 2, 0).double().numpy()
            rows, columns = (
                -(-n * cells // n_mirrored)
                for n, cells, n_mirrored in zip(size, own.shape, mirrored.shape[2:], strict=False)
            )
            maps.append(own[:rows, :columns])
        return maps

    return read


def check_network(images, name, codebook="joint", **options):
    """Compare vectors with those of a slow oracle on the maps that torchvision or timm returns."""
    if name.startswith("timm/"):
        own = name.removeprefix("timm/")
        module = timms_own(own)
        maps = timm_maps(own, module)
    else:
        module = torchvisions_own(name)
        maps = maps_of(module)
    options = {"taps": get_backbone(name).taps} | options  # without the class token
    return check_against_oracle(images, name, codebook, module=module, maps=maps, **options)


def save_whole(module, path):
    """Save a network's weights, and some of a head's, as published files have them."""
    heads = {f"{name}.weight": torch.ones(2) for name in ("classifier.1", "fc", "head")}
    torch.save(module.state_dict() | heads, path)
    return path
