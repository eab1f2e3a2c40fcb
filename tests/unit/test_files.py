"""Files are complete or not there, links are never followed, and one process writes at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hypervlad.files import (
    LinkError,
    LockedError,
    exclusive_lock,
    file_digest,
    move_into_place,
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


@links
def test_moving_into_place_refuses_a_link(tmp_path: Path, precious: Path) -> None:
    (tmp_path / "draft").write_text("forged")
    (tmp_path / "page.html").symlink_to(precious)
    with pytest.raises(LinkError):
        move_into_place(tmp_path / "draft", tmp_path / "page.html")
    assert precious.read_text() == "mine"


def test_a_digest_is_that_of_the_bytes(precious: Path) -> None:
    import hashlib

    assert file_digest(precious) == hashlib.sha256(b"mine").hexdigest()


# --- locks ----------------------------------------------------------------------------------------


def test_a_second_lock_names_the_owner_of_the_first(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with exclusive_lock(lock, "f.parquet"):
        with (
            pytest.raises(LockedError, match=rf"f\.parquet.*process {os.getpid()} on "),
            exclusive_lock(lock, "f.parquet"),
        ):
            pass
        assert lock.exists()
    assert not lock.exists()
    with exclusive_lock(lock, "f.parquet"):
        pass


def test_a_file_left_by_a_killed_process_locks_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("process 1 on another machine\n" * 9)
    with exclusive_lock(tmp_path / "lock", "f.parquet"):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")
        assert len((tmp_path / "lock").read_text().splitlines()) == 1
    assert not (tmp_path / "lock").exists()


@links
def test_a_lock_is_not_written_through_a_link(tmp_path: Path, precious: Path) -> None:
    (tmp_path / "lock").symlink_to(precious)
    with pytest.raises(LinkError), exclusive_lock(tmp_path / "lock", "f.parquet"):
        pass
    assert precious.read_text() == "mine"
