"""Files are complete or not there, links are never followed, and one process writes at a time."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hypervlad.apps.cli.messages import sentence_of
from hypervlad.common import files
from hypervlad.common.files import (
    LinkError,
    LockedError,
    exclusive_lock,
    move_to_new_name,
    new_folder,
    parse_json,
    refuse_link,
    refuse_links,
    replace_when_complete,
)

links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A file that nothing may write to."""
    path = tmp_path / "precious.txt"
    path.write_text("mine")
    return path


def test_an_interrupted_file_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replace_when_complete(path) as stream:  # noqa: PT012
        stream.write(b"half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@links
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_is_refused(dangling: bool, tmp_path: Path, precious: Path) -> None:
    link, target = tmp_path / "out.csv", tmp_path / "new.txt" if dangling else precious
    link.symlink_to(target)
    with (
        pytest.raises(LinkError, match=r"out\.csv is a link to .*(new|precious)\.txt"),
        replace_when_complete(link) as stream,
    ):
        stream.write(b"forged")
    assert precious.read_text() == "mine"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out.csv", "precious.txt"]


@links
def test_a_link_that_appears_while_the_file_is_written_is_not_followed(
    tmp_path: Path, precious: Path
) -> None:
    link = tmp_path / "out.csv"
    with pytest.raises(LinkError), replace_when_complete(link) as stream:  # noqa: PT012
        stream.write(b"forged")
        link.symlink_to(precious)
    assert precious.read_text() == "mine"


@links
def test_a_folder_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    with replace_when_complete(tmp_path / "link" / "out.csv") as stream:
        stream.write(b"whole")
    assert (tmp_path / "real" / "out.csv").read_bytes() == b"whole"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_devices_and_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (
        pytest.raises(OSError, match="not an ordinary file"),
        replace_when_complete(tmp_path / "pipe"),
    ):
        pass


def test_a_junction_is_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows follows junctions as links, but `os.path.islink` does not call them so."""
    (tmp_path / "parts").mkdir()
    original = os.lstat

    class Junction:
        st_mode, st_nlink, st_reparse_tag = original(tmp_path / "parts").st_mode, 1, 0xA0000003

    monkeypatch.setattr(
        os, "lstat", lambda path: Junction if Path(path).name == "parts" else original(path)
    )
    with pytest.raises(LinkError, match="parts is a link to"):
        refuse_link(tmp_path / "parts")
    refuse_link(tmp_path)


def test_a_second_name_is_refused_where_files_are_written_in_place(
    tmp_path: Path, precious: Path
) -> None:
    os.link(precious, tmp_path / "queue.sqlite-wal")
    with pytest.raises(LinkError, match=r"queue\.sqlite-wal has another name on this disk"):
        refuse_links(tmp_path / "queue.sqlite-wal")
    refuse_links(tmp_path)
    refuse_links(tmp_path / "missing")
    with replace_when_complete(tmp_path / "queue.sqlite-wal") as stream:
        stream.write(b"forged")
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_new_name_replaces_nothing(
    hard_links: bool, tmp_path: Path, precious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hard_links:

        def refused(*_: object) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "link", refused)
        # Nor a file that is made after one has looked.
        monkeypatch.setattr(os.path, "lexists", lambda path: False)
    draft = tmp_path / "draft"
    draft.write_text("new")
    with pytest.raises(FileExistsError):
        move_to_new_name(draft, precious)
    assert precious.read_text() == "mine"
    move_to_new_name(draft, tmp_path / "new")
    assert (tmp_path / "new").read_text() == "new"
    assert (tmp_path / "new").stat().st_nlink == 1
    assert not draft.exists()


def test_without_hard_links_an_interrupt_leaves_no_empty_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", refused)
    monkeypatch.setattr(os, "replace", interrupted)
    (tmp_path / "draft").write_text("new")
    with pytest.raises(KeyboardInterrupt):
        move_to_new_name(tmp_path / "draft", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["draft"]


# --- locks ----------------------------------------------------------------------------------------


def take_lock(folder: Path) -> None:
    with exclusive_lock(folder / "lock", "f.parquet"):
        pass


def test_a_second_lock_names_the_owner_of_the_first(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with exclusive_lock(lock, "f.parquet"):
        with pytest.raises(LockedError, match=rf"f\.parquet.*process {os.getpid()} on "):
            take_lock(tmp_path)
        assert lock.exists()
    assert not lock.exists()
    take_lock(tmp_path)


def test_a_file_left_by_a_killed_process_locks_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("process 1 on another machine\n" * 9)
    with exclusive_lock(tmp_path / "lock", "f.parquet"):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")
        assert len((tmp_path / "lock").read_text().splitlines()) == 1
    assert not (tmp_path / "lock").exists()


@links
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_lock_is_not_written_through_a_link(
    link: Callable[[Path, Path], None], tmp_path: Path, precious: Path
) -> None:
    link(precious, tmp_path / "lock")
    with pytest.raises(LinkError, match=r"lock (is a link to|has another name)"):
        take_lock(tmp_path)
    assert precious.read_text() == "mine"


def test_a_second_name_that_is_given_after_the_check_is_not_written(
    tmp_path: Path, precious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "refuse_links", lambda path: os.link(precious, path))
    with pytest.raises(LinkError, match="lock has another name on this disk"):
        take_lock(tmp_path)
    assert precious.read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_a_pipe_is_no_lock(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(OSError, match="lock is not an ordinary file"):
        take_lock(tmp_path)


@pytest.fixture
def of_another_user(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make files that exist readable only, or neither: the tests may run as root."""
    original = os.open

    def deny(*flags: int) -> None:
        def opened(path: str, wanted: int, mode: int = 0o777, **options: Any) -> int:
            if os.path.exists(path) and wanted & os.O_ACCMODE in flags:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return original(path, wanted, mode, **options)

        monkeypatch.setattr(os, "open", opened)

    return deny


@pytest.mark.skipif(os.name == "nt", reason="there the lock needs no mode")
def test_the_lock_of_another_user_names_its_owner(
    tmp_path: Path, of_another_user: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def no_lock_for_reading(*_: object) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    with exclusive_lock(tmp_path / "lock", "f.parquet"):
        of_another_user(os.O_RDWR)
        with pytest.raises(LockedError, match=rf"f\.parquet.*process {os.getpid()} on "):
            take_lock(tmp_path)
        with monkeypatch.context() as network_share:  # needs a file that may be written
            network_share.setattr(fcntl, "flock", no_lock_for_reading)
            with pytest.raises(LockedError, match=rf"f\.parquet.*process {os.getpid()} on "):
                take_lock(tmp_path)
        of_another_user(os.O_RDWR, os.O_RDONLY)
        with pytest.raises(PermissionError, match=r"another user \(number \d+\) writes the same"):
            take_lock(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="there the lock needs no mode")
@pytest.mark.parametrize("removable", [True, False])
def test_what_a_killed_run_of_another_user_left_locks_nothing(
    removable: bool,
    tmp_path: Path,
    of_another_user: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "lock").write_text("process 1 on another machine\n")
    of_another_user(os.O_RDWR)
    if not removable:
        monkeypatch.setattr(files, "_remove", lambda path: False)
    with exclusive_lock(tmp_path / "lock", "f.parquet"):
        held = f"process {os.getpid()} on " if removable else "process 1 on another machine"
        assert (tmp_path / "lock").read_text().startswith(held)
        with pytest.raises(LockedError, match=r"f\.parquet: another run writes it now"):
            take_lock(tmp_path)


FULL = [errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)]


@pytest.mark.parametrize("number", FULL)
def test_a_full_disk_names_the_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(_file: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(OSError, match=r"table\.csv") as caught,
        replace_when_complete(tmp_path / "table.csv") as stream,
    ):
        stream.write(b"path")
    assert caught.value.errno == number
    assert not list(tmp_path.iterdir())
    sentence = sentence_of(caught.value)
    assert sentence.startswith(f"{tmp_path / 'table.csv'}: ")
    assert "make room on this disk" in sentence
    assert "make room on this disk" in sentence_of(OSError(number, os.strerror(number)))


def test_an_error_that_says_more_than_a_full_disk_keeps_its_message(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=r"^part 1: damaged$"),
        replace_when_complete(tmp_path / "table.csv"),
    ):
        raise OSError("part 1: damaged")


