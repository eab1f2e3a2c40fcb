"""Train the network that measures fibre diameters, on synthetic mats.

    python -m benchmarks.fibres.train --out hypervlad/fibres/profile_network.npz

Draws mats of random looks, diameters, blurs and contrasts, and images without fibres; looks at
points of their centre lines as `hypervlad.fibres` does, first with the diameters of the ridges,
then with those that a first network finds there; and trains the network to say where a fibre lies
with both edges visible, how wide it is, and how sure it is of this. Then it learns, from other
mats, how far medians are off. 6000 images take some hours on two cores; --images 60 --epochs 2
shows in a minute that it runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize
from scipy.spatial import cKDTree
from torch import nn
from torch.nn import functional

from benchmarks.common.program import new_parser, parse
from hypervlad.data import FIBRE_LOOKS
from hypervlad.data.synthetic.fibres import FibreStyle, FibreTruth, draw_fibres
from hypervlad.fibres import diameters
from hypervlad.fibres.gradients import normalised_contrast
from hypervlad.fibres.mixture import weighted_quantiles
from hypervlad.fibres.places import Field, Places, find_places, followed, look_at, moved
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

N_PLACES = 220  # per image; a step takes half of them
BATCH = 16  # images
_NO_LOOK = -1
_SHARE_EMPTY = 0.05


@dataclass(frozen=True, eq=False)
class Sample:
    """Places of one image, as the network sees them, and the truth."""

    seen: np.ndarray  # (n, n_inputs)
    spectrum: np.ndarray
    is_fibre: np.ndarray
    log_ratio: np.ndarray
    offset: np.ndarray
    look: int
    log_blur: float


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def drawn(seed: int) -> tuple[np.ndarray, FibreTruth, float]:
    """Return the pixels of a mat, the truth, and 1 for bright or -1 for dark fibres."""
    rng = np.random.default_rng([99, seed])
    look = FIBRE_LOOKS[seed % len(FIBRE_LOOKS)]
    diameter = log_uniform(rng, 2.2, 45)
    low, high = ((200, 240), (300, 360)) if diameter < 5 else ((256, 320), (420, 560))
    asked = {
        "diameter": diameter,
        "spread": rng.uniform(0.03, 0.42),
        "cover": rng.uniform(0.04, 0.95),
        "curl": rng.choice([0, rng.uniform(0, 0.8)]),
        "length": math.inf,
        "blur": rng.uniform(0.4, 3.2),
        "contrast_to_noise": log_uniform(rng, 1.8, 35),
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
        rims=(rng.uniform(0.3, 0.8), rng.uniform(0.2, 0.45)),
        rounded=rng.uniform(0, 0.5),
        absorption=log_uniform(rng, 0.5, 2.2),
    )
    bounds = {name: (float(value), float(value)) for name, value in asked.items()}
    size = int(rng.integers(low[0], high[0])), int(rng.integers(low[1], high[1]))
    image, truth = draw_fibres(rng, bounds, second, look, size, style)
    sign = -1.0 if look == "transmission" else 1.0
    if sign > 0 and rng.random() < 0.12:
        image, sign = 1 - image, -1.0
    return disturbed(rng, image.astype(float)), truth, sign


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
    return np.rint(image * rng.uniform(60, 255)) if rng.random() < 0.3 else image


def without_fibres(seed: int) -> np.ndarray:
    """Return noise, clouds, discs, or areas with borders."""
    rng = np.random.default_rng([31, seed])
    size = int(rng.integers(200, 420)), int(rng.integers(240, 500))
    kind, image = seed % 4, np.zeros(size)
    if kind == 0:
        return gaussian_filter(rng.standard_normal(size), rng.uniform(0, 1.2))
    clouds = gaussian_filter(rng.standard_normal(size), log_uniform(rng, 1, 15))
    if kind == 1:
        image = clouds
    elif kind == 2:
        image = gaussian_filter((clouds > 0).astype(float), rng.uniform(0.5, 2.5))
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
    return image / max(np.ptp(image), 1e-9) + rng.standard_normal(size) / log_uniform(rng, 2, 30)


def true_fibres(places: Places, truth: FibreTruth) -> tuple[np.ndarray, np.ndarray]:
    """Return the fibre that each place lies on, -1 if none, and how far its middle is off.

    Its centre line is near, has the place's direction, and it is the uppermost in the middle and
    near both edges.
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
    fits = np.abs((steps[point] * normal).sum(axis=1)) < np.sin(0.35)
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
    best, off = np.full(len(places), -1), np.zeros(len(places))
    fitting = np.flatnonzero(fits)
    for k in fitting[np.argsort(-np.abs(offset[fitting]) / diameter[fitting])]:
        best[place[k]], off[place[k]] = fibre[k], offset[k]
    return best, off


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
    for sign in (right, -right) if seed % 3 == 0 else (right,):
        places = Places.on_ridges(field, sign, 2 * N_PLACES)
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
            turn = 0.03 * rng.standard_normal((len(places), 1))
            scale = np.exp(rng.uniform(-0.08, 0.08) + 0.05 * rng.standard_normal(len(places)))
            normals = np.cos(turn) * places.normals + np.sin(turn) * places.tangents
            places = replace(places, normals=normals, diameter=places.diameter * scale)
        samples.append(_sample(field, sign, places, own, spectrum))
    return samples


