"""What others have put beside a file of features, or into it: refused, or computed again."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.extraction_fixtures import Extract, extracted, interrupt
from support.forged_parts import read_part, write_part, write_with_digest

from hypervlad import HypercolumnVLAD, extract_features, load_features
from hypervlad.common.files import LinkError, LockedError, exclusive_lock, file_digest
from hypervlad.data import FeatureFileError, plan_extraction
from hypervlad.data.extraction import extract as extract_module
from hypervlad.data.extraction import manifest
from hypervlad.images import SkippedImagesWarning

links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")


@pytest.fixture
def interrupted(extract: Extract, out: Path) -> Path:
    """The output of an extraction that was stopped after three of five tasks."""
    interrupt(extract, 3)
    return out


@pytest.fixture
def part(interrupted: Path) -> Path:
    """The second finished task of that extraction."""
    return interrupted.with_name("_f.parquet.parts") / "000000" / "000000001.task"


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
        "_f.parquet.parts/000000/000000001.task",
        "_f.parquet.parts/000000/000000004.task",
    ],
)
def test_resume_refuses_links(
    name: str, extract: Extract, tmp_path: Path, interrupted: Path
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
        extract(resume=True)
    assert {each: each.read_bytes() for each in before} == before
    assert link.is_symlink()


@links
def test_a_link_in_place_of_the_merged_file_is_not_followed(
    extract: Extract, tmp_path: Path, interrupted: Path
) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "_f.parquet.parts" / "whole.parquet").symlink_to(tmp_path / "precious")
    extract(resume=True)
    assert (tmp_path / "precious").read_text() == "mine"
    assert not list(tmp_path.glob("*.parts"))


@links
def test_a_link_in_place_of_a_mapped_copy_is_refused(complete: Path, tmp_path: Path) -> None:
    load_features(complete, mmap=True)
    (copy,) = tmp_path.glob("_f.parquet.*.npy")
    os.replace(copy, tmp_path / "moved")
    copy.symlink_to(tmp_path / "moved")
    with pytest.raises(LinkError, match="npy is a link to"):
        load_features(complete, mmap=True)


# --- forged parts ---------------------------------------------------------------------------------


Facts = dict[str, Any]
#: The order of the values in a record and in an image of a part.
PATH, LABEL, DIGEST, HEIGHT, WIDTH, CHANNELS, PIXEL_SIZE, NAME, REASON, SIZE, TIME = range(11)


def with_record(at: int, value: Any) -> Callable[[Facts, bytes], tuple[Any, bytes]]:
    """Return a change of one value of the second record."""

    def change(facts: Facts, vectors: bytes) -> tuple[Any, bytes]:
        facts["records"][1][at] = value
        return facts, vectors

    return change


def with_fact(name: str, value: Any) -> Callable[[Facts, bytes], tuple[Any, bytes]]:
    """Return a change of one fact."""
    return lambda facts, vectors: (facts | {name: value}, vectors)


def fewer_rows(facts: Facts, vectors: bytes) -> tuple[Any, bytes]:
    return facts | {"records": facts["records"][1:]}, vectors[len(vectors) // 4 :]


def in_another_order(facts: Facts, vectors: bytes) -> tuple[Any, bytes]:
    return facts | {"records": facts["records"][::-1]}, vectors


FORGED: dict[str, Callable[[Facts, bytes], tuple[Any, bytes]]] = {
    "fewer rows": fewer_rows,
    "rows in another order": in_another_order,
    "shorter vectors": lambda facts, vectors: (facts, vectors[:-4]),
    "a long text": lambda facts, vectors: (json.dumps(facts).encode() + b" " * 10**5, vectors),
    "no JSON": lambda _, vectors: (b"{", vectors),
    "deep JSON": lambda _, vectors: (b"[" * 10_000, vectors),
    "no facts": lambda _, vectors: ({}, vectors),
    "another run": with_fact("run", "0" * 32),
    "records that are no lists": with_fact("records", [1, 2, 3, 4]),
    "a count that is infinite": with_fact("n_cached", float("inf")),
    "a count that is too high": with_fact("n_cached", 5),
    "another path": with_record(PATH, "../../x"),
    "a long path": with_record(PATH, "x" * 10**6),
    "a label that is no text": with_record(LABEL, 3),
    "no digest": with_record(DIGEST, None),
    "a digest that is none": with_record(DIGEST, "a/../../x"),
    "a reason": with_record(REASON, "\udcff"),
    "another size": with_record(SIZE, 2**62),
    "a time that is no integer": with_record(TIME, 1e300),
    "a time of many digits": with_record(TIME, 10**30),
    "a height that is no number": with_record(HEIGHT, "20"),
    "no width": with_record(WIDTH, 0),
    "too many channels": with_record(CHANNELS, 128),
    "a pixel size that is none": with_record(PIXEL_SIZE, -1.0),
}


def test_a_forged_part_is_computed_again(
    extract: Extract,
    encoder: HypercolumnVLAD,
    folder: Path,
    part: Path,
    interrupted: Path,
    computed: list[str],
) -> None:
    sound = part.read_bytes()
    assert plan_extraction(folder, encoder, out=interrupted, resume=True).n_kept == 12
    for name, change in FORGED.items():
        part.write_bytes(sound)
        write_part(part, *change(*read_part(part)))
        plan = plan_extraction(folder, encoder, out=interrupted, resume=True)
        assert plan.n_kept == 8, name
    computed.clear()
    done = extract(resume=True)
    assert (done.n_images, len(computed)) == (20, 12)
    X, frame = load_features(interrupted)
    expected, expected_frame = extracted(folder, encoder)
    np.testing.assert_array_equal(X, expected)
    assert frame.equals(expected_frame)


def arrow_stream() -> bytes:
    """Offsets in Arrow's own buffers are not checked: one that is forged ends the process."""
    sink = pa.BufferOutputStream()
    table = pa.table({"path": ["a"], "digest": ["b"]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


@pytest.mark.parametrize("content", [arrow_stream(), b"\xff" * 8 + b"{}"], ids=["table", "length"])
def test_a_part_of_another_layout_is_computed_again(
    content: bytes, extract: Extract, part: Path, interrupted: Path
) -> None:
    write_with_digest(part, content)
    assert extract(resume=True).n_kept == 8


@pytest.mark.parametrize("name", [7, "0" * 33])
def test_a_manifest_with_a_forged_name_of_its_run_is_none(
    name: Any, extract: Extract, tmp_path: Path, interrupted: Path
) -> None:
    path = tmp_path / "_f.parquet.parts" / "manifest.parquet"
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"hypervlad"]) | {"run": name}
    pq.write_table(table.replace_schema_metadata({"hypervlad": json.dumps(facts)}), path)
    with pytest.raises(FileExistsError, match="exists, and was not made by hypervlad"):
        extract(resume=True)


