"""Fields of particles of every look, drawn with their truth: to train the finder, and to test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from scipy.ndimage import find_objects, gaussian_filter, label, zoom

from benchmarks.common.data import as_jpeg, log_uniform

_LEAST_VISIBLE = 0.15  # of a particle's area: less has no outline, and is not judged
_LEAST_SIGNAL = 7.0  # of a whole particle, in standard deviations of the noise
_N_TRIES = 600  # to place a particle
_TEXTURE = 512  # pixels, from which particles get theirs: as large as the largest fields
_LEAST_AREA = 12  # pixels
_SHAPES = ("disc", "ellipse", "polygon", "cube", "rod", "rough")
_PROFILES = ("flat", "round", "rim", "ring", "shell", "facets")


@dataclass(frozen=True)
class Looks:
    """Bounds between which the look of a field is drawn."""

    diameter: tuple[float, float] = (5.0, 110.0)  # pixels, of the median particle
    spread: tuple[float, float] = (0.02, 0.5)  # of the logarithm of diameters
    cover: tuple[float, float] = (0.02, 0.8)
    clinging: tuple[float, float] = (0.0, 0.9)  # share of particles that touch an earlier one
    apart: tuple[float, float] = (0.5, 1.15)  # centres of those that touch, in sums of radii
    contrast_to_noise: tuple[float, float] = (1.2, 40.0)
    grain: tuple[float, float] = (0.0, 2.0)  # standard deviation of the noise's smoothing, pixels
    blur: tuple[float, float] = (0.4, 2.5)
    shapes: tuple[str, ...] = _SHAPES
    aspects: tuple[float, float] = (2.2, 6.0)  # at most, of ellipses and of rods
    profiles: tuple[str, ...] = _PROFILES
    pile: float = 0.15  # probability of particles upon particles, everywhere
    lattice: float = 0.15  # probability of particles side by side in rows, as they dry
    empty: float = 0.2
    stains: float = 0.45  # probability of faint dirt beside particles
    clutter: float = 0.25  # probability of edges of a support, and of lines
    dark: float = 0.5  # probability of particles that are darker than the background
    decoys: float = 0.0  # probability of others of the opposite polarity, which are not meant
    support: float = 0.0  # probability of a film with holes, or of a net, below particles
    rows: float = 0.0  # probability of rows in which particles lie side by side
    faint: float = 0.0  # probability that half of the particles have little contrast
    two_sizes: float = 0.0  # probability that half of them are small beside the others


@dataclass
class _Canvas:
    """What is drawn so far: the particles' signal, and whose each pixel is."""

    signal: np.ndarray
    labels: np.ndarray
    depth: np.ndarray  # pixels to the edge of the particle that each pixel is labelled with
    areas: list[int] = field(default_factory=list)


