"""Tables for spreadsheets: with decimal commas, which are read as they are, and workbooks."""

import shutil

import pandas as pd
import pytest
from support.commands import refused, run, save

from hypervlad import make_particle_fields
from hypervlad.particles import FoundFolder

GROUPS = {"=b;,-.png": "2", "a.png": "1.5"}
COMMA = {"sep": ";", "decimal": ",", "dtype": {"group": str}}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A folder with commas between cells, and the same with decimal commas."""
    root = tmp_path_factory.mktemp("commas")
    images = make_particle_fields(2, n_particles=(4, 6), size=128, random_state=0)[0]
    for name, image in zip(GROUPS, images, strict=True):
        save(root / "images" / name, image)
    lines = [f'"images/{name}";{group};2,5\n' for name, group in GROUPS.items()]
    (root / "all.csv").write_text("path;group;pixel_size\n" + "".join(lines))
    find = ["particles", "find", root / "images", "--groups", root / "all.csv", "-q"]
    run(*find, "-o", root / "point", "--pixel-size", 2.5)
    run(*find, "-o", root / "comma", "--pixel-size", root / "all.csv", "--decimal-comma")
    return root


@pytest.mark.parametrize("separator", [";", "\t"])
def test_tables_with_decimal_commas_have_the_same_values(found, tmp_path, separator):
    """Also after a spreadsheet has saved them, with a mark of their encoding."""
    before, folder = FoundFolder(found / "point"), shutil.copytree(found / "comma", tmp_path / "c")
    for name in ("particles", "fields"):
        table = pd.read_csv(folder / f"{name}.csv", **COMMA)
        saved = table.to_csv(sep=separator, decimal=",", index=False)
        (folder / f"{name}.csv").write_text(saved, encoding="utf-16")
    pd.testing.assert_frame_equal(FoundFolder(folder).table, before.table)
    pd.testing.assert_frame_equal(FoundFolder(folder).field_table, before.field_table)
    run("particles", "count", folder, "-o", tmp_path / "c.csv", "--decimal-comma")
    run("particles", "count", found / "point", "-o", tmp_path / "p.csv")
    point = pd.read_csv(tmp_path / "p.csv", dtype={"group": str})
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "c.csv", **COMMA), point)


def test_workbooks_have_numbers_units_and_no_formulas(found, tmp_path):
    pytest.importorskip("xlsxwriter")
    openpyxl = pytest.importorskip("openpyxl")
    run("workbook", found / "comma", found / "point" / "fields.csv", "-o", tmp_path / "all.xlsx")
    book = openpyxl.load_workbook(tmp_path / "all.xlsx")
    assert book.sheetnames == ["comma fields", "particles", "point fields"]
    sheet, table = book["particles"], FoundFolder(found / "point").table
    names, units, *rows = sheet.values
    assert (sheet.freeze_panes, names[4], units[4]) == ("A3", "area", "nm²")
    values = pd.DataFrame(rows, columns=table.columns)
    own = ["length_nm", "touches_edge", "group"]
    pd.testing.assert_frame_equal(values[own], table[own], check_dtype=False, rtol=1e-14)
    assert [row[:2] for row in list(book["point fields"].values)[2:]] == list(GROUPS.items())
    assert {cell.data_type for row in book["point fields"] for cell in row} == {"s", "n"}
    lines = "007,12345678901234567890,1e5,0.1,1.10\n1e5,1,x,nan,1.1\n8,2,1,0.12345678901234567,\n"
    (tmp_path / "own.csv").write_text("a,b,c,d,e\n" + lines)
    run("workbook", tmp_path / "own.csv", "-o", tmp_path / "own.xlsx")
    rows = list(zip(*openpyxl.load_workbook(tmp_path / "own.xlsx").active.values, strict=True))
    assert rows[0] == ("a", "007", "1e5", "8")
    assert rows[1] == ("b", "12345678901234567890", "1", "2")
    assert rows[2] == ("c", "1e5", "x", "1")
    assert rows[3:] == [("d", 0.1, "nan", pytest.approx(0.123456789)), ("e", "1.10", "1.1", None)]
    table = tmp_path / "c.xlsx"
    run("particles", "count", found / "point", "-o", table)
    units = [cell.value for cell in openpyxl.load_workbook(table)["c"][2]]
    assert {"1/µm²", "nm"} < set(units)
    assert "a workbook" in refused("particles", "count", found / "point", "--leave-out", table)
