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
    Answer,
    Heard,
    always,
    configured,
    fetch,
    leading_by_name,
    reply,
    serving,
)
from tests.parts.certificates import certificates
from tests.requirements import covers
from tests.tripwire import guard


def redirecting(location: str, status: int = 302) -> Answer:
    return always(reply(status, b"gone", {"location": location}))


def followed(location: str, status: int = 302) -> None:
    """Fetch from a server on loopback that redirects."""

    async def main() -> None:
        async with serving(redirecting(location, status)) as peer:
            await fetch(peer)

    asyncio.run(main())


@covers("redirects")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_get_follows_a_redirect_with_the_same_headers_on_the_same_origin(status: int) -> None:
    async def answer(heard: Heard, writer: asyncio.StreamWriter) -> None:
        moved = reply(status, b"", {"location": "../there?a=1#part"})
        writer.write(moved if heard.target == "/deep/here" else reply(200, b'{"ok":1}'))

    async def main() -> tuple[bytes, list[str], list[str | None]]:
        async with serving(answer) as peer:
            request = Request("GET", peer.url("/deep/here"), "step", (("accept", "a/b"), ("x-own", "1")))
            response = (await fetch(peer, request))[0]
            return response.body, [h.target for h in peer.heard], [h.headers.get("x-own") for h in peer.heard]

    assert asyncio.run(main()) == (b'{"ok":1}', ["/deep/here", "/there?a=1"], ["1", "1"])


@covers("own-headers")
def test_a_redirect_to_another_origin_takes_nothing_of_ours_along() -> None:
    async def main() -> dict[str, str]:
        async with serving(always(reply())) as other, serving(redirecting(other.url("/x"))) as peer:
            own = (("accept", "a/b"), ("authorization", "Bearer top-secret-token"), ("x-api-key", "k" * 20))
            guard({"top-secret-token", "k" * 20})
            await fetch(peer, Request("GET", peer.url("/"), "step", own))
            assert peer.heard[0].headers["authorization"] == "Bearer top-secret-token"
            return dict(other.heard[0].headers)

    there = asyncio.run(main())
    assert set(there) == {"host", "user-agent", "accept-encoding", "accept"}
    assert there["accept"] == "a/b"


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
        "x" * 9000,
    ],
)
def test_a_redirect_to_what_is_never_fetched_is_refused(location: str) -> None:
    with pytest.raises(RedirectRefused, match=r"^127\.0\.0\.1 redirects the step to an unsafe address"):
        followed(location)


@covers("redirects", "address-policy")
@pytest.mark.parametrize(
    "location",
    [
        "https://169.254.169.254/latest/meta-data/",
        "https://10.0.0.1/",
        "https://[fd00:ec2::254]/",
        "https://[::ffff:192.168.0.1]/",
        "https://0.0.0.0/",
    ],
)
def test_a_redirect_is_checked_like_a_first_address(location: str) -> None:
    with pytest.raises(AddressRefused):
        followed(location)


@covers("redirects", "address-policy")
def test_a_public_server_redirects_nobody_to_this_machine(tmp_path: Path) -> None:
    certificate = certificates(tmp_path, "mcp.example")

    async def main() -> None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate.cert_file, certificate.key_file)
        async with (
            serving(always(reply())) as inside,
            serving(redirecting(inside.url("/", "localhost")), tls=tls) as peer,
        ):
            # This address plays the role of a public one.
            server = configured(
                peer.url("/mcp", "mcp.example", "https"),
                ca_file=str(certificate.ca_file),
                allow_addresses=("127.0.0.1/32",),
            )
            names = leading_by_name(mcp_example="127.0.0.1", localhost="127.0.0.2")
            with pytest.raises(AddressRefused):
                await fetch(server, resolve=names)
            assert (len(peer.heard), inside.connections) == (1, 0)

    asyncio.run(main())


@covers("redirects")
def test_circles_end_after_three_redirects() -> None:
    async def main() -> int:
        async with serving(redirecting("/again")) as peer:
            with pytest.raises(RedirectRefused, match="in circles"):
                await fetch(peer)
            return len(peer.heard)

    assert asyncio.run(main()) == 4


@covers("redirects")
def test_three_redirects_are_followed() -> None:
    async def count(heard: Heard, writer: asyncio.StreamWriter) -> None:
        step = int(heard.target.strip("/"))
        writer.write(reply(302, b"", {"location": f"/{step + 1}"}) if step < 3 else reply(200, b"there"))

    async def main() -> bytes:
        async with serving(count) as peer:
            return (await fetch(peer, get_json(peer.url("/0"), "step")))[0].body

    assert asyncio.run(main()) == b"there"


@covers("redirects")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_post_is_never_redirected(status: int) -> None:
    guard({"the-code-itself"})

    async def main() -> list[str]:
        async with serving(always(reply())) as other, serving(redirecting(other.url("/"), status)) as peer:
            request = post_form(peer.url("/token"), "token request", {"code": "the-code-itself"})
            with pytest.raises(
                RedirectRefused, match=r"redirects the token request.*a POST is never redirected"
            ):
                await fetch(peer, request)
            return [heard.target for heard in (*peer.heard, *other.heard)]

    assert asyncio.run(main()) == ["/token"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_redirect_that_is_asked_for_as_such_is_handed_over(method: Literal["GET", "POST"]) -> None:
    async def main() -> tuple[int, str | None]:
        async with serving(redirecting("https://evil.example/?error=x")) as peer:
            request = replace(get_json(peer.url("/authorize"), "step"), method=method, follow_redirects=False)
            response = (await fetch(peer, request))[0]
            return response.status, response.header("location")

    assert asyncio.run(main()) == (302, "https://evil.example/?error=x")


@pytest.mark.parametrize("status", [300, 304, 305])
def test_what_is_no_redirect_is_an_answer(status: int) -> None:
    async def main() -> int:
        async with serving(always(reply(status, b"", {"location": "/x", "content-length": "0"}))) as peer:
            return (await fetch(peer))[0].status

    assert asyncio.run(main()) == status


def test_a_redirect_without_a_location_is_an_answer() -> None:
    async def main() -> int:
        async with serving(always(reply(302, b""))) as peer:
            return (await fetch(peer))[0].status

    assert asyncio.run(main()) == 302


@covers("redirects")
def test_a_refusal_names_no_address_that_a_server_sent() -> None:
    guard({"state-of-a-login", "code-of-a-login"})
    with pytest.raises(RedirectRefused):
        followed("http://evil.example/?state=state-of-a-login&code=code-of-a-login")
    with pytest.raises(Unreachable):
        followed("https://nobody.invalid/?state=state-of-a-login")


def test_a_redirect_s_target_keeps_its_query_and_path_parameters() -> None:
    async def main() -> list[str]:
        async with serving(always(reply())) as other:
            async with serving(redirecting(other.url("/a;v=1/b;w=2?x=1&y=%2F"))) as peer:
                await fetch(peer)
            return [urlsplit(heard.target).geturl() for heard in other.heard]

    assert asyncio.run(main()) == ["/a;v=1/b;w=2?x=1&y=%2F"]
