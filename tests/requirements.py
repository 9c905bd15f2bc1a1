"""The required behaviours: one sentence per behaviour, with its source.

"quirk N" is a row of docs/quirks.md, "security N" of docs/security.md, "decision N" of docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

Test = TypeVar("Test", bound=Callable[..., object])


class Requirement(NamedTuple):
    """One behaviour: a short id, the sentence that a test proves, and its source."""

    id: str
    sentence: str
    source: str


REQUIREMENTS = (
    # Discovery
    Requirement(
        "issuer-slash", "A single trailing slash after an issuer without a path is accepted.", "quirk 1"
    ),
    Requirement("issuer-path-slash", "A trailing slash after an issuer's path is refused.", "quirk 2"),
    Requirement("issuer-exact", "Another issuer is refused unless it is trusted exactly.", "quirk 3"),
    Requirement("login-without-401", "Discovery works if the server never answered 401.", "quirk 4"),
    Requirement("prm-by-path", "Metadata under the path is found if the root has only HTML.", "quirk 5"),
    Requirement(
        "as-path-order",
        "Metadata of an issuer with a path is requested at three URLs.",
        "quirk 6, RFC 8414 §3.1",
    ),
    Requirement(
        "as-openid-only", "A server with only OpenID metadata is used; no endpoint is guessed.", "quirk 7"
    ),
    Requirement("prm-second", "If a challenge has two resource_metadata, the second is tried.", "quirk 8"),
    Requirement("challenge-odd", "Odd WWW-Authenticate headers are read.", "quirk 9, RFC 9110 §11.6.1"),
    Requirement(
        "resource-covers",
        "An origin or a parent path is accepted as the resource.",
        "quirk 10, RFC 9728 §3.3",
    ),
    Requirement("resource-per-path", "Two servers on one host are told apart by their paths.", "quirk 11"),
    Requirement("server-query", "A query in the server's URL does not stop discovery.", "quirk 12"),
    Requirement(
        "pkce-required",
        "The login is refused if the server does not advertise S256.",
        "quirk 13, security 5, MCP",
    ),
    Requirement("prm-downgrade", "A failing response does not count as missing metadata.", "security 15"),
    Requirement("fetch-bounds", "One document never causes more than a few requests.", "security 14"),
    # Registration and redirect
    Requirement("client-id-needed", "A registration endpoint is never guessed.", "quirk 14"),
    Requirement("registration-403", "The error for a refused registration names allow-listing.", "quirk 15"),
    Requirement("secret-unasked", "A client secret that was not requested is used.", "quirk 16"),
    Requirement(
        "auth-method",
        "Basic is used only if offered; a refused Basic is replaced once by client_secret_post.",
        "quirk 17, RFC 6749 §2.3.1",
    ),
    Requirement("registered-uri", "A login uses the redirect URI that its client registered.", "quirk 18"),
    Requirement(
        "stale-client", "A client that the server has deleted is reported as invalid_client.", "quirk 19"
    ),
    Requirement("cimd-flag", "CIMD is used only if the server advertises it.", "quirk 20"),
    Requirement("bearer-case", "The scheme is sent as Bearer, even if token_type is bearer.", "quirk 21"),
    Requirement("other-loopback", "The other spelling of loopback is tried once.", "quirk 22"),
    Requirement(
        "client-priority", "Configured, stored, CIMD, registered: in this order.", "MCP client registration"
    ),
    Requirement(
        "client-binding", "A client is sent only to the issuer that registered it.", "MCP client registration"
    ),
    Requirement("application-type", "Registration sends native or web.", "MCP client registration"),
    # Scope and parameters
    Requirement("offline-access", "offline_access is requested if it is listed.", "quirk 24"),
    Requirement("invalid-scope", "invalid_scope keeps its code and names the setting.", "quirk 25"),
    Requirement("scope-choice", "Configured, challenged, listed, none: in this order.", "quirk 26, MCP"),
    Requirement(
        "extra-parameters", "Operators add parameters and never replace one.", "quirk 27, security 13"
    ),
    Requirement(
        "resource-choice", "The resource is sent verbatim and can be turned off.", "quirk 28, RFC 8707"
    ),
    Requirement("resource-everywhere", "Every request carries the same resource.", "quirk 29, RFC 8707"),
    Requirement(
        "step-up",
        "A step-up requests the union of scopes, but none outside the cap.",
        "quirk 38, security 22",
    ),
    Requirement("pkce-s256", "The code_challenge is S256 of the verifier.", "RFC 7636 §4.2"),
    Requirement("pushed", "A request is pushed if the server supports that.", "RFC 9126"),
    # Devices
    Requirement("device-grant", "The device grant is registered if it is offered.", "quirk 23, RFC 7591"),
    Requirement("device-endpoint", "The OpenID metadata may name the device endpoint.", "quirk 46"),
    Requirement("device-answer", "What the user is shown is safe and can be typed.", "RFC 8628 §3.2, §5.4"),
    Requirement("device-scope", "A scope that devices may not have gets its own error.", "quirk 47"),
    Requirement(
        "device-poll", "No poll is early; the response decides what follows.", "quirk 46, RFC 8628 §3.5"
    ),
    Requirement(
        "device-heap",
        "A thousand logins wait on the timers of one loop; requests are bounded.",
        "docs/performance.md: polling",
    ),
    Requirement(
        "device-one-poller",
        "One process polls a login; if that process ends, another one takes over.",
        "this package",
    ),
    Requirement("device-switch", "A login can change from device to paste and back.", "this package"),
    Requirement("device-off", "An operator can turn devices off, per server or per platform.", "security 2"),
    Requirement("flow-choice", "The device flow is used if it is offered and requested.", "decision 9"),
    Requirement(
        "device-screen",
        "The code has its own line, and the screen says who should enter it.",
        "security 1, security 2",
    ),
    # Tokens
    Requirement("form-answer", "A form-encoded token response is read.", "quirk 30"),
    Requirement("error-in-200", "An error in a response with status 200 is an error.", "quirk 31"),
    Requirement("expires-in", "Any value of expires_in is handled.", "quirk 32"),
    Requirement(
        "keep-refresh", "Values that a refresh response leaves out are kept.", "quirk 33, RFC 6749 §6"
    ),
    Requirement("refresh-failures", "A failing refresh does not look like an ended session.", "quirk 34"),
    Requirement("revocation", "Revocation goes to the advertised endpoint only.", "RFC 7009 §2.1"),
    # Reading authorization responses
    Requirement(
        "iss-mismatch", "A wrong iss is refused and its error is not shown.", "quirk 39, RFC 9207 §2.4"
    ),
    Requirement("paste-mangled", "Changes that phones and chats make to an address are undone.", "quirk 40"),
    Requirement("paste-duplicates", "A repeated parameter is refused.", "quirk 40, RFC 6749 §3.1"),
    Requirement("paste-uncertain", "A code is not sent if the text does not show its end.", "quirk 48"),
    Requirement("paste-leftovers", "A terminal's leftovers around an address are removed.", "quirk 48"),
    Requirement("paste-foreign", "A paste for another login leaves the login waiting.", "quirk 41"),
    Requirement("bare-code", "A code without an address passes only if the login allows it.", "security 7"),
    Requirement("one-door", "Only read_authorization_response makes a response.", "security 4"),
    # Outgoing requests
    Requirement("address-policy", "Internal addresses are reached only if they are allowed.", "security 14"),
    Requirement("dns-rebinding", "The connection goes to the address that was checked.", "security 14"),
    Requirement("dead-ipv6", "An address that never responds costs 250 ms, once per host.", "RFC 8305"),
    Requirement(
        "fake-dns",
        "An answer of fake-IP DNS is allowed for hosts that the operator names.",
        "security 14",
    ),
    Requirement(
        "numeric-hosts",
        "A host that ends in a number is a dotted quad or refused.",
        "WHATWG URL §3.6",
    ),
    Requirement("redirects", "Each redirect of a GET is checked; a POST follows none.", "security 14"),
    Requirement("answer-limits", "No response exceeds its limits of time and size.", "security 14"),
    Requirement(
        "small-metadata",
        "A login keeps at most 64 KiB of metadata; logins of one server share it.",
        "security 21",
    ),
    Requirement("bounded-work", "No response keeps the event loop busy for long.", "RFC 9110 section 17"),
    Requirement("post-once", "A POST whose response was lost is not sent again.", "quirk 42, security 12"),
    Requirement("look-up-shared", "Callers that resolve one name at once share a look-up.", "RFC 1035 §7.1"),
    Requirement("look-up-bounds", "Look-ups of one server use no thread of another's.", "decision 16"),
    Requirement(
        "look-up-abandoned",
        "A hanging resolver delays no time limit and no exit.",
        "the resolver has no timeout",
    ),
    Requirement("file-work", "File work never waits for a server.", "decision 16"),
    Requirement("unchecked-host", "A name from metadata that cannot be checked is refused.", "RFC 9728 §7.7"),
    Requirement("proxies", "The operator's proxy is used on every leg.", "quirk 45"),
    Requirement(
        "authorities", "The operator's certificate authorities are trusted on every leg.", "quirk 45"
    ),
    Requirement("own-headers", "Headers for one server go to no other server.", "security 14, 18"),
    Requirement("debug-log", "A library's debug log shows no header of this package.", "security 18"),
    # Logins
    Requirement("stored-first", "A login is stored first, and any process can complete it.", "design, MCP"),
    Requirement(
        "single-use", "If several callers bring one response, only one sends the code.", "security 12"
    ),
    Requirement(
        "code-once", "A code whose response was lost is not sent again.", "quirk 42, RFC 6749 §4.1.2"
    ),
    Requirement("paste-limit", "A chat may paste five times.", "security 21"),
    Requirement("two-logins", "Two logins of one server do not disturb each other.", "quirk 43"),
    Requirement(
        "same-origin", "A response counts only at the origin that started the login.", "security 3, 4, 20"
    ),
    Requirement("expiry", "A login expires by the clock, even if its process died.", "security 4"),
    Requirement("old-survive", "A login that fails changes no stored credentials.", "quirk 19, decision 4"),
    Requirement("earlier-home", "Files that an earlier version stored keep working.", "design"),
    Requirement("logout", "Logout tries to revoke the tokens, and deletes them.", "security 23, RFC 7009"),
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
    Requirement("kept-before-use", "Rotated tokens are stored before they are used.", "quirk 33"),
    Requirement(
        "late-tokens",
        "The response to a token request that was sent is read to its end; its tokens are stored.",
        "decision 17",
    ),
    Requirement(
        "due-token",
        "A token that is due for a refresh is used while another process holds the lock.",
        "decision 3",
    ),
    Requirement(
        "exit-waits", "An exit waits only for token requests that were sent, and prints that.", "decision 17"
    ),
    Requirement(
        "killed", "A kill at any moment leaves complete files, a free lock and the session.", "this package"
    ),
    Requirement("wrong-clock", "A wrong clock ends no session and causes no loop.", "this package"),
    Requirement("disk-refuses", "Tokens that cannot be stored are used and not lost.", "this package"),
    Requirement(
        "asked-once", "A refused refresh token is sent once.", "quirk 34, docs/performance.md: requests"
    ),
    Requirement("adopted", "Tokens that another process refreshed are used.", "quirk 34, 35"),
    Requirement(
        "fs-group",
        "Files that were opened to their group, but to no others, become private again.",
        "Kubernetes fsGroup",
    ),
    Requirement(
        "no-modes", "If a file system has no modes, a store opens only with a setting.", "security 19"
    ),
    Requirement("no-home", "Without a home directory, no token lands in ./~.", "POSIX XBD 8.3 (HOME)"),
    Requirement("token-address", "A token goes to its own server only.", "security 15, 20"),
    Requirement("body-read", "The body of a 401 is read before any caller waits.", "decision 15"),
    Requirement(
        "refusal-bounded",
        "At most 64 KiB of a refusal's body are read, within two seconds.",
        "RFC 9110 section 15.5.2",
    ),
    Requirement("no-address", "The error that requests a login contains no address.", "security 10"),
    Requirement(
        "side-by-side",
        "No request waits for the response to another one.",
        "docs/performance.md: many calls at once",
    ),
    Requirement("either-library", "Users of httpx do not need httpx2, and the reverse.", "layout"),
    Requirement(
        "one-mcp-auth", "One McpAuth serves both libraries, and can be copied and pickled.", "this package"
    ),
    Requirement("sdk-storage", "The MCP SDK and this package share one login.", "this package"),
    Requirement(
        "sdk-provider",
        "The MCP SDK refreshes like this package, and prompts the user only as a last resort.",
        "this package",
    ),
    Requirement(
        "request-counts", "No more requests are sent than necessary.", "docs/performance.md: requests"
    ),
    # The terminal and the command line
    Requirement("race", "Paste, redirect and other processes race; one response counts.", "security 12"),
    Requirement("url-whole", "The address is complete and alone on its line.", "this package"),
    Requirement(
        "qr-fits", "A QR code scans, or is not drawn.", "security 24, docs/performance.md: a QR code"
    ),
    Requirement(
        "interrupted", "A signal at any moment prints one sentence and loses nothing.", "this package"
    ),
    Requirement("exit-codes", "Every refusal has a sentence and a stable exit code.", "this package"),
    Requirement("no-escape", "Text of a server never controls a terminal.", "security 13"),
    Requirement("ssh-paste", "A long paste over SSH arrives complete.", "this package"),
    Requirement("demo-typed", "The chat demos accept everything that a user types.", "this package"),
    Requirement("qr-content", "The screen says what the QR code holds.", "this package"),
    Requirement("facts-visible", "The facts of a login are visible in a window of 24 rows.", "this package"),
    Requirement("listener-collapse", "Foreign requests to the listener are counted.", "RFC 8252 §8.3"),
    Requirement("paste-together", "Bytes that arrive together are one paste.", "quirk 48"),
    Requirement("csi-u", "Control keys act if a terminal sends them as control sequences.", "this package"),
    Requirement("forwarded", "A forwarded port brings the redirect.", "this package"),
    Requirement("expected-page", "The screen announces the unreachable page in advance.", "quirk 44"),
    Requirement("fast-token", "A stored valid token needs no HTTP client.", "docs/performance.md: start-up"),
    Requirement(
        "new-token-refused",
        "If a server refuses even new tokens, refreshes become rarer and rarer, in all processes.",
        "RFC 6750 §3.1",
    ),
    Requirement("fork-reset", "A forked child waits for no lock, thread or future of its parent.", "fork.py"),
    Requirement("no-descriptors", "Without file descriptors, errors are typed.", "errors.py: OutOfResources"),
    Requirement(
        "cancelled-caller",
        "A cancelled caller leaves no login that stays claimed or that nobody has seen.",
        "threads.py",
    ),
    Requirement(
        "login-clock", "Setting the clock does not change how long a login lives.", "CLOCK_BOOTTIME, boot id"
    ),
    Requirement("last-poll", "A device login is polled once more before it expires.", "RFC 8628 §3.5"),
    Requirement("store-contract", "Every store keeps the contract of `store.protocol`.", "store/protocol.py"),
    Requirement(
        "refresh-margin", "Service and fast path agree when a token must be refreshed.", "refresh_margins.py"
    ),
    Requirement(
        "more-access",
        "status and doctor say that a server demands more access.",
        "this package",
    ),
    Requirement("status-ahead", "status warns of an expiry that only a user can put off.", "this package"),
    Requirement(
        "logout-many", "Several or all servers are logged out at once; none blocks another.", "this package"
    ),
    Requirement("run-environment", "A token is in an environment only if that is requested.", "this package"),
    Requirement(
        "doctor",
        "doctor reports a login's errors. It stores nothing, registers no client, gets no code or token.",
        "this package",
    ),
    Requirement("status-all", "The error of one server hides no other server.", "this package"),
    # Prompting a user during a call
    Requirement("one-prompt", "Ten calls make one prompt, and all of them continue.", "this package"),
    Requirement("whose-tokens", "A chat user logs in for no other user.", "security 4, 20"),
    Requirement("nobody-to-ask", "If no user can be prompted, no call waits or shows a URL.", "this package"),
    # DPoP, and grants without a user
    Requirement("dpop-proof", "Each request has a fresh proof of the key.", "RFC 9449 §4, §5, §7"),
    Requirement("dpop-nonce", "A nonce of either server is used.", "RFC 9449 §8, §9"),
    Requirement(
        "refresh-verdict",
        "What a refused refresh means is decided first by its HTTP status.",
        "RFC 6749 §5.2",
    ),
    Requirement(
        "refresh-back-off",
        "A failed refresh is reported to all callers; a token that is still valid stays usable.",
        "RFC 6749 §6",
    ),
    Requirement("server-words", "A server's text reaches the user's screen, and no model.", "MCP security"),
    Requirement("dpop-choice", "Tokens are bound only if the server requires that.", "RFC 9449 §5.1, §7.1"),
    Requirement("dpop-key", "The key is stored and deleted with its tokens.", "RFC 9449 §11"),
    Requirement(
        "client-credentials",
        "A client may request a token with its own credentials.",
        "RFC 6749 §4.4, RFC 7523 §2.2",
    ),
    Requirement("jwt-bearer", "A workload's JWT is sent to its audience only.", "RFC 7523 §2.1"),
    Requirement(
        "enterprise", "An identity provider's assertion is exchanged for a token.", "RFC 8693, ID-JAG"
    ),
    Requirement("no-person", "A session of a grant without a user is refreshed without one.", "this package"),
    Requirement("conformance", "Every auth scenario of the official suite passes.", "this package"),
    # Chats
    Requirement(
        "begun-elsewhere",
        "A login that was started for a user is completed in that user's chat.",
        "this package",
    ),
    Requirement(
        "sender-binding",
        "A paste counts only from the user and chat that started the login.",
        "security 3, 4",
    ),
    Requirement(
        "one-status", "Command line, chats and reminders agree whether a connection works.", "this package"
    ),
    Requirement(
        "shared-phrases", "A phrase that both terminal and chat show is defined in one place.", "this package"
    ),
    # Serving chats
    Requirement(
        "platform-table",
        "A chat platform is one table row and one folder; an unknown platform allows no user.",
        "this package",
    ),
    Requirement(
        "config-once",
        "A command or reminder pass reads config.yaml once, and stored files only if they changed.",
        "this package",
    ),
    Requirement(
        "config-names-mistakes",
        "Unknown keys and foreign or open configuration files are named.",
        "this package",
    ),
    Requirement(
        "failed-starts-count", "Starts of logins that fail count towards the limit of a user.", "this package"
    ),
    Requirement(
        "container-secrets", "A bot's token may be a secret that a container runtime mounts.", "this package"
    ),
    Requirement(
        "bot-proxy", "Bots use the proxy of the environment, and no token crosses plain http.", "this package"
    ),
    Requirement(
        "server-name-forms", "A server is found by its name in any Unicode normal form.", "this package"
    ),
    Requirement(
        "operators-choice", "The operator lists who may log in and whose tokens are used.", "security 20"
    ),
    Requirement("attention", "One error makes one message with one button, not twenty.", "this package"),
    Requirement("serve", "Bots start, fail and stop with a sentence; no token is in argv.", "this package"),
    Requirement("via", "The login of a command is shown and completed in that user's chat.", "this package"),
    # The stdio bridge
    Requirement("bridge-transports", "A stdio client reaches servers of every revision of MCP.", "MCP"),
    Requirement("bridge-recovers", "Restart, lost session, dead token: the client's calls go on.", "MCP"),
    Requirement("bridge-login", "A call waits for its login; no address reaches a model.", "this package"),
    Requirement(
        "bridge-bad-input",
        "Bad input of either side causes a JSON-RPC error and does not end the bridge.",
        "JSON-RPC 2.0",
    ),
    Requirement("bridge-large", "Large results pass in constant memory.", "this package"),
    Requirement("cimd-only", "A server that takes only metadata documents works with one.", "MCP 2026-07-28"),
    # The dialog in a chat
    Requirement(
        "chat-prompt",
        "A prompt names the server, the scope, the expiry, the user and the start.",
        "security 1, 3",
    ),
    Requirement("card-reason", "A prompt says why it came, on ten short lines at most.", "this package"),
    Requirement("card-notifies", "A success that could go unnoticed is a new message.", "this package"),
    Requirement(
        "chat-answer-repaired",
        "A split, doubled or soiled answer is repaired, or the user is asked.",
        "security 12",
    ),
    Requirement("private-topics", "All topics of one private chat may answer a login.", "security 4"),
    Requirement(
        "chat-wrong-address", "The provider's own address gets a sentence, not silence.", "this package"
    ),
    Requirement("chat-typo", "A mistyped server name gets the similar one offered.", "this package"),
    Requirement("owners-commands", "A clash with an application's commands is an error.", "this package"),
    Requirement(
        "chat-answer-deleted",
        "An answer is deleted first, or its author is asked to delete it.",
        "security 9",
    ),
    Requirement("chat-not-echoed", "No refusal repeats any part of a paste.", "security 3, this package"),
    Requirement(
        "chat-replay", "A used answer is refused, deleted and hidden from other handlers.", "security 10, 12"
    ),
    Requirement("chat-limits", "Open logins and starts are capped, per user and in total.", "security 21"),
    Requirement(
        "chat-private", "No address, code or picture is ever shown in a group.", "security 8, decision 7"
    ),
    Requirement(
        "chat-exposed",
        "A code that others could read ends its login; another one starts.",
        "this package, security 8",
    ),
    Requirement(
        "admission", "A user is admitted by a code from the terminal, or by an administrator.", "security 25"
    ),
    Requirement("chat-listed", "A user on no list starts nothing and gets no prompt.", "security 1, 20"),
    Requirement("chat-admins", "Only administrators change shared connections.", "security 20, this package"),
    Requirement("chat-owners", "The operator chooses whose tokens a login stores.", "security 20"),
    Requirement("chat-tidy", "After a login, at most its prompt stays.", "this package, security 24"),
    Requirement(
        "chat-survives", "The process that runs the bot keeps the prompt up to date.", "this package"
    ),
    Requirement("chat-countdown", "A prompt is edited at a few moments, not every second.", "this package"),
    Requirement("chat-harmless", "Text of others neither controls nor fills a card.", "security 13"),
    Requirement("chat-words", "Every sentence is in one place and can be translated.", "this package"),
    Requirement(
        "chat-ours",
        "Only a message that answers a login, or contains a code, is handled.",
        "this package, security 10",
    ),
    Requirement("chat-asks", "A call prompts its user in the private chat, and continues.", "this package"),
    # Telegram
    Requirement(
        "telegram-story", "A login starts and ends in a chat, and the waiting call continues.", "this package"
    ),
    Requirement(
        "telegram-three-messages", "At most three messages stay, none with a secret.", "this package"
    ),
    Requirement(
        "telegram-anywhere",
        "A login from another place, or from before a restart, continues.",
        "this package",
    ),
    Requirement(
        "telegram-kept",
        "A message with a link is protected from forwarding and has no preview.",
        "security 1, 11",
    ),
    Requirement(
        "telegram-sender", "A paste counts only from its login's user, chat and topic.", "security 3, 4"
    ),
    Requirement(
        "telegram-group",
        "A group sees no link, code or QR code, whatever a user requests there.",
        "security 8, 24",
    ),
    Requirement(
        "telegram-deleted",
        "A paste, even an edited one, is deleted before anything else is done.",
        "security 9",
    ),
    Requirement("telegram-agent-blind", "No other handler of an application sees a code.", "security 10"),
    Requirement("telegram-untouched", "Other updates reach the application's own handlers.", "this package"),
    Requirement("telegram-log", "No log record holds the bot's token, a code or a state.", "security 18"),
    Requirement(
        "telegram-people",
        "Unlisted users, bots, channels and anonymous admins get no response.",
        "security 20, 21",
    ),
    Requirement(
        "telegram-limits",
        "No message exceeds a limit of Telegram; no text is lost silently.",
        "this package",
    ),
    Requirement(
        "telegram-trouble",
        "Rate limits, network loss, blocks and a second poller are handled.",
        "this package",
    ),
    Requirement("telegram-plain", "Text of others becomes no link, mention or markup.", "security 13"),
    # Discord
    Requirement("discord-story", "A command leads to a connection, in messages of one user.", "this package"),
    Requirement(
        "discord-window", "An answer is typed into a modal and stored nowhere.", "this package, security 9"
    ),
    Requirement("discord-alone", "A device login updates its message without a click.", "this package"),
    Requirement("discord-unseen", "No other user sees an answer or can use its button.", "security 8"),
    Requirement(
        "discord-elsewhere", "If an interaction has expired, a direct message continues it.", "this package"
    ),
    Requirement("discord-restart", "One process handles the messages that another one sent.", "this package"),
    Requirement("discord-gateway", "A lost gateway connection loses no login.", "this package"),
    Requirement("discord-in-time", "An interaction is acknowledged before any other work.", "this package"),
    Requirement(
        "discord-posted",
        "An answer that is posted as a message ends its login, and is deleted if possible.",
        "security 9",
    ),
    Requirement("discord-people", "Ids, roles and guilds decide, also in direct messages.", "this package"),
    Requirement("discord-limits", "No message exceeds a limit of Discord.", "this package"),
    Requirement("discord-quoted", "Text of others is no markup, link or mention.", "security 13"),
    Requirement("discord-commands", "Commands are registered once; commands of others stay.", "this package"),
    Requirement("discord-log", "The log lines of the library contain no secret.", "security 18"),
    Requirement(
        "discord-bot", "The package's own bot requests the fewest intents and stops cleanly.", "this package"
    ),
    # Concurrent logins
    Requirement("begin-in-time", "The start of a login ends in time if servers stay silent.", "this package"),
    Requirement("looks", "Concurrent logins at one server share one discovery.", "this package"),
    # Inside Hermes
    Requirement("hermes-story", "A command in a chat leads to tools that the agent calls.", "this package"),
    Requirement(
        "hermes-kept-out", "No code reaches model, transcript, log or state.db.", "this package, security 10"
    ),
    Requirement(
        "hermes-belt", "The hook and the busy handler suffice if no other API is known.", "this package"
    ),
    Requirement(
        "hermes-who", "Hermes decides who may log in, again at the paste.", "this package, security 1, 20"
    ),
    Requirement("hermes-live", "After a login the tools work, without a restart.", "this package"),
    Requirement("hermes-asks", "A failed call prompts its user once; the model is informed.", "this package"),
    Requirement("hermes-waits", "The call that needed a login waits for it and is repeated.", "this package"),
    Requirement("hermes-loop", "No file is read on the event loop of Hermes's gateway.", "this package"),
    Requirement("hermes-relay", "If Hermes takes pasted addresses itself, it gets them.", "this package"),
    Requirement("hermes-profiles", "Each Hermes profile has its own logins and tools.", "this package"),
    Requirement(
        "hermes-layouts", "The plugin works with Hermes 0.19 and the layout of 0.21.", "this package"
    ),
    Requirement("hermes-doctor", "`doctor --hermes` names one remedy for what is wrong.", "this package"),
    Requirement("hermes-keeps", "Hermes's tokens and client stay until new ones are stored.", "this package"),
    Requirement("hermes-moved", "A missing API of Hermes is reported once; the rest works.", "this package"),
    Requirement(
        "hermes-elsewhere", "A login starts in a chat and ends in a terminal, or the reverse.", "this package"
    ),
    # All parts
    Requirement("safe-urls", "Only https, or http on loopback, is used.", "security 13, 14, 16"),
    Requirement("no-crash", "Hostile input raises McpAuthError and nothing else.", "security 14"),
    Requirement("linear", "A megabyte of hostile input is parsed in linear time.", "security 14, 21"),
    Requirement(
        "address-key",
        "A key in the query of an address is shown on no screen and in no chat.",
        "security 18",
    ),
    Requirement("no-secret", "No secret is in an error or a repr.", "security 18"),
    Requirement(
        "tracebacks-masked",
        "No traceback shows an error tracker a paste, a header or a token.",
        "docs/security.md",
    ),
    Requirement("login-table", "A transition that is not in the table does not happen.", "security 12"),
    Requirement("error-tree", "The documented error tree is the real one, with advice.", "errors.py"),
)

_IDS = frozenset(requirement.id for requirement in REQUIREMENTS)


def covers(*ids: str) -> Callable[[Test], Test]:
    """Declare the requirements that a test proves. Raises KeyError for an id that is not listed above."""
    for name in ids:
        if name not in _IDS:
            raise KeyError(name)
    return lambda test: test
