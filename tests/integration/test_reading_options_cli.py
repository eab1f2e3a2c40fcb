"""Options of reading: a command passes them on, and what it writes reads images in the same way."""

import numpy as np
import pytest
import tifffile
from support.commands import TINY, refused, run, save

import hypervlad
from hypervlad.data import make_nanowire_images
from hypervlad.images import ReadOptions

GIVEN = ["--image-page", "1", "--channel", "2", "--scaling", "0:4095", "--remove-banner"]
STORED = {"page": 1, "channel": 2, "scaling": (0, 4095), "banner": "remove"}
PART = ["--backbone", "tiny", "--weights", "random"]


def write_stack(path, image):
    """Write an RGB TIFF of two pages whose second page has the image in its blue channel only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pages = np.zeros((2, *image.shape, 3), np.uint16)
    pages[1, :, :, 2] = np.round(4095 * image)
    tifffile.imwrite(path, pages, photometric="rgb")


@pytest.fixture(scope="module")
def stacks(tmp_path_factory, texture_images):
    root = tmp_path_factory.mktemp("data") / "stacks"
    for number, (image, label) in enumerate(zip(*texture_images, strict=True)):
        write_stack(root / label / f"{number:02d}.tif", image)
    return root


def options_of(path):
    options = hypervlad.load(path).encoder_.fitted_params_.read_options
    return {name: getattr(options, name) for name in STORED}


def test_a_classifier_stores_how_images_were_read(stacks, tmp_path):
    path = tmp_path / "m.hvlad"
    done = run("train", stacks, "-o", path, *TINY, *GIVEN)
    assert "of which only the first" not in done.stderr
    assert options_of(path) == STORED
    assert "4095" in run("info", path).stdout
    # The first page is black, so that nothing could be told from it.
    run("evaluate", path, stacks, "-o", tmp_path / "report", "-q")
    data = hypervlad.load_image_folder(stacks)
    assert (hypervlad.load(path).predict(data.images) == data.target).mean() > 0.8
    assert "warning" not in run("predict", path, stacks, "-q").stderr


@pytest.mark.full  # trains and evaluates a classifier
def test_the_demo_stores_how_images_were_read(stacks, tmp_path):
    run("demo", stacks, "-o", tmp_path / "demo", *TINY, *GIVEN, "-q")
    assert options_of(tmp_path / "demo" / "model.hvlad") == STORED


def test_the_check_reads_as_training_does(stacks, tmp_path):
    assert "24 files are blank" in run("check", stacks, "-q", code=1).stdout
    found = run("check", stacks, *GIVEN, "-q", code=1).stdout
    assert "blank" not in found
    assert "of which only page 1 is read" in found
    other = tmp_path / "other" / "a.tif"
    write_stack(other, tifffile.imread(stacks / "flat" / "00.tif")[1, :, :, 2] / 4095)
    found = run("check", stacks, other.parent, *GIVEN, code=1).stdout
    assert "exact copies across the folders: 1\n" in found


def test_a_scorer_of_defects_stores_how_images_were_read(stacks, tmp_path):
    path = tmp_path / "s.hvlad"
    run("defects", "fit", stacks / "rings", "-o", path, *PART, "--patch", "8", *GIVEN)
    assert options_of(path) == STORED
    done = run("defects", "score", path, stacks / "rings", "-o", tmp_path / "found")
    assert "of which only the first" not in done.stderr


def test_alignment_reads_as_its_model_unless_told_otherwise(tmp_path):
    ((image,), (truth,)) = make_nanowire_images(1, aligned=0.5, size=96, random_state=0)
    wires, masks, out, model = (tmp_path / name for name in ("wires", "masks", "out", "al.hvlad"))
    write_stack(wires / "a.tif", image)
    save(masks / "a.png", truth.aligned_map(24) > 0.5)
    which = ["--image-page", "1", "--channel", "2"]
    run("align-train", wires, "--masks", masks, "--window", "24", "-o", model, *PART, *which)
    others = {"scaling": "percentile", "banner": ReadOptions().banner}
    assert options_of(model) == {"page": 1, "channel": 2, **others}, "only what is given"
    assert "flat" in refused("align", wires, "-o", out).split(": ", 2)[2]
    run("align", wires, "-o", out, *which, "--window", "24")
    run("align", wires, "-o", out, "--method", model)
    words = run("align", wires, "-o", out, "--method", model, "--image-page", "0", code=2).stderr
    assert "the image is flat" in words


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("5:1", "scaling=(5.0, 1.0): expected"),
        ("1:2:3", "expected one of"),
        ("low:high", "scaling='low:high': expected one of 'auto', 'dtype'"),
    ],
)
def test_a_wrong_rule_is_refused_before_anything_is_read(given, words, tmp_path):
    assert words in refused("train", tmp_path, "-o", tmp_path / "m.hvlad", "--scaling", given)
