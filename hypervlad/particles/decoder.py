"""From a frozen network's maps to fields of background, particle and border, and its training."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import find_boundaries
from torch import nn
from torch.nn import functional

from hypervlad.common.dense import stored_arrays
from hypervlad.common.progress import ProgressBar
from hypervlad.features.network import TappedNetwork
from hypervlad.features.registry import Backbone, Preprocessing, Runtime
from hypervlad.images.morphology import EIGHT
from hypervlad.objects.particle import Outlines
from hypervlad.objects.splitting import Cut, FloatMap, by_depth, label_parts, numbers_of, values_of
from hypervlad.objects.windows import (
    BoolMap,
    LabelMap,
    SideBySide,
    Window,
    side_by_side,
)

BACKGROUND, INSIDE, BORDER, IGNORED = 0, 1, 2, -1
N_FIELDS = 4  # the three classes of a pixel, and its depth in its particle

_N_FEATURES = 24
_TOUCHING_WEIGHT = 3.0  # of pixels between two particles
_TOUCHING_REACH = 5  # pixels across
_DEPTH_WEIGHT = 0.6
MAX_RATE, _WARM_UP, _DECAY = 3e-3, 0.15, 1e-3
_BATCH = 4
_MIN_COVERED = 0.03  # of a crop, by particles or annotations, wherever four tries find one
_MAPS_AT_ONCE = 8  # crops

_STRIDE = 32  # pixels; tiles begin at multiples
_DECODER_REACH = 4  # cells of the coarsest tap that the decoder sees beyond the maps
_LIMITS = (1.0, 50.0, 99.0)  # percentiles of grey values
# Probabilities of background in steps of 255: thin particles are joined across faint places.
_EDGE, BRIDGE = 128, 180
PRETRAINED = "mobilenet_v2"  # the network whose decoder was trained on drawn fields
_DRAWN = "finder.npz"  # by `python -m benchmarks.particles.train`
MIN_CONTRAST = 1e-3  # of grey values in [0, 1]: less is not stretched

CROP = 256  # pixels
N_CROPS = 160  # of all images together; of more images, one of each


class _Convolution(nn.Conv2d):
    """One whose tensors are to be set: nothing is drawn from the generator that threads share."""

    def reset_parameters(self) -> None:
        pass


class TopDownDecoder(nn.Module):
    """Turns the maps of several taps and the grey image into fields of the image's size.

    From the coarsest tap to the finest, maps are enlarged and added to those of the next tap, as in
    feature pyramids (Lin et al. 2017, "Feature pyramid networks for object detection", CVPR). All
    is computed at half the image's size: each 2 x 2 pixels of the grey image are four channels of
    one position, and become four pixels of the fields again (Shi et al. 2016, "Real-time single
    image and video super-resolution using an efficient sub-pixel convolutional neural network",
    CVPR).
    """

    centre: torch.Tensor
    scale: torch.Tensor

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        n = _N_FEATURES
        self.channels = tuple(channels)
        self.register_buffer("centre", torch.zeros(sum(channels)))
        self.register_buffer("scale", torch.ones(sum(channels)))
        self.lateral = nn.ModuleList(_Convolution(n_own, n, 1) for n_own in channels)
        self.smooth = nn.ModuleList(_Convolution(n, n, 3, padding=1) for _ in channels)
        self.stem = _Convolution(4, n, 3, padding=1)
        self.head = _Convolution(n, n, 3, padding=1)
        self.fields = _Convolution(n, 4 * N_FIELDS, 3, padding=1)

    def forward(self, maps: Sequence[torch.Tensor], grey: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 4, H, W) from maps (B, C_l, h_l, w_l) and grey images (B, 1, H, W).

        Height and width are even.
        """
        centres = self.centre[:, None, None].split(self.channels)
        scales = self.scale[:, None, None].split(self.channels)
        found: torch.Tensor | None = None
        for number in reversed(range(len(maps))):
            own = maps[number].float().contiguous(memory_format=torch.channels_last)
            own = self.lateral[number]((own - centres[number]).div_(scales[number]))
            if found is not None:
                own += _enlarged(found, own)
            found = self.smooth[number](own.relu_()).relu_()
        assert found is not None
        halved = functional.pixel_unshuffle(grey - 0.5, 2)
        fine = self.stem(halved.contiguous(memory_format=torch.channels_last))
        fine += _enlarged(found, fine)
        fields = self.fields(self.head(fine.relu_()).relu_())
        return functional.pixel_shuffle(fields, 2)

    def initialise(self, seed: int) -> None:
        """Draw the weights as torch does, from an own generator."""
        generator = torch.Generator().manual_seed(seed)
        for layer in self.modules():
            if isinstance(layer, _Convolution):
                bound = 1 / math.sqrt(layer.weight[0].numel())
                for tensor in layer.parameters():
                    nn.init.uniform_(tensor, -bound, bound, generator)

    def standardise_by(self, maps: Sequence[torch.Tensor]) -> None:
        """Set the mean and deviation of each channel to those of these maps."""
        flat = [layer.float().transpose(0, 1).flatten(1) for layer in maps]
        self.centre.copy_(torch.cat([layer.mean(1) for layer in flat]))
        self.scale.copy_(torch.cat([layer.std(1) for layer in flat]).clamp_min(1e-3))


