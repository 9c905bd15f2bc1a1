"""Every sentence that a chat says, in one place; `replace(ENGLISH, ...)` or another `Words` translates them.

What stands in braces is filled in by the conversation. What errors say comes with the error, in English,
unless `errors` has words for its `code`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


# What nobody calls is not generated for a hundred fields at every start.
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Messages:
    """The sentences of a chat. Each is one thought; names in braces are `str.format` fields."""

    # A login that waits.
    connect_title: str = "Connect {server}"
    server_label: str = "Server"
    login_host_label: str = "You log in at"
    token_hosts_label: str = "Tokens come from"  # noqa: S105
    access_label: str = "Access"
    default_access: str = "whatever the provider grants by default"
    added_scope_label: str = "New"
    token_owner_label: str = "For"  # noqa: S105
    token_owner_everyone: str = "everybody who uses this bot"  # noqa: S105
    token_owner_you: str = "you alone"  # noqa: S105
    expiry_label: str = "Open until"
    time_and_remaining: str = "{clock} UTC ({span})"
    minutes: str = "{count} minutes"
    one_minute: str = "1 minute"
    continue_warning: str = "Continue only if you asked for this just now."
    approve_instructions: str = (
        "Open the page on any device, compare its host with the one above, and approve."
    )
    copy_unreachable_page: str = (
        "The browser then ends on a page that cannot be reached: that is expected. Copy the whole address of "
        "that page."
    )
    copy_last_page: str = "Then copy the whole address of the page on which the browser ended."
    paste_here: str = "Send it to me here; I delete it at once."
    paste_in_form: str = "Press {button} and put it there; nobody else sees it."
    paste_and_delete: str = "Send it to me here, and delete your message afterwards: here I cannot."
    paste_warning: str = "Give it to nobody else. It is for the login that began at {clock} UTC."
    enter_code: str = "Open the page on any device, log in, and enter this code:"
    compare_code: str = "If the page shows the code already, compare it letter by letter."
    device_login_ends_itself: str = (
        "This ends by itself once you have approved. Give the code to nobody: whoever asked for it gets the "
        "access."
    )
    exchanging: str = "The answer is here; asking for the tokens…"
    open_page_button: str = "Open the page"
    qr_button: str = "QR code"
    use_device_code_button: str = "Use a code instead"
    use_paste_button: str = "Paste instead"
    new_code_button: str = "New code"
    copy_code_button: str = "Copy the code"
    paste_button: str = "Paste the address"
    cancel_button: str = "Cancel"
    form_title: str = "Finish the login"
    form_label: str = "The address your browser ended on"
    typed_commands: str = "Answer with a word: {words}."
    # The QR code.
    qr_title: str = "Scan this to connect {server}"
    qr_caption: str = "It leads to {host}, and is deleted when the login is over."
    qr_too_large: str = (
        "The address is too long for a QR code that a camera could read from a screen. Open the page with "
        "the button, or send yourself the link."
    )
    # How it ended.
    connected_title: str = "{server}: connected"
    account_label: str = "As"
    access_as_granted: str = "as granted by the provider"
    missing_scope_label: str = "Not granted"
    lifetime_label: str = "Lasts"
    lifetime_refreshes: str = "it renews itself"
    lifetime_until: str = "until {clock} UTC"
    lifetime_until_revoked: str = "until the provider ends it"
    wrong_account: str = "If that is not your account, disconnect at once."
    tools_not_loaded: str = "Its tools are not in use yet: send {command}."
    delete_failed: str = "I could not delete your message with the address: please delete it yourself."
    failed_title: str = "{server}: not connected"
    login_expired: str = "This login was not finished in time. Nothing was changed."
    login_cancelled: str = "Cancelled. Nothing was changed."
    try_again_button: str = "Try again"
    # Answers that do not count.
    answer_refused_title: str = "That did not finish the login of {server}"
    unmatched_answer_title: str = "No login of yours waits for that"
    unmatched_answer: str = "It may be an older one, or somebody else's. I did not use it."
    unmatched_answer_advice: str = "Begin with {command}, and send me the address where that login ends."
    exposed_answer_title: str = "Never here"
    exposed_answer: str = (
        "An address with a code in it was written where others read. I cancelled that login and began "
        "another: go on in our private chat."
    )
    # The same, where only the platform's history reads along.
    answer_as_message_title: str = "Not as a message"
    answer_as_message: str = (
        "What you write here stays. I did not use that address: I cancelled that login and began another; "
        "finish it with {button}."
    )
    exposed_answer_without_login: str = (
        "An address with a code in it was written where others read. Finish logins in our private chat only."
    )
    exposed_answer_delete_failed: str = "I may not delete messages here: please delete it yourself."
    # Lists.
    servers_title: str = "Connect which server?"
    no_servers: str = "No server is configured here that people can log in to."
    connections_title: str = "Connections"
    status_connected: str = "connected"
    status_connected_as: str = "connected as {account}"
    status_not_connected: str = "not connected"
    status_login_needed: str = "login needed: {reason}"
    status_unreadable: str = "unreadable: {reason}"
    status_login_waiting: str = "a login waits for you"
    shared_note: str = "These are shared by everybody who uses this bot."
    own_note: str = "These are yours alone."
    connect_button: str = "Connect {server}"
    disconnect_server_button: str = "Disconnect {server}"
    more_servers: str = "There are more; name one: {command}"
    # Disconnecting.
    disconnect_button: str = "Disconnect"
    confirm_disconnect_title: str = "Disconnect {server}?"
    confirm_disconnect_shared: str = "Everybody who uses this bot loses the connection."
    confirm_disconnect_own: str = "The tokens are revoked and deleted."
    confirm_disconnect_button: str = "Yes, disconnect"
    keep_connection_button: str = "Keep it"
    still_connected: str = "{server} stays connected."
    disconnected_title: str = "{server}: disconnected"
    tokens_revoked: str = "The tokens are revoked and deleted."
    revocation_unconfirmed: str = (
        "The tokens are deleted here. The provider did not confirm that it revoked them: look at its page of "
        "connected applications."
    )
    # Who may.
    unknown_user_title: str = "I do not know you"
    unknown_user: str = "Whoever runs this bot decides who may use it. Your id here is {user}."
    admins_only: str = "These connections are shared; only an administrator of this bot may change them."
    too_many_title: str = "One at a time"
    too_many: str = "{count} logins of yours wait already. Finish or cancel one of them first."
    too_often: str = "You have begun many logins within the hour. Try again later."
    too_busy: str = "Very many logins wait here just now. Try again in a few minutes."
    # Elsewhere than in private.
    wrote_privately: str = "I wrote to you privately."
    open_private: str = "I cannot write to you yet. Open our private chat, and go on there."
    open_private_button: str = "Open the private chat"
    continue_here: str = (
        "I cannot write to you privately. The button goes on, for whoever asked: nobody else sees that."
    )
    continue_here_button: str = "Go on"
    server_message_label: str = "The server says"
    login_over: str = "That login is over."
    not_your_login: str = "That is somebody else's login."
    # Ahead of trouble.
    login_needed_title: str = "{server}: a login is needed"
    session_ends_soon_title: str = "{server}: log in again soon"
    session_over: str = "The session is over: {reason}"
    session_ended: str = "The session ended at {clock} UTC, and could not renew itself."
    session_ends_soon: str = "The session ends at {clock} UTC, and cannot renew itself beyond that."
    log_in_again_button: str = "Log in again"
    # A short answer to a button.
    working: str = "One moment…"
    # What a platform says of the commands in its own list.
    connect_description: str = "Log in to a server"
    connections_description: str = "What is connected, and disconnect"
    disconnect_description: str = "Disconnect a server"
    server_option_description: str = "Which one"
    # Help of the standalone bot.
    help_title: str = "I connect your agent to its MCP servers"
    help: str = "{connect}: log in to a server\n{connections}: what is connected, and disconnect"
    # By the code of an error: what to say instead of its own message and advice.
    errors: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])


ENGLISH = Messages()
