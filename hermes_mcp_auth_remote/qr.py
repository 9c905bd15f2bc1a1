"""Render text as a QR code (ISO/IEC 18004) in terminal blocks or as PNG.

Error correction is level L, which is enough on a screen. Rendering takes 3 to 35 ms: run it outside the event
loop.
"""

from __future__ import annotations

import struct
import zlib

from qrcode.constants import ERROR_CORRECT_L
from qrcode.exceptions import DataOverflowError
from qrcode.main import QRCode

# ISO/IEC 18004 section 6.3.8: "a region 4X wide" that stays light.
QUIET_MODULES = 4
# A wider code is hard to scan, even if the terminal is wider.
MAX_COLUMNS = 80
# Black and white from the fixed part of the 256 colours; themes change the first sixteen.
_BLACK_ON_WHITE, _RESET = "\x1b[38;5;16;48;5;231m", "\x1b[0m"
_BLOCKS = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


def render_terminal_blocks(text: str, columns: int, *, colour: bool = True) -> str | None:
    """Return a QR code in half blocks, two modules to a character; each line ends with a line feed.

    Returns None if the code is wider than `columns` or than 80: a wrapped code cannot be scanned. Without
    colour, light modules are drawn as blocks, which suits a dark background; most scanners read both.
    """
    matrix = _make_matrix(text, min(columns, MAX_COLUMNS))
    if matrix is None:
        return None
    if len(matrix) % 2:
        matrix.append([False] * len(matrix))
    if not colour:
        matrix = [[not dark for dark in row] for row in matrix]
    before, after = (_BLACK_ON_WHITE, _RESET) if colour else ("", "")
    lines = (
        "".join(_BLOCKS[pair] for pair in zip(above, below, strict=True))
        for above, below in zip(matrix[::2], matrix[1::2], strict=True)
    )
    return "".join(f"{before}{line}{after}\n" for line in lines)


def render_png(text: str, *, scale: int = 8) -> bytes | None:
    """Return a QR code as a black and white PNG, `scale` pixels to a module; None if the text is too long.

    The limit is 2953 bytes of text. Phones have difficulty with more than about 1000 bytes.
    """
    matrix = _make_matrix(text, None)
    if matrix is None:
        return None
    side = len(matrix) * scale
    lines = bytearray()
    for row in matrix:
        bits = "".join(("0" if dark else "1") * scale for dark in row)
        packed = int(bits.ljust(-(-side // 8) * 8, "0"), 2).to_bytes(-(-side // 8), "big")
        lines += (b"\0" + packed) * scale
    # PNG (ISO/IEC 15948) section 11.2.1: 1 bit of greyscale.
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(lines), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def _make_matrix(text: str, max_modules: int | None) -> list[list[bool]] | None:
    """Return rows of modules (True: dark) with the quiet zone, or None if wider than `max_modules`."""
    code = QRCode(error_correction=ERROR_CORRECT_L, border=QUIET_MODULES)
    code.add_data(text)
    try:
        version = code.best_fit(start=1)
    except (DataOverflowError, ValueError):
        # qrcode 7.4 reports an overflow as a ValueError about version 41.
        return None
    # Check the width before the modules are computed, which takes most of the time.
    if max_modules is not None and 17 + 4 * version + 2 * QUIET_MODULES > max_modules:
        return None
    code.make(fit=False)
    return [[bool(dark) for dark in row] for row in code.get_matrix()]