def decoder_of(arrays: Mapping[str, NDArray[np.float32]]) -> TopDownDecoder:
    """Return a decoder with these tensors, by torch's names; a ValueError if they do not fit."""
    names = [f"lateral.{number}.weight" for number in range(len(arrays))]
    decoder = TopDownDecoder([arrays[name].shape[1] for name in names if name in arrays])
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    try:
        decoder.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"the decoder's tensors do not fit together ({error})") from error
    return decoder.eval()


def pretrained_decoder() -> TopDownDecoder:
    """Return the decoder of the network `PRETRAINED` that was trained on drawn fields."""
    return decoder_of(stored_arrays(files(__package__) / _DRAWN))


def _enlarged(maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if maps.shape[2:] == like.shape[2:]:
        return maps
    return functional.interpolate(maps, like.shape[2:], mode="bilinear", align_corners=False)


@dataclass(frozen=True, eq=False)
class Targets:
    """What is learnt of each pixel of a field, (H, W) each.

    ``kind``: `BACKGROUND`, `INSIDE`, `BORDER` or `IGNORED`; ``weight``: of the pixel; ``depth``:
    the distance to the nearest pixel outside of the particle, as a share of its largest.
    """

    kind: NDArray[np.int8]
    weight: NDArray[np.float32]
    depth: NDArray[np.float32]

    @classmethod
    def of_outlines(cls, outlines: Outlines) -> Targets:
        labels = outlines.label_image()
        is_particle = labels > 0
        kind = np.where(is_particle, INSIDE, BACKGROUND).astype(np.int8)
        kind[is_particle & find_boundaries(labels)] = BORDER
        highest = ndimage.maximum_filter(labels, _TOUCHING_REACH)
        lowest = ndimage.minimum_filter(
            np.where(is_particle, labels, np.iinfo(labels.dtype).max), _TOUCHING_REACH
        )
        touching = (highest > 0) & (highest != lowest)  # also of the gaps between two
        weight = np.where(touching, _TOUCHING_WEIGHT, 1.0).astype(np.float32)
        depth = np.zeros(labels.shape, np.float32)
        for outline in outlines:
            mask = labels[outline.window] == outline.label
            if mask.any():
                own = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
                depth[outline.window][mask] = (own / own.max())[mask]
        return cls(kind, weight, depth)

    @property
    def is_useful(self) -> NDArray[np.bool_]:
        """Where a crop should lie: on particles; of a small field, not beyond it."""
        is_known: NDArray[np.bool_] = self.kind != IGNORED
        return self.kind > BACKGROUND if is_known.all() else is_known


@dataclass(frozen=True, eq=False)
class Crops:
    """Squares of turned and changed images, with the frozen network's maps of them.

    The maps are computed once, not in every epoch, and kept in half precision.
    """

    grey: torch.Tensor  # (n, side, side), standardised
    kind: torch.Tensor
    weight: torch.Tensor
    depth: torch.Tensor
    maps: list[torch.Tensor]  # (n, C_l, h_l, w_l), float16
    image_index: NDArray[np.intp]  # the image that each is from

    @classmethod
    def cut(
        cls,
        fields: Iterable[tuple[NDArray[np.float32], Targets]],
        n_fields: int,
        maps_of: Callable[[torch.Tensor], list[torch.Tensor]],
        seed: int,
    ) -> Crops:
        """Cut equally many crops from each standardised grey image."""
        n_each = max(1, N_CROPS // n_fields)
        squares: list[list[NDArray[Any]]] = [[] for _ in range(4)]  # grey, kind, weight, depth
        maps = list[list[torch.Tensor]]()  # of each tap
        for number, (image, targets) in enumerate(fields):
            generator = np.random.default_rng([seed, number])
            image, targets = _of_at_least(image, targets, CROP)
            useful = targets.is_useful
            for _ in range(n_each):
                window = _window(useful, CROP, generator)
                turn = int(generator.integers(8))
                own: list[NDArray[Any]] = [_changed(image[window], generator)]
                own += [each[window] for each in (targets.kind, targets.weight, targets.depth)]
                for column, each in zip(squares, own, strict=True):
                    turned = np.rot90(np.flip(each, -1) if turn >= 4 else each, turn % 4)
                    column.append(np.ascontiguousarray(turned))
            grey = torch.from_numpy(np.stack(squares[0][-n_each:]))
            for some in grey.split(_MAPS_AT_ONCE):
                found = maps_of(some)
                maps = maps or [[] for _ in found]
                for of_tap, layer in zip(maps, found, strict=True):
                    of_tap.append(layer.cpu().half())
        grey, kind, weight, depth = (torch.from_numpy(_joined(np.stack, own)) for own in squares)
        taps = [_joined(torch.cat, of_tap) for of_tap in maps]
        return cls(grey, kind, weight, depth, taps, np.repeat(np.arange(n_fields), n_each))

    def loss(self, decoder: TopDownDecoder, rows: torch.Tensor) -> torch.Tensor:
        device = decoder.centre.device
        maps = [layer[rows].to(device) for layer in self.maps]
        fields = decoder(maps, self.grey[rows, None].to(device))
        kind = self.kind[rows].to(device).long()
        weight = self.weight[rows].to(device)
        entropy = functional.cross_entropy(
            fields[:, :3], kind, reduction="none", ignore_index=IGNORED
        )
        known = (kind != IGNORED).sum().clamp_min(1)
        loss = (entropy * weight).sum() / known
        depth = self.depth[rows].to(device)
        inside = kind > BACKGROUND
        if inside.any():
            own = torch.sigmoid(fields[:, 3])[inside]
            error = functional.smooth_l1_loss(own, depth[inside], reduction="none", beta=0.1)
            loss = loss + _DEPTH_WEIGHT * (error * weight[inside]).mean()
        return loss


def train(
    decoder: TopDownDecoder,
    crops: Crops,
    rows: torch.Tensor,
    n_epochs: int,
    seed: int,
    verbose: bool,
    rate: float = MAX_RATE,
    what: str = "",
) -> list[float]:
    """Train a decoder in place on some crops; return the mean loss of each epoch.

    A bar says `what` it is trained on.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=rate, weight_decay=_DECAY)
    n_steps = n_epochs * -(-len(rows) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=n_steps, pct_start=_WARM_UP
    )
    losses = []
    decoder.train()
    with torch.enable_grad():
        bar = ProgressBar(range(n_epochs), desc=what, unit="epoch", shown=verbose)
        for _ in bar:
            total = 0.0
            for some in rows[torch.randperm(len(rows), generator=generator)].split(_BATCH):
                loss = crops.loss(decoder, some)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                total += float(loss.detach()) * len(some)
            losses.append(total / len(rows))
    decoder.eval()
    return losses


def _joined(join: Callable[[list[Any]], Any], pieces: list[Any]) -> Any:
    """Join pieces and drop them: of many fields, they take gigabytes."""
    whole = join(pieces)
    pieces.clear()
    return whole


def _of_at_least(
    image: NDArray[np.float32], targets: Targets, side: int
) -> tuple[NDArray[np.float32], Targets]:
    """Enlarge an image by its mirror image, where nothing is learnt, to at least this side."""
    more = [(0, max(0, side - extent)) for extent in image.shape]
    if not any(after for _, after in more):
        return image, targets
    padded = Targets(
        np.pad(targets.kind, more, constant_values=IGNORED),
        np.pad(targets.weight, more),
        np.pad(targets.depth, more),
    )
    return np.pad(image, more, mode="symmetric"), padded


def _window(useful: NDArray[np.bool_], side: int, generator: np.random.Generator) -> Window:
    height, width = useful.shape
    for _ in range(4):
        top = int(generator.integers(height - side + 1))
        left = int(generator.integers(width - side + 1))
        window = slice(top, top + side), slice(left, left + side)
        if useful[window].mean() > _MIN_COVERED:
            break
    return window


def _changed(grey: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float32]:
    """Change contrast, brightness, noise and focus of a crop."""
    changed = (grey - 0.5) * generator.uniform(0.7, 1.3) + 0.5 + generator.uniform(-0.1, 0.1)
    if generator.random() < 0.5:
        changed = changed + generator.normal(0, generator.uniform(0, 0.04), grey.shape)
    if generator.random() < 0.25:
        changed = ndimage.gaussian_filter(changed, generator.uniform(0.3, 1.2))
    return changed.astype(np.float32)


# --- whole images ---------------------------------------------------------------------------------


class FieldNetwork:
    """A frozen network with its decoder: from grey images to fields of the same size.

    Images of several tiles run in torch, as OpenVINO would keep 0.6 GB of what a tile takes.
    """

    def __init__(
        self,
        network: TappedNetwork,
        decoder: TopDownDecoder,
        backbone: Backbone,
        contrast: float,
        runtime: Runtime | None = None,
    ) -> None:
        self._network = network.run_by(runtime or backbone.automatic_runtime())
        self._of_tiles = network.run_by("torch")
        self.decoder, self._backbone, self._contrast = decoder, backbone, contrast

    @property
    def device(self) -> torch.device:
        return self._network.device

    @property
    def original(self) -> nn.Module:
        """The frozen network's module."""
        return self._network.original

    def run_by(self, runtime: Runtime) -> FieldNetwork:
        """Return the same, with the frozen network as a runtime runs it."""
        return FieldNetwork(self._network, self.decoder, self._backbone, self._contrast, runtime)

    def fields(
        self,
        grey: NDArray[np.float32],
        tile_size: int,
        inverted: bool = False,
        brightness: tuple[float, float] | None = None,
    ) -> NDArray[np.uint8]:
        """Return what each pixel is, (3, H, W), in 255 steps.

        That is its probabilities of background and of the inside, the rest being that of a border,
        and its depth.

        Larger images are computed in tiles that overlap by as much as a pixel's fields depend on,
        so that tiles give what the whole image would. The image's `brightness_of` may be known.
        """
        brightness = brightness or brightness_of(grey)
        height, width = grey.shape
        if any(more := [-extent % _STRIDE for extent in grey.shape]):  # a copy may take 256 MB
            grey = np.pad(grey, [(0, after) for after in more], mode="symmetric")
        found = np.empty((3, *grey.shape), np.uint8)
        is_whole = max(height, width) <= tile_size
        network = self._network if is_whole else self._of_tiles
        tile_size = max(grey.shape) if is_whole else tile_size
        for tile, inner in self.tiles(grey.shape, tile_size):
            own = (
                slice(i.start - t.start, i.stop - t.start) for t, i in zip(tile, inner, strict=True)
            )
            image = _scaled(grey[tile], brightness, self._contrast)
            found[:, *inner] = self._of_tile(1 - image if inverted else image, network)[:, *own]
            if not is_whole:
                release_memory()
        return found[:, :height, :width]

    def _of_tile(self, image: NDArray[np.float32], network: TappedNetwork) -> NDArray[np.uint8]:
        with torch.no_grad():
            grey = torch.from_numpy(np.ascontiguousarray(image))[None]
            maps = network(network_input(grey, self._backbone.preprocessing))
            logits = self.decoder(maps, grey[:, None].to(network.device))[0]
            shares = torch.cat([logits[:3].softmax(0)[:2], logits[3:].sigmoid()])
        found: NDArray[np.uint8] = (shares * 255).round().byte().cpu().numpy()
        return found

    def tiles(self, shape: tuple[int, ...], tile_size: int) -> list[tuple[Window, Window]]:
        """Return the window of each tile, and of the inner part that only it computes.

        A ValueError if the network cannot compute images of this shape in tiles of this size.
        """
        core, margin = tile_size, 0
        if max(shape) > tile_size:
            margin = self._margin()
            core = (tile_size - 2 * margin) // _STRIDE * _STRIDE
        if core < _STRIDE:
            raise ValueError(
                f"tile_size={tile_size} is too small: what a pixel gets depends on {margin} pixels "
                f"to each side, so it must be at least {2 * margin + _STRIDE}"
            )
        sides = []
        for extent in shape:
            # All of one size: memory that torch has used for one suits the next.
            n = max(1, math.ceil((extent - 2 * margin) / core))
            own = math.ceil((extent - 2 * margin) / n / _STRIDE) * _STRIDE
            side = min(own + 2 * margin, extent)
            starts = [min(k * own, extent - side) for k in range(n)]
            ends = [0, *(start + side - margin for start in starts[:-1]), extent]
            tiles = [slice(start, start + side) for start in starts]
            inner = itertools.starmap(slice, itertools.pairwise(ends))
            sides.append(list(zip(tiles, inner, strict=True)))
        return [tuple(zip(*pair, strict=True)) for pair in itertools.product(*sides)]

    def _margin(self) -> int:
        reach = self._network.reach()
        if reach is None or reach.margin is None or _STRIDE % reach.stride:
            raise ValueError(
                "the maps of this network depend on the whole image or do not form a regular grid: "
                "choose earlier taps, another backbone, or a tile_size as large as the image"
            )
        margin = reach.margin + _DECODER_REACH * reach.stride
        return math.ceil(margin / _STRIDE) * _STRIDE


def separated(fields: NDArray[np.uint8], separation: float, min_area: int) -> NDArray[np.int32]:
    """Label the particles of fields (3, H, W), of which touching ones are separated by depth."""
    labels = parts_of(fields, separation, min_area, min_area)
    return likely_parts(labels, fields[0], min_area)


def parts_of(
    fields: NDArray[np.uint8],
    separation: float,
    min_area: int,
    min_part: int,
    edge: int = _EDGE,
    least: float = 0.0,
    at: BoolMap | None = None,
) -> NDArray[np.int32]:
    """Label the parts of `min_part` pixels of fields (3, H, W) with maxima of depth of their own.

    Left out are connected ones of which no `min_area` pixels have a mean probability of `least` and
    one of background below `edge`, in 255 steps, and those that have none of the pixels `at`.
    """
    background, partition = fields[0], by_depth(partial(particle_depth, fields), separation)

    def likely(own: SideBySide, inside: BoolMap) -> LabelMap:
        # No part is more probable than the component's most probable pixels.
        counts = own.histograms(own.take(background), inside)
        counts = counts.cumsum(axis=1).clip(max=min_area)
        is_likely = (counts[:, -1] == min_area) & (counts[:, edge - 1] == min_area)
        sums = np.diff(counts, axis=1, prepend=0) @ np.arange(256)
        is_likely &= 1 - sums / min_area / 255 >= least
        if at is not None:
            is_likely &= own.counts(own.take(at) & inside) > 0
        return partition(own, inside & is_likely[own.at])

    return label_parts(background < BRIDGE, min_part, likely)


def particle_depth(fields: NDArray[np.uint8], cut: Cut) -> FloatMap:
    """Return how deep pixels of a part of fields are in particles, 0 where gaps are sure."""
    # Neither the depth nor the probability of not being a border finds all gaps alone.
    background, inside, deep = map(cut, fields)
    depth: FloatMap = np.multiply(inside, deep, dtype=np.float32)
    np.sqrt(depth, out=depth)
    depth /= 255
    depth[background >= BRIDGE] = 0
    return depth


def likely_parts(
    labels: NDArray[np.int32],
    background: NDArray[np.uint8],
    min_area: int,
    edge: int = _EDGE,
    least: float = 0.0,
) -> NDArray[np.int32]:
    """Number, in place, the parts of `min_area` pixels and a mean probability of `least`.

    They end where the probability of background is `edge`, in 255 steps.
    """
    is_likely = np.zeros(int(labels.max(initial=0)) + 1, bool)
    for own in side_by_side(labels, 1):
        inside, values = own.own(labels), own.take(background)
        pieces = ndimage.label(inside & (values < edge), EIGHT)[0]
        regions, areas = own.parts(pieces)
        n_large = np.bincount(regions[areas >= min_area], minlength=len(own.numbers))
        largest = own.largest(regions, areas)
        # Several large ones stay with what joins them.
        is_kept = inside & ((pieces == largest[own.at]) & (pieces > 0) | (n_large > 1)[own.at])
        own.put(labels, inside & ~is_kept, 0)
        n_kept = own.counts(is_kept)
        certainty = 1 - own.sums(values, is_kept) / n_kept.clip(1) / 255
        is_likely[own.numbers] = (n_kept >= min_area) & (certainty >= least)
    return values_of(labels, numbers_of(is_likely), labels)


def release_memory() -> None:
    """Return freed memory to the system: glibc keeps 0.6 GB of what torch had in pieces."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # other systems
        ctypes.CDLL(None).malloc_trim(0)


def brightness_of(grey: NDArray[np.float32]) -> tuple[float, float]:
    """Return the median of grey values, and their range without the outermost per cents."""
    low, middle, high = np.percentile(grey, _LIMITS).tolist()
    return middle, high - low


def standardised(grey: NDArray[np.float32], contrast: float) -> NDArray[np.float32]:
    """Shift and scale grey values so that images of other brightness and contrast look alike.

    The median, which is background in most fields, becomes 0.5, and the range one half. An image of
    less than half the typical contrast is not stretched further: it may be empty.
    """
    return _scaled(grey, brightness_of(grey), contrast)


def _scaled(
    grey: NDArray[np.float32], brightness: tuple[float, float], usual: float
) -> NDArray[np.float32]:
    shifted: NDArray[np.float32] = np.subtract(grey, brightness[0], dtype=np.float32)
    shifted /= np.float32(2 * max(brightness[1], usual / 2))
    shifted += np.float32(0.5)
    return shifted.clip(-0.2, 1.2, out=shifted)


def network_input(grey: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Return grey images (B, H, W) as the input (B, C, H, W) of a network."""
    return preprocessing.normalised(grey[:, None]).contiguous()
