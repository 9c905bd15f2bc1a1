"""Every error this package raises, drawn as one tree; imports nothing.

    McpAuthError
    |-- ConfigError                  what you configured
    |   `-- ServerNotFound
    |-- ServerError                  what a server did
    |   |-- UnreadableAnswer         not the JSON or form that the step defines
    |   |-- UnsafeUrl                a URL that we neither show, open nor fetch
    |   |-- DiscoveryFailed
    |   |   `-- IssuerMismatch
    |   |-- PkceNotSupported
    |   |-- RegistrationRefused
    |   |   `-- ClientIdNeeded
    |   `-- TokenRefused             RFC 6749 section 5.2, `.error` says which
    |       `-- DeviceRefused        no device code to be had; pasting may still work
    |-- NetworkError                 what the way there did; trying again may help
    |   |-- Unreachable
    |   |-- TimedOut
    |   |   `-- StillExchanging      a login goes on without its caller
    |   |-- AnswerTooLarge
    |   |-- AddressRefused
    |   |   `-- HostNotChecked       its addresses are unknown here, and a proxy would go there
    |   `-- RedirectRefused
    |-- LoginError                   what happened to one login
    |   |-- PasteRefused             the login still waits
    |   |-- AuthorizationDenied
    |   |-- LoginExpired
    |   |-- LoginCancelled
    |   |-- LoginAlreadyUsed
    |   `-- LoginNotFound
    |-- AuthorizationRequired        a person has to log in, and nobody could be asked here
    `-- StoreError                   what the disk did
        |-- StoreCorrupt
        |-- StoreUnsafe
        |-- StoreUnwritable
        `-- StoreBusy

Each leaf has a stable `.code` for programs, a message that says who broke which rule, and `.advice`, one
sentence that the reader can act on. No text here ever holds a token, a code, a verifier or a paste.

Message and advice are our own text, because a model may read them. What a server wrote (an
`error_description`, the scope of a challenge, an unknown error code) stands in `.server_words` alone, which
only a person's screen shows (`wording.quoted_words`). Host names are addresses that we checked; they may
stand in a message.
"""

from __future__ import annotations

MAX_SERVER_MESSAGE_CHARS = 300


def clean_server_message(text: str) -> str:
    """Return a server's text on one line, without control characters, cut at 300 characters."""
    # The first cut bounds the work, the second one the result.
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * MAX_SERVER_MESSAGE_CHARS])
    words = " ".join(printable.split())
    return words if len(words) <= MAX_SERVER_MESSAGE_CHARS else words[: MAX_SERVER_MESSAGE_CHARS - 1] + "…"


class McpAuthError(Exception):
    """Base of everything raised on purpose. `str(error)` says what happened, `.advice` what to do.

    `.server_words` is what a server said about it, "" for nothing: at most 300 printable characters on one
    line. Show it to a person, quoted; never log it, and never give it to a model.
    """

    code = "error"
    advice = "Run the command again; if it fails in the same way, please report it."

    def __init__(self, message: str, advice: str | None = None, *, server_message: str = "") -> None:
        super().__init__(message)
        if advice is not None:
            self.advice = advice
        self.server_message = clean_server_message(server_message)


class ConfigError(McpAuthError):
    """The configuration does not say what it must."""

    code = "config"
    advice = "Mend the entry in config.yaml and run the command again."


class ServerNotFound(ConfigError):
    """No server of that name is configured."""

    code = "server_not_found"
    advice = "Add it under `mcp_servers` in config.yaml, or pass its address with --url."

    def __init__(
        self,
        message: str,
        advice: str | None = None,
        *,
        server_message: str = "",
        config_files: str | None = None,
    ) -> None:
        """`config_files` is the identity of the files that do not name it (`hermes.config_identity`)."""
        super().__init__(message, advice, server_message=server_message)
        self.config_files = config_files


class ServerError(McpAuthError):
    """A protected resource or an authorization server broke a rule of its protocol."""

    code = "server"
    advice = "The server's operator has to mend this; report it to them."


class MalformedResponse(ServerError):
    """An answer is not what the step defines: HTML, truncated JSON, a list, a missing member."""

    code = "unreadable_answer"
    advice = "Check the server's address; if it is right, its operator has to mend this."


class UnsafeUrl(ServerError):
    """A URL that is neither https nor http on loopback, or is malformed: never shown, opened or fetched."""

    code = "unsafe_url"
    advice = "Do not continue with this server; report it to its operator."


class DiscoveryFailed(ServerError):
    """No usable authorization server could be found for the protected resource."""

    code = "discovery"
    advice = "Check the server's address, and whether it offers OAuth at all."


class IssuerMismatch(DiscoveryFailed):
    """Metadata names another issuer than the one it was asked for (RFC 8414 section 3.3)."""

    code = "issuer_mismatch"


class PkceNotSupported(ServerError):
    """The authorization server does not advertise PKCE with S256; the MCP specification says: refuse."""

    code = "pkce_not_supported"
    advice = (
        "If you know that this authorization server supports PKCE without saying so, set "
        "`oauth.allow_missing_pkce: true` for this server."
    )


class RegistrationError(ServerError):
    """Dynamic client registration was refused or answered something else (RFC 7591 section 3.2.2)."""

    code = "registration_refused"
    advice = "Register a client at the provider by hand and set `oauth.client_id` for this server."


class ClientIdRequired(RegistrationError):
    """The authorization server admits only clients that were registered by hand."""

    code = "client_id_needed"


