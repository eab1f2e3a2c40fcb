"""Extraction in other processes of this machine."""

import numpy as np
import pytest
from support.extraction_fixtures import extracted


@pytest.mark.full  # workers import torch
def test_a_network_registered_here_works_there(encoder, folder, tmp_path, network, monkeypatch):
    """Relative paths, too, and a cache that both find."""
    monkeypatch.chdir(tmp_path)
    expected = encoder.transform(sorted(folder.rglob("*.png")))
    network.clear()
    X, _ = extracted("images", encoder.set_params(memory="cache"), n_jobs=2)
    again, _ = extracted("images", encoder)
    assert network.n_images == 0
    np.testing.assert_array_equal(X, again)
    np.testing.assert_allclose(X, expected, atol=1e-5)
    other, _ = extracted("images", encoder.set_params(memory="another"), n_jobs=2)
    np.testing.assert_allclose(other, expected, atol=1e-5)
    assert (tmp_path / "another" / "joblib").is_dir()