def _sample(
    field: Field, sign: float, places: Places, truth: FibreTruth | None, spectrum: np.ndarray
) -> Sample:
    fibre, offset = np.full(len(places), -1), np.zeros(len(places))
    if truth is not None:
        fibre, offset = true_fibres(places, truth)
    diameter = places.diameter if truth is None else truth.diameters[fibre]
    return Sample(
        seen=seen_by_network(*look_at(field, sign, places)).astype(np.float16),
        spectrum=spectrum,
        is_fibre=fibre >= 0,
        log_ratio=np.log(diameter / places.diameter).astype(np.float32),
        offset=(offset / places.diameter).astype(np.float32),
        look=_NO_LOOK if truth is None else FIBRE_LOOKS.index(truth.look),
        log_blur=0.0 if truth is None else math.log(truth.blur),
    )


class Network(nn.Module):
    """As `ProfileNetwork`, for many images at a time."""

    def __init__(self, n_inputs: int) -> None:
        super().__init__()
        first, second, context = 160, 64, 32
        self.first = nn.Linear(n_inputs, first)
        self.second = nn.Linear(first, second)
        self.trust = nn.Linear(second, 1)
        self.context = nn.Linear(2 * second + N_FREQUENCIES, context)
        self.third = nn.Linear(second + context, 64)
        self.profile = nn.Linear(64, 4)
        self.image = nn.Linear(context, len(FIBRE_LOOKS) + 1)

    def forward(
        self, seen: torch.Tensor, image: torch.Tensor, spectrum: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = self.second(self.first(seen).relu()).relu()
        trust = self.trust(hidden)
        weights = torch.cat([torch.ones_like(trust), trust.sigmoid()], dim=1)
        empty = torch.zeros(len(spectrum), hidden.shape[1])
        sums = [empty.index_add(0, image, weights[:, i : i + 1] * hidden) for i in range(2)]
        totals = torch.zeros(len(spectrum), 2).index_add(0, image, weights)
        means = [sums[0] / totals[:, :1], sums[1] / (totals[:, 1:] + 1)]
        context = self.context(torch.cat([*means, SPECTRUM_FACTOR * spectrum], dim=1)).relu()
        third = self.third(torch.cat([hidden, context[image]], dim=1)).relu()
        return self.profile(third), trust[:, 0], self.image(context)

    def exported(self) -> ProfileNetwork:
        return ProfileNetwork({k: v.detach().numpy().copy() for k, v in self.state_dict().items()})


def loss_of(network: Network, samples: Sequence[Sample], rng: np.random.Generator) -> torch.Tensor:
    seen, image, is_fibre, ratio, offset = [], [], [], [], []
    for i, sample in enumerate(samples):
        some = rng.permutation(len(sample.seen))[: N_PLACES // 2]
        flat, n_profile = sample.seen[some].astype(np.float32), N_ROWS * N_SAMPLES
        profile = flat[:, :n_profile].reshape(-1, N_ROWS, N_SAMPLES)
        turned, reversed_ = rng.random((2, len(some))) < 0.5  # fibres have no direction
        profile[turned] = profile[turned, :, ::-1]
        profile[reversed_] = profile[reversed_, ::-1]
        flat[:, :n_profile] = profile.reshape(len(some), -1)
        seen.append(flat)
        image.append(np.full(len(some), i))
        is_fibre.append(sample.is_fibre[some])
        ratio.append(sample.log_ratio[some])
        offset.append(np.where(turned, -1, 1) * sample.offset[some])
    number, found = (
        torch.from_numpy(np.concatenate(image)),
        torch.from_numpy(np.concatenate(is_fibre)),
    )
    spectrum = torch.from_numpy(np.stack([each.spectrum for each in samples]))
    out, trust, looks = network(torch.from_numpy(np.concatenate(seen)), number, spectrum)
    presence = functional.binary_cross_entropy_with_logits
    loss = presence(out[:, 0], found.float()) + 0.3 * presence(trust, found.float())
    look = torch.tensor([each.look for each in samples])
    if (known := look >= 0).any():
        blur = torch.tensor([each.log_blur for each in samples])
        loss = loss + 0.5 * functional.cross_entropy(looks[known, :-1], look[known])
        loss = loss + 0.5 * (looks[known, -1] - blur[known]).square().mean()
    if not found.any():
        return loss
    true_ratio = torch.from_numpy(np.concatenate(ratio))[found]
    true_offset = torch.from_numpy(np.concatenate(offset).astype(np.float32))[found]
    off, log_error = out[found, 1] - true_ratio, out[found, 2].clamp(*LOG_ERRORS)
    # Of Student's distribution with four degrees of freedom, for outliers.
    loss = loss + (2.5 * torch.log1p((off * torch.exp(-log_error)).square() / 4) + log_error).mean()
    true_size = torch.exp(-true_ratio)
    scaled = functional.smooth_l1_loss(out[found, 3] * true_size, true_offset * true_size, beta=0.1)
    # What all places of an image share is wrong with the median, too.
    count = torch.zeros(len(samples)).index_add(0, number[found], torch.ones(len(off)))
    shared = torch.zeros(len(samples)).index_add(0, number[found], off.clamp(-0.7, 0.7))
    shared = (shared / count.clamp(min=1))[count > 15]
    if len(shared):
        loss = loss + 6 * functional.smooth_l1_loss(shared, torch.zeros_like(shared), beta=0.05)
    return loss + 4 * scaled


def trained(samples: Sequence[Sample], n_epochs: int) -> Network:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = Network(samples[0].seen.shape[1])
    n_steps = n_epochs * (len(samples) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-3)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=n_steps + 1)
    for epoch in range(n_epochs):
        losses, order = [], rng.permutation(len(samples))
        for i in range(0, len(order) - BATCH + 1, BATCH):
            loss = loss_of(network, [samples[j] for j in order[i : i + BATCH]], rng)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 2.0)
            optimiser.step()
            rates.step()
            losses.append(float(loss.detach()))
        print(f"epoch {epoch + 1} of {n_epochs}: loss {np.mean(losses):.3f}", flush=True)
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


