"""Every sentence that a chat says, in one place; `replace(ENGLISH, ...)` or another `Words` translates them.

What stands in braces is filled in by the conversation. What errors say comes with the error, in English,
unless `errors` has words for its `code`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


# What nobody calls is not generated for a hundred fields at every start.
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Words:
    """The sentences of a chat. Each is one thought; names in braces are `str.format` fields."""

    # A login that waits.
    connect_title: str = "Connect {server}"
    server: str = "Server"
    log_in_at: str = "You log in at"
    tokens_from: str = "Tokens come from"
    access: str = "Access"
    by_default: str = "whatever the provider grants by default"
    added: str = "New"
    whose: str = "For"
    for_all: str = "everybody who uses this bot"
    for_you: str = "you alone"
    open_until: str = "Open until"
    moment: str = "{clock} UTC ({span})"
    minutes: str = "{count} minutes"
    one_minute: str = "1 minute"
    only_if: str = "Continue only if you asked for this just now."
    approve: str = "Open the page on any device, compare its host with the one above, and approve."
    dead_end: str = (
        "The browser then ends on a page that cannot be reached: that is expected. Copy the whole address of "
        "that page."
    )
    last_page: str = "Then copy the whole address of the page on which the browser ended."
    paste_here: str = "Send it to me here; I delete it at once."
    paste_in_form: str = "Press {button} and put it there; nobody else sees it."
    paste_undeleted: str = "Send it to me here, and delete your message afterwards: here I cannot."
    paste_nowhere_else: str = "Give it to nobody else. It is for the login that began at {clock} UTC."
    enter_code: str = "Open the page on any device, log in, and enter this code:"
    compare_code: str = "If the page shows the code already, compare it letter by letter."
    ends_alone: str = (
        "This ends by itself once you have approved. Give the code to nobody: whoever asked for it gets the "
        "access."
    )
    exchanging: str = "The answer is here; asking for the tokens…"
    page: str = "Open the page"
    show_qr: str = "QR code"
    use_code: str = "Use a code instead"
    use_paste: str = "Paste instead"
    new_code: str = "New code"
    copy_code: str = "Copy the code"
    paste: str = "Paste the address"
    cancel: str = "Cancel"
    form_title: str = "Finish the login"
    form_label: str = "The address your browser ended on"
    by_word: str = "Answer with a word: {words}."
    # The QR code.
    qr_title: str = "Scan this to connect {server}"
    qr_until: str = "It leads to {host}, and is deleted when the login is over."
    qr_too_dense: str = (
        "The address is too long for a QR code that a camera could read from a screen. Open the page with "
        "the button, or send yourself the link."
    )
    # How it ended.
    connected_title: str = "{server}: connected"
    connected_as: str = "As"
    as_granted: str = "as granted by the provider"
    not_granted: str = "Not granted"
    lasts: str = "Lasts"
    renews: str = "it renews itself"
    until: str = "until {clock} UTC"
    until_ended: str = "until the provider ends it"
    not_you: str = "If that is not your account, disconnect at once."
    reload: str = "Its tools are not in use yet: send {command}."
    undeleted: str = "I could not delete your message with the address: please delete it yourself."
    failed_title: str = "{server}: not connected"
    expired: str = "This login was not finished in time. Nothing was changed."
    cancelled: str = "Cancelled. Nothing was changed."
    try_again: str = "Try again"
    # Answers that do not count.
    refused_title: str = "That did not finish the login of {server}"
    stray_title: str = "No login of yours waits for that"
    stray: str = "It may be an older one, or somebody else's. I did not use it."
    stray_advice: str = "Begin with {command}, and send me the address where that login ends."
    exposed_title: str = "Never here"
    exposed: str = (
        "An address with a code in it was written where others read. I cancelled that login and began "
        "another: go on in our private chat."
    )
    # The same, where only the platform's history reads along.
    posted_title: str = "Not as a message"
    posted: str = (
        "What you write here stays. I did not use that address: I cancelled that login and began another; "
        "finish it with {button}."
    )
    exposed_stray: str = (
        "An address with a code in it was written where others read. Finish logins in our private chat only."
    )
    exposed_undeleted: str = "I may not delete messages here: please delete it yourself."
    # Lists.
    servers_title: str = "Connect which server?"
    no_servers: str = "No server is configured here that people can log in to."
    connections_title: str = "Connections"
    is_connected: str = "connected"
    is_connected_as: str = "connected as {account}"
    is_not_connected: str = "not connected"
    needs_login: str = "login needed: {reason}"
    is_unreadable: str = "unreadable: {reason}"
    waits: str = "a login waits for you"
    shared_note: str = "These are shared by everybody who uses this bot."
    own_note: str = "These are yours alone."
    connect_one: str = "Connect {server}"
    disconnect_one: str = "Disconnect {server}"
    more: str = "There are more; name one: {command}"
    # Disconnecting.
    disconnect: str = "Disconnect"
    sure_title: str = "Disconnect {server}?"
    sure_shared: str = "Everybody who uses this bot loses the connection."
    sure_own: str = "The tokens are revoked and deleted."
    yes: str = "Yes, disconnect"
    no: str = "Keep it"
    kept: str = "{server} stays connected."
    disconnected_title: str = "{server}: disconnected"
    revoked: str = "The tokens are revoked and deleted."
    not_revoked: str = (
        "The tokens are deleted here. The provider did not confirm that it revoked them: look at its page of "
        "connected applications."
    )
    # Who may.
    stranger_title: str = "I do not know you"
    stranger: str = "Whoever runs this bot decides who may use it. Your id here is {user}."
    admins_only: str = "These connections are shared; only an administrator of this bot may change them."
    too_many_title: str = "One at a time"
    too_many: str = "{count} logins of yours wait already. Finish or cancel one of them first."
    too_often: str = "You have begun many logins within the hour. Try again later."
    too_busy: str = "Very many logins wait here just now. Try again in a few minutes."
    # Elsewhere than in private.
    wrote_privately: str = "I wrote to you privately."
    open_private: str = "I cannot write to you yet. Open our private chat, and go on there."
    open_private_button: str = "Open the private chat"
    go_on_here: str = (
        "I cannot write to you privately. The button goes on, for whoever asked: nobody else sees that."
    )
    go_on_here_button: str = "Go on"
    server_says: str = "The server says"
    login_over: str = "That login is over."
    not_yours: str = "That is somebody else's login."
    # Ahead of trouble.
    attention_title: str = "{server}: a login is needed"
    ends_title: str = "{server}: log in again soon"
    attention_over: str = "The session is over: {reason}"
    attention_ended: str = "The session ended at {clock} UTC, and could not renew itself."
    attention_ends: str = "The session ends at {clock} UTC, and cannot renew itself beyond that."
    log_in_again: str = "Log in again"
    # A short answer to a button.
    working: str = "One moment…"
    # What a platform says of the commands in its own list.
    connect_about: str = "Log in to a server"
    connections_about: str = "What is connected, and disconnect"
    disconnect_about: str = "Disconnect a server"
    server_about: str = "Which one"
    # Help of the standalone bot.
    help_title: str = "I connect your agent to its MCP servers"
    help: str = "{connect}: log in to a server\n{connections}: what is connected, and disconnect"
    # By the code of an error: what to say instead of its own message and advice.
    errors: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])


ENGLISH = Words()
