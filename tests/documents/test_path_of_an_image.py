"""One image and its label pass through few files of the package."""

import sys
import threading
from pathlib import Path

import numpy as np
from PIL import Image
from support.paths import ROOT

from hypervlad import HypercolumnVLAD, MicrographClassifier

# With those that handle neither an image nor a label: parameters, names of files and networks,
# whether there is a cache or a worker, progress bars.
MAX_FILES = 32


def files_run(function):
    """Return the package's files whose functions run during a call, in any thread."""
    found: set[str] = set()

    def note(frame, event, argument):
        code = frame.f_code
        # Module bodies and class bodies run when they are imported: they are no steps of the path.
        if event == "call" and code.co_name != "<module>" and code.co_flags & 0x2:
            found.add(code.co_filename)

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    return {Path(file) for file in found if Path(file).is_relative_to(ROOT / "hypervlad")}


def test_an_image_passes_through_few_files(tmp_path, texture_images):
    images, labels = texture_images
    paths = [tmp_path / f"{number:02d}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(np.round(255 * image).astype(np.uint8)).save(path)
    encoder = HypercolumnVLAD("tiny", weights="random", image_size=16, n_codewords=4, sampling=400)
    model = MicrographClassifier(encoder, random_state=0)

    def fit_and_predict():
        model.fit(paths, labels, groups=np.arange(len(paths)) // 2)
        model.predict_proba(paths[:3])

    files = files_run(fit_and_predict)
    assert 5 < len(files) <= MAX_FILES, sorted(files)