class TokenError(ServerError):
    """The token endpoint answered with an error; `.error` is its code (RFC 6749 section 5.2).

    `.error` is one of `oauth.token_errors.KNOWN_ERRORS`, else "unknown error", or "status 400" for a response
    without a code. `.verdict` says whether the same request could still succeed: an
    `oauth.token_errors.Verdict`.
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
    ) -> None:
        super().__init__(message, advice, server_message=server_message)
        self.error = error
        self.verdict = verdict


class DeviceAuthorizationError(TokenError):
    """The device authorization endpoint gives no code, or does not exist (RFC 8628 section 3.2).

    `.error` is its code: "invalid_scope" where the device flow may not have that scope, "unauthorized_client"
    where the client did not register for it, "unsupported_grant_type" where there is no such flow at all.
    """

    code = "device_refused"
    advice = "Log in by pasting instead: set `oauth.flow: paste` for this server."


class NetworkError(McpAuthError):
    """A request could not be made or finished. `advice` says so if nothing was lost."""

    code = "network"
    advice = "Check the network and try again; nothing was lost."


class Unreachable(NetworkError):
    """No connection: name, route, TLS or a reset."""

    code = "unreachable"


class TimedOut(NetworkError):
    """No full answer within the time limit."""

    code = "timed_out"


class StillExchanging(TimedOut):
    """The server got the code of a login and has not answered yet; what it answers still ends the login."""

    code = "still_exchanging"
    advice = "The login goes on by itself. Look at its status in two minutes."


class ResponseTooLarge(NetworkError):
    """The answer is larger than any honest one."""

    code = "answer_too_large"
    advice = "Check the server's address; no OAuth answer is that large."


class AddressRefused(NetworkError):
    """The name leads to a private, link-local or otherwise internal address."""

    code = "address_refused"
    advice = (
        "If that network is yours, list it in `oauth.allow_addresses` for this server (such as 10.0.0.0/8)."
    )


class HostNotChecked(AddressRefused):
    """Only the proxy could resolve the name, and a server's metadata names it: it may lead inside."""

    code = "host_not_checked"
    advice = "If you trust that host, add its name to `oauth.allow_hosts` of this server in config.yaml."


class RedirectRefused(NetworkError):
    """A redirect that is not followed: of a POST, too many, or to somewhere unsafe."""

    code = "redirect_refused"
    advice = "Check the server's address; its operator has to mend the redirect."


class LoginError(McpAuthError):
    """One login did not succeed; stored credentials are as they were."""

    code = "login"
    advice = "Begin a new login."


class PasteRefused(LoginError):
    """What was pasted does not finish this login; the login still waits for the right one."""

    code = "paste_refused"
    advice = "Copy the whole address that your browser ended on, and paste it again."


class AuthorizationDenied(LoginError):
    """The authorization server redirected back with an error (RFC 6749 section 4.1.2.1)."""

    code = "authorization_denied"

    def __init__(
        self, message: str, error: str, advice: str | None = None, *, server_message: str = ""
    ) -> None:
        super().__init__(message, advice, server_message=server_message)
        self.error = error


class LoginExpired(LoginError):
    """The login was not finished in time."""

    code = "login_expired"


class LoginCancelled(LoginError):
    """The login was cancelled."""

    code = "login_cancelled"


class LoginAlreadyUsed(LoginError):
    """The login was finished before; an authorization response counts once."""

    code = "login_already_used"
    advice = "If you are not connected, begin a new login."


class LoginNotFound(LoginError):
    """No login of that id is known here."""

    code = "login_not_found"


class AuthorizationRequired(McpAuthError):
    """A person has to log in, and nobody can be asked here. Holds no URL, so that none leaks to a model.

    `.server` is the server's name, `.reason` why, `.login_id` a login that already waits (or None),
    `.expires_at` its end in epoch seconds (or None), `.challenge` the `oauth.challenge.Challenge` that a
    login has to answer (or None). `.reason` is our own text.
    """

    code = "authorization_required"

    def __init__(
        self,
        server_name: str,
        *,
        reason: str = "nobody has logged in yet",
        login_id: str | None = None,
        expires_at: float | None = None,
        challenge: object | None = None,
        server_message: str = "",
    ) -> None:
        super().__init__(
            f"{server_name} needs a login: {reason}.",
            f"Run `hermes-mcp-auth login {server_name}`.",
            server_message=server_message,
        )
        self.server_name = server_name
        self.reason = reason
        self.login_id = login_id
        self.expires_at = expires_at
        self.challenge = challenge


class StoreError(McpAuthError):
    """A file could not be read or written. The path is in the message, the content never is."""

    code = "store"


class StoreCorrupt(StoreError):
    """A file does not hold what it must; it was left as it is."""

    code = "store_corrupt"
    advice = "Restore the file from a backup, or delete it and log in again."


class StoreUnsafe(StoreError):
    """A file or directory is a symbolic link, another user's, or open to others."""

    code = "store_unsafe"
    advice = "Make it a plain file or directory of your own, readable by nobody else (chmod 600, or 700)."


class StoreUnwritable(StoreError):
    """The disk is full, read-only or out of reach; what was stored before is untouched."""

    code = "store_unwritable"
    advice = "Free some space or mend the permissions, then try again."


class StoreBusy(StoreError):
    """Another process holds the lock. It may be refreshing: ending it could lose the new refresh token."""

    code = "store_busy"
    advice = (
        "Let the process that holds it finish, and continue it if it is stopped (`fg`, or `kill -CONT`); "
        "then try again."
    )
