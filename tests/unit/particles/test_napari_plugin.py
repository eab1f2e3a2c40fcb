"""The plugin for napari. Its widget is tested where napari is installed: make test-napari."""

import importlib
import os
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from support.absent import skip_without
from support.paths import ROOT

from hypervlad.data import make_fibre_images
from hypervlad.images import ImageReadError, read_image, read_micrograph
from hypervlad.particles import FoundFolder, find_in_images, find_particles, read_outlines
from hypervlad.results import write_diameters

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGE, FILE = PROJECT["entry-points"]["napari.manifest"]["hypervlad"].split(":")
MANIFEST = yaml.safe_load((ROOT / PACKAGE / FILE).read_text(encoding="utf-8"))["contributions"]
# What napari calls, by the name of its command.
CALLED = {
    command["id"].split(".")[1]: getattr(importlib.import_module(module), name)
    for command in MANIFEST["commands"]
    for module, name in [command["python_name"].split(":")]
}


@pytest.fixture
def found(tmp_path: Path) -> FoundFolder:
    """Two fields with three and two squares, of 5 nm per pixel."""
    for name, places in (("a.png", [(5, 5), (30, 40), (60, 10)]), ("b.png", [(20, 20), (50, 60)])):
        pixels = np.random.default_rng(0).normal(60, 2, (80, 96))
        for row, column in places:
            pixels[row : row + 15, column : column + 15] += 100
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name)
    files = sorted(tmp_path.iterdir())
    found, _ = find_in_images(
        tmp_path / "found", files, find_particles, root=tmp_path, pixel_size=5.0
    )
    return found


def opened(path: Path) -> list[tuple[Any, dict[str, Any], str]]:
    layers: list[tuple[Any, dict[str, Any], str]] = CALLED["open"](str(path))(str(path))
    return layers


def test_a_results_folder_is_opened_as_images_and_labels(found: FoundFolder) -> None:
    image, labels, *others = opened(found.path)
    np.testing.assert_array_equal(image[0], read_image(found.image("a.png")))
    np.testing.assert_array_equal(labels[0], np.asarray(found.outlines("a.png")))
    assert [image[2], labels[2], *(kind for *_, kind in others)] == ["image", "labels"] * 2
    assert labels[1]["scale"] == (5.0, 5.0)
    features = labels[1]["features"]
    assert features["index"].tolist() == [1, 2, 3]
    assert features["area_nm2"].tolist() == found.table["area_nm2"][:3].tolist()
    (_, (again, *_)) = opened(found.outlines_file("b.png"))
    np.testing.assert_array_equal(again, others[1][0])
    assert CALLED["open"](str(found.images)) is None
    assert CALLED["open"](str(found.path / "particles.csv")) is None


def test_outlines_that_another_program_changed_are_measured(found: FoundFolder) -> None:
    _, (pixels, attributes, _), *_ = opened(found.path)
    pixels[pixels == 2] = 0
    file = str(found.outlines_file("a.png"))
    assert CALLED["write"](file, pixels, attributes) == [file]
    assert opened(found.path)[1][1]["features"]["index"].tolist() == [1, 3]
    assert len(found.table) == 5  # opening writes nothing
    found.count()
    assert len(found.table) == 4


def test_a_folder_of_diameters_is_opened_as_images_and_points(tmp_path: Path) -> None:
    fibres, _ = make_fibre_images(1, diameter=8, size=128, random_state=0)
    (tmp_path / "images").mkdir()
    Image.fromarray(np.uint8(255 * fibres[0])).save(tmp_path / "images" / "a.png")
    file, options = tmp_path / "images" / "a.png", {"pixel_size": 2.0}
    write_diameters(tmp_path / "out", [file], ["a.png"], read_options=options)
    image, (places, attributes, kind) = opened(tmp_path / "out")
    np.testing.assert_array_equal(image[0], read_image(file))
    assert (kind, attributes["scale"], places.max() > 64) == ("points", (2.0, 2.0), True)
    diameters = attributes["features"]["diameter_nm"]
    np.testing.assert_allclose(2 * attributes["size"], diameters, rtol=1e-5)
    file.unlink()
    with pytest.warns(UserWarning, match="open a.png yourself"):
        assert len(opened(tmp_path / "out")) == 1
    record = tmp_path / "out" / "diameters.json"
    for words, spoil in (("damaged", lambda: record.write_text("{}")), ("missing", record.unlink)):
        spoil()
        with pytest.raises(ValueError, match=rf"diameters.json: {words}.*; repeat the run"):
            opened(tmp_path / "out")


