"""Format figures as a Markdown table or as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict

from benchmarks.measurement import Figure

_COLUMN_TITLES = (
    "figure",
    "unit",
    "ours",
    "measured against",
    "ratio",
    "goal",
    "",
    "peers (over the same base)",
)


def format_markdown(figures: Sequence[Figure], elapsed_seconds: float) -> str:
    """Return a Markdown table with aligned columns, and a line about the machine."""
    rows = [_COLUMN_TITLES, *map(_format_row, figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMN_TITLES))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in _cells_with_widths(row, widths)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([*lines, "", f"{_describe_machine()}, {elapsed_seconds:.0f} s."])


def format_json(figures: Sequence[Figure], elapsed_seconds: float) -> str:
    """Return the figures and the machine as JSON."""
    rows = [{**asdict(figure), "ratio": figure.ratio, "verdict": figure.verdict} for figure in figures]
    return json.dumps({"machine": _describe_machine(), "seconds": elapsed_seconds, "figures": rows}, indent=2)


def _cells_with_widths(row: Sequence[str], widths: Sequence[int]) -> zip[tuple[str, int]]:
    return zip(row, widths, strict=True)


def _format_row(figure: Figure) -> tuple[str, ...]:
    peers = ", ".join(
        f"{name} {value:.4g}{_format_ratio(figure, value)}" for name, value in figure.peers.items()
    )
    return (
        figure.what,
        figure.unit,
        f"{figure.ours:.4g}",
        f"{figure.base_name}: {figure.base:.4g}",
        "" if figure.ratio is None else f"{figure.ratio:.2f} ×",
        "" if figure.goal is None else f"≤ {figure.goal:.4g} ×",
        figure.verdict,
        peers,
    )


def _format_ratio(figure: Figure, value: float) -> str:
    ratio = figure.ratio_of(value)
    return "" if ratio is None else f" ({ratio:.2f} ×)"


def _describe_machine() -> str:
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{platform.system()}, Python {platform.python_version()}, {os.cpu_count()} cores{load}"
