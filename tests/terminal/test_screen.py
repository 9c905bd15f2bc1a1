"""A login on screens of different sizes: the URL is complete, the QR code scannable or absent."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.answers import TERMINAL_ORIGIN
from hermes_mcp_auth_remote.terminal.forwarding import ssh_forward_command
from hermes_mcp_auth_remote.terminal.screen import PlainScreen
from hermes_mcp_auth_remote.terminal.window import terminal_size
from hermes_mcp_auth_remote.values import Server
from tests.parts.authorization_server import Demo, serve_demo
from tests.qr_codes import blocks_to_image, find_block_rows, scan_qr_codes
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
    **options: bool,
) -> str:
    """Return what a terminal of this size shows of a new login."""

    async def main() -> str:
        service = AuthService(home)
        login = await service.start_login(Server("demo", demo.mcp_url), TERMINAL_ORIGIN)
        stream = EncodedStream()
        stream.encoding = encoding
        screen = PlainScreen(stream, columns, rows, time.time, with_qr, colour, **options)  # type: ignore[arg-type]
        screen.show(login, browser_opened=browser_opened, port=4711)
        lines = stream.getvalue().splitlines()
        if "with_links" not in options:
            assert login.authorization_url in lines, "the URL is not alone on its line"
        return stream.getvalue()

    return asyncio.run(main())


@covers("url-whole", "qr-fits")
def test_the_qr_code_can_be_scanned_and_contains_the_url(demo: Demo, tmp_path: Path) -> None:
    text = render_login(demo, tmp_path, 80, 60, colour=False)
    rows = find_block_rows(text)
    assert {len(row) for row in rows} == {len(rows[0])}
    assert len(rows[0]) <= 80
    [url] = scan_qr_codes(blocks_to_image(rows, ink=255, paper=0))
    assert url in text.splitlines()
    assert "\x1b" not in text


def test_a_too_wide_qr_code_is_not_drawn(demo: Demo, tmp_path: Path) -> None:
    narrow = render_login(demo, tmp_path, 60, 60)
    assert "█" not in narrow
    assert "too wide for this window" in " ".join(narrow.split())


@covers("facts-visible")
@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 40), (40, 20), (30, 16)])
def test_the_facts_stay_visible_in_a_small_window(
    demo: Demo, tmp_path: Path, columns: int, rows: int
) -> None:
    text = render_login(demo, tmp_path, columns, rows, at_keyboard=True)
    physical_rows = [
        line[start : start + columns] or ""
        for line in text.splitlines()
        for start in range(0, max(len(line), 1), columns)
    ]
    # The prompt takes the last row.
    visible = "".join("".join(physical_rows[-(rows - 1) :]).split())
    for fact in ("Server", demo.mcp_url, "Youloginat127.0.0.1", "Accessmcp:tools", "Openuntil"):
        assert fact in visible
    assert "█" not in text
    assert ('"qr" to draw' in " ".join(text.split())) is (columns >= 80)
    assert text.index("Server") < text.index("/authorize?"), "the facts must precede the link"


@covers("qr-fits")
def test_a_qr_code_that_does_not_fit_is_drawn_alone_on_request(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        service = AuthService(tmp_path)
        login = await service.start_login(Server("demo", demo.mcp_url), TERMINAL_ORIGIN)
        stream = EncodedStream()
        screen = PlainScreen(stream, 80, 24, time.time, at_keyboard=True)
        assert not screen.show_qr(login)
        assert "The QR code needs" in stream.getvalue()
        assert "█" not in stream.getvalue()
        screen.rows = 60
        assert screen.show_qr(login)
        drawn = stream.getvalue().partition("\x1b[?1049h")[2]
        assert drawn.count("\n") > 24
        assert drawn.endswith("Press Enter to go back. ")
        before = stream.getvalue()
        screen.show_countdown(login)
        assert stream.getvalue() == before, "a countdown would damage the code"
        screen.hide_qr()
        screen.hide_qr()
        assert stream.getvalue() == f"{before}\x1b[?1049l"

    asyncio.run(main())


def test_without_a_keyboard_nothing_is_offered_to_type(demo: Demo, tmp_path: Path) -> None:
    text = render_login(demo, tmp_path, 80, 24, at_keyboard=False)
    assert "Type" not in text
    assert "too tall for this window" in text


def test_without_standard_input_the_screen_asks_for_no_paste(demo: Demo, tmp_path: Path) -> None:
    text = " ".join(render_login(demo, tmp_path, 80, 60, can_paste=False, with_qr=False).split())
    assert "paste" not in text.lower()
    assert "hermes-mcp-auth login --finish " in text


def test_a_wrapped_address_is_one_link(demo: Demo, tmp_path: Path) -> None:
    text = render_login(demo, tmp_path, 80, 24, with_links=True)
    [line] = [line for line in text.splitlines() if "/authorize?" in line]
    target, shown = line.removeprefix("\x1b]8;id=login;").removesuffix("\x1b]8;;\x1b\\").split("\x1b\\")
    assert target == shown
    assert shown.startswith("http://127.0.0.1:")
    assert "\x1b]8" not in render_login(demo, tmp_path, 500, 60, with_links=True)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"SSH_CONNECTION": "198.51.100.7 50000 203.0.113.9 22", "LOGNAME": "ada"},
            "ssh -N -L 4711:127.0.0.1:4711 ada@203.0.113.9",
        ),
        (
            {"SSH_CONNECTION": "2001:db8::1 50000 2001:db8::2 2222", "USER": "ada"},
            "ssh -N -L 4711:127.0.0.1:4711 -p 2222 ada@2001:db8::2",
        ),
        ({"USER": "o'neil"}, "ssh -N -L 4711:127.0.0.1:4711 'o'\"'\"'neil@HOST'"),
        ({"SSH_CONNECTION": "damaged", "USER": "ada"}, "ssh -N -L 4711:127.0.0.1:4711 ada@HOST"),
    ],
)
def test_the_forward_command_is_complete(
    environ: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "HOST")
    assert ssh_forward_command(environ, "http://127.0.0.1:4711/callback") == expected
    assert "-L '[::1]:4711:[::1]:4711'" in ssh_forward_command(environ, "http://[::1]:4711/callback")
    assert "-L 4711:localhost:4711" in ssh_forward_command(environ, "http://localhost:4711/callback")


@pytest.mark.parametrize("more", [{"with_qr": False}, {"browser_opened": True}, {"encoding": "ascii"}])
def test_no_qr_code_if_it_is_disabled_or_cannot_be_shown(
    demo: Demo, tmp_path: Path, more: dict[str, bool]
) -> None:
    text = render_login(demo, tmp_path, 80, 60, **more)  # type: ignore[arg-type]
    assert "█" not in text
    assert "No QR code" not in text


@covers("browser-failure")
def test_a_browser_that_did_not_open_is_named_once(demo: Demo, tmp_path: Path) -> None:
    sentence = "No browser was opened on this machine. Open the address on any device."
    assert sentence in " ".join(render_login(demo, tmp_path, 80, 60, expects_browser=True).split())
    for options in ({"expects_browser": True, "browser_opened": True}, {}):
        assert sentence not in " ".join(render_login(demo, tmp_path, 80, 60, **options).split())  # type: ignore[arg-type]


@covers("qr-fits")
@pytest.mark.parametrize("rows", [24, 60])
def test_a_command_that_does_not_wait_offers_no_qr_code_to_type(
    demo: Demo, tmp_path: Path, rows: int
) -> None:
    text = render_login(demo, tmp_path, 80, rows, at_keyboard=True, waits=False)
    assert '"qr"' not in text
    assert ("█" in text) == ("No QR code" not in text)


def test_a_file_gets_no_qr_code(demo: Demo, tmp_path: Path) -> None:
    assert "█" not in render_login(demo, tmp_path, 0, 0)


def test_a_file_has_no_terminal_size(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        assert terminal_size(file) == (0, 0)
    assert terminal_size(io.StringIO()) == (0, 0)
