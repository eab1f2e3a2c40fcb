"""The papers' systems as ready classifiers: the published settings, each deviation by name."""

from __future__ import annotations

import os
from typing import Literal

import joblib
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.ensemble import GradientBoostingClassifier

from hypervlad.baselines import PatchCNNClassifier, TransferClassifier
from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.classifier import MicrographClassifier
from hypervlad.encoder import HypercolumnVLAD

_VGG16_TAPS = ("features.3", "features.8", "features.15", "features.22", "features.29")
_BOOSTERS = ("xgboost", "sklearn")


def luo2021(
    *,
    grid: int | Literal["image", "finest"] = 5000,
    booster: Literal["xgboost", "sklearn"] = "xgboost",
    backbone: str = "vgg16",
    weights: str | os.PathLike[str] = "imagenet",
    n_codewords: int = 100,
    kmeans: Literal["minibatch", "lloyd"] = "minibatch",
    scale_layers: bool = False,
    n_estimators: int = 100,
    memory: str | os.PathLike[str] | joblib.Memory | None = None,
    device: str = "auto",
    n_jobs: int | None = None,
    random_state: int | np.random.RandomState | None = None,
    verbose: bool = False,
) -> MicrographClassifier:
    """Return the classifier of Luo, Holm and Wang 2021, unfitted.

    Images are stretched to 224 x 224 pixels. VGG-16 (ImageNet) gives hypercolumns of 1,472
    channels: conv1_2, 2_2, 3_3, 4_3 and 5_3 after their ReLU, enlarged to the image, neither
    scaled nor reduced. Minibatch K-means finds 100 codewords in 5,000 random pixels (10 %) of
    every training image, and VLAD sums the residuals of as many pixels an image: 100 x 1,472 =
    147,200 features, each codeword's block and then the whole divided by its L2 norm. Gradient
    boosting of 100 trees a class (learning rate 0.1, depth 3) with a softmax classifies them.

    The defaults are the paper's system; a keyword that you change is a deviation from it. What has
    no keyword here can be set on the result, for instance
    ``luo2021().set_params(encoder__normalize=("power", "l2"))``.

    Parameters
    ----------
    grid : int, "image" or "finest", default=5000
        Random pixels of an image, for the codebook and for encoding. "image": encode every pixel,
        "finest": every position of the finest tap (of VGG-16 the same); the codebook is learnt
        from 5,000 random pixels an image all the same.
    booster : {"xgboost", "sklearn"}, default="xgboost"
        "sklearn" is the paper's :class:`~sklearn.ensemble.GradientBoostingClassifier`, whose exact
        search is slow on 147,200 features, and which cannot be saved without pickle. "xgboost"
        grows the same trees from histograms, in :class:`BoostedSoftmaxClassifier`.
    backbone : str, default="vgg16"
        Another network is tapped where its own defaults say.
    weights : {"imagenet", "random"} or path, default="imagenet"
        As in :class:`HypercolumnVLAD`.
    n_codewords : int, default=100
    kmeans : {"minibatch", "lloyd"}, default="minibatch"
        "lloyd": ordinary K-means on a sample of 50,000 hypercolumns.
    scale_layers : bool, default=False
        Unscaled, the first three layers nearly rule the codebook alone.
    n_estimators : int, default=100
        Rounds of boosting, a tree for each class in each (one in all for two classes); all are
        kept.
    memory, device, random_state, verbose
        As in :class:`HypercolumnVLAD`.
    n_jobs : int or None, default=None
        Threads that read images, and threads of xgboost.

    Returns
    -------
    MicrographClassifier
        With an ``encoder`` and a ``boosting`` of its own, to look at or to change.

    Raises
    ------
    ValueError
        If ``booster`` is unknown. Other parameters are checked in ``fit``.

    Notes
    -----
    *The paper's results.* 5,323 TEM images of carbon nanotubes and nanofibres, split at random
    80 : 20: accuracy 90.9 % on 4 classes and 84.5 % on 8. The images are not public.

    *Known differences.* The paper leaves open how K-means starts and what a minibatch is. Here it
    starts with k-means++ on a sample of about a thousand images, and each image is one minibatch,
    in an order that no order of files changes. Hypercolumns are centred, which moves them and
    their codewords alike. Boosting in xgboost looks for thresholds among 64 bins of a feature,
    found in about 450 of the images, where scikit-learn tries every value; it regularises leaves
    as xgboost does by default (``boosting__min_child_weight``, ``boosting__reg_lambda``), and
    equal images count as one of more weight.

    *Memory.* The vectors of n images take 0.6 MB x n, and xgboost about 2 GB more for 400
    images and 3.5 GB for 4,259 while it learns from them, several times that with
    ``boosting__max_bin=256``. scikit-learn's booster takes little, but many hours.

    References
    ----------
    Q. Luo, E. A. Holm and C. Wang, "A transfer learning approach for improved classification of
        carbon nanomaterials from TEM images", Nanoscale Advances 3, 206, 2021.

    Examples
    --------
    >>> from hypervlad.presets import luo2021
    >>> model = luo2021(grid="image", random_state=0)
    >>> model.encoder.n_codewords, model.encoder.kmeans, model.boosting.n_estimators
    (100, 'minibatch', 100)
    """
    encoder = HypercolumnVLAD(
        backbone,
        weights=weights,
        taps=_VGG16_TAPS if backbone == "vgg16" else None,
        image_size=224,
        aspect="square",
        grid=grid,
        n_codewords=n_codewords,
        codebook="joint",
        layer_components=None,
        scale_layers=scale_layers,
        n_samples=50_000,
        kmeans=kmeans,
        normalize=("intra", "l2"),
        memory=memory,
        device=device,
        n_jobs=n_jobs,
        verbose=verbose,
    )
    return MicrographClassifier(
        encoder,
        boosting=_gradient_boosting(booster, n_estimators, n_jobs, verbose),
        calibration_size=0,  # the paper's system says nothing of doubt, and learning takes long
        random_state=random_state,
        verbose=verbose,
    )


