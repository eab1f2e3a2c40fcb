"""What the encoder looks up instead of computing: vectors, and samples of hypercolumns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypervlad.backbones import Preprocessing, architecture, get_backbone
from hypervlad.cache import Cache, Memory, cache_key
from hypervlad.encoder.parameters import EncoderParams

# Part of every key: raise it when the same image gets other vectors or samples.
ENCODING_VERSION = 2


class ResultCache:
    """Results of one computation by image, in a ``memory``; without one, nothing is kept.

    Parameters
    ----------
    memory : None, str, path-like or joblib.Memory
    fingerprint : mapping
        Everything that a result depends on but the image, JSON-able.
    run : str, optional
        A name for an extraction that may be interrupted and resumed: what was kept under it is not
        found under it. The network's last digits depend on what else is in a batch, so an image
        whose batch was interrupted must not be found when the batch is computed again.
    """

    def __init__(
        self, memory: Memory, fingerprint: Mapping[str, Any], run: str | None = None
    ) -> None:
        self._cache = None if memory is None else Cache(memory)
        self._fingerprint = dict(fingerprint)
        self._run = run

    def find(self, key: str) -> Any:
        """Return an image's result, or None."""
        if self._cache is None:
            return None
        kept = self._cache.find(self._key(key))
        if kept is None:
            return None
        run, result = kept
        of_this_run = run is not None and run == self._run
        return None if of_this_run else result

    def keep(self, key: str, result: Any) -> None:
        """Keep an image's result."""
        if self._cache is not None:
            self._cache.keep(self._key(key), (self._run, result))

    def _key(self, key: str) -> str:
        return cache_key({**self._fingerprint, "image": key})


def maps_fingerprint(params: EncoderParams, preprocessing: Preprocessing) -> dict[str, Any]:
    """Return what feature maps depend on but the image and the weights."""
    # Each image's own pixel size is in its key: see hypervlad.encoder.loading.image_key.
    scale = {} if params.pixel_size is None else {"pixel_size": params.pixel_size}
    return scale | {
        "version": ENCODING_VERSION,
        "network": architecture(get_backbone(params.backbone)),
        "size": [params.image_size, params.aspect],
        "preprocessing": preprocessing.to_dict(),
    }
