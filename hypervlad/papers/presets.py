"""Models with the settings of published papers.

Each takes any parameter of the model that it returns, and those of its parts by their names, as in
``luo2021(grid="image", n_estimators=50, random_state=0)``.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from hypervlad.classify.boosting.classifier import BoostedSoftmaxClassifier
from hypervlad.classify.estimator import MicrographClassifier
from hypervlad.common.base import Estimator
from hypervlad.features.encoder import HypercolumnVLAD
from hypervlad.papers.patch_cnn import PatchCNNClassifier
from hypervlad.papers.transfer import TransferClassifier

__all__ = ["carrillo2020", "luo2021", "modarres2017"]

_VGG16_TAPS = ("features.3", "features.8", "features.15", "features.22", "features.29")

Model = TypeVar("Model", bound=Estimator)


def _with(model: Model, parameters: dict[str, Any]) -> Model:
    """Set parameters of a model, or else of its learner or its encoder, by their names."""
    own = model.get_params()
    for name, value in parameters.items():
        names = (name, f"boosting__{name}", f"encoder__{name}")
        model.set_params(**{next((each for each in names if each in own), name): value})
    return model


def luo2021(
    *, grid: int | Literal["image", "finest"] = 5000, backbone: str = "vgg16", **parameters: Any
) -> MicrographClassifier:
    """Return the classifier of Luo, Holm and Wang 2021, unfitted.

    Hypercolumns of VGG-16, VLAD and gradient boosting [1]_.

    Parameters
    ----------
    grid : int, "image" or "finest", default=5000
        Random pixels per image, for the codebook and for encoding. "image" encodes every pixel,
        "finest" every position of the finest tap; the codebook then has 5,000 pixels per image.
    backbone : str, default="vgg16"
        Another network gets its own default taps.
    **parameters
        Others of :class:`MicrographClassifier`, :class:`BoostedSoftmaxClassifier` (100 rounds of
        one tree per class, or one tree for two classes) and :class:`HypercolumnVLAD`, such as
        ``random_state``, ``n_estimators``, ``weights``, ``n_codewords`` and ``memory``.

    Returns
    -------
    MicrographClassifier

    References
    ----------
    .. [1] Q. Luo, E. A. Holm and C. Wang, "A transfer learning approach for improved classification
       of carbon nanomaterials from TEM images", Nanoscale Advances 3, 206, 2021.

    Examples
    --------
    >>> from hypervlad.papers.presets import luo2021
    >>> model = luo2021(grid="image", random_state=0)
    >>> model.encoder.n_codewords, model.encoder.sampling, model.boosting.n_estimators
    (100, 'luo2021', 100)
    """
    encoder = HypercolumnVLAD(
        backbone,
        taps=_VGG16_TAPS if backbone == "vgg16" else None,
        image_size=224,
        grid=grid,
        n_codewords=100,
        sampling="luo2021",
    )
    # Unlike scikit-learn's trees, those of xgboost have a penalty and a smallest hessian of 1: they
    # divide gains by hessians, and without these prefer leaves of a few certain rows (1 to 2 points
    # less accurate).
    boosting = BoostedSoftmaxClassifier(
        init=None, n_estimators=100, learning_rate=0.1, max_depth=3, n_iter_no_change=None
    )
    # The paper does not calibrate, and training takes long.
    model = MicrographClassifier(encoder, boosting=boosting, calibrate=False)
    return _with(model, parameters)


def carrillo2020(**parameters: Any) -> PatchCNNClassifier:
    """Return the patch classifier of Carrillo Pérez 2020, unfitted.

    A network of three convolutions for patches of 29 x 29 pixels: see :class:`PatchCNNClassifier`,
    also for the source.

    Parameters
    ----------
    **parameters
        Of :class:`PatchCNNClassifier`.

    Returns
    -------
    PatchCNNClassifier

    Examples
    --------
    >>> from hypervlad.papers.presets import carrillo2020
    >>> carrillo2020(random_state=0).batch_size
    1000
    """
    return _with(PatchCNNClassifier(batch_size=1000, max_epochs=200, patience=50), parameters)


def modarres2017(
    mode: Literal["finetune", "features"] = "finetune",
    *,
    backbone: str = "inception_v3",
    **parameters: Any,
) -> TransferClassifier:
    """Return the classifier of Modarres et al. 2017, unfitted: Inception-v3 on SEM images.

    What the paper does not give, such as the optimiser, is that of :class:`TransferClassifier`,
    which cites it.

    Parameters
    ----------
    mode : {"finetune", "features"}, default="finetune"
        Retrain the network with a new softmax layer, or only this layer, on averaged features.
    backbone : str, default="inception_v3"
        The paper also has "resnet18" and "resnet50".
    **parameters
        Others of :class:`TransferClassifier`.

    Returns
    -------
    TransferClassifier

    Examples
    --------
    >>> from hypervlad.papers.presets import modarres2017
    >>> model = modarres2017("features", random_state=0)
    >>> model.backbone, model.mode
    ('inception_v3', 'features')
    """
    return _with(TransferClassifier(backbone, mode=mode), parameters)
