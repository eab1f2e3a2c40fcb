"""The tables of the pages are those of the stored results, and every program explains itself."""

from __future__ import annotations

import sys

import pytest

from benchmarks import tables
from benchmarks.common.results import BENCHMARKS, RESULTS, load_result, measured_line
from benchmarks.tests.test_programs import CASES, module_of

PROGRAMS = ["tables", *CASES]


def test_the_tables_are_made_from_the_results() -> None:
    tables.main(["--check"])  # exits with the names of the pages that differ


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_explain_themselves(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [program, "--help"])
    with pytest.raises(SystemExit) as stopped:
        module_of(program).main()
    assert stopped.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_every_program_is_on_the_page_of_its_topic() -> None:
    for program in PROGRAMS:
        topic = program.split(".")[0]
        page = BENCHMARKS / ("README.md" if topic == "tables" else f"{topic}/README.md")
        assert f"python -m benchmarks.{program}" in page.read_text(encoding="utf-8"), program


def test_every_result_names_the_state_of_the_code() -> None:
    for path in RESULTS.glob("*/*.json"):
        assert measured_line(load_result(path)).startswith("*Measured at revision `"), path
