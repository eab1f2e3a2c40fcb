"""Information bars as instruments draw them, and scans without a bar that resemble one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


@dataclass(frozen=True)
class Layout:
    """An information bar.

    Attributes
    ----------
    size : tuple of two int
        Height and width of the stored image, bar included.
    rows : int
        Height of the bar.
    ground, ink : tuple of three int
        Colours of the bar and its text.
    lines : tuple of tuple of str
        Texts of the cells of each line; every 0 becomes a random digit.
    font : float
        Height of the text as a share of its line's height.
    stroke : int
        Additional width of the letters, in pixels.
    rules : bool
        Whether lines separate the cells.
    frame : int
        Width of the line around the bar.
    logo : tuple of three int, optional
        Colour of a field at the right end.
    ticks : bool
        Whether the scale is a row of dots instead of a line with ends.
    opacity : float
        Below 1, the scan shines through.
    """

    size: tuple[int, int]
    rows: int
    ground: Colour
    ink: Colour
    lines: tuple[tuple[str, ...], ...]
    font: float = 0.6
    stroke: int = 0
    rules: bool = False
    frame: int = 0
    logo: Colour | None = None
    ticks: bool = False
    opacity: float = 1.0

    def draw(self, scan: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return an image (H, W, 3) of `scan` with the bar instead of its last rows."""
        bar = Image.new("RGB", (self.size[1], self.rows), self.ground)
        draw = ImageDraw.Draw(bar)
        height = self.rows / len(self.lines)
        right = self.size[1] - (self.rows if self.logo else 0)
        for row, cells in enumerate(self.lines):
            width = right / (len(cells) + 1)
            for column, text in enumerate(cells):
                shown = "".join(str(rng.integers(10)) if c == "0" else c for c in text)
                x, y = 6 + column * width, (row + 0.5) * height
                options: Any = {"anchor": "lm", "font_size": self.font * height}
                draw.text((x, y), shown, self.ink, stroke_width=self.stroke, **options)
                if self.rules:
                    draw.line([(x - 4, row * height), (x - 4, (row + 1) * height)], self.ink)
            if self.rules and row:
                draw.line([(0, row * height), (right, row * height)], self.ink)
        self._draw_scale(draw, right)
        if self.logo:
            box = [right + 4, 4, self.size[1] - 5, self.rows - 5]
            draw.rectangle(box, self.logo)
            draw.ellipse([right + 12, 12, self.size[1] - 13, self.rows - 13], self.ground)
        if self.frame:
            box = [0, 0, self.size[1] - 1, self.rows - 1]
            draw.rectangle(box, outline=self.ink, width=self.frame)
        drawn, image = np.asarray(bar), np.dstack([scan] * 3)
        is_ground = (drawn == self.ground).all(axis=2, keepdims=True)
        below = (1 - self.opacity) * image[-self.rows :] + self.opacity * drawn
        image[-self.rows :] = np.where(is_ground, below, drawn)
        return image

    def _draw_scale(self, draw: ImageDraw.ImageDraw, right: int) -> None:
        left, y = int(right * (1 - 0.85 / (len(self.lines[0]) + 1))), self.rows // 3
        end = right - 8
        for x in np.linspace(left, end, 11 if self.ticks else 2):
            draw.line([(x, y - 4), (x, y + 4)], self.ink, width=2)
        if not self.ticks:
            draw.line([(left, y), (end, y)], self.ink, width=2)


