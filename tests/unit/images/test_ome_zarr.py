"""OME-Zarr: axes, levels, pages, channels, codecs, and folders that are no sound images."""

import gzip
import json
import os
import sys

import numcodecs
import numpy as np
import pytest
from support.golden import check_golden, digest, values
from support.ome_zarr_folders import set_attributes, write_ome_zarr
from zarr.codecs import BloscCodec, GzipCodec

from hypervlad.data import check_image_folder, load_image_folder
from hypervlad.images import ImageReadError, find_images, read_image, read_micrograph

STACK = values("u2", shape=(2, 3, 50, 41)) >> 4
GREY, COLOURS = STACK[0, 0], values("u1", shape=(3, 50, 41))
SMALL = {"chunks": (16, 16)}
OPTIONS = {
    "0.5 chunks": SMALL,
    "0.5 shards": {**SMALL, "shards": (32, 64)},
    "0.5 blosc": {**SMALL, "compressors": BloscCodec()},
    "0.5 separator": {**SMALL, "chunk_key_encoding": {"name": "default", "separator": "."}},
    "0.4 chunks": SMALL,
    "0.4 lz4": {"compressors": numcodecs.LZ4(), "order": "F"},
    "0.4 separator": {**SMALL, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
}


@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "f4", "bool"])
def test_versions_and_codecs(tmp_path, case, dtype):
    pixels = GREY.astype(dtype)
    path = write_ome_zarr(tmp_path / "a.zarr", [pixels], version=case[:3], **OPTIONS[case])
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
    for options, words in (
        ({}, "an image of 2 channels.*reads the first as grey"),
        ({"channel": 2}, "channel 2 was requested, but the image has 2 channels"),
    ):
        with pytest.raises(ImageReadError, match=words):
            read_image(path, page=0, **options)
    names = ["ff0000", "00FF00", "0000FF"]
    path = write_ome_zarr(tmp_path / "b.zarr", [COLOURS], "cyx", omero=names)
    check_golden(path, [np.moveaxis(COLOURS, 0, 2)], 0.5)
    assert digest(path, channel=1) == digest(COLOURS[1])


def test_the_finest_level_within_max_pixels_is_read(tmp_path):
    levels = [STACK[0], STACK[0, :, ::2, ::2], STACK[0, :2, ::4, ::4]]
    path = write_ome_zarr(tmp_path / "a.zarr", levels, "zyx")
    for level, max_pixels in enumerate((50 * 41, 50 * 41 - 1)):
        found = read_micrograph(path, page=1, max_pixels=max_pixels)
        assert found.digest == digest(levels[level][1])
        assert (found.pixel_size, found.metadata["level"]) == (0.5 + 0.5 * level, level)
    with pytest.raises(ImageReadError):  # the last level has not all pages
        read_image(path, page=1, max_pixels=400)


def change_attributes(path, change):
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]
    change(attributes["multiscales"][0])
    set_attributes(path, attributes)


@pytest.mark.parametrize(
    ("unit", "size"), [("micrometer", 500), ("angstrom", 0.05), ("parsec", None), (None, None)]
)
def test_units(tmp_path, unit, size):
    units = {} if unit is None else {"y": unit, "x": unit}
    check_golden(write_ome_zarr(tmp_path / "a.zarr", [GREY], units=units), [GREY], size)


def test_scales_of_level_and_image_are_multiplied(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", [GREY])
    whole = [{"type": "scale", "scale": [4, 8]}, {"type": "translation", "translation": [1, 1]}]
    change_attributes(path, lambda image: image.update(coordinateTransformations=whole))
    check_golden(path, [GREY], None, pixel_sides_nm=[4, 2])


def test_a_folder_is_one_image(tmp_path):
    own = [tmp_path / name / "1.ome.zarr" for name in ("a", "b")]
    for path in [*own, tmp_path / "loose.zarr"]:
        write_ome_zarr(path, [GREY + len(path.name) * ord(path.parent.name[0])])
    (tmp_path / "empty.zarr").mkdir()
    assert find_images(tmp_path / "a") == find_images(own[0]) == own[:1]
    assert find_images(f"{tmp_path}/*/*.zarr") == find_images(f"{tmp_path}/**/1*.zarr") == own
    assert find_images(tmp_path / "empty.zarr") == [tmp_path / "empty.zarr"]
    with pytest.warns(UserWarning, match=r"left out \(empty\.zarr, loose\.zarr\)"):
        data = load_image_folder(tmp_path)
    assert (data.images, data.target.tolist()) == (list(map(str, own)), ["a", "b"])
    assert check_image_folder(tmp_path).bad_files == []


CHUNK, ARRAY = "0/c/0/0", "0/zarr.json"


def attributes(**fields):
    return lambda path: set_attributes(path, fields)


def level(name):
    return attributes(multiscales=[{"datasets": [{"path": name}]}])


def array(**fields):
    return text(ARRAY, lambda content: json.dumps(json.loads(content) | fields).encode())


def grid(*shape, **fields):
    regular = {"name": "regular", "configuration": {"chunk_shape": shape}}
    return array(chunk_grid=regular, **fields)


def text(name, make):
    return lambda path: (path / name).write_bytes(make((path / name).read_bytes()))


def link(name):
    return lambda path: (path / name).symlink_to((path / name).rename(path.parent / "target"))


def pipe(path):
    (path / CHUNK).unlink()
    os.mkfifo(path / CHUNK)


DAMAGED, OUTSIDE = (
    "damaged or truncated OME-Zarr",
    "is a link, or outside the folder, and is not re",
)
REFUSED = {
    "plate": (attributes(plate={}), r"a plate, which contains folders of images; give .*A/1/0"),
    "no image": (attributes(), r"without an OME image \(no 'multiscales'.* hidden files"),
    "outside": (level("../b.zarr/0"), OUTSIDE),
    "large": (array(shape=[65000, 65000]), "65000 x 65000 pixels is more than max_pixels"),
    "many chunks": (grid(1, 1, shape=[9000, 9000]), "in 81,000,000 chunks"),
    "no chunk": (array(chunk_key_encoding={"name": "v2"}), "none of the pixels that it describes"),
    "objects": (array(data_type="O"), "an array of object, not of pixels"),
    "pickle": (array(codecs=[{"name": "bytes"}, {"name": "pickle"}]), "codec 'pickle', which is"),
    "linked chunk": (link(CHUNK), OUTSIDE),
    "linked array": (link("0"), OUTSIDE),
    "pipe": (pipe, "is no file"),
    "truncated": (text(CHUNK, lambda content: content[:-20]), DAMAGED),
    "long": (text(CHUNK, lambda _: bytes(20_000)), "a chunk of 20000 bytes"),
    "bomb": (text(CHUNK, lambda _: gzip.compress(bytes(8_000_000))), DAMAGED),
    "deep": (text("zarr.json", lambda _: b'{"a":' * 90 + b"1" + b"}" * 90), "32"),
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
