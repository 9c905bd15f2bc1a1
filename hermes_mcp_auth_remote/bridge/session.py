"""What opens a lost session again: the client's own messages. Pure; no I/O."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from hermes_mcp_auth_remote.bridge.json_rpc import Message, encode
from hermes_mcp_auth_remote.bridge.request_headers import stateless_version

# More subscriptions of a client are not repeated.
_MAX_SUBSCRIPTIONS = 1000


class SessionMessages:
    """The messages of a client that a new session must get again, in place of a lost one."""

    def __init__(self) -> None:
        self.initialize: Message | None = None
        self.initialized: Message | None = None
        self._log_level: Message | None = None
        # By the address of the resource.
        self._subscriptions: dict[str, Message] = {}
        self._own_ids = itertools.count(1)

    def restart(self, initialize: Message, initialized: Message | None) -> None:
        """Forget the messages of an earlier session, and remember the first messages of the next one."""
        self.initialize, self.initialized = initialize, initialized
        self._log_level, self._subscriptions = None, {}

    def remember(self, message: Message) -> None:
        """Remember a message that the server has received, if a new session needs it too."""
        if stateless_version(message) is not None:
            return
        uri = message.params.get("uri")
        if message.method == "initialize":
            self.restart(message, None)
        elif message.method == "notifications/initialized":
            self.initialized = message
        elif message.method == "logging/setLevel":
            self._log_level = message
        elif message.method == "resources/subscribe" and isinstance(uri, str):
            if len(self._subscriptions) < _MAX_SUBSCRIPTIONS:
                self._subscriptions[uri] = message
        elif message.method == "resources/unsubscribe" and isinstance(uri, str):
            self._subscriptions.pop(uri, None)

    def handshake(self) -> Iterator[Message]:
        """Yield the messages that open a session. The client must not get the response."""
        if self.initialize is not None:
            yield self.with_own_id(self.initialize)
        if self.initialized is not None:
            yield self.initialized

    def settings(self) -> Iterator[Message]:
        """Yield the requests that bring an open session into the state of the lost one."""
        if self._log_level is not None:
            yield self.with_own_id(self._log_level)
        for message in list(self._subscriptions.values()):
            yield self.with_own_id(message)

    def with_own_id(self, message: Message) -> Message:
        """Return a request with an id that no client uses, for a response that the client must not get."""
        members = {**message.members, "id": f"hermes-mcp-auth-{next(self._own_ids)}"}
        return Message(members, encode(members))
