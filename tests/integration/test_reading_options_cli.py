"""Options of reading: a command passes them on, and what it writes reads images in the same way."""

import numpy as np
import tifffile
from support.commands import TINY, run

import hypervlad

STORED = {"page": 1, "channel": 2, "scaling": (0, 4095), "banner": "remove"}
GIVEN = [f"--set={name}={value}" for name, value in STORED.items()]


def test_a_classifier_stores_how_images_were_read(texture_images, tmp_path):
    """RGB TIFFs of two pages, of which the second has the image in its blue channel only."""
    stacks, path = tmp_path / "stacks", tmp_path / "m.hvlad"
    for number, (image, label) in enumerate(zip(*texture_images, strict=True)):
        pages = np.zeros((2, *image.shape, 3), np.uint16)
        pages[1, :, :, 2] = np.round(4095 * image)
        (stacks / label).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(stacks / label / f"{number:02d}.tif", pages, photometric="rgb")
    assert "of which only the first" not in run("train", stacks, "-o", path, *TINY, *GIVEN).stderr
    options = hypervlad.load(path).encoder_.fitted_params_.read_options
    assert {name: getattr(options, name) for name in STORED} == STORED
    assert "4095" in run("info", path).stdout
    # The first page is black, so that nothing could be told from it.
    run("evaluate", path, stacks, "-o", tmp_path / "report", "-q")
    data = hypervlad.load_image_folder(stacks)
    assert (hypervlad.load(path).predict(data.images) == data.target).mean() > 0.8
    assert "warning" not in run("predict", path, stacks, "-q").stderr
