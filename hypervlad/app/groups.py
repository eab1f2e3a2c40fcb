"""``Groups``: what images are compared by, such as their sample, as people name it on the page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hypervlad.app.database import Database, QueueError
from hypervlad.app.scales import write_own
from hypervlad.app.store import checked_name
from hypervlad.common.files import parse_json
from hypervlad.common.tables import table_as_bytes
from hypervlad.common.wording import counted

#: The table of groups, which commands read.
GROUPS = "groups.csv"
_NONE = "none"  # the group of images without a name, as the table has a line for each


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
        self._database = database
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

    def take(self, table: Path, files: Sequence[Path], names: Sequence[str], root: Path) -> str:
        """Take the groups of all images from a table with the columns path and group."""
        from hypervlad.folders.groups import load_groups  # not above: importing it takes long

        try:
            groups = load_groups(files, root, table).tolist()
        except ValueError as error:
            raise QueueError(str(error)) from error
        self._put(
            {name: checked_name(own, "group") for name, own in zip(names, groups, strict=True)}
        )
        return f"{counted(len(names), 'image')}: {counted(len({*groups}), 'group')} of {table.name}"

    def _put(self, groups: Mapping[str, str]) -> None:
        self._named = {name: own for name, own in {**self._named, **groups}.items() if own}
        self._database.set_facts(**{"groups of images": json.dumps(self._named)})

    def table(self, names: Iterable[str]) -> str:
        """Write the table of images, and return its path; "" if none of them has a group."""
        rows = [[name, self.of(name)] for name in names]
        path = self._database.folder / GROUPS
        content = table_as_bytes(["path", "group"], rows) if self._named.keys() & {*names} else b""
        write_own(self._database, path, content)
        return str(path) if content else ""
