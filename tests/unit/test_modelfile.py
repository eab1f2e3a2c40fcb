import functools
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hypervlad import ModelFileError
from hypervlad.common import modelfile
from hypervlad.common.modelfile import read_model, write_model

HEADER = {
    "classes": ["fibre", "Ångström", "\udcff"],
    "depth": {"k": 128, "rate": 0.1, "none": None},
}
ARRAYS = {
    "codebook": np.linspace(0, 1, 12, dtype="float32").reshape(3, 4),
    "scalar": np.array(2.5),
}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
dtypes = st.sampled_from(
    ["<f2", "<f4", ">f8", "<i1", "<i2", ">i4", "<i8", "<u1", ">u2", "<u4", "<u8", "?"]
)
stored_arrays = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(
        lambda key: key != "__metadata__"
    ),
    dtypes.flatmap(
        lambda dtype: hnp.arrays(
            dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
        )
    ),
    max_size=4,
)
without_fixture_check = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.hvlad"
    write_model(path, "test", HEADER, ARRAYS)
    return path


def assert_same_arrays(found, expected):
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        assert found[key].shape == array.shape
        assert found[key].dtype == array.dtype.newbyteorder("=")
        assert found[key].flags.writeable
        np.testing.assert_array_equal(found[key], array)


@pytest.mark.slow  # a hundred files of many arrays
@given(header=st.dictionaries(st.text(), json_values, max_size=4), arrays=stored_arrays)
@without_fixture_check
def test_whatever_is_written_comes_back(tmp_path, header, arrays):
    path = tmp_path / "model.hvlad"
    write_model(path, "test", header, arrays)
    content = read_model(path)
    assert content.kind == "test"
    assert content.header == header
    assert_same_arrays(content.arrays, arrays)


def test_arrays_that_are_not_contiguous_come_back(tmp_path):
    cube = np.arange(60, dtype="int32").reshape(3, 4, 5)
    arrays = {
        "transposed": cube.T,
        "strided": cube[::2, ::-1, 1::3],
        "fortran": np.asfortranarray(cube),
        "broadcast": np.broadcast_to(np.float32(1.5), (2, 3)),
        "scalar": np.float16(0.5),
    }
    write_model(tmp_path / "m", "test", {}, arrays)
    assert_same_arrays(
        read_model(tmp_path / "m").arrays, {k: np.asarray(a) for k, a in arrays.items()}
    )


def test_the_same_content_gives_the_same_bytes(tmp_path, model):
    other = tmp_path / "other.hvlad"
    header = {"depth": {"none": None, "rate": 0.1, "k": 128}, "classes": HEADER["classes"]}
    write_model(other, "test", header, dict(reversed(ARRAYS.items())))
    assert other.read_bytes() == model.read_bytes()


def test_the_file_is_a_safetensors_file_with_one_metadata_entry(model):
    with safetensors.safe_open(model, framework="np") as stored:
        assert set(stored.metadata()) == {"hypervlad"}
        entry = json.loads(stored.metadata()["hypervlad"])
        assert list(entry) == ["sha256", "format", "kind", "library", "header"]
        assert set(stored.keys()) == set(ARRAYS)


@given(data=st.data())
@settings(without_fixture_check, max_examples=200)
def test_one_changed_byte_is_refused(model, data):
    whole = model.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    change = data.draw(st.integers(1, 255))
    damaged = model.with_name("damaged")
    damaged.write_bytes(
        whole[:position] + bytes([whole[position] ^ change]) + whole[position + 1 :]
    )
    with pytest.raises(ModelFileError, match="damaged"):
        read_model(damaged)


def test_truncation_at_any_length_and_more_bytes_are_refused(model):
    whole = model.read_bytes()
    cut = model.with_name("cut")
    cut.write_bytes(whole + b"\0")
    with pytest.raises(ModelFileError, match="is damaged"):
        read_model(cut)
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match="cut" if length else "empty"):
            read_model(cut)


def forged(path: Path, entry: str, tensors=None) -> None:
    """Write a file with a valid digest around any header entry."""
    blank = safetensors.numpy.save(tensors or {}, metadata={"hypervlad": entry})
    path.write_bytes(modelfile._with_digest(blank))


def entry_of(**changes) -> str:
    entry = {"sha256": "0" * 64, "format": 1, "kind": "test", "library": "0.1.0", "header": {}}
    return json.dumps(
        {k: v for k, v in (entry | changes).items() if v != "absent"}, separators=(",", ":")
    )


def test_a_newer_format_is_refused_with_the_way_out(tmp_path):
    forged(tmp_path / "m", entry_of(format=2, library="9.8.7"))
    with pytest.raises(
        ModelFileError, match=r"hypervlad 9\.8\.7 in format 2.*pip install --upgrade"
    ):
        read_model(tmp_path / "m")


