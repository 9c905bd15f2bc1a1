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
from tests.http.fake_dns import patch_dns
from tests.http.peers import (
    Peer,
    ReceivedRequest,
    encode_response,
    fetch,
    make_server,
    make_table_resolver,
    respond_with,
    run_http_server,
    run_proxy,
    send_requests,
)
from tests.http.test_proxies import server_tls_context
from tests.parts.certificates import Certificates, issue_certificates
from tests.requirements import covers

URL = "https://mcp.example/mcp"
INTERNAL_HOST = "vault.corp.example"
TABLE_RESOLVER = make_table_resolver(
    mcp_example="1.1.1.1",
    auth_example="1.1.1.2",
    mixed_example=["1.1.1.3", "10.0.0.1"],
    inside_example="10.0.0.1",
    nowhere_example=[],
)


async def hang_for_internal_host(host: str, port: int) -> list[Address]:
    """Hang for the internal host, and resolve all others."""
    if host == INTERNAL_HOST:
        await asyncio.Event().wait()
    return await TABLE_RESOLVER(host, port)


@pytest.fixture
def issued(tmp_path: Path) -> Certificates:
    return issue_certificates(
        tmp_path, "mcp.example", "auth.example", INTERNAL_HOST, "xn--bcher-kva.example", "sub.auth.example"
    )