def drawn_field(
    rng: np.random.Generator, size: tuple[int, int], looks: Looks | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return grey values (H, W) and labels (H, W): 0 background, -1 what is not judged."""
    looks = looks or Looks()
    canvas = _Canvas(np.zeros(size), np.zeros(size, np.int32), np.zeros(size))
    diameter = log_uniform(rng, *looks.diameter)
    is_empty = rng.random() < looks.empty
    is_pile = not is_empty and rng.random() < looks.pile
    if not is_empty:
        _draw_particles(rng, canvas, looks, diameter, is_pile)
    elif rng.random() < 0.3:  # dirt alone
        canvas.signal = _stains(rng, size, diameter) * 3
    labels = _visible(canvas)
    if rng.random() < (2 if is_empty else 1) * looks.decoys:
        decoys = _decoys(rng, looks, size, diameter, is_empty)
        canvas.signal -= np.where(canvas.labels > 0, 0, decoys)
    sign = -1.0 if rng.random() < looks.dark else 1.0
    if not is_empty and not is_pile and rng.random() < looks.stains:
        canvas.signal += np.where(canvas.labels > 0, 0.3, 1) * _stains(rng, size, diameter)
    image = sign * canvas.signal + _background(rng, size, looks, is_empty)
    if looks.support and rng.random() < looks.support:  # without one, no number is drawn
        hides = rng.choice([0.0, 1.0], p=[0.7, 0.3])  # in transmission, particles do not
        image += sign * np.where(canvas.labels > 0, 1 - hides, 1) * _support(rng, size, diameter)
    blur = min(log_uniform(rng, *looks.blur), max(0.4, diameter / 6))
    image = gaussian_filter(image, blur)
    grain = rng.uniform(*looks.grain) if rng.random() < 0.65 else looks.grain[0]
    low, high = looks.contrast_to_noise
    # Where noise hides them, particles have no outline that anything could find.
    low = float(np.clip(_LEAST_SIGNAL * np.hypot(1, 3.5 * grain) / (0.9 * diameter), low, high))
    high = min(high, 4 * low) if rng.random() < 0.6 else high
    image = image + _noise(rng, size, grain) / log_uniform(rng, low, high)
    return _detected(rng, image), labels


# --- particles -----------------------------------------------------------------------------------


def _draw_particles(
    rng: np.random.Generator, canvas: _Canvas, looks: Looks, diameter: float, is_pile: bool
) -> None:
    height, width = canvas.signal.shape
    spread = rng.uniform(*looks.spread)
    shape, kind = str(rng.choice(looks.shapes)), str(rng.choice(looks.profiles))
    draw = _profile(rng, kind, diameter)
    cover = 3.0 if is_pile else log_uniform(rng, *looks.cover)
    clinging, is_thin = rng.uniform(*looks.clinging), not is_pile and rng.random() < 0.4
    least_apart = 0.45 if is_pile else rng.uniform(*looks.apart)
    varied = rng.choice([0.0, rng.uniform(0, 0.4)])
    # Of equal silhouettes, nobody sees which one is above.
    is_saturated = not is_pile and ((kind == "flat" and not varied) or rng.random() < 0.15)
    is_thin = is_thin or is_saturated
    is_mixed = rng.random() < 0.2  # several shapes in one field
    is_in_rows = looks.rows and rng.random() < looks.rows  # without them, no number is drawn
    centres, radii, n, area = np.empty((_N_TRIES, 2)), np.empty(_N_TRIES), 0, 0.0
    margin = diameter / 2
    goal = cover * (height + diameter) * (width + diameter)
    least_contrast, least_size = (  # of every second particle; without them, no number is drawn
        rng.uniform(0.2, 0.6) if share and rng.random() < share else 1.0
        for share in (looks.faint, looks.two_sizes)
    )
    rows, turns = np.empty((0, 2)), np.empty(0)
    aspect = rng.uniform(2, looks.aspects[1]) if is_in_rows and shape == "rod" else None
    if is_in_rows:
        pitch = diameter * (0.89 if shape == "cube" else (aspect or 1) ** -0.5)
        rows, turns = _rows(rng, (height, width), diameter, pitch + log_uniform(rng, 0.3, 4))
        spread, least_apart, varied = spread / 8, 0.9 * pitch / diameter, varied / 2
    elif not is_pile and rng.random() < looks.lattice:
        rows, spread, least_apart = _lattice(rng, (height, width), diameter), spread / 4, 0.7
        goal = rng.uniform(0.5, 1.2) * goal / cover
    for attempt in range(_N_TRIES):
        if area >= goal or 0 < len(rows) <= attempt:
            break
        is_small = least_size < 1 and rng.random() < 0.5
        radius = diameter / 2 * np.exp(spread * rng.standard_normal())
        radius *= least_size if is_small else 1.0
        radius = float(np.clip(radius, 2.0, 0.35 * min(height, width)))
        if len(rows):
            centre = rows[attempt]
        elif n and rng.random() < clinging:
            other = rng.integers(n)
            away, turn = (
                rng.uniform(*looks.apart) * (radius + radii[other]),
                rng.uniform(0, 2 * np.pi),
            )
            centre = centres[other] + away * np.array([np.sin(turn), np.cos(turn)])
        else:
            centre = rng.uniform([-margin, -margin], [height + margin, width + margin])
        if n:
            y, x = (centres[:n] - centre).T
            least = (np.hypot(y, x) / (radius + radii[:n])).min()
            if least < least_apart and not (is_pile and rng.random() < 0.5):
                continue
        centres[n], radii[n], n = centre, radius, n + 1
        area += np.pi * radius**2
        if is_mixed:
            shape = str(rng.choice(looks.shapes))
        is_faint = least_contrast < 1 and rng.random() < 0.5
        amplitude = float(np.exp(varied * rng.standard_normal()))
        amplitude *= least_contrast if is_faint else 1.0
        if is_pile:
            amplitude *= 0.45 + 0.55 * min(1.0, area / goal * 1.2)
        own_aspect = {
            "ellipse": rng.uniform(1.1, looks.aspects[0]),
            "rod": rng.uniform(2, looks.aspects[1]),
        }.get(shape, 1.0)
        form = _Form(shape, aspect or own_aspect, turns[attempt] if len(turns) else None)
        _draw_one(rng, canvas, centre, radius, form, draw, amplitude, is_thin)
    if is_saturated:
        canvas.signal = np.minimum(canvas.signal, rng.uniform(0.8, 1.0))


def _decoys(
    rng: np.random.Generator, looks: Looks, size: tuple[int, int], diameter: float, is_alone: bool
) -> np.ndarray:
    """Return the signal of a few others, or of as many as there may be, where they are alone."""
    canvas = _Canvas(np.zeros(size), np.zeros(size, np.int32), np.zeros(size))
    if not is_alone:
        looks = replace(looks, cover=(0.01, 0.1), clinging=(0.0, 0.3), lattice=0)
        diameter = max(5.0, diameter * log_uniform(rng, 0.3, 1.5))
    # Of rims and shells of low contrast, nobody knows what is particle.
    looks = replace(looks, profiles=("flat", "round", "facets"))
    _draw_particles(rng, canvas, looks, diameter, False)
    return canvas.signal * rng.uniform(0.2, 1)


def _lattice(rng: np.random.Generator, size: tuple[int, int], diameter: float) -> np.ndarray:
    """Return centres in hexagonal order, shaken and turned, in random order."""
    pitch, turn = diameter * rng.uniform(0.98, 1.4), rng.uniform(0, np.pi)
    reach = int(np.ceil(np.hypot(*size) / pitch)) + 1
    row, column = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    x, y = (column + row % 2 / 2) * pitch, row * pitch * np.sqrt(0.75)
    shaken = rng.normal(0, rng.uniform(0, 0.15) * pitch, (2, len(x)))
    turned = np.stack([y * np.cos(turn) + x * np.sin(turn), x * np.cos(turn) - y * np.sin(turn)])
    centres = (turned + shaken).T + np.array(size) / 2
    inside = ((centres > -diameter / 2) & (centres < np.array(size) + diameter / 2)).all(axis=1)
    return rng.permutation(centres[inside])


def _rows(
    rng: np.random.Generator, size: tuple[int, int], diameter: float, pitch: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return centres of particles in rows, and the direction of each one's row."""
    n_rows, n_most = int(rng.integers(2, 12)), int(rng.integers(2, 12))
    centres, turns = list[np.ndarray](), list[float]()
    for _ in range(n_rows):
        turn, first = rng.uniform(0, np.pi), rng.uniform(0, size)
        step = pitch * np.array([np.sin(turn), np.cos(turn)])
        for k in range(int(rng.integers(1, n_most + 1))):
            centre = first + k * step + rng.normal(0, 0.02 * diameter, 2)
            centres.append(centre)
            turns.append(turn + rng.normal(0, 0.02))
    return np.array(centres), np.array(turns)


class _Form(NamedTuple):
    shape: str
    aspect: float = 1.0
    row: float | None = None  # direction of the row that it lies in, across rods


def _draw_one(
    rng: np.random.Generator,
    canvas: _Canvas,
    centre: np.ndarray,
    radius: float,
    form: _Form,
    draw: Callable[..., tuple[np.ndarray, np.ndarray]],
    amplitude: float,
    is_thin: bool,
) -> None:
    reach = int(np.ceil(radius * np.sqrt(form.aspect) * 1.5 + 8))
    top, left = (round(value) - reach for value in centre)
    height, width = canvas.signal.shape
    rows = slice(max(0, top), min(height, top + 2 * reach + 1))
    columns = slice(max(0, left), min(width, left + 2 * reach + 1))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    y, x = np.mgrid[rows, columns]
    gauge, turn = _gauge(rng, (y - centre[0]) / radius, (x - centre[1]) / radius, form)
    short = radius / np.sqrt(form.aspect)
    value, beside = draw(rng, gauge, (1 - gauge) * short, turn)
    alpha = np.clip((1 - gauge) * short + 0.5, 0, 1)
    window, number = (rows, columns), len(canvas.areas) + 1
    inside = gauge < 1
    if is_thin:  # light passes through all
        canvas.signal[window] += amplitude * (alpha * value + (1 - alpha) * beside)
        taken = inside & ((1 - gauge) * short > canvas.depth[window])
    else:
        under = canvas.signal[window] + amplitude * beside
        canvas.signal[window] = alpha * amplitude * value + (1 - alpha) * under
        taken = inside
    canvas.labels[window][taken] = number
    canvas.depth[window][taken] = ((1 - gauge) * short)[taken]
    canvas.areas.append(int(np.pi * radius**2))


def _gauge(
    rng: np.random.Generator, y: np.ndarray, x: np.ndarray, form: _Form
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gauge, 0 in the middle, 1 at the edge and more beyond, and the direction."""
    shape, aspect, row = form
    turn = rng.uniform(0, 2 * np.pi)
    if row is not None:
        turn = row + (np.pi / 2 if shape == "rod" else 0)
    across, along = x * np.sin(turn) + y * np.cos(turn), x * np.cos(turn) - y * np.sin(turn)
    angle = np.arctan2(across, along)
    if shape in ("disc", "ellipse"):
        return np.hypot(across * np.sqrt(aspect), along / np.sqrt(aspect)), angle
    if shape == "rod":
        half = np.sqrt(aspect) - 1 / np.sqrt(aspect)  # of the straight part, in radii
        beyond = np.maximum(np.abs(along) - half, 0)
        return np.hypot(across, beyond) * np.sqrt(aspect), angle
    if shape == "star":
        n, spike = int(rng.integers(4, 16)), rng.uniform(0.1, 0.4)
        return np.hypot(x, y) / (1 + spike * np.cos(n * angle)), angle
    if shape == "arms":
        n, core, sharp = int(rng.integers(3, 10)), rng.uniform(0.25, 0.65), rng.uniform(1, 10)
        arms = np.abs(np.cos(n * angle / 2)) ** sharp
        return np.hypot(x, y) / (core + (1.2 - core) * arms), angle
    if shape == "dumbbell":  # two ends, apart, and a bar between them
        end = rng.uniform(0.4, 0.62)
        away, bar = end * rng.uniform(1.15, 1.8), end * rng.uniform(0.15, 0.6)
        ends = end - np.hypot(across, np.abs(along) - away)
        return 1 - np.maximum(ends, np.minimum(bar - np.abs(across), away - np.abs(along))), angle
    if shape == "rough":
        radius = np.ones_like(y)
        for k in range(2, 7):
            radius += rng.normal(0, 0.25 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
        return np.hypot(x, y) / np.maximum(radius, 0.4), angle
    n = 4 if shape == "cube" else int(rng.integers(4, 9))
    turns = 2 * np.pi * (np.arange(n) + (0 if shape == "cube" else rng.uniform(-0.25, 0.25, n))) / n
    away = 0.89 * np.exp(rng.normal(0, 0.02 if shape == "cube" else 0.12, n))
    sides = np.stack(
        [(along * np.cos(t) + across * np.sin(t)) / a for t, a in zip(turns, away, strict=True)]
    )
    sharp = rng.uniform(8, 40)
    return (np.maximum(sides, 0) ** sharp).sum(axis=0) ** (1 / sharp), angle


def _profile(
    rng: np.random.Generator, kind: str, diameter: float
) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Return the function that draws a particle's signal, and what it does to its surroundings."""
    least, width = rng.uniform(0.3, 0.95), max(0.8, diameter * rng.uniform(0.03, 0.15))
    base, inner = rng.uniform(-0.2, 0.85), rng.uniform(0.5, 0.9)
    lit, light = rng.choice([0.0, rng.uniform(0, 0.45)]), rng.uniform(0, 2 * np.pi)
    texture = rng.choice([0.0, rng.uniform(0, 0.3)]) * _noise(
        rng, (_TEXTURE, _TEXTURE), log_uniform(rng, 1, 6)
    )
    fringe = rng.choice([0.0, 0.0, rng.uniform(-0.5, 0.3)])
    fringe_width = max(1.0, diameter * rng.uniform(0.03, 0.25))

    def draw(
        rng: np.random.Generator, gauge: np.ndarray, depth: np.ndarray, angle: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        inside = np.sqrt(np.clip(1 - gauge**2, 0, 1))
        if kind == "round":
            value = least + (1 - least) * inside
        elif kind == "rim":
            value = base + (1 - base) * np.exp(-np.maximum(depth, 0) / width)
        elif kind == "ring":  # as a rim, but of one level
            wall = 2 * width
            value = base + (1 - base) / (1 + np.exp(np.clip(4 * (depth - wall), -50, 50)))
        elif kind == "core":  # within a shell of less contrast
            value = np.where(gauge < inner, 1, 0.2 + 0.5 * max(base, 0))
        elif kind == "shell":
            value = inside - np.sqrt(np.clip(inner**2 - gauge**2, 0, 1))
            value = 0.2 * base + value / np.sqrt(1 - inner**2)
        elif kind == "facets":
            n = int(rng.integers(2, 5))
            sector = np.floor((angle + np.pi + rng.uniform(0, 2)) / (2 * np.pi) * n).astype(int) % n
            value = rng.uniform(least, 1.1, n)[sector]
        else:
            value = np.ones_like(gauge)
        value = value * (1 + lit * np.minimum(gauge, 1) * np.cos(angle - light))
        top, left = (int(rng.integers(max(1, _TEXTURE - side))) for side in value.shape)
        value = value + texture[top : top + len(value), left : left + value.shape[1]]
        return value, fringe * np.exp(-np.maximum(-depth, 0) / fringe_width)

    return draw


def _visible(canvas: _Canvas) -> np.ndarray:
    """Return the labels, -1 where little of a particle is seen, each in one piece."""
    labels = canvas.labels
    for number, window in enumerate(find_objects(labels, len(canvas.areas)), start=1):
        if window is None:
            continue
        part = labels[window]
        own = part == number
        pieces, _ = label(own)
        seen = np.bincount(pieces.ravel())[1:]
        ends = zip(window, labels.shape, strict=True)
        is_cut = any(side.start == 0 or side.stop == extent for side, extent in ends)
        least = (
            _LEAST_AREA if is_cut else max(_LEAST_AREA, _LEAST_VISIBLE * canvas.areas[number - 1])
        )
        part[own & (pieces != 1 + seen.argmax())] = -1
        if seen.max() < least:
            part[own] = -1
    return labels


# --- what is no particle -------------------------------------------------------------------------


def _background(
    rng: np.random.Generator, size: tuple[int, int], looks: Looks, is_empty: bool
) -> np.ndarray:
    """Return light, clouds, and, as clutter, areas with edges, and lines."""
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    found = np.tensordot(rng.uniform(-0.3, 0.3, 5), [x, y, x * y, x**2, y**2], 1)
    found = found * rng.choice([0.0, 1.0, 2.0 if is_empty else 1.0])
    if rng.random() < 0.4:
        found = found + rng.uniform(0, 0.3) * _noise(rng, size, log_uniform(rng, 6, 60))
    if is_empty and rng.random() < 0.5:
        found = found + _noise(rng, size, log_uniform(rng, 1, 30)) * rng.uniform(0, 2)
    if rng.random() < 0.1:  # stripes of charging or of a scan
        line = gaussian_filter(rng.standard_normal(size[0]), log_uniform(rng, 0.5, 20), mode="wrap")
        found = found + rng.uniform(0, 0.3) * (line / line.std())[:, None]
    if rng.random() < (
        0.4 if is_empty else looks.clutter
    ):  # a hole or a fold of the support, or a clipped corner
        radius, turn = log_uniform(rng, 1.0, 6.0), rng.uniform(0, 2 * np.pi)
        away = radius + rng.uniform(-0.9, 0.9)
        gone = np.hypot(x - away * np.cos(turn), y - away * np.sin(turn)) - radius
        sharp = log_uniform(rng, 2, 200)
        found = found + rng.uniform(-1.5, 1.5) / (1 + np.exp(np.clip(-sharp * gone, -50, 50)))
    if rng.random() < looks.clutter / 3:
        for _ in range(int(rng.integers(1, 4))):
            turn, away, bow = rng.uniform(0, np.pi), rng.uniform(-0.8, 0.8), rng.uniform(-0.3, 0.3)
            along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
            thick = log_uniform(rng, 0.008, 0.05)
            at = np.abs(across - away - bow * along**2) < thick
            found = found + rng.uniform(-0.8, 0.8) * at
    return np.asarray(found)


def _support(rng: np.random.Generator, size: tuple[int, int], diameter: float) -> np.ndarray:
    """Return a film with round or other holes, or a net of threads, as grids have them.

    No region of it that is brighter than what is around it could be taken for a particle.
    """
    surface = _noise(rng, size, log_uniform(rng, 6, 60))
    strength, kind = log_uniform(rng, 0.15, 1.2), rng.choice(["film", "net", "round"])
    if kind == "net":
        slope = np.hypot(*np.gradient(surface)) + 1e-9
        near = np.abs(surface - rng.uniform(-0.5, 0.5)) / np.maximum(slope, 0.3 * slope.mean())
        return np.asarray(
            rng.choice([-1, 1]) * strength / (1 + (near / log_uniform(rng, 1, 6)) ** 4)
        )
    if kind == "round":
        canvas = _Canvas(np.zeros(size), np.zeros(size, np.int32), np.zeros(size))
        wide = float(np.clip(diameter * log_uniform(rng, 0.5, 8), 12, 200))
        looks = Looks(shapes=("disc",), profiles=("flat",), apart=(1.0, 1.3), cover=(0.05, 0.6))
        _draw_particles(rng, canvas, looks, wide, False)
        return np.where(canvas.labels > 0, 0, strength)
    film = surface > np.quantile(surface, rng.uniform(0.25, 0.75))
    for is_film in (True, False) if rng.random() < 0.5 else (True,):
        pieces, _ = label(film == is_film)
        areas = np.bincount(pieces.ravel())
        film[(areas < film.size / 16)[pieces] & (pieces > 0)] = not is_film
    return strength * film


def _stains(rng: np.random.Generator, size: tuple[int, int], diameter: float) -> np.ndarray:
    """Return blots and scratches of little contrast, which nobody would outline."""
    found, strength = np.zeros(size), log_uniform(rng, 0.02, 0.2)
    rows, columns = np.mgrid[: size[0], : size[1]]
    for _ in range(int(rng.integers(1, 16))):
        radius = float(np.clip(diameter * log_uniform(rng, 0.1, 2.0), 2, size[0] / 3))
        y, x = (
            (each - rng.uniform(0, n)) / radius
            for each, n in zip((rows, columns), size, strict=True)
        )
        gauge, _ = _gauge(rng, y, x, _Form(str(rng.choice(("rough", "ellipse", "rod"))), 2.5))
        soft = max(0.5, radius * log_uniform(rng, 0.02, 0.5))
        edge = 1 / (1 + np.exp(np.clip((gauge - 1) * radius / soft, -50, 50)))
        found += strength * rng.uniform(-0.3, 1) * edge
    if rng.random() < 0.3:
        found = found + strength * np.abs(_noise(rng, size, log_uniform(rng, 3, 40)))
    if rng.random() < 0.4:  # scratches follow the level lines of a smooth surface
        surface = _noise(rng, size, log_uniform(rng, 15, 60))
        slope = np.hypot(*np.gradient(surface)) + 1e-9
        near = np.abs(surface - rng.uniform(-0.5, 0.5)) / slope
        found += strength * rng.uniform(-1, 1) * (near < rng.uniform(0.5, 2.0))
    return found


def _noise(rng: np.random.Generator, size: tuple[int, ...], smoothing: float) -> np.ndarray:
    noise = rng.standard_normal(size)
    if smoothing > 0.3:
        noise = gaussian_filter(noise, smoothing)
        noise /= max(float(noise.std()), 1e-9)
    return noise


def _detected(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Return grey values from 0 to 1, as detectors and file formats change them."""
    low, high = np.percentile(image, [0.5, 99.5])
    if rng.random() < 0.25:  # black or white is clipped
        cut = rng.uniform(0, 0.2, 2) * (high - low)
        low, high = low + cut[0], high - cut[1]
    else:
        low, high = image.min(), image.max()
    grey = np.clip((image - low) / max(high - low, 1e-9), 0, 1)
    if rng.random() < 0.5:
        grey = grey ** log_uniform(rng, 0.6, 1.7)
    if rng.random() < 0.1:
        grey = as_jpeg(np.rint(255 * grey).astype(np.uint8), int(rng.integers(40, 96))) / 255
    if rng.random() < 0.1:  # enlarged by a program
        half = zoom(grey, 1 / rng.uniform(1.2, 2.0), order=1)
        factors = [to / have for to, have in zip(grey.shape, half.shape, strict=True)]
        grey = zoom(half, factors, order=int(rng.choice([1, 3])))
    return np.clip(grey, 0, 1).astype(np.float32)
