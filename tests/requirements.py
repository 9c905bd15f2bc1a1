"""What the tests hold us to: one line per behaviour, with where it is written down.

"quirk N" is a row of docs/quirks.md, "security N" of docs/security.md, "decision N" of docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

Test = TypeVar("Test", bound=Callable[..., object])


class Requirement(NamedTuple):
    """One behaviour: a short id, the sentence that it makes true, and its source."""

    id: str
    sentence: str
    source: str


REQUIREMENTS = (
    # Discovery
    Requirement("issuer-slash", "A bare trailing slash of an issuer without a path is forgiven.", "quirk 1"),
    Requirement("issuer-path-slash", "A trailing slash after an issuer's path is refused.", "quirk 2"),
    Requirement("issuer-exact", "Another issuer is refused unless it is trusted exactly.", "quirk 3"),
    Requirement("login-without-401", "Discovery works where nothing ever answered 401.", "quirk 4"),
    Requirement("prm-by-path", "Metadata under the path is found where the root is HTML.", "quirk 5"),
    Requirement(
        "as-path-order", "An issuer with a path is looked for in three places.", "quirk 6, RFC 8414 §3.1"
    ),
    Requirement("as-openid-only", "An OpenID-only server is used, no endpoint is guessed.", "quirk 7"),
    Requirement("prm-second", "Of two resource_metadata, the second is tried.", "quirk 8"),
    Requirement("challenge-odd", "Odd WWW-Authenticate headers are read.", "quirk 9, RFC 9110 §11.6.1"),
    Requirement("resource-covers", "Origin or parent path as resource is taken.", "quirk 10, RFC 9728 §3.3"),
    Requirement("resource-per-path", "Servers on one host are told apart.", "quirk 11"),
    Requirement("server-query", "A query in the server's URL does not stop discovery.", "quirk 12"),
    Requirement("pkce-required", "Without advertised S256 we refuse.", "quirk 13, security 5, MCP"),
    Requirement("prm-downgrade", "A failing answer is not read as none.", "security 15"),
    Requirement("fetch-bounds", "One document never makes us send many requests.", "security 14"),
    # Registration and redirect
    Requirement("client-id-needed", "No registration is ever guessed.", "quirk 14"),
    Requirement("registration-403", "A refused registration names allow-listing.", "quirk 15"),
    Requirement("secret-unasked", "A client secret that was not asked for is used.", "quirk 16"),
    Requirement("auth-method", "Basic only where offered, once more with post.", "quirk 17, RFC 6749 §2.3.1"),
    Requirement("registered-uri", "The client says which redirect URI was registered.", "quirk 18"),
    Requirement("stale-client", "A forgotten client shows as invalid_client.", "quirk 19"),
    Requirement("cimd-flag", "CIMD is used only where it is advertised.", "quirk 20"),
    Requirement("bearer-case", "The scheme goes out as Bearer.", "quirk 21"),
    Requirement("other-loopback", "The other spelling of loopback is tried once.", "quirk 22"),
    Requirement(
        "client-priority", "Configured, held, CIMD, registered: in this order.", "MCP client registration"
    ),
    Requirement(
        "client-binding", "A client goes only to the issuer that knows it.", "MCP client registration"
    ),
    Requirement("application-type", "Registration says native or web.", "MCP client registration"),
    # Scope and parameters
    Requirement("offline-access", "offline_access is asked where it is listed.", "quirk 24"),
    Requirement("invalid-scope", "invalid_scope keeps its code and says what to set.", "quirk 25"),
    Requirement("scope-choice", "Configured, challenged, listed, none: in this order.", "quirk 26, MCP"),
    Requirement("extra-parameters", "Operators add parameters, never replace.", "quirk 27, security 13"),
    Requirement("resource-choice", "The resource is verbatim and can be turned off.", "quirk 28, RFC 8707"),
    Requirement("resource-everywhere", "Every request carries the same resource.", "quirk 29, RFC 8707"),
    Requirement("step-up", "A step-up asks for the union, under the cap.", "quirk 38, security 22"),
    Requirement("pkce-s256", "The code_challenge is S256 of the verifier.", "RFC 7636 §4.2"),
    Requirement("pushed", "A request is pushed where the server takes that.", "RFC 9126"),
    # Devices
    Requirement("device-grant", "The device grant is registered where it is offered.", "quirk 23, RFC 7591"),
    Requirement("device-endpoint", "The OpenID document may name the device endpoint.", "quirk 46"),
    Requirement("device-answer", "What a person is shown is safe and can be typed.", "RFC 8628 §3.2, §5.4"),
    Requirement("device-scope", "A scope that devices may not have is told apart.", "quirk 47"),
    Requirement(
        "device-poll", "No poll is early; an answer decides what follows.", "quirk 46, RFC 8628 §3.5"
    ),
    Requirement(
        "device-heap", "A thousand logins wait at one heap, requests bounded.", "docs/performance.md: polling"
    ),
    Requirement("device-one-poller", "One process polls a login; the next goes on.", "this package"),
    Requirement("device-switch", "A login changes from device to paste and back.", "this package"),
    Requirement("device-off", "An operator turns devices off, by server or platform.", "security 2"),
    Requirement("flow-choice", "A device where it is offered and asked for.", "decision 9"),
    Requirement("device-screen", "The code stands alone, and who should enter it.", "security 1, security 2"),
    # Tokens
    Requirement("form-answer", "A form is read as a token answer.", "quirk 30"),
    Requirement("error-in-200", "An error in a 200 is an error.", "quirk 31"),
    Requirement("expires-in", "Any expires_in is survived.", "quirk 32"),
    Requirement("keep-refresh", "What a refresh answer leaves out stays.", "quirk 33, RFC 6749 §6"),
    Requirement("refresh-failures", "A failing refresh does not look like a dead session.", "quirk 34"),
    Requirement("revocation", "Revocation goes to the advertised endpoint or nowhere.", "RFC 7009 §2.1"),
    # The door for hostile text
    Requirement("iss-mismatch", "A wrong iss is refused and its error not shown.", "quirk 39, RFC 9207 §2.4"),
    Requirement("paste-mangled", "What phones and chats do to an address is undone.", "quirk 40"),
    Requirement("paste-duplicates", "A parameter twice is refused.", "quirk 40, RFC 6749 §3.1"),
    Requirement("paste-foreign", "A foreign paste leaves the login waiting.", "quirk 41"),
    Requirement("bare-code", "A code alone passes only where it may.", "security 7"),
    Requirement("one-door", "Nothing but the door makes a response.", "security 4"),
    # The way out
    Requirement("address-policy", "Internal addresses are reached only where allowed.", "security 14"),
    Requirement("dns-rebinding", "The connection goes to the address that was checked.", "security 14"),
    Requirement("redirects", "A GET's redirects are checked anew, a POST has none.", "security 14"),
    Requirement("answer-limits", "No answer takes more than its time and size.", "security 14"),
    Requirement("bounded-work", "No response keeps the event loop busy for long.", "RFC 9110 section 17"),
    Requirement("post-once", "A POST whose answer was lost is not sent again.", "quirk 42, security 12"),
    Requirement("look-up-shared", "Callers that ask for one name at once share a look-up.", "RFC 1035 §7.1"),
    Requirement("look-up-bounds", "Look-ups of one server take no place of another's.", "decision 16"),
    Requirement("look-up-abandoned", "No limit, no exit waits for the resolver.", "it has no timeout"),
    Requirement("file-work", "File work never waits for a server.", "decision 16"),
    Requirement("unchecked-host", "A name from metadata that cannot be checked is refused.", "RFC 9728 §7.7"),
    Requirement("proxies", "The operator's proxy is used on every leg.", "quirk 45"),
    Requirement("authorities", "The operator's authorities are trusted on every leg.", "quirk 45"),
    Requirement("own-headers", "What is for one server goes to no other.", "security 14, 18"),
    Requirement("debug-log", "A library's debug log shows nothing of ours.", "security 18"),
    # Logins
    Requirement("stored-first", "A login is stored first, and any process finishes it.", "design, MCP"),
    Requirement("single-use", "Of all who bring one answer, one sends the code.", "security 12"),
    Requirement("code-once", "A code whose answer was lost is not sent again.", "quirk 42, RFC 6749 §4.1.2"),
    Requirement("paste-limit", "A chat has five pastes.", "security 21"),
    Requirement("two-logins", "Two logins of one server do not disturb each other.", "quirk 43"),
    Requirement("same-origin", "An answer counts where the login was begun.", "security 3, 4, 20"),
    Requirement("expiry", "A login ends by the clock, also one whose process died.", "security 4"),
    Requirement("old-survive", "A login that fails changes nothing that was stored.", "quirk 19, decision 4"),
    Requirement("earlier-home", "What an earlier version stored goes on working.", "design"),
    Requirement("logout", "Logging out revokes as best it goes, and deletes.", "security 23, RFC 7009"),
    # Sessions and bindings
    Requirement(
        "hot-path",
        "A valid token costs no lock and no I/O.",
        "docs/performance.md: the auth step, decision 1",
    ),
    Requirement(
        "one-refresh",
        "One refresh serves all callers of all processes.",
        "quirk 36, docs/performance.md: processes that share a token",
    ),
    Requirement("kept-before-use", "Rotated tokens are on the disk before their use.", "quirk 33"),
    Requirement(
        "late-tokens",
        "A token request that was sent is read to its end; what it brings is stored.",
        "decision 17",
    ),
    Requirement("due-token", "A due token is used if another process holds the lock.", "decision 3"),
    Requirement(
        "exit-waits", "An exit waits only for token requests that were sent, and says so.", "decision 17"
    ),
    Requirement(
        "killed", "A kill at any moment leaves whole files, a free lock and the session.", "this package"
    ),
    Requirement("wrong-clock", "A clock that is wrong costs no session and no loop.", "this package"),
    Requirement("disk-refuses", "Tokens that the disk does not take are used and not lost.", "this package"),
    Requirement(
        "asked-once", "A session that is over is asked about once.", "quirk 34, docs/performance.md: requests"
    ),
    Requirement("adopted", "What another process refreshed is used.", "quirk 34, 35"),
    Requirement("fs-group", "What only a group could touch is private again.", "Kubernetes fsGroup"),
    Requirement("no-modes", "Without modes, only a switch opens a store.", "security 19"),
    Requirement("no-home", "Without a home directory, no token lands in ./~.", "POSIX XBD 8.3 (HOME)"),
    Requirement("token-address", "A token goes to its own server only.", "security 15, 20"),
    Requirement("body-read", "A 401 is read before anybody waits.", "decision 15"),
    Requirement(
        "refusal-bounded",
        "Of a refusal's body no more than 64 KiB are read, in two seconds.",
        "RFC 9110 section 15.5.2",
    ),
    Requirement("no-address", "Asking for a person shows no address.", "security 10"),
    Requirement(
        "side-by-side",
        "No request waits for another one's answer.",
        "docs/performance.md: many calls at once",
    ),
    Requirement("either-library", "Neither httpx nor httpx2 is needed by the other's users.", "layout"),
    Requirement("sdk-storage", "The MCP SDK's logins and ours are one.", "this package"),
    Requirement("sdk-provider", "The MCP SDK refreshes as we do, and asks a person last.", "this package"),
    Requirement("request-counts", "No more requests than the floor.", "docs/performance.md: requests"),
    # The terminal and the command line
    Requirement("race", "Paste, redirect and other processes race; one answer counts.", "security 12"),
    Requirement("url-whole", "The address stands whole and alone on its line.", "this package"),
    Requirement(
        "qr-fits", "A QR code scans, or is not drawn.", "security 24, docs/performance.md: a QR code"
    ),
    Requirement("interrupted", "A signal at any moment: one sentence, nothing lost.", "this package"),
    Requirement("exit-codes", "Every refusal has a sentence and a stable exit code.", "this package"),
    Requirement("no-escape", "What servers say never steers a terminal.", "security 13"),
    Requirement("ssh-paste", "A long paste over SSH arrives whole.", "this package"),
    Requirement("forwarded", "A forwarded port brings the redirect.", "this package"),
    Requirement("expected-page", "The unreachable page is announced beforehand.", "quirk 44"),
    Requirement("fast-token", "A stored valid token costs no client.", "docs/performance.md: start-up"),
    Requirement("status-ahead", "An end that only a person can put off is told ahead.", "this package"),
    Requirement(
        "logout-many", "Leavers, or all, are logged out at once; none stops another.", "this package"
    ),
    Requirement("run-environment", "A token is in an environment only where that is asked.", "this package"),
    Requirement("doctor", "What is wrong is said as a login would meet it; nothing changes.", "this package"),
    Requirement("status-all", "No server is hidden by another's trouble.", "this package"),
    # A person, in the middle of a call
    Requirement("one-prompt", "Ten calls make one prompt, and all go on.", "this package"),
    Requirement("whose-tokens", "A chat user logs in for nobody else.", "security 4, 20"),
    Requirement("nobody-to-ask", "If no user can be asked, no call waits or shows a URL.", "this package"),
    # Proofs and grants without a person
    Requirement("dpop-proof", "Each request proves the key, freshly.", "RFC 9449 §4, §5, §7"),
    Requirement("dpop-nonce", "A nonce is taken up from either server.", "RFC 9449 §8, §9"),
    Requirement("refresh-verdict", "What a refusal means is told by status first.", "RFC 6749 §5.2"),
    Requirement(
        "refresh-back-off", "A failed refresh is told to all, and withholds no living token.", "RFC 6749 §6"
    ),
    Requirement("server-words", "A server's words reach a person's screen, and no model.", "MCP security"),
    Requirement("dpop-choice", "Tokens are bound only if the server requires that.", "RFC 9449 §5.1, §7.1"),
    Requirement("dpop-key", "The key lives and ends with its tokens.", "RFC 9449 §11"),
    Requirement("client-credentials", "A client may ask on its own word.", "RFC 6749 §4.4, RFC 7523 §2.2"),
    Requirement("jwt-bearer", "A workload's JWT goes to its addressee alone.", "RFC 7523 §2.1"),
    Requirement("enterprise", "An identity provider's word becomes a token.", "RFC 8693, ID-JAG"),
    Requirement("no-person", "Such a session renews without anybody.", "this package"),
    Requirement("conformance", "Every auth scenario of the official suite passes.", "this package"),
    # Chats
    Requirement(
        "begun-elsewhere", "A login begun for a user is finished in that user's chat.", "this package"
    ),
    Requirement("sender-binding", "A paste counts from whoever began the login, there.", "security 3, 4"),
    # Serving chats
    Requirement("operators-choice", "Who may, and whose tokens are used, is listed.", "security 20"),
    Requirement("attention", "A trouble makes one message with one button, not twenty.", "this package"),
    Requirement("serve", "Bots start, fail and stop with a sentence; no token in argv.", "this package"),
    Requirement("via", "A command's login is shown and finished in that user's chat.", "this package"),
    # The conversation of a chat
    Requirement(
        "chat-prompt", "A prompt says what, where, until when, for whom and since when.", "security 1, 3"
    ),
    Requirement("chat-answer-deleted", "An answer is deleted first, or its writer is told to.", "security 9"),
    Requirement("chat-not-echoed", "No refusal repeats anything of a paste.", "security 3, this package"),
    Requirement("chat-replay", "A used answer is refused, deleted and kept from others.", "security 10, 12"),
    Requirement("chat-limits", "Waiting logins and starts are capped, by person and for all.", "security 21"),
    Requirement(
        "chat-private", "No address, code or picture is ever shown in a group.", "security 8, decision 7"
    ),
    Requirement(
        "chat-exposed", "A code that others read ends its login; another begins.", "this package, security 8"
    ),
    Requirement(
        "chat-listed", "Who is on no list begins nothing and is asked for nothing.", "security 1, 20"
    ),
    Requirement(
        "chat-admins", "What all share is changed by administrators only.", "security 20, this package"
    ),
    Requirement("chat-owners", "Whose tokens a login becomes is the operator's choice.", "security 20"),
    Requirement("chat-tidy", "Once a login is over, at most its prompt stays.", "this package, security 24"),
    Requirement("chat-survives", "A prompt is kept up by whichever process runs the bot.", "this package"),
    Requirement("chat-countdown", "A prompt is edited at a few moments, not each second.", "this package"),
    Requirement("chat-harmless", "What others wrote neither steers nor fills a card.", "security 13"),
    Requirement("chat-words", "Every sentence stands in one place and can be translated.", "this package"),
    Requirement(
        "chat-ours", "Only what answers a login, or carries a code, is taken.", "this package, security 10"
    ),
    Requirement("chat-asks", "A call asks in its user's private chat, and goes on.", "this package"),
    # Telegram
    Requirement(
        "telegram-story", "A login begins and ends in a chat, and the waiting call goes on.", "this package"
    ),
    Requirement(
        "telegram-three-messages", "At most three messages stay, none with a secret.", "this package"
    ),
    Requirement(
        "telegram-anywhere", "A login begun elsewhere, or before a restart, goes on.", "this package"
    ),
    Requirement(
        "telegram-kept", "What holds a link is protected from forwarding, without preview.", "security 1, 11"
    ),
    Requirement(
        "telegram-sender", "A paste counts from its login's person, chat, topic alone.", "security 3, 4"
    ),
    Requirement(
        "telegram-group", "A group sees no link, code or QR code, whatever is asked there.", "security 8, 24"
    ),
    Requirement(
        "telegram-deleted", "A paste is deleted before anything else, edited ones too.", "security 9"
    ),
    Requirement("telegram-agent-blind", "No other handler of an application sees a code.", "security 10"),
    Requirement(
        "telegram-untouched", "What is not ours goes on to the application's handlers.", "this package"
    ),
    Requirement("telegram-log", "No log record holds the bot's token, a code or a state.", "security 18"),
    Requirement(
        "telegram-people", "Strangers, bots, channels and anonymous admins get nothing.", "security 20, 21"
    ),
    Requirement(
        "telegram-limits",
        "No message breaks a limit of Telegram's; nothing is lost silently.",
        "this package",
    ),
    Requirement(
        "telegram-trouble", "Limits, loss, blocks and a second poller are lived through.", "this package"
    ),
    Requirement("telegram-plain", "What others wrote becomes no link, mention or markup.", "security 13"),
    # Discord
    Requirement(
        "discord-story", "From a command to a connection, in messages of one person.", "this package"
    ),
    Requirement(
        "discord-window", "An answer is typed into a window and stays nowhere.", "this package, security 9"
    ),
    Requirement("discord-alone", "A login by a code turns its message by itself.", "this package"),
    Requirement("discord-unseen", "Nobody else sees an answer, nor gets on by its button.", "security 8"),
    Requirement(
        "discord-elsewhere", "Out of an interaction's reach a direct message goes on.", "this package"
    ),
    Requirement("discord-restart", "What one process drew, another answers.", "this package"),
    Requirement("discord-gateway", "A lost gateway loses no login.", "this package"),
    Requirement("discord-in-time", "An interaction is acknowledged before any work.", "this package"),
    Requirement("discord-posted", "An answer as a message ends its login, and goes if it can.", "security 9"),
    Requirement("discord-people", "Ids, roles and guilds decide, in direct chats as well.", "this package"),
    Requirement("discord-limits", "No message breaks a limit of Discord's.", "this package"),
    Requirement("discord-quoted", "What others wrote is no markup, link or mention.", "security 13"),
    Requirement("discord-commands", "Commands are told once, and others' are left alone.", "this package"),
    Requirement("discord-log", "The library's own lines hold no secret.", "security 18"),
    Requirement(
        "discord-bot", "A bot of its own asks for the fewest intents and stops cleanly.", "this package"
    ),
    # Many at once
    Requirement("begin-in-time", "A login that servers keep waiting ends.", "this package"),
    Requirement("looks", "Who begins while another looks at a server needs no look.", "this package"),
    # Inside Hermes
    Requirement("hermes-story", "A command in a chat ends with tools that the agent calls.", "this package"),
    Requirement(
        "hermes-kept-out", "No code reaches model, transcript, log or state.db.", "this package, security 10"
    ),
    Requirement("hermes-belt", "Hook and busy handler do where nothing else is known.", "this package"),
    Requirement("hermes-who", "Hermes says who may, again at the paste.", "this package, security 1, 20"),
    Requirement("hermes-live", "After a login the tools are live, without a restart.", "this package"),
    Requirement("hermes-asks", "A failed call asks its person once; the model is told.", "this package"),
    Requirement("hermes-keeps", "Hermes's tokens and client stay until new ones are there.", "this package"),
    Requirement("hermes-moved", "What Hermes has not is said once; the rest goes on.", "this package"),
    Requirement(
        "hermes-elsewhere", "Begun in a chat, finished in a terminal, or the reverse.", "this package"
    ),
    # Everywhere
    Requirement("safe-urls", "Only https, or http on loopback, is used.", "security 13, 14, 16"),
    Requirement("no-crash", "Hostile input raises McpAuthError and nothing else.", "security 14"),
    Requirement("linear", "A megabyte of hostile input is read at once.", "security 14, 21"),
    Requirement(
        "address-key",
        "A key in the query of an address is on no screen and in no chat.",
        "security 18",
    ),
    Requirement("no-secret", "No secret is in an error or a repr.", "security 18"),
    Requirement(
        "tracebacks-masked", "No traceback shows a tracker a paste, a header or a token.", "docs/security.md"
    ),
    Requirement("login-table", "What is not in the table does not happen.", "security 12"),
    Requirement("error-tree", "The drawn error tree is the real one, with advice.", "errors.py"),
)

_IDS = frozenset(requirement.id for requirement in REQUIREMENTS)


def covers(*ids: str) -> Callable[[Test], Test]:
    """Say which requirements a test makes true; raises KeyError for an id that is not listed above."""
    for name in ids:
        if name not in _IDS:
            raise KeyError(name)
    return lambda test: test