def carrillo2020(
    *,
    max_epochs: int = 200,
    patience: int = 50,
    batch_size: int = 1000,
    rescale_maps: bool = True,
    device: str = "auto",
    random_state: int | np.random.RandomState | None = None,
    verbose: bool = False,
) -> PatchCNNClassifier:
    """Return the patch classifier of Carrillo Pérez 2020, unfitted.

    Patches of 29 x 29 pixels go through convolutions of 16 and 32 filters of 5 x 5 and 64 of
    3 x 3, each unpadded, with ReLU and pooled by two, a dense layer of 64, dropout of 0.6 and a
    sigmoid: 35,969 parameters for grey images, 36,769 for colour. Adam minimises the binary
    cross-entropy in batches of 1,000 for up to 200 epochs; values are divided by 255, patches
    sheared by up to 0.2 degrees, zoomed by up to 0.2 and mirrored; the weights of the lowest
    validation loss are kept.

    Parameters
    ----------
    max_epochs : int, default=200
    patience : int, default=50
        100 in some of the report's runs.
    batch_size : int, default=1000
    rescale_maps : bool, default=True
        False repeats the report's mistake of forgetting to divide whole images by 255.
    device, random_state, verbose
        As in :class:`PatchCNNClassifier`.

    Returns
    -------
    PatchCNNClassifier

    Notes
    -----
    *The report's results.* Learnt from 4,807 anomalous and 5,307 normal patches, stopped on 18,
    tested on 18: 94.4 %, then 100 %. The map of a whole image looked poor and was compared with no
    ground truth.

    *Its other mistakes* are choices of how patches are cut and split, and both have their
    counterpart: patches of one image, overlapping, lay in training and in test
    (``split_patches(..., by="patch")``), and patches with a few defective pixels passed as normal
    (``cut_patches(..., mixed="keep")``). The defaults of both avoid them.

    References
    ----------
    A. Carrillo Pérez, "Defect detection in SEM images of nanofibrous materials", 2020.

    Examples
    --------
    >>> from hypervlad.presets import carrillo2020
    >>> carrillo2020(random_state=0).filters
    (16, 32, 64)
    """
    return PatchCNNClassifier(
        filters=(16, 32, 64),
        kernel_sizes=(5, 5, 3),
        n_dense=64,
        dropout=0.6,
        learning_rate=1e-3,
        batch_size=batch_size,
        max_epochs=max_epochs,
        patience=patience,
        shear=0.2,
        zoom=0.2,
        horizontal_flip=True,
        rescale_maps=rescale_maps,
        device=device,
        random_state=random_state,
        verbose=verbose,
    )


