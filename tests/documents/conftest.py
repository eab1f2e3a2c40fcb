"""A folder with the files that the commands and examples of the pages use."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hypervlad import (
    MicrographClassifier,
    PatchDefectScorer,
    add_defect,
    load_image_folder,
    make_fibre_images,
    make_particle_fields,
    make_tem_images,
)
from hypervlad.images import find_images


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, mobilenet_weights):
    """A folder with the images, groups, scans and models that the pages use.

    TEM images of four classes in images/ and others/, with groups.csv, and some of them in new/ and
    scans/; fibre mats in mats/good/, mats/new/ and mats/masks/; nanowires in wires/; particles
    in fields/, and one with a scale bar in figures/; a model of images/, model.hvlad, and one of
    mats/good/, mat.hvlad.
    """
    folder = tmp_path_factory.mktemp("pages")
    images, labels = make_tem_images(40, size=96, random_state=0)
    rows = ["path,group"]
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = "images" if i < 24 else "others"
        path = folder / place / label / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(255 * image).astype(np.uint8)).save(path)
        if place == "images":
            rows.append(f"{label}/{path.name},sample{i // 2}")
    for i, place in enumerate(["new", "scans"]):
        (folder / place).mkdir()
        Image.fromarray(np.round(255 * images[i]).astype(np.uint8)).save(folder / place / "a.png")
    write_mats(folder / "mats")
    (folder / "groups.csv").write_text("\n".join(rows), encoding="utf-8")
    (folder / "wires").mkdir()
    for i, wires in enumerate(make_fibre_images(3, aligned=0.6, size=128, random_state=0)[0]):
        Image.fromarray(np.round(255 * wires).astype(np.uint8)).save(folder / f"wires/{i}.png")
    (folder / "fields").mkdir()
    kinds = ["sphere", "rod", "cube"]
    fields, _ = make_particle_fields(
        6, classes=kinds, n_particles=(8, 14), size=256, random_state=0
    )
    for i, pixels in enumerate(fields):
        Image.fromarray(np.round(255 * pixels).astype(np.uint8)).save(folder / f"fields/{i}.png")
    figure = Image.open(folder / "fields/0.png")
    ImageDraw.Draw(figure).rectangle([20, 236, 119, 241], fill=255)
    (folder / "figures").mkdir()
    figure.save(folder / "figures/0.png")
    data = load_image_folder(folder / "images", groups=folder / "groups.csv")
    model = MicrographClassifier(random_state=0)
    model.fit(data.images, data.target, groups=data.groups).save(folder / "model.hvlad")
    good = find_images(folder / "mats" / "good")
    PatchDefectScorer(random_state=0).fit(good).save(folder / "mat.hvlad")
    return folder


def write_mats(folder):
    """Write defect-free fibre mats, defective ones, and masks of their defects."""
    mats, _ = make_fibre_images(9, size=96, random_state=0)
    masks = [np.zeros((96, 96), bool)] * 9
    for i in range(0, 9, 3):
        mats[i], masks[i] = add_defect(mats[i], "film", random_state=i)
    for place in ("good", "new", "masks"):
        (folder / place).mkdir(parents=True)
    good = [mat for mat, mask in zip(mats, masks, strict=True) if not mask.any()]
    for i, mat in enumerate(good):
        Image.fromarray(np.round(255 * mat).astype(np.uint8)).save(folder / "good" / f"{i}.png")
    for i, (mat, mask) in enumerate(zip(mats, masks, strict=True)):
        if mask.any():
            Image.fromarray(np.round(255 * mat).astype(np.uint8)).save(folder / "new" / f"{i}.png")
            Image.fromarray(255 * mask.astype(np.uint8)).save(folder / "masks" / f"{i}.png")