class ProxyAttempt:
    """Requests for one server through a proxy that resolves any name, and a record of its CONNECTs."""

    def __init__(self, issued: Certificates, **options: Any) -> None:
        self.issued = issued
        self.options = options
        self.proxy_targets: list[str] = []
        self.received_requests: list[tuple[str, str]] = []
        self.resolve: Resolver = TABLE_RESOLVER
        self.seconds = 20.0
        self.handler: Callable[[ReceivedRequest, asyncio.StreamWriter], Awaitable[None]] = respond_with(
            encode_response()
        )

    @property
    def server(self) -> Server:
        return make_server(URL, ca_file=str(self.issued.ca_file), **{"allow_addresses": (), **self.options})

    def fetch_statuses(self, *requests: Request, environ: Mapping[str, str] | None = None) -> list[int]:
        async def fetch_all(proxy: Peer) -> list[int]:
            environment = {"HTTPS_PROXY": proxy.url()} if environ is None else environ
            options = {"environ": environment, "resolve": self.resolve, "response_seconds": self.seconds}
            return [response.status for response in await fetch(self.server, *requests, **options)]

        statuses: list[int] = self.run_with_proxy(fetch_all)
        return statuses

    def run_with_proxy(self, work: Callable[[Peer], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            tls = server_tls_context(self.issued)
            async with run_http_server(self.handler, tls=tls) as peer, run_proxy(peer) as proxy:
                try:
                    return await work(proxy)
                finally:
                    self.proxy_targets = [heard.target for heard in proxy.requests]
                    self.received_requests = [
                        (heard.method, heard.headers["host"]) for heard in peer.requests
                    ]

        return asyncio.run(main())


@covers("unchecked-host")
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "host", [INTERNAL_HOST, "nowhere.example", "2130706433.example", "a" * 60 + ".example"]
)
def test_an_unresolvable_host_is_not_requested_from_a_proxy(
    issued: Certificates, method: str, host: str
) -> None:
    attempt = ProxyAttempt(issued)
    url = f"https://{host}/token"
    with pytest.raises(HostNotChecked) as caught:
        attempt.fetch_statuses(
            get_json(url, "step") if method == "GET" else post_form(url, "step", {"code": "c"})
        )
    assert attempt.proxy_targets == []
    assert str(caught.value) == (
        f"The addresses of {host} cannot be checked: this machine does not resolve its name. Only the "
        "proxy would resolve it."
    )
    assert caught.value.advice == (
        f"If you trust that host, add {host} to `oauth.allow_hosts` of this server in config.yaml."
    )


@covers("unchecked-host")
@pytest.mark.parametrize("seconds", [20.0, 0.2])
def test_a_host_that_resolves_too_late_is_not_requested_from_a_proxy(
    issued: Certificates, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """The host is also refused if the whole request has hardly more time than the check."""
    if seconds > 1:
        monkeypatch.setattr(client, "UNTRUSTED_LOOKUP_SECONDS", 0.05)
    attempt = ProxyAttempt(issued)
    attempt.resolve, attempt.seconds = hang_for_internal_host, seconds
    with pytest.raises(HostNotChecked):
        attempt.fetch_statuses(post_form(f"https://{INTERNAL_HOST}/token", "step", {}))
    assert attempt.proxy_targets == []


@covers("unchecked-host")
def test_the_system_resolver_is_checked_too(issued: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "UNTRUSTED_LOOKUP_SECONDS", 0.05)
    attempt = ProxyAttempt(issued)

    async def work(proxy: Peer) -> None:
        await fetch(
            attempt.server,
            get_json(f"https://{INTERNAL_HOST}/", "step"),
            environ={"HTTPS_PROXY": proxy.url()},
        )

    with patch_dns() as fake_dns, pytest.raises(HostNotChecked):
        attempt.run_with_proxy(work)
    assert (fake_dns.queries, attempt.proxy_targets) == ([INTERNAL_HOST], [])


@covers("unchecked-host")
@pytest.mark.parametrize(
    "options",
    [
        {"allow_hosts": (INTERNAL_HOST,)},
        {"allow_hosts": ("other.example", "Vault.CORP.example.")},
        {"authorization_server": f"https://{INTERNAL_HOST}/realm"},
        {"authorization_server": f"https://{INTERNAL_HOST.upper()}:8443"},
        {"identity_provider": IdentityProvider(f"https://{INTERNAL_HOST}/token", "file", "client")},
    ],
)
@pytest.mark.parametrize("written", [INTERNAL_HOST, f"{INTERNAL_HOST}.", INTERNAL_HOST.upper()])
def test_a_configured_host_is_requested_from_the_proxy(
    issued: Certificates, options: dict[str, Any], written: str
) -> None:
    attempt = ProxyAttempt(issued, **options)
    request = get_json(f"https://{written}/", "step")
    if written.endswith("."):
        # TLS fails for a name with a final dot. The test needs only the request to the proxy.
        with pytest.raises(Unreachable):
            attempt.fetch_statuses(request)
    else:
        assert attempt.fetch_statuses(request) == [200]
    assert attempt.proxy_targets
    assert {target.lower() for target in attempt.proxy_targets} == {f"{written.lower()}:443"}


@covers("unchecked-host")
@pytest.mark.parametrize(
    "allowed", ["bücher.example", "BÜCHER。example", "xn--bcher-kva.example", "XN--BCHER-KVA.Example."]
)
@pytest.mark.parametrize("written", ["xn--bcher-kva.example", "bücher.example"])
def test_a_host_is_allowed_in_every_notation_of_its_name(
    issued: Certificates, allowed: str, written: str
) -> None:
    attempt = ProxyAttempt(issued, allow_hosts=(allowed,))
    # Encode the host as `safe_url` does.
    request = get_json(f"https://{written.encode('idna').decode()}/", "step")
    assert attempt.fetch_statuses(request) == [200]
    assert attempt.proxy_targets == ["xn--bcher-kva.example:443"]


@covers("unchecked-host")
def test_the_servers_host_is_allowed_on_every_port(issued: Certificates) -> None:
    attempt = ProxyAttempt(issued)
    attempt.resolve = make_table_resolver()
    assert attempt.fetch_statuses(get_json(URL, "step"), get_json("https://mcp.example:8443/", "step")) == [
        200,
        200,
    ]
    assert attempt.proxy_targets == ["mcp.example:443", "mcp.example:8443"]


@covers("unchecked-host")
@pytest.mark.parametrize(
    "allowed",
    [
        "corp.example",
        "example",
        f"sub.{INTERNAL_HOST}",
        f"{INTERNAL_HOST}.evil.example",
        "vault-corp.example",
        "vault.corp.exampl",
    ],
)
def test_a_host_is_allowed_by_its_whole_name_only(issued: Certificates, allowed: str) -> None:
    attempt = ProxyAttempt(issued, allow_hosts=(allowed,))
    with pytest.raises(HostNotChecked):
        attempt.fetch_statuses(get_json(f"https://{INTERNAL_HOST}/", "step"))
    assert attempt.proxy_targets == []


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
def test_an_invalid_host_name_is_a_config_error(issued: Certificates, wrong: str) -> None:
    attempt = ProxyAttempt(issued, allow_hosts=("auth.example", wrong))
    with pytest.raises(ConfigError, match=r"`oauth\.allow_hosts` contains an entry that is not a host name"):
        attempt.fetch_statuses(get_json(URL, "step"))
    assert attempt.proxy_targets == []


@covers("unchecked-host", "address-policy")
@pytest.mark.parametrize("host", ["inside.example", "mixed.example"])
def test_an_allowed_host_that_resolves_is_still_checked(issued: Certificates, host: str) -> None:
    """A host with a public and an internal address is refused too."""
    for options in ({"allow_hosts": (host,)}, {"authorization_server": f"https://{host}"}, {}):
        attempt = ProxyAttempt(issued, **options)
        with pytest.raises(AddressRefused) as caught:
            attempt.fetch_statuses(get_json(f"https://{host}/", "step"))
        assert type(caught.value) is AddressRefused
        assert attempt.proxy_targets == []


@covers("unchecked-host", "address-policy")
@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "[::ffff:10.0.0.1]", "[fe80::1]"])
def test_the_address_policy_still_applies_to_literals(issued: Certificates, host: str) -> None:
    for server in ("https://auth.example", f"https://{host}"):
        attempt = ProxyAttempt(issued, authorization_server=server)
        with pytest.raises(AddressRefused) as caught:
            attempt.fetch_statuses(get_json(f"https://{host}/", "step"))
        assert type(caught.value) is AddressRefused
        assert attempt.proxy_targets == []


