"""OME-Zarr: axes, levels, pages, channels, codecs, and folders that are no sound images."""

from __future__ import annotations

import gzip
import json
import os
import sys

import numcodecs
import numpy as np
import pytest
from support.golden import check_golden, digest, values
from support.ome_zarr_folders import set_attributes, write_ome_zarr
from zarr.codecs import BloscCodec, GzipCodec, TransposeCodec

from hypervlad.data import check_image_folder, load_image_folder
from hypervlad.images import ImageReadError, find_images, read_image, read_micrograph

STACK = values("u2", shape=(2, 3, 50, 41)) >> 4
GREY = STACK[0, 0]
SMALL = {"chunks": (16, 16)}
KEYS = {"name": "default", "separator": "."}


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ("0.5", SMALL),
        ("0.5", {**SMALL, "shards": (32, 64)}),
        ("0.5", {**SMALL, "compressors": BloscCodec()}),
        ("0.5", {"compressors": GzipCodec()}),
        ("0.5", {**SMALL, "chunk_key_encoding": KEYS}),
        ("0.5", {"compressors": None}),
        ("0.4", SMALL),
        ("0.4", {"compressors": numcodecs.Blosc("zstd")}),
        ("0.4", {"compressors": numcodecs.LZ4(), "order": "F"}),
        ("0.4", {"compressors": numcodecs.Zlib(), "fill_value": 7}),
        ("0.4", {**SMALL, "chunk_key_encoding": {"name": "v2", "separator": "/"}}),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "f4", "bool"])
def test_versions_and_codecs(tmp_path, version, options, dtype):
    pixels = GREY.astype(dtype)
    path = write_ome_zarr(tmp_path / "a.zarr", [pixels], version=version, **options)
    check_golden(path, [pixels], 0.5, format="OME-Zarr", level=0)


@pytest.mark.parametrize(
    ("axes", "order"), [("tzyx", (0, 1, 2, 3)), ("ztyx", (0, 1, 2, 3)), ("tyxz", (0, 3, 1, 2))]
)
def test_pages_run_along_all_other_axes(tmp_path, axes, order):
    path = write_ome_zarr(tmp_path / "a.zarr", [np.transpose(STACK, np.argsort(order))], axes)
    check_golden(path, STACK.reshape(6, 50, 41), 0.5)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_images_in_one_folder_are_pages(tmp_path, version):
    path = tmp_path / "a.zarr"
    for group, frame in enumerate(STACK[0]):
        write_ome_zarr(path, [frame], group=str(group), version=version, scale=group + 1)
    set_attributes(path, {"bioformats2raw.layout": 3}, version)
    check_golden(path, STACK[0], [1, 2, 3])


def test_channels(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", [STACK], "czyx", chunks=(1, 1, 32, 32))
    for channel, page in np.ndindex(2, 3):
        assert digest(path, channel=channel, page=page) == digest(STACK[channel, page])
    with pytest.raises(ImageReadError, match=r"an image of 2 channels.*reads the first as grey"):
        read_image(path, page=0)
    with pytest.raises(ImageReadError, match="channel 2 was requested, but the image has 2 chan"):
        read_image(path, channel=2, page=0)


def test_channels_of_red_green_and_blue_are_colours(tmp_path):
    pixels = values("u1", shape=(3, 50, 41))
    colours = ["ff0000", "00FF00", "0000FF"]
    path = write_ome_zarr(tmp_path / "a.zarr", [pixels], "cyx", omero=colours)
    check_golden(path, [np.moveaxis(pixels, 0, 2)], 0.5)
    assert digest(path, channel=1) == digest(pixels[1])


def test_the_finest_level_within_max_pixels_is_read(tmp_path):
    levels = [STACK[0], STACK[0, :, ::2, ::2], STACK[0, :2, ::4, ::4]]
    path = write_ome_zarr(tmp_path / "a.zarr", levels, "zyx")
    for level, max_pixels in enumerate((50 * 41, 50 * 41 - 1)):
        found = read_micrograph(path, page=1, max_pixels=max_pixels)
        assert found.digest == digest(levels[level][1])
        assert (found.pixel_size, found.metadata["level"]) == (0.5 + 0.5 * level, level)
    with pytest.raises(ImageReadError):  # the last level has not all pages
        read_image(path, page=1, max_pixels=400)


def attributes_of(path):
    return json.loads((path / "zarr.json").read_text())["attributes"]["ome"]


def test_levels_are_too_many_to_be_opened(tmp_path, monkeypatch):
    path = write_ome_zarr(tmp_path / "a.zarr", [GREY])
    attributes = attributes_of(path)
    attributes["multiscales"][0]["datasets"] *= 2_000
    set_attributes(path, attributes)
    looked = []
    stat = os.stat
    monkeypatch.setattr(
        os, "stat", lambda file, *a, **k: looked.append(file) or stat(file, *a, **k)
    )
    assert digest(path) == digest(GREY)
    assert len(looked) < 300


@pytest.mark.parametrize(
    ("unit", "size"), [("micrometer", 500), ("angstrom", 0.05), ("parsec", None), (None, None)]
)
def test_units(tmp_path, unit, size):
    units = {} if unit is None else {"y": unit, "x": unit}
    check_golden(write_ome_zarr(tmp_path / "a.zarr", [GREY], units=units), [GREY], size)


def test_scales_of_level_and_image_are_multiplied(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", [GREY])
    attributes = attributes_of(path)
    whole = [{"type": "scale", "scale": [4, 8]}, {"type": "translation", "translation": [1, 1]}]
    attributes["multiscales"][0]["coordinateTransformations"] = whole
    set_attributes(path, attributes)
    check_golden(path, [GREY], None, pixel_sides_nm=[4, 2])


@pytest.mark.parametrize("axes", [None, ["z", "y", "x"]])
def test_versions_without_units(tmp_path, axes):
    path = write_ome_zarr(tmp_path / "a.zarr", [STACK[0]], "zyx", version="0.4")
    multiscale = {"datasets": [{"path": "0"}]} | ({} if axes is None else {"axes": axes})
    set_attributes(path, {"multiscales": [multiscale]}, "0.3")
    check_golden(path, STACK[0], None)


def test_a_folder_is_one_image(tmp_path):
    for name in ("a", "b"):
        write_ome_zarr(tmp_path / name / "1.ome.zarr", [GREY + ord(name)])
    write_ome_zarr(tmp_path / "loose.zarr", [GREY])
    (tmp_path / "empty.zarr").mkdir()
    own = [tmp_path / name / "1.ome.zarr" for name in ("a", "b")]
    assert find_images(tmp_path / "a") == find_images(own[0]) == own[:1]
    assert find_images(f"{tmp_path}/*/*.zarr") == own
    assert find_images(f"{tmp_path}/**/1*.zarr") == own
    assert find_images(tmp_path / "empty.zarr") == [tmp_path / "empty.zarr"]
    with pytest.warns(UserWarning, match=r"left out \(empty\.zarr, loose\.zarr\)"):
        data = load_image_folder(tmp_path)
    assert (data.images, data.target.tolist()) == (list(map(str, own)), ["a", "b"])
    assert check_image_folder(tmp_path).bad_files == []


# --- folders that are refused -------------------------------------------------------------------


def of(attributes):
    return lambda path: set_attributes(path, attributes)


def levels(path):
    return of({"multiscales": [{"datasets": [{"path": path}]}]})


def array(**fields):
    def change(path):
        file = path / "0" / "zarr.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return change


def grid(*shape):
    return {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}}}


