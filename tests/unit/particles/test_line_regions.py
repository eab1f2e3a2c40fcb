"""Lines as ImageJ regions, compared with the format as ImageJ's RoiDecoder reads it."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hypervlad.particles.export import write_line_regions

_TYPE, _COORDINATES, _OPTIONS, _LINE, _SUB_PIXEL = 6, 18, 50, 3, 128


def test_lines_are_stored_as_imagej_decodes_them(tmp_path: Path) -> None:
    pytest.importorskip("roifile")
    lines = np.array([[[1.25, 2.5], [30.75, 4.0]], [[10, 20], [10, 28.125]]])
    write_line_regions(tmp_path / "a.zip", lines)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["1.roi", "2.roi"]
        for name, ((y1, x1), (y2, x2)) in zip(archive.namelist(), lines.tolist(), strict=True):
            data = archive.read(name)
            assert data[:4] == b"Iout"
            assert data[_TYPE] == _LINE
            assert struct.unpack_from(">4f", data, _COORDINATES) == (x1, y1, x2, y2)
            (options,) = struct.unpack_from(">h", data, _OPTIONS)
            assert options & _SUB_PIXEL