@covers("unchecked-host", "redirects")
def test_a_redirect_is_checked_by_the_same_rule(issued: Certificates) -> None:
    moved = respond_with(encode_response(302, b"", {"location": f"https://{INTERNAL_HOST}/inner"}))

    async def redirect_once(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await (moved if request.headers["host"] == "mcp.example" else respond_with(encode_response()))(
            request, writer
        )

    attempt = ProxyAttempt(issued)
    attempt.handler = redirect_once
    with pytest.raises(HostNotChecked):
        attempt.fetch_statuses(get_json(URL, "step"))
    assert attempt.proxy_targets == ["mcp.example:443"]
    attempt = ProxyAttempt(issued, allow_hosts=(INTERNAL_HOST,))
    attempt.handler = redirect_once
    assert attempt.fetch_statuses(get_json(URL, "step")) == [200]
    assert attempt.proxy_targets == ["mcp.example:443", f"{INTERNAL_HOST}:443"]


@covers("unchecked-host")
@pytest.mark.parametrize(
    "environ", [{}, {"HTTPS_PROXY": "http://10.0.0.1:1", "NO_PROXY": INTERNAL_HOST}, {"HTTP_PROXY": "x"}]
)
def test_without_a_proxy_an_unresolvable_host_is_unreachable(
    issued: Certificates, environ: dict[str, str]
) -> None:
    attempt = ProxyAttempt(issued)
    with pytest.raises(Unreachable, match="could not be resolved"):
        attempt.fetch_statuses(get_json(f"https://{INTERNAL_HOST}/", "step"), environ=environ)


@covers("unchecked-host")
@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
@pytest.mark.parametrize("variable", ["all_proxy", "ALL_PROXY", "https_proxy"])
def test_every_kind_of_proxy_requires_a_checked_host(
    issued: Certificates, monkeypatch: pytest.MonkeyPatch, scheme: str, variable: str
) -> None:
    """SOCKS proxies resolve names too, with both schemes of their URLs."""
    monkeypatch.setattr(proxies, "find_spec", lambda name: name)
    attempt = ProxyAttempt(issued)
    with pytest.raises(HostNotChecked):
        attempt.fetch_statuses(
            get_json(f"https://{INTERNAL_HOST}/", "step"), environ={variable: f"{scheme}://127.0.0.1:9"}
        )


@covers("unchecked-host")
def test_metadata_of_a_public_server_causes_no_request_to_an_internal_host(issued: Certificates) -> None:
    """Attack: metadata names internal hosts as issuers and as endpoints of a public issuer."""
    internal_url = f"https://{INTERNAL_HOST}"
    documents: dict[str, object] = {
        "/.well-known/oauth-protected-resource/mcp": {
            "resource": URL,
            "authorization_servers": [internal_url, "https://auth.example", f"{internal_url}/other"],
        },
        "/.well-known/oauth-authorization-server": {
            "issuer": "https://auth.example",
            "authorization_endpoint": "https://auth.example/authorize",
            "token_endpoint": f"{internal_url}/token",
            "registration_endpoint": f"{internal_url}/register",
            "code_challenge_methods_supported": ["S256"],
        },
    }

    async def serve_document(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        document = documents.get(request.target)
        writer.write(
            encode_response(404) if document is None else encode_response(200, json.dumps(document).encode())
        )

    attempt = ProxyAttempt(issued)
    attempt.handler = serve_document

    async def attack(proxy: Peer) -> list[str]:
        environ = {"HTTPS_PROXY": proxy.url()}
        options: dict[str, Any] = {"environ": environ, "resolve": TABLE_RESOLVER}
        discovery = await run_exchange(discover_metadata(URL, read_challenge(())), attempt.server, **options)
        authorization_server = discovery.authorization_server
        error_codes: list[str] = []
        for endpoint in (authorization_server.registration_endpoint, authorization_server.token_endpoint):
            assert endpoint is not None
            for runner in (run_exchange, HttpClientPool(**options)):
                runner_options = options if runner is run_exchange else {}
                with pytest.raises(NetworkError) as caught:
                    await runner(
                        send_requests(post_form(endpoint, "step", {"code": "c"})),
                        attempt.server,
                        **runner_options,
                    )
                error_codes.append(caught.value.code)
        return error_codes

    assert attempt.run_with_proxy(attack) == ["host_not_checked"] * 4
    assert {target.partition(":")[0] for target in attempt.proxy_targets} == {"mcp.example", "auth.example"}
    assert {method for method, _ in attempt.received_requests} == {"GET"}


@covers("unchecked-host")
def test_a_trace_shows_that_the_proxy_got_no_request(issued: Certificates) -> None:
    traced: list[TracedRequest] = []
    attempt = ProxyAttempt(issued)

    async def work(proxy: Peer) -> None:
        requests = send_requests(get_json(URL, "first"), get_json(f"https://{INTERNAL_HOST}/", "second"))
        environ = {"HTTPS_PROXY": proxy.url()}
        with patch_dns(mcp_example="1.1.1.1") as fake_dns:
            fake_dns.missing_hosts.add(INTERNAL_HOST)
            with pytest.raises(HostNotChecked):
                await run_traced_exchange(requests, attempt.server, traced.append, environ=environ)

    attempt.run_with_proxy(work)
    assert [(traced_request.request.step, traced_request.proxy is None) for traced_request in traced] == [
        ("first", False),
        ("second", True),
    ]
    assert isinstance(traced[1].outcome, HostNotChecked)