def test_foreign_files_are_named_for_what_they_are(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "a.txt").write_text("a note", encoding="utf-8")
    safetensors.numpy.save_file({"w": np.eye(2)}, tmp_path / "a.safetensors")
    safetensors.numpy.save_file({"w": np.eye(2)}, tmp_path / "b.safetensors", {"format": "pt"})
    for name, what in {
        "a.zip": "zip archive",
        "a.png": "PNG image",
        "a.pkl": "pickle",
        "a.txt": "not a hypervlad model",
        "a.safetensors": "safetensors file but not a hypervlad model",
        "b.safetensors": "safetensors file but not a hypervlad model",
    }.items():
        with pytest.raises(ModelFileError, match=rf"{name}.*{what}"):
            read_model(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_missing_file_is_both_errors(tmp_path):
    with pytest.raises(ModelFileError, match=r"none\.hvlad: there is no such file") as caught:
        read_model(tmp_path / "none.hvlad")
    assert isinstance(caught.value, FileNotFoundError)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="is a folder"):
        read_model(tmp_path)
    with pytest.raises(ModelFileError, match="folder"):
        write_model(tmp_path, "test", {}, {})
    assert not list(tmp_path.iterdir())


def test_another_kind_than_expected_is_refused(model):
    assert read_model(model, kind="test").kind == "test"
    with pytest.raises(ModelFileError, match=r"model\.hvlad.*kind 'scorer'.*kind 'test'"):
        read_model(model, kind="scorer")


@pytest.mark.parametrize(
    ("header", "arrays", "message"),
    [
        ({"x": float("nan")}, {}, "JSON compliant"),
        ({"x": np.int64(3)}, {}, "not JSON serializable"),
        ({"x": [{"y": {1: 2}}]}, {}, "only strings survive JSON"),
        ({"x": ["\ud800"]}, {}, r"'\\ud800', which is no character"),
        ({"x": functools.reduce(lambda inner, _: [inner], range(40), [])}, {}, "more than 32 deep"),
        ({}, {"a": np.array([1 + 2j])}, "array 'a' of type complex128"),
        ({}, {"a": np.array([None])}, "array 'a' of type object"),
        ({}, {"__metadata__": np.eye(2)}, "other than '__metadata__'"),
        ({}, {3: np.eye(2)}, "array 3"),
    ],
)
def test_what_cannot_be_stored_is_refused_and_leaves_no_file(tmp_path, header, arrays, message):
    with pytest.raises(ModelFileError, match=message):
        write_model(tmp_path / "m.hvlad", "test", header, arrays)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("interruption", "expected"),
    [
        (KeyboardInterrupt(), pytest.raises(KeyboardInterrupt)),
        (PermissionError(13, "open elsewhere"), pytest.raises(ModelFileError, match="elsewhere")),
    ],
)
def test_an_interruption_leaves_the_old_file_and_nothing_else(
    model, monkeypatch, interruption, expected
):
    before = model.read_bytes()

    def interrupted(_source, _target):
        raise interruption

    monkeypatch.setattr(os, "replace", interrupted)
    with expected:
        write_model(model, "test", {"new": True}, {})
    assert model.read_bytes() == before
    assert [path.name for path in model.parent.iterdir()] == [model.name]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions and links")
def test_a_link_is_refused_and_the_usual_permissions_apply(tmp_path):
    link, target = tmp_path / "link.hvlad", tmp_path / "real.hvlad"
    target.touch()
    link.symlink_to(target)
    with pytest.raises(ModelFileError, match=r"link\.hvlad is a link to .*real\.hvlad"):
        write_model(link, "test", {}, {})
    assert link.is_symlink()
    assert target.stat().st_size == 0
    write_model(tmp_path / "m.hvlad", "test", {}, {})
    assert (tmp_path / "m.hvlad").stat().st_mode == target.stat().st_mode


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_a_pipe_is_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="not an ordinary file"):
        read_model(tmp_path / "pipe")


def test_an_unreadable_file_is_refused(model, monkeypatch):
    def refused(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refused)
    with pytest.raises(ModelFileError, match=r"could not be read \(Permission denied\)"):
        read_model(model)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (entry_of(header="absent"), ""),
        (entry_of(kind="absent"), ""),
        (entry_of(kind=["test"]), "is not a text"),
        (entry_of(format="absent"), ""),
        (entry_of(format="1"), "version is not a number"),
        (entry_of(header=None), ""),
        (entry_of()[:-1], ""),
        (entry_of().replace("{}", "[" * 100_000), ""),
        (entry_of().replace("{}", '{"a":1,"a":2}'), "occurs twice"),
    ],
    ids=lambda value: value[:20],
)
def test_forged_headers_are_refused(tmp_path, entry, message):
    forged(tmp_path / "m", entry)
    with pytest.raises(ModelFileError, match=f"not laid out as a hypervlad model.*{message}"):
        read_model(tmp_path / "m")


def test_a_header_that_is_too_long_is_not_parsed(tmp_path, monkeypatch):
    path = tmp_path / "m"
    forged(path, entry_of(header={"a": 1}))
    assert read_model(path).header == {"a": 1}
    monkeypatch.setattr(modelfile, "_MAX_HEADER", 100)
    with pytest.raises(ModelFileError, match="more than 100"):
        read_model(path)
