"""OME-Zarr: axes, levels, pages, channels, codecs, and folders that are no sound images."""

from __future__ import annotations

import gzip
import json
import os
import sys
import time

import numcodecs
import numpy as np
import pytest
from support.ome_zarr_folders import set_attributes, write_ome_zarr
from zarr.codecs import BloscCodec, GzipCodec, TransposeCodec

from hypervlad.data import check_image_folder, load_image_folder
from hypervlad.features.cache import Cache, PathIndex
from hypervlad.images import ImageReadError, find_images, read_image, read_micrograph

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 4096, (50, 41)).astype(np.uint16)
STACK = RNG.integers(0, 4096, (2, 3, 50, 41)).astype(np.uint16)


def digest(source, **options):
    return read_micrograph(source, **options).digest


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ("0.5", {"chunks": (16, 16)}),
        ("0.5", {"chunks": (16, 16), "shards": (32, 64)}),
        ("0.5", {"chunks": (16, 16), "compressors": BloscCodec()}),
        ("0.5", {"compressors": GzipCodec()}),
        ("0.5", {"chunk_key_encoding": {"name": "default", "separator": "."}, "chunks": (16, 16)}),
        ("0.5", {"compressors": None}),
        ("0.4", {"chunks": (16, 16)}),
        ("0.4", {"compressors": numcodecs.Blosc("zstd")}),
        ("0.4", {"compressors": numcodecs.LZ4(), "order": "F"}),
        ("0.4", {"compressors": numcodecs.Zlib(), "fill_value": 7}),
        ("0.4", {"chunk_key_encoding": {"name": "v2", "separator": "/"}, "chunks": (16, 16)}),
    ],
    ids=[
        "chunks",
        "shards",
        "blosc",
        "gzip",
        "separator",
        "plain",
        "chunks of 0.4",
        "blosc of 0.4",
        "lz4 of 0.4",
        "zlib of 0.4",
        "separator of 0.4",
    ],
)
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "f4", "bool"])
def test_versions_and_codecs(tmp_path, version, options, dtype):
    pixels = GREY.astype(dtype)
    path = write_ome_zarr(tmp_path / "a.zarr", [pixels], version=version, **options)

    micrograph = read_micrograph(path)

    assert micrograph.digest == digest(pixels)
    assert micrograph.pixel_size == pytest.approx(0.5)
    assert micrograph.metadata["format"] == "OME-Zarr"


@pytest.mark.parametrize(
    ("axes", "order"), [("tzyx", (0, 1, 2, 3)), ("ztyx", (0, 1, 2, 3)), ("tyxz", (0, 3, 1, 2))]
)
def test_pages_run_along_all_other_axes(tmp_path, axes, order):
    path = write_ome_zarr(tmp_path / "a.zarr", [np.transpose(STACK, np.argsort(order))], axes)

    found = [digest(path, page=page) for page in range(6)]

    assert found == [digest(frame) for frame in STACK.reshape(6, 50, 41)]
    with pytest.raises(ImageReadError, match="page 6 was requested, but the file has 6 images"):
        read_image(path, page=6)


