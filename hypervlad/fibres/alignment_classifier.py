"""``AlignmentClassifier``: a classifier of windows with aligned fibres."""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from tempfile import TemporaryDirectory
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from hypervlad.classify.boosting.classifier import BoostedSoftmaxClassifier
from hypervlad.classify.fitting import of_length
from hypervlad.common.base import ImageEstimator, PartParameter
from hypervlad.common.constraints import SEEDED, Alternatives, InstanceOf, Integer, Number, OneOf
from hypervlad.common.limits import MAX_INPUT_SIDE
from hypervlad.common.progress import announced
from hypervlad.common.stored import Part, Value
from hypervlad.common.wording import warn_user
from hypervlad.features.encoder import HypercolumnVLAD
from hypervlad.features.encoding import check_finite
from hypervlad.features.lazy_torch import torch, usual_torch
from hypervlad.features.patches import WindowGrid
from hypervlad.features.windows import (
    TILE_SIDES,
    UNKNOWN,
    Convert,
    ImageWindows,
    PreparedImage,
    Tiling,
    TrainingWindows,
    WindowReader,
    WindowVectors,
    check_window_encoder,
    fit_tiled_codebook,
    window_encoder,
)
from hypervlad.fibres.alignment import DEFAULT_WINDOW, aligned_fraction, background_windows
from hypervlad.fibres.regions import TileGrid
from hypervlad.folders.copy_groups import keep_copies_together
from hypervlad.images import ImageReadError, ReadOptions, read_mask
from hypervlad.images.masks import mask_banner_rows
from hypervlad.images.options import check_read_options
from hypervlad.images.reading import check_image_list, image_name, raise_or_skip, read_in_order
from hypervlad.images.sample import Annotations, errors_of, note_found, read_grey
from hypervlad.statistics.splits import check_column, check_groups

ALIGNED, NOT_ALIGNED = "aligned", "not aligned"
_LABELS = {ALIGNED: 1.0, NOT_ALIGNED: 0.0}
_MIN_KNOWN = 0.5  # share of a window
_WINDOW = Integer(2, 2**16)
_MAX_SIZE_RATIO = 1.5  # of windows to those trained on, or the inverse


def default_alignment_encoder(**parameters: Any) -> HypercolumnVLAD:
    """Return the default encoder of `AlignmentClassifier`, with the given parameters changed.

    That of `PatchDefectScorer`, with grey values scaled between percentiles.

    Examples
    --------
    >>> default_alignment_encoder().taps
    ('features.6', 'features.13')
    """
    reading = {"scaling": "percentile", "percentiles": (0.5, 99.5)}
    return window_encoder(**{"read_options": reading} | parameters)