_FEI = (
    ("det", "mode", "mag", "HV", "curr", "WD", "00 µm"),
    ("ETD", "SE", "00 000 x", "5.00 kV", "00 pA", "4.0 mm", "Centre for Microscopy"),
)
_ZEISS = (
    ("Mag =  0.00 K X", "EHT = 0.00 kV", "Signal A = InLens", "Date :0 Sep 2020"),
    ("000 nm", "WD =  0.0 mm", "Photo No. = 0000", "Time :00:00:00"),
)
_TESCAN = (
    ("View field: 0.00 µm", "SEM HV: 00.0 kV", "", "MIRA3 TESCAN"),
    ("WD: 00.00 mm", "Det: SE, InBeam", "00 µm", ""),
    ("SEM MAG: 00.0 kx", "Date(m/d/y): 00/00/00", "", "Performance in nanospace"),
)
LAYOUTS = {
    "FEI, black, cells": Layout((943, 1024), 59, BLACK, WHITE, _FEI, rules=True, frame=1),
    "Thermo, dark grey, cells": Layout((1094, 1536), 70, (46, 46, 46), WHITE, _FEI, rules=True),
    "Zeiss, black, framed": Layout((768, 1024), 60, BLACK, WHITE, _ZEISS, 0.5, 0, frame=2),
    "Zeiss, dark grey, framed": Layout((768, 1024), 84, (60, 60, 60), WHITE, _ZEISS, frame=1),
    "Zeiss, white, logo": Layout(
        (768, 1024), 88, WHITE, BLACK, _ZEISS, 0.5, frame=2, logo=(20, 20, 20)
    ),
    "Zeiss, black, large text": Layout((768, 1024), 72, BLACK, WHITE, _ZEISS, 0.85, 1),
    "Zeiss, white, large text": Layout((768, 1024), 72, WHITE, BLACK, _ZEISS, 0.85, 1, frame=2),
    "Zeiss, translucent": Layout((768, 1024), 72, BLACK, WHITE, _ZEISS, frame=1, opacity=0.6),
    "Tescan, grey, cells": Layout(
        (888, 1024), 120, (96, 96, 96), WHITE, _TESCAN, 0.6, 1, rules=True
    ),
    "Tescan, white, cells": Layout((858, 768), 90, WHITE, BLACK, _TESCAN, 0.7, 1, rules=True),
    "JEOL, black, one line": Layout(
        (1024, 1280), 64, BLACK, WHITE, (("SEI", "5.0kV", "X00,000", "WD 0.0mm", "000nm"),), 0.4
    ),
    "JEOL, black, logo": Layout(
        (1024, 1280),
        64,
        BLACK,
        WHITE,
        (("SED   0.0 kV", "WD 00.0 mm", "Std.-PC 40.0", "x00"), ("NOR  0000", "May 09 2024", "")),
        0.7,
        logo=WHITE,
    ),
    "Hitachi, black, dots": Layout(
        (960, 1280), 50, BLACK, WHITE, (("S4800 0.0kV 0.0mm x00.0k SE(M)", "0.00um"),), ticks=True
    ),
    "Phenom, blue, logo": Layout(
        (1088, 1024),
        64,
        (24, 36, 56),
        WHITE,
        (("FW: 000 µm", "Mode: 00kV - Map", "000 µm"), ("Mag: 0000x", "Det: BSD Full", "NOV 00")),
        logo=(230, 120, 20),
    ),
    "Coxem, white, coloured logo": Layout(
        (1024, 1280),
        64,
        WHITE,
        (30, 30, 90),
        (("00kV", "x 0.0k", "SE", "WD 00.0mm", "00µm"),),
        0.4,
        logo=(0, 80, 200),
    ),
    "AMT camera, white, lines": Layout(
        (1160, 1024),
        136,
        WHITE,
        BLACK,
        (("grid_000.tif",), ("Print Mag: 00000x",), ("TEM Mode: Imaging",), ("HV=80.0kV  AMT",)),
        0.8,
    ),
}


def without_bar(scan: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.dstack([scan] * 3)


def with_scale_bar(scan: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Burn a scale bar in, as Gatan and TVIPS do."""
    image = Image.fromarray(without_bar(scan, rng))
    draw, (width, height) = ImageDraw.Draw(image), image.size
    left, size = int(rng.integers(20, width // 3)), height // 25
    draw.rectangle([left, height - 30, left + width // 4, height - 20], WHITE)
    draw.text((left, height - 34), "500 nm", WHITE, font_size=size, anchor="lb")
    return np.asarray(image)


def with_box(scan: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Put a box with a scale bar into a corner."""
    image = Image.fromarray(without_bar(scan, rng))
    draw, (width, height) = ImageDraw.Draw(image), image.size
    ground, ink = (WHITE, BLACK) if rng.random() < 0.5 else (BLACK, WHITE)
    draw.rectangle([0, height - height // 10, width // 3, height], ground)
    draw.rectangle([12, height - 18, width // 4, height - 10], ink)
    draw.text((14, height - 20), "200 nm", ink, font_size=height // 20, anchor="lb")
    return np.asarray(image)


def with_text(scan: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Burn text and scale in without a bar, as Hitachi and JEOL do."""
    image = Image.fromarray(without_bar(scan, rng))
    draw, (width, height) = ImageDraw.Draw(image), image.size
    options: Any = {"font_size": height // 28, "anchor": "ls"}
    text = "SU3500 15.0kV 9.1mm x3.50k BSE-COMP"
    draw.text((6, height - 12), text, WHITE, **options)
    draw.text((width * 0.88, height - 12), "10.0µm", WHITE, **options)
    for x in np.linspace(width * 0.7, width - 12, 11):
        draw.line([(x, height - 60), (x, height - 52)], WHITE, width=3)
    return np.asarray(image)


WITHOUT = {
    "no bar": without_bar,
    "scale bar in the scan": with_scale_bar,
    "box in a corner": with_box,
    "text in the scan": with_text,
}