def test_channels(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", [STACK], "czyx", chunks=(1, 1, 32, 32))

    for channel, page in np.ndindex(2, 3):
        assert digest(path, channel=channel, page=page) == digest(STACK[channel, page])
    with pytest.raises(ImageReadError, match=r"an image of 2 channels.*reads the first as grey"):
        read_image(path, page=0)
    with pytest.raises(ImageReadError, match="channel 2 was requested, but the image has 2 chan"):
        read_image(path, channel=2, page=0)


def test_channels_of_red_green_and_blue_are_colours(tmp_path):
    pixels = RNG.integers(0, 256, (3, 50, 41), dtype=np.uint8)
    colours = ["ff0000", "00FF00", "0000FF"]
    path = write_ome_zarr(tmp_path / "a.zarr", [pixels], "cyx", omero=colours)

    assert digest(path) == digest(np.moveaxis(pixels, 0, 2))
    assert digest(path, channel=1) == digest(pixels[1])


def test_the_finest_level_within_max_pixels_is_read(tmp_path):
    levels = [STACK[0], STACK[0, :, ::2, ::2], STACK[0, :2, ::4, ::4]]
    path = write_ome_zarr(tmp_path / "a.zarr", levels, "zyx")

    first, second = (read_micrograph(path, page=1, max_pixels=n) for n in (50 * 41, 50 * 41 - 1))

    assert (first.digest, first.pixel_size) == (digest(levels[0][1]), pytest.approx(0.5))
    assert (second.digest, second.pixel_size) == (digest(levels[1][1]), pytest.approx(1))
    assert [each.metadata["level"] for each in (first, second)] == [0, 1]
    with pytest.raises(ImageReadError, match="13 x 11 pixels is more than max_pixels"):
        read_image(path, page=1, max_pixels=50)


def test_levels_are_too_many_to_be_opened(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", [GREY])
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]
    attributes["multiscales"][0]["datasets"] *= 20_000
    set_attributes(path, attributes)
    started = time.perf_counter()

    assert digest(path) == digest(GREY)
    assert time.perf_counter() - started < 3


@pytest.mark.parametrize(
    ("unit", "pixel_size"),
    [("micrometer", 500), ("angstrom", 0.05), ("parsec", None), (None, None)],
)
def test_units(tmp_path, unit, pixel_size):
    units = {} if unit is None else {"y": unit, "x": unit}
    path = write_ome_zarr(tmp_path / "a.zarr", [GREY], units=units)

    assert read_micrograph(path).pixel_size == pytest.approx(pixel_size)


def test_scales_of_level_and_image_are_multiplied(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", [GREY])
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]
    whole = [{"type": "scale", "scale": [4, 8]}, {"type": "translation", "translation": [1, 1]}]
    attributes["multiscales"][0]["coordinateTransformations"] = whole
    set_attributes(path, attributes)

    micrograph = read_micrograph(path)

    assert micrograph.pixel_size is None
    assert micrograph.metadata["pixel_sides_nm"] == pytest.approx([4, 2])


@pytest.mark.parametrize("axes", [None, ["z", "y", "x"]])
def test_versions_without_units(tmp_path, axes):
    path = write_ome_zarr(tmp_path / "a.zarr", [STACK[0]], "zyx", version="0.4")
    multiscale = {"datasets": [{"path": "0"}]} | ({} if axes is None else {"axes": axes})
    set_attributes(path, {"multiscales": [multiscale]}, "0.3")

    micrograph = read_micrograph(path, page=2)

    assert (micrograph.digest, micrograph.pixel_size) == (digest(STACK[0, 2]), None)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_images_in_one_folder_are_pages(tmp_path, version):
    path = tmp_path / "a.zarr"
    for group, frame in enumerate(STACK[0]):
        write_ome_zarr(path, [frame], group=str(group), version=version)
    set_attributes(path, {"bioformats2raw.layout": 3}, version)

    assert [digest(path, page=page) for page in range(3)] == list(map(digest, STACK[0]))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"plate": {"wells": [{"path": "A/1"}]}},
            "a plate, which contains folders of images; give",
        ),
        ({"well": {"images": [{"path": "0"}]}}, "a well, which contains folders of images; give"),
        ({}, "a Zarr folder without an OME image"),
        ({"multiscales": []}, "damaged or truncated OME-Zarr"),
        ({"multiscales": [{"datasets": [{"path": "0"}]}]}, "the array '0' is missing"),
        ({"multiscales": [{"datasets": [{"path": "../b.zarr/0"}]}]}, "or outside the folder"),
        ({"multiscales": [{"datasets": [{"path": "/etc"}]}]}, "or outside the folder"),
        ({"multiscales": [{"datasets": [{"path": "http://a.b/c"}]}]}, "is missing"),
    ],
)
def test_folders_that_are_no_image(tmp_path, attributes, message):
    write_ome_zarr(tmp_path / "b.zarr", [GREY])
    set_attributes(tmp_path / "a.zarr", attributes)

    with pytest.raises(ImageReadError, match=message):
        read_image(tmp_path / "a.zarr")


def change_array(path, **fields):
    array = json.loads((path / "0" / "zarr.json").read_text())
    (path / "0" / "zarr.json").write_text(json.dumps(array | fields))


def grid(*shape):
    return {"name": "regular", "configuration": {"chunk_shape": shape}}


