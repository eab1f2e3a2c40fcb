"""How commands create and load models, and which cache the models use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypervlad.common.modelfile import ModelFileError

if TYPE_CHECKING:
    from hypervlad.features.encoder import HypercolumnVLAD
    from hypervlad.models.classifier import MicrographClassifier


def new_classifier(
    seed: int, quiet: bool, *, prior: Any = None, **encoder_options: Any
) -> MicrographClassifier:
    """Return an unfitted classifier; options of its encoder that are None keep their defaults."""
    from hypervlad.models.boosting import BoostedSoftmaxClassifier
    from hypervlad.models.classifier import MicrographClassifier, default_encoder

    given = given_options(encoder_options)
    if "memory" in given:
        given["memory"] = str(given["memory"])
    encoder = default_encoder(**given, random_state=seed, verbose=not quiet)
    boosting = BoostedSoftmaxClassifier(prior="sqrt" if prior is None else prior)
    return MicrographClassifier(encoder, boosting=boosting, random_state=seed, verbose=not quiet)


def given_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given, with an absolute path for weights from a file."""
    from hypervlad.features.backbones.weights import portable_weights

    given = {name: value for name, value in options.items() if value is not None and value != {}}
    if "weights" in given and os.path.exists(given["weights"]):
        given["weights"] = portable_weights(given["weights"])
    return given


def load_classifier(
    path: Path,
    weights: str | None,
    *,
    device: str = "auto",
    on_error: str = "raise",
    quiet: bool = True,
    cache: Path | None = None,
) -> MicrographClassifier:
    """Return the classifier in a file that ``train`` wrote."""
    from hypervlad.models.classifier import MicrographClassifier

    model: MicrographClassifier = load_model(path, weights, MicrographClassifier, "hypervlad train")
    model.encoder_.set_params(
        device=device, on_error=on_error, verbose=not quiet, memory=_memory(cache)
    )
    return model


def load_encoder(
    path: Path, weights: str | None, *, device: str, cache: Path | None
) -> HypercolumnVLAD:
    """Return the encoder in a model file of an encoder or a classifier."""
    from hypervlad.models.loading import load

    model = load(path, weights=weights)
    encoder: HypercolumnVLAD = getattr(model, "encoder_", model)
    encoder.set_params(device=device, memory=_memory(cache))
    return encoder


def load_model(path: Path, weights: str | None, kind: type[Any], command: str) -> Any:
    """Load a model of one kind; for another kind, say which command writes the expected one."""
    from hypervlad.models.loading import load

    model = load(path, weights=weights)
    if not isinstance(model, kind):
        raise ModelFileError(
            f"{path} contains a {type(model).__name__}, but this command needs a model written by "
            f"'{command}'; in Python, hypervlad.load({str(path)!r}) loads it."
        )
    return model


def check_cache(cache: Path | None) -> None:
    """Raise if ``--cache`` is unusable, before hours of work."""
    if cache is not None and cache.exists() and not cache.is_dir():
        raise ValueError(f"--cache {cache} is a file; give a folder, which is created if needed.")


def _memory(cache: Path | None) -> str | None:
    return None if cache is None else str(cache)
