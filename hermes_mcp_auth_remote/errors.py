"""All errors of this package, as one tree. This module imports nothing at its start.

    McpAuthError
    |-- ConfigError                  the configuration is wrong
    |   |-- ServerNotFound
    |   |   `-- SchemeMissing        an address without https://
    |   |-- OwnerNotFound            no login is stored for the owner
    |   `-- AmbiguousAddress         two servers have the address
    |-- ServerError                  a server broke a rule
    |   |-- MalformedResponse        not the JSON or form that the step defines
    |   |-- UnsafeUrl                a URL that this package does not show, open or fetch
    |   |-- DiscoveryFailed
    |   |   |-- ClientRefused        a firewall refuses this program's requests
    |   |   `-- IssuerMismatch
    |   |-- PkceNotSupported
    |   |-- RegistrationError
    |   |   `-- ClientIdRequired
    |   |-- TokensRefused            the protected resource refuses tokens that were just issued
    |   `-- TokenError               RFC 6749 section 5.2, `.error` is the error code
    |       `-- DeviceAuthorizationError  no device code; pasting may still work
    |-- NetworkError                 the network failed; trying again may help
    |   |-- Unreachable
    |   |-- TimedOut
    |   |   `-- StillExchanging      the login continues without its caller
    |   |-- ResponseTooLarge
    |   |-- AddressRefused
    |   |   `-- HostNotChecked       only the proxy can resolve the name, so its addresses are unknown
    |   `-- RedirectRefused
    |-- LoginError                   one login did not succeed
    |   |-- PasteRefused             the login still waits
    |   |   `-- ProviderErrorPasted  an error of the provider without a state
    |   |-- AuthorizationDenied
    |   |-- LoginExpired
    |   |-- LoginCancelled
    |   |-- LoginAlreadyUsed
    |   `-- LoginNotFound
    |-- AuthorizationRequired        the user must log in, and this process cannot ask the user
    `-- StoreError                   a file could not be read or written
        |-- StoreCorrupt
        |-- StoreUnsafe
        |-- StoreUnwritable
        |-- OutOfResources           no file descriptor is left
        `-- StoreBusy

Each class has a stable `.code` for programs, a message that says what happened, and an `.advice` that says
what to do next. The advice is also a note of the exception (PEP 678), so a traceback shows it, also inside an
ExceptionGroup. No message or advice contains a token, a code, a verifier or a paste.

This package writes message and advice itself, because a model may read them. A server's text (an
`error_description`, the scope of a challenge, an unknown error code) is only in `.server_message`, which only
screens for people show (`phrases.quote_server_message`). A message may contain a host name, which comes from
a checked address.
"""

from __future__ import annotations

MAX_SERVER_MESSAGE_CHARS = 300
# The reason of an AuthorizationRequired if no login is stored.
NEVER_LOGGED_IN = "no user has logged in yet"


def clean_server_message(text: str) -> str:
    """Return a server's text on one line, without control characters, cut at 300 characters."""
    # The first cut bounds the work, the second cut bounds the result.
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * MAX_SERVER_MESSAGE_CHARS])
    line = " ".join(printable.split())
    return line if len(line) <= MAX_SERVER_MESSAGE_CHARS else line[: MAX_SERVER_MESSAGE_CHARS - 1] + "…"


