from __future__ import annotations

import asyncio
import ssl
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from socket import AF_INET, SOCK_STREAM, socket

import pytest

from hermes_mcp_auth_remote.errors import AddressRefused, ConfigError, RedirectRefused, Unreachable, UnsafeUrl
from hermes_mcp_auth_remote.http import client
from hermes_mcp_auth_remote.http.addresses import Address
from hermes_mcp_auth_remote.http.proxies import proxy_for
from hermes_mcp_auth_remote.installation import install_command
from hermes_mcp_auth_remote.oauth.wire import get_json, post_form
from tests.http.peers import (
    Peer,
    RequestHandler,
    encode_response,
    fetch,
    make_server,
    make_table_resolver,
    respond_with,
    run_http_server,
    run_proxy,
)
from tests.leak_check import watch_secrets
from tests.parts.certificates import Certificates, issue_certificates
from tests.requirements import covers

URL = "https://mcp.example/mcp"
PROXY = "http://proxy.example:3128"


def proxy_origin(environ: dict[str, str], url: str = URL) -> str | None:
    """Return scheme, host and port of the proxy for a URL."""
    proxy = proxy_for(url, environ)
    return None if proxy is None else str(proxy.url.origin)


@covers("proxies")
@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_proxy_is_taken_from_the_environment(name: str) -> None:
    assert proxy_origin({name: PROXY}) == PROXY


@covers("proxies")
def test_the_lower_case_variable_wins_and_an_empty_one_turns_proxies_off() -> None:
    assert (
        proxy_origin({"HTTPS_PROXY": "http://upper:1", "https_proxy": "http://lower:2"}) == "http://lower:2"
    )
    assert proxy_origin({"HTTPS_PROXY": "http://upper:1", "https_proxy": ""}) is None
    assert (
        proxy_origin({"HTTPS_PROXY": "http://special:1", "all_proxy": "http://all:2"}) == "http://special:1"
    )
    assert proxy_origin({"https_proxy": "", "all_proxy": "http://all:2"}) == "http://all:2"
    assert proxy_origin({"NO_PROXY": "*", "no_proxy": "", "https_proxy": PROXY}) == PROXY


@covers("proxies")
@pytest.mark.parametrize("more", [{}, {"REQUEST_METHOD": "GET"}])
def test_http_proxy_is_never_read(more: dict[str, str]) -> None:
    assert proxy_origin({"HTTP_PROXY": PROXY, "http_proxy": PROXY, **more}) is None


@covers("proxies")
@pytest.mark.parametrize(
    "url",
    [
        "https://localhost/",
        "https://deep.localhost:8443/",
        "https://127.0.0.1/",
        "http://127.9.9.9/",
        "https://[::1]/",
    ],
)
def test_loopback_never_uses_a_proxy(url: str) -> None:
    assert proxy_origin({"HTTPS_PROXY": PROXY, "ALL_PROXY": PROXY}, url) is None


@covers("proxies")
@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("*", URL),
        ("mcp.example", URL),
        ("MCP.Example", URL),
        ("mcp.example.", URL),
        (".example", URL),
        ("*.example", URL),
        ("example", URL),
        ("other.test, mcp.example", URL),
        ("other.test mcp.example", URL),
        (",,mcp.example,", URL),
        ("mcp.example:443", URL),
        ("mcp.example:8443", "https://mcp.example:8443/"),
        ("mcp.example", "https://mcp.example:8443/"),
        ("mcp.example", "https://mcp.example./"),
        ("10.0.0.0/8", "https://10.1.2.3/"),
        ("10.1.2.3/8", "https://10.9.9.9/"),
        ("10.1.2.3", "https://10.1.2.3/"),
        ("10.1.2.3:8443", "https://10.1.2.3:8443/"),
        ("2001:db8::1", "https://[2001:db8::1]/"),
        ("[2001:db8::1]", "https://[2001:db8::1]/"),
        ("[2001:db8::1]:8443", "https://[2001:db8::1]:8443/"),
        ("2001:db8::/32", "https://[2001:db8::9]/"),
        ("bücher.example", "https://xn--bcher-kva.example/"),
    ],
)
def test_no_proxy_exempts_matching_hosts(no_proxy: str, url: str) -> None:
    assert proxy_origin({"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy}, url) is None


@covers("proxies")
@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("", URL),
        (" , ,", URL),
        (".", URL),
        ("*.", URL),
        ("cp.example", URL),
        ("evilmcp.example", URL),
        ("mcp.example", "https://mcp.example.evil.test/"),
        ("mcp.example", "https://evil-mcp.example/"),
        ("mcp.example:8443", URL),
        ("10.0.0.0/8", "https://11.0.0.1/"),
        ("10.0.0.0/8", "https://10.0.0.1.example/"),
        ("0.0.1", "https://10.0.0.1/"),
        ("10.1.2.3:8443", "https://10.1.2.3/"),
        ("[2001:db8::1]:8443", "https://[2001:db8::1]/"),
        ("2001:db8::2", "https://[2001:db8::1]/"),
        ("[", URL),
        ("::::", URL),
        ("https://mcp.example", URL),
    ],
)
def test_no_proxy_exempts_no_other_hosts(no_proxy: str, url: str) -> None:
    assert proxy_origin({"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy}, url) == PROXY


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("proxy.example", "http://proxy.example:80"),
        ("https://proxy.example", "https://proxy.example:443"),
        ("http://[2001:db8::1]:3128", "http://2001:db8::1:3128"),
        (" http://proxy.example:3128/ ", "http://proxy.example:3128"),
    ],
)
def test_every_notation_of_a_proxy_is_understood(text: str, origin: str) -> None:
    assert proxy_origin({"HTTPS_PROXY": text}) == origin


