"""Scan QR codes as a phone does, from a picture or from a terminal's block characters."""

from __future__ import annotations

import io

import zxingcpp
from PIL import Image

_INK = {" ": (False, False), "▀": (True, False), "▄": (False, True), "█": (True, True)}
_PIXELS_PER_MODULE = 4
_QR_CODES = zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode)


def scan_qr_codes(image: Image.Image, *, inverted: bool = False) -> list[str]:
    """Return the text of each QR code in ``image``; ``inverted`` also reads light codes on a dark ground.

    Only QR codes: in the modules of a QR code the reader sometimes sees a bar code of another kind.
    """
    barcodes = zxingcpp.read_barcodes(image, formats=_QR_CODES, try_invert=inverted)
    return [barcode.text for barcode in barcodes]


def scan_qr_code(picture: bytes) -> str:
    """Return the text of the only QR code in ``picture``, a PNG file."""
    with Image.open(io.BytesIO(picture)) as image:
        [text] = scan_qr_codes(image.convert("L"))
    return text


def find_block_rows(text: str) -> list[str]:
    """Return the lines of a terminal's ``text`` that consist of block characters."""
    return [line for line in text.splitlines() if line and set(line) <= set(_INK)]


def blocks_to_image(rows: list[str], *, ink: int, paper: int) -> Image.Image:
    """Turn block characters back into pixels, as a terminal with these grey values (0 to 255) shows them."""
    image = Image.new("L", (len(rows[0]), 2 * len(rows)), paper)
    for y, row in enumerate(rows):
        for x, character in enumerate(row):
            for half, inked in enumerate(_INK[character]):
                image.putpixel((x, 2 * y + half), ink if inked else paper)
    size = (image.width * _PIXELS_PER_MODULE, image.height * _PIXELS_PER_MODULE)
    return image.resize(size, Image.Resampling.NEAREST)
