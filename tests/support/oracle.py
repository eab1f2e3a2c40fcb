"""The vector of an image by a slow oracle, in NumPy's float64.

It shares nothing with the package but the fitted codebook, and how images are prepared: maps are
what the layers of a plain module return, every layer is enlarged to every position, and codewords
are compared and added up one by one.
"""

import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from hypervlad import HypercolumnVLAD, read_image


def maps_of(module):
    """Return what reads a module's maps where its layers return them."""

    def read(batch, taps):
        found = {}

        def keep(tap, output):
            found.setdefault(tap, output.clone())  # a later layer may work in place

        layers = dict(module.named_modules())
        handles = [
            layers[tap].register_forward_hook(lambda _m, _i, output, tap=tap: keep(tap, output))
            for tap in taps
        ]
        with torch.no_grad():
            module.eval()(batch)
        for handle in handles:
            handle.remove()
        return [found[tap][0].permute(1, 2, 0).double().numpy() for tap in taps]

    return read


def enlarged(layer, size):
    """Enlarge a map bilinearly, the centres of cells aligned as in image resizing."""
    rows, columns = (_enlargement(n, n_out) for n, n_out in zip(layer.shape[:2], size, strict=True))
    return np.einsum("yi,ijc,xj->yxc", rows, layer, columns, optimize=True)


def _enlargement(n_in, n_out):
    matrix = np.zeros((n_out, n_in))
    for place in range(n_out):
        at = max(0.0, (place + 0.5) * n_in / n_out - 0.5)
        low = min(int(at), n_in - 1)
        matrix[place, low] += 1 - (at - low)
        matrix[place, min(low + 1, n_in - 1)] += at - low
    return matrix


def residual_sums(columns, words, nearest):
    """Return sums of hypercolumn minus codeword; those given as nearest must be, but for digits."""
    distances = np.stack([((columns - word) ** 2).sum(axis=1) for word in words], axis=1)
    least = distances.min(axis=1)
    if nearest is None:
        nearest = distances.argmin(axis=1)
    own = distances[np.arange(len(columns)), nearest]
    np.testing.assert_allclose(own, least, rtol=1e-4, atol=1e-4 * least.max())
    sums = np.zeros(words.shape)
    for k, word in enumerate(words):
        sums[k] = (columns[nearest == k] - word).sum(axis=0)
    return sums


def normalised(sums):
    """Give each codeword's block unit length, and then all of one kind together."""
    blocks = [each / np.linalg.norm(each, axis=1, keepdims=True).clip(1e-12) for each in sums]
    joined = np.concatenate([block.ravel() for block in blocks])
    return joined / max(float(np.linalg.norm(joined)), 1e-12)


def prepared(encoder, image):
    """Return an image as the network takes it, (1, C, H, W)."""
    pixels = read_image(image, **(encoder.read_options or {}))
    side = encoder.image_size
    size = (pixels.shape[0], pixels.shape[1]) if side is None else (side, side)
    return encoder.preprocessing_.prepare(pixels, size)[None]


def vector_of(encoder, image, maps):
    upright = prepared(encoder, image)
    copies, averages = [], []
    for turn in range(encoder.turns):
        batch = upright.flip(-1) if turn >= 4 else upright
        batch = torch.rot90(batch, turn % 4, (2, 3)).contiguous()
        given = encoder.codeword_maps(image) if turn == 0 else None
        raw = maps(batch, encoder.taps_)
        copies.append(_sums_of(encoder, raw, (batch.shape[2], batch.shape[3]), given))
        scales = (*encoder.codebook_.projections, *encoder.codebook_.only_pooled)
        pairs = zip(scales, raw, strict=True)
        means = [(layer.mean((0, 1)) - p.mean) / p.std for p, layer in pairs]
        averages.append(np.concatenate(means))
    parts = [
        normalised([np.sum(book, axis=0) for book in zip(*kind, strict=True)])
        for kind in zip(*copies, strict=True)
    ]
    if {"pooled", "pooled_unit"} & set(encoder.blocks):
        means = np.mean(averages, axis=0) / np.sqrt(len(averages[0]))
        parts.append(means / np.linalg.norm(means) if "pooled_unit" in encoder.blocks else means)
    return np.concatenate(parts)


def _sums_of(encoder, raw, image_size, given):
    """Return the residual sums of the joint codebook, and of those of the layers."""
    book = encoder.codebook_
    layers = [
        (layer - p.mean) * p.scale
        if p.components is None
        else (layer - p.mean) @ p.components.T.astype(np.float64)
        for p, layer in zip(book.projections, raw, strict=True)
    ]
    finest = max(len(layer) for layer in layers), max(layer.shape[1] for layer in layers)
    size = finest if encoder.grid == "finest" else image_size
    has_joint = book.joint is not None
    kinds = [([layers], [book.joint])] if has_joint else []
    if book.per_layer:
        kinds.append(([[layer] for layer in layers], list(book.per_layer)))
    found = []
    for parts, books in kinds:
        sums = []
        for number, (part, words) in enumerate(zip(parts, books, strict=True)):
            # Beside a joint codebook, that of a layer uses the layer's own grid.
            is_own = has_joint and words is not book.joint and isinstance(encoder.grid, str)
            grid = (part[0].shape[0], part[0].shape[1]) if is_own else size
            columns = np.concatenate([enlarged(layer, grid) for layer in part], axis=2)
            nearest = None
            if given is not None and not is_own and given.shape[1:] == grid:
                nearest = given[number].ravel()
            columns = columns.reshape(-1, columns.shape[2])
            sums.append(residual_sums(columns, words.astype(np.float64), nearest))
        found.append(sums)
    return found


def check_against_oracle(images, name, codebook="joint", *, module, maps=None, **options):
    """Compare the last image's vector, by a codebook of the others and a module's weights."""
    options = {"image_size": None, "sampling": 3000, "random_state": 0} | options
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pth"
        torch.save(module.state_dict(), weights)
        encoder = HypercolumnVLAD(name, weights=weights, blocks=(codebook, "pooled"), **options)
        found = encoder.fit(images[:-1]).transform(images[-1:])[0]
    expected = vector_of(encoder, images[-1], maps or maps_of(module))
    np.testing.assert_allclose(found, expected, rtol=5e-5, atol=1e-4)
    return float(np.abs(found - expected).max())


@contextmanager
def threads(n):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