@pytest.mark.parametrize(
    ("written", "auth"),
    [
        ("ada:lace", (b"ada", b"lace")),
        ("ada", (b"ada", b"")),
        (":lace", (b"", b"lace")),
        ("a%40b:p%3Aw%2F", (b"a@b", b"p:w/")),
        ("ada:gr%C3%BC%C3%9Fe", (b"ada", "grüße".encode())),
        ("ada:grüße", (b"ada", "grüße".encode())),
    ],
)
def test_the_user_and_password_of_a_proxy_are_percent_decoded(
    written: str, auth: tuple[bytes, bytes]
) -> None:
    proxy = proxy_for(URL, {"HTTPS_PROXY": f"http://{written}@proxy.example:1"})
    assert proxy is not None
    assert proxy.auth == auth


@pytest.mark.parametrize(
    "text",
    [
        "ftp://proxy.example:21",
        "socks4://proxy.example",
        "http://",
        "http://:3128",
        "http://proxy.example:port",
        "http://proxy.example:99999",
        "http://proxy.example:0",
        "http://[::1",
        "http://pröxy.example:1",
        "://",
    ],
)
def test_the_error_for_an_unusable_proxy_shows_no_password(text: str) -> None:
    watch_secrets({"a-proxy-password"})
    for spelling in (text, text.replace("://", "://ada:a-proxy-password@")):
        with pytest.raises(ConfigError, match=r"^The proxy in the environment is not an address"):
            proxy_for(URL, {"HTTPS_PROXY": spelling})


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_the_error_for_socks_without_its_library_names_the_package(scheme: str) -> None:
    with pytest.raises(ConfigError, match="is a SOCKS proxy") as caught:
        proxy_for(URL, {"ALL_PROXY": f"{scheme}://proxy.example:1080"})
    assert caught.value.advice == f"Run `{install_command('httpcore[socks]')}`."


# The tests below use a real proxy.


@pytest.fixture
def issued(tmp_path: Path) -> Certificates:
    return issue_certificates(tmp_path, "mcp.example", "auth.example", "127.0.0.1")


def server_tls_context(issued: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert_file, issued.key_file)
    return context


TABLE_RESOLVER = make_table_resolver(mcp_example="1.1.1.1", auth_example="1.1.1.2", inside_example="10.0.0.1")


async def fetch_through_proxy(peer: Peer, proxy: str, issued: Certificates, *hosts: str) -> list[int]:
    """Fetch from hosts through a proxy, and return the statuses."""
    server = make_server("https://mcp.example/mcp", ca_file=str(issued.ca_file), allow_addresses=())
    requests = [get_json(f"https://{host}/", "step") for host in hosts or ("mcp.example",)]
    environ = {"HTTPS_PROXY": proxy}
    return [
        response.status
        for response in await fetch(server, *requests, environ=environ, resolve=TABLE_RESOLVER)
    ]


@covers("proxies")
def test_quirk_45_every_leg_uses_a_tunnel_of_the_proxy_by_host_name(issued: Certificates) -> None:
    async def main() -> None:
        async with (
            run_http_server(respond_with(encode_response()), tls=server_tls_context(issued)) as peer,
            run_proxy(peer) as proxy,
        ):
            hosts = ("mcp.example", "auth.example", "auth.example")
            assert await fetch_through_proxy(peer, proxy.url(), issued, *hosts) == [200, 200, 200]
            assert [(h.method, h.target) for h in proxy.requests] == [
                ("CONNECT", "mcp.example:443"),
                ("CONNECT", "auth.example:443"),
            ]
            assert [h.headers["host"] for h in peer.requests] == [*hosts]
            assert all(set(h.headers) <= {"host", "accept", "user-agent"} for h in proxy.requests)

    asyncio.run(main())


