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
    Requirement(
        "issuer-path-slash",
        "If an issuer has a path, a different trailing slash makes it another issuer.",
        "quirk 2",
    ),
    Requirement(
        "issuer-exact",
        "Metadata of another issuer is refused unless `trusted_issuers` lists exactly that issuer.",
        "quirk 3",
    ),
    Requirement(
        "login-without-401", "Discovery works even if the MCP server does not answer with a 401.", "quirk 4"
    ),
    Requirement(
        "prm-by-path",
        "Resource metadata is found if it exists only under the path of the server's URL.",
        "quirk 5",
    ),
    Requirement(
        "as-path-order",
        "The metadata of an issuer with a path is requested at three URLs, in order.",
        "quirk 6, RFC 8414 §3.1",
    ),
    Requirement(
        "as-openid-only", "If only OpenID metadata exists, it is used; no endpoint is guessed.", "quirk 7"
    ),
    Requirement(
        "prm-second",
        "If a challenge names two metadata URLs and the first is missing, the second is tried.",
        "quirk 8",
    ),
    Requirement(
        "challenge-odd",
        "WWW-Authenticate headers in unusual notations are read.",
        "quirk 9, RFC 9110 §11.6.1",
    ),
    Requirement(
        "resource-covers",
        "`resource` in the metadata may be the origin or a parent path of the server's URL.",
        "quirk 10, RFC 9728 §3.3",
    ),
    Requirement(
        "resource-per-path",
        "Two MCP servers on one host with different paths are different resources.",
        "quirk 11",
    ),
    Requirement("server-query", "A query in the server's URL does not break discovery.", "quirk 12"),
    Requirement(
        "pkce-required",
        "A login is refused if the authorization server does not advertise S256.",
        "quirk 13, security 5, MCP",
    ),
    Requirement(
        "prm-downgrade", "A server error or a timeout does not count as missing metadata.", "security 15"
    ),
    Requirement(
        "fetch-bounds", "A challenge or a metadata document can cause only a few requests.", "security 14"
    ),
    # Registration and redirect
    Requirement(
        "client-id-needed",
        "A registration endpoint is never guessed; the error says what to configure.",
        "quirk 14",
    ),
    Requirement(
        "registration-403",
        "If registration gets a 403, the error suggests a client name that the provider knows.",
        "quirk 15",
    ),
    Requirement(
        "secret-unasked",
        "A client secret in the registration response is used even if none was requested.",
        "quirk 16",
    ),
    Requirement(
        "auth-method",
        "Basic is used only if it is offered; if it is refused, client_secret_post is tried once.",
        "quirk 17, RFC 6749 §2.3.1",
    ),
    Requirement("registered-uri", "A login uses the redirect URI that its client registered.", "quirk 18"),
    Requirement(
        "stale-client",
        "If the server has deleted a client, the error is invalid_client; a login registers a new one.",
        "quirk 19",
    ),
    Requirement(
        "as-several",
        "Of several authorization servers, a login uses one that accepts this client.",
        "quirk 60",
    ),
    Requirement(
        "cimd-flag",
        "A client metadata document is used only if the server advertises support for it.",
        "quirk 20",
    ),
    Requirement(
        "bearer-case", "The Authorization header says Bearer even if token_type is bearer.", "quirk 21"
    ),
    Requirement(
        "other-loopback",
        "If registration refuses one loopback host, the other one is tried once.",
        "quirk 22",
    ),
    Requirement(
        "client-priority",
        "The configured client comes first, then the stored one, CIMD, and a new registration.",
        "MCP client registration",
    ),
    Requirement(
        "client-binding",
        "A client's credentials are sent only to the issuer that registered the client.",
        "MCP client registration",
    ),
    Requirement(
        "application-type",
        "Registration sends native for a loopback redirect URI, and web for an https one.",
        "MCP client registration",
    ),
    # Scope and parameters
    Requirement(
        "offline-access", "offline_access is requested if the authorization server lists it.", "quirk 24"
    ),
    Requirement(
        "invalid-scope",
        "An invalid_scope error keeps its code, and its advice names the option to set.",
        "quirk 25",
    ),
    Requirement(
        "scope-choice",
        "The scope is the configured one, else the challenge's, else the metadata's, else none.",
        "quirk 26, MCP",
    ),
    Requirement(
        "extra-parameters",
        "Configured parameters are added to a request and replace none of its own parameters.",
        "quirk 27, security 13",
    ),
    Requirement(
        "resource-choice",
        "The resource is sent exactly as published; an option leaves it out.",
        "quirk 28, RFC 8707",
    ),
    Requirement(
        "resource-everywhere",
        "All requests of a login, and its refreshes, carry the same resource.",
        "quirk 29, RFC 8707",
    ),
    Requirement(
        "step-up",
        "If a server demands more scope, a login requests the union of scopes, within the cap.",
        "quirk 38, security 22",
    ),
    Requirement("pkce-s256", "The code_challenge is the S256 hash of the verifier.", "RFC 7636 §4.2"),
    Requirement(
        "pushed", "An authorization request is pushed if the authorization server supports that.", "RFC 9126"
    ),
    # Devices
    Requirement(
        "device-grant",
        "A client registers the device grant if the authorization server offers it.",
        "quirk 23, RFC 7591",
    ),
    Requirement("device-endpoint", "The device endpoint is also read from the OpenID metadata.", "quirk 46"),
    Requirement(
        "device-answer",
        "A user code that cannot be typed and an unsafe verification URL are refused.",
        "RFC 8628 §3.2, §5.4",
    ),
    Requirement(
        "device-scope",
        "If a scope is not allowed in the device flow, the login switches to pasting.",
        "quirk 47",
    ),
    Requirement(
        "device-poll",
        "No poll is sent early; each response decides when to poll again, or to stop.",
        "quirk 46, RFC 8628 §3.5",
    ),
    Requirement(
        "device-heap",
        "A thousand device logins wait on the timers of one loop; concurrent polls are limited.",
        "docs/performance.md: polling",
    ),
    Requirement(
        "device-one-poller",
        "One process polls a login; if that process ends, another one takes over.",
        "this package",
    ),
    Requirement(
        "device-switch",
        "A waiting login can switch from the device flow to pasting, and back.",
        "this package",
    ),
    Requirement(
        "device-off",
        "The operator can turn the device flow off, for a server or for a platform.",
        "security 2",
    ),
    Requirement(
        "flow-choice",
        "The device flow is used only if the server supports it and the caller allows it.",
        "decision 9",
    ),
    Requirement(
        "device-screen",
        "The user code is alone on its line, and the screen says who should enter it.",
        "security 1, security 2",
    ),
    # Tokens
    Requirement("form-answer", "A form-encoded token response is read.", "quirk 30"),
    Requirement("error-in-200", "An error in a response with status 200 is treated as an error.", "quirk 31"),
    Requirement("expires-in", "If expires_in is missing or invalid, the expiry is unknown.", "quirk 32"),
    Requirement(
        "keep-refresh", "Values that a refresh response leaves out are kept.", "quirk 33, RFC 6749 §6"
    ),
    Requirement("refresh-failures", "A temporary failure of a refresh does not end the session.", "quirk 34"),
    Requirement(
        "revocation", "Tokens are revoked only at the endpoint that the metadata names.", "RFC 7009 §2.1"
    ),
    # Reading authorization responses
    Requirement(
        "iss-mismatch",
        "A response with a wrong iss is refused. If it contains an error text, that is not shown.",
        "quirk 39, RFC 9207 §2.4",
    ),
    Requirement(
        "paste-mangled", "Changes that phones and chats make to a pasted address are undone.", "quirk 40"
    ),
    Requirement(
        "paste-duplicates", "An address with a repeated parameter is refused.", "quirk 40, RFC 6749 §3.1"
    ),
    Requirement(
        "paste-uncertain",
        "A code is not sent if it is uncertain where the code ends in the pasted text.",
        "quirk 48",
    ),
    Requirement(
        "paste-leftovers",
        "Characters that a terminal leaves around a pasted address are removed.",
        "quirk 48",
    ),
    Requirement("paste-foreign", "A pasted response of another login leaves this login waiting.", "quirk 41"),
    Requirement(
        "bare-code", "A code without an address is accepted only if the login allows it.", "security 7"
    ),
    Requirement(
        "one-door", "Only `read_authorization_response` can create an AuthorizationResponse.", "security 4"
    ),
    # Outgoing requests
    Requirement(
        "address-policy", "Internal addresses are requested only if the operator allows them.", "security 14"
    ),
    Requirement("dns-rebinding", "The connection goes to the address that was checked.", "security 14"),
    Requirement("dead-ipv6", "An address that does not respond costs 250 ms, once per host.", "RFC 8305"),
    Requirement(
        "fake-dns",
        "An answer of fake-IP DNS is accepted only for hosts that the operator names.",
        "security 14",
    ),
    Requirement(
        "numeric-hosts",
        "A host that ends in a number is read as an IPv4 address or refused.",
        "WHATWG URL §3.6",
    ),
    Requirement(
        "redirects", "Each redirect of a GET is checked; a redirect of a POST is not followed.", "security 14"
    ),
    Requirement("answer-limits", "The time and the size of every response are limited.", "security 14"),
    Requirement(
        "small-metadata",
        "A login keeps at most 64 KiB of metadata; logins of one server share it.",
        "security 21",
    ),
    Requirement("bounded-work", "No response keeps the event loop busy for long.", "RFC 9110 section 17"),
    Requirement(
        "post-once", "If the response to a POST is lost, the POST is not sent again.", "quirk 42, security 12"
    ),
    Requirement(
        "look-up-shared", "Concurrent callers that resolve the same name share one lookup.", "RFC 1035 §7.1"
    ),
    Requirement(
        "look-up-bounds",
        "Hanging lookups of one server do not block the lookups of another server.",
        "decision 16",
    ),
    Requirement(
        "look-up-abandoned",
        "A hanging resolver delays no time limit and no exit of the process.",
        "the resolver has no timeout",
    ),
    Requirement("file-work", "File work has its own threads, so it never waits for a server.", "decision 16"),
    Requirement(
        "unchecked-host",
        "A host from metadata is refused if its addresses cannot be checked.",
        "RFC 9728 §7.7",
    ),
    Requirement("proxies", "All requests except those to loopback use the operator's proxy.", "quirk 45"),
    Requirement("authorities", "All requests trust the operator's certificate authorities.", "quirk 45"),
    Requirement("own-headers", "Headers for one server go to no other server.", "security 14, 18"),
    Requirement(
        "debug-log",
        "The debug log of an HTTP library contains no header of this package's requests.",
        "security 18",
    ),
    # Logins
    Requirement(
        "stored-first",
        "A login is stored before the caller gets it, and any process can complete it.",
        "design, MCP",
    ),
    Requirement(
        "single-use",
        "If several callers submit the same response, only one of them sends the code.",
        "security 12",
    ),
    Requirement(
        "code-once",
        "If the response to a code exchange is lost, the code is not sent again.",
        "quirk 42, RFC 6749 §4.1.2",
    ),
    Requirement("paste-limit", "The fifth wrong paste in a chat ends the login.", "security 21"),
    Requirement("two-logins", "Each of two logins for one server accepts only its own response.", "quirk 43"),
    Requirement(
        "same-origin",
        "A login accepts a response only from the origin (user and chat) that started it.",
        "security 3, 4, 20",
    ),
    Requirement(
        "expiry", "A login expires in time even if the process that started it has died.", "security 4"
    ),
    Requirement("old-survive", "A failed login does not change stored credentials.", "quirk 19, decision 4"),
    Requirement("earlier-home", "Files that an earlier version stored are read and used.", "design"),
    Requirement(
        "earlier-configuration", "config.yaml and .env mean what they meant to an earlier version.", "design"
    ),
    Requirement(
        "logout", "Logout tries to revoke the tokens, and always deletes them.", "security 23, RFC 7009"
    ),
    # Sessions and bindings
    Requirement(
        "hot-path",
        "Getting the header of a valid token takes no lock and does no I/O.",
        "docs/performance.md: the auth step, decision 1",
    ),
    Requirement(
        "one-refresh",
        "All callers of all processes share one refresh.",
        "quirk 36, docs/performance.md: processes that share a token",
    ),
    Requirement("kept-before-use", "Rotated tokens are stored before their first use.", "quirk 33"),
    Requirement(
        "late-tokens",
        "The response to a token request is read to its end, and its tokens are stored.",
        "decision 17",
    ),
    Requirement(
        "due-token",
        "A token that is due for a refresh is used while another process holds the lock.",
        "decision 3",
    ),
    Requirement(
        "exit-waits",
        "A process that exits waits only for token requests in flight, and says so.",
        "decision 17",
    ),
    Requirement(
        "killed",
        "After a kill, files are complete and no lock is held; only a lost rotation ends the session.",
        "this package",
    ),
    Requirement(
        "wrong-clock", "A wrong clock ends no session and causes no repeated refreshes.", "this package"
    ),
    Requirement("disk-refuses", "Tokens that cannot be stored are used, and stored later.", "this package"),
    Requirement(
        "asked-once",
        "A refresh token that the server has refused is not sent again.",
        "quirk 34, docs/performance.md: requests",
    ),
    Requirement(
        "adopted", "If another process has refreshed the tokens, its tokens are used.", "quirk 34, 35"
    ),
    Requirement(
        "fs-group",
        "If only its group has gained access to a file, the file is made private again.",
        "Kubernetes fsGroup",
    ),
    Requirement(
        "no-modes",
        "On a file system without modes, a store opens only if a setting allows that.",
        "security 19",
    ),
    Requirement(
        "no-home",
        "Without a home directory, commands report an error and write no token.",
        "POSIX XBD 8.3 (HOME)",
    ),
    Requirement("token-address", "A token is sent only to its own server.", "security 15, 20"),
    Requirement("body-read", "The body of a 401 is read before a caller waits for a token.", "decision 15"),
    Requirement(
        "refusal-bounded",
        "At most 64 KiB of the body of a 401 or 403 are read, in at most two seconds.",
        "RFC 9110 section 15.5.2",
    ),
    Requirement("no-address", "The error that asks for a login contains no URL.", "security 10"),
    Requirement(
        "side-by-side",
        "No request waits for the response to another request.",
        "docs/performance.md: many calls at once",
    ),
    Requirement(
        "either-library",
        "Users of httpx need not install httpx2, and users of httpx2 need not install httpx.",
        "layout",
    ),
    Requirement(
        "one-mcp-auth",
        "One McpAuth works with both libraries, and can be copied and pickled.",
        "this package",
    ),
    Requirement("sdk-storage", "The MCP SDK and this package share one login.", "this package"),
    Requirement(
        "sdk-provider",
        "The MCP SDK refreshes like this package, and prompts the user only if a refresh is impossible.",
        "this package",
    ),
    Requirement(
        "request-counts",
        "No more requests are sent than docs/performance.md lists.",
        "docs/performance.md: requests",
    ),
    # The terminal and the command line
    Requirement(
        "race",
        "If paste, redirect and another process bring responses at once, only one response counts.",
        "security 12",
    ),
    Requirement("url-whole", "The screen shows the complete URL, alone on its line.", "this package"),
    Requirement(
        "qr-fits",
        "A QR code is drawn only if it fits and can be scanned.",
        "security 24, docs/performance.md: a QR code",
    ),
    Requirement(
        "interrupted",
        "After a signal at any moment, the command prints one sentence and loses nothing.",
        "this package",
    ),
    Requirement(
        "one-identity",
        "An address means the server that has it, in every command, program and chat.",
        "this package",
    ),
    Requirement("advice-runs", "A command that an advice names runs exactly as printed.", "this package"),
    Requirement(
        "advice-note",
        "A traceback shows the advice of an error once, also inside an ExceptionGroup.",
        "PEP 678",
    ),
    Requirement(
        "server-choice", "If `login` names no server, the user chooses one from a list.", "this package"
    ),
    Requirement(
        "did-you-mean",
        "If a user mistypes a verb or a server's name, the error names a similar one.",
        "this package",
    ),
    Requirement(
        "help-fits",
        "The help that a bare command prints fits a window of 80 columns and 24 rows.",
        "this package",
    ),
    Requirement(
        "browser-failure",
        "If no browser could be opened, the terminal says so, and what to do instead.",
        "this package",
    ),
    Requirement(
        "readme-runs",
        "The Python examples of the README run, and the README says what each of them needs.",
        "this package",
    ),
    Requirement(
        "unknown-owner",
        "If nothing is stored for the owner that a command names, the command says so.",
        "this package",
    ),
    Requirement(
        "scheme-missing",
        "An address without https:// gets an error that says so, with the corrected command.",
        "this package",
    ),
    Requirement(
        "exit-codes", "Each error that ends a command has a sentence and a stable exit code.", "this package"
    ),
    Requirement("no-escape", "Text from a server cannot control a terminal.", "security 13"),
    Requirement("ssh-paste", "A long paste over SSH arrives complete.", "this package"),
    Requirement("demo-typed", "The chat demos accept everything that a user types.", "this package"),
    Requirement("qr-content", "The screen says what the QR code contains.", "this package"),
    Requirement(
        "facts-visible", "The screen shows all facts of a login in a window of 24 rows.", "this package"
    ),
    Requirement(
        "listener-collapse",
        "The loopback listener counts foreign requests and does not store them.",
        "RFC 8252 §8.3",
    ),
    Requirement("paste-together", "Bytes that arrive together are read as one paste.", "quirk 48"),
    Requirement("csi-u", "Control keys work if a terminal sends them as control sequences.", "this package"),
    Requirement("forwarded", "A redirect through a forwarded port completes the login.", "this package"),
    Requirement(
        "expected-page", "The screen says in advance that the last page cannot be reached.", "quirk 44"
    ),
    Requirement(
        "fast-token",
        "A stored valid token is printed without loading an HTTP client.",
        "docs/performance.md: start-up",
    ),
    Requirement(
        "new-token-refused",
        "If a server refuses even new tokens, all processes refresh less and less often.",
        "RFC 6750 §3.1",
    ),
    Requirement("fork-reset", "A forked child waits for no lock, thread or future of its parent.", "fork.py"),
    Requirement(
        "no-descriptors",
        "If the process has no free file descriptor, a call raises a typed error.",
        "errors.py: OutOfResources",
    ),
    Requirement(
        "cancelled-caller",
        "A cancelled caller leaves no claimed login and no waiting login that no caller knows.",
        "threads.py",
    ),
    Requirement(
        "login-clock", "Setting the clock does not change how long a login lives.", "CLOCK_BOOTTIME, boot id"
    ),
    Requirement("last-poll", "A device login is polled once more before it expires.", "RFC 8628 §3.5"),
    Requirement("loop-and-store", "No event loop waits for the store.", "store/protocol.py"),
    Requirement(
        "store-contract", "Every store fulfils the contract of `store.protocol`.", "store/protocol.py"
    ),
    Requirement(
        "shared-store",
        "Two workers with one store continue each other's logins and sessions; one of them refreshes.",
        "store/protocol.py",
    ),
    Requirement(
        "refresh-margin", "Service and fast path agree on when to refresh a token.", "refresh_margins.py"
    ),
    Requirement(
        "more-access",
        "If a server demands more access, status and doctor say so.",
        "this package",
    ),
    Requirement(
        "status-ahead",
        "status warns in advance if a session will end and only a login can prolong it.",
        "this package",
    ),
    Requirement(
        "logout-many",
        "One logout ends several or all logins; a failure of one does not stop the others.",
        "this package",
    ),
    Requirement(
        "logout-repeated",
        "A repeated logout of a known server and owner succeeds, and of an unknown one with an option.",
        "this package",
    ),
    Requirement(
        "run-environment",
        "`run` puts the token into the environment only if the user requests that.",
        "this package",
    ),
    Requirement(
        "doctor",
        "doctor reports a login's errors, but stores and registers nothing and gets no code or token.",
        "this package",
    ),
    Requirement("status-all", "An error of one server does not hide the others in status.", "this package"),
    Requirement(
        "status-table",
        "In a terminal, no row of status is wider than the terminal; elsewhere, the text is always the same.",
        "docs/cli.md",
    ),
    Requirement(
        "status-check", "If a person must log in now or soon, status --check exits with 4.", "docs/cli.md"
    ),
    Requirement(
        "status-next",
        "Lasts says when the user must log in again; Next says what to do, or what happens next.",
        "docs/cli.md",
    ),
    Requirement(
        "doctor-all",
        "doctor without a name examines all servers; a server that hangs does not delay the others.",
        "docs/cli.md",
    ),
    Requirement(
        "doctor-hint",
        "If a server or the network makes a login fail, the error names the doctor command.",
        "this package",
    ),
    Requirement("help-examples", "Each example in a help text runs as printed.", "this package"),
    Requirement(
        "json-schema", "Each line that a verb prints for --json matches docs/json.md.", "docs/json.md"
    ),
    Requirement(
        "from-clone",
        "Docs and messages name no command that installs this package from an index.",
        "this package",
    ),
    Requirement("package-script", "A script has the name of the package, for uvx and pipx.", "this package"),
    # Prompting a user during a call
    Requirement(
        "one-prompt",
        "Ten concurrent calls cause one prompt, and all of them continue after the login.",
        "this package",
    ),
    Requirement(
        "whose-tokens",
        "A chat user logs in only for their own tokens, unless the operator allows more.",
        "security 4, 20",
    ),
    Requirement(
        "no-user-to-ask",
        "If no user can be prompted, a call fails at once, and its error has no URL.",
        "this package",
    ),
    # DPoP, and grants without a user
    Requirement("dpop-proof", "Each request carries its own proof of the key.", "RFC 9449 §4, §5, §7"),
    Requirement(
        "dpop-nonce", "A request is retried once with the nonce that the server demands.", "RFC 9449 §8, §9"
    ),
    Requirement(
        "refresh-verdict",
        "The HTTP status is checked first to decide whether a refused refresh is final.",
        "RFC 6749 §5.2",
    ),
    Requirement(
        "refresh-back-off",
        "A failed refresh is reported to all callers; a token that is still valid stays usable.",
        "RFC 6749 §6",
    ),
    Requirement(
        "server-words", "A server's text is shown on the user's screen, and no model gets it.", "MCP security"
    ),
    Requirement(
        "dpop-choice",
        "Tokens are bound to a key only if a server or the operator requires that.",
        "RFC 9449 §5.1, §7.1",
    ),
    Requirement("dpop-key", "The key is stored with its tokens and deleted with them.", "RFC 9449 §11"),
    Requirement(
        "client-credentials",
        "A client can get a token with its own credentials.",
        "RFC 6749 §4.4, RFC 7523 §2.2",
    ),
    Requirement("jwt-bearer", "A workload's JWT is sent only to its audience.", "RFC 7523 §2.1"),
    Requirement(
        "enterprise", "An identity provider's assertion is exchanged for a token.", "RFC 8693, ID-JAG"
    ),
    Requirement("no-person", "A session of a machine grant is refreshed without a user.", "this package"),
    Requirement(
        "conformance", "Every auth scenario of the official conformance suite passes.", "this package"
    ),
    # Chats
    Requirement(
        "begun-elsewhere",
        "A login that another process starts for a user is completed in that user's chat.",
        "this package",
    ),
    Requirement(
        "sender-binding",
        "A paste is accepted only from the user and chat that started the login.",
        "security 3, 4",
    ),
    Requirement(
        "one-status", "Command line, chats and reminders agree on whether a connection works.", "this package"
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
        "A command or a check for reminders reads config.yaml once, and stored files only if changed.",
        "this package",
    ),
    Requirement(
        "config-names-mistakes",
        "Unknown keys, and configuration files that other users can change, are reported.",
        "this package",
    ),
    Requirement(
        "failed-starts-count", "Failed starts of logins count towards the user's limit.", "this package"
    ),
    Requirement(
        "container-secrets",
        "A bot's token can come from a secret that a container runtime mounts.",
        "this package",
    ),
    Requirement(
        "dependencies", "No version with a known vulnerability is admitted or pinned.", "pyproject.toml"
    ),
    Requirement(
        "bot-proxy",
        "Bots use the environment's proxy; plain http to another machine needs the operator's consent.",
        "this package",
    ),
    Requirement(
        "server-name-forms", "A server is found by its name in any Unicode normal form.", "this package"
    ),
    Requirement(
        "operators-choice",
        "The operator configures which users may log in, and who owns the tokens.",
        "security 20",
    ),
    Requirement(
        "attention", "A session that needs a login causes one message with one button.", "this package"
    ),
    Requirement(
        "serve",
        "Bots report starts, errors and stops in a sentence, and take no token as an argument.",
        "this package",
    ),
    Requirement(
        "serve-stop",
        "A signal ends `serve` also if a chat library loses it, and an orderly close is not interrupted.",
        "this package",
    ),
    Requirement(
        "via",
        "`login --via` shows its login in the user's chat, and the user completes it there.",
        "this package",
    ),
    # The stdio bridge
    Requirement("bridge-transports", "A stdio client reaches MCP servers of every revision.", "MCP"),
    Requirement(
        "bridge-recovers",
        "After a restart, a lost session or a dead token, the client's calls continue.",
        "MCP",
    ),
    Requirement(
        "bridge-login",
        "A call waits for the login that it needs; no model gets the login's URL.",
        "this package",
    ),
    Requirement(
        "bridge-optional-login",
        "The bridge asks for a login only if the server refuses a request without a token.",
        "MCP authorization 2025-11-25, Authorization Flow Steps",
    ),
    Requirement(
        "bridge-bad-input",
        "Bad input from either side causes a JSON-RPC error and does not end the bridge.",
        "JSON-RPC 2.0",
    ),
    Requirement("bridge-large", "A large result passes in constant memory.", "this package"),
    Requirement(
        "cimd-only",
        "A login works at a server that accepts only client metadata documents.",
        "MCP 2026-07-28",
    ),
    # The dialog in a chat
    Requirement(
        "chat-prompt",
        "A prompt names the server, the login's host, the scope and the time limit.",
        "security 1, 3",
    ),
    Requirement(
        "card-reason", "A prompt says why the user gets it, in at most ten short lines.", "this package"
    ),
    Requirement(
        "card-notifies",
        "If the user could miss an edit of the prompt, a success is a new message.",
        "this package",
    ),
    Requirement(
        "chat-answer-repaired",
        "A split, doubled or damaged answer is repaired, or the bot asks for it again.",
        "security 12",
    ),
    Requirement(
        "private-topics", "The user can answer a login in every topic of the private chat.", "security 4"
    ),
    Requirement(
        "chat-wrong-address",
        "If a user sends the provider's own address, the bot says which address it needs.",
        "this package",
    ),
    Requirement(
        "chat-typo", "If a user mistypes a server's name, the bot offers the similar one.", "this package"
    ),
    Requirement(
        "owners-commands",
        "A clash with a command of the application is reported as an error.",
        "this package",
    ),
    Requirement(
        "chat-answer-deleted",
        "The bot deletes an answer before it uses it, or asks the user to delete it.",
        "security 9",
    ),
    Requirement(
        "chat-not-echoed", "No refusal repeats a part of the pasted text.", "security 3, this package"
    ),
    Requirement(
        "chat-replay",
        "A used answer is refused and deleted, and no other handler gets it.",
        "security 10, 12",
    ),
    Requirement("chat-limits", "Open logins and starts of logins are limited.", "security 21"),
    Requirement(
        "chat-private",
        "No address, code or picture of a login is shown in a group.",
        "security 8, decision 7",
    ),
    Requirement(
        "chat-exposed",
        "If other users could read a code, its login ends, and the bot starts a new login.",
        "this package, security 8",
    ),
    Requirement(
        "admission", "A user is admitted by a code from the terminal, or by an administrator.", "security 25"
    ),
    Requirement(
        "chat-url",
        "An administrator may connect an unconfigured server: public addresses only, marked as such.",
        "security 28",
    ),
    Requirement(
        "chat-listed", "A user who is on no list can start nothing and gets no prompt.", "security 1, 20"
    ),
    Requirement(
        "chat-admins", "Only administrators can change shared connections.", "security 20, this package"
    ),
    Requirement("chat-owners", "The operator chooses who owns the tokens of a login.", "security 20"),
    Requirement(
        "chat-tidy",
        "After a login has ended, at most its prompt stays in the chat.",
        "this package, security 24",
    ),
    Requirement(
        "chat-survives",
        "The process that runs the bot keeps prompts up to date, also after a restart.",
        "this package",
    ),
    Requirement(
        "chat-still-connected",
        "A login that fails does not say that a server is not connected while its earlier session works.",
        "this package",
    ),
    Requirement(
        "chat-countdown", "The countdown edits a prompt a few times, not every second.", "this package"
    ),
    Requirement(
        "chat-harmless", "Text from servers and users can neither control nor fill a card.", "security 13"
    ),
    Requirement("chat-words", "All sentences are in one module and can be translated.", "this package"),
    Requirement(
        "chat-ours",
        "Of plain messages, the bot handles only those that answer a login or contain a code.",
        "this package, security 10",
    ),
    Requirement(
        "chat-asks",
        "A call prompts its user in the private chat, and continues after the login.",
        "this package",
    ),
    # Telegram
    Requirement(
        "telegram-story",
        "A login starts and ends in a chat, and the call that waited continues.",
        "this package",
    ),
    Requirement(
        "telegram-three-messages",
        "After a login, at most three messages stay in the chat, none with a secret.",
        "this package",
    ),
    Requirement(
        "telegram-anywhere",
        "A login that another process or an earlier run of the bot started can be completed.",
        "this package",
    ),
    Requirement(
        "telegram-kept",
        "A message with a link cannot be forwarded and has no preview.",
        "security 1, 11",
    ),
    Requirement(
        "telegram-sender",
        "A paste is accepted only from its login's user, in any topic of the private chat.",
        "security 3, 4",
    ),
    Requirement(
        "telegram-group",
        "A group never sees a link, a code or a QR code of a login.",
        "security 8, 24",
    ),
    Requirement(
        "telegram-deleted",
        "The bot deletes a paste, even an edited one, before it does anything else.",
        "security 9",
    ),
    Requirement("telegram-agent-blind", "No other handler of the application gets a code.", "security 10"),
    Requirement(
        "telegram-untouched", "All other updates reach the application's own handlers.", "this package"
    ),
    Requirement("telegram-log", "No log record contains the bot's token, a code or a state.", "security 18"),
    Requirement(
        "telegram-people",
        "Bots, channels and anonymous admins get no reply; an unlisted user gets only their id.",
        "security 20, 21",
    ),
    Requirement(
        "telegram-limits",
        "No message exceeds a limit of Telegram, and a truncated text ends with an ellipsis.",
        "this package",
    ),
    Requirement(
        "telegram-trouble",
        "The bot handles rate limits, network loss, users who block it, and a second poller.",
        "this package",
    ),
    Requirement(
        "telegram-plain", "Text from servers and users becomes no link, mention or markup.", "security 13"
    ),
    # Discord
    Requirement(
        "discord-story",
        "A slash command leads to a connection, in messages that only its user sees.",
        "this package",
    ),
    Requirement(
        "discord-window",
        "The user types an answer into a form, and no message contains it.",
        "this package, security 9",
    ),
    Requirement("discord-alone", "The message of a device login is updated without a click.", "this package"),
    Requirement(
        "discord-unseen", "No other user sees a prompt or an answer, or can use its buttons.", "security 8"
    ),
    Requirement(
        "discord-elsewhere",
        "If an interaction has expired, the login continues in a direct message.",
        "this package",
    ),
    Requirement(
        "discord-restart", "A process handles buttons and forms that another process sent.", "this package"
    ),
    Requirement("discord-gateway", "A lost gateway connection ends no login.", "this package"),
    Requirement("discord-in-time", "An interaction is acknowledged before any other work.", "this package"),
    Requirement(
        "discord-posted",
        "An answer that a user posts as a message ends its login, and is deleted if possible.",
        "security 9",
    ),
    Requirement(
        "discord-people",
        "The policy's ids, roles and guilds apply in channels and in direct messages.",
        "this package",
    ),
    Requirement("discord-limits", "No message exceeds a limit of Discord.", "this package"),
    Requirement(
        "discord-quoted", "Text from servers and users becomes no markup, link or mention.", "security 13"
    ),
    Requirement(
        "discord-commands",
        "Commands are registered once, and the application's other commands stay unchanged.",
        "this package",
    ),
    Requirement("discord-log", "The library's log contains no secret.", "security 18"),
    Requirement(
        "discord-bot",
        "The bot that `serve` runs requests the fewest intents and stops cleanly.",
        "this package",
    ),
    # Concurrent logins
    Requirement(
        "begin-in-time", "The start of a login fails in time if servers do not respond.", "this package"
    ),
    Requirement("looks", "Concurrent logins at one server share one discovery.", "this package"),
    # Inside Hermes
    Requirement(
        "hermes-story",
        "A command in a chat connects a server, and the agent calls its tools.",
        "this package",
    ),
    Requirement(
        "hermes-kept-out",
        "No code reaches the model, a transcript, a log or state.db.",
        "this package, security 10",
    ),
    Requirement(
        "hermes-belt",
        "With only the hook and the busy handler, logins work and codes are claimed.",
        "this package",
    ),
    Requirement(
        "hermes-who",
        "Hermes decides who may log in, and is asked again when the user pastes.",
        "this package, security 1, 20",
    ),
    Requirement("hermes-live", "After a login, the server's tools work without a restart.", "this package"),
    Requirement(
        "hermes-asks", "A failed call prompts its user once, and the model is told so.", "this package"
    ),
    Requirement(
        "hermes-waits", "A call that needs a login waits for it and is then repeated.", "this package"
    ),
    Requirement("hermes-loop", "No file is read on the event loop of Hermes's gateway.", "this package"),
    Requirement(
        "hermes-relay",
        "If Hermes itself reads pasted addresses, the plugin leaves the ones of Hermes's logins to it.",
        "this package",
    ),
    Requirement("hermes-profiles", "Each Hermes profile has its own logins and tools.", "this package"),
    Requirement(
        "hermes-layouts", "The plugin works with Hermes 0.19 and the layout of 0.21.", "this package"
    ),
    Requirement(
        "hermes-docs", "The commands of docs/hermes.md work exactly as they are printed.", "docs/hermes.md"
    ),
    Requirement(
        "hermes-doctor", "`doctor --hermes` says what is wrong and names one remedy.", "this package"
    ),
    Requirement("hermes-keeps", "Hermes's tokens and client stay until new ones are stored.", "this package"),
    Requirement(
        "hermes-moved",
        "A name that Hermes no longer has is reported once, and the rest works.",
        "this package",
    ),
    Requirement(
        "hermes-elsewhere",
        "A login can start in a chat and end in a terminal, or the reverse.",
        "this package",
    ),
    # All parts
    Requirement("safe-urls", "Only https URLs, or http URLs on loopback, are used.", "security 13, 14, 16"),
    Requirement("no-crash", "Hostile input raises only McpAuthError.", "security 14"),
    Requirement("linear", "A megabyte of hostile input is parsed in linear time.", "security 14, 21"),
    Requirement(
        "address-key",
        "A key in the query of a server's URL is shown on no screen and in no chat.",
        "security 18",
    ),
    Requirement("no-secret", "No error text and no repr contains a secret.", "security 18"),
    Requirement(
        "tracebacks-masked",
        "A traceback in an error tracker contains no paste, header or token.",
        "docs/security.md",
    ),
    Requirement(
        "login-table", "A login changes its status only by a transition in the table.", "security 12"
    ),
    Requirement(
        "error-tree", "The documented error tree matches the code, and each error has advice.", "errors.py"
    ),
)

_IDS = frozenset(requirement.id for requirement in REQUIREMENTS)


def covers(*ids: str) -> Callable[[Test], Test]:
    """Declare the requirements that a test proves; raises KeyError for an unknown id."""
    for name in ids:
        if name not in _IDS:
            raise KeyError(name)
    return lambda test: test
