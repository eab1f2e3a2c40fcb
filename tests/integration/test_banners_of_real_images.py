"""Information bars of real images: found where there is one, and nothing else is cut."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from support.paths import DATA

from hypervlad.images import find_banner

# Every image of these folders whose lower edge really is a banner, by eye.
WITH_BANNER = {
    "chemrxiv_10_26434_13635284_v1_fig_2_7.jpg",
    "chemrxiv_10_26434_2022_w0d5g_v3_fig_8_1.jpg",
    "chemrxiv_10_26434_2023_gzxl1_fig_3_2.jpg",
    "chemrxiv_10_26434_2023_mhb04_fig_2_1.jpg",
    "chemrxiv_10_26434_2023_mhb04_fig_2_2.jpg",
    "chemrxiv_10_26434_2024_s2kf2_fig_2_0.jpg",
    "chemrxiv_10_26434_6998204_v2_fig_1_0.jpg",
}


@pytest.mark.real
@pytest.mark.parametrize(
    "folder", ["micrographs", "nanofibre", "neu_steel", "magnetic_tile/images"]
)
def test_no_real_image_is_cut_that_has_no_banner(folder):
    files = [*DATA.joinpath(folder).rglob("*.jpg"), *DATA.joinpath(folder).rglob("*.png")]
    if not files:
        pytest.skip(f"no real images in {DATA / folder}")
    cut = {file.name for file in files if find_banner(np.asarray(Image.open(file)))}

    assert cut <= WITH_BANNER
    assert len(cut) >= (7 if folder == "micrographs" else 0)
