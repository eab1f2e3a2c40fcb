"""What others have put beside a file of features, or into it: refused, or computed again."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.extraction_fixtures import during, interrupt
from support.forged_parts import read_part, write_part, write_with_digest

from hypervlad import load_features
from hypervlad.data import FeatureFileError, plan_extraction

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
def test_a_link_in_place_of_a_mapped_copy_is_refused(complete, tmp_path):
    load_features(complete, mmap=True)
    (copy,) = tmp_path.glob("_f.parquet.*.npy")
    os.replace(copy, tmp_path / "moved")
    copy.symlink_to(tmp_path / "moved")
    with pytest.raises(FileExistsError):
        load_features(complete, mmap=True)


# --- forged parts ---------------------------------------------------------------------------------

#: The order of the values in a record of a part.
PATH, LABEL, DIGEST, HEIGHT, WIDTH, CHANNELS, PIXEL_SIZE, NAME, REASON, SIZE, TIME = range(11)


def record(at, value):
    """Return a change of one value of the second record."""

    def change(facts, vectors):
        facts["records"][1][at] = value
        return facts, vectors

    return change


def fact(name, value):
    """Return a change of one fact."""
    return lambda facts, vectors: (facts | {name: value}, vectors)


FORGED = {
    "fewer rows": lambda facts, vectors: (
        facts | {"records": facts["records"][1:]},
        vectors[len(vectors) // 4 :],
    ),
    "another order": lambda facts, vectors: (facts | {"records": facts["records"][::-1]}, vectors),
    "shorter vectors": lambda facts, vectors: (facts, vectors[:-4]),
    "a long text": lambda facts, vectors: (json.dumps(facts).encode() + b" " * 10**5, vectors),
    "no JSON": lambda _, vectors: (b"{", vectors),
    "deep JSON": lambda _, vectors: (b"[" * 10_000, vectors),
    "another run": fact("run", "0" * 32),
    "a count that is infinite": fact("n_cached", float("inf")),
    "another path": record(PATH, "../../x"),
    "no digest": record(DIGEST, None),
    "a reason": record(REASON, "\udcff"),
    "another size": record(SIZE, 2**62),
    "a time that is no integer": record(TIME, 1e300),
    "no width": record(WIDTH, 0),
    "too many channels": record(CHANNELS, 128),
    "a pixel size that is none": record(PIXEL_SIZE, -1.0),
}
# Offsets in Arrow's own buffers are not checked by Arrow: one that is forged ends the process.
ARROW = b"\xff\xff\xff\xff\xf0\0\0\0\x10\0\0\0" + bytes(240)
DAMAGED = {
    "cut": lambda whole: whole[:-20],
    "a bit of a vector": lambda whole: whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
    "empty": lambda whole: b"",
}


def test_forged_and_damaged_parts_are_computed_again(
    extract, encoder, folder, part, interrupted, expected, network
):
    def n_kept():
        return plan_extraction(folder, encoder, out=interrupted, resume=True).n_kept

    sound = part.read_bytes()
    assert n_kept() == 12
    for name, change in FORGED.items():
        part.write_bytes(sound)
        write_part(part, *change(*read_part(part)))
        assert n_kept() == 8, name
    for content in (ARROW, b"\xff" * 8 + b"{}"):
        write_with_digest(part, content)
        assert n_kept() == 8, content
    for name, damage in DAMAGED.items():
        part.write_bytes(damage(sound))
        assert n_kept() == 8, name
    network.clear()
    done = extract(resume=True)
    assert (done.n_kept, done.n_images, network.n_images) == (8, 20, 12)
    assert interrupted.read_bytes() == expected


def test_a_part_that_changes_before_the_merge_is_not_merged(extract, part, interrupted, expected):
    forged = record(LABEL, "x")(*read_part(part))
    with pytest.raises(OSError, match=r"1\.task: damaged, or changed by another program; run"):
        during(1, lambda: write_part(part, *forged), lambda: extract(resume=True))
    assert not interrupted.exists()
    extract(resume=True)
    assert interrupted.read_bytes() == expected


# --- complete files -------------------------------------------------------------------------------


def forge(out, column, values, change=None, **options):
    """Write a file of features again, with other values in a column and other metadata."""
    with pq.ParquetFile(out) as file:
        schema, table, metadata = file.schema_arrow, file.read(), file.metadata.metadata
    table = table.set_column(schema.names.index(column), column, values)
    options = {"use_dictionary": False, "compression": "zstd"} | options
    rows = options.pop("row_group_size", None)
    table = table.replace_schema_metadata(None)
    with pq.ParquetWriter(out, table.schema, store_schema=False, **options) as writer:
        writer.write_table(table, row_group_size=rows)
        # With the schema of the sound file, which the values need not have.
        writer.add_key_value_metadata(metadata | (change or {}))


def paths(text):
    return pa.array([text] * 20)


SAME_TEXT = pa.DictionaryArray.from_arrays(pa.array(np.zeros(20, dtype=np.int32)), ["x" * 10**6])
PAGES = [
    (paths("x"), {"data_page_size": 10, "write_batch_size": 2, "row_group_size": 3}, ""),
    (paths("x" * 4000), {"compression": "snappy", "row_group_size": 1}, ""),  # in statistics, too
    (paths("x" * 5 * 10**6), {}, "path would take more memory than the file should"),
    (SAME_TEXT, {"use_dictionary": ["path"]}, "path has a dictionary"),
    (paths("x"), {"column_encoding": {"path": "DELTA_BYTE_ARRAY"}}, "path has a page of another k"),
    (paths("x"), {"column_encoding": {"height": "DELTA_BINARY_PACKED"}}, "height has a page of an"),
    (paths("x"), {"data_page_version": "2.0"}, "has a page"),
]


@pytest.mark.parametrize(("values", "options", "reason"), PAGES)
def test_what_becomes_much_larger_in_memory_is_refused_before_it_is_decoded(
    values, options, reason, complete
):
    X, _ = load_features(complete)
    forge(complete, "path", values, **options)
    assert complete.stat().st_size < 10**6
    if not reason:
        again, frame = load_features(complete)
        np.testing.assert_array_equal(again, X)
        assert frame["path"].tolist() == values.to_pylist()
        return
    with pytest.raises(FeatureFileError, match=rf"f\.parquet: damaged \(.*{reason}"):
        load_features(complete)


def test_a_file_that_claims_more_than_it_holds_is_refused(complete):
    """Its zeros are compressed to almost nothing: reading them takes 40 times as much memory."""
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(np.zeros(20 * 50_000, dtype=np.float32)),
        type=pa.list_(pa.field("element", pa.float32(), nullable=False), 50_000),
    )
    with pq.ParquetFile(complete) as file:
        schema, metadata = file.schema_arrow, file.metadata.metadata
        table = file.read()
    table = table.set_column(7, pa.field("vector", vectors.type, nullable=False), vectors)
    table = table.replace_schema_metadata({**schema.metadata, **metadata})
    pq.write_table(table, complete, compression="zstd")
    assert complete.stat().st_size < 10**5
    with pytest.raises(FeatureFileError):
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
        pq.write_table(table.replace_schema_metadata(own), complete, use_dictionary=False)
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
        assert plan_extraction(folder, encoder, out=interrupted, resume=True).n_kept == 12

    during(0, second_run, lambda: extract(resume=True))
    assert not lock.exists()


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