class McpAuthError(Exception):
    """Base class of this package's errors. `str(error)` says what happened, `.advice` what to do.

    `.server_message` is the server's text about the error, or "": at most 300 printable characters on one
    line. Show it to people in quotation marks. Never log it, and never pass it to a model.
    """

    code = "error"
    advice = "Run the command again; if it fails in the same way, please report it."

    def __init__(self, message: str, advice: str | None = None, *, server_message: str = "") -> None:
        super().__init__(message)
        self.advice = self.advice if advice is None else advice
        self.server_message = clean_server_message(server_message)

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute. A new advice replaces the note of the old one."""
        if name == "advice":
            notes: list[str] = getattr(self, "__notes__", [])
            others = [note for note in notes if note not in {self.advice, value}]
            super().__setattr__("__notes__", [value, *others])
        super().__setattr__(name, value)

    def __reduce__(self) -> tuple[object, ...]:
        # `copy` and `pickle` would call __init__ with the message alone.
        return _restore_error, (type(self), self.args), self.__dict__


def _restore_error(error_class: type[McpAuthError], args: tuple[object, ...]) -> McpAuthError:
    """Create an error without a call of its __init__; the caller sets its attributes."""
    return error_class.__new__(error_class, *args)


class ConfigError(McpAuthError):
    """The configuration is wrong or incomplete."""

    code = "config"
    advice = "Correct the entry in config.yaml and run the command again."


class ServerNotFound(ConfigError):
    """No server of that name is configured."""

    code = "server_not_found"
    advice = "Add it under `mcp_servers` in config.yaml, or give its address instead of its name."

    def __init__(
        self,
        message: str,
        advice: str | None = None,
        *,
        server_message: str = "",
        config_files: str | None = None,
        similar_names: tuple[str, ...] = (),
    ) -> None:
        """`config_files` is the identity of the files without the server (`hermes_home.config_identity`)."""
        super().__init__(message, advice, server_message=server_message)
        self.config_files = config_files
        self.similar_names = similar_names


class SchemeMissing(ServerNotFound):
    """A text is an address without its scheme. `.text` is this text, `.url` the address that it means."""

    code = "scheme_missing"
    advice = "Put https:// before the address."

    def __init__(
        self,
        message: str,
        advice: str | None = None,
        *,
        server_message: str = "",
        text: str = "",
        url: str = "",
    ) -> None:
        super().__init__(message, advice, server_message=server_message)
        self.text = text
        self.url = url


class OwnerNotFound(ConfigError):
    """Nothing is stored for the owner that the caller gave; `.known_owners` are those with a login."""

    code = "owner_not_found"
    advice = "Run `hermes-mcp-auth status`: it lists the logins of all owners."

    def __init__(
        self,
        message: str,
        advice: str | None = None,
        *,
        server_message: str = "",
        known_owners: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, advice, server_message=server_message)
        self.known_owners = known_owners


class AmbiguousAddress(ConfigError):
    """Two or more servers have the address that the caller gave; `.names` are their names."""

    code = "ambiguous_address"
    advice = "Use the server's name instead of its address."

    def __init__(
        self,
        message: str,
        advice: str | None = None,
        *,
        server_message: str = "",
        names: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, advice, server_message=server_message)
        self.names = names


class ServerError(McpAuthError):
    """A protected resource or an authorization server broke a rule of its protocol."""

    code = "server"
    advice = "Report this to the server's operator, who must fix it."


class MalformedResponse(ServerError):
    """A response lacks the form that the step defines: HTML, truncated JSON, a list, a missing member."""

    code = "unreadable_answer"
    advice = "Check the server's address; if it is right, the server's operator must fix this."


class UnsafeUrl(ServerError):
    """A URL is malformed, or is neither https nor http on loopback. It is not shown, opened or fetched."""

    code = "unsafe_url"
    advice = "Do not continue with this server; report it to its operator."


class DiscoveryFailed(ServerError):
    """Discovery found no usable authorization server for the protected resource."""

    code = "discovery"
    advice = "Check the server's address, and whether it offers OAuth at all."


class ClientRefused(DiscoveryFailed):
    """The server, or its firewall, refuses each request for a metadata document (403, 406 or 451)."""

    code = "client_refused"
    advice = (
        "A firewall may admit only known programs: set `oauth.user_agent` for this server, or the `headers` "
        "that it expects, and try again."
    )


class IssuerMismatch(DiscoveryFailed):
    """Metadata names another issuer than the requested one (RFC 8414 section 3.3)."""

    code = "issuer_mismatch"


class PkceNotSupported(ServerError):
    """The authorization server does not advertise PKCE with S256, which the MCP specification requires."""

    code = "pkce_not_supported"
    advice = (
        "If you know that this authorization server supports PKCE without saying so, set "
        "`oauth.allow_missing_pkce: true` for this server."
    )


class RegistrationError(ServerError):
    """The server refused dynamic client registration or sent a wrong response (RFC 7591 section 3.2.2)."""

    code = "registration_refused"
    advice = "Register a client at the provider by hand and set `oauth.client_id` for this server."
    # True if the same request may succeed later: a 429 or 5xx.
    is_temporary = False


class ClientIdRequired(RegistrationError):
    """The authorization server accepts only clients that its operator registered by hand."""

    code = "client_id_needed"


class TokenError(ServerError):
    """The token endpoint answered with an error; `.error` is its code (RFC 6749 section 5.2).

    `.error` is one of `oauth.token_errors.KNOWN_ERRORS`, else "unknown error", or "status 400" for a response
    without a code. `.verdict` is an `oauth.token_errors.Verdict`: it says if the same request can still
    succeed. `.status` is the status of the response, None if there was none.
    """

    code = "token_refused"
    advice = "Log in again."

    def __init__(
        self,
        message: str,
        error: str,
        advice: str | None = None,
        *,
        server_message: str = "",
        verdict: str = "final",
        status: int | None = None,
    ) -> None:
        super().__init__(message, advice, server_message=server_message)
        self.error = error
        self.verdict = verdict
        self.status = status


class DeviceAuthorizationError(TokenError):
    """The device authorization endpoint issues no code, or does not exist (RFC 8628 section 3.2).

    `.error` is its code: "invalid_scope" if the device flow may not grant that scope, "unauthorized_client"
    if the client is not registered for the flow, "unsupported_grant_type" if the server has no such flow.
    """

    code = "device_refused"
    advice = "Log in by pasting instead: set `oauth.flow: paste` for this server."


class TokensRefused(ServerError):
    """A protected resource refuses access tokens that its authorization server has just issued."""

    code = "tokens_refused"
    advice = "Log in again; if that does not help, the server's operator must fix it."


class NetworkError(McpAuthError):
    """A request failed before its response was complete. `advice` says so if nothing was lost."""

    code = "network"
    advice = "Check the network and try again; nothing was lost."


class Unreachable(NetworkError):
    """The connection failed: name resolution, routing, TLS or a reset."""

    code = "unreachable"


class TimedOut(NetworkError):
    """The response was not complete within the time limit."""

    code = "timed_out"


class StillExchanging(TimedOut):
    """The server received the code of a login and has not responded yet; its response ends the login."""

    code = "still_exchanging"
    advice = "The login continues without you. Check its status in two minutes."


class ResponseTooLarge(NetworkError):
    """The response exceeds the size limit."""

    code = "answer_too_large"
    advice = "Check the server's address; no OAuth response is that large."


class AddressRefused(NetworkError):
    """The name resolves to a private, link-local or otherwise internal address."""

    code = "address_refused"
    advice = (
        "If that network is yours, list it in `oauth.allow_addresses` for this server (such as 10.0.0.0/8)."
    )


class HostNotChecked(AddressRefused):
    """Only a proxy or VPN program can resolve a host name from metadata. The host may be an internal one."""

    code = "host_not_checked"
    advice = "If you trust that host, add its name to `oauth.allow_hosts` of this server in config.yaml."


class RedirectRefused(NetworkError):
    """This process did not follow a redirect of a POST, one redirect too many, or one to an unsafe URL."""

    code = "redirect_refused"
    advice = "Check the server's address; if it is right, the server's operator must fix the redirect."


class LoginError(McpAuthError):
    """One login did not succeed. The stored credentials are unchanged."""

    code = "login"
    advice = "Begin a new login."


class PasteRefused(LoginError):
    """The pasted text does not complete this login. The login still waits for the right text."""

    code = "paste_refused"
    advice = "Copy the whole address that your browser ended on, and paste it again."


class ProviderErrorPasted(PasteRefused):
    """The pasted address contains an error of the provider, and no state that ties it to the login.

    `.error` is the error code, one of `oauth.token_errors.KNOWN_ERRORS` or "unknown error". The login may
    continue with another request: `refused_scope` is the requested scope that the server's text names.
    """

    code = "provider_error_pasted"

    def __init__(
        self,
        message: str,
        advice: str | None = None,
        *,
        error: str = "unknown error",
        server_message: str = "",
        refused_scope: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(message, advice, server_message=server_message)
        self.error = error
        self.refused_scope = refused_scope


class AuthorizationDenied(LoginError):
    """The authorization server redirected back with an error (RFC 6749 section 4.1.2.1)."""

    code = "authorization_denied"

    def __init__(
        self, message: str, error: str, advice: str | None = None, *, server_message: str = ""
    ) -> None:
        super().__init__(message, advice, server_message=server_message)
        self.error = error


class LoginExpired(LoginError):
    """The user did not finish the login in time."""

    code = "login_expired"


class LoginCancelled(LoginError):
    """The user cancelled the login."""

    code = "login_cancelled"


class LoginAlreadyUsed(LoginError):
    """The login is already complete; an authorization response is valid once."""

    code = "login_already_used"
    advice = "If you are not connected, begin a new login."


class LoginNotFound(LoginError):
    """The store has no login with this id."""

    code = "login_not_found"


class AuthorizationRequired(McpAuthError):
    """The user must log in, and this process cannot ask. Holds no address of a login: a model may read it.

    `.server_name` is the server's name. `.reason` says why, in this package's own text. `.login_id` is the id
    of a login that already waits, or None; `.expires_at` is the end of that login in epoch seconds, or None.
    `.challenge` is the `oauth.challenge.Challenge` that the login must satisfy, or None. `advice` is None if
    config.yaml has the server (`commands.login_advice`).
    """

    code = "authorization_required"

    def __init__(
        self,
        server_name: str,
        *,
        reason: str = NEVER_LOGGED_IN,
        login_id: str | None = None,
        expires_at: float | None = None,
        challenge: object | None = None,
        server_message: str = "",
        advice: str | None = None,
    ) -> None:
        super().__init__(
            f"{server_name} needs a login: {reason}.",
            f"Run `hermes-mcp-auth login {_quote(server_name)}`." if advice is None else advice,
            server_message=server_message,
        )
        self.server_name = server_name
        self.reason = reason
        self.login_id = login_id
        self.expires_at = expires_at
        self.challenge = challenge


def _quote(name: str) -> str:
    """Quote a server's name for a shell."""
    import shlex  # noqa: PLC0415  most programs raise no such error

    return shlex.quote(name)


