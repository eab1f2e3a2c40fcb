"""Train the network that measures fibre diameters, on synthetic mats.

    python -m benchmarks.fibres.train --out hypervlad/fibres/profile_network.npz

Draws mats of random looks, diameters, blurs and contrasts, and images without fibres; looks at
points of their centre lines as `hypervlad.fibres` does, first with the diameters of the ridges,
then with those that a first network finds there; and trains the network to say where a fibre lies
with both edges visible, in which direction, how wide it is, and how sure it is of this. Then it
learns which fibres are measured more often than others, and how far medians are off, from other
mats: half of them drawn as these, half as those of `benchmarks.fibres`, with another seed.
--images 60 --epochs 2 --mats 40 shows in a minute that it runs.

With --start, a network that has learnt goes on with other images, or, with --images 0, only learns
the latter again; what it knows of fibres that are measured more often stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize
from scipy.spatial import cKDTree
from skimage.transform import resize
from torch import nn
from torch.nn import functional

from benchmarks.common.data import as_jpeg, log_uniform
from benchmarks.common.program import new_parser, parse
from benchmarks.fibres.__main__ import made
from hypervlad.common.dense import stored_arrays
from hypervlad.data import FIBRE_LOOKS
from hypervlad.datasets.fibres import FibreStyle, FibreTruth, draw_fibres
from hypervlad.fibres import diameters
from hypervlad.fibres.contrast import normalised_contrast
from hypervlad.fibres.places import Field, Places, followed, look_at, moved, sharp_field
from hypervlad.fibres.profile_network import (
    LOG_ERRORS,
    N_FREQUENCIES,
    N_ROWS,
    N_SAMPLES,
    SPECTRUM_FACTOR,
    ProfileNetwork,
    log_spectrum,
    seen_by_network,
)
from hypervlad.fibres.singles import resampled
from hypervlad.images.resampling import at_own_sampling
from hypervlad.statistics.groups import weighted_quantiles

N_PLACES = 220  # per image; a step takes half of them
BATCH = 64  # images
WIDTHS = (384, 128, 96, 128)  # of the layers
_NO_LOOK = -1
_SHARE_EMPTY = 0.15
_LEAST_MATS = 10
# First images that a network goes on with, and that intervals are fitted to; the latter's seed
# among the mats of `benchmarks.fibres`.
_LATER, _MATS, _SEED = 200_000, 2_000_000, 700
TEXTURES = "noise", "clouds", "two levels", "folds", "cells", "walls of cells", "discs"
_FILLED = -1.0  # in place of a truth, beside images of fewer places


@dataclass(frozen=True, eq=False)
class Sample:
    """Places of one image, as the network sees them, and the truth."""

    seen: np.ndarray  # (N_PLACES, n_inputs) float16
    spectrum: np.ndarray
    is_fibre: np.ndarray  # (N_PLACES,), 1 on a fibre, 0 beside it
    truth: np.ndarray  # (N_PLACES, 3): logarithm of the ratio of diameters, offset, turn
    look: int
    log_blur: float


def drawn(seed: int, larger: float = 1.0) -> tuple[np.ndarray, FibreTruth, float]:
    """Return the pixels of a mat, the truth, and 1 for bright or -1 for dark fibres."""
    rng = np.random.default_rng([99, seed])
    look = FIBRE_LOOKS[seed % len(FIBRE_LOOKS)]
    diameter = log_uniform(rng, 2.2, 45)
    low, high = ((160, 200), (230, 290)) if diameter < 12 else ((210, 270), (320, 420))
    enlarged = 1.0
    if rng.random() < 0.2:
        enlarged = log_uniform(rng, 1.2, min(4.0, diameter)) if rng.random() < 0.7 else 0.5
    diameter /= enlarged
    asked = {
        "diameter": diameter,
        "spread": rng.uniform(0.03, 0.42),
        "cover": rng.uniform(0.04, 0.95),
        "curl": rng.choice([0, rng.uniform(0, 0.8)]),
        "length": math.inf,
        "blur": rng.uniform(0.4, 3.2 if enlarged <= 1 else 1.5),
        "contrast_to_noise": log_uniform(rng, *((1.8, 35) if rng.random() < 0.85 else (35, 1000))),
    }
    if rng.random() < 0.15:
        asked |= {"length": rng.uniform(4, 20) * diameter, "cover": min(asked["cover"], 0.6)}
    second = None
    if rng.random() < 0.15:
        second = min(diameter * log_uniform(rng, 1.6, 3.5), 80.0), rng.uniform(0.15, 0.6)
    style = FibreStyle(
        background=rng.uniform(0.02, 0.3),
        darkest=rng.uniform(0.4, 0.75),
        least=rng.uniform(0.8, 0.97),
        rims=(rng.uniform(0.2, 0.85), rng.uniform(0.15, 0.5)),
        rounded=rng.uniform(0, 0.5),
        absorption=log_uniform(rng, 0.5, 2.2),
        lit=(rng.choice([0, 0, rng.uniform(0, 0.4)]), rng.uniform(0, 2 * np.pi)),
    )
    if look != "transmission" and rng.random() < (0.8 if look == "round" else 0.4):
        style = with_shadows(rng, style)
    bounds = {name: (float(value), float(value)) for name, value in asked.items()}
    sides = larger * rng.integers(low, high) / enlarged
    size = max(64, int(sides[0])), max(64, int(sides[1]))
    image, truth = draw_fibres(rng, bounds, second, look, size, style)
    if enlarged != 1:
        image, truth = resized(image, truth, enlarged, order=int(rng.choice([1, 3])))
    sign = -1.0 if look == "transmission" else 1.0
    if sign > 0 and rng.random() < 0.12:
        image, sign = 1 - image, -1.0
    return disturbed(rng, image.astype(float)), truth, sign


def with_shadows(rng: np.random.Generator, style: FibreStyle) -> FibreStyle:
    """Return fibres with shadows beside them, or brighter than a bright ground by a step."""
    depth = rng.choice([0, rng.uniform(0.15, 0.9), rng.uniform(0.15, 0.9)])
    style = replace(
        style,
        shadow=(depth, log_uniform(rng, 0.12, 1.1), rng.uniform(0.8, 2.5)),
        shaded=bool(rng.random() < 0.65),
    )
    if rng.random() < 0.3:
        return style
    ground = rng.uniform(0.1, 0.6)
    edge = ground + (1 - ground) * rng.uniform(0.12, 0.85)
    return replace(style, background=ground, rounded=edge, darkest=rng.uniform(0.75, 1))


def resized(
    image: np.ndarray, truth: FibreTruth, factor: float, order: int
) -> tuple[np.ndarray, FibreTruth]:
    """Return a mat as a program that interpolates enlarges or shrinks it."""
    size = round(image.shape[0] * factor), round(image.shape[1] * factor)
    nearest = {"order": 0, "preserve_range": True, "anti_aliasing": False}
    scaled = replace(
        truth,
        diameters=truth.diameters * factor,
        lengths=truth.lengths * factor,
        visible_lengths=truth.visible_lengths * factor,
        centre_lines=[resampled((line + 0.5) * factor - 0.5) for line in truth.centre_lines],
        fibres=resize(truth.fibres, size, **nearest).astype(np.int32),
        blur=truth.blur * factor,
    )
    return resize(image, size, order=order, anti_aliasing=factor < 1), scaled


def disturbed(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Return an image as detectors, lamps and file formats change it."""
    if rng.random() < 0.6:
        image = np.clip(image, 0, 1) ** log_uniform(rng, 0.6, 1.7)
    if rng.random() < 0.5:
        y, x = np.mgrid[-1 : 1 : image.shape[0] * 1j, -1 : 1 : image.shape[1] * 1j]
        light = np.tensordot(rng.uniform(-0.25, 0.25, 5), [x, y, x * y, x**2, y**2], 1)
        image = image * (1 + light) if rng.random() < 0.5 else image + light / 2
    if rng.random() < 0.3:
        coarse = gaussian_filter(rng.standard_normal(image.shape), rng.uniform(0.5, 1.2))
        image = image + rng.uniform(0, 0.09) * coarse
    if rng.random() < 0.15:  # grain of bright areas
        grain = np.sqrt(np.clip(image, 0, None)) * rng.standard_normal(image.shape)
        image = image + rng.uniform(0, 0.1) * grain
    if rng.random() < 0.1:  # lines of a scan
        image = image + rng.uniform(0, 0.04) * rng.standard_normal((len(image), 1))
    if rng.random() < 0.1:
        grey = np.rint(255 * np.clip(image / max(image.max(), 1e-9), 0, 1)).astype(np.uint8)
        image = as_jpeg(grey, int(rng.integers(30, 96))) / 255
    return np.rint(image * rng.uniform(60, 255)) if rng.random() < 0.3 else image


