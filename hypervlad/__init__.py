"""Classify electron micrographs: dense hypercolumns, VLAD and a linear softmax.

What most people need is here; everything public is in one of eight packages, in the order in which
an image passes through them:

- ``images``: reading micrographs and masks
- ``evaluation``: metrics, intervals, splits by group
- ``particles``: outlines, particles as images, measures, counts
- ``features``: networks, hypercolumns, codebooks, VLAD, windows
- ``fibres``: directions and the aligned fraction
- ``models``: classifiers, defect scorers, presets of papers, loading a saved model
- ``data``: labelled folders, synthetic images, features of whole folders
- ``results``: figures, pages, tables

``apps`` has the command line and the page for labels, ``common`` what all others use. Names are
listed in ``__init__.pyi`` and imported on first use: ``import hypervlad`` imports neither torch nor
xgboost.
"""

import os

import lazy_loader

# Threads of torch, BLAS and xgboost that wait for each other spin by default, and on a machine
# whose cores are busy otherwise each waits out another process's time slice: encoding was measured
# 2 to 18 times slower. On a quiet machine, sleeping costs a network in torch up to a fifth of its
# speed, and nothing where OpenVINO and numba do the work. It takes effect if OpenMP is not loaded
# yet, and a setting of the user's own stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