HOSTILE = {
    "large": ({"shape": [65000, 65000]}, "65000 x 65000 pixels is more than max_pixels"),
    "large chunk": ({"chunk_grid": grid(10**9, 10**9)}, "chunks: 1 x 1000000000000000000 pixels"),
    "many chunks": ({"chunk_grid": grid(1, 1), "shape": [9000, 9000]}, "in 81,000,000 chunks"),
    "no chunk": ({"chunk_key_encoding": {"name": "v2"}}, "none of the pixels that it describes"),
    "negative": ({"shape": [-5, 41]}, "has no pixels"),
    "chunk of 0": ({"chunk_grid": grid(0, 41)}, "damaged"),
    "axes": ({"shape": [50, 41, 3]}, "damaged"),
    "objects": ({"data_type": "O"}, "an array of object, not of pixels"),
    "pickle": ({"codecs": [{"name": "bytes"}, {"name": "pickle"}]}, "the codec 'pickle', which is"),
    "no codecs": ({"codecs": []}, "damaged"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_arrays_are_refused_at_once(tmp_path, case):
    fields, message = HOSTILE[case]
    path = write_ome_zarr(tmp_path / "a.zarr", [GREY])
    change_array(path, **fields)
    started = time.perf_counter()

    with pytest.raises(ImageReadError, match=message):
        read_image(path)

    assert time.perf_counter() - started < 1


def link_chunk(path, chunk):
    chunk.rename(path.parent / "chunk")
    chunk.symlink_to(path.parent / "chunk")


def link_array(path, chunk):
    (path / "0").rename(path.parent / "0")
    (path / "0").symlink_to(path.parent / "0")


def pipe(path, chunk):
    chunk.unlink()
    os.mkfifo(chunk)


CHUNKS = {
    "linked chunk": (link_chunk, "is a link, or outside the folder"),
    "linked array": (link_array, "is a link, or outside the folder"),
    "pipe": (pipe, "is no file"),
    "truncated": (lambda _, chunk: chunk.write_bytes(chunk.read_bytes()[:-20]), "damaged"),
    "empty": (lambda _, chunk: chunk.write_bytes(b""), "damaged"),
    "long": (lambda _, chunk: chunk.write_bytes(bytes(20_000)), "a chunk of 20000 bytes"),
    "bomb": (lambda _, chunk: chunk.write_bytes(gzip.compress(bytes(8_000_000))), "damaged"),
    "deep": (lambda path, _: (path / "zarr.json").write_text('{"a":' * 90 + "1" + "}" * 90), "32"),
    "list": (lambda path, _: (path / "zarr.json").write_text("[]"), "contains no object"),
    "large": (lambda path, _: (path / "zarr.json").write_text(" " * (2**24 + 1)), "damaged"),
}


@pytest.mark.parametrize("case", CHUNKS)
@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes")
def test_hostile_files_of_a_folder_are_refused(tmp_path, case):
    change, message = CHUNKS[case]
    path = write_ome_zarr(tmp_path / "a.zarr", [GREY], compressors=GzipCodec())
    change(path, path / "0" / "c" / "0" / "0")

    with pytest.raises(ImageReadError, match=message):
        read_image(path)


def test_a_folder_that_lost_its_hidden_files_says_so(tmp_path):
    (tmp_path / "a.zarr" / "0").mkdir(parents=True)

    with pytest.raises(ImageReadError, match=r"no 'multiscales' in its attributes.*hidden files"):
        read_image(tmp_path / "a.zarr")
    assert find_images(tmp_path / "a.zarr") == [tmp_path / "a.zarr"]


@pytest.mark.parametrize("codec", [TransposeCodec(order=(1, 0))])
def test_other_codecs_are_named(tmp_path, codec):
    path = write_ome_zarr(tmp_path / "a.zarr", [GREY], filters=[codec])

    with pytest.raises(
        ImageReadError, match="stored with the codec 'transpose', which is not read"
    ):
        read_image(path)


def test_a_folder_is_one_image(tmp_path):
    for name in ("a", "b"):
        write_ome_zarr(tmp_path / name / "1.ome.zarr", [GREY + ord(name)])
    write_ome_zarr(tmp_path / "loose.zarr", [GREY])
    own = [tmp_path / name / "1.ome.zarr" for name in ("a", "b")]

    assert find_images(tmp_path / "a") == own[:1]
    assert find_images(str(tmp_path / "*" / "*.zarr")) == own
    assert find_images(str(tmp_path / "**" / "*.zarr")) == [*own, tmp_path / "loose.zarr"]
    assert find_images(own[0]) == own[:1]
    with pytest.warns(UserWarning, match=r"left out \(loose\.zarr\)"):
        data = load_image_folder(tmp_path)
    assert (data.images, data.target.tolist()) == (list(map(str, own)), ["a", "b"])
    assert check_image_folder(tmp_path).bad_files == []


def test_a_changed_chunk_is_noticed(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", [GREY])
    index = PathIndex(Cache(str(tmp_path / "cache")), {})
    before = index.stamp(path)
    chunk = path / "0" / "c" / "0" / "0"

    assert index.stamp(path) == before
    os.utime(chunk, ns=(0, path.stat().st_mtime_ns + 10**9))
    assert index.stamp(path) != before
