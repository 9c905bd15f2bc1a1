"""A TokenStorage for the MCP SDK 1.x and 2.x that uses the store that this package and Hermes share.

The SDK reads a storage only once, at its start, and refreshes without a lock. This storage gives the SDK a
fresh token at the start, and stores the tokens of the SDK's logins. To replace the SDK's refresh as well, use
`auth.provider`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from hermes_mcp_auth_remote.errors import AuthorizationRequired, ConfigError, McpAuthError
from hermes_mcp_auth_remote.oauth.authorization import select_resource
from hermes_mcp_auth_remote.oauth.client import Client, client_from_document
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer, authorization_server_from_document
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.urls import is_same_address
from hermes_mcp_auth_remote.oauth.wire import format_scope, parse_scope
from hermes_mcp_auth_remote.phrases import display_url
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.default import default_service, open_session
from hermes_mcp_auth_remote.store.codec import client_document
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
from hermes_mcp_auth_remote.values import Clock, Owner, Secret, Server


class SdkContext(Protocol):
    """The interface of the SDK's OAuthContext that this package uses; its types differ between versions."""

    server_url: str
    storage: Any
    client_metadata: Any
    oauth_metadata: Any
    client_info: Any
    current_tokens: Any

    def clear_tokens(self) -> None:
        """Forget tokens and expiry."""
        ...

    def get_resource_url(self) -> str:
        """Return the resource that the SDK names in its requests."""
        ...


