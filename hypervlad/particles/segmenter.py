"""``HypercolumnSegmenter``: from outlined fields to the particles of new ones."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from skimage.transform import resize
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from hypervlad.common.constraints import SEEDED, Alternatives, InstanceOf, Integer, Number
from hypervlad.common.progress import ProgressBar, joined_notes, note_doubt, note_of
from hypervlad.common.stored import ArrayDict, Each, Maybe, Part, Record, Value
from hypervlad.features.lazy_torch import check_device, usual_torch
from hypervlad.features.network import (
    NetworkEstimator,
    build_network,
    check_tensors,
    rebuilt_network,
)
from hypervlad.features.registry import check_registered, get_backbone
from hypervlad.features.weights import WEIGHTS
from hypervlad.folders.copy_groups import keep_copies_together
from hypervlad.images import ReadOptions
from hypervlad.images.faults import ON_OUTLINES, TOLERANCE, UsualFaults, faults_of_input
from hypervlad.images.options import check_read_options
from hypervlad.images.reading import check_image_list, image_name
from hypervlad.images.sample import (
    Annotations,
    Sample,
    drop_hidden,
    for_each_image,
    note_found,
    one_or_many,
    read_sample,
)
from hypervlad.objects.detection import MIN_AREA, Detection
from hypervlad.objects.particle import Outlines
from hypervlad.objects.splitting import join_without_necks, renumbered
from hypervlad.objects.windows import LabelMap
from hypervlad.particles.decoder import (
    MIN_CONTRAST,
    Crops,
    FieldNetwork,
    TopDownDecoder,
    decoder_of,
    network_input,
    separated,
    standardised,
    train,
)
from hypervlad.particles.fainter import faint_spots
from hypervlad.particles.training_fields import (
    MIN_FOUND,
    OutlinedFields,
    at_own_scale,
    look_of,
    trained_size,
)
from hypervlad.statistics.outlines import OutlineTally
from hypervlad.statistics.splits import check_groups, group_folds

_MIN_GROUPS, _N_FOLDS = 4, 3  # in which each image is held out once
# Separations, and whether what has no neck is joined again; the first if none is held out.
_SEPARATIONS, _OF_NECKS = (0.8, 0.0, 0.3, 0.5, 0.6, 0.7, 0.75, 0.85, 0.9), (0.7, 0.75, 0.8, 0.85)
_RULES = [(s, n) for s in _SEPARATIONS for n in (False, True) if s in _OF_NECKS or not n]
_NECK = 0.3  # pixels


@dataclass(frozen=True)
class HeldOutSegmentation:
    """How well images were outlined that were held out in training.

    Particles of each were separated as suits the images of other groups best.

    Attributes
    ----------
    n_images, n_particles, n_found, n_matched : int
        Held-out images, their outlined particles, outlines that the model found, and how many of
        these are of one of those.
    iou : float
        Pixels of particles in both, as a share of those in either; mean of the images.
    f1 : float or None
        Of particles that overlap an outlined one by more than half (intersection over union); None
        if there are none, true or found.
    diameter_ratio : float or None
        Median diameter that was found, as a share of the true one; None if there is no true one, or
        none was found.
    """

    n_images: int
    n_particles: int
    n_found: int
    n_matched: int
    iou: float
    f1: float | None
    diameter_ratio: float | None


class HypercolumnSegmenter(NetworkEstimator):
    """Outline the particles of micrographs, after training on a few outlined ones.

    The hypercolumns of a frozen pretrained network go through a small decoder, which is trained: it
    tells background, particle and border apart, and how deep in its particle each pixel lies. A
    watershed from the deepest places separates particles that touch.

    Parameters
    ----------
    backbone : str, default="mobilenet_v2"
        One of :func:`hypervlad.features.backbone_names` that takes images of any size.
    weights : {"pretrained", "micronet", "image-micronet", "random"} or path, default="pretrained"
        See :func:`hypervlad.features.find_weights`.
    taps : sequence of str or int, optional
        Layers that make the hypercolumn, from fine to coarse; by default those of
        :func:`hypervlad.features.get_backbone` without the last, whose positions are too far apart.
    n_epochs : int, default=14
        Passes over the training crops; more take longer, and gain a little.
    min_area : int, default=20
        Smallest particle in pixels of the training images; smaller ones are not reported.
    read_options : dict or ReadOptions, optional
        The fields of :class:`hypervlad.images.ReadOptions`.
    tile_size : int, default=1024
        Larger images are segmented in tiles of this side in pixels, with the same result; smaller
        tiles need less memory.
    device : str, default="auto"
        As in :class:`HypercolumnVLAD`.
    random_state : int, RandomState or None, default=None
        Seeds the decoder, the crops and what is held out.
    verbose : bool, default=False
        Show a progress bar.

    Attributes
    ----------
    held_out_ : HeldOutSegmentation or None
        How well images were outlined by models that had not learnt them, in folds; None if there
        were fewer than four images, or groups.
    detection_ : Detection or None
        What is missed, invented and outlined too large or small in these images, by size, by which
        :func:`hypervlad.particles.count_particles` corrects.
    backbone_ : str
        The network that it was trained with.
    decoder_ : dict of ndarray
        The decoder's tensors, by torch's names.
    separation_ : float
        How readily touching particles are separated: see
        :func:`hypervlad.particles.split_particles`. Of a few values, that with which the number of
        held-out particles is nearest to the true one.
    at_necks_ : bool
        Whether what is separated is joined again unless there is a neck between, as between flat
        silhouettes: so it is if held-out particles are then outlined better.
    contrast_ : float
        Typical range of grey values of the training images.
    faults_ : UsualFaults
        How these and their particles look: images of unusual noise or sharpness, and particles of
        other shapes or contrasts, are warned of.
    pixel_size_ : float or None
        Median nanometres per pixel of the training images, as far as they are known. All images of
        known pixel size are brought to it, and their outlines back to their own pixels.
    diameters_ : (float, float)
        Between which 90 % of the equivalent diameters of training particles lie, in pixels of
        `pixel_size_`.
    leaves_out_faint_ : bool
        Whether training images show spots much fainter than particles, alike and without outlines.
        If not, such spots are looked for, and outlined or mentioned.
    taps_ : tuple of str
    weights_digest_ : str
        SHA-256 of the network's tensors.
    losses_ : tuple of float
        Mean loss of each epoch.
    n_images_, n_particles_ : int
        Training images and their particles.

    Examples
    --------
    >>> from hypervlad import HypercolumnSegmenter
    >>> from hypervlad.data import make_particle_fields
    >>> images, truths = make_particle_fields(2, size=128, random_state=0)
    >>> segmenter = HypercolumnSegmenter(weights="random", n_epochs=1, random_state=0)
    >>> segmenter = segmenter.fit(images, [truth.labels for truth in truths])
    >>> [labels.shape for labels in segmenter.predict(images)]
    [(128, 128), (128, 128)]
    """

    _kind = "hypercolumn_segmenter"
    _parameter_constraints: ClassVar[Mapping[str, Alternatives]] = {
        "weights": WEIGHTS,
        "n_epochs": [Integer(at_most=1000)],
        "min_area": [Integer()],
        "read_options": [InstanceOf((Mapping, ReadOptions), "a dict or a ReadOptions"), None],
        "tile_size": [Integer(512, 2**16)],
        "device": [InstanceOf((str, torch.device), '"auto", "cpu" or "cuda"')],
        **SEEDED,
    }

    backbone_: Annotated[str, Value(str)]
    decoder_: Annotated[dict[str, NDArray[np.float32]], ArrayDict()]
    held_out_: Annotated[HeldOutSegmentation | None, Maybe(Record(HeldOutSegmentation))]
    detection_: Annotated[Detection | None, Maybe(Part(Detection))]
    separation_: Annotated[float, Value(float, Number(at_least=0, at_most=1))]
    at_necks_: Annotated[bool, Value(bool)]
    contrast_: Annotated[float, Value(float, Number(above=0))]
    faults_: Annotated[UsualFaults, Record(UsualFaults)]
    pixel_size_: Annotated[float | None, Maybe(Value(float, Number(above=0)))]
    diameters_: Annotated[tuple[float, ...], Each(Value(float))]
    leaves_out_faint_: Annotated[bool, Value(bool)]
    taps_: Annotated[tuple[str, ...], Each(Value(str))]
    weights_digest_: Annotated[str, Value(str)]
    losses_: Annotated[tuple[float, ...], Each(Value(float))]
    n_images_: Annotated[int, Value(int, Integer())]
    n_particles_: Annotated[int, Value(int, Integer(0))]

    def __init__(
        self,
        backbone: str = "mobilenet_v2",
        *,
        weights: str | os.PathLike[str] = "pretrained",
        taps: Sequence[str | int] | None = None,
        n_epochs: int = 14,
        min_area: int = MIN_AREA,
        read_options: Mapping[str, Any] | ReadOptions | None = None,
        tile_size: int = 1024,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.taps = taps
        self.n_epochs = n_epochs
        self.min_area = min_area
        self.read_options = read_options
        self.tile_size = tile_size
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @usual_torch()
    def fit(
        self, images: Sequence[Any], outlines: Sequence[Any], *, groups: ArrayLike | None = None
    ) -> HypercolumnSegmenter:
        """Learn to outline particles.

        Parameters
        ----------
        images : sequence of n images
            Paths and/or arrays (H, W) or (H, W, 3), in any order. Those whose pixel size is unknown
            must have the magnification of those to come.
        outlines : sequence of n label images, masks or paths
            As :func:`hypervlad.particles.cut_particles` and
            :func:`hypervlad.particles.read_outlines` take them: of all particles.
        groups : array-like of shape (n,), optional
            Specimen of each image, its own by default: whole groups are held out. Those of near
            copies are joined, with a warning.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Unusable parameters, another number of outlines, or nothing outlined at all.
        ImageReadError
            An image or its outlines cannot be read or differ in size; named.

        Warns
        -----
        UserWarning
            If the pixel size of some images only is known.
        """
        self.check_parameters()
        images = check_image_list(images)
        codes = check_groups(groups, len(images))
        options = check_read_options(self.read_options)
        fields = OutlinedFields(images, outlines, options)
        codes, _ = keep_copies_together(images, codes, options=options, verbose=self.verbose)
        codes = codes[fields.order]
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        backbone = get_backbone(self.backbone)
        preprocessing = backbone.preprocessing
        taps = backbone.taps[:-1] if self.taps is None else self.taps
        network = build_network(self.backbone, self.weights, taps, check_device(self.device))
        folds = list[tuple[NDArray[np.intp], NDArray[np.intp]]]()
        if codes.max() + 1 >= _MIN_GROUPS:
            folds = group_folds(fields.has_particles, codes, n_splits=_N_FOLDS, random_state=seed)
        contrast = max(float(np.median(fields.contrasts)), MIN_CONTRAST)
        bar = ProgressBar(fields, desc="reading", unit="image", shown=self.verbose)
        crops = Crops.cut(
            ((standardised(grey, contrast), targets) for grey, targets in bar),
            len(fields),
            lambda grey: network(network_input(grey, preprocessing)),
            seed,
        )

        def trained_on(learnt: NDArray[np.intp], what: str) -> tuple[FieldNetwork, list[float]]:
            rows = torch.from_numpy(np.flatnonzero(np.isin(crops.image_index, learnt)))
            decoder = TopDownDecoder([layer.shape[1] for layer in crops.maps])
            decoder.initialise(seed)
            decoder.standardise_by([layer[rows] for layer in crops.maps])
            # In this layout, a step of the training takes a third of the time on CPUs.
            decoder = decoder.to(network.device).to(memory_format=torch.channels_last)
            model = FieldNetwork(network, decoder, backbone, contrast)
            # An error should come before the training.
            model.tiles((fields.largest, fields.largest), self.tile_size)
            # With fewer steps, models of folds miss more small particles than the model of all
            # images, and their shares of what is found would not be those of that model.
            n_epochs = round(self.n_epochs * len(fields) / len(learnt))
            own = self.verbose
            return model, train(decoder, crops, rows, n_epochs, seed, own, what=what)

        assessment = _HeldOut(self.min_area, fields.pixel_size)
        n_models = 1 + len(folds)
        for turn, (learnt, held_out) in enumerate(folds, 1):
            model, _ = trained_on(learnt, f"model {turn} of {n_models}")
            for number in held_out.tolist():
                grey, truth, _ = fields.read(number)
                own = partial(separated, model.fields(grey, self.tile_size), min_area=self.min_area)
                parts = functools.lru_cache(maxsize=1)(own)
                labels = (_joined(parts(each), at_necks) for each, at_necks in _RULES)
                assessment.add(truth.label_image(), labels, codes[number])
        model, losses = trained_on(np.arange(len(fields)), f"model {n_models} of {n_models}")
        (separation, at_necks), assessed, detection = assessment.chosen()
        # All at the end: a fit that fails leaves the model unchanged.
        self._tapped_network, self.network_state_ = model, None
        self.backbone_, self.weights_ = self.backbone, self.weights
        self.pixel_size_, self.diameters_ = fields.pixel_size, fields.usual_diameters()
        self.held_out_, self.detection_, self.contrast_ = assessed, detection, contrast
        self.faults_ = UsualFaults.among(fields.faults)
        self.leaves_out_faint_ = fields.leave_out_faint
        self.separation_, self.at_necks_, self.losses_ = separation, at_necks, tuple(losses)
        self.taps_, self.weights_digest_ = network.taps, network.digest
        self.n_images_, self.n_particles_ = len(fields), fields.n_particles
        weights = model.decoder.state_dict()
        self.decoder_ = {name: value.cpu().numpy() for name, value in weights.items()}
        return self

    def predict(
        self,
        images: Sequence[Any],
        *,
        annotations: Annotations = "leave_out",
        read_options: Mapping[str, Any] | ReadOptions | None = None,
    ) -> list[NDArray[np.int32]]:
        """Outline the particles of images.

        Parameters
        ----------
        images : sequence of n images
            Paths and/or arrays (H, W) or (H, W, 3), in any mix of sizes.
        annotations : {"leave_out", "keep"}, default="leave_out"
            Whether margins and what was drawn into an image, as
            :func:`hypervlad.images.find_annotations` finds them, are left out, with the particles
            that they cover in part, and a warning.
        read_options : dict or ReadOptions, optional
            How these images are read, by default as the training images; for example the pixel size
            of those that state none.

        Returns
        -------
        list of n ndarray of int32, each of shape (H, W)
            The particle of each pixel, numbered from 1; 0 is background.

        Raises
        ------
        ImageReadError
            If an image cannot be read; it is named.

        Warns
        -----
        UserWarning
            If the pixel size is known of an image but not of the training images, or the other way
            round, an image has other noise or sharpness than nearly all of training, particles have
            other sizes, shapes or contrasts than there, or none are found.
        """
        check_is_fitted(self)
        find = one_or_many()(partial(self._found, annotations, read_options))
        return [each.label_image() for each in find(check_image_list(images))]

    def find_particles(
        self,
        images: Any,
        *,
        annotations: Annotations = "leave_out",
        read_options: Mapping[str, Any] | ReadOptions | None = None,
    ) -> Any:
        """Outline the particles of one image or a list, as :func:`~particles.find_particles` does.

        As `predict`, but `Outlines`, or a list of them, which say what was left out, and in their
        `note` what is doubtful.
        """
        check_is_fitted(self)
        return one_or_many()(partial(self._found, annotations, read_options))(images)

    def predict_proba(
        self,
        images: Sequence[Any],
        *,
        annotations: Annotations = "leave_out",
        read_options: Mapping[str, Any] | ReadOptions | None = None,
    ) -> list[NDArray[np.float32]]:
        """Return the probability of background, particle and border at each pixel of images.

        Parameters, errors and warnings are those of `predict`, without those of the particles that
        are found. What is left out is background.

        Returns
        -------
        list of n ndarray of float32, each of shape (3, H, W)
        """

        check_is_fitted(self)

        def shares(image: Any) -> NDArray[np.float32]:
            sample, name = self._read(image, annotations, read_options), image_name(image)
            note_found(name, sample)
            note_doubt(name, self._doubt_about(sample))
            steps = self._fields(sample, image)[:3].astype(np.float32)
            if steps.shape[1:] != sample.mask.shape:
                steps = np.stack([resize(each, sample.mask.shape, order=1) for each in steps])
            steps[:, ~sample.mask] = np.array([[255], [0], [0]], np.float32)
            return np.asarray(steps / steps.sum(axis=0))  # rounded each by itself

        return for_each_image(shares, check_image_list(images))

    # --- internal ------------------------------------------------------------------------------

    def check_parameters(self) -> None:
        super().check_parameters()
        get_backbone(self.backbone)

    def _read(self, image: Any, annotations: Annotations, read_options: Any) -> Sample:
        options = self.read_options if read_options is None else read_options
        return read_sample(image, annotations=annotations, read_options=options, auto="auto")

    @usual_torch()
    def _fields(self, sample: Sample, image: Any) -> NDArray[np.uint8]:
        """Return the network's fields of an image, at the scale of the training images."""
        super().check_parameters()
        grey = sample.grey
        size = trained_size(grey.shape, sample.pixel_size, self.pixel_size_, image_name(image))
        if size is not None:
            grey = resize(grey, size, order=1, anti_aliasing=True)
        model: FieldNetwork = self._fitted_network()
        return model.fields(grey, self.tile_size)

    def _found(self, annotations: Annotations, read_options: Any, image: Any) -> Outlines:
        sample, missed = self._read(image, annotations, read_options), ""
        labels, scale = self._labels(sample, image)
        is_wanted = not self.leaves_out_faint_
        if is_wanted and (spots := faint_spots(sample, labels, None, self.min_area)):
            again, _ = self._labels(sample._replace(grey=spots.grey), image)
            labels = spots.added(labels, again)
            _, missed = spots.missed(labels)
        n_beside = drop_hidden(labels, sample, self.min_area)
        found = replace(
            Outlines.of_labels(labels),
            pixel_size=sample.pixel_size,
            annotations=sample.annotations,
            n_beside=n_beside,
        )
        return replace(found, note=joined_notes([missed, self._doubt_about(sample, found, scale)]))

    def _labels(self, sample: Sample, image: Any) -> tuple[LabelMap, float]:
        """Return particles in the image's pixels, and how many of training each of these is."""
        parts = separated(self._fields(sample, image), self.separation_, self.min_area)
        labels, scale = _joined(parts, self.at_necks_), len(parts) / len(sample.mask)
        if labels.shape != sample.mask.shape:
            labels = renumbered(at_own_scale(labels, sample.mask.shape))
        return labels, scale

    def _doubt_about(
        self, sample: Sample, found: Outlines | None = None, scale: float = 1.0
    ) -> str:
        diameters, pixel_size = np.zeros(0), sample.pixel_size
        # Before an image is resampled, which changes its sharpness in any case.
        look = faults_of_input(sample.grey) if found is None else look_of(sample.grey, found)
        notes = [note_of(*each) for each in self.faults_.effects(look, ON_OUTLINES)]
        if found is not None:
            areas = [np.count_nonzero(each.mask) for each in found]
            diameters = np.sqrt(4 / np.pi * np.array(areas)) * scale
            notes += ["no particle is found"] * (not len(diameters))
        if len(diameters) >= MIN_FOUND:
            low, high = self.diameters_
            middle, beyond = float(np.median(diameters)), np.exp(TOLERANCE)
            if not low / beyond <= middle <= high * beyond:
                notes.append(
                    f"particles of this image ({middle:.3g} pixels wide at the scale of training) "
                    f"differ from most there, {low:.3g} to {high:.3g}: is it another "
                    "magnification? Give the pixel sizes of both, or train with such images"
                )
        if pixel_size is None and self.pixel_size_ is not None:
            notes.append(
                f"the pixel size is unknown, and the model was trained at {self.pixel_size_:.4g} "
                "nm per pixel, so sizes in pixels are taken to be alike; give the pixel size"
            )
        if pixel_size is not None and self.pixel_size_ is None:
            notes.append(
                "the pixel size of the training images is unknown, so it is not known whether the "
                "magnification is the same; train with images of known pixel size"
            )
        return joined_notes(notes)

    def _built(self, device: torch.device) -> FieldNetwork:
        """Build the network as it was at the end of ``fit``."""
        own, weights = get_backbone(self.backbone_), self.network_state_ or self.weights_
        network = rebuilt_network(own, weights, self.taps_, self.weights_digest_, device)
        return FieldNetwork(network, decoder_of(self.decoder_).to(device), own, self.contrast_)

    def _check_state(self) -> None:
        check_registered(self.backbone_)
        if self.network_state_:
            check_tensors(get_backbone(self.backbone_), self.network_state_)
        decoder_of(self.decoder_)  # raises if the tensors do not fit
        self.weights_ = self.weights