@covers("proxies")
def test_a_host_that_only_the_proxy_can_resolve_is_reached(issued: Certificates) -> None:
    async def main() -> list[int]:
        async with (
            run_http_server(respond_with(encode_response()), tls=server_tls_context(issued)) as peer,
            run_proxy(peer) as proxy,
        ):
            server = make_server(URL, ca_file=str(issued.ca_file), allow_addresses=())
            environ = {"HTTPS_PROXY": proxy.url()}
            responses = await fetch(server, environ=environ, resolve=make_table_resolver())
            return [response.status for response in responses]

    assert asyncio.run(main()) == [200]


@covers("proxies")
def test_a_hanging_resolver_does_not_block_a_host_that_the_proxy_resolves(
    issued: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "TRUSTED_LOOKUP_SECONDS", 0.05)

    async def hang(host: str, port: int) -> list[Address]:
        await asyncio.Event().wait()
        raise AssertionError

    async def resolve_proxy_only(host: str, port: int) -> list[Address]:
        return [ip_address("127.0.0.1")] if host == "proxy.example" else await hang(host, port)

    async def main() -> list[int]:
        async with (
            run_http_server(respond_with(encode_response()), tls=server_tls_context(issued)) as peer,
            run_proxy(peer) as proxy,
        ):
            server = make_server(URL, ca_file=str(issued.ca_file), allow_addresses=())
            environ = {"HTTPS_PROXY": proxy.url(host="proxy.example")}
            return [
                response.status
                for response in await fetch(server, environ=environ, resolve=resolve_proxy_only)
            ]

    assert asyncio.run(main()) == [200]


@covers("proxies")
def test_only_the_proxy_gets_its_user_and_password(issued: Certificates) -> None:
    watch_secrets({"a-proxy-password"})

    async def main() -> None:
        async with (
            run_http_server(respond_with(encode_response()), tls=server_tls_context(issued)) as peer,
            run_proxy(peer, password="ada:a-proxy-password") as proxy,
        ):
            address = f"http://ada:a-proxy-password@127.0.0.1:{proxy.port}"
            assert await fetch_through_proxy(peer, address, issued) == [200]
            assert "proxy-authorization" not in peer.requests[0].headers

    asyncio.run(main())


@covers("proxies")
@pytest.mark.parametrize("user", ["", "ada:a-wrong-password@"])
def test_the_error_says_that_the_proxy_requires_a_password(issued: Certificates, user: str) -> None:
    watch_secrets({"a-wrong-password"})

    async def main() -> None:
        async with run_http_server() as peer, run_proxy(peer, password="ada:a-right-password") as proxy:
            await fetch_through_proxy(peer, f"http://{user}127.0.0.1:{proxy.port}", issued)

    with pytest.raises(Unreachable, match="proxy requires a user name and a password") as caught:
        asyncio.run(main())
    assert "HTTPS_PROXY" in caught.value.advice


@pytest.mark.parametrize("status", [403, 502, 503])
def test_the_error_names_the_status_of_a_proxy_that_refuses(issued: Certificates, status: int) -> None:
    async def main() -> None:
        async with run_http_server() as peer, run_proxy(peer, status=status) as proxy:
            await fetch_through_proxy(peer, proxy.url(), issued)

    with pytest.raises(
        Unreachable, match=rf"did not let the step through to mcp\.example \(status {status}\)"
    ):
        asyncio.run(main())


def test_the_error_names_a_proxy_that_is_down_and_the_variable() -> None:
    with closing(socket(AF_INET, SOCK_STREAM)) as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        environ = {"HTTPS_PROXY": f"http://127.0.0.1:{port}"}
        with pytest.raises(
            Unreachable, match=rf"^The proxy 127\.0\.0\.1:{port} refused the connection"
        ) as caught:
            asyncio.run(fetch(make_server(URL), environ=environ, resolve=TABLE_RESOLVER))
    assert "HTTPS_PROXY" in caught.value.advice


def test_the_error_for_a_proxy_without_an_address_names_the_variable() -> None:
    async def resolve(host: str, port: int) -> list[Address]:
        if host == "proxy.corp":
            raise OSError
        return await TABLE_RESOLVER(host, port)

    environ = {"HTTPS_PROXY": "proxy.corp:3128"}
    with pytest.raises(Unreachable, match=r"^The name of the proxy proxy\.corp could not be") as caught:
        asyncio.run(fetch(make_server(URL), environ=environ, resolve=resolve))
    assert "HTTPS_PROXY" in caught.value.advice


