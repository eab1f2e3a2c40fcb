"""``AlignmentClassifier``: what the user calls; how windows become vectors is beside it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from hypervlad.alignment import state
from hypervlad.alignment.labels import (
    ALIGNED,
    UNKNOWN,
    WindowLabels,
    check_both_kinds,
    grey_of,
)
from hypervlad.alignment.turned import TurnedVectors
from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.classifier.estimator import seeded
from hypervlad.defects import default_patch_encoder
from hypervlad.defects.learning import Examples, ImageWindows
from hypervlad.defects.parameters import check_boosting, check_groups, check_window_encoder
from hypervlad.defects.reading import Picture, Prepare, inputs_of, picture, pictures
from hypervlad.defects.sampling import learn_as_seen
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.encoder.listing import ImageListEstimator
from hypervlad.encoder.parameters import check_count, check_read_options
from hypervlad.encoder.saving import SaveMixin
from hypervlad.fibres import AlignedFraction, aligned_fraction
from hypervlad.fibres.alignment import DEFAULT_WINDOW
from hypervlad.fibres.tiles import TileGrid
from hypervlad.images import ImageReadError, ReadOptions, SkippedImage, check_image_list
from hypervlad.images.errors import image_name, warn_skipped
from hypervlad.modelfile import register_kind
from hypervlad.splits import joined_groups

KIND = "alignment_classifier"
register_kind(KIND, "hypervlad.alignment:AlignmentClassifier")

_LIKE_WINDOW = 1.5  # times as large or small, up to which a window is like those learnt from


class AlignmentClassifier(SaveMixin, ImageListEstimator):
    """Tell windows of an image in which fibres are aligned from others, learnt from examples.

    The network passes over the image in its four right-angle turns. The residual sums to the
    visual words, and the mean hypercolumn, of each window are joined over the turns to what does
    not change if the image is turned: their mean, and how much they differ between one axis and
    the other (see `hypervlad.alignment.turned`). A boosted softmax turns these vectors into the
    probability that a window is aligned. It classifies windows; of whole images :meth:`predict`
    returns the aligned fraction.

    It is an `hypervlad.fibres.AlignmentModel`: ``aligned_fraction(image, model, window=32)``, or
    :meth:`aligned_fraction` here, cuts an image into windows, finds those without fibres and the
    directions by the structure tensor, and asks the model which are aligned.

    Parameters
    ----------
    encoder : HypercolumnVLAD, optional
        Network, taps, codebook and reading options; `default_alignment_encoder` if not given. It
        must keep images at their own size (``image_size=None``, ``pixel_size=None``). Images are
        read grey, from 0 to 1, before its ``scaling`` is applied.
    window : int, default=32
        Side in pixels of the windows learnt from. What counts as aligned depends on it: fibres
        that bend are parallel in small windows only. Asked for windows of a size half as large
        again, the model warns.
    boosting : BoostedSoftmaxClassifier, optional
    tile_size : int, default=2048
        Side in pixels of the largest square that the network takes at once, besides its border.
    random_state : int, RandomState or None, default=None
    verbose : bool, default=False
        Show progress bars.

    Attributes
    ----------
    encoder_ : HypercolumnVLAD
    boosting_ : BoostedSoftmaxClassifier
        Of window vectors, with the classes "aligned" and "not aligned".
    window_ : int
    n_images_, n_windows_ : int
        Learnt from.
    aligned_share_ : float
        Share of these windows that are aligned.

    References
    ----------
    Modarres et al. "Neural network for nanoscience scanning electron microscope image recognition",
    Scientific Reports 7, 13282, 2017: a network trained to find the volume fraction of aligned
    nanowires.

    Examples
    --------
    >>> from hypervlad import AlignmentClassifier, make_nanowire_images
    >>> from hypervlad.alignment import default_alignment_encoder
    >>> images, truths = make_nanowire_images(4, aligned=0.5, size=128, random_state=0)
    >>> maps = [truth.aligned_map(window=32) for truth in truths]
    >>> encoder = default_alignment_encoder(weights="random")
    >>> model = AlignmentClassifier(encoder, random_state=0).fit(images, maps)
    >>> found = model.aligned_fraction(images[0])
    >>> found.proba.shape
    (4, 4)
    """

    _kind = KIND

    encoder_: HypercolumnVLAD
    boosting_: BoostedSoftmaxClassifier
    window_: int
    n_images_: int
    n_windows_: int
    aligned_share_: float

    def __init__(
        self,
        encoder: HypercolumnVLAD | None = None,
        *,
        window: int = DEFAULT_WINDOW,
        boosting: BoostedSoftmaxClassifier | None = None,
        tile_size: int = 2048,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.encoder = encoder
        self.window = window
        self.boosting = boosting
        self.tile_size = tile_size
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self, images: Sequence[Any], y: Sequence[Any], *, groups: ArrayLike | None = None
    ) -> AlignmentClassifier:
        """Learn what aligned windows look like, and others.

        Images are cut into windows side by side. Windows without fibres are left out.

        Parameters
        ----------
        images : sequence of n images
            Paths and/or arrays (H, W) or (H, W, 3), at least as large as a window.
        y : sequence of n labels or maps
            Of a whole image, or of a patch: "aligned" or 1, "not aligned" or 0. Or a map of
            where it is aligned: an image file in black and white, or an array (H, W) of 0 and 1,
            with not-a-number where it is not known. A window is aligned if at least half of what
            is known of it is.
        groups : sequence of n group names, optional
            Images of one sample: the learner's settings are chosen on other samples than they are
            learnt from. Each image is its own group if not given.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Unusable parameters, lengths that differ, or windows of one kind only.
        ImageReadError
            An image or map that cannot be read, does not fit, or is smaller than a window; named.
        """
        self._check()
        images = check_image_list(images)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        own = default_alignment_encoder() if self.encoder is None else self.encoder
        encoder = seeded(own, seed, self.verbose)
        options = check_read_options(encoder.read_options)
        labels, prepare = WindowLabels.of(images, y, options), _grey_by(options)
        codes = check_groups(groups, len(images))
        encoder.fit_checked(images, learn_as_seen(self.tile_size, self.window, prepare))
        vectors = TurnedVectors(encoder, self.tile_size)

        def read() -> Iterator[ImageWindows]:
            for image in pictures(inputs_of(encoder), images, "windows", self.window, prepare):
                known = labels.of_windows(image.position, self.window)
                blocks = iter([vectors(image, TileGrid.over(image.shape, self.window))])
                yield ImageWindows(image.position, image.digest, blocks, known)

        examples = Examples.of(read(), len(images), seed)
        check_both_kinds(examples.labels)
        learner = BoostedSoftmaxClassifier() if self.boosting is None else self.boosting
        learner = seeded(learner, seed, self.verbose).fit(
            examples.X,
            examples.labels,
            sample_weight=examples.weights,
            groups=_groups_of(examples, codes),
            blocks=[2 * width for width in encoder.feature_blocks.values()],
        )
        # All at the end: a fit that fails leaves the model as it was.
        self.encoder_, self.boosting_, self.window_ = encoder, learner, int(self.window)
        self.n_images_, self.n_windows_ = len(examples.digests), len(examples.labels)
        is_aligned = examples.labels == ALIGNED
        self.aligned_share_ = float(np.average(is_aligned, weights=examples.weights))
        return self

    def aligned_proba(
        self, image: Any, rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """Return how probable it is that each window is aligned.

        Parameters
        ----------
        image : path or array
        rows, columns : array of int, shape (n_rows + 1,) and (n_columns + 1,)
            Edges of windows side by side over the whole image, in pixels.

        Returns
        -------
        ndarray of shape (n_rows, n_columns)

        Raises
        ------
        ValueError
            If the windows do not cover the image.

        Warns
        -----
        UserWarning
            If they are much larger or smaller than those learnt from.
        """
        check_is_fitted(self)
        places = TileGrid(np.asarray(rows), np.asarray(columns))
        seen = picture(inputs_of(self.encoder_), image, 1, self._prepare(image))
        _check_places(places, seen)
        self._warn_of_size(places)
        return self._proba(seen, places)

    def aligned_fraction(self, image: Any, **options: Any) -> AlignedFraction:
        """Return what of an image is aligned, in windows like those learnt from.

        Parameters
        ----------
        image : path or array
        **options
            Of :func:`hypervlad.fibres.aligned_fraction`, other than ``method``.

        Returns
        -------
        AlignedFraction

        Raises
        ------
        ValueError
            If the image cannot be read, is flat, or is smaller than a window, or an option is
            unusable.
        """
        check_is_fitted(self)
        return self._fraction(image, image_name(image), **options)

    def predict(self, images: Sequence[Any]) -> NDArray[np.float64]:
        """Return the aligned fraction of each image, by area.

        Parameters
        ----------
        images : sequence of n images

        Returns
        -------
        ndarray of shape (n,)
            Not-a-number for an image without fibres, and for one skipped.
        """
        check_is_fitted(self)
        images = check_image_list(images)
        fractions, skipped = np.full(len(images), np.nan), []
        for position, image in enumerate(images):
            name = image_name(image, position)
            try:
                fractions[position] = self._fraction(image, name).fraction
            except ImageReadError as error:
                if self.encoder_.on_error == "raise":
                    raise
                skipped.append(SkippedImage(position, name, str(error)))
        warn_skipped(skipped, len(images))
        return fractions

    def score(self, images: Sequence[Any], y: Sequence[Any]) -> float:
        """Return the share of windows judged right, of those that are known and have fibres.

        Parameters
        ----------
        images, y
            As in :meth:`fit`.

        Raises
        ------
        ValueError
            If nothing is known of any window.
        """
        check_is_fitted(self)
        images = check_image_list(images)
        known = WindowLabels.of(images, y, check_read_options(self.encoder_.read_options))
        right = []
        inputs = inputs_of(self.encoder_)
        prepare = _grey_by(check_read_options(self.encoder_.read_options))
        for image in pictures(inputs, images, "windows", self.window_, prepare):
            labels = known.of_windows(image.position, self.window_)
            proba = self._proba(image, TileGrid.over(image.shape, self.window_))
            is_known = labels != UNKNOWN
            right.append(((proba.ravel() > 0.5) == (labels == ALIGNED))[is_known])
        judged = np.concatenate(right)
        if not len(judged):
            raise ValueError("no window has a known label (y) and fibres, so none can be judged")
        return float(judged.mean())

    # --- files ---------------------------------------------------------------------------------

    def to_state(
        self, *, include_backbone: bool = False
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the fitted classifier as a JSON-able header and named arrays."""
        check_is_fitted(self)
        return state.pack(self, include_backbone)

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> AlignmentClassifier:
        """Undo :meth:`to_state`."""
        return state.unpack(cls, header, arrays)

    # --- the stages ----------------------------------------------------------------------------

    def _check(self) -> None:
        check_count("window", self.window, 2)
        check_count("tile_size", self.tile_size, 64)
        check_boosting(self.boosting)
        if self.encoder is None:
            return
        check_window_encoder(self.encoder, "alignment is judged")
        if self.encoder.pixel_size is not None:
            raise ValueError(
                f"the encoder brings images to {self.encoder.pixel_size} nm per pixel, but windows "
                "are in the image's own pixels: give HypercolumnVLAD(pixel_size=None, ...)"
            )

    def _prepare(self, image: Any) -> Prepare:
        """Return how an image is read that windows were cut for: of an array nothing is cut off."""
        options = check_read_options(self.encoder_.read_options)
        is_file = isinstance(image, str | os.PathLike)
        return _grey_by(options if is_file else replace(options, banner="keep", page=0))

    def _proba(self, image: Picture, places: TileGrid) -> NDArray[np.float64]:
        check_count("tile_size", self.tile_size, 64)
        vectors = TurnedVectors(self.encoder_, self.tile_size)(image, places)
        column = self.boosting_.classes_.tolist().index(ALIGNED)
        proba = self.boosting_.predict_proba(vectors)[:, column]
        return np.asarray(proba.reshape(places.shape), dtype=np.float64)

    def _fraction(self, image: Any, name: str, **options: Any) -> AlignedFraction:
        grey = grey_of(image, check_read_options(self.encoder_.read_options), name)
        try:
            return aligned_fraction(grey, self, **{"window": self.window_} | options)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def _warn_of_size(self, places: TileGrid) -> None:
        side = round(float(np.sqrt(places.areas.mean())))
        if not self.window_ / _LIKE_WINDOW < side < self.window_ * _LIKE_WINDOW:
            warnings.warn(
                f"the model learnt from windows of {self.window_} pixels and is asked about "
                f"windows of {side}: what is aligned in the one need not be in the other; take "
                f"window={self.window_}, or train a model for {side}",
                UserWarning,
                stacklevel=2,
            )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "boosting_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def _grey_by(options: ReadOptions) -> Prepare:
    """Return what reads an image for the network as `aligned_fraction` is given it."""
    return lambda image, name: grey_of(image, options, name)


