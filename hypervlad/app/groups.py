"""``Groups``: what images are compared by, such as their sample, as people name it on the page."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hypervlad.app.database import Database, QueueError
from hypervlad.app.scales import write_own
from hypervlad.app.store import checked_name
from hypervlad.common.files import parse_json
from hypervlad.common.tables import table_as_bytes, write_table
from hypervlad.common.wording import counted
from hypervlad.images.reading import relative_names

#: The table of groups, which commands read.
GROUPS = "groups.csv"
_NONE = "none"  # the group of images without a name, as the table has a line for each


def folder_of(name: str) -> str:
    """Return the folder of an image, by which groups may be named."""
    return name.rpartition("/")[0] or "no folder"


class Groups:
    """The groups of the images of a folder, kept in the database, and in a table for commands.

    Parameters
    ----------
    database : Database
        In the folder of the results.
    usual : mapping from name to group
        Groups that were given, in a shell, before a person has named any here.
    """

    def __init__(self, database: Database, usual: Mapping[str, str]) -> None:
        self._database, self._lock = database, threading.Lock()
        known = database.fact("groups of images")
        self._named: dict[str, str] = dict(usual) if known is None else parse_json(known)

    def named(self) -> dict[str, str]:
        """Return the groups of the images that have one, by their names."""
        return dict(self._named)

    def of(self, name: str) -> str | None:
        """Return the group of an image as the table has it; None if no image has any."""
        return self._named.get(name, _NONE) if self._named else None

    def give(self, names: Iterable[str], group: str) -> str:
        """Name the group of images, "" for none; return a message."""
        names, group = list(names), checked_name(group, "group") if group.strip() else ""
        self._put(dict.fromkeys(names, group))
        return f"{counted(len(names), 'image')}: {f'group {group}' if group else 'no group'}"

    def give_folders(self, names: Sequence[str]) -> str:
        """Name the groups of images by their folders; return a message."""
        groups = {name: checked_name(folder_of(name), "group") for name in names}
        self._put(groups)
        n = len({*groups.values()})
        return f"{counted(len(names), 'image')}: {counted(n, 'group')} by folders"

    def note(self, names: Sequence[str]) -> list[str]:
        """Return that images of several folders are counted together, if no image has a group."""
        folders = {folder_of(name) for name in names}
        if len(folders) == 1 or self._named.keys() & {*names}:
            return []
        of = f"images of {len(folders)} sub-folders are counted together"
        return [f"note: {of}: “Use the {len(folders)} sub-folders”, below Group, compares them"]

    def take(self, table: Path, files: Sequence[Path], names: Sequence[str], root: Path) -> str:
        """Take the groups of all images from a table with the columns path and group."""
        from hypervlad.folders.groups import load_groups  # not above: importing it takes long

        try:
            groups = load_groups(files, root, table).tolist()
        except ValueError as error:
            raise QueueError(str(error)) from error
        own = [checked_name(group, "group") for group in groups]
        if (n := len({*own})) < len({*groups}):
            raise QueueError(f"{table.name}: groups have names that differ by spaces alone")
        self._put(dict(zip(names, own, strict=True)))
        return f"{counted(len(names), 'image')}: {counted(n, 'group')} of {table.name}"

    def _put(self, groups: Mapping[str, str]) -> None:
        with self._lock:
            self._named = {name: own for name, own in {**self._named, **groups}.items() if own}
            self._database.set_facts(**{"groups of images": json.dumps(self._named)})

    def of_training(
        self, folder: Path, source: str | Path, root: Path, also: Iterable[str] = ()
    ) -> list[str | Path]:
        """Return the option with the groups of labelled images, and of others in `root` by name.

        Their table is written into `folder`: an image without a group is its own. There is none if
        no image has a group, or the `source` is a table with groups.
        """
        from hypervlad.folders.folder import scan_images  # not above: importing it takes long

        try:
            found = scan_images(source)
        except (ValueError, OSError):  # the command says why
            return []
        images = dict(zip(relative_names(found.files, root), found.files, strict=True))
        images |= {name: root / name for name in also}
        if found.groups is not None or not self._named.keys() & images.keys():
            return []
        rows = ([str(path), self._named.get(name, name)] for name, path in images.items())
        write_table(folder / GROUPS, ["path", "group"], rows)
        return ["--groups", folder / GROUPS]

    def table(self, names: Iterable[str]) -> tuple[str, str]:
        """Write the table of images; return its path, and the new name of one by others.

        Each is "" if there is none, as where no image has a group.
        """
        path, names = self._database.folder / GROUPS, list(names)
        with self._lock:
            rows = [[name, self.of(name)] for name in names]
            has_any = bool(self._named.keys() & {*names})
            content = table_as_bytes(["path", "group"], rows) if has_any else b""
            other = write_own(self._database, path, content)
        return str(path) if content else "", other
