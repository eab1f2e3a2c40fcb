"""What others have put beside a file of features, or into it: refused, or computed again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hypervlad import HypercolumnVLAD, extract_features, load_features
from hypervlad.extraction import FeatureFileError, plan_extraction
from hypervlad.extraction.manifest import TaskFolder
from hypervlad.files import LinkError, LockedError, exclusive_lock

links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")


class StopError(Exception):
    """Raised to interrupt."""


@pytest.fixture
def interrupted(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The output of an extraction that was stopped after three of five tasks."""
    out, original = tmp_path / "f.parquet", TaskFolder.keep

    def keep(self: TaskFolder, task: Any, finished: Any) -> None:
        if task.number == 3:
            raise StopError
        original(self, task, finished)

    with monkeypatch.context() as patch:
        patch.setattr(TaskFolder, "keep", keep)
        with pytest.raises(StopError):
            extract_features(folder, encoder, out=out)
    return out


# --- links ----------------------------------------------------------------------------------------


@links
@pytest.mark.parametrize(
    "name",
    [
        "f.parquet",
        "_f.parquet.lock",
        "_f.parquet.parts",
        "_f.parquet.parts/manifest.parquet",
        "_f.parquet.parts/000000",
        "_f.parquet.parts/000000/000000001.arrow",
        "_f.parquet.parts/000000/000000004.arrow",
    ],
)
def test_resume_refuses_links(
    name: str, encoder: HypercolumnVLAD, folder: Path, tmp_path: Path, interrupted: Path
) -> None:
    link = tmp_path / name
    moved = tmp_path / "moved"
    if link.exists():
        os.replace(link, moved)
    else:
        moved.write_text("precious")
    before = {each: each.read_bytes() for each in [moved, *moved.rglob("*")] if each.is_file()}
    link.symlink_to(moved)
    with pytest.raises(LinkError, match=f"{link.name} is a link to .*moved"):
        extract_features(folder, encoder, out=interrupted, resume=True)
    assert {each: each.read_bytes() for each in before} == before
    assert link.is_symlink()


@links
def test_a_link_in_place_of_the_merged_file_is_not_followed(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path, interrupted: Path
) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "_f.parquet.parts" / "whole.parquet").symlink_to(tmp_path / "precious")
    extract_features(folder, encoder, out=interrupted, resume=True)
    assert (tmp_path / "precious").read_text() == "mine"
    assert not list(tmp_path.glob("*.parts"))


