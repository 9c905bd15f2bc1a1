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
from tests.oauth.parties import HTML, NAMED, OPENID, PRM, RFC8414, URL, found, metadata, prm, server
from tests.playbook import play
from tests.requirements import covers


@covers("prm-downgrade")
@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_fails_is_not_taken_for_one_without_metadata(status: int) -> None:
    script = (
        play(discover_metadata(URL, Challenge()))
        .expects(f"{PRM}/mcp")
        .answers(status)
        .expects(PRM)
        .answers(404)
    )
    script.raises(DiscoveryFailed, f"answered {status}")


@covers("prm-downgrade")
def test_a_timeout_is_not_taken_for_absence() -> None:
    script = play(discover_metadata(URL, Challenge())).expects(f"{PRM}/mcp").fails(TimedOut("late"))
    script.expects(PRM).answers(404).raises(TimedOut)


@covers("safe-urls")
def test_a_refused_address_ends_discovery_at_once() -> None:
    script = play(discover_metadata(URL, NAMED)).expects(f"{PRM}/mcp").fails(AddressRefused("private"))
    script.raises(AddressRefused)


@covers("prm-downgrade")
@pytest.mark.parametrize(
    ("body", "error"),
    [
        (HTML, MalformedResponse),
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
        "HTML",
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
def test_protected_resource_metadata_that_is_none_is_never_taken_for_absence(
    body: object, error: type[MalformedResponse]
) -> None:
    script = play(discover_metadata(URL, Challenge())).expects(f"{PRM}/mcp").answers(200, body)  # type: ignore[arg-type]
    script.expects(PRM).answers(404).raises(error)


@covers("safe-urls")
def test_an_unsafe_metadata_address_is_not_fetched() -> None:
    script = play(discover_metadata(URL, Challenge(("file:///etc/passwd", "http://169.254.169.254/"))))
    script.expects(f"{PRM}/mcp").answers(404).expects(PRM).answers(404).raises(UnsafeUrl)


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
    script = found("https://as.example")
    for place in (RFC8414, OPENID):
        script.expects(f"GET https://as.example{place}").answers(200, metadata(**{name: url}))
    script.raises(UnsafeUrl, name)


@covers("prm-downgrade")
@pytest.mark.parametrize("name", ["issuer", "authorization_endpoint", "token_endpoint"])
def test_authorization_server_metadata_without_a_required_member_is_refused(name: str) -> None:
    document = {key: value for key, value in metadata().items() if key != name}
    script = found("https://as.example")
    for place in (RFC8414, OPENID):
        script.expects(f"GET https://as.example{place}").answers(200, document)
    script.raises(MalformedResponse, name)


@covers("fetch-bounds")
def test_a_thousand_issuers_cost_no_thousand_requests() -> None:
    issuers = [f"https://as{n}.example" for n in range(1000)]
    script = play(discover_metadata(URL, NAMED)).expects(f"{PRM}/mcp").answers(200, prm(*issuers))
    for issuer in issuers[:MAX_ISSUERS_TRIED]:
        script.expects(f"GET {issuer}{RFC8414}").answers(404).expects(f"GET {issuer}{OPENID}").answers(404)
    script.raises(DiscoveryFailed)


def test_the_issuer_whose_credentials_we_hold_comes_first_whatever_its_slash() -> None:
    script = play(discover_metadata(URL, NAMED, preferred_issuer="https://two.example/"))
    script.expects(f"{PRM}/mcp").answers(200, prm("https://one.example", "https://two.example"))
    script.expects(f"GET https://two.example{RFC8414}").answers(
        200, metadata("https://two.example/")
    ).returns()


def test_one_unsafe_issuer_does_not_spoil_the_good_one_and_a_dead_one_is_passed_over() -> None:
    issuers = ("http://keycloak:8080", "https://dead.example", "https://as.example")
    script = play(discover_metadata(URL, NAMED)).expects(f"{PRM}/mcp").answers(200, prm(*issuers))
    script.expects(f"GET https://dead.example{RFC8414}").fails(TimedOut("late"))
    script.expects(f"GET https://as.example{RFC8414}").answers(200, metadata()).returns()


def test_an_authorization_server_that_the_operator_names_needs_no_protected_resource_metadata() -> None:
    script = play(discover_metadata(URL, Challenge(), configured_issuer="https://as.example"))
    script.expects(f"{PRM}/mcp").answers(500).expects(PRM).answers(200, HTML)
    result = script.expects(f"GET https://as.example{RFC8414}").answers(200, metadata()).returns()
    assert result.protected_resource is None


@covers("safe-urls")
@pytest.mark.parametrize(
    "name", ["authorization", "token", "registration", "revocation", "device_authorization"]
)
@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "https://localhost/x", "http://[::1]/x"])
def test_a_server_elsewhere_names_no_endpoint_on_this_machine(name: str, url: str) -> None:
    with pytest.raises(UnsafeUrl, match=f"`{name}_endpoint` is on this machine, but the issuer is not"):
        server(**{f"{name}_endpoint": url})
    assert server(issuer="http://127.0.0.1:8", **{f"{name}_endpoint": url}).issuer == "http://127.0.0.1:8"
