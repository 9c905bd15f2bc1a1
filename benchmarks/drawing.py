"""Drawing a QR code, ours against the library below it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from functools import partial

from qrcode.constants import ERROR_CORRECT_L
from qrcode.main import QRCode

from benchmarks.measuring import Extent, Figure, Measure, interleaved
from hermes_mcp_auth_remote.qr import png, terminal_blocks

SHORT = "https://as.example/device?user_code=ABCD"
LONG = "https://as.example/authorize?" + "&".join(f"parameter_{number:02}=value" for number in range(30))
LONG = (LONG + "&state=" + "s" * 600)[:600]


def figures(extent: Extent) -> list[Figure]:
    """Measure a short code in the terminal, a long one as a PNG, and finding out that one is too wide."""
    count = extent.of(5, 1)
    found: list[Figure] = []
    for what, text, draw in (
        ("QR of 40 characters, terminal", SHORT, lambda: terminal_blocks(SHORT, 80)),
        ("QR of 600 characters, PNG", LONG, lambda: png(LONG)),
        ("QR of 600 characters, too wide", LONG, lambda: terminal_blocks(LONG, 80)),
    ):
        measures = {
            "ours": _milliseconds(draw, count),
            "qrcode": _milliseconds(partial(_peer, text), count),
        }
        medians = interleaved(measures, extent)
        found.append(Figure(what, "ms", medians["ours"], "qrcode's print_ascii", medians["qrcode"]))
    return found


def _milliseconds(draw: Callable[[], object], count: int) -> Measure:
    def measure() -> float:
        begun = time.process_time()
        for _ in range(count):
            draw()
        return (time.process_time() - begun) / count * 1000

    return measure


def _peer(text: str) -> str:
    code = QRCode(error_correction=ERROR_CORRECT_L)
    code.add_data(text)
    out = io.StringIO()
    code.print_ascii(out)
    return out.getvalue()
