"""The metadata documents that may name the device authorization endpoint."""

from __future__ import annotations

import pytest

from hermes_mcp_auth_remote.errors import (
    TimedOut,
)
from hermes_mcp_auth_remote.oauth.client import DEVICE_GRANT
from hermes_mcp_auth_remote.oauth.device import (
    find_device_endpoint,
)
from hermes_mcp_auth_remote.oauth.metadata import (
    AuthorizationServer,
    default_authorization_server,
)
from tests.exchange_script import ExchangeScript, script_exchange
from tests.oauth.builders import (
    HTML,
    ISSUER,
    OPENID,
    metadata,
    server,
)
from tests.requirements import covers

ENDPOINT = f"{ISSUER}/device_authorization"
DEVICE_SERVER = server(device_authorization_endpoint=ENDPOINT)


def script_endpoint_search(
    issuer: str = ISSUER, *, trusted_issuers: tuple[str, ...] = (), **members: object
) -> ExchangeScript[AuthorizationServer]:
    return script_exchange(find_device_endpoint(issuer, server(issuer=issuer, **members), trusted_issuers))


@covers("device-endpoint")
def test_quirk_46_a_device_endpoint_is_read_from_the_openid_document() -> None:
    grants = ["authorization_code", DEVICE_GRANT]
    openid = metadata(device_authorization_endpoint=ENDPOINT, grant_types_supported=grants)
    script = script_endpoint_search(grant_types_supported=["authorization_code"]).expects(
        f"GET {ISSUER}{OPENID}"
    )
    authorization_server = script.responds(200, openid).returns()
    assert authorization_server.device_authorization_endpoint == ENDPOINT
    assert authorization_server.grant_types_supported == tuple(grants)
    assert authorization_server.document["device_authorization_endpoint"] == ENDPOINT
    assert authorization_server.document["grant_types_supported"] == grants
    script = script_endpoint_search(grant_types_supported=["authorization_code"]).expects(
        f"GET {ISSUER}{OPENID}"
    )
    without_grants = script.responds(200, metadata(device_authorization_endpoint=ENDPOINT)).returns()
    assert without_grants.grant_types_supported is None
    assert "grant_types_supported" not in without_grants.document


@covers("device-endpoint")
def test_quirk_46_other_members_of_the_openid_document_are_ignored() -> None:
    other = metadata(
        device_authorization_endpoint=ENDPOINT,
        authorization_endpoint=f"{ISSUER}/other",
        registration_endpoint=f"{ISSUER}/other",
        code_challenge_methods_supported=None,
    )
    authorization_server = (
        script_endpoint_search().expects(f"GET {ISSUER}{OPENID}").responds(200, other).returns()
    )
    assert authorization_server.authorization_endpoint == f"{ISSUER}/authorize"
    assert authorization_server.registration_endpoint == f"{ISSUER}/register"
    assert authorization_server.code_challenge_methods_supported == ("S256",)


@covers("device-endpoint")
def test_quirk_46_both_openid_urls_of_an_issuer_with_a_path_are_tried() -> None:
    issuer = f"{ISSUER}/tenant"
    openid = metadata(issuer, device_authorization_endpoint=f"{issuer}/device")
    script = script_endpoint_search(issuer, token_endpoint=f"{issuer}/token")
    script.expects(f"GET {ISSUER}{OPENID}/tenant").responds(404)
    script.expects(f"GET {issuer}{OPENID}").responds(200, openid)
    assert script.returns().device_authorization_endpoint == f"{issuer}/device"


@covers("device-endpoint")
def test_no_request_is_sent_for_a_known_endpoint_or_default_endpoints() -> None:
    assert script_exchange(find_device_endpoint(ISSUER, DEVICE_SERVER)).returns() is DEVICE_SERVER
    default_server = default_authorization_server("https://mcp.example/mcp")
    assert (
        script_exchange(find_device_endpoint(default_server.issuer, default_server)).returns()
        is default_server
    )


@covers("device-endpoint", "issuer-exact")
@pytest.mark.parametrize(
    ("status", "document"),
    [
        (404, None),
        (503, None),
        (200, HTML),
        (200, metadata()),
        (200, metadata(issuer="https://evil.example", device_authorization_endpoint=ENDPOINT)),
        (200, metadata(device_authorization_endpoint=ENDPOINT, token_endpoint=f"{ISSUER}/other")),
        (200, metadata(device_authorization_endpoint="http://evil.example/device")),
        (200, metadata(device_authorization_endpoint=7)),
    ],
    ids=[
        "absent",
        "failing",
        "HTML",
        "lacking",
        "another issuer",
        "another token endpoint",
        "unsafe",
        "junk",
    ],
)
def test_an_unusable_openid_document_does_not_change_the_server(
    status: int, document: dict[str, object] | str | None
) -> None:
    script = script_endpoint_search().expects(f"GET {ISSUER}{OPENID}").responds(status, document)
    assert script.returns() == server()
    script = (
        script_endpoint_search()
        .expects(f"GET {ISSUER}{OPENID}")
        .fails(TimedOut("as.example did not respond."))
    )
    assert script.returns() == server()


@covers("device-endpoint")
def test_a_trusted_issuer_is_accepted_in_the_openid_document() -> None:
    authorization_server = server(issuer="https://parent.example", token_endpoint=f"{ISSUER}/token")
    openid = metadata(
        issuer="https://parent.example",
        device_authorization_endpoint=ENDPOINT,
        token_endpoint=f"{ISSUER}/token",
        authorization_endpoint=f"{ISSUER}/authorize",
    )
    for trusted, endpoint in (
        (("https://parent.example", ISSUER), ENDPOINT),
        (("https://parent.example",), None),
    ):
        script = script_exchange(find_device_endpoint(ISSUER, authorization_server, trusted)).expects(
            f"GET {ISSUER}{OPENID}"
        )
        assert script.responds(200, openid).returns().device_authorization_endpoint == endpoint
