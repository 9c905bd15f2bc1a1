"""Discovery at servers that fail, lie or name other hosts: what is refused, skipped and bounded."""

from __future__ import annotations

import pytest

from hermes_mcp_auth_remote.errors import (
    AddressRefused,
    DiscoveryFailed,
    MalformedResponse,
    TimedOut,
    UnsafeUrl,
)
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.metadata import MAX_ISSUERS_TRIED, discover_metadata
from tests.exchange_script import script_exchange
from tests.oauth.builders import (
    CHALLENGE,
    HTML,
    OPENID,
    PRM,
    RFC8414,
    URL,
    metadata,
    prm,
    script_discovery,
    server,
)
from tests.requirements import covers


@covers("prm-downgrade")
@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_error_is_not_treated_as_missing_metadata(status: int) -> None:
    script = (
        script_exchange(discover_metadata(URL, Challenge()))
        .expects(f"{PRM}/mcp")
        .responds(status)
        .expects(PRM)
        .responds(404)
    )
    script.raises(DiscoveryFailed, f"the server responded with status {status}.")


@covers("prm-downgrade")
def test_a_timeout_is_not_treated_as_missing_metadata() -> None:
    script = (
        script_exchange(discover_metadata(URL, Challenge())).expects(f"{PRM}/mcp").fails(TimedOut("late"))
    )
    script.expects(PRM).responds(404).raises(TimedOut)


@covers("safe-urls")
def test_a_refused_address_ends_discovery() -> None:
    script = (
        script_exchange(discover_metadata(URL, CHALLENGE))
        .expects(f"{PRM}/mcp")
        .fails(AddressRefused("private"))
    )
    script.raises(AddressRefused)


@covers("prm-downgrade")
@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"resource": "https://mcp.exam', MalformedResponse),
        (b'{"resource": "' + b"a" * 10_000_000 + b'"}', MalformedResponse),
        (b"[" * 500_000, MalformedResponse),
        ([], MalformedResponse),
        ({"authorization_servers": ["https://as.example"]}, MalformedResponse),
        ({"resource": 7, "authorization_servers": ["https://as.example"]}, MalformedResponse),
        ({"resource": "javascript:alert(1)", "authorization_servers": ["https://as.example"]}, UnsafeUrl),
        ({"resource": URL}, DiscoveryFailed),
        ({"resource": URL, "authorization_servers": []}, DiscoveryFailed),
        ({"resource": URL, "authorization_servers": "https://as.example"}, DiscoveryFailed),
        (prm("file:///etc/passwd"), UnsafeUrl),
        (prm("http://as.example"), UnsafeUrl),
        (prm("https://u:p@as.example"), UnsafeUrl),
        (prm("data:application/json,{}"), UnsafeUrl),
    ],
    ids=[
        "truncated",
        "10 MB",
        "500,000 brackets",
        "a list",
        "no resource",
        "a number as resource",
        "javascript: as resource",
        "no authorization_servers",
        "no authorization server",
        "text for a list",
        "file: issuer",
        "plain http issuer",
        "issuer with user information",
        "data: issuer",
    ],
)
def test_invalid_protected_resource_metadata_is_not_treated_as_missing(
    body: object, error: type[MalformedResponse]
) -> None:
    script = script_exchange(discover_metadata(URL, Challenge())).expects(f"{PRM}/mcp").responds(200, body)  # type: ignore[arg-type]
    script.expects(PRM).responds(404).raises(error)


@covers("safe-urls")
def test_an_unsafe_metadata_url_is_not_fetched() -> None:
    script = script_exchange(
        discover_metadata(URL, Challenge(("file:///etc/passwd", "http://169.254.169.254/")))
    )
    script.expects(f"{PRM}/mcp").responds(404).expects(PRM).responds(404).raises(UnsafeUrl)


@covers("safe-urls")
@pytest.mark.parametrize(
    "name",
    [
        "authorization_endpoint",
        "token_endpoint",
        "registration_endpoint",
        "revocation_endpoint",
        "device_authorization_endpoint",
        "pushed_authorization_request_endpoint",
    ],
)
@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "javascript:alert(1)", "data:,x", "http://as.example/x", "https://a@b.example/"],
)
def test_an_unsafe_endpoint_is_refused(name: str, url: str) -> None:
    script = script_discovery("https://as.example")
    for path in (RFC8414, OPENID):
        script.expects(f"GET https://as.example{path}").responds(200, metadata(**{name: url}))
    script.raises(UnsafeUrl, name)


@covers("prm-downgrade")
@pytest.mark.parametrize("name", ["issuer", "authorization_endpoint", "token_endpoint"])
def test_authorization_server_metadata_without_a_required_member_is_refused(name: str) -> None:
    document = {key: value for key, value in metadata().items() if key != name}
    script = script_discovery("https://as.example")
    for path in (RFC8414, OPENID):
        script.expects(f"GET https://as.example{path}").responds(200, document)
    script.raises(MalformedResponse, name)


@covers("fetch-bounds")
def test_the_number_of_tried_issuers_is_limited() -> None:
    issuers = [f"https://as{n}.example" for n in range(1000)]
    script = (
        script_exchange(discover_metadata(URL, CHALLENGE)).expects(f"{PRM}/mcp").responds(200, prm(*issuers))
    )
    for issuer in issuers[:MAX_ISSUERS_TRIED]:
        script.expects(f"GET {issuer}{RFC8414}").responds(404).expects(f"GET {issuer}{OPENID}").responds(404)
    script.raises(DiscoveryFailed)


def test_the_issuer_of_stored_credentials_is_tried_first() -> None:
    script = script_exchange(discover_metadata(URL, CHALLENGE, preferred_issuer="https://two.example/"))
    script.expects(f"{PRM}/mcp").responds(200, prm("https://one.example", "https://two.example"))
    script.expects(f"GET https://two.example{RFC8414}").responds(
        200, metadata("https://two.example/")
    ).returns()


def test_unsafe_and_unreachable_issuers_are_skipped() -> None:
    issuers = ("http://keycloak:8080", "https://dead.example", "https://as.example")
    script = (
        script_exchange(discover_metadata(URL, CHALLENGE)).expects(f"{PRM}/mcp").responds(200, prm(*issuers))
    )
    script.expects(f"GET https://dead.example{RFC8414}").fails(TimedOut("late"))
    script.expects(f"GET https://as.example{RFC8414}").responds(200, metadata()).returns()


def test_a_configured_authorization_server_needs_no_resource_metadata() -> None:
    script = script_exchange(discover_metadata(URL, Challenge(), configured_issuer="https://as.example"))
    script.expects(f"{PRM}/mcp").responds(500).expects(PRM).responds(200, HTML)
    result = script.expects(f"GET https://as.example{RFC8414}").responds(200, metadata()).returns()
    assert result.protected_resource is None


@covers("safe-urls")
@pytest.mark.parametrize(
    "name", ["authorization", "token", "registration", "revocation", "device_authorization"]
)
@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "https://localhost/x", "http://[::1]/x"])
def test_a_remote_issuer_cannot_name_an_endpoint_on_this_machine(name: str, url: str) -> None:
    with pytest.raises(UnsafeUrl, match=f"`{name}_endpoint` is on this machine, but the issuer is not"):
        server(**{f"{name}_endpoint": url})
    assert server(issuer="http://127.0.0.1:8", **{f"{name}_endpoint": url}).issuer == "http://127.0.0.1:8"
