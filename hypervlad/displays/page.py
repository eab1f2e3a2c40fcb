"""Pieces of a web page: escaped text, tables, figures, and a style sheet in light and dark."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from string import Template
from typing import Any

_OPENING = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">$policy
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="hypervlad $version">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<h1>$title</h1>
""")

_CLOSING = Template("""
</main>
<footer>Made by hypervlad $version.</footer>
</body>
</html>
""")

_STYLE = """\
:root { color-scheme: light dark; --text: #1f2328; --soft: #59636e; --ground: #ffffff;
  --card: #f6f8fa; --line: #d1d9e0; --accent: #1f5a8c; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --soft: #9198a1; --ground: #0d1117; --card: #161b22;
    --line: #3d444d; --accent: #79b8ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 1rem; }
footer { max-width: 62rem; margin: 0 auto; padding: 0 1.25rem 2rem; color: var(--soft);
  font-size: .85rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .4rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
p { max-width: 46rem; margin: .5rem 0; }
.lead { font-size: 1.15rem; }
.soft { color: var(--soft); }
.cards { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.2rem 0; padding: 0;
  list-style: none; }
.cards li { flex: 1 1 9rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; padding: .7rem .9rem; }
.cards strong { display: block; font-size: 1.45rem; line-height: 1.3; color: var(--accent); }
.cards span { color: var(--soft); font-size: .85rem; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #ffffff;
  border: 1px solid var(--line); border-radius: .5rem; padding: .5rem; }
figcaption { color: var(--soft); font-size: .88rem; max-width: 46rem; margin-top: .4rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: break-word; max-width: 40rem; }
th { font-weight: 600; }
thead th { color: var(--soft); font-size: .85rem; }
td.number, th.number { text-align: right; white-space: nowrap; }
a { color: var(--accent); }
ul { padding-left: 1.3rem; }
@media print { body { font-size: 11pt; } figure { break-inside: avoid; } }"""


def text(value: Any) -> str:
    """Escape anything for HTML, in text or in an attribute.

    Examples
    --------
    >>> text('<b> & "c"')
    '&lt;b&gt; &amp; &quot;c&quot;'
    """
    return html.escape(printable(value))


def printable(value: Any) -> str:
    """Replace, in the text of anything, what no page can show.

    Examples
    --------
    >>> printable(f"a{chr(0)}b")
    'a�b'
    """
    plain = str(value).encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() or c == " " else "�" for c in plain)


def page(title: str, sections: Iterable[str], version: str) -> str:
    """A whole HTML 5 page; `sections` are pieces of HTML."""
    return "".join([opening(title, version), "\n".join(sections), closing(version)])


def opening(title: str, version: str, *, style: str = "", script: str | None = None) -> str:
    """Return the beginning of a page, up to its heading, for one written piece by piece.

    Parameters
    ----------
    title, version : str
    style : str
        What to add to the style sheet.
    script : str, optional
        The only script that the page may run. Such a page loads nothing from anywhere: its policy
        allows this script, its own style sheet and images that are part of it.
    """
    sheet = f"\n{_STYLE}\n{style}"
    return _OPENING.substitute(
        title=text(title),
        style=sheet,
        version=text(version),
        policy="" if script is None else _policy(sheet, script),
    )


def closing(version: str) -> str:
    """Return the end of a page that began with `opening`."""
    return _CLOSING.substitute(version=text(version))


def _policy(style: str, script: str) -> str:
    rules = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return f'\n<meta http-equiv="Content-Security-Policy" content="{rules}">'


def _digest(piece: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(piece.encode('utf-8')).digest()).decode()}"


def section(heading: str, *pieces: str) -> str:
    """A heading and what belongs to it."""
    return "\n".join(["<section>", f"<h2>{text(heading)}</h2>", *pieces, "</section>"])


def paragraph(sentence: str, css_class: str = "") -> str:
    """A paragraph of escaped text."""
    marked = f' class="{text(css_class)}"' if css_class else ""
    return f"<p{marked}>{text(sentence)}</p>"


def cards(facts: Mapping[str, str]) -> str:
    """Large numbers (the values), each with a word on what it is (the keys)."""
    items = (
        f"<li><strong>{text(value)}</strong><span>{text(name)}</span></li>"
        for name, value in facts.items()
    )
    return "\n".join(['<ul class="cards">', *items, "</ul>"])


def figure(source: str, alt: str, caption: str, width: int, height: int) -> str:
    """An image of the report's own folder; `width` and `height` in CSS pixels."""
    return (
        f'<figure><img src="{text(source)}" alt="{text(alt)}" width="{width}" height="{height}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table whose first column names the row and whose other columns are numbers."""
    first, *others = header
    head = f'<th scope="col">{text(first)}</th>' + "".join(
        f'<th scope="col" class="number">{text(name)}</th>' for name in others
    )
    body = (
        f'<tr><th scope="row">{text(name)}</th>'
        + "".join(f'<td class="number">{text(value)}</td>' for value in values)
        + "</tr>"
        for name, *values in rows
    )
    lines = [
        '<div class="scroll"><table>',
        f"<thead><tr>{head}</tr></thead>",
        "<tbody>",
        *body,
        "</tbody>",
        "</table></div>",
    ]
    return "\n".join(lines)


def facts_table(facts: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> str:
    """A table of names and what they are."""
    pairs = facts.items() if isinstance(facts, Mapping) else facts
    rows = (
        f'<tr><th scope="row">{text(name)}</th><td>{text(value)}</td></tr>' for name, value in pairs
    )
    lines = ['<div class="scroll"><table>', "<tbody>", *rows, "</tbody>", "</table></div>"]
    return "\n".join(lines)


def links(files: Mapping[str, str]) -> str:
    """A list of files in the report's folder, each with what it is."""
    items = (
        f'<li><a href="{text(name)}">{text(name)}</a>: {text(what)}</li>'
        for name, what in files.items()
    )
    return "\n".join(["<ul>", *items, "</ul>"])