def without_fibres(seed: int) -> np.ndarray:
    """Return an image of one of `TEXTURES`, in turn; some are of long grains."""
    rng = np.random.default_rng([31, seed])
    size = int(rng.integers(200, 420)), int(rng.integers(240, 500))
    kind, image = TEXTURES[seed % len(TEXTURES)], np.zeros(size)
    if kind == "noise":
        return gaussian_filter(rng.standard_normal(size), rng.uniform(0, 1.2))
    scale, longer = log_uniform(rng, 1, 15), rng.choice([1, log_uniform(rng, 1.5, 8)])
    clouds = gaussian_filter(rng.standard_normal(size), (scale, min(scale * longer, 60)))
    if kind == "clouds":
        image = clouds
    elif kind == "two levels":
        image = gaussian_filter((clouds > 0).astype(float), rng.uniform(0.5, 2.5))
    elif kind == "folds":
        image = np.abs(clouds) if rng.random() < 0.5 else clouds - gaussian_filter(clouds, scale)
    elif kind in ("cells", "walls of cells"):
        side = log_uniform(rng, 6, 40)
        middle = rng.uniform(0, 1, (int(image.size / side**2 / longer) + 2, 2)) * size
        distance, grain = cKDTree(middle / [1, longer]).query(
            np.moveaxis(np.indices(size), 0, -1) / [1, longer], k=2
        )
        image = rng.uniform(0, 1, len(middle))[grain[..., 0]]
        if kind == "walls of cells":
            image = (np.diff(distance)[..., 0] < rng.uniform(1, 4)).astype(float)
        image = gaussian_filter(image, rng.uniform(0.5, 2))
    else:
        radius = log_uniform(rng, 4, 50)
        for _ in range(int(rng.uniform(0.1, 0.6) * image.size / (np.pi * radius**2)) + 1):
            own = radius * np.exp(0.25 * rng.standard_normal())
            top, left = (int(rng.integers(0, side)) for side in size)
            part = image[top : top + int(2 * own), left : left + int(2 * own)]
            y, x = np.indices(part.shape)
            inside = 1 - (y / own - 1) ** 2 - (x / own - 1) ** 2
            part[inside > 0] = (0.3 + 0.7 * np.sqrt(np.maximum(inside, 0)))[inside > 0]
        image = gaussian_filter(image, rng.uniform(0.5, 2.5))
    image = image.T if rng.random() < 0.5 else image
    contrast_to_noise = log_uniform(rng, *((2, 30) if rng.random() < 0.75 else (30, 1000)))
    noise = rng.standard_normal(image.shape) / contrast_to_noise
    return image / max(np.ptp(image), 1e-9) + noise


