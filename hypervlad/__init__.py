"""Classify electron micrographs: dense hypercolumns, VLAD and a boosted softmax.

Everything public is imported on first use, so that ``import hypervlad`` costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from hypervlad._version import __version__

# Threads of torch, BLAS and xgboost that wait for each other spin by default, and on a machine
# whose cores are busy otherwise each waits out another process's time slice: encoding was measured
# 18 times slower. Sleeping instead costs nothing measurable on a quiet machine. It takes effect if
# OpenMP is not loaded yet, and a setting of the user's own stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from hypervlad import fibres, presets
    from hypervlad.alignment import AlignmentClassifier
    from hypervlad.backbones import register_backbone
    from hypervlad.boosting import BoostedSoftmaxClassifier
    from hypervlad.classifier import MicrographClassifier, default_encoder
    from hypervlad.datasets import (
        check_image_folder,
        load_image_folder,
        make_nanofibre_images,
        make_nanowire_images,
        make_tem_images,
    )
    from hypervlad.defects import PatchDefectScorer, default_patch_encoder
    from hypervlad.encoder import HypercolumnVLAD
    from hypervlad.extraction import extract_features, load_features, plan_extraction
    from hypervlad.images import ImageReadError, Micrograph, read_image, read_micrograph
    from hypervlad.modelfile import ModelFileError
    from hypervlad.models import load

__all__ = [
    "AlignmentClassifier",
    "BoostedSoftmaxClassifier",
    "HypercolumnVLAD",
    "ImageReadError",
    "Micrograph",
    "MicrographClassifier",
    "ModelFileError",
    "PatchDefectScorer",
    "__version__",
    "check_image_folder",
    "default_encoder",
    "default_patch_encoder",
    "extract_features",
    "fibres",
    "load",
    "load_features",
    "load_image_folder",
    "make_nanofibre_images",
    "make_nanowire_images",
    "make_tem_images",
    "plan_extraction",
    "presets",
    "read_image",
    "read_micrograph",
    "register_backbone",
]

_ROOMS = {"fibres", "presets"}  # used whole: hypervlad.presets.luo2021()
_ROOM_OF = {
    "AlignmentClassifier": "alignment",
    "BoostedSoftmaxClassifier": "boosting",
    "HypercolumnVLAD": "encoder",
    "ImageReadError": "images",
    "Micrograph": "images",
    "MicrographClassifier": "classifier",
    "ModelFileError": "modelfile",
    "PatchDefectScorer": "defects",
    "check_image_folder": "datasets",
    "default_encoder": "classifier",
    "default_patch_encoder": "defects",
    "extract_features": "extraction",
    "load": "models",
    "load_features": "extraction",
    "load_image_folder": "datasets",
    "make_nanofibre_images": "datasets",
    "make_nanowire_images": "datasets",
    "make_tem_images": "datasets",
    "plan_extraction": "extraction",
    "read_image": "images",
    "read_micrograph": "images",
    "register_backbone": "backbones",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"hypervlad.{name}")
    if name in _ROOM_OF:
        return getattr(importlib.import_module(f"hypervlad.{_ROOM_OF[name]}"), name)
    raise AttributeError(f"module 'hypervlad' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
