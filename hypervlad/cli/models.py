"""How commands create and load models, and which cache the models use."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypervlad.modelfile import ModelFileError

if TYPE_CHECKING:
    from hypervlad.classifier import MicrographClassifier
    from hypervlad.encoder import HypercolumnVLAD


def reading_options(
    *,
    image_page: int | None,
    channel: int | None,
    scaling: str | None = None,
    remove_banner: bool,
) -> dict[str, Any]:
    """Return the fields of `ReadOptions` that were given as options of a command.

    Raises
    ------
    ImageReadError
        If the scaling is none that `ReadOptions` knows.
    """
    from hypervlad.images import ReadOptions

    given: dict[str, Any] = {"page": image_page, "channel": channel}
    if scaling is not None:
        given["scaling"] = _scaling(scaling)
    if remove_banner:
        given["banner"] = "remove"
    given = {name: value for name, value in given.items() if value is not None}
    ReadOptions(**given)
    return given


def _scaling(text: str) -> str | tuple[float, ...]:
    """Return a rule by its name, or the two grey values of a text such as 0:4095."""
    try:
        return tuple(float(value) for value in text.split(":")) if ":" in text else text
    except ValueError:
        return text


def new_classifier(
    seed: int, quiet: bool, *, learner: Mapping[str, Any] | None = None, **options: Any
) -> MicrographClassifier:
    """Return an unfitted classifier.

    Options of its learner and, by keyword, of its encoder that are None keep their defaults.
    """
    from hypervlad.boosting import BoostedSoftmaxClassifier
    from hypervlad.classifier import MicrographClassifier, default_encoder

    given = {name: value for name, value in options.items() if value is not None}
    if "weights" in given:
        given["weights"] = absolute_weights(given["weights"])
    if "memory" in given:
        given["memory"] = str(given["memory"])
    encoder = default_encoder(**given, random_state=seed, verbose=not quiet)
    boosting = BoostedSoftmaxClassifier(
        **{"prior": "sqrt"}
        | {name: value for name, value in (learner or {}).items() if value is not None}
    )
    return MicrographClassifier(encoder, boosting=boosting, random_state=seed, verbose=not quiet)


def rule_or_numbers(option: str, values: Sequence[str] | None) -> str | dict[str, float] | None:
    """Return what was given as a rule, such as "balanced", or as CLASS=NUMBER for some classes.

    Raises
    ------
    ValueError
        For a text of neither form, a class that is repeated, or several rules.
    """
    if not values:
        return None
    if len(values) == 1 and "=" not in values[0]:
        return values[0]
    numbers: dict[str, float] = {}
    for value in values:
        name, _, number = value.rpartition("=")
        try:
            numbers[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise ValueError(f"{option} takes one rule, or CLASS=NUMBER, not {value!r}")
    if len(numbers) < len(values):
        raise ValueError(f"{option} names a class twice: {', '.join(values)}")
    return numbers


def load_classifier(
    path: Path,
    weights: str | None,
    *,
    device: str,
    on_error: str,
    quiet: bool,
    cache: Path | None = None,
) -> MicrographClassifier:
    """Return the classifier in a file that ``train`` wrote."""
    from hypervlad.classifier import MicrographClassifier

    model: MicrographClassifier = load_model(path, weights, MicrographClassifier, "hypervlad train")
    model.encoder_.set_params(
        device=device, on_error=on_error, verbose=not quiet, memory=_memory(cache)
    )
    return model


def load_encoder(
    path: Path, weights: str | None, *, device: str, cache: Path | None
) -> HypercolumnVLAD:
    """Return the encoder in a model file of an encoder or a classifier."""
    from hypervlad.models import load

    model = load(path, weights=weights)
    encoder: HypercolumnVLAD = getattr(model, "encoder_", model)
    encoder.set_params(device=device, memory=_memory(cache))
    return encoder


def load_model(path: Path, weights: str | None, kind: type[Any], command: str) -> Any:
    """Load a model of one kind; for another kind, say which command writes the expected one.

    Raises
    ------
    ModelFileError
    """
    from hypervlad.models import load

    model = load(path, weights=weights)
    if not isinstance(model, kind):
        raise ModelFileError(
            f"{path} contains a {type(model).__name__}, but this command needs a model written by "
            f"'{command}'; in Python, hypervlad.load({str(path)!r}) loads it."
        )
    return model


def absolute_weights(weights: str | None) -> str | None:
    """Make a path to weights absolute, because it is stored in the model file."""
    from hypervlad.encoder.network_source import portable_weights

    if weights is None or not os.path.exists(weights):
        return weights
    return portable_weights(weights)


def check_cache(cache: Path | None) -> None:
    """Raise if ``--cache`` is unusable, before hours of work."""
    if cache is not None and cache.exists() and not cache.is_dir():
        raise ValueError(f"--cache {cache} is a file; give a folder, which is created if needed.")


def _memory(cache: Path | None) -> str | None:
    return None if cache is None else str(cache)
