"""Train the network that tells bundles of fibres from wide fibres.

    python -m benchmarks.fibres.bundles --out hypervlad/fibres/bundle_network.npz

It learns from drawn mean profiles, not from images: of single fibres of many looks, with shells,
walls, facets and textures, and of two to six fibres side by side, as the network of diameters finds
them: with errors of width and place, and sometimes a part of the bundle only. Lengths are in units
of the radius found.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from scipy.ndimage import gaussian_filter1d
from torch.nn import Linear, ReLU, Sequential, functional

from benchmarks.common.program import new_parser, parse
from hypervlad.fibres.bundles import ACROSS, bundle_facts

N_PROFILES, N_EPOCHS, BATCH = 120_000, 30, 256
SHARE = 0.4  # of bundles
NUMBERS = {2: 0.4, 3: 0.25, 4: 0.15, 5: 0.1, 6: 0.1}  # of fibres, and how often
GAPS = ((0.97, 1.04), (0.97, 1.04), (1.04, 1.4), (0.7, 0.97))  # of middles, over the diameter
LOOKS = ("flat", "round", "rims", "transmission", "rims", "round")
OF_SINGLES = (*LOOKS, "walls", "tube", "shell", "shell in transmission", "facets")
FINE = np.linspace(-3, 3, 451)
STEP = FINE[1] - FINE[0]
HIDDEN = (48, 24)


def brightness(rng: Generator, look: str) -> dict[str, float]:
    """Draw what all fibres of an image share."""
    return {
        "edge": rng.uniform(0.1, 0.7),
        "middle": rng.uniform(0.3, 0.85),
        "rim": rng.uniform(0.15, 0.5),
        "core": rng.uniform(0.3, 0.85),
        "shell": rng.uniform(0, 0.4),
        "step": rng.uniform(-0.7, 0.7),
        "other_step": rng.uniform(-0.7, 0.7),
        "lit": float(rng.choice([0, 0, rng.uniform(-0.5, 0.5)])),
        "wall": rng.uniform(0.6, 1),
        "dense": rng.uniform(0.4, 1.2),
        "drop": float(rng.choice([0, 0.05, 0.15])),
    }


def height(place: np.ndarray) -> np.ndarray:
    return np.sqrt(np.clip(1 - place**2, 0, None))


def thickness(place: np.ndarray, look: str, q: dict[str, float]) -> np.ndarray:
    """Return what absorbs, in transmission."""
    up, core = height(place), q["core"] * height(place / q["core"])
    if look == "tube":
        return up - q["wall"] * core
    return up if look == "transmission" else up / 2 + q["dense"] * core


def surface(place: np.ndarray, look: str, q: dict[str, float]) -> np.ndarray:
    up, inside, middle = height(place), np.abs(place) < 1, q["middle"]
    if look == "flat":
        seen = np.ones_like(up)
    elif look == "round":
        seen = q["edge"] + (1 - q["edge"]) * up
    elif look == "rims":
        seen = middle + (1 - middle) * (1 / np.maximum(up, q["rim"]) - 1) / (1 / q["rim"] - 1)
    elif look == "walls":
        seen = middle + (1 - middle) * (np.abs(place) > q["core"])
    elif look == "shell":
        core = q["edge"] + (1 - q["edge"]) * height(place / q["core"])
        seen = middle + q["shell"] * up + (1 - middle) * (np.abs(place) < q["core"]) * core
    else:
        low, high = sorted([q["step"], q["other_step"]])
        seen = np.select([place < low, place < high], [middle, 1.0], q["edge"])
    return inside * seen * (1 + q["lit"] * place * inside)


def side_by_side(rng: Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the middles and the diameters of fibres, where the radius found is 1."""
    apart = rng.uniform(*GAPS[rng.integers(len(GAPS))])
    widths = np.exp(rng.choice([0.02, 0.08, 0.15, 0.22]) * rng.standard_normal(n))
    middles = np.append(0, np.cumsum((widths[1:] + widths[:-1]) / 2 * apart))
    found = slice(0, n)
    if n > 2 and rng.random() < 0.25:
        part = rng.integers(2, n)
        found = slice(first := rng.integers(0, n - part + 1), first + part)
    low, high = (middles - widths / 2)[found].min(), (middles + widths / 2)[found].max()
    scale = 2 * np.exp(-rng.normal(-0.1, 0.11)) / (high - low)
    middles = (middles - (low + high) / 2) * scale + rng.normal(0, 0.04)
    return middles, widths * scale


def neighbour(rng: Generator, low: float, high: float) -> np.ndarray:
    """Return something beside the fibres, in half of the draws."""
    if rng.random() < 0.5:
        return np.zeros_like(FINE)
    side, width = rng.choice([-1, 1]), rng.uniform(0.5, 3)
    edge = high if side > 0 else low
    place = (FINE - edge - side * (rng.exponential(0.6) + width / 2)) / (width / 2)
    seen = height(place) if rng.random() < 0.5 else np.abs(place) < 1
    return rng.uniform(0.3, 1) * seen


