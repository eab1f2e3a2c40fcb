"""What kind of file it is, by its first bytes: a PNG that somebody named .tif is still a PNG."""

from __future__ import annotations

import re

N_SNIFFED = 512  # the MRC mark lies at byte 208

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II\x97\x01", "SER"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"\x00\x00\x00\x03", "DM"),
    (b"\x00\x00\x00\x04", "DM"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xffO\xffQ", "JPEG2000"),
)

# What people point at by mistake, and what to say of it.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the image itself; run 'git lfs pull'"),
    (b"PK\x03\x04", "a ZIP archive (or an Office document); unpack it and give the images inside"),
    (b"%PDF", "a PDF document; export its figures as PNG or TIFF"),
    (b"%!PS", "a PostScript file; export its figures as PNG or TIFF"),
    (b"\x89HDF", "an HDF5 file; read its array with h5py and pass the array"),
    (b"\x93NUMPY", "a NumPy file; read it with np.load and pass the array"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"8BPS", "a Photoshop document; export it as TIFF or PNG"),
    (b"CDF\x01", "a netCDF file; read its array and pass the array"),
)


def sniff(head: bytes, suffix: str = "") -> str | None:
    """The kind of image file that begins with `head`, or None if it is none that can be read.

    Parameters
    ----------
    head : bytes
        The first `N_SNIFFED` bytes of the file, or all of them.
    suffix : str
        The file's suffix in lower case; decides only where the content cannot (MRC files from
        before 2000 bear no mark).

    Returns
    -------
    kind : str or None
        "PNG", "JPEG", "GIF", "BMP", "WEBP", "JPEG2000", "PNM", "TIFF", "DM", "MRC" or "SER".

    Examples
    --------
    >>> sniff(b"GIF89a...")
    'GIF'
    """
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    # "BM" and "P5" alone begin many a text: ask for the reserved zeros, and for a blank after the
    # digit.
    if head[:2] == b"BM" and head[6:10] == b"\x00\x00\x00\x00":
        return "BMP"
    if re.match(rb"P[1-6]\s", head):
        return "PNM"
    if head[208:212] == b"MAP " or (
        suffix in (".mrc", ".mrcs", ".st", ".rec") and len(head) >= 224
    ):
        return "MRC"
    return None


def describe_other(head: bytes) -> str:
    """What a file that is no image seems to be, and the remedy."""
    for magic, description in _OTHERS:
        if head.startswith(magic):
            return description
    if re.match(rb"\s*<(!doctype|html|\?xml)", head, re.IGNORECASE):
        return (
            "a web page or XML, not an image: a download that went wrong? Download the image itself"
        )
    return (
        "not an image that can be read (PNG, JPEG, BMP, GIF, WebP, JPEG 2000, PGM/PPM, TIFF, DM3, "
        "DM4, "
        "MRC, SER); export it as TIFF or PNG"
    )
