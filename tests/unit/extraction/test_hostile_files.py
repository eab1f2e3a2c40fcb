"""What others have put beside a file of features, or into it: refused, or computed again."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.extraction_fixtures import during, interrupt

from hypervlad import ModelFileError, extract_features, load_features
from hypervlad.data import FeatureFileError

posix = pytest.mark.skipif(os.name == "nt", reason="links, pipes and modes are POSIX's")


@pytest.fixture
def interrupted(extract, out):
    """The output of an extraction that was stopped after three of five tasks."""
    interrupt(extract, 3)
    return out


@pytest.fixture
def part(interrupted):
    """The second finished task of that extraction."""
    return interrupted.with_name("_f.parquet.parts") / "000000" / "000000001.task"


# --- links ----------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize(
    "name",
    ["f.parquet", "_f.parquet.lock", "_f.parquet.parts"]
    + [f"_f.parquet.parts/{part}" for part in ("manifest.parquet", "000000")]
    + [f"_f.parquet.parts/000000/{n:09d}.task" for n in (1, 4)],
)
def test_resume_refuses_links(name, extract, tmp_path, interrupted):
    link, moved = tmp_path / name, tmp_path / "moved"
    if link.exists():
        os.replace(link, moved)
    else:
        moved.write_text("precious")
    before = {each: each.read_bytes() for each in [moved, *moved.rglob("*")] if each.is_file()}
    link.symlink_to(moved)
    with pytest.raises(FileExistsError, match=f"{link.name} is a link to .*moved"):
        extract(resume=True)
    assert {each: each.read_bytes() for each in before} == before
    assert link.is_symlink()


@posix
def test_a_folder_of_tasks_that_becomes_a_link_is_refused(extract, out):
    elsewhere = out.with_name("elsewhere")
    elsewhere.mkdir()
    tasks = out.with_name("_f.parquet.parts") / "000000"
    with pytest.raises(FileExistsError):
        during(0, lambda: tasks.symlink_to(elsewhere), extract)
    assert not list(elsewhere.iterdir())


@posix
def test_a_link_in_place_of_a_mapped_copy_is_refused(complete, tmp_path):
    load_features(complete, mmap=True)
    (copy,) = tmp_path.glob("_f.parquet.*.npy")
    os.replace(copy, tmp_path / "moved")
    copy.symlink_to(tmp_path / "moved")
    with pytest.raises(FileExistsError):
        load_features(complete, mmap=True)


# --- damaged parts --------------------------------------------------------------------------------

DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda whole: whole[:-20],
    "a bit of a vector": lambda whole: whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
    "empty": lambda whole: b"",
}


def test_damaged_parts_are_computed_again(
    extract, encoder, folder, part, interrupted, expected, network
):
    def n_kept():
        with tempfile.TemporaryDirectory() as copy:
            shutil.copytree(part.parents[1], Path(copy, part.parents[1].name))
            out = Path(copy, interrupted.name)
            return extract_features(folder, encoder, out=out, resume=True).n_kept

    sound = part.read_bytes()
    assert n_kept() == 12
    for name, damage in DAMAGED.items():
        part.write_bytes(damage(sound))
        assert n_kept() == 8, name
    network.clear()
    done = extract(resume=True)
    assert (done.n_kept, done.n_images, network.n_images) == (8, 20, 12)
    assert interrupted.read_bytes() == expected


@pytest.mark.parametrize("name", [7, "0" * 33])
def test_a_manifest_with_a_forged_name_of_its_run_is_none(name, extract, interrupted):
    path = interrupted.with_name("_f.parquet.parts") / "manifest.parquet"
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"hypervlad"]) | {"run": name}
    pq.write_table(table.replace_schema_metadata({"hypervlad": json.dumps(facts)}), path)
    with pytest.raises(FileExistsError):
        extract(resume=True)


def test_a_part_that_is_damaged_before_the_merge_is_not_merged(
    extract, part, interrupted, expected
):
    with pytest.raises(ModelFileError, match=r"1\.task is damaged"):
        during(1, lambda: part.write_bytes(part.read_bytes()[:-1]), lambda: extract(resume=True))
    assert not interrupted.exists()
    extract(resume=True)
    assert interrupted.read_bytes() == expected


@posix
def test_a_file_that_is_replaced_as_soon_as_it_is_written_is_not_kept(extract, out, monkeypatch):
    """The digest beside it is that of what was written."""
    other = extract(out=out.with_name("other.parquet"), exclude="9.png").path
    forge(other, "label", pa.array(["x"] * 20))
    move = os.replace

    def replaced_at_once(draft, path):
        move(draft, path)
        if Path(path) == out:
            shutil.copy(other, out)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replaced_at_once)
        extract()
    with pytest.warns(UserWarning, match=r"f\.parquet: damaged or changed since it was written"):
        assert extract(resume=True).n_kept == 0
    assert load_features(out)[1]["label"][0] == "a"
    assert extract(resume=True).n_kept == 20


# --- complete files -------------------------------------------------------------------------------


def forge(out, column, values, change=None, **options):
    """Write a file of features again, with other values in a column and other metadata."""
    with pq.ParquetFile(out) as file:
        schema, table, metadata = file.schema_arrow, file.read(), file.metadata.metadata
    table = table.set_column(schema.names.index(column), column, values)
    options = {"use_dictionary": False, "compression": "none"} | options
    rows, table = options.pop("row_group_size", None), table.replace_schema_metadata(None)
    with pq.ParquetWriter(out, table.schema, store_schema=False, **options) as writer:
        writer.write_table(table, row_group_size=rows)
        # With the schema of the sound file, which the values need not have.
        writer.add_key_value_metadata(metadata | (change or {}))


def paths(text):
    return pa.array([text] * 20)


def same_text():
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(20, dtype=np.int32)), ["x" * 10**5])


# The values are made when a test runs, since some are large.
PAGES: list[tuple[Callable[[], Any], dict[str, Any], str]] = [
    (lambda: paths("x"), {"data_page_size": 10, "write_batch_size": 2, "row_group_size": 3}, ""),
    (lambda: paths("x" * 4000), {"row_group_size": 1}, ""),  # in statistics, too
    (lambda: paths("x" * 5 * 10**6), {"compression": "zstd"}, "path is compressed"),
    (same_text, {"use_dictionary": ["path"]}, "path is compressed or has a dictionary"),
    (lambda: paths("x"), {"column_encoding": {"path": "DELTA_BYTE_ARRAY"}}, "path is compressed"),
]


@pytest.mark.parametrize(("make", "options", "reason"), PAGES)
def test_what_becomes_much_larger_in_memory_is_refused_before_it_is_decoded(
    make, options, reason, complete
):
    X, _ = load_features(complete)
    values = make()
    forge(complete, "path", values, **options)
    assert complete.stat().st_size < 10**6
    if not reason:
        again, frame = load_features(complete)
        np.testing.assert_array_equal(again, X)
        assert frame["path"].tolist() == values.to_pylist()
        return
    with pytest.raises(FeatureFileError, match=rf"f\.parquet: damaged \(.*{reason}"):
        load_features(complete)


def test_a_damaged_summary_is_refused(complete):
    """pyarrow may crash when it decodes what such a summary says."""
    whole = complete.read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    with pq.ParquetFile(complete) as file:
        at = file.metadata.row_group(0).column(1).data_page_offset
    zigzag = bytes([2 * at & 127 | 128, 2 * at >> 7])
    assert at < 2**13
    damaged = whole[-8 - length : -8].replace(zigzag, bytes([zigzag[0] ^ 2, zigzag[1]]))
    complete.write_bytes(whole[: -8 - length] + damaged + whole[-8:])
    with pytest.raises(FeatureFileError, match="other values than"):
        load_features(complete)


BAD_JSON = [
    *(b"[" * 100_000, b"[" * 40 + b"]" * 40, b"[]", b"{", b"\xff", b'{"a": "\xff"}'),
    *(b'{"a": 1, "a": 2}', b'{"a": NaN}', b'{"a": -Infinity}', b'{"format": 1e999}'),
    *(b'{"a": ' + b"1" * 30 + b"}", b'{"a": -9223372036854775809}'),
    *(rb'{"a": ["\ud800"]}', rb'{"\udbff": 1}', rb'{"a": ["\ud83d", "\ude00"]}'),
    b'{"a": [' + b"{}," * 2**20 + b"{}]}",
]


def test_facts_that_are_not_ours_are_refused(complete):
    """JSON that could do harm in any file: too deep, too much, ambiguous, or no numbers or text."""
    with pq.ParquetFile(complete) as file:
        table, metadata = file.read(), file.metadata.metadata
    sound = {"encoder": "x", "format": 1}

    def load_with(facts):
        own = {b"hypervlad.content": metadata[b"hypervlad.content"], b"hypervlad": facts}
        table_now = table.replace_schema_metadata(own)
        pq.write_table(table_now, complete, use_dictionary=False, compression="none")
        load_features(complete)

    load_with(json_of(sound | {"\udcff.png": "\U0001f600"}))
    for facts in BAD_JSON:
        among = facts[:-1] + b", " + json_of(sound)[1:] if facts.startswith(b'{"a":') else facts
        with pytest.raises(FeatureFileError):
            load_with(among)
    with pytest.raises(FeatureFileError):
        load_with(json_of(sound | {"format": 2}))


def json_of(facts):
    return json.dumps(facts).encode()


@pytest.mark.parametrize("digest", [b"a/../../x", b"0" * 63 + b"\xff", b"0" * 65])
def test_a_digest_that_is_none_names_no_file(digest, complete):
    forge(complete, "path", paths("x"), {b"hypervlad.content": digest})
    for mapped in (False, True):
        with pytest.raises(FeatureFileError):
            load_features(complete, mmap=mapped)


def test_vectors_twice_are_refused(complete):
    table = pq.read_table(complete)
    pq.write_table(table.append_column(table.schema.field(7), table.column(7)), complete)
    with pytest.raises(FeatureFileError):
        load_features(complete)


@pytest.mark.parametrize("n_records", [19, 10**5])
def test_records_that_are_not_as_many_as_images_are_not_read(n_records, extract, complete, network):
    """Missing values take no byte of a file, and each a value in memory."""
    images = complete.with_name("_f.parquet.images")
    with pq.ParquetFile(images) as file:
        schema, metadata = file.schema_arrow, file.metadata.metadata
    nothing = {name: pa.nulls(n_records, schema.field(name).type) for name in schema.names}
    pq.write_table(pa.table(nothing).replace_schema_metadata(metadata), images)
    assert images.stat().st_size < 2 * 10**4
    network.clear()
    assert extract(resume=True).n_kept == 0
    assert network.n_images == 20


# --- two runs at once -----------------------------------------------------------------------------

HELD = rf"f\.parquet: another run writes it now \(process {os.getpid()} on "
LEFT = "process 1 on another machine\n"


def test_a_second_run_names_the_first(extract, encoder, folder, interrupted):
    lock = interrupted.with_name("_f.parquet.lock")
    lock.write_text(LEFT * 9)  # of a process that was killed, which locks nothing

    def second_run():
        assert lock.read_text().count("\n") == 1
        for resume in (False, True):
            with pytest.raises(RuntimeError, match=HELD):
                extract(resume=resume)

    during(0, second_run, lambda: extract(resume=True))
    assert not lock.exists()


@posix
def test_the_lock_of_another_user_names_its_owner(extract, out, monkeypatch):
    """The tests may run as root, who may write all."""
    original = os.open

    def denied(path, flags, mode=511, **options):
        if str(path).endswith(".lock"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return original(path, flags, mode, **options)

    out.with_name("_f.parquet.lock").write_text(LEFT)
    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(PermissionError, match=r"another user \(number \d+\) writes the same"):
        extract()


@posix
def test_a_lock_with_another_name_or_that_is_a_pipe_is_not_written(extract, out, monkeypatch):
    lock, precious, opened = out.with_name("_f.parquet.lock"), out.with_name("mine"), os.open
    precious.write_text("mine")

    def linked_just_now(path, *arguments, **options):
        if str(path) == str(lock):
            lock.hardlink_to(precious)
        return opened(path, *arguments, **options)

    lock.hardlink_to(precious)
    refused = pytest.raises(FileExistsError, match=r"lock (has another name|is not an)")
    with refused:
        extract()
    lock.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", linked_just_now)
        with refused:
            extract()
    lock.unlink()
    os.mkfifo(lock)
    with refused:
        extract()
    assert precious.read_text() == "mine"


@posix
def test_a_complete_file_needs_no_lock(extract, complete, monkeypatch):
    """It may be in a folder that cannot be written."""

    def refused(path, flags, *arguments, **options):
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "a folder of others", path)
        return original(path, flags, *arguments, **options)

    original = os.open
    monkeypatch.setattr(os, "open", refused)
    assert extract(resume=True).n_kept == 20
    with pytest.raises(PermissionError):
        extract()
