"""Files of results: HTML pages from templates, maps as TIFF, masks as PNG, and their names.

The scripts and styles of the pages are our own: no library that the site loads sorts, filters or
draws histograms, and Bootstrap, for the layout alone, would add 0.4 MB to every page.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from markupsafe import Markup
from numpy.typing import NDArray

from hypervlad._version import __version__
from hypervlad.common.files import replace_when_complete
from hypervlad.common.wording import counted, of_particles, percent, printable
from hypervlad.images.files import composed
from hypervlad.pages.lengths import length_text, round_length

if TYPE_CHECKING:
    from hypervlad.pages.base import Display

_CSS_PIXELS_PER_INCH = 96
_BAR_SHARE = 0.2  # of the width of an image, at most, for the scale bar


def write_page(
    path: str | os.PathLike[str],
    template: str,
    *assets: str,
    says_particle: bool = False,
    **values: Any,
) -> None:
    """Write a page of ``templates/``, with style sheets (.css) and scripts (.js) from there.

    Iterators are consumed piece by piece. The page is complete or not there. With `says_particle`,
    the template says particle instead of image.
    """
    scripts = [name for name in assets if name.endswith(".js")]
    if scripts:
        values["script"] = asset("common.js", *scripts)
    style = asset("page.css", *(name for name in assets if name.endswith(".css")))
    page = _environment(says_particle).get_template(template)
    with replace_when_complete(path) as stream:
        for piece in page.generate(version=__version__, style=style, **values):
            stream.write(piece.encode("utf-8"))


class PageFigure(NamedTuple):
    source: str
    width: int
    height: int
    display: Display

    @classmethod
    def of(cls, source: str, inches: tuple[float, float], display: Display) -> PageFigure:
        width, height = (round(side * _CSS_PIXELS_PER_INCH) for side in inches)
        return cls(source, width, height, display)


def asset(*names: str) -> Markup:
    environment = _environment(False)
    assert environment.loader is not None
    return Markup("\n".join(environment.loader.get_source(environment, each)[0] for each in names))


def decimal(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def significant(value: float) -> str:
    return f"{value:.4g}"


def thousands(n: int) -> str:
    return f"{n:,}"


def number_text(value: float) -> str:
    """Return a number with three digits at least; a dash for NaN."""
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def interval_text(low: float, high: float) -> str:
    """Return an interval in words; an end that is NaN is not known."""
    if math.isnan(low):
        return "–" if math.isnan(high) else f"up to {number_text(high)}"
    return (
        f"from {number_text(low)}"
        if math.isnan(high)
        else f"{number_text(low)} to {number_text(high)}"
    )


def scale_bar(n_pixels: int, pixel_size: float | None) -> tuple[float, str] | None:
    """Return the length of a scale bar, in per cent of `n_pixels` and in words."""
    if pixel_size is None:
        return None
    width = pixel_size * n_pixels
    length = round_length(_BAR_SHARE * width)
    return round(100 * length / width, 3), length_text(length)


def share_of(count: int, total: int) -> str:
    """Format a count and its share of a total: "3 of 40 (7.5 %)"."""
    return f"{count} of {total} ({percent(count / total)})"


def digest(text: str) -> str:
    """Return the digest by which a content-security policy allows a style or a script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}"


def as_script(data: Any) -> Markup:
    """Write plain values as JSON in which an HTML parser finds no tag."""
    plain = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return Markup(plain.replace("<", "\\u003c"))


class ParticleWords(Extension):
    """Changes the words of a template, but neither its names nor what it is filled with."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for line, kind, text in stream:
            yield Token(line, kind, of_particles(text) if kind in ("data", "string") else text)


@functools.cache
def _environment(says_particle: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("hypervlad.pages"),
        extensions=[ParticleWords] if says_particle else [],
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (counted, decimal, digest, percent, share_of, significant, thousands)
    environment.filters |= {each.__name__: each for each in filters}
    return environment


def write_tiff(
    path: Path,
    values: NDArray[Any],
    pixel_size: float | None,
    *,
    flush: bool = True,
    level: int | None = None,
) -> None:
    """Write a map as compressed TIFF, which ImageJ reads with its pixel size, in nanometres.

    `level` is from 1 (fast) to 9 (small). With `flush`, the file is on the disk at the end.
    """
    import tifffile

    options: dict[str, Any] = {} if level is None else {"compressionargs": {"level": level}}
    if pixel_size is not None:
        options["resolution"] = (1 / pixel_size, 1 / pixel_size)  # pixels per nm
    if values.dtype != np.uint32:  # ImageJ has no 32-bit integers
        options |= {"imagej": True, "metadata": {} if pixel_size is None else {"unit": "nm"}}
    elif pixel_size is not None:
        options |= {"resolution": (1e7 / pixel_size,) * 2, "resolutionunit": "CENTIMETER"}
    with replace_when_complete(path, flush=flush) as stream:
        tifffile.imwrite(
            stream, values, compression="zlib", predictor=False, software="", **options
        )


def write_png(path: Path, values: NDArray[np.uint8], *, flush: bool = True, level: int = 6) -> None:
    """Write an image as PNG; `flush` and `level` are as for `write_tiff`."""
    from PIL import Image

    with replace_when_complete(path, flush=flush) as stream:
        Image.fromarray(values).save(stream, format="PNG", compress_level=level)


def is_below(name: str) -> bool:
    """Return whether a relative name stays in its folder."""
    path = Path(name)
    return not (path.is_absolute() or path.drive or ".." in path.parts)


def folded(name: str) -> str:
    """Return a name as file systems compare it that do not distinguish A and a."""
    return composed(name).casefold()