def sharp_profile(rng: Generator, look: str, middles: np.ndarray, widths: np.ndarray) -> np.ndarray:
    q = brightness(rng, look)
    places = (FINE - middles[:, None]) / (widths[:, None] / 2)
    low, high = middles[0] - widths[0] / 2, middles[-1] + widths[-1] / 2
    beside = neighbour(rng, low, high)
    if look in ("transmission", "tube", "shell in transmission"):
        absorbs = sum(
            thickness(place, look, q) * width / widths.max()
            for place, width in zip(places, widths, strict=True)
        )
        return 1 - np.exp(-rng.uniform(0.4, 1.6) * (absorbs + beside))
    shadow = rng.choice([0, 0, 0.5])
    away = np.maximum(np.maximum(low - FINE, FINE - high), 0) / (0.5 * widths.mean())
    ground = rng.uniform(0, 0.35) + rng.choice([0, rng.uniform(0, 0.5)]) * beside
    seen = np.stack([(1 - q["drop"] * rng.random()) * surface(u, look, q) for u in places])
    nearest = np.abs(places).argmin(axis=0)
    upper = np.take_along_axis(seen, nearest[None], axis=0)[0]
    is_fibre = np.abs(places).min(axis=0) < 1
    profile = np.where(is_fibre, upper, ground * (1 - shadow * np.exp(-2 * away)))
    if depth := rng.choice([0, 0, 0, 0.02, 0.05]):  # a texture that runs along the fibre
        texture = gaussian_filter1d(rng.standard_normal(len(FINE)), rng.uniform(0.06, 0.5) / STEP)
        profile = profile + depth * texture / texture.std() * is_fibre
    return profile


def drawn(rng: Generator) -> tuple[np.ndarray, bool, float]:
    """Return what the network sees, whether it is a bundle, and the logarithm of how wide."""
    is_bundle = bool(rng.random() < SHARE)
    n = int(rng.choice(list(NUMBERS), p=list(NUMBERS.values()))) if is_bundle else 1
    middles, widths = side_by_side(rng, n)
    look, single = str(rng.choice(LOOKS if is_bundle else OF_SINGLES)), float(np.median(widths))
    profile = sharp_profile(rng, look, middles, widths)
    pixels = np.exp(rng.uniform(np.log(5), np.log(80)))  # the diameter found
    # Bundles with more blur do not show.
    blur = min(rng.uniform(0.6, 2.6) * 2 / pixels, 0.45 * single if is_bundle else 0.6, 0.6)
    unsharp = np.hypot(blur, rng.uniform(0, 0.06)) / STEP
    profile = gaussian_filter1d(profile, unsharp, mode="nearest")
    profile = np.interp(ACROSS, FINE, np.abs(profile - profile.min()) ** rng.uniform(0.7, 1.4))
    at = np.arange(-2, 2, 2 / pixels) + rng.uniform(0, 1) / pixels
    grain = max(rng.uniform(0, 1.6), 0.01)
    noise = gaussian_filter1d(rng.standard_normal(len(at)), grain, mode="wrap")
    noise = np.interp(ACROSS, at, noise)
    level = np.exp(rng.uniform(np.log(0.001), np.log(0.08))) * np.ptp(profile)
    profile = profile + level * noise / noise.std()
    noise_found, blur_found = (
        value * np.exp(rng.normal(0, spread)) for value, spread in ((level, 0.3), (blur, 0.25))
    )
    seen = bundle_facts(profile, noise_found, 1.0, blur_found)
    return seen, is_bundle, float(np.log(2 / single))


def turned(seen: torch.Tensor) -> torch.Tensor:
    n = len(ACROSS)
    return torch.cat([seen[:, :n].flip(1), seen[:, n:]], dim=1)


def trained(profiles: Sequence[tuple[np.ndarray, bool, float]], n_epochs: int) -> Sequential:
    seen = torch.tensor(np.stack([each[0] for each in profiles]))
    is_bundle, ratio = torch.tensor([each[1:] for each in profiles], dtype=torch.float32).T
    (first, second), n = HIDDEN, seen.shape[1]
    network = Sequential(Linear(n, first), ReLU(), Linear(first, second), ReLU(), Linear(second, 2))
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    steps = n_epochs * (len(seen) // BATCH)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, 8e-3, total_steps=steps)
    for _ in range(n_epochs):
        for own in torch.randperm(len(seen)).split(BATCH)[: len(seen) // BATCH]:
            some = torch.where(torch.rand(len(own), 1) < 0.5, turned(seen[own]), seen[own])
            odds, wide = network(some).T
            loss = functional.binary_cross_entropy_with_logits(odds, is_bundle[own])
            loss = loss + 1.5 * (is_bundle[own] * (wide - ratio[own]).abs()).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rates.step()
    return network


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, Path("bundle_network.npz"))
    parser.add_argument("--profiles", type=int, default=N_PROFILES)
    parser.add_argument("--epochs", type=int, default=N_EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    options = parse(parser, argv)
    rng = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    network = trained([drawn(rng) for _ in range(options.profiles)], options.epochs)
    layers = zip(("first", "second", "last"), (network[0], network[2], network[4]), strict=True)
    weights = {
        f"{name}.{kind}": getattr(layer, kind).detach().numpy().astype(np.float16)
        for name, layer in layers
        for kind in ("weight", "bias")
    }
    np.savez_compressed(options.out, **weights)


if __name__ == "__main__":
    main()