def true_fibres(places: Places, truth: FibreTruth) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the fibre that each place lies on, -1 if none, how far its middle is off, and a turn.

    The fibre's centre line is near and has the place's direction, and the fibre is the uppermost in
    the middle and near both edges. The turn, in radians, is from the place's direction to the
    centre line's.
    """
    height, width = truth.fibres.shape
    points = np.concatenate(truth.centre_lines)
    number = np.repeat(np.arange(len(truth.centre_lines)), list(map(len, truth.centre_lines)))
    steps = np.concatenate([np.gradient(each, axis=0) for each in truth.centre_lines])
    steps /= np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-9)
    reach = 0.35 * min(truth.diameters.max(), 60) + 1
    near = cKDTree(points).query_ball_point(places.positions, reach)
    place = np.repeat(np.arange(len(places)), list(map(len, near)))
    point = np.concatenate([np.asarray(each, dtype=np.intp) for each in near])
    apart, normal = points[point] - places.positions[place], places.normals[place]
    fibre, diameter = number[point], truth.diameters[number[point]]
    offset = (apart * normal).sum(axis=1)
    middle = places.positions[place] + offset[:, None] * normal
    across = (steps[point] * normal).sum(axis=1)
    ahead = np.sign((steps[point] * places.tangents[place]).sum(axis=1))
    fits = np.abs(across) < np.sin(0.35)
    fits &= (np.abs(offset) < 0.35 * diameter) & (
        np.linalg.norm(apart, axis=1) ** 2 < offset**2 + 1.5
    )
    fits &= ((middle >= 0) & (middle <= [height - 1, width - 1])).all(axis=1)
    if truth.look != "transmission":
        for share in (0, 0.42, -0.42):
            at = np.rint(middle + (share * diameter)[:, None] * normal).astype(int)
            inside = ((at >= 0) & (at < [height, width])).all(axis=1)
            row, column = np.clip(at, 0, [height - 1, width - 1]).T
            fits &= (truth.fibres[row, column] == fibre) | ~inside
    best, off, turn = np.full(len(places), -1), np.zeros(len(places)), np.zeros(len(places))
    fitting = np.flatnonzero(fits)
    for k in fitting[np.argsort(-np.abs(offset[fitting]) / diameter[fitting])]:
        best[place[k]], off[place[k]] = fibre[k], offset[k]
        turn[place[k]] = np.arcsin(np.clip(-across[k] * ahead[k], -1, 1))
    return best, off, turn


def samples_of(job: tuple[int, ProfileNetwork | None]) -> list[Sample]:
    """Return what the network sees of one image, in each pass."""
    seed, network = job
    rng, truth = np.random.default_rng([5, seed]), None
    if rng.random() < _SHARE_EMPTY:
        pixels, right = without_fibres(seed), rng.choice([-1.0, 1.0])
    else:
        try:
            pixels, truth, right = drawn(seed)
        except ValueError:  # so many fibres do not cover as much as asked
            return []
    contrast = normalised_contrast(pixels.astype(np.float32))
    field = Field.of(contrast, np.ones(contrast.shape, dtype=bool))
    spectrum, samples = log_spectrum(contrast), list[Sample]()
    signs = (right, -right) if seed % 3 == 0 else (right,)
    for sign, places in Places.on_ridges(field, signs, 2 * N_PLACES).items():
        if len(places) < 8:
            continue
        places = places.chosen(np.sort(rng.permutation(len(places))[:N_PLACES]))
        own = truth if sign == right else None
        samples.append(_sample(field, sign, places, own, spectrum))
        if network is None or sign != right:
            continue
        for _ in range(2):
            judged = network(*look_at(field, sign, places), spectrum)
            places = moved(field, places, judged)
            turn = 0.03 * rng.standard_normal(len(places))
            scale = np.exp(rng.uniform(-0.08, 0.08) + 0.05 * rng.standard_normal(len(places)))
            places = replace(places.turned(turn), diameter=places.diameter * scale)
        samples.append(_sample(field, sign, places, own, spectrum))
    return samples


def _sample(
    field: Field, sign: float, places: Places, truth: FibreTruth | None, spectrum: np.ndarray
) -> Sample:
    fibre, offset, turn = np.full(len(places), -1), np.zeros(len(places)), np.zeros(len(places))
    if truth is not None:
        fibre, offset, turn = true_fibres(places, truth)
    diameter = places.diameter if truth is None else truth.diameters[fibre]
    ratio = np.log(diameter / places.diameter)
    right = np.stack([ratio, offset / places.diameter, turn], axis=1)
    missing = N_PLACES - len(places)
    seen = seen_by_network(*look_at(field, sign, places)).astype(np.float16)
    return Sample(
        seen=np.pad(seen, ((0, missing), (0, 0))),
        spectrum=spectrum,
        is_fibre=np.pad((fibre >= 0).astype(np.float32), (0, missing), constant_values=_FILLED),
        truth=np.pad(right.astype(np.float32), ((0, missing), (0, 0))),
        look=_NO_LOOK if truth is None else FIBRE_LOOKS.index(truth.look),
        log_blur=0.0 if truth is None else math.log(truth.blur),
    )


class Network(nn.Module):
    """As `ProfileNetwork`, for many images at a time."""

    def __init__(self, n_inputs: int) -> None:
        super().__init__()
        first, second, context, third = WIDTHS
        self.first = nn.Linear(n_inputs, first)
        self.second = nn.Linear(first, second)
        self.trust = nn.Linear(second, 1)
        self.context = nn.Linear(2 * second + N_FREQUENCIES, context)
        self.third = nn.Linear(second + context, third)
        self.profile = nn.Linear(third, 5)
        self.image = nn.Linear(context, len(FIBRE_LOOKS) + 1)

    def forward(
        self, seen: torch.Tensor, there: torch.Tensor, spectrum: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Judge places (images, places, n_inputs), of which some are not there."""
        hidden = self.second(self.first(seen).relu()).relu()
        trust = self.trust(hidden)
        weights = there[..., None], there[..., None] * trust.sigmoid()
        sums = [(each * hidden).sum(dim=1) for each in weights]
        mean = sums[0] / weights[0].sum(dim=1).clamp(min=1)
        trusted = sums[1] / (weights[1].sum(dim=1) + 1)
        context = self.context(torch.cat([mean, trusted, SPECTRUM_FACTOR * spectrum], dim=1)).relu()
        beside = context[:, None].expand(-1, seen.shape[1], -1)
        third = self.third(torch.cat([hidden, beside], dim=2)).relu()
        return self.profile(third), trust[..., 0], self.image(context)

    def exported(self) -> ProfileNetwork:
        weights = {name: each.detach().cpu().numpy() for name, each in self.state_dict().items()}
        return ProfileNetwork(weights)


