"""HTML pages from the templates of this package.

Everything that a template writes is made printable and escaped. A page's style sheet and script
are part of the page, and its content-security policy allows only these two, by their digests.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hypervlad._version import __version__
from hypervlad.common.files import replace_when_complete
from hypervlad.common.wording import counted, percent, printable

if TYPE_CHECKING:
    from hypervlad.results.displays.base import Display

_CSS_PIXELS_PER_INCH = 96


def write_page(
    path: str | os.PathLike[str], template: str, script: str | None = None, **values: Any
) -> None:
    """Write a page piece by piece; it is complete or not there.

    `template` is the name of a file in ``templates/``, `script` that of the style sheet and script
    beyond those of all pages, without suffix, and `values` are the template's variables. Iterators
    are consumed as the page is written.
    """
    if script is not None:
        values["script"] = asset("common.js", f"{script}.js")
    style = asset("page.css", *([] if script is None else [f"{script}.css"]))
    page = _environment().get_template(template)
    with replace_when_complete(path) as stream:
        for piece in page.generate(version=__version__, style=style, **values):
            stream.write(piece.encode("utf-8"))


class PageFigure(NamedTuple):
    """A figure of a page: its address, its size in CSS pixels, and what it shows."""

    source: str
    width: int
    height: int
    display: Display

    @classmethod
    def of(cls, source: str, inches: tuple[float, float], display: Display) -> PageFigure:
        """Make a figure of this size in inches."""
        width, height = (round(side * _CSS_PIXELS_PER_INCH) for side in inches)
        return cls(source, width, height, display)


def asset(*names: str) -> Markup:
    """Return files of ``templates/`` one after the other, unescaped."""
    environment = _environment()
    assert environment.loader is not None
    return Markup("\n".join(environment.loader.get_source(environment, each)[0] for each in names))


def decimal(value: float) -> str:
    """Format a score with three decimals; a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def significant(value: float) -> str:
    """Format a number with four significant digits."""
    return f"{value:.4g}"


def thousands(n: int) -> str:
    """Format a whole number with separators."""
    return f"{n:,}"


def share_of(count: int, total: int) -> str:
    """Format a number of things as a part of all of them: "3 of 40 (7.5 %)"."""
    return f"{count} of {total} ({percent(count / total)})"


def digest(text: str) -> str:
    """Return the digest by which a content-security policy allows a style sheet or a script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hypervlad.results.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (counted, decimal, digest, percent, share_of, significant, thousands)
    environment.filters |= {each.__name__: each for each in filters}
    return environment
