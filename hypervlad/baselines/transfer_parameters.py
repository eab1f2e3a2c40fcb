"""Checks of a transfer classifier's parameters, and what of them stays fixed after ``fit``."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hypervlad.backbones import Backbone, get_backbone
from hypervlad.baselines.finetuning import FineTuning
from hypervlad.baselines.micrograph_augmentation import MicrographAugmentation
from hypervlad.baselines.parameters import check_number
from hypervlad.baselines.pooled_network import own_size
from hypervlad.baselines.training import Schedule
from hypervlad.boosting.validation import check_class_weight, check_cs
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
        check_choice("mode", model.mode, ("features", "finetune"))
        check_choice("trainable", model.trainable, ("head", "last", "all"))
        _check_learning(model)
        _check_run(model)
        return cls(
            backbone.name,
            model.mode,
            model.trainable,
            _checked_size(model.image_size, backbone),
            check_read_options(model.read_options),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as JSON knows them."""
        return dataclasses.asdict(self)


def fine_tuning_of(model: TransferClassifier) -> FineTuning:
    """Return how a classifier wants its network fine-tuned."""
    return FineTuning(
        trainable=model.trainable,
        augmentation=_from(model, MicrographAugmentation),
        schedule=_from(model, Schedule),
        head_learning_rate=float(model.head_learning_rate),
        weight_decay=float(model.weight_decay),
        dropout=float(model.dropout),
        mixed_precision=bool(model.mixed_precision),
    )


def _from(model: TransferClassifier, kind: type[Any]) -> Any:
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: plain(getattr(model, name)) for name in names})


def _checked_size(image_size: Any, backbone: Backbone) -> int:
    if isinstance(image_size, str) and image_size == "auto":
        return own_size(backbone)
    try:
        return check_count("image_size", image_size, backbone.preprocessing.minimum_size)
    except ValueError as error:
        raise ValueError(f'{error}; or "auto", what the network was made for') from None


def _check_learning(model: TransferClassifier) -> None:
    check_cs(model.Cs)
    check_class_weight(model.class_weight)
    for name in _RATES:
        check_number(name, getattr(model, name), above=0.0)
    check_number("weight_decay", model.weight_decay, at_least=0.0)
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
