"""Rendered QR codes scan."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image

from hermes_mcp_auth_remote.qr import render_png, render_terminal_blocks
from tests.qr_codes import blocks_to_image, scan_qr_codes

SHORT = "https://login.example/device?user_code=WDJB-MJHT"
LONG = "https://login.example/authorize?" + "&".join(f"p{n}=v%C3%A4lue-{n}" for n in range(120))

_COLOURED = re.compile("\x1b\\[38;5;16;48;5;231m([ ▀▄█]+)\x1b\\[0m\n")


def test_blocks_scan_with_fixed_colours_in_every_theme() -> None:
    blocks = render_terminal_blocks(SHORT, 80)
    assert blocks is not None
    lines = _COLOURED.findall(blocks)
    assert "".join(f"\x1b[38;5;16;48;5;231m{line}\x1b[0m\n" for line in lines) == blocks
    assert scan_qr_codes(blocks_to_image(lines, ink=0, paper=255)) == [SHORT]


def test_blocks_without_colour_scan_on_dark_and_light_terminals() -> None:
    blocks = render_terminal_blocks(SHORT, 80, colour=False)
    assert blocks is not None
    assert "\x1b" not in blocks
    assert scan_qr_codes(blocks_to_image(blocks.splitlines(), ink=255, paper=0)) == [SHORT]
    assert scan_qr_codes(blocks_to_image(blocks.splitlines(), ink=0, paper=255), inverted=True) == [SHORT]


def test_the_modules_of_a_qr_code_are_not_scanned_as_a_bar_code() -> None:
    # In the modules for this text, zxing-cpp 3.1.1 also reads the bar code "3162".
    challenge = "0f47caa1afdc7b7c8f1b627e85db55ba2193692e714b9def1df80f5b9be249b4"
    text = f"https://login.example/authorize?state=1418&code_challenge={challenge}"
    blocks = render_terminal_blocks(text, 80, colour=False)
    assert blocks is not None
    assert scan_qr_codes(blocks_to_image(blocks.splitlines(), ink=255, paper=0)) == [text]


def test_a_quiet_zone_of_four_modules_surrounds_the_code() -> None:
    blocks = render_terminal_blocks(SHORT, 80)
    assert blocks is not None
    lines = _COLOURED.findall(blocks)
    assert {line[:4] + line[-4:] for line in lines} == {" " * 8}
    assert set("".join(lines[:2] + lines[-2:])) == {" "}
    assert lines[2][4:11] == "█▀▀▀▀▀█"


def test_a_code_is_never_wider_than_the_terminal_or_eighty_columns() -> None:
    blocks = render_terminal_blocks(SHORT, 200)
    assert blocks is not None
    width = len(_COLOURED.findall(blocks)[0])
    assert render_terminal_blocks(SHORT, width) == blocks
    assert render_terminal_blocks(SHORT, width - 1) is None
    assert render_terminal_blocks(SHORT, 0) is None
    assert render_terminal_blocks("x" * 600, 1000) is None


@pytest.mark.parametrize("text", [SHORT, LONG, "x", "12345", "UPPER:CASE"])
def test_a_png_scans(text: str) -> None:
    data = render_png(text)
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.mode == "1"
        assert image.width == image.height
        assert scan_qr_codes(image.convert("L")) == [text]


@pytest.mark.parametrize("scale", [1, 3, 8])
def test_a_png_scans_at_any_scale(scale: int) -> None:
    data = render_png(SHORT, scale=scale)
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.width == 37 * scale
        enlarged = image.convert("L").resize((37 * 8, 37 * 8), Image.Resampling.NEAREST)
        assert scan_qr_codes(enlarged) == [SHORT]


def test_a_text_that_is_too_long_for_a_code_gives_none() -> None:
    assert render_png("x" * 2953) is not None
    assert render_png("x" * 2954) is None
    assert render_terminal_blocks("x" * 2954, 80) is None