@with_hidden_locals
class SharedTokenStorage:
    """Storage for the SDK: `OAuthClientProvider(url, metadata, SharedTokenStorage(url), ...)`.

    `server` is a server's name, URL or Server. Pass the provider's `redirect_uri`; without it, the storage
    also returns a client that was registered with another redirect URI. The constructor blocks while it reads
    the configuration and the store. Raises ConfigError, for example if the stored tokens of this name are for
    another URL.
    """

    def __init__(
        self,
        server: str | Server,
        *,
        owner: Owner = None,
        redirect_uri: str | None = None,
        service: AuthService | None = None,
        clock: Clock = time.time,
    ) -> None:
        self.server = open_session(server, owner).server if isinstance(server, str) else server
        self._owner = owner
        self._redirect_uri = redirect_uri
        self._service = service or default_service()
        self._clock = clock
        self.session = self._service.session(self.server, owner)
        # `auth.provider` sets this. It names the authorization server and the client of the SDK's login.
        self.context: SdkContext | None = None
        self._lock: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        # A newly registered client, which is stored with its first tokens.
        self._registered_client: OAuthClientInformationFull | None = None
        binding = self._service.blocking.read_credentials(self.server, owner).binding
        if binding is not None and not is_same_address(binding.server_url, self.server.url):
            raise ConfigError(
                f"The name {self.server.name} already belongs to {display_url(binding.server_url)}.",
                "Give the new server another name in config.yaml.",
            )

    def login_lock(self) -> asyncio.Lock:
        """Return the login lock of this event loop: its holder prompts the user, other requests wait."""
        loop = asyncio.get_running_loop()
        # A program may run several loops in turn; a lock belongs to one of them.
        if self._lock is None or self._lock[0] is not loop:
            self._lock = loop, asyncio.Lock()
        return self._lock[1]

    async def authorization_header(self) -> str | None:
        """Return a valid Authorization header's value, or None if a user must log in."""
        try:
            return await self.session.header()
        except AuthorizationRequired:
            return None

    async def get_tokens(self) -> OAuthToken | None:
        """Return a valid access token, refreshed under the store's lock, or None if a user must log in.

        The refresh token is left out: a refresh without the lock would end the session for all processes.
        Raises a NetworkError or StoreError: a temporary outage must not prompt the user.
        """
        header = await self.authorization_header()
        # The SDK cannot send DPoP proofs.
        if header is None or self.session.prover is not None:
            return None
        tokens = (await self._service.read_credentials(self.server, self._owner)).tokens
        expires_at = tokens.expires_at if tokens is not None else None
        scope = tokens.scope if tokens is not None else None
        return OAuthToken(
            access_token=header.partition(" ")[2],
            expires_in=None if expires_at is None else max(int(expires_at - self._clock()), 0),
            scope=format_scope(scope) if scope else None,
        )

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """Return the client for a login, or None if the SDK must register one first."""
        if self._registered_client is not None:
            return self._registered_client
        options = self.server.options
        stored = await self._service.read_credentials(self.server, self._owner)
        client, redirect_uris = stored.client, self._redirect_uris()
        if options.client_id is not None:
            method = options.token_endpoint_auth_method or (
                "client_secret_post" if options.client_secret else "none"
            )
            client = Client(options.client_id, options.client_secret, method, tuple(redirect_uris))
        elif client is None or (redirect_uris and redirect_uris[0] not in client.redirect_uris):
            # The client has another redirect URI: the authorization server would show an error page.
            return None
        elif client.secret_expires_at is not None and client.secret_expires_at <= self._clock():
            return None
        issuer = stored.binding.issuer if stored.binding else None
        return OAuthClientInformationFull.model_validate({**client_document(client), "issuer": issuer})

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Hold a client in memory until its tokens arrive: the stored tokens belong to another client."""
        self._registered_client = client_info

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Store the tokens of a login with its client and authorization server; raises StoreError."""
        stored = await self._service.read_credentials(self.server, self._owner)
        now, client = self._clock(), stored.client
        client_info = (
            self.context.client_info if self.context is not None else None
        ) or self._registered_client
        if client_info is not None:
            client = _client_from_info(client_info)
        is_same_client = (
            client is not None and stored.client is not None and (client.client_id == stored.client.client_id)
        )
        authorization_server, resource = await self._find_authorization_server(
            stored.authorization_server if is_same_client else None
        )
        new_tokens = Tokens(
            access_token=Secret(tokens.access_token),
            refresh_token=Secret(tokens.refresh_token) if tokens.refresh_token else None,
            scope=parse_scope(tokens.scope) or None if tokens.scope else None,
            expires_at=None if tokens.expires_in is None else now + tokens.expires_in,
            obtained_at=now,
        )
        binding: Binding | None = None
        if client is not None and authorization_server is not None:
            binding = Binding(
                server_name=self.server.name,
                server_url=self.server.url,
                issuer=authorization_server.issuer,
                client_id=client.client_id,
                resource=resource,
                requested_scope=self._requested_scope(),
                connected_at=now,
                config_files=self.server.config_files,
            )
        await self._service.save_credentials(
            self.server, Credentials(new_tokens, client, authorization_server, binding), self._owner
        )
        self._registered_client = None

    async def _find_authorization_server(
        self, stored_authorization_server: AuthorizationServer | None
    ) -> tuple[AuthorizationServer | None, str | None]:
        """Return the authorization server of the SDK's login, and the resource parameter (RFC 8707)."""
        override = self.server.options.resource
        resource = select_resource(self.server.url, None, override)
        try:
            if self.context is not None and self.context.oauth_metadata is not None:
                document = self.context.oauth_metadata.model_dump(mode="json", exclude_none=True)
                sdk_server, resource = (
                    authorization_server_from_document(document),
                    self.context.get_resource_url(),
                )
                # Prefer the stored metadata: it is more complete and has the issuer's exact spelling.
                return (
                    stored_authorization_server
                    if stored_authorization_server is not None
                    and _is_same_authorization_server(stored_authorization_server, sdk_server)
                    else sdk_server
                ), resource
            if stored_authorization_server is not None:
                return stored_authorization_server, resource
            discovery = await self._service.discover(self.server)
        except McpAuthError:
            # The tokens work until they expire; then the user must log in again.
            return None, resource
        protected_resource = discovery.protected_resource
        return discovery.authorization_server, select_resource(self.server.url, protected_resource, override)

    def _redirect_uris(self) -> Sequence[str]:
        if self.context is not None:
            return [str(uri) for uri in self.context.client_metadata.redirect_uris or ()]
        return () if self._redirect_uri is None else (self._redirect_uri,)

    def _requested_scope(self) -> frozenset[str] | None:
        scope = self.context.client_metadata.scope if self.context is not None else None
        return parse_scope(scope) if isinstance(scope, str) else None


def _client_from_info(client_info: OAuthClientInformationFull) -> Client:
    client = client_from_document(client_info.model_dump(mode="json", exclude_none=True))
    # The id of a client ID metadata document is its URL; such a client is not registered.
    is_document = client.client_id.startswith("https://") and client.client_secret is None
    return replace(client, is_registered=not is_document)


def _is_same_authorization_server(first: AuthorizationServer, second: AuthorizationServer) -> bool:
    is_same_issuer = first.issuer.rstrip("/") == second.issuer.rstrip("/")
    return is_same_issuer and first.token_endpoint == second.token_endpoint
