"""Tokens are bound to a key only if the server requires it, not if it only supports it."""

from __future__ import annotations

import pytest

from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.flows.login_preparation import LoginNonces, PreparedLogin, prepare_login
from hermes_mcp_auth_remote.oauth.challenge import Challenge, read_challenge
from hermes_mcp_auth_remote.values import Secret, Server, ServerOptions
from tests.exchange_script import ExchangeScript, script_exchange
from tests.oauth.builders import ISSUER, NOW, REDIRECT_URI, STATE, VERIFIER, metadata
from tests.requirements import covers

URL = "https://mcp.example/mcp"
PRM = "https://mcp.example/.well-known/oauth-protected-resource/mcp"
DPOP_SUPPORTED: dict[str, object] = {"dpop_signing_alg_values_supported": ["ES256"]}
DPOP_REQUIRED: dict[str, object] = {"dpop_bound_access_tokens_required": True}
DPOP_ONLY_CHALLENGE = [f'DPoP algs="ES256", resource_metadata="{PRM}"']


def script_preparation(
    *,
    lines: list[str] | None = None,
    resource: dict[str, object] | None = None,
    dpop: bool | None = None,
    can_use_dpop: bool = True,
    **server_metadata: object,
) -> ExchangeScript[PreparedLogin]:
    """Script a login up to the authorization server's metadata."""
    server = Server("x", URL, ServerOptions(client_id="mine", dpop=dpop))
    challenge = Challenge((PRM,)) if lines is None else read_challenge(lines)
    nonces = LoginNonces(Secret(STATE), Secret(VERIFIER))
    script = script_exchange(
        prepare_login(server, nonces, REDIRECT_URI, NOW, challenge=challenge, can_use_dpop=can_use_dpop)
    )
    document = {"resource": URL, "authorization_servers": [ISSUER], **(resource or {})}
    script.expects(f"GET {PRM}").responds(200, document)
    script.expects(f"GET {ISSUER}/.well-known/oauth-authorization-server")
    return script.responds(200, metadata(**{**DPOP_SUPPORTED, **server_metadata}))  # type: ignore[arg-type]


@covers("dpop-choice")
@pytest.mark.parametrize(
    "resource",
    [
        {},
        DPOP_SUPPORTED,
        {**DPOP_SUPPORTED, "dpop_bound_access_tokens_required": False},
        {**DPOP_SUPPORTED, "dpop_bound_access_tokens_required": "true"},
    ],
)
def test_dpop_is_not_used_if_it_is_only_supported(resource: dict[str, object]) -> None:
    assert script_preparation(resource=resource).returns().request.uses_dpop is False


@covers("dpop-choice")
@pytest.mark.parametrize(
    ("lines", "bound"),
    [
        (DPOP_ONLY_CHALLENGE, True),
        (["DPoP"], True),
        (["dpop"], True),
        (['Basic realm="x"', "DPoP"], True),
        (["Bearer", *DPOP_ONLY_CHALLENGE], False),
        ([*DPOP_ONLY_CHALLENGE, "Bearer"], False),
        ([f"Bearer, {DPOP_ONLY_CHALLENGE[0]}"], False),
        ([f"{DPOP_ONLY_CHALLENGE[0]}, Bearer"], False),
        ([f'Bearer realm="r", {DPOP_ONLY_CHALLENGE[0]}'], False),
        (["Bearer"], False),
        ([], False),
    ],
)
def test_a_challenge_requires_dpop_only_if_it_names_no_other_token_scheme(
    lines: list[str], *, bound: bool
) -> None:
    assert script_preparation(lines=lines).returns().request.uses_dpop is bound


@covers("dpop-choice")
def test_dpop_is_used_if_the_resource_metadata_requires_it() -> None:
    assert script_preparation(resource=DPOP_REQUIRED).returns().request.uses_dpop is True


@covers("dpop-choice")
@pytest.mark.parametrize("dpop", [True, False])
def test_the_dpop_option_overrides_the_server(*, dpop: bool) -> None:
    assert (
        script_preparation(dpop=dpop, resource={} if dpop else DPOP_REQUIRED).returns().request.uses_dpop
        is dpop
    )


@covers("dpop-choice")
def test_dpop_is_not_used_if_the_authorization_server_does_not_support_it() -> None:
    script = script_preparation(resource=DPOP_REQUIRED, dpop_signing_alg_values_supported=["RS256"])
    assert script.returns().request.uses_dpop is False


@covers("dpop-choice")
def test_missing_dpop_support_fails_before_the_login_only_if_dpop_is_required() -> None:
    script_preparation(resource=DPOP_REQUIRED, can_use_dpop=False).raises(
        ConfigError, "pip install cryptography"
    )
    assert (
        script_preparation(resource=DPOP_SUPPORTED, can_use_dpop=False).returns().request.uses_dpop is False
    )
