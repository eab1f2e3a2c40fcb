"""Figure of the aligned fraction: differences of measured and true ones, by method and noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from benchmarks.alignment.tables import DEFAULT_WINDOW, TITLES, Answers, agreement

_DPI, _PANELS_PER_ROW, _COLOURS = 130, 3, 128
_MAX_YELLOW = 0.92  # of viridis: higher values are too pale on white


def agreement_figure(answers: Answers) -> Figure:
    """Draw differences over means of measured and true fractions, one panel per method."""
    names, levels = list(answers.fraction), answers.orders("snr")[::-1]
    n_rows = -(-len(names) // _PANELS_PER_ROW)
    figure = Figure(figsize=(9, 0.7 + 2.7 * n_rows), layout="constrained")
    grid = figure.subplots(n_rows, _PANELS_PER_ROW, sharex=True, sharey=True, squeeze=False)
    colours = dict(
        zip(levels, colormaps["viridis"](np.linspace(0, _MAX_YELLOW, len(levels))), strict=True)
    )
    chosen = answers.where(window=DEFAULT_WINDOW)
    snr = answers.levels("snr")[chosen]
    for ax, name in zip(grid.flat, names, strict=False):
        errors = answers.errors(name)[chosen]
        middle = answers.truth[chosen] + errors / 2
        _draw_agreement(ax, middle, errors, [colours[level] for level in snr])
        ax.set_title(TITLES[name], fontsize=10)
    for ax in grid.flat[len(names) :]:
        ax.remove()
    for ax in grid.flat[max(0, len(names) - _PANELS_PER_ROW) : len(names)]:
        ax.tick_params(labelbottom=True)  # the lowest of its column
    figure.supxlabel("mean of true and measured aligned fraction", fontsize=10)
    figure.supylabel("measured minus true", fontsize=10)
    marks = [
        Line2D([], [], marker="o", linestyle="", color=colours[level], label=_noise(level))
        for level in levels
    ]
    marks.append(Line2D([], [], color="black", label="bias"))
    marks.append(Line2D([], [], color="black", linestyle="--", label="95 % limits"))
    figure.legend(
        handles=marks, loc="outside upper center", ncols=len(marks), fontsize=8, frameon=False
    )
    return figure


def _draw_agreement(
    ax: Axes, middle: np.ndarray, errors: np.ndarray, colours: Sequence[Any]
) -> None:
    found = agreement(errors)
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    ax.scatter(middle, errors, c=colours, s=10, alpha=0.85, linewidths=0)
    for level, style in ((found.bias, "-"), (found.low, "--"), (found.high, "--")):
        ax.axhline(level, color="black", linestyle=style, linewidth=0.9)
        ax.annotate(
            f"{level:+.2f}".replace("-", "\N{MINUS SIGN}"),
            (1.0, level),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-1.3, 1.05)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Write a figure with few colours, which makes a small file."""
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=_DPI)
    with Image.open(path) as drawn:
        drawn.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def _noise(level: float | None) -> str:
    return "no noise" if level is None else f"SNR {level:g}"
