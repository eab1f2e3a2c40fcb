"""Networks as modules of torch: MobileNetV2, the default, and those of timm, with taps."""

from __future__ import annotations

import copy
import difflib
import inspect
import sys
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

# Of each stage: expansion, output channels, blocks, stride of the first block.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_N_FIRST, _N_LAST, _N_CLASSES = 32, 1280, 1000


class MobileNetV2(nn.Module):
    """The network of Sandler et al., CVPR 2018, with random weights and torchvision's names."""

    def __init__(self) -> None:
        super().__init__()
        n_channels = _N_FIRST
        layers: list[nn.Module] = [_convolution(3, n_channels, 3, stride=2)]
        for expansion, n_out, n_blocks, first_stride in _STAGES:
            for block in range(n_blocks):
                stride = first_stride if block == 0 else 1
                layers.append(_InvertedResidual(n_channels, n_out, stride, expansion))
                n_channels = n_out
        layers.append(_convolution(n_channels, _N_LAST, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(_N_LAST, _N_CLASSES))
        if not self.classifier[1].weight.is_meta:  # there, random numbers import torch's compiler
            self._draw_weights()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.features(images)
        scores: torch.Tensor = self.classifier(maps.mean(dim=(2, 3)))
        return scores

    def _draw_weights(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0, 0.01)
                nn.init.zeros_(layer.bias)


class _InvertedResidual(nn.Module):
    """Expand the channels, filter each, and project them; add the input if the shapes agree."""

    def __init__(self, n_in: int, n_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        n_hidden = n_in * expansion
        expand = [_convolution(n_in, n_hidden, 1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *expand,
            _convolution(n_hidden, n_hidden, 3, stride=stride, groups=n_hidden),
            nn.Conv2d(n_hidden, n_out, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        self._adds_input = stride == 1 and n_in == n_out

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = self.conv(maps)
        return maps + added if self._adds_input else added


def _convolution(
    n_in: int, n_out: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU6(inplace=True),
    )


_N_DEFAULT_TAPS = 4  # of a network whose maps all have one resolution
_CLASS_TOKEN = ".class"  # after a block's name
_MAX_NAMES = 5  # of networks that an error lists
#: Arguments with which networks take images of any size; a network knows at most one row.
_ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {"strict_img_size": False},
)


class TimmNetwork(nn.Module):
    """A network of timm whose feature maps pass through layers that do nothing, the taps.

    Hooks on these layers see the maps (B, C, h, w), without prefix tokens; a class token is a map
    of one cell. A forward pass ends at the last tap that has a hook. ``config`` is what timm knows
    of the weights, ``taps`` the stride of each block's maps in pixels.
    """

    network: Any

    def __init__(self, name: str) -> None:
        import timm  # it takes longer to import than torch

        super().__init__()
        self.network = _create(name)
        self.config: dict[str, Any] = self.network.pretrained_cfg
        self._size: tuple[int, int] = tuple(self.config["input_size"][1:])
        self._takes_any_size = not self.config.get("fixed_input_size", False)
        # By the size of images: a multiple of this suits the network.
        self._units: dict[tuple[int, int], tuple[int, int]] = {}
        infos = getattr(self.network, "feature_info", None)
        if not infos or not hasattr(self.network, "forward_intermediates"):
            raise ValueError(
                f"the network {name!r} has no feature maps in timm {timm.__version__} "
                "(forward_intermediates); choose another one"
            )
        options = inspect.signature(cast(Any, self.network).forward_intermediates).parameters
        self._has_class_token = (
            getattr(self.network, "cls_token", None) is not None
            and "return_prefix_tokens" in options
        )
        self.taps: dict[str, int] = {}
        for info in getattr(infos, "info", infos):
            block = str(info["module"] or "block")
            # Some networks have several maps of one name.
            same = sum(tap.partition("@")[0] == block for tap in self.taps)
            self.taps[f"{block}@{same}" if same else block] = int(info["reduction"])
        suffixes = ("", _CLASS_TOKEN) if self._has_class_token else ("",)
        self._names = [[tap + suffix for suffix in suffixes] for tap in self.taps]
        self._identities = [[self._add_tap(name) for name in names] for names in self._names]

    def tap_names(self) -> list[str]:
        return [name for names in self._names for name in names]

    def class_tokens(self) -> list[str]:
        return [name for names in self._names for name in names[1:]]

    def forward(self, images: torch.Tensor) -> None:
        """Run the network on images (B, C, H, W), and each map through its tap.

        Where sides must be multiples of a patch or window, images are mirrored at the lower and
        right edge, and cells that see nothing else are cut off.
        """
        hooked = [any(tap._forward_hooks for tap in taps) for taps in self._identities]
        wanted = [number for number, is_wanted in enumerate(hooked) if is_wanted]
        for number, found in zip(wanted, self._maps(images, wanted), strict=True):
            for tap, seen in zip(self._identities[number], found, strict=False):
                if tap._forward_hooks:
                    tap(seen)

    def resampled_for(self, height: int, width: int) -> TimmNetwork:
        """Return a copy with the position embeddings for images of one size.

        timm resamples them in each pass; other runtimes do that differently.
        """
        own = copy.deepcopy(self)
        has_embeddings = getattr(own.network, "pos_embed", None) is not None
        if has_embeddings and hasattr(own.network, "set_input_size"):
            unit = max(self.taps.values())
            sides = [-(-n // unit) * unit for n in (height, width)]
            own.network.set_input_size(img_size=tuple(sides))
        return own

    def default_taps(self) -> list[str]:
        """Return the last tap of each resolution, or four over the depth if there is only one."""
        taps = list({stride: tap for tap, stride in self.taps.items()}.values())
        if len(taps) > 1:
            return taps
        every = list(self.taps)
        n_taps = min(_N_DEFAULT_TAPS, len(every))
        return [every[(n + 1) * len(every) // n_taps - 1] for n in range(n_taps)]

    @torch.no_grad()
    def smallest_side(self) -> int:
        """Return the side of the smallest square with a cell in each map, in pixels."""
        n_channels = self.config["input_size"][0]
        side = max(self.taps.values())
        while side < min(self._size):
            try:
                self.eval()._maps(torch.zeros(1, n_channels, side, side), [len(self.taps) - 1])
            except (RuntimeError, ValueError):
                side *= 2
            else:
                return side
        return min(self._size)

    @torch.no_grad()
    def largest_side(self) -> int | None:
        n_channels, side = self.config["input_size"][0], 2 * max(self._size)
        try:
            self.eval()._maps(torch.zeros(1, n_channels, side, side), [len(self.taps) - 1])
        except ValueError:
            return min(self._size)
        return None

    def _maps(self, images: torch.Tensor, wanted: list[int]) -> list[list[torch.Tensor]]:
        """Return blocks' maps where they see the image, and class tokens where there are any."""
        prefix = {"return_prefix_tokens": True} if self._has_class_token else {}
        height, width = (int(n) for n in images.shape[2:])
        as_it_is = self._takes_any_size or (height, width) == self._size
        units = [(1, 1)] if as_it_is else []
        units += [(max(self.taps.values()),) * 2, self._size]
        if (height, width) in self._units:  # torch crashes if it fails while it is recorded
            units = [self._units[height, width]]
        errors: list[Exception] = []
        for unit in units:
            sides = [-(-n // m) * m for n, m in zip((height, width), unit, strict=True)]
            try:
                found: list[Any] = self.network.forward_intermediates(
                    _mirrored(images, *sides),
                    indices=wanted,
                    stop_early=True,
                    intermediates_only=True,
                    **prefix,
                )
            except (AssertionError, IndexError, RuntimeError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                errors.append(error)
                continue
            self._units[height, width] = unit
            seen = []
            for each in found:
                maps, *tokens = each if self._has_class_token else (each,)
                rows = -(-height * maps.shape[2] // sides[0])
                columns = -(-width * maps.shape[3] // sides[1])
                classes = [prefix[:, 0, :, None, None] for prefix in tokens]
                seen.append([maps[:, :, :rows, :columns], *classes])
            return seen
        if height <= self._size[0] and width <= self._size[1]:
            raise errors[0]  # not because of the size
        raise ValueError(
            f"this network takes images of at most {self._size[0]} x {self._size[1]} pixels, not "
            f"of {height} x {width}"
        ) from errors[0]

    def _add_tap(self, name: str) -> nn.Module:
        *path, last = name.split(".")
        parent: nn.Module = self
        for part in path:
            if part not in dict(parent.named_children()):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(last, nn.Identity())
        return parent.get_submodule(last)


def _create(name: str) -> nn.Module:
    import timm

    for arguments in _ANY_SIZE:
        try:
            return timm.create_model(name, num_classes=0, **arguments)
        except TypeError:  # an argument that this network does not know
            continue
    return timm.create_model(name, num_classes=0)


def _mirrored(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    for axis, n in ((2, height), (3, width)):
        if n > (n_own := images.shape[axis]):
            rows = torch.arange(n, device=images.device) % (2 * n_own)
            rows = torch.minimum(rows, 2 * n_own - 1 - rows)
            images = images.index_select(axis, rows)
    return images


def check_name(name: str) -> None:
    import timm

    known = [*timm.list_models(), *timm.list_models(include_tags=True)]
    if name in known:
        return
    close = difflib.get_close_matches(name, known, n=_MAX_NAMES)
    architecture, _, tag = name.partition(".")
    if tag and architecture in known:
        close = timm.list_models(f"{architecture}.*", include_tags=True)
    hint = f"; near are {', '.join(f'timm/{each}' for each in close)}" if close else ""
    raise ValueError(
        f"timm {timm.__version__} has no network {name!r}{hint} (timm.list_models() lists all)"
    )


def translated(network: TimmNetwork, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Translate a state dict that its authors published to the names and shapes of timm."""
    module = sys.modules[type(network.network).__module__]
    convert: Any = getattr(module, "checkpoint_filter_fn", dict)
    try:
        return dict(convert(dict(state), network.network))
    except Exception:  # whatever it does not expect in a file of another network
        return dict(state)
