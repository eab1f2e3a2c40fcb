"""What runs a network on a CPU: torch, or OpenVINO and numba where a call has much to do."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, TypeAlias

from hypervlad.backbones import get_backbone
from hypervlad.encoder.parameters import EncoderParams
from hypervlad.workload import n_announced

Runtime: TypeAlias = Literal["torch", "openvino"]

_OWN_SIDE = 1024  # pixels: typical of images at their own size
_MIN_PIXELS = 2**23  # 170 passes at 224 px: fewer take less time than converting a network


def has_much_to_do(params: EncoderParams) -> bool:
    """Return whether the announced images, one if none are, are worth converting a network."""
    side = _OWN_SIDE if params.image_size is None else params.image_size
    return n_announced() * params.turns * side**2 > _MIN_PIXELS


def automatic_runtime(params: EncoderParams) -> Runtime:
    """Return what ``runtime="auto"`` means for the announced images."""
    backbone = get_backbone(params.backbone)
    own_sizes = params.image_size is None or params.aspect == "own" or params.pixel_size
    is_faster = (
        backbone.is_faster_in_openvino
        and not (own_sizes and backbone.is_of_timm)  # each size would be converted by itself
        and has_much_to_do(params)
        and find_spec("openvino") is not None
    )
    return "openvino" if is_faster else "torch"


def check_installed(runtime: str) -> None:
    """Raise a ValueError if a runtime needs a package that is not installed."""
    if runtime == "openvino" and find_spec("openvino") is None:
        raise ValueError(
            'runtime="openvino" needs OpenVINO: pip install "hypervlad[openvino]"; "auto" uses it '
            "where it is installed"
        )
