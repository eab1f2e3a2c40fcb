"""Scale bars of many layouts, drawn into images of many kinds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from hypervlad.data import make_fibre_images, make_particle_fields, make_tem_images

BLACK, WHITE = 0, 255


@dataclass(frozen=True)
class Layout:
    """A scale bar.

    Attributes
    ----------
    shape : {"line", "box", "ticks", "dots"}
        A solid line, an outlined box, or a row of ticks or dots without a line.
    ink : int
        Grey level.
    heights : tuple of two int
        The smallest and the largest height of the line, the box, a tick or a dot.
    end_ticks : int
        How many ticks a line has, its ends included; 0 for none.
    rim : int, optional
        Grey level of a frame, one pixel wide, around a line.
    ground : int, optional
        Grey level of a label box, or of the information bar.
    banner : bool
        Whether the bar is in an information bar below the image.
    label : {"above", "below", "right", ""}
        Where the text is.
    """

    shape: str = "line"
    ink: int = WHITE
    heights: tuple[int, int] = (3, 12)
    end_ticks: int = 0
    rim: int | None = None
    ground: int | None = None
    banner: bool = False
    label: str = "above"

    def draw(
        self, scan: np.ndarray, rng: np.random.Generator, length: int
    ) -> tuple[np.ndarray, float, str]:
        """Return an image of `scan` with a bar, its length in pixels, and what is printed."""
        image = Image.fromarray(scan)
        draw, (width, height) = ImageDraw.Draw(image), image.size
        thick = int(rng.integers(self.heights[0], self.heights[1] + 1))
        thick = min(thick, max(self.heights[0], length // 6))
        font, gap = int(rng.integers(14, 26)), int(rng.integers(4, 9))
        tall = thick + 8 * bool(self.end_ticks)
        at_right, at_top = rng.random() < 0.6, rng.random() < 0.2 and not self.banner
        left = width - 24 - length if at_right else 24
        if self.label == "right":
            left = max(left - 5 * font * at_right, 10)
        top = 20 + font + gap if at_top else height - 24 - tall - font - gap
        if self.banner:
            rows = 2 * font + tall + 3 * gap
            draw.rectangle([0, height - rows, width, height], self.ground)
            if rng.random() < 0.3:
                draw.rectangle([0, height - rows, width - 1, height - 1], outline=self.ink)
            text = f"SE  {rng.integers(1, 30)}.00 kV  WD {rng.integers(3, 12)}.1 mm"
            x = 8 if at_right else width - 12 * font
            draw.text((x, height - 4), text, self.ink, font_size=font, anchor="ls")
            top = height - rows + font + 2 * gap
        elif self.ground is not None:
            x0 = min(left, left + length // 2 - 2 * font) - 10
            x1 = max(left + length, left + length // 2 + 2 * font) + 10
            draw.rectangle([x0, top - font - gap - 6, x1, top + tall + font + 6], self.ground)
        else:  # nobody draws a black bar on a black ground
            ground = scan[top - 30 : top + tall + 30, left : left + length].mean()
            if abs(ground - self.ink) < 70:
                return replace(self, ink=0 if ground > 127 else 255).draw(scan, rng, length)
        true = self._draw_bar(draw, rng, (left, top), (length, thick))
        number, unit = rng.choice([1, 2, 5, 10, 20, 50, 100, 200, 500]), rng.choice(["nm", "um"])
        options: Any = {"font_size": font}
        places: dict[str, tuple[tuple[float, float], str]] = {
            "above": ((left + length / 2, top - gap), "ms"),
            "below": ((left + length / 2, top + tall + gap), "mt"),
            "right": ((left + length + 2 * gap, top + tall / 2), "lm"),
        }
        if self.label:
            place, anchor = places[self.label]
            draw.text(place, f"{number} {unit}", self.ink, anchor=anchor, **options)
        return np.asarray(image), true, f"{number} {unit}" if self.label else ""

    def _draw_bar(
        self,
        draw: ImageDraw.ImageDraw,
        rng: np.random.Generator,
        corner: tuple[int, int],
        size: tuple[int, int],
    ) -> float:
        (left, top), (length, thick) = corner, size
        right, bottom = left + length - 1, top + thick - 1
        if self.shape in ("ticks", "dots"):
            n = int(rng.choice([6, 11])) if length >= 60 else 6
            wide = thick if self.shape == "dots" else max(1, thick // 3)
            places = np.round(np.linspace(0, length, n)).astype(int)
            for x in places:
                draw.rectangle([left + x, top, left + x + wide - 1, bottom], self.ink)
            return float(length)
        if self.shape == "box":
            draw.rectangle([left, top, right, bottom], outline=self.ink, width=1 + (thick > 9))
            return float(length)
        if self.rim is not None:
            draw.rectangle([left - 1, top - 1, right + 1, bottom + 1], self.rim)
        if self.end_ticks:
            wide = min(thick, 3)
            for x in np.round(np.linspace(left, right - wide + 1, self.end_ticks)).astype(int):
                draw.rectangle([x, top, x + wide - 1, bottom + 8], self.ink)
            middle = top + (4 if self.end_ticks == 2 else 0)
            draw.rectangle([left, middle, right, middle + thick - 1], self.ink)
        else:
            draw.rectangle([left, top, right, bottom], self.ink)
        return float(length)


#: On these, the thresholds were chosen.
CHOSEN = {
    "white line": Layout(),
    "black line": Layout(ink=BLACK, label="below"),
    "line with end ticks": Layout(heights=(1, 4), end_ticks=2),
    "white line, black frame": Layout(rim=BLACK, label="right"),
    "outlined box": Layout(shape="box", heights=(6, 14)),
    "line in a black information bar": Layout(heights=(2, 6), ground=BLACK, banner=True),
    "row of ticks": Layout(shape="ticks", heights=(6, 14)),
}
#: These were drawn afterwards.
APART = {
    "thin line without a label": Layout(heights=(2, 3), label=""),
    "grey line": Layout(ink=170),
    "black line in a white box": Layout(ink=BLACK, ground=WHITE),
    "white line in a black box": Layout(ground=BLACK, label="below"),
    "ruler": Layout(heights=(2, 4), end_ticks=11),
    "end ticks in a white information bar": Layout(
        ink=BLACK, heights=(1, 3), end_ticks=2, ground=WHITE, banner=True
    ),
    "black outlined box": Layout(shape="box", ink=BLACK, heights=(6, 14), label="below"),
    "row of dots": Layout(shape="dots", heights=(3, 5), label="below"),
    "ticks in a black information bar": Layout(
        shape="ticks", heights=(5, 10), ground=BLACK, banner=True
    ),
}


def backgrounds(size: tuple[int, int], seed: int) -> dict[str, np.ndarray]:
    """Return ten scans of 8 bits; the first five are those that thresholds were chosen on."""
    rng = np.random.default_rng(seed)

    def enlarged(image: np.ndarray) -> np.ndarray:
        scale = [n / m for n, m in zip(size, image.shape, strict=True)]
        return ndimage.zoom(np.asarray(image, np.float64), scale, order=1)

    half = (size[0] // 2, size[1] // 2)
    rows = np.linspace(0, 1, size[0])[:, None]
    fibres = make_fibre_images(1, cover=0.9, size=size, random_state=seed)[0][0]
    wires = make_fibre_images(1, aligned=0.6, cover=0.5, size=size, random_state=seed)[0][0]
    sem = make_particle_fields(1, size=size, random_state=seed)[0][0]
    tem = 0.8 - 0.7 * make_particle_fields(1, size=size, random_state=seed + 1)[0][0]
    tubes = make_tem_images(1, size=half, random_state=seed)[0][0]
    y, x = np.indices(size)
    lattice = 0.5 + 0.25 * (np.cos(0.5 * x + 0.2 * y) + np.cos(0.45 * y - 0.1 * x))
    levels_and_noise = {
        "fibres": (20 + 190 * fibres, 6),
        "bright field": (60 + 150 * enlarged(tubes), 6),
        "SEM particles": (10 + 200 * sem, 5),
        "gradient": (np.broadcast_to(40 + 120 * rows, size), 3),
        "strong noise": (np.full(size, 128), 40),
        "nanowires": (220 * wires, 3),
        "lattice": (30 + 180 * lattice, 8),
        "TEM particles": (230 * tem, 4),
        "dark field": (80 * (1 - enlarged(tubes)), 3),
        "smooth and bright": (np.full(size, 215), 2),
    }
    return {
        name: rng.normal(levels, noise).clip(0, 255).round().astype(np.uint8)
        for name, (levels, noise) in levels_and_noise.items()
    }
