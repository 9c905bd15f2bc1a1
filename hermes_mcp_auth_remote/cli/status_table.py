"""Format the statuses of several servers as a table that fits the terminal, without I/O."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_mcp_auth_remote.cli.connection_status import ConnectionStatus
from hermes_mcp_auth_remote.phrases import ACCOUNT_LABEL, LASTS_LABEL, SERVER_LABEL
from hermes_mcp_auth_remote.terminal.text import NEXT_LABEL, table, wrap_text

# In a narrower terminal, each server gets lines of its own instead of a row.
MIN_TABLE_COLUMNS = 60
_MIN_CELL_COLUMNS = 12
_GAP = "  "
_ROW_INDENT = "  "
TABLE_HEADER = (SERVER_LABEL, "State", ACCOUNT_LABEL, LASTS_LABEL, NEXT_LABEL)
_ACCOUNT_COLUMN = TABLE_HEADER.index(ACCOUNT_LABEL)


def format_statuses(statuses: Sequence[ConnectionStatus], columns: int) -> str:
    """Format statuses for people. `columns` is the terminal's width, 0 without a terminal.

    A terminal that is wide enough gets a table: one row per server, with what needs attention below it.
    A narrow terminal, and output that is not a terminal, get all facts of each server, a line per fact.
    """
    rows = [status.cells for status in statuses] if columns >= MIN_TABLE_COLUMNS else []
    widths = _column_widths([TABLE_HEADER, *rows], columns) if rows else None
    if widths is None:
        return "\n".join(status.to_text(columns) for status in statuses)
    lines = _format_row(" ", TABLE_HEADER, widths)
    for status, row in zip(statuses, rows, strict=True):
        lines += _format_row(status.mark, row, widths)
        if attention_rows := status.attention_rows:
            attention = table(attention_rows, columns - len(_ROW_INDENT))
            lines += [f"{_ROW_INDENT}{line}" for line in attention.splitlines()]
    return "\n".join([*lines, "", wrap_text("All facts of one server: hermes-mcp-auth status NAME", columns)])


def _column_widths(rows: Sequence[tuple[str, ...]], columns: int) -> list[int] | None:
    """Return the width of each column, 0 for one that is left out; None if no table fits."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    if all(not row[_ACCOUNT_COLUMN] for row in rows[1:]) or _total_width(widths) > columns:
        # `status NAME` shows the account too.
        widths[_ACCOUNT_COLUMN] = 0
    while (excess := _total_width(widths) - columns) > 0:
        widest = max(range(len(widths)), key=lambda index: widths[index])
        second = max((width for index, width in enumerate(widths) if index != widest), default=0)
        narrowed = max(widths[widest] - excess, min(second, widths[widest] - 1), _MIN_CELL_COLUMNS)
        if narrowed >= widths[widest]:
            return None
        widths[widest] = narrowed
    return widths


def _total_width(widths: Sequence[int]) -> int:
    shown = [width for width in widths if width]
    return len(_ROW_INDENT) + sum(shown) + len(_GAP) * (len(shown) - 1)


def _format_row(mark: str, cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return the lines of a row: each cell is wrapped within its column."""
    columns = [
        [line.ljust(width) for line in _wrap_cell(cell, width)]
        for cell, width in zip(cells, widths, strict=True)
        if width
    ]
    shown_widths = [width for width in widths if width]
    height = max(len(column) for column in columns)
    lines: list[str] = []
    for number in range(height):
        parts = [
            column[number] if number < len(column) else " " * width
            for column, width in zip(columns, shown_widths, strict=True)
        ]
        lines.append(f"{mark if number == 0 else ' '} {_GAP.join(parts)}".rstrip())
    return lines


def _wrap_cell(text: str, width: int) -> list[str]:
    """Wrap a cell. Break a word that is longer than the column: a row must not exceed the terminal."""
    lines: list[str] = []
    for line in _wrap_words(text, width):
        lines += [line[start : start + width] for start in range(0, max(len(line), 1), width)]
    return lines


def _wrap_words(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        with_word = f"{lines[-1]} {word}" if lines[-1] else word
        if len(with_word) <= width or not lines[-1]:
            lines[-1] = with_word
        else:
            lines.append(word)
    return lines
