"""Token revocation (RFC 7009)."""

from __future__ import annotations

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.oauth.client import Signer
from hermes_mcp_auth_remote.oauth.token import revocation_request
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.store.credentials import Credentials


def revoke_tokens(credentials: Credentials, sign: Signer | None = None) -> Exchange[bool]:
    """Revoke the refresh token, then the access token (RFC 7009 §2.1); True if that ended the session.

    Raises nothing if the authorization server is unreachable or has no revocation endpoint. Some servers
    cannot revoke access tokens, so the result is that of the refresh token if there is one.
    """
    client, authorization_server, tokens = (
        credentials.client,
        credentials.authorization_server,
        credentials.tokens,
    )
    if client is None or authorization_server is None or tokens is None:
        return False
    outcomes: list[bool] = []
    for token, hint in ((tokens.refresh_token, "refresh_token"), (tokens.access_token, "access_token")):
        try:
            request = (
                revocation_request(authorization_server, client, token, hint, sign=sign)
                if token is not None
                else None
            )
            if request is not None:
                response = yield request
                outcomes.append(response.ok)
        except McpAuthError:
            outcomes.append(False)
    return bool(outcomes) and outcomes[0]