@pytest.mark.parametrize("suffix", [".tif", ".geojson"])
def test_labels_are_written_as_outlines(suffix: str, tmp_path: Path) -> None:
    labels, file = np.zeros((20, 30), np.uint8), tmp_path / f"a{suffix}"
    labels[2:9, 3:9], labels[11:18, 9:29] = 4, 7
    attributes = {"name": "a", "scale": (0.004, 0.004), "units": ("micrometer", "micrometer")}
    CALLED["write"](str(file), labels, attributes)
    assert [each.label for each in read_outlines(file, shape=(20, 30))] == [4, 7]
    if suffix == ".tif":
        assert read_micrograph(file).pixel_size == pytest.approx(4)
    with pytest.raises(ImageReadError, match="Split Stack"):
        CALLED["write"](str(file), np.stack([labels] * 3), attributes)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of napari's libraries
def test_the_widget_finds_and_saves(found: FoundFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("napari") is None:
        skip_without("napari", "napari is not installed: make test-napari installs it")
    monkeypatch.setenv("QT_QPA_PLATFORM", os.environ.get("QT_QPA_PLATFORM", "offscreen"))
    import napari
    from napari.components import ViewerModel
    from napari.layers import Layer
    from napari.utils.notifications import notification_manager
    from qtpy.QtCore import QThreadPool
    from qtpy.QtWidgets import QApplication

    app, viewer = QApplication.instance() or QApplication([]), ViewerModel()
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)  # one without OpenGL
    for layer in opened(found.path):
        viewer.add_layer(Layer.create(*layer))
    (wires,), _ = make_fibre_images(1, diameter=8, cover=0.2, size=128, random_state=0)
    viewer.add_image(np.uint8(255 * wires), name="wires", scale=(20, 20), units=("nm", "nm"))
    viewer.add_image(np.zeros((3, 9, 9)), name="stack", units=["nm"] * 3)
    find, learn, save = widget = CALLED["find"]()

    def said(part: Any, **values: Any) -> str:
        """Press the button, and return the last message."""
        widget.reset_choices()  # as a window does
        for name, value in values.items():
            getattr(part, name).value = value
        part()
        QThreadPool.globalInstance().waitForDone()
        app.processEvents()
        return str(notification_manager.records[-1].message)

    assert said(find, image=viewer.layers["b.png"]) == "b.png: 2 outlines"
    own = viewer.layers["b.png outlines [1]"]
    assert viewer.layers.index(own) == viewer.layers.index("b.png") + 1
    assert own.features["area_nm2"].tolist() == found.table["area_nm2"][3:].tolist()
    own.data = np.where(own.data == 1, 0, own.data)
    assert "1 outline: " in said(save, outlines=own)
    assert len(FoundFolder(found.path).table) == 4
    assert "Split Stack" in said(find, image=viewer.layers["stack"])
    assert "outlines" in said(find, image=viewer.layers["wires"], what="fibres")
    fibres = viewer.layers["wires outlines"]
    assert fibres.features["length_nm"].max() > 20 * 64
    assert "no results folder" in said(save, outlines=fibres)
    flat = viewer.add_image(np.zeros((9, 9)), name="flat")
    assert said(find, image=flat, what="particles") == "flat: 0 outlines"
    assert any("flat: no particle is" in str(each) for each in notification_manager.records)
    assert "right and complete" in said(learn)
