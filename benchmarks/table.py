"""Figures as a markdown table for people, or as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict

from benchmarks.measuring import Figure

_HEAD = ("figure", "unit", "ours", "measured against", "ratio", "goal", "", "peers (over the same base)")


def markdown(figures: Sequence[Figure], seconds: float) -> str:
    """Draw the table, its columns aligned for reading in a terminal."""
    rows = [_HEAD, *map(_row, figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in _cells(row, widths)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([*lines, "", f"{_machine()}, {seconds:.0f} s."])


def as_json(figures: Sequence[Figure], seconds: float) -> str:
    """Write the figures as JSON."""
    rows = [{**asdict(each), "ratio": each.ratio, "verdict": each.verdict} for each in figures]
    return json.dumps({"machine": _machine(), "seconds": seconds, "figures": rows}, indent=2)


def _cells(row: Sequence[str], widths: Sequence[int]) -> zip[tuple[str, int]]:
    return zip(row, widths, strict=True)


def _row(figure: Figure) -> tuple[str, ...]:
    peers = ", ".join(f"{name} {value:.4g}{_times(figure, value)}" for name, value in figure.peers.items())
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


def _times(figure: Figure, value: float) -> str:
    times = figure.times(value)
    return "" if times is None else f" ({times:.2f} ×)"


def _machine() -> str:
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{platform.system()}, Python {platform.python_version()}, {os.cpu_count()} cores{load}"
