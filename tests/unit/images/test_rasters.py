"""PNG, JPEG, GIF, BMP, WebP, JPEG 2000 and PNM files of every depth and colour."""

import io
import struct

import imagecodecs
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageFile
from support.golden import check_golden, check_truncated, digest, values
from support.raster_headers import (
    claiming,
    jp2_boxes,
    jp2_bytes,
    pillow_bytes,
    png_bytes,
    siz_bytes,
)

from hypervlad.images import (
    ImageReadError,
    PartlyReadWarning,
    read_image,
    read_micrograph,
    read_micrographs,
)

GREY, RGB = values("u1"), values("u1", samples=3)
LOSSLESS = {
    "PNG": ("u1", "u2", "LA", "RGB", "RGBA"),
    "JPEG2000": ("u1", "u2", "LA", "RGB", "RGBA"),
    "BMP": ("bool", "u1", "RGB", "RGBA"),
    "WEBP": ("RGB", "RGBA"),
    "PPM": ("bool", "u1", "RGB"),
    "GIF": ("u1",),
}


def colours(pixels):
    """Without alpha."""
    n_channels = pixels.shape[2] if pixels.ndim == 3 else 1
    return pixels[..., 0] if n_channels == 2 else pixels[..., :3] if n_channels > 1 else pixels


@pytest.mark.parametrize(("kind", "mode"), [(k, mode) for k in LOSSLESS for mode in LOSSLESS[k]])
def test_pillows_files_have_the_values_that_were_written(tmp_path, kind, mode):
    samples = {"LA": 2, "RGB": 3, "RGBA": 4}.get(mode, 0)
    pixels = values("u1" if samples else mode, samples=samples)
    options = {"WEBP": {"lossless": True, "exact": True}}.get(kind, {})
    (tmp_path / "a").write_bytes(pillow_bytes(kind, pixels, **options))
    check_golden(tmp_path / "a", [colours(pixels)], format={"PPM": "PNM"}.get(kind, kind))


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize(("samples", "colour"), [(0, 0), (2, 4), (3, 2), (4, 6)])
def test_png_of_8_and_16_bits(tmp_path, dtype, samples, colour):
    pixels = values(dtype, samples=samples)
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)
    content = png_bytes(*pixels.shape[:2], 8 * pixels.itemsize, colour, rows)
    (tmp_path / "a.png").write_bytes(content)
    check_golden(tmp_path / "a.png", [colours(pixels)])


@pytest.mark.parametrize("kind", ["jpeg", "gif"])
@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "rgb"])
def test_lossy_files_are_decoded_as_by_imagecodecs(tmp_path, kind, pixels):
    (tmp_path / "a").write_bytes(pillow_bytes(kind, pixels))
    expected = getattr(imagecodecs, f"{kind}_decode")((tmp_path / "a").read_bytes())
    check_golden(tmp_path / "a", [expected[..., 0] if expected.ndim > pixels.ndim else expected])


