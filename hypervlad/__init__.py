"""Classify electron micrographs, find their defects, outline particles, measure fibres and pores.

Dense hypercolumns, VLAD and a linear softmax with honest doubt. What most people need is here;
everything public is in one of these packages:

- ``images``: reading micrographs, masks and pixel sizes, finding scale bars and information bars
- ``features``: networks, hypercolumns, codebooks, VLAD, windows
- ``models``: classifiers, defect scorers, the segmenter, systems of papers, loading a saved model
- ``particles``: outlines, found, read and written; particles as images, measures, counts
- ``fibres``: diameters, single fibres, directions, the aligned fraction, pores
- ``evaluation``: metrics, intervals, splits by group
- ``data``: labelled folders, synthetic images, features of whole folders
- ``results``: figures, pages, tables
- ``apps.review``: labels of uncertain images, on a local page

Names are listed in ``__init__.pyi`` and imported on first use: ``import hypervlad`` imports neither
torch nor xgboost. Where the code is, room by room, CONTRIBUTING.md says.
"""

import os

from hypervlad.common.faces import attach_stub

# Threads of torch, BLAS and xgboost that wait for each other spin by default, and on a machine
# whose cores are busy otherwise each waits out another process's time slice: encoding was measured
# 2 to 18 times slower. On a quiet machine, sleeping costs a network in torch up to a fifth of its
# speed, and nothing where OpenVINO does the work. It takes effect if OpenMP is not loaded
# yet, and a setting of the user's own stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