def _groups_of(examples: Examples, groups: NDArray[Any]) -> NDArray[np.intp]:
    """Return the group of each example; copies of an image are of one."""
    positions = np.array(list(examples.digests))
    joined = np.zeros(len(groups), dtype=np.intp)
    joined[positions] = joined_groups(groups[positions], list(examples.digests.values()))
    return joined[examples.images]


def _check_places(places: TileGrid, seen: Picture) -> None:
    for edges, extent in ((places.rows, seen.size[0]), (places.columns, seen.size[1])):
        rises = edges.ndim == 1 and len(edges) > 1 and bool((np.diff(edges) > 0).all())
        if not rises or edges[0] != 0 or edges[-1] != extent:
            raise ValueError(
                f"{seen.name}: the edges of windows rise from 0 to the end of the image, "
                f"{seen.size[0]} x {seen.size[1]} pixels as it is read; got {edges.tolist()}"
            )


def default_alignment_encoder(**parameters: Any) -> HypercolumnVLAD:
    """Return the encoder that `AlignmentClassifier` takes if none is given, with changes.

    That of `default_patch_encoder`, reading images without regard to gain and offset of their grey
    values.

    Examples
    --------
    >>> default_alignment_encoder().taps
    ('features.6', 'features.13')
    """
    reading = {"scaling": "percentile", "percentiles": (0.5, 99.5)}
    return default_patch_encoder(**{"read_options": reading} | parameters)
