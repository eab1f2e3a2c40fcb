"""Checks of a transfer classifier's parameters, and what of them stays fixed after ``fit``."""

from __future__ import annotations

import dataclasses
import numbers
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hypervlad.backbones import Backbone, get_backbone
from hypervlad.baselines.checkpoints import check_place
from hypervlad.baselines.finetuning import FineTuning
from hypervlad.baselines.micrograph_augmentation import MicrographAugmentation
from hypervlad.baselines.parameters import check_number
from hypervlad.baselines.pooled_network import own_size
from hypervlad.baselines.training import Schedule
from hypervlad.boosting.classifier import CLASS_WEIGHT, CS
from hypervlad.constraints import check_value
from hypervlad.encoder.parameters import (
    check_choice,
    check_count,
    check_device,
    check_read_options,
    plain,
)
from hypervlad.images import ReadOptions

if TYPE_CHECKING:
    from hypervlad.baselines.transfer import TransferClassifier

_WARM_UP = 10  # steps
_RATES = ("learning_rate", "head_learning_rate")
_SWITCHES = ("flips", "right_angles", "mixed_precision", "verbose")


@dataclass(frozen=True)
class TransferRecipe:
    """The parameters that must not change after ``fit``; see `TransferClassifier`."""

    backbone: str
    mode: Literal["features", "finetune"]
    trainable: Literal["head", "last", "all"]
    image_size: int
    read_options: ReadOptions
    aspect: Literal["square"] = "square"
    pixel_size: None = None

    @classmethod
    def of(cls, model: TransferClassifier) -> TransferRecipe:
        """Check a classifier's parameters and keep these.

        Raises
        ------
        ValueError
            That names the first parameter that is unusable.
        """
        backbone = get_backbone(model.backbone)
        _check_choices(model.mode, model.trainable)
        _check_learning(model)
        _check_run(model)
        return cls(
            backbone.name,
            model.mode,
            model.trainable,
            checked_size(model.image_size, backbone),
            check_read_options(model.read_options),
        )

    def check(self) -> None:
        """Raise a ValueError if what came from a file cannot be."""
        _check_choices(self.mode, self.trainable)
        check_count("image_size", self.image_size)
        if (self.aspect, self.pixel_size) != ("square", None):
            raise ValueError("images of a transfer classifier are squares, at no common scale")

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as JSON knows them."""
        return dataclasses.asdict(self)


def _check_choices(mode: Any, trainable: Any) -> None:
    check_choice("mode", mode, ("features", "finetune"))
    check_choice("trainable", trainable, ("head", "last", "all"))


def fine_tuning_of(model: TransferClassifier) -> FineTuning:
    """Return how a classifier wants its network fine-tuned."""
    return FineTuning(
        trainable=model.trainable,
        augmentation=_augmentation(model),
        schedule=_schedule(model),
        head_learning_rate=float(model.head_learning_rate),
        dropout=float(model.dropout),
        mixed_precision=bool(model.mixed_precision),
    )


def _augmentation(model: TransferClassifier) -> MicrographAugmentation:
    names = [field.name for field in dataclasses.fields(MicrographAugmentation)]
    return MicrographAugmentation(**{name: plain(getattr(model, name)) for name in names})


def _schedule(model: TransferClassifier) -> Schedule:
    names = ("learning_rate", "batch_size", "max_epochs", "patience")
    own = {name: plain(getattr(model, name)) for name in names}
    return Schedule(**own, warm_up=_WARM_UP, even_batches=True)


def checked_size(image_size: Any, backbone: Backbone) -> int:
    """Return the side of images in pixels; ValueError if the network cannot take them."""
    if isinstance(image_size, str) and image_size == "auto":
        return max(own_size(backbone), backbone.preprocessing.minimum_size)
    try:
        return check_count("image_size", image_size, backbone.preprocessing.minimum_size)
    except ValueError as error:
        raise ValueError(f'{error}; or "auto", what the network was made for') from None


def _check_learning(model: TransferClassifier) -> None:
    check_value("Cs", model.Cs, CS)
    check_value("class_weight", model.class_weight, CLASS_WEIGHT)
    for name in _RATES:
        check_number(name, getattr(model, name), above=0.0)
    check_number("dropout", model.dropout, at_least=0.0, below=1.0)
    for name in ("batch_size", "max_epochs", "patience"):
        check_count(name, getattr(model, name))
    check_number("validation_fraction", model.validation_fraction, above=0.0, below=1.0)
    check_number("rotation", model.rotation, at_least=0.0, at_most=180.0)
    check_number("crop", model.crop, above=0.0, at_most=1.0)
    check_number("brightness", model.brightness, at_least=0.0, at_most=1.0)
    check_number("contrast", model.contrast, at_least=0.0, at_most=1.0)


def _check_run(model: TransferClassifier) -> None:
    for name in _SWITCHES:
        value = getattr(model, name)
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"{name} must be True or False, not {value!r}")
    check_device(model.device)
    check_choice("on_error", model.on_error, ("raise", "skip"))
    if not isinstance(model.checkpoint, str | os.PathLike | None):
        raise ValueError(
            f"checkpoint must be a file or a folder to keep the training in, or None, not "
            f"{model.checkpoint!r}"
        )
    if model.checkpoint is not None:
        check_place(model.checkpoint)
        if not isinstance(model.random_state, numbers.Integral):
            raise ValueError(
                "checkpoint needs an integer random_state: a training that draws other numbers "
                "each time cannot be taken up again"
            )
