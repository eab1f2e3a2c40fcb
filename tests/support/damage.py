"""What a model's file may hold when it is damaged or forged."""

import numpy as np


def damaged(arrays, part="", *, finite=True):
    """Yield the arrays of a model with one, of a part, that is narrower, or missing, or NaN."""
    for name, own in arrays.items():
        if name.startswith(part):
            yield {**arrays, name: own[..., :-1] if own.ndim else own[None]}
            yield {other: each for other, each in arrays.items() if other != name}
            if finite and own.dtype.kind == "f":
                yield {**arrays, name: np.full_like(own, np.nan)}


def replaced(header, path, value):
    """Return a header with another value at a path such as "fitted/head_/state"."""
    name, _, rest = path.partition("/")
    assert name in header, name
    return {**header, name: replaced(header[name], rest, value) if rest else value}