def _joined(parts: LabelMap, at_necks: bool) -> LabelMap:
    return join_without_necks(parts.copy(), _NECK) if at_necks else parts


class _HeldOut:
    """Held-out fields, outlined with each separation."""

    def __init__(self, min_area: int, pixel_size: float | None) -> None:
        self.min_area, self.size = min_area, pixel_size or 1.0
        self.unit = "px" if pixel_size is None else "nm"
        self._tallies, self._pairs = list[list[OutlineTally]](), list[list[Detection]]()
        self._groups = list[int]()

    def add(self, true: NDArray[np.int32], labels: Iterable[NDArray[np.int32]], group: int) -> None:
        self._groups.append(group)
        tallies, pairs = list[OutlineTally](), list[Detection]()
        for found in labels:
            tallies.append(OutlineTally(min_area=self.min_area))
            tallies[-1].add(true, found)
            pairs.append(Detection.of([(true, found, self.size)], self.unit, self.min_area))
        self._tallies.append(tallies)
        self._pairs.append(pairs)

    def chosen(
        self,
    ) -> tuple[tuple[float, bool], HeldOutSegmentation | None, Detection | None]:
        """Choose the rule of separation, and say how well that does."""
        if not self._tallies:
            return _RULES[0], None, None
        scores = [[tally.scores() for tally in of_image] for of_image in self._tallies]
        # Empty images show nothing of how to separate.
        excess = np.array(
            [[(s["n_found"] - s["n_true"]) * (s["n_true"] > 0) for s in each] for each in scores]
        )
        wrong = np.array(
            [[s["n_found"] + s["n_true"] - 2 * s["n_matched"] for s in each] for each in scores]
        )
        chosen, by_others = chosen_rules(excess, wrong, self._groups)
        together, pairs = OutlineTally(min_area=self.min_area), list[Detection]()
        for number, column in enumerate(by_others):
            together.update(self._tallies[number][column])
            pairs.append(self._pairs[number][column])
        best: dict[str, Any] = {
            name: None if np.isnan(score) else score for name, score in together.scores().items()
        }
        assessed = HeldOutSegmentation(
            n_images=len(scores),
            n_particles=best["n_true"],
            n_found=best["n_found"],
            n_matched=best["n_matched"],
            iou=best["image_iou"],
            f1=best["f1"],
            diameter_ratio=best["diameter_ratio"],
        )
        return _RULES[chosen], assessed, functools.reduce(Detection.joined, pairs)


def chosen_rules(
    excess: NDArray[np.floating], wrong: NDArray[np.floating], groups: ArrayLike
) -> tuple[int, list[int]]:
    """Return the place of the best of `_RULES`, and that by the other groups for each image.

    From how many particles too many were found in each image by each rule, and how many were wrong
    or missed. Of the rules without necks and of those with them, that counts best, and of these two
    that of which the more frequent errors, missed or wrong particles, are fewer.
    """
    at_necks, groups = np.array([each for _, each in _RULES]), np.asarray(groups)

    def best(own: NDArray[np.bool_]) -> int:
        count, errors = np.abs(excess[own].sum(axis=0)), wrong[own].sum(axis=0)
        counting = (np.where(each, count, np.inf).argmin() for each in (~at_necks, at_necks))
        return min(map(int, counting), key=lambda rule: errors[rule] + count[rule])

    return best(np.ones(len(groups), bool)), [best(groups != each) for each in groups]
