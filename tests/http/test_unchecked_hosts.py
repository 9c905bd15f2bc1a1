"""Behind a proxy, a host from metadata is requested only if this machine can check its addresses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from hermes_mcp_auth_remote.errors import (
    AddressRefused,
    ConfigError,
    HostNotChecked,
    NetworkError,
    Unreachable,
)
from hermes_mcp_auth_remote.http import client, proxies
from hermes_mcp_auth_remote.http.addresses import Address
from hermes_mcp_auth_remote.http.client import run_exchange
from hermes_mcp_auth_remote.http.pooled import HttpClientPool
from hermes_mcp_auth_remote.http.ssrf_guard import Resolver
from hermes_mcp_auth_remote.http.traced_exchange import TracedRequest, run_traced_exchange
from hermes_mcp_auth_remote.oauth.challenge import read_challenge
from hermes_mcp_auth_remote.oauth.metadata import discover_metadata
from hermes_mcp_auth_remote.oauth.wire import Request, get_json, post_form
from hermes_mcp_auth_remote.values import IdentityProvider, Server
from tests.http.names import resolving
from tests.http.peers import (
    Heard,
    Peer,
    always,
    asking,
    configured,
    fetch,
    leading_by_name,
    proxying,
    reply,
    serving,
)
from tests.http.test_proxies import serving_tls
from tests.parts.certificates import Certificates, certificates
from tests.requirements import covers

URL = "https://mcp.example/mcp"
INNER = "vault.corp.example"
KNOWN = leading_by_name(
    mcp_example="1.1.1.1",
    auth_example="1.1.1.2",
    mixed_example=["1.1.1.3", "10.0.0.1"],
    inside_example="10.0.0.1",
    nowhere_example=[],
)


async def hanging(host: str, port: int) -> list[Address]:
    """Hang for the internal host, and resolve all others."""
    if host == INNER:
        await asyncio.Event().wait()
    return await KNOWN(host, port)


@pytest.fixture
def issued(tmp_path: Path) -> Certificates:
    return certificates(
        tmp_path, "mcp.example", "auth.example", INNER, "xn--bcher-kva.example", "sub.auth.example"
    )


class Attempt:
    """Requests for one server through a proxy that resolves any name, and a record of its CONNECTs."""

    def __init__(self, issued: Certificates, **options: Any) -> None:
        self.issued = issued
        self.options = options
        self.asked: list[str] = []
        self.received: list[tuple[str, str]] = []
        self.resolve: Resolver = KNOWN
        self.seconds = 20.0
        self.answer: Callable[[Heard, asyncio.StreamWriter], Awaitable[None]] = always(reply())

    @property
    def server(self) -> Server:
        return configured(URL, ca_file=str(self.issued.ca_file), **{"allow_addresses": (), **self.options})

    def run(self, *requests: Request, environ: Mapping[str, str] | None = None) -> list[int]:
        async def work(proxy: Peer) -> list[int]:
            surroundings = {"HTTPS_PROXY": proxy.url()} if environ is None else environ
            more = {"environ": surroundings, "resolve": self.resolve, "response_seconds": self.seconds}
            return [each.status for each in await fetch(self.server, *requests, **more)]

        statuses: list[int] = self.with_proxy(work)
        return statuses

    def with_proxy(self, work: Callable[[Peer], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            tls = serving_tls(self.issued)
            async with serving(self.answer, tls=tls) as peer, proxying(peer) as proxy:
                try:
                    return await work(proxy)
                finally:
                    self.asked = [heard.target for heard in proxy.heard]
                    self.received = [(heard.method, heard.headers["host"]) for heard in peer.heard]

        return asyncio.run(main())


@covers("unchecked-host")
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("host", [INNER, "nowhere.example", "2130706433.example", "a" * 60 + ".example"])
def test_a_name_that_this_machine_does_not_resolve_is_asked_of_no_proxy(
    issued: Certificates, method: str, host: str
) -> None:
    attempt = Attempt(issued)
    url = f"https://{host}/token"
    with pytest.raises(HostNotChecked) as caught:
        attempt.run(get_json(url, "step") if method == "GET" else post_form(url, "step", {"code": "c"}))
    assert attempt.asked == []
    assert str(caught.value) == (
        f"The addresses of {host} cannot be checked: this machine does not resolve its name, and the proxy "
        "would."
    )
    assert caught.value.advice == (
        f"If you trust that host, add {host} to `oauth.allow_hosts` of this server in config.yaml."
    )


@covers("unchecked-host")
@pytest.mark.parametrize("seconds", [20.0, 0.2])
def test_a_name_that_is_answered_too_late_is_asked_of_no_proxy(
    issued: Certificates, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """This also holds if the whole request has hardly more time than the check."""
    if seconds > 1:
        monkeypatch.setattr(client, "UNTRUSTED_LOOKUP_SECONDS", 0.05)
    attempt = Attempt(issued)
    attempt.resolve, attempt.seconds = hanging, seconds
    with pytest.raises(HostNotChecked):
        attempt.run(post_form(f"https://{INNER}/token", "step", {}))
    assert attempt.asked == []


@covers("unchecked-host")
def test_the_system_s_resolver_is_no_other(issued: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "UNTRUSTED_LOOKUP_SECONDS", 0.05)
    attempt = Attempt(issued)

    async def work(proxy: Peer) -> None:
        await fetch(
            attempt.server, get_json(f"https://{INNER}/", "step"), environ={"HTTPS_PROXY": proxy.url()}
        )

    with resolving() as names, pytest.raises(HostNotChecked):
        attempt.with_proxy(work)
    assert (names.asked, attempt.asked) == ([INNER], [])


@covers("unchecked-host")
@pytest.mark.parametrize(
    "options",
    [
        {"allow_hosts": (INNER,)},
        {"allow_hosts": ("other.example", "Vault.CORP.example.")},
        {"authorization_server": f"https://{INNER}/realm"},
        {"authorization_server": f"https://{INNER.upper()}:8443"},
        {"identity_provider": IdentityProvider(f"https://{INNER}/token", "file", "client")},
    ],
)
@pytest.mark.parametrize("written", [INNER, f"{INNER}.", INNER.upper()])
def test_a_host_that_the_operator_names_is_asked_of_the_proxy(
    issued: Certificates, options: dict[str, Any], written: str
) -> None:
    attempt = Attempt(issued, **options)
    request = get_json(f"https://{written}/", "step")
    if written.endswith("."):
        # TLS fails for a name with a final dot. The test needs only the request to the proxy.
        with pytest.raises(Unreachable):
            attempt.run(request)
    else:
        assert attempt.run(request) == [200]
    assert attempt.asked
    assert {target.lower() for target in attempt.asked} == {f"{written.lower()}:443"}


@covers("unchecked-host")
@pytest.mark.parametrize(
    "allowed", ["bücher.example", "BÜCHER。example", "xn--bcher-kva.example", "XN--BCHER-KVA.Example."]
)
@pytest.mark.parametrize("written", ["xn--bcher-kva.example", "bücher.example"])
def test_a_host_is_allowed_in_every_spelling_of_its_name(
    issued: Certificates, allowed: str, written: str
) -> None:
    attempt = Attempt(issued, allow_hosts=(allowed,))
    # `safe_url` encodes the host like this.
    request = get_json(f"https://{written.encode('idna').decode()}/", "step")
    assert attempt.run(request) == [200]
    assert attempt.asked == ["xn--bcher-kva.example:443"]


@covers("unchecked-host")
def test_the_server_s_own_host_needs_no_permission_on_any_port(issued: Certificates) -> None:
    attempt = Attempt(issued)
    attempt.resolve = leading_by_name()
    assert attempt.run(get_json(URL, "step"), get_json("https://mcp.example:8443/", "step")) == [200, 200]
    assert attempt.asked == ["mcp.example:443", "mcp.example:8443"]


@covers("unchecked-host")
@pytest.mark.parametrize(
    "allowed",
    [
        "corp.example",
        "example",
        f"sub.{INNER}",
        f"{INNER}.evil.example",
        "vault-corp.example",
        "vault.corp.exampl",
    ],
)
def test_a_host_is_allowed_by_its_whole_name_only(issued: Certificates, allowed: str) -> None:
    attempt = Attempt(issued, allow_hosts=(allowed,))
    with pytest.raises(HostNotChecked):
        attempt.run(get_json(f"https://{INNER}/", "step"))
    assert attempt.asked == []


@pytest.mark.parametrize(
    "wrong",
    [
        "10.0.0.1",
        "127.1",
        "0x7f000001",
        "2130706433",
        "::1",
        "[::1]",
        "*.example",
        "*",
        ".example",
        "a..b",
        "https://auth.example",
        "auth.example:443",
        "auth.example/path",
        "user@auth.example",
        "a b.example",
        "auth.example..",
        ".",
        "",
        "a" * 64 + ".example",
        "ü" * 64 + ".example",
        "\ufdfa" * 8000,
        "a." * 127 + "example",
        "auth.example\n",
        "%00.example",
    ],
)
def test_what_is_no_host_name_is_a_mistake_of_the_configuration(issued: Certificates, wrong: str) -> None:
    attempt = Attempt(issued, allow_hosts=("auth.example", wrong))
    with pytest.raises(ConfigError, match=r"`oauth\.allow_hosts` contains an entry that is not a host name"):
        attempt.run(get_json(URL, "step"))
    assert attempt.asked == []


@covers("unchecked-host", "address-policy")
@pytest.mark.parametrize("host", ["inside.example", "mixed.example"])
def test_an_allowed_host_whose_address_is_known_is_checked_all_the_same(
    issued: Certificates, host: str
) -> None:
    """A host with a public and an internal address is refused too."""
    for options in ({"allow_hosts": (host,)}, {"authorization_server": f"https://{host}"}, {}):
        attempt = Attempt(issued, **options)
        with pytest.raises(AddressRefused) as caught:
            attempt.run(get_json(f"https://{host}/", "step"))
        assert type(caught.value) is AddressRefused
        assert attempt.asked == []


@covers("unchecked-host", "address-policy")
@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "[::ffff:10.0.0.1]", "[fe80::1]"])
def test_a_literal_address_stays_under_the_policy_of_addresses(issued: Certificates, host: str) -> None:
    for server in ("https://auth.example", f"https://{host}"):
        attempt = Attempt(issued, authorization_server=server)
        with pytest.raises(AddressRefused) as caught:
            attempt.run(get_json(f"https://{host}/", "step"))
        assert type(caught.value) is AddressRefused
        assert attempt.asked == []


@covers("unchecked-host", "redirects")
def test_a_redirect_is_checked_by_the_same_rule(issued: Certificates) -> None:
    moved = always(reply(302, b"", {"location": f"https://{INNER}/inner"}))

    async def once(heard: Heard, writer: asyncio.StreamWriter) -> None:
        await (moved if heard.headers["host"] == "mcp.example" else always(reply()))(heard, writer)

    attempt = Attempt(issued)
    attempt.answer = once
    with pytest.raises(HostNotChecked):
        attempt.run(get_json(URL, "step"))
    assert attempt.asked == ["mcp.example:443"]
    attempt = Attempt(issued, allow_hosts=(INNER,))
    attempt.answer = once
    assert attempt.run(get_json(URL, "step")) == [200]
    assert attempt.asked == ["mcp.example:443", f"{INNER}:443"]


@covers("unchecked-host")
@pytest.mark.parametrize(
    "environ", [{}, {"HTTPS_PROXY": "http://10.0.0.1:1", "NO_PROXY": INNER}, {"HTTP_PROXY": "x"}]
)
def test_without_a_proxy_on_its_way_a_name_that_is_not_resolved_is_out_of_reach_as_before(
    issued: Certificates, environ: dict[str, str]
) -> None:
    attempt = Attempt(issued)
    with pytest.raises(Unreachable, match="could not be resolved"):
        attempt.run(get_json(f"https://{INNER}/", "step"), environ=environ)


@covers("unchecked-host")
@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
@pytest.mark.parametrize("variable", ["all_proxy", "ALL_PROXY", "https_proxy"])
def test_every_kind_of_proxy_is_asked_for_checked_names_only(
    issued: Certificates, monkeypatch: pytest.MonkeyPatch, scheme: str, variable: str
) -> None:
    """SOCKS proxies resolve names too, with both schemes."""
    monkeypatch.setattr(proxies, "find_spec", lambda name: name)
    attempt = Attempt(issued)
    with pytest.raises(HostNotChecked):
        attempt.run(get_json(f"https://{INNER}/", "step"), environ={variable: f"{scheme}://127.0.0.1:9"})


@covers("unchecked-host")
def test_metadata_of_a_public_server_makes_us_send_nothing_to_an_inner_host(issued: Certificates) -> None:
    """Attack: metadata names internal hosts as issuers and as endpoints of a public issuer."""
    inner = f"https://{INNER}"
    documents: dict[str, object] = {
        "/.well-known/oauth-protected-resource/mcp": {
            "resource": URL,
            "authorization_servers": [inner, "https://auth.example", f"{inner}/other"],
        },
        "/.well-known/oauth-authorization-server": {
            "issuer": "https://auth.example",
            "authorization_endpoint": "https://auth.example/authorize",
            "token_endpoint": f"{inner}/token",
            "registration_endpoint": f"{inner}/register",
            "code_challenge_methods_supported": ["S256"],
        },
    }

    async def answer(heard: Heard, writer: asyncio.StreamWriter) -> None:
        document = documents.get(heard.target)
        writer.write(reply(404) if document is None else reply(200, json.dumps(document).encode()))

    attempt = Attempt(issued)
    attempt.answer = answer

    async def work(proxy: Peer) -> list[str]:
        environ = {"HTTPS_PROXY": proxy.url()}
        way: dict[str, Any] = {"environ": environ, "resolve": KNOWN}
        found = await run_exchange(discover_metadata(URL, read_challenge(())), attempt.server, **way)
        known = found.authorization_server
        refused: list[str] = []
        for endpoint in (known.registration_endpoint, known.token_endpoint):
            assert endpoint is not None
            for each in (run_exchange, HttpClientPool(**way)):
                more = way if each is run_exchange else {}
                with pytest.raises(NetworkError) as caught:
                    await each(asking(post_form(endpoint, "step", {"code": "c"})), attempt.server, **more)
                refused.append(caught.value.code)
        return refused

    assert attempt.with_proxy(work) == ["host_not_checked"] * 4
    assert {target.partition(":")[0] for target in attempt.asked} == {"mcp.example", "auth.example"}
    assert {method for method, _ in attempt.received} == {"GET"}


@covers("unchecked-host")
def test_who_watches_is_told_that_nothing_went_to_the_proxy(issued: Certificates) -> None:
    seen: list[TracedRequest] = []
    attempt = Attempt(issued)

    async def work(proxy: Peer) -> None:
        requests = asking(get_json(URL, "first"), get_json(f"https://{INNER}/", "second"))
        environ = {"HTTPS_PROXY": proxy.url()}
        with resolving(mcp_example="1.1.1.1") as names:
            names.refused.add(INNER)
            with pytest.raises(HostNotChecked):
                await run_traced_exchange(requests, attempt.server, seen.append, environ=environ)

    attempt.with_proxy(work)
    assert [(each.request.step, each.proxy is None) for each in seen] == [("first", False), ("second", True)]
    assert isinstance(seen[1].outcome, HostNotChecked)