@links
def test_a_link_in_place_of_a_mapped_copy_is_refused(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "f.parquet"
    extract_features(folder, encoder, out=out)
    load_features(out, mmap=True)
    (copy,) = tmp_path.glob("_f.parquet.*.npy")
    os.replace(copy, tmp_path / "moved")
    copy.symlink_to(tmp_path / "moved")
    with pytest.raises(LinkError, match="npy is a link to"):
        load_features(out, mmap=True)


# --- forged parts ---------------------------------------------------------------------------------


def rewrite_part(path: Path, change: Callable[[pa.Table, dict[str, Any]], pa.Table]) -> None:
    """Change a finished task, with a digest that fits."""
    table = pa.ipc.open_stream(path.read_bytes()[32:]).read_all()
    facts = json.loads(table.schema.metadata[b"hypervlad"])
    table = change(table, facts)
    table = table.replace_schema_metadata({"hypervlad": json.dumps(facts)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = sink.getvalue().to_pybytes()
    path.write_bytes(hashlib.sha256(content).digest() + content)


def fewer_rows(table: pa.Table, _facts: dict[str, Any]) -> pa.Table:
    return table.slice(1)


def rows_in_another_order(table: pa.Table, _facts: dict[str, Any]) -> pa.Table:
    return table.take([1, 0, 2, 3])


def another_column(table: pa.Table, _facts: dict[str, Any]) -> pa.Table:
    return table.append_column("more", pa.array(range(len(table))))


def shorter_vectors(table: pa.Table, _facts: dict[str, Any]) -> pa.Table:
    flat = pa.array(np.zeros(3 * len(table), dtype=np.float32))
    vectors = pa.FixedSizeListArray.from_arrays(flat, 3)
    return table.set_column(7, pa.field("vector", vectors.type, nullable=False), vectors)


def facts_that_are_no_records(table: pa.Table, facts: dict[str, Any]) -> pa.Table:
    facts["records"] = [{"path": 3}]
    return table


def no_facts(table: pa.Table, facts: dict[str, Any]) -> pa.Table:
    facts.clear()
    return table


def a_count_that_is_no_number(table: pa.Table, facts: dict[str, Any]) -> pa.Table:
    facts["n_cached"] = [[]]
    return table


def a_count_that_is_infinite(table: pa.Table, facts: dict[str, Any]) -> pa.Table:
    facts["n_cached"] = float("inf")
    return table


@pytest.mark.parametrize(
    "change",
    [
        fewer_rows,
        rows_in_another_order,
        another_column,
        shorter_vectors,
        facts_that_are_no_records,
        no_facts,
        a_count_that_is_no_number,
        a_count_that_is_infinite,
    ],
)
def test_a_forged_part_is_computed_again(
    change: Callable[[pa.Table, dict[str, Any]], pa.Table],
    encoder: HypercolumnVLAD,
    folder: Path,
    tmp_path: Path,
    interrupted: Path,
    computed: list[str],
) -> None:
    rewrite_part(tmp_path / "_f.parquet.parts" / "000000" / "000000001.arrow", change)
    computed.clear()
    done = extract_features(folder, encoder, out=interrupted, resume=True)
    assert (done.n_images, len(computed)) == (20, 12)
    np.testing.assert_array_equal(
        load_features(interrupted)[0], extract_features(folder, encoder)[0]
    )


# --- complete files -------------------------------------------------------------------------------


@pytest.mark.parametrize("verify", [False, True])
def test_a_damaged_complete_file_is_made_again(
    verify: bool, encoder: HypercolumnVLAD, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "f.parquet"
    extract_features(folder, encoder, out=out)
    whole = out.read_bytes()
    vectors, _ = load_features(out)
    at = whole.index(vectors[7].tobytes())
    out.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
    with pytest.warns(UserWarning, match=r"f\.parquet: damaged or changed since it was written"):
        done = extract_features(folder, encoder, out=out, resume=True, verify=verify)
    assert done.n_kept == 0
    assert out.read_bytes() == whole
    assert extract_features(folder, encoder, out=out, resume=True).n_kept == 20


def test_a_file_that_claims_more_than_it_holds_is_refused(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path
) -> None:
    """Its zeros are compressed to almost nothing: reading them takes 40 times as much memory."""
    out = tmp_path / "f.parquet"
    extract_features(folder, encoder, out=out)
    with pq.ParquetFile(out) as file:
        schema, metadata = file.schema_arrow, file.metadata.metadata
        table = file.read().slice(0, 1)
    n_rows, n_features = 100, 10_000
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(np.zeros(n_rows * n_features, dtype=np.float32)),
        type=pa.list_(pa.field("element", pa.float32(), nullable=False), n_features),
    )
    table = pa.concat_tables([table] * n_rows).set_column(
        7, pa.field("vector", vectors.type, nullable=False), vectors
    )
    table = table.replace_schema_metadata({**schema.metadata, **metadata})
    pq.write_table(table, out, compression="zstd", use_dictionary=True)
    assert out.stat().st_size < 10**5
    with pytest.raises(FeatureFileError, match=r"f\.parquet: damaged or changed"):
        load_features(out)


@pytest.mark.parametrize(
    "facts",
    [
        b"[" * 100_000,
        b"[]",
        b"7",
        b'{"format": "x"}',
        b'{"format": 1e999}',
        b'{"format": 1}',
        b"\xff",
    ],
)
def test_facts_that_are_not_ours_are_refused(
    facts: bytes, encoder: HypercolumnVLAD, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "f.parquet"
    extract_features(folder, encoder, out=out)
    table = pq.read_table(out)
    pq.write_table(table.replace_schema_metadata({b"hypervlad": facts}), out)
    with pytest.raises(FeatureFileError, match=r"f\.parquet: .*extract again"):
        load_features(out)


def test_vectors_twice_are_refused(encoder: HypercolumnVLAD, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.parquet"
    extract_features(folder, encoder, out=out)
    table = pq.read_table(out)
    pq.write_table(table.append_column(table.schema.field(7), table.column(7)), out)
    with pytest.raises(FeatureFileError, match=r"f\.parquet: damaged or changed"):
        load_features(out)


# --- two runs at once -----------------------------------------------------------------------------


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_run_names_the_first(
    resume: bool, encoder: HypercolumnVLAD, folder: Path, tmp_path: Path, interrupted: Path
) -> None:
    with (
        exclusive_lock(tmp_path / "_f.parquet.lock", interrupted),
        pytest.raises(LockedError, match=rf"f\.parquet: another run.*process {os.getpid()} on"),
    ):
        extract_features(folder, encoder, out=interrupted, resume=resume)
    assert plan_extraction(folder, encoder, out=interrupted, resume=True).n_kept == 12
    extract_features(folder, encoder, out=interrupted, resume=True)
    assert not list(tmp_path.glob("*.lock"))