def test_a_part_that_changes_before_the_merge_is_not_merged(
    extract: Extract, part: Path, interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts, vectors = read_part(part)
    merge = extract_module.Run._merge

    def forged(*arguments: Any) -> Any:
        write_part(part, *with_record(LABEL, "x")(facts, vectors))
        return merge(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(extract_module.Run, "_merge", forged)
        with pytest.raises(OSError, match=r"1\.task: damaged, or changed by another program; run"):
            extract(resume=True)
    assert not interrupted.exists()
    extract(resume=True)
    assert load_features(interrupted)[1]["label"].tolist()[:8] == ["a"] * 8


def test_the_digest_is_that_of_what_was_written(
    extract: Extract,
    encoder: HypercolumnVLAD,
    folder: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = extract_module.replace_when_complete

    @contextlib.contextmanager
    def replaced_at_once(path: Path, **options: Any) -> Iterator[Any]:
        with original(path, **options) as stream:
            yield stream
        os.replace(other, out)

    def is_recorded() -> bool:
        found = manifest.Manifest.open(manifest.finished_manifest(out))
        assert found is not None
        return found.output_digest == file_digest(out)

    other = out.with_name("other.parquet")
    extract_features(folder, encoder, out=other, include="a/*")
    with monkeypatch.context() as patch:
        patch.setattr(extract_module, "replace_when_complete", replaced_at_once)
        extract()
    assert not is_recorded()
    extract()
    assert is_recorded()


@links
def test_a_folder_of_tasks_that_becomes_a_link_is_refused(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, original = tmp_path / "elsewhere", Path.mkdir
    elsewhere.mkdir()

    def linked_meanwhile(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name == "000000":
            path.symlink_to(elsewhere)
        original(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", linked_meanwhile)
        with pytest.raises(LinkError, match="000000 is a link to"):
            extract_features(folder, encoder, out=tmp_path / "f.parquet")
    assert not list(elsewhere.iterdir())


def test_a_part_without_a_readable_image_is_kept(encoder: HypercolumnVLAD, folder: Path) -> None:
    for number in range(4):
        (folder / "a" / f"{number}.png").write_bytes(b"no image")
    with pytest.warns(SkippedImagesWarning, match="4 of 20"):
        X, _ = extracted(folder, encoder)
    assert X.shape == (16, encoder.n_features_out_)


# --- complete files -------------------------------------------------------------------------------


def test_a_damaged_complete_file_is_made_again(extract: Extract, complete: Path) -> None:
    whole = complete.read_bytes()
    at = whole.index(load_features(complete)[0][7].tobytes())
    complete.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
    with pytest.warns(UserWarning, match=r"f\.parquet: damaged or changed since it was written"):
        done = extract(resume=True)
    assert done.n_kept == 0
    assert complete.read_bytes() == whole
    assert extract(resume=True).n_kept == 20


def test_a_file_that_claims_more_than_it_holds_is_refused(complete: Path) -> None:
    """Its zeros are compressed to almost nothing: reading them takes 40 times as much memory."""
    with pq.ParquetFile(complete) as file:
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
    pq.write_table(table, complete, compression="zstd", use_dictionary=True)
    assert complete.stat().st_size < 10**5
    with pytest.raises(FeatureFileError, match=r"f\.parquet: damaged or changed"):
        load_features(complete)


def test_facts_that_are_not_ours_are_refused(complete: Path) -> None:
    table = pq.read_table(complete)
    for facts in (b"[" * 100_000, b"[]", b'{"format": 1e999}', b'{"format": 1}', b"\xff"):
        pq.write_table(table.replace_schema_metadata({b"hypervlad": facts}), complete)
        with pytest.raises(FeatureFileError, match=r"f\.parquet: .*extract again"):
            load_features(complete)


def forge(out: Path, column: str, values: Any, change: dict[bytes, bytes], **options: Any) -> None:
    """Write a file of features again, with other values in a column and other metadata."""
    with pq.ParquetFile(out) as file:
        schema, table = file.schema_arrow, file.read()
        metadata = file.metadata.metadata
    at = schema.names.index(column)
    table = table.set_column(at, column, values)
    table = table.replace_schema_metadata(None)
    with pq.ParquetWriter(out, table.schema, store_schema=False, **options) as writer:
        writer.write_table(table)
        # With the schema of the sound file, which the values need not have.
        writer.add_key_value_metadata(metadata | change)


def test_a_long_text_of_many_rows_is_not_repeated_in_memory(complete: Path) -> None:
    """A dictionary holds it once, and so does a file of a few kilobytes."""
    indices = pa.array(np.zeros(20, dtype=np.int32))
    paths = pa.DictionaryArray.from_arrays(indices, ["x" * 10**6])
    forge(complete, "path", paths, {}, use_dictionary=["path"], compression="zstd")
    assert complete.stat().st_size < 10**5
    with pytest.raises(FeatureFileError, match=r"f\.parquet: damaged \(path has a dictionary"):
        load_features(complete)


@pytest.mark.parametrize("digest", [b"a/../../x", b"0" * 63 + b"\xff", b"0" * 65])
def test_a_digest_that_is_none_names_no_file(digest: bytes, complete: Path) -> None:
    labels = pq.read_table(complete, columns=["label"])["label"]
    forge(complete, "label", labels, {}, use_dictionary=False)
    load_features(complete)
    forge(complete, "label", labels, {b"hypervlad.content": digest}, use_dictionary=False)
    for mapped in (False, True):
        with pytest.raises(FeatureFileError, match=r"f\.parquet: damaged or changed"):
            load_features(complete, mmap=mapped)


def test_records_that_are_not_as_many_as_images_are_not_read(
    extract: Extract, complete: Path, computed: list[str]
) -> None:
    """Missing values take no byte of a file, and each a value in memory."""
    images = manifest.finished_manifest(complete)
    whole = manifest.Manifest.open(images)
    assert whole is not None
    assert len(whole.records(20) or []) == 20
    assert whole.records(21) is None
    with pq.ParquetFile(images) as file:
        schema, metadata = file.schema_arrow, file.metadata.metadata
    nothing = {name: pa.nulls(10**5, schema.field(name).type) for name in schema.names}
    pq.write_table(pa.table(nothing).replace_schema_metadata(metadata), images)
    assert images.stat().st_size < 2 * 10**4
    computed.clear()
    assert extract(resume=True).n_kept == 0
    assert len(computed) == 20


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_an_unreadable_file_whose_name_is_no_text_costs_its_own_row(
    extract: Extract, folder: Path
) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_bytes(b"no image")
    with pytest.warns(SkippedImagesWarning, match="1 of 21"):
        done = extract()
    assert done.n_images == 20
    assert "\\xff.png" in done.skipped[0].reason


def test_vectors_twice_are_refused(complete: Path) -> None:
    table = pq.read_table(complete)
    pq.write_table(table.append_column(table.schema.field(7), table.column(7)), complete)
    with pytest.raises(FeatureFileError, match=r"f\.parquet: damaged or changed"):
        load_features(complete)


# --- two runs at once -----------------------------------------------------------------------------


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_run_names_the_first(
    resume: bool,
    extract: Extract,
    encoder: HypercolumnVLAD,
    folder: Path,
    tmp_path: Path,
    interrupted: Path,
) -> None:
    with (
        exclusive_lock(tmp_path / "_f.parquet.lock", interrupted),
        pytest.raises(LockedError, match=rf"f\.parquet: another run.*process {os.getpid()} on"),
    ):
        extract(resume=resume)
    assert plan_extraction(folder, encoder, out=interrupted, resume=True).n_kept == 12
    extract(resume=True)
    assert not list(tmp_path.glob("*.lock"))


@links
def test_a_complete_file_needs_no_lock(
    extract: Extract, complete: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be in a folder that cannot be written."""

    def no_lock(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(extract_module, "exclusive_lock", no_lock)
    assert extract(resume=True).n_kept == 20
    with pytest.raises(PermissionError):
        extract()
