"""Draw QR codes with our renderer and with the library that it uses."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from functools import partial

from qrcode.constants import ERROR_CORRECT_L
from qrcode.main import QRCode

from benchmarks.measurement import Figure, Measure, Scale, measure_interleaved
from hermes_mcp_auth_remote.qr import render_png, render_terminal_blocks

SHORT_URL = "https://as.example/device?user_code=ABCD"
LONG_URL = "https://as.example/authorize?" + "&".join(f"parameter_{number:02}=value" for number in range(30))
LONG_URL = (LONG_URL + "&state=" + "s" * 600)[:600]


def measure_figures(scale: Scale) -> list[Figure]:
    """Measure a short code in the terminal, a long code as a PNG, and a code too wide for the terminal."""
    count = scale.choose_size(5, 1)
    figures: list[Figure] = []
    for what, text, draw in (
        ("QR of 40 characters, terminal", SHORT_URL, lambda: render_terminal_blocks(SHORT_URL, 80)),
        ("QR of 600 characters, PNG", LONG_URL, lambda: render_png(LONG_URL)),
        ("QR of 600 characters, too wide", LONG_URL, lambda: render_terminal_blocks(LONG_URL, 80)),
    ):
        measures = {
            "ours": _cpu_milliseconds_measure(draw, count),
            "qrcode": _cpu_milliseconds_measure(partial(_draw_with_qrcode, text), count),
        }
        medians = measure_interleaved(measures, scale)
        figures.append(Figure(what, "ms", medians["ours"], "qrcode's print_ascii", medians["qrcode"]))
    return figures


def _cpu_milliseconds_measure(draw: Callable[[], object], count: int) -> Measure:
    def measure() -> float:
        started_at = time.process_time()
        for _ in range(count):
            draw()
        return (time.process_time() - started_at) / count * 1000

    return measure


def _draw_with_qrcode(text: str) -> str:
    code = QRCode(error_correction=ERROR_CORRECT_L)
    code.add_data(text)
    out = io.StringIO()
    code.print_ascii(out)
    return out.getvalue()