@covers("proxies", "authorities")
def test_a_proxy_over_tls_is_verified_with_the_operators_authorities(issued: Certificates) -> None:
    async def main() -> list[int]:
        tls = server_tls_context(issued)
        async with (
            run_http_server(respond_with(encode_response()), tls=tls) as peer,
            run_proxy(peer, tls=tls) as proxy,
        ):
            return await fetch_through_proxy(peer, f"https://127.0.0.1:{proxy.port}", issued)

    assert asyncio.run(main()) == [200]


@covers("address-policy")
@pytest.mark.parametrize("host", ["inside.example", "10.0.0.1", "169.254.169.254", "[::ffff:10.0.0.1]"])
def test_an_internal_address_is_not_requested_from_a_proxy(issued: Certificates, host: str) -> None:
    async def main() -> int:
        async with run_http_server() as peer, run_proxy(peer) as proxy:
            server = make_server(URL, allow_addresses=())
            table_resolver = make_table_resolver(inside_example="10.0.0.1")
            environ = {"HTTPS_PROXY": proxy.url()}
            resolver = {"resolve": table_resolver} if host == "inside.example" else {}
            with pytest.raises(AddressRefused):
                await fetch(server, get_json(f"https://{host}/", "step"), environ=environ, **resolver)
            return proxy.connections

    assert asyncio.run(main()) == 0


@covers("address-policy", "numeric-hosts")
@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0.0.0.0", "[::]"])
def test_a_number_as_a_host_is_not_requested_from_a_proxy(host: str) -> None:
    async def main() -> int:
        async with run_http_server() as peer, run_proxy(peer) as proxy:
            request = get_json(f"https://{host}/", "step")
            with pytest.raises(UnsafeUrl):
                await fetch(make_server(URL), request, environ={"HTTPS_PROXY": proxy.url()})
            return proxy.connections

    assert asyncio.run(main()) == 0


@covers("address-policy")
def test_metadata_cannot_name_the_host_of_the_proxy() -> None:
    """Metadata may name the proxy itself, which is on the intranet."""

    async def main() -> None:
        async with run_http_server() as peer, run_proxy(peer) as proxy:
            for environ in (
                {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"},
                {"HTTPS_PROXY": "http://10.0.0.1:1"},
            ):
                host = "10.0.0.1" if "10.0.0.1" in environ["HTTPS_PROXY"] else "127.0.0.1"
                url = f"https://{host}:{proxy.port}/"
                with pytest.raises(AddressRefused):
                    await fetch(make_server(URL, allow_addresses=()), get_json(url, "step"), environ=environ)
            assert proxy.connections == 0

    asyncio.run(main())


@covers("redirects", "proxies")
def test_redirects_are_checked_behind_a_proxy_too(issued: Certificates) -> None:
    async def main(location: str, method: str) -> list[str]:
        moved: RequestHandler = respond_with(encode_response(302, b"", {"location": location}))
        async with run_http_server(moved, tls=server_tls_context(issued)) as peer, run_proxy(peer) as proxy:
            server = make_server(URL, ca_file=str(issued.ca_file), allow_addresses=())
            request = get_json(URL, "step") if method == "GET" else post_form(URL, "step", {})
            error = AddressRefused if method == "GET" else RedirectRefused
            with pytest.raises(error):
                await fetch(server, request, environ={"HTTPS_PROXY": proxy.url()}, resolve=TABLE_RESOLVER)
            return [received.target for received in proxy.requests]

    assert asyncio.run(main("https://inside.example/", "GET")) == ["mcp.example:443"]
    assert asyncio.run(main("https://auth.example/", "POST")) == ["mcp.example:443"]


def test_a_host_in_no_proxy_is_reached_directly(issued: Certificates) -> None:
    async def main() -> int:
        async with (
            run_http_server(respond_with(encode_response()), tls=server_tls_context(issued)) as peer,
            run_proxy(peer) as proxy,
        ):
            url = peer.url("/", "mcp.example", "https")
            server = replace(make_server(url, ca_file=str(issued.ca_file)), url=url)
            environ = {"HTTPS_PROXY": proxy.url(), "NO_PROXY": "mcp.example"}
            await fetch(server, environ=environ, resolve=make_table_resolver(mcp_example="127.0.0.1"))
            return proxy.connections

    assert asyncio.run(main()) == 0
