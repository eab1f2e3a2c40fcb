"""Classify electron micrographs: dense hypercolumns, VLAD and a boosted softmax.

The public names are listed in ``__init__.pyi`` and imported on first use, so that
``import hypervlad`` imports neither torch nor xgboost.
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
