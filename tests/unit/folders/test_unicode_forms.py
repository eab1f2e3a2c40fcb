"""Names that look the same: macOS writes accents as characters of their own."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hypervlad import HypercolumnVLAD, extract_features
from hypervlad.data import ImageFolderWarning, check_image_folder, load_image_folder
from hypervlad.images import find_images, find_masks

APART = unicodedata.normalize("NFD", "Fäden")
TOGETHER = unicodedata.normalize("NFC", "Fäden")
FORMS = pytest.mark.parametrize(("stored", "written"), [(APART, TOGETHER), (TOGETHER, APART)])

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="its disks know one form only")


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@FORMS
def test_groups(tmp_path: Path, stored: str, written: str) -> None:
    touch(tmp_path, f"{stored}/{stored}1.png", "Matrix/1.png")
    table = tmp_path / "groups.csv"
    table.write_text(f"path,group\n{written}/{written}1.png,{APART}\nMatrix/1.png,{TOGETHER}\n")
    data = load_image_folder(tmp_path, groups=table)
    assert data.groups.tolist() == [TOGETHER, TOGETHER]
    assert all(Path(image).exists() for image in data.images)


@FORMS
def test_tables_of_labels(tmp_path: Path, stored: str, written: str) -> None:
    touch(tmp_path, f"in {stored}/{stored}1.png", "2.png")
    table = tmp_path / "labels.csv"
    table.write_text(f"path,label\nin {written}/{written}1.png,{APART}\n2.png,other\n")
    data = load_image_folder(table)
    assert sorted(data.target_names) == sorted([TOGETHER, "other"])
    assert all(Path(image).exists() for image in data.images)


def test_folders_of_one_name_are_one_class_with_a_warning(tmp_path: Path) -> None:
    touch(tmp_path, f"{APART}/1.png", f"{TOGETHER}/2.png", "Matrix/1.png")
    with pytest.warns(ImageFolderWarning, match=f"several Unicode forms: {TOGETHER}"):
        data = load_image_folder(tmp_path)
    assert data.target.tolist().count(TOGETHER) == 2
    assert data.target_names == [TOGETHER, "Matrix"]


@pytest.mark.filterwarnings("ignore:.*several Unicode forms")
def test_of_two_forms_in_a_folder_the_one_that_is_written_is_meant(tmp_path: Path) -> None:
    touch(tmp_path, f"a/{APART}.png", f"a/{TOGETHER}.png", "b/1.png")
    table = tmp_path / "groups.csv"
    table.write_text(f"path,group\na/{APART}.png,x\na/{TOGETHER}.png,y\nb/1.png,z\n")
    data = load_image_folder(tmp_path, groups=table)
    by_name = dict(zip([Path(image).name for image in data.images], data.groups, strict=True))
    assert by_name == {f"{APART}.png": "x", f"{TOGETHER}.png": "y", "1.png": "z"}


def test_the_check_names_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k, folder in enumerate((APART, TOGETHER, "Matrix")):
        (tmp_path / folder).mkdir(exist_ok=True)
        pixels = rng.integers(0, 255, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / folder / f"{k}.png")
    report = check_image_folder(tmp_path)
    assert f"Stored in several Unicode forms: {TOGETHER}." in str(report)
    assert report.class_counts == {TOGETHER: 2, "Matrix": 1}


@FORMS
def test_masks(tmp_path: Path, stored: str, written: str) -> None:
    touch(
        tmp_path, f"images/{stored}/1.png", f"masks/{written}/1_mask.png", f"masks/{written}2.png"
    )
    images = [tmp_path / f"images/{stored}/1.png", tmp_path / f"images/{stored}2.png"]
    found = find_masks(images, tmp_path / "masks", tmp_path / "images")
    assert [mask and mask.name for mask in found] == ["1_mask.png", f"{written}2.png"]


@FORMS
def test_patterns_and_labels_of_features(
    tmp_path: Path, stored: str, written: str, tiny_encoder: HypercolumnVLAD
) -> None:
    (tmp_path / "set" / stored).mkdir(parents=True)
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 255, (20, 20), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / stored / f"{stored}{k}.png")
    assert len(find_images(tmp_path / "set", include=f"{written}/*")) == 3
    with pytest.raises(ValueError, match="no image matches"):
        find_images(tmp_path / "set", exclude=f"{written}*")
    tiny_encoder.fit(find_images(tmp_path / "set"))
    extract_features(tmp_path / "set", tiny_encoder, out=tmp_path / "features.parquet")
    table = pd.read_parquet(tmp_path / "features.parquet", columns=["path", "label"])
    assert table["label"].tolist() == [TOGETHER] * 3
    assert table["path"].iloc[0] == f"{stored}/{stored}0.png"
