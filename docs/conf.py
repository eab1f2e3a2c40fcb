"""The documentation site, built by ``make docs`` without network: warnings are errors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx

import hypervlad

DOCS = Path(__file__).parent
BENCHMARKS = DOCS.parent / "benchmarks"
INVENTORIES = DOCS / "_build" / "inventories"

project = "hypervlad"
author = "The hypervlad developers"
copyright = author
version = release = hypervlad.__version__

extensions = [
    "matplotlib.sphinxext.plot_directive",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates", "inventories", "tutorials", "**/GALLERY_HEADER.*"]
templates_path = ["_templates"]
nitpicky = True
# A parameter may be named as a file is, which is found only where that file was imported before.
nitpick_ignore = [("py:obj", path.stem) for path in (DOCS.parent / "hypervlad").rglob("*.py")]
smartquotes = False  # it would turn the hyphens of options into dashes
default_role = "autolink"  # `fit` in a docstring: a link if there is such a name, else italics
suppress_warnings = ["config.cache"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # the sections of docstrings say it better
autosummary_generate = True
numpydoc_class_members_toctree = False
numpydoc_show_class_members = False  # the template lists them
copybutton_exclude = ".linenos, .gp, .go"

plot_formats = [("png", 120)]
plot_html_show_formats = plot_html_show_source_link = False

sphinx_gallery_conf: dict[str, Any] = {
    "examples_dirs": ["../examples", "tutorials"],
    "gallery_dirs": ["gallery", "learn"],
    "subsection_order": [
        f"../examples/{topic}"
        for topic in ("classification", "doubt", "particles", "defects", "fibres", "images")
    ],
    "within_subsection_order": "FileNameSortKey",
    "filename_pattern": r"\.py$",
    "backreferences_dir": "reference/generated/examples",
    "doc_module": ("hypervlad",),
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,  # a page that loads scripts of another host
    "thumbnail_size": (280, 196),
}


def compiled_inventories() -> dict[str, tuple[str, str]]:
    """Compile the lists of other projects' names that pages link to, as Sphinx reads them.

    The first line of a list is the address of the project's pages; each other line has a name, its
    role, and its page.
    """
    INVENTORIES.mkdir(parents=True, exist_ok=True)
    found = {}
    for path in sorted((DOCS / "inventories").glob("*.txt")):
        address, *lines = path.read_text(encoding="utf-8").splitlines()
        entries = (line.split() for line in lines)
        text = "".join(f"{name} {role} 1 {page} -\n" for name, role, page in entries)
        head = f"# Sphinx inventory version 2\n# Project: {path.stem}\n# Version: \n"
        head += "# The remainder of this file is compressed using zlib.\n"
        target = INVENTORIES / f"{path.stem}.inv"
        target.write_bytes(head.encode() + zlib.compress(text.encode()))
        found[path.stem] = (address, str(target))
    return found


intersphinx_mapping = compiled_inventories()

toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = "hypervlad"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["hypervlad.css"]
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
    "header_links_before_dropdown": 7,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_math_renderer = "mathml"  # shown by browsers without any script


def _visit_math(self: Any, node: nodes.math | nodes.math_block) -> None:
    as_block = isinstance(node, nodes.math_block)
    formula = latex2mathml.tex2mathml(node.astext(), as_block=as_block)
    self.body.append(f'<div class="formula">{formula}</div>' if as_block else formula)
    raise nodes.SkipNode


def _write(page: str, text: str) -> None:
    """Write a page that is made by each build; Sphinx reads it again only if it differs."""
    target = DOCS / page
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        target.write_text(text, encoding="utf-8")


def _write_commands(app: Sphinx) -> None:
    """Write the reference of the command line from the commands themselves."""
    command = [sys.executable, "-m", "typer", "hypervlad.cli", "utils", "docs"]
    done = subprocess.run(
        [*command, "--name", "hypervlad"],
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | {"PYTHONUTF8": "1"},
    )
    text = done.stdout.replace("# `hypervlad`", "# Command line", 1)
    text = text.replace("```console\n$ ", "```text\n")
    text = text.replace("\b\n", "")
    # Examples and columns of tables keep their lines.
    text = re.sub(r"^(.*:)\n((?:  .+\n)+)", r"\1\n\n```text\n\2```\n", text, flags=re.MULTILINE)
    # In running text, *.tif must not become emphasis.
    parts = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    single = re.compile(r"(?<!^)(?<!\*)\*(?!\*)", re.MULTILINE)
    parts[::2] = [single.sub(r"\\*", part) for part in parts[::2]]
    _write("reference/commands.md", "".join(parts))


def _copy_benchmarks(app: Sphinx) -> None:
    """Copy the pages of the benchmarks into the site, with their links as they are there."""
    topics = sorted(page.parent for page in BENCHMARKS.glob("*/README.md"))
    kept = {"index", "scaling", *(folder.name for folder in topics)}
    for page in (DOCS / "benchmarks").glob("*.md"):
        if page.stem not in kept:  # of a topic that is no more
            page.unlink()
    for folder in [BENCHMARKS, *topics]:
        text = (folder / "README.md").read_text(encoding="utf-8")
        text = re.sub(r"\]\((?:\.\./)*(?:benchmarks/)?(\w+)/README\.md", r"](\1.md", text)
        text = re.sub(r"\]\((?:\.\./)+docs/", "](../", text).replace("](../benchmarks/", "](")
        text = text.replace("](../README.md", "](index.md")
        name = "index" if folder == BENCHMARKS else folder.name
        if name == "index":
            names = [each.name for each in topics] + ["scaling"]
            text += "\n```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```\n"
        # Every page loads the index of the search: that of benchmarks has their titles only.
        _write(f"benchmarks/{name}.md", f"---\nnosearch: true\n---\n\n{text}")


def _by_last_name(app: Sphinx, env: Any, node: Any, content: nodes.Element) -> Any:
    """Resolve a name without its module that is documented in another one than the docstring."""
    if node.get("refdomain") != "py" or "." in node["reftarget"]:
        return None
    domain = env.domains.python_domain
    found = [
        name
        for name, entry in domain.objects.items()
        if name.rpartition(".")[2] == node["reftarget"] and not entry.aliased
    ]
    if len(found) != 1:
        return None
    (name,) = found
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], name, node, content
    )


def _is_left_out(app: Sphinx, what: str, name: str, member: Any, *arguments: Any) -> bool | None:
    """Leave out what scikit-learn documents, what estimators ask of each other, fields' aliases."""
    module, text = (str(getattr(member, key, "")) for key in ("__module__", "__doc__"))
    if module.startswith("sklearn.") or re.fullmatch(r"set_\w+_request|\w+_checked", name):
        return True
    return True if text.startswith("Alias for field number") else None


def setup(app: Sphinx) -> None:
    """Register what the site needs beyond its extensions."""
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math, None))
    app.connect("builder-inited", _write_commands)
    app.connect("builder-inited", _copy_benchmarks)
    app.connect("missing-reference", _by_last_name)
    app.connect("autodoc-skip-member", _is_left_out)
