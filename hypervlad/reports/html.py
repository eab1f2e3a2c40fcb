"""HTML pages from the templates of this package.

Everything that a template writes is made printable and escaped. A page's style sheet and script
are part of the page, and its content-security policy allows only these two, by their digests.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
from collections.abc import Iterator
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hypervlad._version import __version__
from hypervlad.wording import counted, percent, printable

CSS_PIXELS_PER_INCH = 96


def render(template: str, **values: Any) -> Iterator[str]:
    """Yield a page piece by piece.

    Parameters
    ----------
    template : str
        Name of a file in ``templates/``.
    **values
        Variables of the template. Iterators are consumed as the page is written.
    """
    yield from _environment().get_template(template).generate(version=__version__, **values)


def asset(*names: str) -> Markup:
    """Return files of ``templates/`` one after the other, to be written into a page unescaped."""
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
    """Format a number of things as a part of all of them.

    Examples
    --------
    >>> share_of(3, 40)
    '3 of 40 (7.5 %)'
    """
    return f"{count} of {total} ({percent(count / total)})"


def digest(text: str) -> str:
    """Return the digest by which a content-security policy allows a style sheet or a script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hypervlad.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (counted, decimal, digest, percent, share_of, significant, thousands)
    environment.filters |= {each.__name__: each for each in filters}
    return environment