def test_a_jpeg_of_four_inks_becomes_rgb(tmp_path):
    red = Image.new("RGB", (16, 16), (255, 0, 0)).convert("CMYK")
    red.save(tmp_path / "a.jpg", quality=95)
    assert_allclose(read_image(tmp_path / "a.jpg")[8, 8], [1, 0, 0], atol=0.05)


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tif"])
def test_palettes_are_looked_up(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    table = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
    image = Image.fromarray(GREY % 4).convert("P")
    image.putpalette(table.tobytes())
    image.save(path, **({"transparency": b"\0\x80\xff\xff"} if suffix == "png" else {}))
    for source in (path, image):
        assert digest(source) == digest(table[GREY % 4])
    image = Image.fromarray(GREY).convert("P")
    image.putpalette([level for value in range(256) for level in [255 - value] * 3])
    image.save(path)
    assert digest(path) == digest(255 - GREY), "a palette of grey levels gives a grey image"


@pytest.mark.parametrize("n_bits", range(1, 17))
@pytest.mark.parametrize("codec", ["jp2", "j2k"])
def test_jpeg_2000_of_every_depth(tmp_path, codec, n_bits):
    levels = values("u1" if n_bits <= 8 else "u2") >> (-n_bits % 8)
    stretched = levels > 0 if n_bits == 1 else np.rint(levels * (255 / (2**n_bits - 1)))
    options = {"level": 0, "reversible": True, "codecformat": codec, "bitspersample": n_bits}
    (tmp_path / "a").write_bytes(imagecodecs.jpeg2k_encode(levels, **options))
    expected = stretched.astype(bool if n_bits == 1 else "u1") if n_bits < 8 else levels
    assert digest(tmp_path / "a") == digest(expected)


COLOURS16 = values("u2", samples=3, shape=(24, 32))
JP2 = imagecodecs.jpeg2k_encode(COLOURS16, level=0, codecformat="jp2", reversible=True)
*HEAD, IMAGE = jp2_boxes(JP2)
DECOY = (b"xml ", siz_bytes(24, 32, [8] * 3))  # looks like an image of 8 bits
BOXES = {
    "large box": jp2_bytes([*HEAD, (b"xml ", bytes(70_000)), IMAGE]),
    "decoy": jp2_bytes([*HEAD[:2], DECOY, *HEAD[2:], DECOY, IMAGE]),
    "64 bits": jp2_bytes([*HEAD, DECOY, IMAGE], frozenset([b"xml ", b"jp2c"])),
    "to the end": jp2_bytes(HEAD) + struct.pack(">I4s", 0, b"jp2c") + IMAGE[1],
    "header of 8 bits": claiming(JP2, b"ihdr", 14, "B", 7),
    "no boxes": IMAGE[1],
}


@pytest.mark.parametrize("case", BOXES)
def test_jpeg_2000_has_16_bits_in_boxes_of_any_order(tmp_path, case):
    (tmp_path / "a.jp2").write_bytes(BOXES[case])
    assert digest(tmp_path / "a.jp2") == digest(COLOURS16)


@pytest.mark.parametrize("comment", [b"", b"#" + bytes(600) + b"\n", b"#\r" * 300])
def test_a_ppm_with_any_header_is_read(tmp_path, comment):
    header = b"P6 " + comment + b" 18\n" + comment + b"21 255\n"
    (tmp_path / "a.ppm").write_bytes(header + RGB.tobytes())
    check_golden(tmp_path / "a.ppm", [RGB])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_is_read_where_no_page_can_be_chosen(tmp_path, kind):
    others = {"save_all": True, "append_images": [Image.fromarray(255 - GREY)], "duration": 50}
    path = tmp_path / "a"
    path.write_bytes(pillow_bytes(kind, GREY, **others, lossless=True))
    first = read_image(path, page=0).reshape(*GREY.shape, -1)[..., 0]
    assert_array_equal(first, np.float32(GREY / 255))
    words = f"--set page=0, where a model .*export others of a {kind} file as images"
    with pytest.warns(PartlyReadWarning, match=words):
        read_image(path)


@pytest.mark.parametrize("name", ["a.tif", "a", "a.MRC", "Größe 1µm #[1].png"])
def test_content_decides_not_the_name(tmp_path, name):
    (tmp_path / name).write_bytes(pillow_bytes("PNG", GREY))
    for given in (tmp_path / name, str(tmp_path / name)):
        found = read_micrograph(given)
        assert (found.source, found.metadata["format"]) == (str(given), "PNG")
        assert found.digest == digest(GREY)


def test_settings_of_pillow_change_nothing(tmp_path, monkeypatch):
    """It may fill truncated files, or warn of large ones, as the program asks."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    files = [tmp_path / f"{n}.png" for n in range(20)]
    for file in files:
        file.write_bytes(pillow_bytes("PNG", GREY))
    assert digest(files[0]) == digest(GREY)
    for file in files:
        check_truncated(file, [0.5])
        file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ImageReadError):  # in several threads at once
        list(read_micrographs(files, on_error="skip", n_jobs=4))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_an_image_of_pillow_is_read_or_refused():
    content = pillow_bytes("PNG", GREY)
    assert digest(Image.open(io.BytesIO(content))) == digest(GREY)
    with pytest.raises(ImageReadError):
        read_image(Image.open(io.BytesIO(content[:200])))
