"""What a file of any format must give: its pages, their pixel sizes, and errors that name it."""

import json
import warnings
from collections.abc import Sequence

import numpy as np
import pytest

from hypervlad.images import ImageReadError, PartlyReadWarning, read_micrograph


def digest(source, **options):
    """Return the digest, which is the same for the same stored values, type and shape."""
    return read_micrograph(source, **options).digest


def values(dtype, *, samples=0, shape=(21, 18), seed=0):
    """Return values over the whole range of a type: extremes, noise and a smooth part."""
    rng = np.random.default_rng(seed)
    shape, kind = (*shape, samples) if samples else shape, np.dtype(dtype)
    if kind.kind == "f":
        return rng.normal(size=shape).astype(kind)
    if kind.kind == "b":
        return rng.random(shape) < 0.4
    info = np.iinfo(kind)
    found = rng.integers(info.min, info.max, shape, dtype=kind, endpoint=True)
    flat = found.reshape(-1)
    flat[:8], flat[8:16] = info.min, info.max
    flat[flat.size // 2 :] //= kind.type(3)
    return found


def check_golden(path, pages, size=None, *, cut=(0.1, 0.5, 0.9), **facts):
    """Check the pixels, pixel size (nm) and metadata of each page, and what is refused.

    The first of several pages is read with a warning, a page too many and a file that was `cut` to
    a share of its length are errors.
    """
    sizes = size if isinstance(size, Sequence) else [size] * len(pages)
    for page, (expected, side) in enumerate(zip(pages, sizes, strict=True)):
        found = read_micrograph(path, page=page)
        assert found.digest == digest(expected)
        assert found.pixel_size == (side and pytest.approx(side, rel=1e-6))
        assert found.metadata.get("n_pages", 1) == len(pages)
        assert {key: found.metadata.get(key) for key in facts} == facts
        assert json.loads(json.dumps(found.metadata)) == found.metadata
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert digest(path) == digest(pages[0])
    assert [each.category for each in caught] == [PartlyReadWarning] * (len(pages) > 1)
    with pytest.raises(ImageReadError) as error:
        read_micrograph(path, page=len(pages))
    assert str(error.value).startswith(f"{path}: page {len(pages)} was requested, but ")
    if path.is_file():
        check_truncated(path, cut)


def check_truncated(path, shares):
    """Check that no file of the first bytes is read, and that the error names it."""
    content = path.read_bytes()
    for share in shares:
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ImageReadError) as error:
            read_micrograph(path, page=0)
        assert str(error.value).startswith(f"{path}: ")
    path.write_bytes(content)