class StoreError(McpAuthError):
    """A file could not be read or written. The message contains the path and never the content."""

    code = "store"


class StoreCorrupt(StoreError):
    """A file's content is invalid. The file is unchanged."""

    code = "store_corrupt"
    advice = "Restore the file from a backup, or delete it and log in again."


class StoreUnsafe(StoreError):
    """A file or directory is a symbolic link, belongs to another user, or is readable by other users."""

    code = "store_unsafe"
    advice = "Make it a plain file or directory that only you own and can read (chmod 600, or 700)."


class StoreUnwritable(StoreError):
    """The disk is full, read-only or out of reach. The stored data is unchanged."""

    code = "store_unwritable"
    advice = "Free some space or correct the permissions, then try again."


class OutOfResources(StoreError):
    """This process can open no more files and sockets, or start no event loop. Nothing has changed."""

    code = "out_of_resources"
    advice = (
        "Close some files or connections of this process, or raise its limit (`ulimit -n`), then try again."
    )


class StoreBusy(StoreError):
    """Another process holds the lock. If you end a process that refreshes, the new token may be lost."""

    code = "store_busy"
    advice = (
        "Wait until the process that holds the lock ends; if that process is stopped, continue it (`fg`, or "
        "`kill -CONT`). Then try again."
    )
