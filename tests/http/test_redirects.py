from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest

from hermes_mcp_auth_remote.errors import AddressRefused, RedirectRefused, Unreachable
from hermes_mcp_auth_remote.oauth.wire import Request, get_json, post_form
from tests.http.peers import (
    ReceivedRequest,
    RequestHandler,
    encode_response,
    fetch,
    make_server,
    make_table_resolver,
    respond_with,
    run_http_server,
)
from tests.leak_check import watch_secrets
from tests.parts.certificates import issue_certificates
from tests.requirements import covers


def redirect_to(location: str, status: int = 302) -> RequestHandler:
    return respond_with(encode_response(status, b"gone", {"location": location}))


def fetch_redirect(location: str, status: int = 302) -> None:
    """Fetch from a server on loopback that redirects."""

    async def main() -> None:
        async with run_http_server(redirect_to(location, status)) as peer:
            await fetch(peer)

    asyncio.run(main())


@covers("redirects")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_get_keeps_its_headers_in_a_redirect_on_the_same_origin(status: int) -> None:
    async def redirect_once(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        moved = encode_response(status, b"", {"location": "../there?a=1#part"})
        writer.write(moved if request.target == "/deep/here" else encode_response(200, b'{"ok":1}'))

    async def main() -> tuple[bytes, list[str], list[str | None]]:
        async with run_http_server(redirect_once) as peer:
            request = Request("GET", peer.url("/deep/here"), "step", (("accept", "a/b"), ("x-own", "1")))
            response = (await fetch(peer, request))[0]
            return (
                response.body,
                [h.target for h in peer.requests],
                [h.headers.get("x-own") for h in peer.requests],
            )

    assert asyncio.run(main()) == (b'{"ok":1}', ["/deep/here", "/there?a=1"], ["1", "1"])


@covers("own-headers")
def test_a_redirect_to_another_origin_drops_the_servers_own_headers() -> None:
    async def main() -> dict[str, str]:
        async with (
            run_http_server(respond_with(encode_response())) as other,
            run_http_server(redirect_to(other.url("/x"))) as peer,
        ):
            headers = (
                ("accept", "a/b"),
                ("authorization", "Bearer top-secret-token"),
                ("x-api-key", "k" * 20),
            )
            watch_secrets({"top-secret-token", "k" * 20})
            await fetch(peer, Request("GET", peer.url("/"), "step", headers))
            assert peer.requests[0].headers["authorization"] == "Bearer top-secret-token"
            return dict(other.requests[0].headers)

    received_headers = asyncio.run(main())
    assert set(received_headers) == {"host", "user-agent", "accept-encoding", "accept"}
    assert received_headers["accept"] == "a/b"


@covers("redirects")
@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "javascript:alert(1)",
        "ftp://h.example/",
        "gopher://127.0.0.1:70/_x",
        "http://mcp.example/",
        "https://user:password@mcp.example/",
        "https://[fe80::1%25eth0]/",
        "https://mcp.example/\\@evil.example",
        "https://bad host/",
        "https://[::1",
        "//192.168.1.1/x",
        "https:///x",
        "data:application/json,{}",
        "https://h.example:99999/",
        "https://0.0.0.0/",
        "https://[::]/",
        "https://2130706433/",
        "https://127.1/",
        "x" * 9000,
    ],
)
def test_a_redirect_to_an_unsafe_url_is_refused(location: str) -> None:
    with pytest.raises(RedirectRefused, match=r"^127\.0\.0\.1 redirects the step to an unsafe address"):
        fetch_redirect(location)


@covers("redirects", "address-policy")
@pytest.mark.parametrize(
    "location",
    [
        "https://169.254.169.254/latest/meta-data/",
        "https://10.0.0.1/",
        "https://[fd00:ec2::254]/",
        "https://[::ffff:192.168.0.1]/",
    ],
)
def test_the_address_of_a_redirect_is_checked(location: str) -> None:
    with pytest.raises(AddressRefused):
        fetch_redirect(location)