class AlignmentClassifier(ImageEstimator):
    """Classify windows of an image as aligned or not, trained on examples.

    Answers stay the same if the image is turned by right angles. A fitted classifier can be the
    ``method`` of :func:`hypervlad.fibres.aligned_fraction`.

    Parameters
    ----------
    encoder : HypercolumnVLAD, optional
        `default_alignment_encoder` if not given. It must have ``image_size=None`` and
        ``pixel_size=None``.
    window : int, default=32
        Side of the windows in pixels. Windows 1.5 times larger or smaller cause a warning.
    boosting : BoostedSoftmaxClassifier, optional
        The learner; with ``prior="training"`` if not given.
    annotations : {"leave_out", "keep"}, default="leave_out"
    tile_size : int, default=2048
    random_state : int, RandomState or None, default=None
    verbose : bool, default=False
        As in :class:`PatchDefectScorer`.

    Attributes
    ----------
    encoder_ : HypercolumnVLAD
    boosting_ : BoostedSoftmaxClassifier
        Classifies window vectors; its classes are "aligned" and "not aligned".
    window_, tile_size_ : int
    n_images_, n_windows_ : int
        Images and windows trained on.
    aligned_share_ : float
        Share of these windows that are aligned.

    Examples
    --------
    >>> from hypervlad import AlignmentClassifier, make_fibre_images
    >>> from hypervlad.models import default_alignment_encoder
    >>> images, truths = make_fibre_images(4, aligned=0.5, size=128, random_state=0)
    >>> maps = [truth.aligned_map(window=32) for truth in truths]
    >>> encoder = default_alignment_encoder(weights="random")
    >>> model = AlignmentClassifier(encoder, random_state=0).fit(images, maps)
    >>> found = model.aligned_fraction(images[0])
    >>> found.proba.shape
    (4, 4)
    """

    _kind = "alignment_classifier"
    _parameter_constraints: ClassVar[Mapping[str, Alternatives]] = {
        "encoder": [InstanceOf(HypercolumnVLAD, "a HypercolumnVLAD"), None],
        "window": [_WINDOW],
        "boosting": [InstanceOf(BoostedSoftmaxClassifier, "a BoostedSoftmaxClassifier"), None],
        "annotations": [OneOf("leave_out", "keep")],
        "tile_size": [TILE_SIDES],
        **SEEDED,
    }
    _part_parameters: ClassVar[Mapping[str, PartParameter]] = {
        "encoder": PartParameter("encoder_", default_alignment_encoder),
        "boosting": PartParameter("boosting_", BoostedSoftmaxClassifier),
    }

    encoder_: Annotated[HypercolumnVLAD, Part(HypercolumnVLAD)]
    boosting_: Annotated[BoostedSoftmaxClassifier, Part(BoostedSoftmaxClassifier)]
    window_: Annotated[int, Value(int, _WINDOW)]
    tile_size_: Annotated[int, Value(int, TILE_SIDES)]
    n_images_: Annotated[int, Value(int, Integer())]
    n_windows_: Annotated[int, Value(int, Integer())]
    aligned_share_: Annotated[float, Value(float, Number(at_least=0, at_most=1))]

    def __init__(
        self,
        encoder: HypercolumnVLAD | None = None,
        *,
        window: int = DEFAULT_WINDOW,
        boosting: BoostedSoftmaxClassifier | None = None,
        annotations: Annotations = "leave_out",
        tile_size: int = 2048,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.encoder = encoder
        self.window = window
        self.boosting = boosting
        self.annotations = annotations
        self.tile_size = tile_size
        self.random_state = random_state
        self.verbose = verbose

    @usual_torch()
    def fit(
        self, images: Sequence[Any], y: Sequence[Any], *, groups: ArrayLike | None = None
    ) -> AlignmentClassifier:
        """Learn to distinguish aligned windows from others.

        Windows without fibres are left out. A temporary folder is used as in
        :meth:`hypervlad.PatchDefectScorer.fit`.

        Parameters
        ----------
        images : sequence of n images
            Paths and/or arrays (H, W) or (H, W, 3), at least as large as a window.
        y : sequence of n labels or maps
            A label of the whole image: "aligned" or 1, "not aligned" or 0. Or a map: a black and
            white file, or an array (H, W) of 0 and 1, with NaN where nothing is known. A window is
            aligned if at least half of its known pixels are.
        groups : sequence of n group names, optional
            Sample of each image, its own by default. Samples of near copies are joined, with a
            warning.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Unusable parameters, lengths that differ, or windows of one class only.
        ImageReadError
            An image or map that cannot be read or does not fit; named.
        """
        self.check_parameters()
        images = check_image_list(images)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        encoder = self._new_part("encoder", seed)
        options = check_read_options(encoder.read_options)
        labels, convert = AlignmentLabels.check(images, y, options), _grey_reader(options)
        codes = check_groups(groups, len(images))
        with TemporaryDirectory(prefix="hypervlad-") as folder, announced():
            tiling = Tiling(self.tile_size, folder)
            fit_codebook = partial(
                fit_tiled_codebook,
                tiling=tiling,
                min_side=self.window,
                convert=convert,
                annotations=self.annotations,
            )
            encoder.fit_checked(images, fit_codebook)
            codes, _ = keep_copies_together(
                images,
                codes,
                labels.of_whole_images(),
                options=options,
                verbose=self.verbose,
            )
            vectors = TurnInvariantVectors(encoder, tiling)
            reader = WindowReader(encoder.loader(), self.window, convert, self.annotations)

            def read() -> Iterator[ImageWindows]:
                for position, image in reader.stream(images, "windows"):
                    known = labels.of_windows(position, image, self.window)
                    blocks = iter([vectors(image, TileGrid.over(image.shape, self.window))])
                    yield ImageWindows(position, image.key, blocks, known)

            windows = TrainingWindows.sample(read(), len(images), seed)
        _check_both_classes(windows.labels)
        learner = self._new_part("boosting", seed).fit(
            windows.X,
            windows.labels,
            sample_weight=windows.weights,
            groups=codes[windows.image_index],
            blocks=[2 * width for width in encoder.feature_blocks.values()],
        )
        # All at the end: a fit that fails leaves the model as it was.
        self.encoder_, self.boosting_ = encoder, learner
        self.window_, self.tile_size_ = int(self.window), int(self.tile_size)
        self.n_images_, self.n_windows_ = len(windows.keys), len(windows.labels)
        is_aligned = windows.labels == ALIGNED
        self.aligned_share_ = float(np.average(is_aligned, weights=windows.weights))
        return self

    def aligned_proba(
        self, image: Any, rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """Return the probability (n_rows, n_columns) that each window is aligned.

        Parameters
        ----------
        image : path or array
        rows, columns : array of int, shape (n_rows + 1,) and (n_columns + 1,)
            Edges in pixels of windows side by side over the whole image.
        """
        check_is_fitted(self)
        tiles = TileGrid(np.asarray(rows), np.asarray(columns))
        reader = WindowReader(self.encoder_.loader(), 1, self._convert_of(image))
        prepared = reader.read(image, image_name(image))
        _check_covered(prepared, tiles)
        self._warn_of_size(tiles)
        return self._proba(prepared, tiles)

    def aligned_fraction(self, image: Any, **options: Any) -> Any:
        """Return which parts of an image are aligned, in windows of the size trained on.

        Parameters
        ----------
        image : path or array, or list of these
        **options
            As in :func:`hypervlad.fibres.aligned_fraction`; images are read as those trained on.

        Returns
        -------
        AlignedFraction, or list of them
        """
        check_is_fitted(self)
        reading = replace(self.encoder_.fitted_params_.read_options, scaling="minmax")
        given: dict[str, Any] = {"window": self.window_, "read_options": reading} | options
        return aligned_fraction(image, self, **given)

    def predict(self, images: Sequence[Any]) -> NDArray[np.float64]:
        """Return the aligned fraction (n,) of each image, by area.

        NaN for an image without fibres, or one that was skipped.
        """
        check_is_fitted(self)
        images = check_image_list(images)
        fractions, skip = np.full(len(images), np.nan), self.encoder_.on_error == "skip"

        def fraction(image: Any, name: str) -> float:
            with errors_of(name):
                found = self.aligned_fraction(image)
            if found.reason:
                raise ImageReadError(f"{name}: {found.reason}; leave it out")
            note_found(name, found)
            return float(found.fraction)

        outcomes = read_in_order(enumerate(images), fraction)
        with announced():
            for position, found in raise_or_skip(outcomes, len(images), skip=skip):
                fractions[position] = found
        return fractions

    @usual_torch()
    def score(self, images: Sequence[Any], y: Sequence[Any]) -> float:
        """Return the accuracy over the windows that have fibres and a known label."""
        check_is_fitted(self)
        images = check_image_list(images)
        options = self.encoder_.fitted_params_.read_options
        labels = AlignmentLabels.check(images, y, options)
        loader, convert = self.encoder_.loader(), _grey_reader(options)
        reader = WindowReader(loader, self.window_, convert, self.annotations)
        correct = []
        with announced():
            for position, image in reader.stream(images, "windows"):
                known = labels.of_windows(position, image, self.window_)
                proba = self._proba(image, TileGrid.over(image.shape, self.window_))
                correct.append(((proba.ravel() > 0.5) == (known == ALIGNED))[known != UNKNOWN])
        of_windows = np.concatenate(correct)
        if not len(of_windows):
            raise ValueError("no window has a known label (y) and fibres, so none can be judged")
        return float(of_windows.mean())

    # --- the stages ----------------------------------------------------------------------------

    def check_parameters(self) -> None:
        super().check_parameters()
        if self.encoder is None:
            return
        check_window_encoder(self.encoder, "alignment is judged")
        if self.encoder.pixel_size is not None:
            raise ValueError(
                f"the encoder brings images to {self.encoder.pixel_size} nm per pixel, but windows "
                "are in the image's own pixels: give HypercolumnVLAD(pixel_size=None, ...)"
            )

    def _check_state(self) -> None:
        self.tile_size = min(self.tile_size_, MAX_INPUT_SIDE)  # memory is the machine's
        n_features, width = self.boosting_.n_features_in_, 2 * self.encoder_.n_features_out_
        if n_features != width:
            raise ValueError(
                f"the learner takes {n_features} features where the windows have {width}"
            )
        if ALIGNED not in self.boosting_.classes_.tolist():
            raise ValueError(f"the learner has no class {ALIGNED!r}")

    def _convert_of(self, image: Any) -> Convert:
        """Return a reader that cuts no banner off an array and selects no channel of a grey one."""
        options = self.encoder_.fitted_params_.read_options
        if not isinstance(image, str | os.PathLike):
            channel = None if np.ndim(image) == 2 else options.channel
            options = replace(options, banner="keep", page=0, channel=channel)
        return _grey_reader(options)

    @usual_torch()
    def _proba(self, image: PreparedImage, tiles: TileGrid) -> NDArray[np.float64]:
        vectors = TurnInvariantVectors(self.encoder_, Tiling.of(self))(image, tiles)
        check_finite(vectors[None], [image.name])
        column = self.boosting_.classes_.tolist().index(ALIGNED)
        proba = self.boosting_.predict_proba(vectors)[:, column]
        return np.asarray(proba.reshape(tiles.shape), dtype=np.float64)

    def _warn_of_size(self, tiles: TileGrid) -> None:
        side = round(float(np.sqrt(tiles.areas.mean())))
        if not self.window_ / _MAX_SIZE_RATIO < side < self.window_ * _MAX_SIZE_RATIO:
            warn_user(
                f"the model was trained on windows of {self.window_} pixels and is applied to "
                f"windows of {side}: whether fibres are aligned depends on the size; use "
                f"window={self.window_}, or train a model for {side}"
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def _grey_reader(options: ReadOptions) -> Convert:
    return lambda image, name: read_varied(image, options, name)


def _check_covered(image: PreparedImage, tiles: TileGrid) -> None:
    for edges, extent in ((tiles.rows, image.size[0]), (tiles.columns, image.size[1])):
        rises = edges.ndim == 1 and len(edges) > 1 and bool((np.diff(edges) > 0).all())
        if not rises or edges[0] != 0 or edges[-1] != extent:
            raise ValueError(
                f"{image.name}: the edges of windows must rise from 0 to the end of the image, "
                f"{image.size[0]} x {image.size[1]} pixels as it is read; got {edges.tolist()}"
            )


# --- labels of windows --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class AlignmentLabels:
    """A label or a map for each training image, from which its windows are labelled."""

    y: list[Any]
    options: ReadOptions

    @classmethod
    def check(cls, images: list[Any], y: Any, options: ReadOptions) -> AlignmentLabels:
        if y is None:
            raise ValueError(
                "this classifier requires y to be passed, but the target y is None: give for each "
                f"image {ALIGNED!r} or {NOT_ALIGNED!r}, or a map of where it is aligned"
            )
        check_column("y", y)
        values = list(y)
        of_length("labels or maps (y)", np.empty(len(values)), len(images))
        for position, value in enumerate(values):
            _check_value(value, image_name(images[position], position))
        return cls(values, options)

    def of_whole_images(self) -> list[str]:
        """Return the label of each image, or that it has a map."""
        return [str(_label_of(value)) for value in self.y]

    def of_windows(self, position: int, image: PreparedImage, window: int) -> NDArray[np.str_]:
        """Return the labels (n,) of the windows of the image at a position, row by row.

        Unknown where less than half of a window is known, and where there are no fibres.
        """
        assert image.converted is not None
        tiles = TileGrid.over(image.shape, window)
        truth = self._map(self.y[position], image)
        known = np.isfinite(truth) & ~image.hidden
        n_known = tiles.sums(known)
        share = tiles.sums(np.where(known, truth, 0)) / np.maximum(n_known, 1)
        labels = np.where(share >= 0.5, ALIGNED, NOT_ALIGNED)
        background = background_windows(image.converted, window, image.name)
        labels[(n_known < _MIN_KNOWN * tiles.areas) | background] = UNKNOWN
        return labels.ravel()

    def _map(self, value: Any, image: PreparedImage) -> NDArray[np.float64]:
        label = _label_of(value)
        if label is not None:
            return np.full(image.shape, label)
        try:
            return _read_map(value, image.shape, mask_banner_rows(self.options))
        except ImageReadError as error:
            raise ImageReadError(f"the map (y) of {image.name}: {error}") from error


def read_varied(image: Any, options: ReadOptions, name: str) -> NDArray[np.float32]:
    """Read an image in grey, scaled to [0, 1] without clipping; colours are averaged."""
    grey = read_grey(image, replace(options, scaling="minmax"), name).pixels
    if not grey.min() < grey.max():
        raise ImageReadError(f"{name}: the image is flat, so nothing is aligned; leave it out")
    return grey


def _check_both_classes(labels: NDArray[np.str_]) -> None:
    for name in (ALIGNED, NOT_ALIGNED):
        if name not in labels:
            raise ValueError(
                f"the labelled windows with fibres are of one class: none of {len(labels)} is "
                f"{name!r} according to y, and windows of both classes are needed. In a map, "
                "white (1, True) is aligned"
            )


def _label_of(value: Any) -> float | None:
    """Return 1 or 0 for a label of a whole image, None for anything else."""
    if isinstance(value, bool | np.bool_ | numbers.Integral) and value in (0, 1):
        return float(value)
    return _LABELS.get(value) if isinstance(value, str) else None


def _check_value(value: Any, name: str) -> None:
    if _label_of(value) is not None or np.ndim(value) == 2:
        return
    if isinstance(value, str | os.PathLike):
        if os.path.isfile(value):
            return
        raise ImageReadError(
            f"y of {name} is {os.fspath(value)!r}: expected {ALIGNED!r}, {NOT_ALIGNED!r}, or the "
            "path of a map; there is no such file"
        )
    raise ValueError(
        f"y of {name}: expected {ALIGNED!r}, {NOT_ALIGNED!r}, True, False, the path of a map, or a "
        f"map of shape (H, W); got {type(value).__name__} of shape {np.shape(value)}"
    )


def _read_map(value: Any, shape: tuple[int, int], rows: int | None) -> NDArray[np.float64]:
    """Return a map of 0, 1 and, where nothing is known, NaN."""
    if isinstance(value, str | os.PathLike) or np.asarray(value).dtype.kind != "f":
        return read_mask(value, shape=shape, banner_rows=rows).astype(np.float64)
    values = np.asarray(value)
    unknown = read_mask(np.isnan(values), shape=shape, banner_rows=rows)
    filled = read_mask(np.nan_to_num(values), shape=shape, banner_rows=rows).astype(np.float64)
    filled[unknown] = np.nan
    return filled


# --- vectors of windows -------------------------------------------------------------------------


class TurnInvariantVectors:
    """Vectors of windows from the four right-angle turns of an image, encoded by a fitted encoder.

    Of the residual sums (or mean hypercolumns) v_t of a window in turns t, the classifier gets

        m = (v_0 + v_1 + v_2 + v_3) / 4          c = |(v_0 + v_2) - (v_1 + v_3)| / 4

    A further turn permutes the v_t, so that m and c stay the same to the last bit.
    """

    def __init__(self, encoder: HypercolumnVLAD, tiling: Tiling) -> None:
        self._windows = WindowVectors(encoder, tiling)

    def __call__(self, image: PreparedImage, tiles: TileGrid) -> NDArray[np.float32]:
        """Return the vectors (R S, n_features) of windows that cover an image, row by row."""
        even, odd = (
            [
                one + other
                for one, other in zip(*(self.turned(image, tiles, k) for k in turns), strict=True)
            ]
            for turns in ((0, 2), (1, 3))
        )
        *sums, means = (
            torch.cat([one + other, (one - other).abs()], dim=-1) / 4
            for one, other in zip(even, odd, strict=True)
        )
        return self._windows.join(
            [of_codebook.flatten(0, 1) for of_codebook in sums], means.flatten(0, 1).numpy()
        )

    def turned(self, image: PreparedImage, tiles: TileGrid, turn: int) -> list[torch.Tensor]:
        """Return residual sums (R, S, K, D) of each codebook, then means (R, S, C), in one turn."""
        # Channel by channel, because torch transposes single matrices many times faster.
        pixels = torch.stack([channel.rot90(turn).contiguous() for channel in image.tensor])
        grid = turned_grid(tiles, turn)
        key = image.key if turn == 0 else None  # the codebook is learnt from images as they are
        maps = self._windows.network.padded_maps(pixels, image.name, key)
        blocks = zip(
            self._windows.residual_sums(maps, grid), self._windows.means(maps, grid), strict=True
        )
        parts = [
            [*sums, torch.from_numpy(means).view(*sums[0].shape[:2], -1)] for sums, means in blocks
        ]
        whole = (torch.cat(list(each)).cpu() for each in zip(*parts, strict=True))
        return [torch.rot90(each, -turn, (0, 1)) for each in whole]


def turned_grid(tiles: TileGrid, turn: int) -> WindowGrid:
    """Return windows of the tiles' mean side, centred in them, in a turn as for `numpy.rot90`."""
    rows, columns = tiles.rows, tiles.columns
    for _ in range(turn):
        rows, columns = columns[-1] - columns[::-1], rows
    side = round(float(np.mean([*np.diff(rows), *np.diff(columns)])))
    side = min(side, int(rows[-1]), int(columns[-1]))
    upper, left = (
        np.clip((edges[:-1] + edges[1:] - side) // 2, 0, edges[-1] - side)
        for edges in (rows, columns)
    )
    return WindowGrid(upper, left, side)
