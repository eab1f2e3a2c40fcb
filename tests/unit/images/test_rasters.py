"""PNG, JPEG, GIF, BMP, WebP, JPEG 2000 and PNM files of every depth and colour."""

from __future__ import annotations

import io
import struct
from pathlib import Path

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

GREY, GREY16, RGB = values("u1"), values("u2"), values("u1", samples=3)


def colours(pixels: np.ndarray) -> np.ndarray:
    """Without alpha."""
    n_channels = pixels.shape[2] if pixels.ndim == 3 else 1
    return pixels[..., 0] if n_channels == 2 else pixels[..., :3] if n_channels > 1 else pixels


LOSSLESS = {
    **dict.fromkeys(("PNG", "JPEG2000"), ("u1", "u2", "LA", "RGB", "RGBA")),
    "BMP": ("bool", "u1", "RGB", "RGBA"),
    "WEBP": ("RGB", "RGBA"),
    "PPM": ("bool", "u1", "RGB"),
    "GIF": ("u1",),
}


@pytest.mark.parametrize(
    ("kind", "mode"), [(kind, mode) for kind, modes in LOSSLESS.items() for mode in modes]
)
def test_pillows_files_have_the_values_that_were_written(
    tmp_path: Path, kind: str, mode: str
) -> None:
    samples = {"LA": 2, "RGB": 3, "RGBA": 4}.get(mode, 0)
    pixels = values("u1" if samples else mode, samples=samples)
    options = {"WEBP": {"lossless": True, "exact": True}}.get(kind, {})
    (tmp_path / "a").write_bytes(pillow_bytes(kind, pixels, **options))
    check_golden(tmp_path / "a", [colours(pixels)], format={"PPM": "PNM"}.get(kind, kind))


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize(("samples", "colour"), [(0, 0), (2, 4), (3, 2), (4, 6)])
def test_png_of_8_and_16_bits(tmp_path: Path, dtype: str, samples: int, colour: int) -> None:
    pixels = values(dtype, samples=samples)
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)
    content = png_bytes(*pixels.shape[:2], 8 * pixels.itemsize, colour, rows)
    (tmp_path / "a.png").write_bytes(content)
    check_golden(tmp_path / "a.png", [colours(pixels)])


@pytest.mark.parametrize("suffix", ["jpg", "gif"])
@pytest.mark.parametrize("samples", [0, 3])
def test_lossy_files_are_decoded_as_by_imagecodecs(
    tmp_path: Path, suffix: str, samples: int
) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(values("u1", samples=samples)).save(path)
    decode = {"jpg": imagecodecs.jpeg_decode, "gif": imagecodecs.gif_decode}[suffix]
    expected = decode(path.read_bytes())
    check_golden(path, [expected[..., 0] if samples == 0 and expected.ndim == 3 else expected])


def test_a_jpeg_of_four_inks_becomes_rgb(tmp_path: Path) -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[:, :, 0] = 255
    Image.fromarray(red).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert_allclose(read_image(tmp_path / "a.jpg")[8, 8], [1, 0, 0], atol=0.05)


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tif"])
def test_palettes_are_looked_up(tmp_path: Path, suffix: str) -> None:
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
def test_jpeg_2000_of_every_depth(tmp_path: Path, codec: str, n_bits: int) -> None:
    levels = values("u1" if n_bits <= 8 else "u2") >> (-n_bits % 8)
    stretched = levels > 0 if n_bits == 1 else np.rint(levels * (255 / (2**n_bits - 1)))
    content = imagecodecs.jpeg2k_encode(
        levels, level=0, reversible=True, codecformat=codec, bitspersample=n_bits
    )
    (tmp_path / "a").write_bytes(content)
    expected = stretched.astype(bool if n_bits == 1 else "u1") if n_bits < 8 else levels
    assert digest(tmp_path / "a") == digest(expected)


COLOURS16 = values("u2", samples=3, shape=(24, 32))
_JP2 = imagecodecs.jpeg2k_encode(COLOURS16, level=0, codecformat="jp2", reversible=True)
*_HEAD, _IMAGE = jp2_boxes(_JP2)
_DECOY = (b"xml ", siz_bytes(24, 32, [8] * 3))  # looks like an image of 8 bits


@pytest.mark.parametrize(
    "content",
    [
        jp2_bytes([*_HEAD, (b"xml ", bytes(70_000)), _IMAGE]),
        jp2_bytes([*_HEAD, _DECOY, _IMAGE]),
        jp2_bytes([*_HEAD[:2], _DECOY, *_HEAD[2:], _IMAGE]),
        jp2_bytes([*_HEAD, _DECOY, _IMAGE], frozenset([b"xml ", b"jp2c"])),
        jp2_bytes(_HEAD) + struct.pack(">I4s", 0, b"jp2c") + _IMAGE[1],
        claiming(_JP2, b"ihdr", 14, "B", 7),
        _IMAGE[1],
    ],
    ids=[
        "large box",
        "decoy",
        "early decoy",
        "64 bits",
        "to the end",
        "header of 8 bits",
        "no boxes",
    ],
)
def test_jpeg_2000_has_16_bits_in_boxes_of_any_order(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jp2").write_bytes(content)
    assert digest(tmp_path / "a.jp2") == digest(COLOURS16)


@pytest.mark.parametrize("comment", [b"", b"#" + bytes(600) + b"\n", b"#\r" * 300])
def test_a_ppm_with_any_header_is_read(tmp_path: Path, comment: bytes) -> None:
    header = b"P6 " + comment + b" 18\n" + comment + b"21 255\n"
    (tmp_path / "a.ppm").write_bytes(header + RGB.tobytes())
    check_golden(tmp_path / "a.ppm", [RGB])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_is_read_where_no_page_can_be_chosen(tmp_path: Path, kind: str) -> None:
    others = {"save_all": True, "append_images": [Image.fromarray(255 - GREY)], "duration": 50}
    path = tmp_path / "a"
    path.write_bytes(pillow_bytes(kind, GREY, **others, lossless=True))
    first = read_image(path, page=0).reshape(*GREY.shape, -1)[..., 0]
    assert_array_equal(first, np.float32(GREY / 255))
    words = f"--image-page 0, where a model .*export others of a {kind} file as images"
    with pytest.warns(PartlyReadWarning, match=words):
        read_image(path)


@pytest.mark.parametrize("name", ["a.tif", "a", "a.MRC", "Größe 1µm #[1].png"])
def test_content_decides_not_the_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pillow_bytes("PNG", GREY))
    for given in (tmp_path / name, str(tmp_path / name)):
        micrograph = read_micrograph(given)
        assert (micrograph.source, micrograph.metadata["format"]) == (str(given), "PNG")
        assert_array_equal(micrograph.pixels, (GREY / 255).astype(np.float32))


def test_settings_of_pillow_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may fill truncated files, or warn of large ones, as the program asks."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = tmp_path / "a.png"
    path.write_bytes(pillow_bytes("PNG", GREY))
    assert digest(path) == digest(GREY)
    check_truncated(path, [0.5])
    files = [tmp_path / f"{n}.png" for n in range(20)]
    for file in files:
        file.write_bytes(path.read_bytes()[: 200 + len(files)])
    with pytest.raises(ImageReadError):  # in several threads at once
        list(read_micrographs(files, on_error="skip", n_jobs=4))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_an_image_of_pillow_is_read_or_refused() -> None:
    content = pillow_bytes("PNG", GREY)
    assert digest(Image.open(io.BytesIO(content))) == digest(GREY)
    with pytest.raises(ImageReadError, match="this Pillow image does not decode"):
        read_image(Image.open(io.BytesIO(content[:200])))
