"""A login on screens of different sizes: the URL is complete, the QR code scannable or absent."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zxingcpp
from PIL import Image

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.answers import TERMINAL_ORIGIN
from hermes_mcp_auth_remote.terminal.screen import PlainScreen, terminal_size
from hermes_mcp_auth_remote.values import Server
from tests.parts.authorization_server import Demo, serve_demo
from tests.requirements import covers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with serve_demo() as demo:
        yield demo


class EncodedStream(io.StringIO):
    encoding = "utf-8"


def render_login(
    demo: Demo,
    home: Path,
    columns: int,
    rows: int,
    *,
    encoding: str = "utf-8",
    browser_opened: bool = False,
    with_qr: bool = True,
    colour: bool = True,
) -> str:
    """Return what a terminal of this size shows of a new login."""

    async def main() -> str:
        service = AuthService(home)
        login = await service.start_login(Server("demo", demo.mcp_url), TERMINAL_ORIGIN)
        stream = EncodedStream()
        stream.encoding = encoding
        screen = PlainScreen(stream, columns, rows, time.time, with_qr, colour)
        screen.show(login, browser_opened=browser_opened, port=4711)
        lines = stream.getvalue().splitlines()
        assert login.authorization_url in lines, "the URL is not alone on its line"
        return stream.getvalue()

    return asyncio.run(main())


@covers("url-whole", "qr-fits")
def test_the_qr_code_can_be_scanned_and_contains_the_url(demo: Demo, tmp_path: Path) -> None:
    text = render_login(demo, tmp_path, 80, 60, colour=False)
    rows = [line for line in text.splitlines() if line and set(line) <= set("█▀▄ ")]
    assert {len(row) for row in rows} == {len(rows[0])}
    assert len(rows[0]) <= 80
    image = Image.new("1", (len(rows[0]), 2 * len(rows)))
    for y, row in enumerate(rows):
        for x, character in enumerate(row):
            image.putpixel((x, 2 * y), character in "█▀")
            image.putpixel((x, 2 * y + 1), character in "█▄")
    [barcode] = zxingcpp.read_barcodes(image.convert("L").resize((len(rows[0]) * 6, len(rows) * 12)))
    assert barcode.text in text.splitlines()
    assert "\x1b" not in text


def test_a_too_wide_qr_code_is_not_drawn_and_a_too_tall_one_is_noted(demo: Demo, tmp_path: Path) -> None:
    narrow = render_login(demo, tmp_path, 60, 60)
    assert "█" not in narrow
    assert "too wide for this window" in " ".join(narrow.split())
    low = render_login(demo, tmp_path, 80, 24)
    assert "█" in low
    assert "taller than this window" in low
    assert low.index("█") < low.index("/authorize?"), "the QR code must be above the URL"


@pytest.mark.parametrize("more", [{"with_qr": False}, {"browser_opened": True}, {"encoding": "ascii"}])
def test_no_qr_code_if_it_is_disabled_or_cannot_be_shown(
    demo: Demo, tmp_path: Path, more: dict[str, bool]
) -> None:
    text = render_login(demo, tmp_path, 80, 60, **more)  # type: ignore[arg-type]
    assert "█" not in text
    assert "No QR code" not in text


def test_a_file_gets_no_qr_code(demo: Demo, tmp_path: Path) -> None:
    assert "█" not in render_login(demo, tmp_path, 0, 0)


def test_a_file_has_no_terminal_size(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        assert terminal_size(file) == (0, 0)
    assert terminal_size(io.StringIO()) == (0, 0)