def interval_of(network: ProfileNetwork, seeds: Sequence[int]) -> np.ndarray:
    """Return how half the width of the interval of a mat's log median depends on its places.

    Errors of medians follow Student's distribution with four degrees of freedom, whose scale
    depends on the facts; then the width is that which holds 95 % of these mats.
    """
    facts, errors = [], []
    for seed in seeds:
        try:
            pixels, truth, _ = drawn(seed)
        except ValueError:
            continue
        contrast = normalised_contrast(pixels.astype(np.float32))
        field = Field.of(contrast, np.ones(contrast.shape, dtype=bool))
        found = find_places(field, [1.0, -1.0], field.n_places(*diameters.N_PLACES), network)
        places = diameters.accepted_places(field, found)[0] if found else []
        if len(places) < diameters.LEAST_PLACES or found is None:
            continue
        _, lengths = followed(places)
        (median,) = weighted_quantiles(places.diameter, lengths, [0.5])
        if diameters.is_resolved(found, median):
            facts.append(diameters.interval_facts(field, places, lengths))
            errors.append(math.log(median / truth.median))
    x, error = np.array(facts), np.abs(errors)
    mean, scale = x.mean(axis=0), np.append(1.0, x[:, 1:].std(axis=0))
    standard = np.column_stack([np.ones(len(x)), (x[:, 1:] - mean[1:]) / scale[1:]])

    def misfit(factors: np.ndarray) -> float:
        log_scale = standard @ factors
        square = (error * np.exp(-log_scale)) ** 2
        return float(np.mean(2.5 * np.log1p(square / 4) + log_scale))

    factors = minimize(misfit, [-2.5, 0, 0, 0]).x
    factors[0] += np.log(np.quantile(error * np.exp(-standard @ factors), 0.95))
    slopes = factors[1:] / scale[1:]
    print(f"interval: of {len(x)} mats, median error {np.median(error):.3f}")
    return np.append(factors[0] - slopes @ mean[1:], slopes)


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, Path("profile_network.npz"))
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--processes", type=int, default=2)
    options: Any = parse(parser, argv)
    n_first = options.images // 4
    first = list(drawn_samples(range(n_first), None, options.processes))
    guesser = trained(first, options.epochs).exported()
    later = list(drawn_samples(range(n_first, options.images), guesser, options.processes))
    network = trained(first + later, options.epochs).exported()
    stored = {name: each.astype(np.float16) for name, each in network.weights.items()}
    others = range(options.images, options.images + max(options.images // 5, 20))
    stored["interval"] = interval_of(network, others).astype(np.float32)
    np.savez_compressed(options.out, **stored)


if __name__ == "__main__":
    main()
