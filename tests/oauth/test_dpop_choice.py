"""Tokens are bound to a key only if the server requires it, not if it only supports it."""

from __future__ import annotations

import pytest

from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.flows.login_preparation import LoginNonces, PreparedLogin, prepare_login
from hermes_mcp_auth_remote.oauth.challenge import Challenge, read_challenge
from hermes_mcp_auth_remote.values import Secret, Server, ServerOptions
from tests.oauth.parties import ISSUER, NOW, REDIRECT_URI, STATE, VERIFIER, metadata
from tests.playbook import Play, play
from tests.requirements import covers

URL = "https://mcp.example/mcp"
PRM = "https://mcp.example/.well-known/oauth-protected-resource/mcp"
OFFERED: dict[str, object] = {"dpop_signing_alg_values_supported": ["ES256"]}
REQUIRED: dict[str, object] = {"dpop_bound_access_tokens_required": True}
ONLY_DPOP = [f'DPoP algs="ES256", resource_metadata="{PRM}"']


def preparing(
    *,
    lines: list[str] | None = None,
    resource: dict[str, object] | None = None,
    dpop: bool | None = None,
    can_prove: bool = True,
    **listed: object,
) -> Play[PreparedLogin]:
    """Script a login up to the authorization server's metadata."""
    server = Server("x", URL, ServerOptions(client_id="mine", dpop=dpop))
    challenge = Challenge((PRM,)) if lines is None else read_challenge(lines)
    chance = LoginNonces(Secret(STATE), Secret(VERIFIER))
    script = play(
        prepare_login(server, chance, REDIRECT_URI, NOW, challenge=challenge, can_use_dpop=can_prove)
    )
    document = {"resource": URL, "authorization_servers": [ISSUER], **(resource or {})}
    script.expects(f"GET {PRM}").answers(200, document)
    script.expects(f"GET {ISSUER}/.well-known/oauth-authorization-server")
    return script.answers(200, metadata(**{**OFFERED, **listed}))  # type: ignore[arg-type]


@covers("dpop-choice")
@pytest.mark.parametrize(
    "resource",
    [
        {},
        OFFERED,
        {**OFFERED, "dpop_bound_access_tokens_required": False},
        {**OFFERED, "dpop_bound_access_tokens_required": "true"},
    ],
)
def test_dpop_that_is_merely_offered_binds_nothing(resource: dict[str, object]) -> None:
    assert preparing(resource=resource).returns().request.uses_dpop is False


@covers("dpop-choice")
@pytest.mark.parametrize(
    ("lines", "bound"),
    [
        (ONLY_DPOP, True),
        (["DPoP"], True),
        (["dpop"], True),
        (['Basic realm="x"', "DPoP"], True),
        (["Bearer", *ONLY_DPOP], False),
        ([*ONLY_DPOP, "Bearer"], False),
        ([f"Bearer, {ONLY_DPOP[0]}"], False),
        ([f"{ONLY_DPOP[0]}, Bearer"], False),
        ([f'Bearer realm="r", {ONLY_DPOP[0]}'], False),
        (["Bearer"], False),
        ([], False),
    ],
)
def test_a_challenge_binds_only_if_it_names_no_other_token_scheme(lines: list[str], *, bound: bool) -> None:
    assert preparing(lines=lines).returns().request.uses_dpop is bound


@covers("dpop-choice")
def test_metadata_that_requires_bound_tokens_binds() -> None:
    assert preparing(resource=REQUIRED).returns().request.uses_dpop is True


@covers("dpop-choice")
@pytest.mark.parametrize("dpop", [True, False])
def test_the_operators_word_counts_before_the_servers(*, dpop: bool) -> None:
    assert preparing(dpop=dpop, resource={} if dpop else REQUIRED).returns().request.uses_dpop is dpop


@covers("dpop-choice")
def test_an_authorization_server_that_cannot_bind_gets_no_proof() -> None:
    script = preparing(resource=REQUIRED, dpop_signing_alg_values_supported=["RS256"])
    assert script.returns().request.uses_dpop is False


@covers("dpop-choice")
def test_a_key_that_is_required_and_cannot_be_made_is_said_before_the_person_logs_in() -> None:
    preparing(resource=REQUIRED, can_prove=False).raises(ConfigError, "pip install cryptography")
    assert preparing(resource=OFFERED, can_prove=False).returns().request.uses_dpop is False