def _fail_in(folder: Path, *names: str) -> None:
    with new_folder(folder):
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()
        (folder / "masks").mkdir()
        raise OSError("full")


@pytest.mark.parametrize(
    ("existing", "written", "left"),
    [
        ([], [], []),
        ([], ["maps/1.tif"], ["a", "a/b", "a/b/maps", "a/b/maps/1.tif"]),
        (["a"], [], ["a"]),
        (["a", "a/b"], [], ["a", "a/b", "a/b/masks"]),
    ],
)
def test_a_new_folder_is_not_left_behind_empty(
    tmp_path: Path, existing: list[str], written: list[str], left: list[str]
) -> None:
    for name in existing:
        (tmp_path / name).mkdir()
    with pytest.raises(OSError, match="full"):
        _fail_in(tmp_path / "a" / "b", *written)
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert found == left


# --- JSON -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "None is no text"),
        ('{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        ("1e400", "1e400 is not finite"),
        ("[NaN]", "NaN is not finite"),
        ('{"a": -Infinity}', "-Infinity is not finite"),
        ("1" * 30, "more than 64 bits"),
        (str(-(2**63) - 1), "more than 64 bits"),
        ("[" * 40 + "]" * 40, "nested more than 32 deep"),
        ("[" * 100_000, "nested too deeply|Expecting value"),
        ("{", "property name"),
        (b'{"a": "\xff"}', "invalid start byte"),
        (r'{"a": ["\ud800"]}', r"'\\ud800', which is no character"),
        (r'{"\udbff": 1}', r"'\\udbff', which is no character"),
        (r'["\ud83d", "\ude00"]', r"'\\ud83d', which is no character"),
        ("[" + "{}," * 2**20 + "{}]", "more than 1048576 values"),
    ],
)
def test_json_that_could_do_harm_is_refused(text: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_names_of_files_that_are_not_unicode_are_read() -> None:
    assert parse_json(r'{"\udcff.png": "\ud83d\ude00"}') == {"\udcff.png": "\U0001f600"}
