"""Subclass the MCP SDK's OAuthClientProvider (1.x or 2.x): the SDK logs in, this package refreshes.

    provider = shared_provider(OAuthClientProvider)(url, client_metadata, SharedTokenStorage(url), ...)

Each request takes its token from the session that all processes share. The SDK's own flow runs only if a user
must log in. All waiting requests share that flow, and its tokens are stored for all processes. `base` may be
a subclass with its own storage, such as FastMCP's `OAuth`: a SharedTokenStorage replaces that storage.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Protocol, TypeVar, cast

from hermes_mcp_auth_remote.auth.flow import bearer_flow, bearer_flow_blocking, url_origin
from hermes_mcp_auth_remote.auth.storage import SdkContext, SharedTokenStorage
from hermes_mcp_auth_remote.errors import AuthorizationRequired
from hermes_mcp_auth_remote.traceback_redaction import hiding_locals
from hermes_mcp_auth_remote.values import Secret

RequestFlow = AsyncGenerator[Any, Any]
"""Yields requests and takes responses, of httpx or httpx2, depending on the SDK."""


class Provider(Protocol):
    """The interface of an OAuthClientProvider that this module uses."""

    @property
    def context(self) -> SdkContext:
        """The provider's OAuthContext."""
        ...

    def async_auth_flow(self, request: Any, /) -> RequestFlow:  # noqa: ANN401
        """Send a request; the HTTP client calls this for each request."""
        ...


P = TypeVar("P", bound=Provider)


def shared_provider(base: type[P]) -> type[P]:
    """Return a subclass of a provider class with the same interface and shared tokens."""

    def async_auth_flow(self: Provider, request: Any) -> RequestFlow:  # noqa: ANN401
        return _shared_flow(
            _ensure_shared_storage(self),
            self.context,
            lambda it: base.async_auth_flow(cast("P", self), it),
            request,
        )

    def sync_auth_flow(self: Provider, request: Any) -> Generator[Any, Any]:  # noqa: ANN401
        # The SDK's provider does not support synchronous clients: it would send no token.
        storage = _ensure_shared_storage(self)
        server_origin = url_origin(type(request.url)(storage.server.url))
        return bearer_flow_blocking(storage.session, server_origin, request)

    members = {"async_auth_flow": async_auth_flow, "sync_auth_flow": sync_auth_flow, "__doc__": base.__doc__}
    return cast("type[P]", type(f"Shared{base.__name__}", (base,), members))


def _ensure_shared_storage(provider: Provider) -> SharedTokenStorage:
    context = provider.context
    storage = context.storage
    if not isinstance(storage, SharedTokenStorage):
        storage = context.storage = SharedTokenStorage(context.server_url)
    storage.context = context
    return storage


async def _shared_flow(
    storage: SharedTokenStorage,
    context: SdkContext,
    start_sdk_flow: Callable[[Any], RequestFlow],
    request: Any,  # noqa: ANN401
) -> RequestFlow:
    server_origin = url_origin(type(request.url)(storage.server.url))
    with hiding_locals():
        refused_response: Any = None
        sent_header: Secret | None = None
        session_flow: RequestFlow = bearer_flow(storage.session, server_origin, request)
        try:
            outgoing = await anext(session_flow)
            while True:
                refused_response = yield outgoing
                outgoing = await session_flow.asend(refused_response)
        except StopAsyncIteration:
            return
        except AuthorizationRequired:
            sent_header = Secret(request.headers.pop("Authorization", ""))
            request.headers.pop("DPoP", None)
        finally:
            await session_flow.aclose()
        async with storage.login_lock():
            plain_header = await storage.authorization_header()
            authorization = None if plain_header is None else Secret(plain_header)
            del plain_header
            if authorization is not None and authorization != sent_header:
                # Another caller has logged in while this request waited.
                request.headers["Authorization"] = authorization.reveal()
                yield request
                return
            # The SDK's context may hold the tokens of an earlier login. Load the stored credentials instead.
            context.clear_tokens()
            context.current_tokens = await storage.get_tokens()
            context.client_info = await storage.get_client_info()
            sdk_flow = start_sdk_flow(request)
            try:
                outgoing = await anext(sdk_flow)
                # The SDK's flow first yields the request itself. Reuse the response that is already here.
                response = (
                    refused_response
                    if refused_response is not None and outgoing is request
                    else (yield outgoing)
                )
                while True:
                    outgoing = await sdk_flow.asend(response)
                    response = yield outgoing
            except StopAsyncIteration:
                return
            finally:
                await sdk_flow.aclose()