@covers("redirects", "address-policy")
def test_a_public_server_cannot_redirect_to_this_machine(tmp_path: Path) -> None:
    certificate = issue_certificates(tmp_path, "mcp.example")

    async def main() -> None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate.cert_file, certificate.key_file)
        async with (
            run_http_server(respond_with(encode_response())) as inside,
            run_http_server(redirect_to(inside.url("/", "localhost")), tls=tls) as peer,
        ):
            # This address plays the role of a public one.
            server = make_server(
                peer.url("/mcp", "mcp.example", "https"),
                ca_file=str(certificate.ca_file),
                allow_addresses=("127.0.0.1/32",),
            )
            resolver = make_table_resolver(mcp_example="127.0.0.1", localhost="127.0.0.2")
            with pytest.raises(AddressRefused):
                await fetch(server, resolve=resolver)
            assert (len(peer.requests), inside.connections) == (1, 0)

    asyncio.run(main())


@covers("redirects")
def test_a_redirect_loop_ends_after_three_redirects() -> None:
    async def main() -> int:
        async with run_http_server(redirect_to("/again")) as peer:
            with pytest.raises(RedirectRefused, match="in circles"):
                await fetch(peer)
            return len(peer.requests)

    assert asyncio.run(main()) == 4


@covers("redirects")
def test_three_redirects_are_followed() -> None:
    async def redirect_three_times(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        step = int(request.target.strip("/"))
        writer.write(
            encode_response(302, b"", {"location": f"/{step + 1}"})
            if step < 3
            else encode_response(200, b"there")
        )

    async def main() -> bytes:
        async with run_http_server(redirect_three_times) as peer:
            return (await fetch(peer, get_json(peer.url("/0"), "step")))[0].body

    assert asyncio.run(main()) == b"there"


@covers("redirects")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_post_is_never_redirected(status: int) -> None:
    watch_secrets({"the-code-itself"})

    async def main() -> list[str]:
        async with (
            run_http_server(respond_with(encode_response())) as other,
            run_http_server(redirect_to(other.url("/"), status)) as peer,
        ):
            request = post_form(peer.url("/token"), "token request", {"code": "the-code-itself"})
            with pytest.raises(
                RedirectRefused, match=r"redirects the token request.*a POST is never redirected"
            ):
                await fetch(peer, request)
            return [received.target for received in (*peer.requests, *other.requests)]

    assert asyncio.run(main()) == ["/token"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_without_follow_redirects_a_redirect_is_returned(method: Literal["GET", "POST"]) -> None:
    async def main() -> tuple[int, str | None]:
        async with run_http_server(redirect_to("https://evil.example/?error=x")) as peer:
            request = replace(get_json(peer.url("/authorize"), "step"), method=method, follow_redirects=False)
            response = (await fetch(peer, request))[0]
            return response.status, response.header("location")

    assert asyncio.run(main()) == (302, "https://evil.example/?error=x")


@pytest.mark.parametrize("status", [300, 304, 305])
def test_other_3xx_statuses_are_returned(status: int) -> None:
    async def main() -> int:
        async with run_http_server(
            respond_with(encode_response(status, b"", {"location": "/x", "content-length": "0"}))
        ) as peer:
            return (await fetch(peer))[0].status

    assert asyncio.run(main()) == status


def test_a_redirect_without_a_location_is_returned() -> None:
    async def main() -> int:
        async with run_http_server(respond_with(encode_response(302, b""))) as peer:
            return (await fetch(peer))[0].status

    assert asyncio.run(main()) == 302


@covers("redirects")
def test_the_error_for_a_refused_redirect_shows_no_url_of_the_server() -> None:
    watch_secrets({"state-of-a-login", "code-of-a-login"})
    with pytest.raises(RedirectRefused):
        fetch_redirect("http://evil.example/?state=state-of-a-login&code=code-of-a-login")
    with pytest.raises(Unreachable):
        fetch_redirect("https://nobody.invalid/?state=state-of-a-login")


def test_the_target_of_a_redirect_keeps_its_query_and_path_parameters() -> None:
    async def main() -> list[str]:
        async with run_http_server(respond_with(encode_response())) as other:
            async with run_http_server(redirect_to(other.url("/a;v=1/b;w=2?x=1&y=%2F"))) as peer:
                await fetch(peer)
            return [urlsplit(request.target).geturl() for request in other.requests]

    assert asyncio.run(main()) == ["/a;v=1/b;w=2?x=1&y=%2F"]
