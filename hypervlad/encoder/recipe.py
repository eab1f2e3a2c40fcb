"""What decides an image's vector, as it was when the codebook was learnt."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from hypervlad.backbones import get_backbone
from hypervlad.encoder.parameters import (
    check_normalize,
    check_pixel_size,
    check_read_options,
    check_what_decides,
    plain,
)
from hypervlad.images import ReadOptions
from hypervlad.vlad import Normalization

if TYPE_CHECKING:
    from hypervlad.encoder.estimator import HypercolumnVLAD


@dataclass(frozen=True)
class Recipe:
    """The parameters of an encoder that must not change after ``fit``.

    What a user sets later waits for the next ``fit``: a codebook means nothing with another grid
    or scale, and a classifier nothing with other vectors. All fields are plain Python values, as
    in :class:`hypervlad.HypercolumnVLAD`; weights and taps are fitted attributes of their own.
    """

    backbone: str
    image_size: int | None
    aspect: Literal["square", "own"]
    pixel_size: float | None
    grid: Literal["finest", "image", "own"] | int
    turns: int
    n_codewords: int
    codebook: Literal["joint", "per_layer", "both"]
    layer_components: int | None
    scale_layers: bool
    kmeans: Literal["lloyd", "minibatch"]
    normalize: tuple[Normalization, ...]
    pooled: bool
    n_samples: int
    read_options: ReadOptions

    @classmethod
    def of(cls, encoder: HypercolumnVLAD) -> Recipe:
        """Check an encoder's parameters and keep them.

        Raises
        ------
        ValueError
            That names the first parameter that is unusable.
        """
        check_what_decides(encoder, get_backbone(encoder.backbone))
        values = {field.name: plain(getattr(encoder, field.name)) for field in fields(cls)}
        values |= {
            "pixel_size": check_pixel_size(encoder.pixel_size),
            "normalize": check_normalize(encoder.normalize),
            "read_options": check_read_options(encoder.read_options),
        }
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as JSON knows them."""
        return asdict(self) | {"normalize": list(self.normalize)}