def link(name):
    def change(path):
        (path / name).rename(path.parent / "target")
        (path / name).symlink_to(path.parent / "target")

    return change


def pipe(path):
    (path / CHUNK).unlink()
    os.mkfifo(path / CHUNK)


def chunk(make):
    return lambda path: (path / CHUNK).write_bytes(make((path / CHUNK).read_bytes())) and None


def text(content):
    return lambda path: (path / "zarr.json").write_text(content) and None


CHUNK, DAMAGED = "0/c/0/0", "damaged or truncated OME-Zarr"
OUTSIDE = "is a link, or outside the folder, and is not read; copy"
REFUSED = {
    "plate": (of({"plate": {}}), r"a plate, which contains folders of images; give .*A/1/0"),
    "well": (of({"well": {}}), "a well, which contains folders of images; give one of these, such"),
    "no image": (of({}), r"without an OME image \(no 'multiscales'.* hidden files"),
    "no level": (of({"multiscales": []}), DAMAGED),
    "no array": (levels("1"), "the array '1' is missing; copy the whole folder again"),
    "outside": (levels("../b.zarr/0"), OUTSIDE),
    "root": (levels("/etc"), OUTSIDE),
    "address": (levels("http://a.b/c"), "is missing"),
    "large": (array(shape=[65000, 65000]), "65000 x 65000 pixels is more than max_pixels"),
    "large chunk": (array(**grid(10**9, 10**9)), "chunks: 1 x 1000000000000000000 pixels"),
    "many chunks": (array(**grid(1, 1), shape=[9000, 9000]), "in 81,000,000 chunks"),
    "no chunk": (array(chunk_key_encoding={"name": "v2"}), "none of the pixels that it describes"),
    "negative": (array(shape=[-5, 41]), "has no pixels"),
    "chunk of 0": (array(**grid(0, 41)), "damaged"),
    "axes": (array(shape=[50, 41, 3]), DAMAGED),
    "objects": (array(data_type="O"), "an array of object, not of pixels"),
    "pickle": (array(codecs=[{"name": "bytes"}, {"name": "pickle"}]), "codec 'pickle', which is"),
    "no codecs": (array(codecs=[]), DAMAGED),
    "linked chunk": (link(CHUNK), OUTSIDE),
    "linked array": (link("0"), OUTSIDE),
    "pipe": (pipe, "is no file"),
    "truncated": (chunk(lambda content: content[:-20]), DAMAGED),
    "empty": (chunk(lambda _: b""), DAMAGED),
    "long": (chunk(lambda _: bytes(20_000)), "a chunk of 20000 bytes"),
    "bomb": (chunk(lambda _: gzip.compress(bytes(8_000_000))), DAMAGED),
    "deep": (text('{"a":' * 90 + "1" + "}" * 90), "32"),
    "list": (text("[]"), "contains no object"),
    "large text": (text(" " * (2**24 + 1)), DAMAGED),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes")
def test_folders_that_are_not_read_say_why(tmp_path, case):
    write_ome_zarr(tmp_path / "b.zarr", [GREY])
    path = write_ome_zarr(tmp_path / "a.zarr", [GREY], compressors=GzipCodec())
    change, words = REFUSED[case]
    change(path)
    with pytest.raises(ImageReadError, match=rf"a\.zarr: .*{words}"):
        read_image(path)


def test_other_codecs_are_named(tmp_path):
    codec = TransposeCodec(order=(1, 0))
    path = write_ome_zarr(tmp_path / "a.zarr", [GREY], filters=[codec])
    with pytest.raises(ImageReadError, match="the codec 'transpose', which is not read"):
        read_image(path)
