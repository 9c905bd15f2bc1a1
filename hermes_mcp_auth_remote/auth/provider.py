"""The MCP SDK's OAuthClientProvider, 1.x or 2.x, with our session: its own login, our refresh and our lock.

    provider = shared_provider(OAuthClientProvider)(url, client_metadata, SharedTokenStorage(url), ...)

Each request takes its token from the session that all processes share; the SDK's own flow runs only where a
person has to log in, once for all requests that wait, and what it brings is stored for all. A subclass that
makes a storage of its own, such as FastMCP's `OAuth`, goes in as well: its storage gives way to ours.
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
"""Requests out, responses in: of httpx or of httpx2, whichever the SDK stands on."""


class Provider(Protocol):
    """What we need of an OAuthClientProvider."""

    @property
    def context(self) -> SdkContext:
        """All that it knows."""
        ...

    def async_auth_flow(self, request: Any, /) -> RequestFlow:  # noqa: ANN401
        """Run by httpx for each request."""
        ...


P = TypeVar("P", bound=Provider)


def shared_provider(base: type[P]) -> type[P]:
    """Return a subclass of a provider's class, made and used as that is, whose tokens are everybody's."""

    def async_auth_flow(self: Provider, request: Any) -> RequestFlow:  # noqa: ANN401
        return _shared_flow(
            _ensure_shared_storage(self),
            self.context,
            lambda it: base.async_auth_flow(cast("P", self), it),
            request,
        )

    def sync_auth_flow(self: Provider, request: Any) -> Generator[Any, Any]:  # noqa: ANN401
        # The SDK's own serves no synchronous client: it would send no token.
        storage = _ensure_shared_storage(self)
        where = url_origin(type(request.url)(storage.server.url))
        return bearer_flow_blocking(storage.session, where, request)

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
    where = url_origin(type(request.url)(storage.server.url))
    with hiding_locals():
        refused: Any = None
        sent: Secret | None = None
        ours: RequestFlow = bearer_flow(storage.session, where, request)
        try:
            outgoing = await anext(ours)
            while True:
                refused = yield outgoing
                outgoing = await ours.asend(refused)
        except StopAsyncIteration:
            return
        except AuthorizationRequired:
            sent = Secret(request.headers.pop("Authorization", ""))
            request.headers.pop("DPoP", None)
        finally:
            await ours.aclose()
        async with storage.login_lock():
            found = await storage.authorization_header()
            authorization = None if found is None else Secret(found)
            del found
            if authorization is not None and authorization != sent:
                # Somebody has logged in while this one waited.
                request.headers["Authorization"] = authorization.reveal()
                yield request
                return
            # Its memory is of an earlier login; the store is what counts.
            context.clear_tokens()
            context.current_tokens = await storage.get_tokens()
            context.client_info = await storage.get_client_info()
            theirs = start_sdk_flow(request)
            try:
                outgoing = await anext(theirs)
                # It begins with the request itself, whose answer is known already.
                answer = refused if refused is not None and outgoing is request else (yield outgoing)
                while True:
                    outgoing = await theirs.asend(answer)
                    answer = yield outgoing
            except StopAsyncIteration:
                return
            finally:
                await theirs.aclose()
