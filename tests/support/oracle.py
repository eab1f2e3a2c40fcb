"""The dense encoding of an image by a float64 oracle.

The oracle upsamples every layer to every position, projects, assigns and adds up in NumPy's
float64; it shares nothing with the code under test but the network's maps and the codebook.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hypervlad import HypercolumnVLAD


def upsampling(n_in: int, n_out: int) -> np.ndarray:
    """Bilinear enlargement of an axis as a dense float64 matrix."""
    place = np.maximum((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0)
    low = np.minimum(np.floor(place).astype(int), n_in - 1)
    high = np.minimum(low + 1, n_in - 1)
    matrix = np.zeros((n_out, n_in))
    np.add.at(matrix, (np.arange(n_out), low), 1 - (place - low))
    np.add.at(matrix, (np.arange(n_out), high), place - low)
    return matrix


def oracle(
    layers: list[np.ndarray], words: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return hypercolumns and nearest codewords over every position of the grid."""
    columns = np.concatenate(
        [
            np.einsum(
                "yi,ijc,xj->yxc",
                upsampling(layer.shape[0], size[0]),
                layer,
                upsampling(layer.shape[1], size[1]),
                optimize=True,
            )
            for layer in layers
        ],
        axis=2,
    ).reshape(-1, words.shape[1])
    distances = (words**2).sum(1) - 2 * columns @ words.T
    return columns, distances.argmin(1)


def explicit_sums(columns: np.ndarray, nearest: np.ndarray, words: np.ndarray) -> np.ndarray:
    sums = np.zeros_like(words)
    for k in range(len(words)):
        sums[k] = (columns[nearest == k] - words[k]).sum(axis=0)
    return sums


def check_against_oracle(
    images: list[Any], name: str, codebook: str, *, image_size: int | None = None, **options: Any
) -> float:
    """Compare the vector of the last of four images; return its largest difference.

    The sums of residuals are those to the codewords that we assign; at most one position in a
    thousand may have another one in float64. Both vectors have length one.
    """
    encoder = HypercolumnVLAD(
        name, image_size=image_size, blocks=codebook, sampling=3000, random_state=0, **options
    ).fit(images[:3])
    batch = encoder.loader().load_batch(images[3])
    is_square = batch.tensors.shape[2] == batch.tensors.shape[3]
    assert is_square == (image_size is not None), "pictures keep their shape unless resized"
    maps = [layer[0].permute(1, 2, 0).numpy() for layer in encoder.network()(batch.tensors)]
    layers = [
        (layer.astype(float) - p.mean) @ p.components.T.astype(float)
        for p, layer in zip(encoder.codebook_.projections, maps, strict=True)
        if p.components is not None
    ]
    parts = [layers] if codebook == "joint" else [[layer] for layer in layers]
    size = (max(m.shape[0] for m in maps), max(m.shape[1] for m in maps))
    words_here = encoder.codeword_maps(images[3])
    normal = encoder.transform([images[3]])[0]
    given_ours = []
    for part, words, here in zip(parts, encoder.codebook_.codewords, words_here, strict=True):
        columns, nearest = oracle(part, words.astype(float), size)
        assert np.mean(nearest == here.ravel()) > 0.999
        given_ours.append(explicit_sums(columns, here.ravel(), words.astype(float)))
    lengths = [np.sqrt((sums**2).sum(1, keepdims=True)) for sums in given_ours]
    intra = [s / np.where(n > 0, n, 1) for s, n in zip(given_ours, lengths, strict=True)]
    expected = np.concatenate([block.ravel() for block in intra])
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(normal, expected, atol=1e-5)
    return float(np.abs(normal - expected).max())
