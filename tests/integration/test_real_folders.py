"""Folders of real images: what is read, what a check finds, and which copies it finds."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.commands import save
from support.copies import CHANGES, jpeg
from support.paths import DATA

from hypervlad.data import check_image_folder, load_image_folder

pytestmark = [
    pytest.mark.real,
    pytest.mark.full,  # hundreds of real images are decoded and compared
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real images in {DATA}"),
]


@pytest.mark.parametrize(
    ("name", "n_images", "n_classes", "n_groups"),
    [("micrographs", 494, 5, None), ("nanofibre", 83, 3, 16), ("neu_steel", 300, 6, 0)],
)
def test_real_folders(name, n_images, n_classes, n_groups):
    csv = None if n_groups == 0 else DATA / name / "groups.csv"
    data = load_image_folder(DATA / name, groups=csv)
    assert len(data.images) == len(data.target) == n_images
    assert len(data.target_names) == n_classes
    if csv is None:
        assert data.groups is None
        return
    assert len(data.groups) == n_images
    if n_groups:
        assert len(set(data.groups)) == n_groups
    else:
        # Each paper's figures carry its identifier in their names.
        for image, group in zip(data.images, data.groups, strict=True):
            number = group.split("chemrxiv")[-1].replace("-", "_").replace(".", "_")
            assert Path(image).name.startswith(f"chemrxiv_10_26434{number}_fig_")


def test_nanofibre_near_copies_are_of_one_sample():
    folder = DATA / "nanofibre"
    report = check_image_folder(folder, folder / "groups.csv")
    assert 6 <= len(report.near_copies) <= 20
    assert not any(s.crosses_groups for s in report.near_copies)
    # Two views that overlap in a third, one of them with a defect.
    (across,) = (s for s in report.near_copies if s.crosses_classes)
    assert [Path(file).stem for file in across.files] == ["psnppy4_09", "psnppy4_10"]


def test_neighbouring_crops_of_steel_are_found():
    """Many of the published images are crops that overlap: neighbours by number, one surface."""
    report = check_image_folder(DATA / "neu_steel")
    assert 25 <= len(report.near_copies) <= 45
    assert max(len(s.files) for s in report.near_copies) <= 6
    assert not any(s.crosses_classes for s in report.near_copies)


@pytest.mark.parametrize("name", ["micrographs", "neu_steel", "nanofibre", "magnetic_tile/images"])
def test_planted_copies_among_real_images(name, tmp_path):
    files = sorted((DATA / name).rglob("*.jpg"))[::3]
    changes = list(CHANGES.values())
    for i, file in enumerate(files):
        image = np.asarray(Image.open(file).convert("L"), np.float32) / 255
        if i % 3 == 0:
            is_large = min(image.shape) >= 90
            change = changes[(i // 3) % len(changes)]
            image, copy = change(image) if is_large else (image, jpeg(image, 60))
            save(tmp_path / f"{i}copy.png", np.clip(copy, 0, 1))
        save(tmp_path / f"{i}.png", np.clip(image, 0, 1))
    report = check_image_folder(tmp_path)
    together = [set(copies.files) for copies in report.near_copies + report.exact_copies]
    hits = [
        any({f"{i}.png", f"{i}copy.png"} <= files for files in together)
        for i in range(0, len(files), 3)
    ]
    assert np.mean(hits) >= 0.9