@dataclass(frozen=True, eq=False)
class Batch:
    """Places of several images, on the device that trains."""

    seen: torch.Tensor
    spectrum: torch.Tensor
    is_fibre: torch.Tensor
    truth: torch.Tensor
    look: torch.Tensor
    log_blur: torch.Tensor

    @classmethod
    def of(cls, samples: Sequence[Sample], device: str) -> Batch:
        def column(name: str) -> torch.Tensor:
            stacked = np.stack([np.asarray(getattr(each, name)) for each in samples])
            tensor = torch.from_numpy(stacked)
            return (tensor.float() if tensor.dtype == torch.float64 else tensor).to(device)

        return cls(*(column(each.name) for each in fields(cls)))

    def drawn(self, index: torch.Tensor) -> Batch:
        """Return half of the places of some images, mirrored: fibres have no direction."""
        n, device = len(index), index.device
        some = torch.rand(n, N_PLACES, device=device).argsort(dim=1)[:, : N_PLACES // 2]
        image = index[:, None]
        seen, truth = self.seen[image, some].float(), self.truth[image, some]
        n_profile = N_ROWS * N_SAMPLES
        profile = seen[..., :n_profile].unflatten(2, (N_ROWS, N_SAMPLES))
        across, along = torch.rand(2, *some.shape, 1, 1, device=device) < 0.5
        profile = torch.where(across, profile.flip(3), profile)
        profile = torch.where(along, profile.flip(2), profile).flatten(2)
        side = 1 - 2 * across[..., 0, 0].float()
        turn = side * (1 - 2 * along[..., 0, 0].float())
        signs = torch.stack([torch.ones_like(side), side, turn], dim=2)
        return Batch(
            torch.cat([profile, seen[..., n_profile:]], dim=2),
            self.spectrum[index],
            self.is_fibre[image, some],
            signs * truth,
            self.look[index],
            self.log_blur[index],
        )


def loss_of(network: Network, batch: Batch) -> torch.Tensor:
    there, found = batch.is_fibre != _FILLED, batch.is_fibre == 1
    out, trust, looks = network(batch.seen, there.float(), batch.spectrum)

    def presence(logit: torch.Tensor) -> torch.Tensor:
        each = functional.binary_cross_entropy_with_logits(logit, found.float(), reduction="none")
        return mean(each, there)

    def mean(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        return (values * where).sum() / where.sum().clamp(min=1)

    loss = presence(out[..., 0]) + 0.3 * presence(trust)
    known = batch.look != _NO_LOOK
    look = functional.cross_entropy(looks[:, :-1], batch.look.clamp(min=0), reduction="none")
    loss = loss + 0.5 * mean(look + (looks[:, -1] - batch.log_blur).square(), known)
    ratio, offset, turn = batch.truth.unbind(dim=2)
    off, log_error = out[..., 1] - ratio, out[..., 2].clamp(*LOG_ERRORS)
    # Of Student's distribution with four degrees of freedom, for outliers.
    unlikely = 2.5 * torch.log1p((off * torch.exp(-log_error)).square() / 4) + log_error
    size = torch.exp(-ratio)
    scaled = functional.smooth_l1_loss(
        out[..., 3] * size, offset * size, beta=0.1, reduction="none"
    )
    turned = functional.smooth_l1_loss(out[..., 4], turn, beta=0.1, reduction="none")
    loss = loss + mean(unlikely + 4 * scaled + 4 * turned, found)
    # What all places of an image share is wrong with the median, too.
    count = found.sum(dim=1)
    shared = (off.clamp(-0.7, 0.7) * found).sum(dim=1) / count.clamp(min=1)
    shared = functional.smooth_l1_loss(
        shared, torch.zeros_like(shared), beta=0.05, reduction="none"
    )
    return loss + 6 * mean(shared, count > 15)


def trained(
    samples: Sequence[Sample], n_epochs: int, device: str, start: ProfileNetwork | None = None
) -> Network:
    """Return a network that has learnt from samples, or gone on learning from `start`."""
    torch.manual_seed(0)
    network, data = Network(samples[0].seen.shape[1]).to(device), Batch.of(samples, device)
    if start:
        names = network.state_dict()
        network.load_state_dict({name: torch.from_numpy(start.weights[name]) for name in names})
    size = max(1, min(BATCH, len(samples) // 2))
    n_steps = n_epochs * (len(samples) // size)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-3)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 1e-3 if start else 3e-3, total_steps=n_steps + 1
    )
    for epoch in range(n_epochs):
        total = torch.zeros((), device=device)
        parts = torch.randperm(len(samples), device=device).split(size)[: len(samples) // size]
        for part in parts:
            loss = loss_of(network, data.drawn(part))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 2.0)
            optimiser.step()
            rates.step()
            total += loss.detach()
        print(f"epoch {epoch + 1} of {n_epochs}: loss {float(total) / len(parts):.3f}", flush=True)
    return network


def drawn_samples(
    seeds: Sequence[int], network: ProfileNetwork | None, n_processes: int
) -> Iterator[Sample]:
    with Pool(n_processes) as pool:
        jobs = [(seed, network) for seed in seeds]
        for i, samples in enumerate(pool.imap(samples_of, jobs, chunksize=8)):
            yield from samples
            if (i + 1) % 500 == 0:
                print(f"{i + 1} images of {len(seeds)}", flush=True)


@dataclass(frozen=True, eq=False)
class Measured:
    """One mat with a median, measured without the last two rows of weights."""

    facts: np.ndarray
    logs: np.ndarray  # of diameters, over the true median
    lengths: np.ndarray
    true_mean: float  # of logarithms over those of the middle place, within bounds

    def judged(self, acceptance: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the logarithm of the median over the true one, and what its interval is from."""
        power = float(self.facts @ acceptance)
        lengths = diameters.corrected(self.lengths, self.logs, power)
        (error,) = weighted_quantiles(self.logs, lengths, [0.5])
        return float(error), diameters.median_facts(self.facts, self.logs, lengths)


def measured(job: tuple[int, ProfileNetwork]) -> Measured | None:
    index, network = job
    if index % 2:
        _, pixels, truth = made(_SEED, index // 2)
    else:
        try:  # as large as an image, as errors depend on it
            pixels, truth, _ = drawn(_MATS + index // 2, larger=2.0)
        except ValueError:
            return None
    whole = np.ones(pixels.shape, dtype=bool)
    pixels, whole, enlarged = at_own_sampling(pixels.astype(np.float32), whole, f"mat {index}")
    field, found, step = sharp_field(pixels, whole, [1.0, -1.0], diameters.N_PLACES, network, "")
    if found is None:
        return None
    places, _ = diameters.accepted_places(field, found)
    if len(places) < diameters.LEAST_PLACES:
        return None
    _, lengths = followed(places)
    if not diameters.is_resolved(found, places, lengths):
        return None
    facts = diameters.image_facts(field, found, places, lengths)
    logs = np.log(enlarged * step * places.diameter / truth.median)
    true = diameters.around_middle(np.log(truth.diameters / truth.median), np.median(logs))
    true_mean = float(np.average(true, weights=truth.visible_lengths))
    return Measured(facts, logs, lengths, true_mean)


def learnt_from_mats(
    mats: Sequence[Measured], acceptance: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return what `ProfileNetwork.weights` holds about images as a whole.

    ``acceptance`` takes an image's facts to the power of the diameter that the share of measured
    length goes with: those for which the mean logarithms are right, by maximum likelihood of an
    exponential family; it stays if it is given. ``interval`` takes those of its median to the
    logarithm of half the width of the median's interval. Errors follow Student's distribution with
    four degrees of freedom, whose scale depends on the facts; then the width is that which holds
    95 % of these mats.
    """

    def unlikely(factors: np.ndarray) -> float:
        total = 1e-2 * float(factors @ factors)
        for power, each in zip(standard @ factors, mats, strict=True):
            apart = diameters.around_middle(each.logs, np.median(each.logs))
            weights = each.lengths * np.exp(-power * apart)
            total += (math.log(weights.sum()) + power * each.true_mean) / len(mats)
        return total

    if acceptance is None:
        standard, unscaled = standardised(np.stack([each.facts for each in mats]))
        acceptance = unscaled(minimize(unlikely, np.zeros(standard.shape[1])).x)
    errors, facts = zip(*(each.judged(acceptance) for each in mats), strict=True)
    error, (standard, unscaled) = np.abs(errors), standardised(np.stack(facts))

    def misfit(factors: np.ndarray) -> float:
        log_scale = standard @ factors
        square = (error * np.exp(-log_scale)) ** 2
        return float(np.mean(2.5 * np.log1p(square / 4) + log_scale))

    factors = minimize(misfit, -2.5 * np.eye(standard.shape[1])[0]).x
    factors[0] += np.log(np.quantile(error * np.exp(-standard @ factors), 0.95))
    return {"acceptance": acceptance, "interval": unscaled(factors)}


def standardised(facts: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return facts of mean 0 and deviation 1, but for the first, and what undoes it for factors."""
    mean, scale = facts.mean(axis=0), facts.std(axis=0) + 1e-9
    mean[0], scale[0] = 0.0, 1.0

    def unscaled(factors: np.ndarray) -> np.ndarray:
        slopes = factors / scale
        slopes[0] -= slopes @ mean
        return slopes

    return (facts - mean) / scale, unscaled


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, Path("profile_network.npz"))
    parser.add_argument("--images", type=int, default=24_000, help="0, with --start: no training")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--mats", type=int, default=960, help="that intervals are fitted to")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--start", type=Path, help="network that goes on learning")
    parser.add_argument("--device", default="cpu", help="that PyTorch trains on")
    options: Any = parse(parser, argv)
    samples, seeds = list[Sample](), range(_LATER, _LATER + options.images)
    start = ProfileNetwork(stored_arrays(options.start)) if options.start else None
    network = start
    if start is None:
        seeds = range(options.images)
        samples += drawn_samples(seeds[: len(seeds) // 5], None, options.processes)
        network = trained(samples, options.epochs, options.device).exported()
        seeds = seeds[len(seeds) // 5 :]
    if options.images:
        samples += drawn_samples(seeds, network, options.processes)
        network = trained(samples, options.epochs, options.device, start).exported()
    layers = {name: each for name, each in network.weights.items() if "." in name}
    stored = {name: each.astype(np.float16) for name, each in layers.items()}
    network = ProfileNetwork({name: each.astype(np.float32) for name, each in stored.items()})
    with Pool(options.processes) as pool:
        jobs = [(index, network) for index in range(options.mats)]
        mats = [each for each in pool.imap(measured, jobs, chunksize=8) if each is not None]
    if len(mats) < _LEAST_MATS:
        raise SystemExit(f"{len(mats)} mats have a median: give more of them.")
    known = start and start.weights["acceptance"]  # learnt from more mats
    half = len(mats) // 2
    learnt = learnt_from_mats(mats[:half], known)
    others = [each.judged(learnt["acceptance"]) for each in mats[half:]]
    held = [abs(error) < np.exp(facts @ learnt["interval"]) for error, facts in others]
    median = np.median(np.abs([error for error, _ in others]))
    print(f"of {len(others)} other mats: median error {median:.3f}, {np.mean(held):.0%} held")
    learnt = learnt_from_mats(mats, known)
    whole = {name: each.astype(np.float32) for name, each in learnt.items()}
    np.savez_compressed(options.out, **stored, **whole)


if __name__ == "__main__":
    main()
