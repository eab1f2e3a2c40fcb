"""Table of the variants of the image vectors, made from what `tried.py` stored."""

from __future__ import annotations

from typing import Any


def tried_table(facts: dict[str, Any]) -> str:
    """Return accuracy and log-loss, variants x data sets and their mean, beside the default's."""
    columns: dict[str, dict[str, Any]] = {}
    for row in facts["rows"]:
        columns.setdefault(row["data"], {})[row["variant"]] = row
    columns["mean"] = {row["variant"]: row for row in facts["means"]}
    lines = [
        f"**{facts['backbone']}** ({facts['repeats']} x grouped folds, first seed {facts['seed']})",
        "",
        f"| variant | {' | '.join(columns)} |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for variant in columns["mean"]:
        cells = [_cell(rows[variant], variant == facts["default"]) for rows in columns.values()]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: dict[str, Any], is_default: bool) -> str:
    texts = []
    # Gains are better when above zero: a loss that falls has its sign turned back.
    for kind, sign in (("accuracy", 1), ("log_loss", -1)):
        against = row[f"{kind}_against"]["default"]
        gain, error = sign * against["gain"], against["error"]
        beside = "" if is_default else f" ({gain:+.3f} ± {error:.3f})"
        texts.append(f"{row[kind]:.3f}{beside}")
    return "; ".join(texts)
