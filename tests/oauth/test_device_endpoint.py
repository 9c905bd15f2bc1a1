"""Which metadata documents may name the device authorization endpoint."""

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
from tests.oauth.parties import (
    HTML,
    ISSUER,
    OPENID,
    metadata,
    server,
)
from tests.playbook import Play, play
from tests.requirements import covers

ENDPOINT = f"{ISSUER}/device_authorization"
WITH_DEVICE = server(device_authorization_endpoint=ENDPOINT)


def finding(
    issuer: str = ISSUER, *, trusted: tuple[str, ...] = (), **members: object
) -> Play[AuthorizationServer]:
    return play(find_device_endpoint(issuer, server(issuer=issuer, **members), trusted))


@covers("device-endpoint")
def test_quirk_46_an_endpoint_that_only_the_openid_document_names_is_found_and_kept() -> None:
    grants = ["authorization_code", DEVICE_GRANT]
    openid = metadata(device_authorization_endpoint=ENDPOINT, grant_types_supported=grants)
    script = finding(grant_types_supported=["authorization_code"]).expects(f"GET {ISSUER}{OPENID}")
    found = script.answers(200, openid).returns()
    assert found.device_authorization_endpoint == ENDPOINT
    assert found.grant_types_supported == tuple(grants)
    assert found.document["device_authorization_endpoint"] == ENDPOINT
    assert found.document["grant_types_supported"] == grants
    script = finding(grant_types_supported=["authorization_code"]).expects(f"GET {ISSUER}{OPENID}")
    silent = script.answers(200, metadata(device_authorization_endpoint=ENDPOINT)).returns()
    assert silent.grant_types_supported is None
    assert "grant_types_supported" not in silent.document


@covers("device-endpoint")
def test_quirk_46_all_else_stays_as_the_first_document_said() -> None:
    other = metadata(
        device_authorization_endpoint=ENDPOINT,
        authorization_endpoint=f"{ISSUER}/other",
        registration_endpoint=f"{ISSUER}/other",
        code_challenge_methods_supported=None,
    )
    found = finding().expects(f"GET {ISSUER}{OPENID}").answers(200, other).returns()
    assert found.authorization_endpoint == f"{ISSUER}/authorize"
    assert found.registration_endpoint == f"{ISSUER}/register"
    assert found.code_challenge_methods_supported == ("S256",)


@covers("device-endpoint")
def test_quirk_46_an_issuer_with_a_path_is_looked_for_in_both_openid_places() -> None:
    issuer = f"{ISSUER}/tenant"
    openid = metadata(issuer, device_authorization_endpoint=f"{issuer}/device")
    script = finding(issuer, token_endpoint=f"{issuer}/token")
    script.expects(f"GET {ISSUER}{OPENID}/tenant").answers(404)
    script.expects(f"GET {issuer}{OPENID}").answers(200, openid)
    assert script.returns().device_authorization_endpoint == f"{issuer}/device"


@covers("device-endpoint")
def test_an_endpoint_that_is_known_or_a_server_that_publishes_nothing_is_not_asked_about() -> None:
    assert play(find_device_endpoint(ISSUER, WITH_DEVICE)).returns() is WITH_DEVICE
    guessed = default_authorization_server("https://mcp.example/mcp")
    assert play(find_device_endpoint(guessed.issuer, guessed)).returns() is guessed


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
def test_a_document_that_cannot_be_used_leaves_the_server_as_it_was(
    status: int, document: dict[str, object] | str | None
) -> None:
    script = finding().expects(f"GET {ISSUER}{OPENID}").answers(status, document)
    assert script.returns() == server()
    script = finding().expects(f"GET {ISSUER}{OPENID}").fails(TimedOut("as.example did not answer."))
    assert script.returns() == server()


@covers("device-endpoint")
def test_a_trusted_issuer_is_trusted_here_too_where_it_is_the_one_that_was_found_first() -> None:
    found = server(issuer="https://parent.example", token_endpoint=f"{ISSUER}/token")
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
        script = play(find_device_endpoint(ISSUER, found, trusted)).expects(f"GET {ISSUER}{OPENID}")
        assert script.answers(200, openid).returns().device_authorization_endpoint == endpoint