def modarres2017(
    mode: Literal["finetune", "features"] = "finetune",
    *,
    backbone: str = "inception_v3",
    weights: str | os.PathLike[str] = "imagenet",
    trainable: Literal["head", "last", "all"] = "all",
    max_epochs: int = 30,
    patience: int = 5,
    checkpoint: str | os.PathLike[str] | None = None,
    device: str = "auto",
    n_jobs: int | None = None,
    random_state: int | np.random.RandomState | None = None,
    verbose: bool = False,
) -> TransferClassifier:
    """Return the classifier of Modarres et al. 2017, unfitted: Inception-v3 on SEM images.

    Inception-v3 with ImageNet's weights, on images of 299 x 299 pixels. Either the whole network
    is retrained under a new softmax layer ("finetune"), or its 2,048 averaged features are kept as
    they are and only the softmax layer learns ("features"). The paper did both, with compatible
    results.

    Parameters
    ----------
    mode : {"finetune", "features"}, default="finetune"
    backbone : str, default="inception_v3"
        The paper compared Inception-v3 with Inception-v4 and ResNets, which are here as "resnet18"
        and "resnet50"; Inception-v4 is not.
    weights : {"imagenet", "random"} or path, default="imagenet"
        As in :class:`HypercolumnVLAD`.
    trainable : {"all", "last", "head"}, default="all"
        What is retrained.
    max_epochs, patience : int, default=30 and 5
        Held-out images say when to stop.
    checkpoint, device, n_jobs, random_state, verbose
        As in :class:`TransferClassifier`.

    Returns
    -------
    TransferClassifier

    Notes
    -----
    *The paper's results.* About 20,000 SEM images in 10 categories (biological, fibres, films, MEMS
    devices, nanowires, particles, patterned surfaces, porous sponges, powder, tips), which were
    published as the NFFA-EUROPE SEM data set: "around 90 %" of test images right, fewer where an
    image lies between two categories; such images have no category of a high score.

    *What this preset had to choose*, because it is not known here from the paper to the letter:
    optimiser, rates, batches, augmentation, regularisation, the split. They are the defaults of
    :class:`TransferClassifier`, to be changed by ``set_params``. It splits by group where groups
    are given: nothing is said of several images of one sample.

    *Known differences.* The network's weights are torchvision's, not those of TensorFlow. There is
    no auxiliary classifier. Batch normalisation keeps ImageNet's running statistics. The softmax
    layer starts as logistic regression on the features, not at random, and in "features" it is
    that regression, its penalty chosen by inner folds. Probabilities have a temperature fitted on
    held-out images. Information bars stay in the images (``read_options={"banner": "remove"}``
    takes them away).

    References
    ----------
    M. H. Modarres, R. Aversa, S. Cozzini, R. Ciancio, A. Leto and G. P. Brandino, "Neural network
        for nanoscience scanning electron microscope image recognition", Scientific Reports 7,
        13282, 2017.

    Examples
    --------
    >>> from hypervlad.presets import modarres2017
    >>> model = modarres2017("features", random_state=0)
    >>> model.backbone, model.mode
    ('inception_v3', 'features')
    """
    return TransferClassifier(
        backbone,
        weights,
        mode=mode,
        trainable=trainable,
        max_epochs=max_epochs,
        patience=patience,
        checkpoint=checkpoint,
        device=device,
        n_jobs=n_jobs,
        random_state=random_state,
        verbose=verbose,
    )


def _gradient_boosting(
    booster: str, n_estimators: int, n_jobs: int | None, verbose: bool
) -> BaseEstimator:
    """Trees of depth 3 at rate 0.1, on every feature and without early stopping."""
    if booster not in _BOOSTERS:
        raise ValueError(f"booster must be one of {', '.join(map(repr, _BOOSTERS))}: {booster!r}")
    if booster == "sklearn":
        return GradientBoostingClassifier(n_estimators=n_estimators, learning_rate=0.1, max_depth=3)
    return BoostedSoftmaxClassifier(
        init=None,
        n_estimators=n_estimators,
        learning_rate=0.1,
        max_depth=3,
        max_bin=64,
        max_tree_features=None,
        # Not in scikit-learn's trees. But xgboost divides gains by hessians, so that without them
        # it prefers leaves of a few sure rows: tried at 0, it was 1 to 2 points worse than they.
        min_child_weight=1.0,
        reg_lambda=1.0,
        n_iter_no_change=None,
        n_jobs=n_jobs,
        verbose=verbose,
    )
