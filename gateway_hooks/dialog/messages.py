"""All sentences of the chat. Use `replace(ENGLISH, ...)` or another `Messages` to translate them.

The renderer fills in the fields in braces. Each error has an English text of its own. `errors` maps the code
of an error to a text that replaces it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hermes_mcp_auth_remote import phrases


# No `__eq__` and `__repr__`: unused, and slow to generate for a hundred fields at every start.
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Messages:
    """The sentences of a chat. Names in braces are `str.format` fields."""

    # A waiting login.
    connect_title: str = "Connect {server}"
    server_label: str = phrases.SERVER_LABEL
    login_host_label: str = "Check site"
    token_hosts_label: str = phrases.TOKEN_HOSTS_LABEL
    access_label: str = phrases.ACCESS_LABEL
    default_access: str = phrases.DEFAULT_ACCESS
    added_scope_label: str = "New access"
    expiry_label: str = "Open"
    time_and_remaining: str = "{start}–{clock} ({span})"
    clock_utc: str = "{clock} UTC"
    minutes: str = "{count} minutes"
    one_minute: str = "1 minute"
    # Scopes in words.
    scope_offline_access: str = "stay connected"
    scope_openid: str = "know who you are"
    scope_profile: str = "see your profile"
    scope_email: str = "see your email address"
    # Why the user gets the card.
    reason_command: str = "You sent {command}. If not, cancel."
    reason_button: str = "You asked for this. If not, cancel."
    reason_agent: str = "Your agent needs it for your question."
    reason_other_process: str = "A command on the server asks you."
    reason_unknown: str = "Continue only if you expect this."
    # The same for a server that the operator has not configured, on one line.
    unconfigured_for_user: str = "You asked for it. No operator set it up."
    unconfigured_for_agent: str = "Your agent asks. No operator set it up."
    unconfigured_for_other_process: str = "A command asks. No operator set it up."
    unconfigured_unknown: str = "Do you expect it? No operator set it up."
    # The steps of a login.
    approve_step: str = "1. Open the page and approve."
    approve_for_all_step: str = "1. Open the page; approve for all users."
    copy_unreachable_step: str = "2. Copy the last page's address (menu ⋮, “Copy link”); it may fail to load."
    copy_last_step: str = "2. Copy the last page's address (menu ⋮, “Copy link”)."
    paste_here_step: str = "3. Send it to me here, to no one else."
    paste_in_form_step: str = "3. Paste it with {button}."
    paste_and_delete_step: str = "3. Send it to me here, to no one else. Then delete your message."
    device_open_step: str = "1. Open the page and log in."
    device_open_for_all_step: str = "1. Open the page; log in for all users."
    device_code_step: str = "2. Enter this code, or compare it there:"
    device_approve_step: str = "3. Approve. Give the code to no one."
    exchanging: str = "Answer received; requesting the tokens…"
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
    typed_commands: str = "To answer, type: {words}."
    typed_changes: str = "To change one, type {connect} or {disconnect} and its name."
    typed_removal: str = "To remove one, type {remove} and the id."
    # The QR code.
    qr_title: str = "Scan this to connect {server}"
    qr_caption: str = "It opens {host}. I delete it when the login is over."
    qr_too_large: str = (
        "The address is too long for a QR code that a camera can read from a screen. Open the page from "
        "the message of the login, or send yourself the link."
    )
    # The outcome.
    connected_title: str = "{server}: connected"
    account_label: str = phrases.ACCOUNT_LABEL
    access_as_granted: str = phrases.ACCESS_AS_GRANTED
    missing_scope_label: str = phrases.NOT_GRANTED_LABEL
    lifetime_label: str = phrases.LASTS_LABEL
    lifetime_refreshes: str = f"{phrases.UNTIL_PROVIDER_ENDS_IT} ({phrases.REFRESHES_ITSELF})"
    lifetime_refreshes_until: str = f"{phrases.UNTIL} ({phrases.REFRESHES_ITSELF})"
    lifetime_until: str = f"{phrases.UNTIL}, {phrases.THEN_LOG_IN_AGAIN}"
    lifetime_until_revoked: str = phrases.UNTIL_PROVIDER_ENDS_IT
    lifetime_refresh_fails: str = phrases.REFRESH_FAILS
    lifetime_ended: str = phrases.ENDED_AT
    lifetime_over: str = phrases.ENDED
    agent_continues: str = "Your agent goes on now."
    ask_agent_again: str = "Ask your agent again."
    wrong_account: str = "If that is not your account, disconnect at once."
    tools_not_loaded: str = "Your agent has not loaded its tools yet: send {command}."
    delete_failed: str = "I could not delete your message with the address: please delete it yourself."
    failed_title: str = f"{{server}}: {phrases.NOT_CONNECTED}"
    still_connected_title: str = "{server}: still connected"
    login_expired: str = "This login was not finished in time. Nothing was changed."
    login_cancelled: str = "Cancelled. Nothing was changed."
    try_again_button: str = "Try again"
    # Refused answers.
    answer_refused_title: str = "Your answer did not complete the login to {server}"
    already_connected_title: str = "{server}: already connected"
    already_connected: str = "That address has done its work. There is nothing left to do."
    unmatched_answer_title: str = "None of your logins waits for this answer"
    unmatched_answer: str = "It may belong to an older login or to another user. I did not use it."
    unmatched_answer_advice: str = "Start a login with {command}, then send me the address of its last page."
    exposed_answer_title: str = "Do not post codes in a group"
    exposed_answer: str = (
        "Everyone in this group can read the login code in that address. I cancelled that login and "
        "started a new one: continue in our private chat."
    )
    # The refusal of such an answer in a private chat, if the bot cannot delete the user's messages there.
    answer_as_message_title: str = "Do not send the address as a message"
    answer_as_message: str = (
        "I cannot delete your messages here, so I did not use that address. I cancelled that login and "
        "started a new one: finish it with {button}."
    )
    exposed_answer_without_login: str = (
        "Everyone in this group can read the login code in that address. Finish logins only in our private "
        "chat."
    )
    exposed_answer_delete_failed: str = "I may not delete messages here: please delete that message yourself."
    # Lists.
    unknown_server_title: str = "There is no such server"
    unknown_server_similar_title: str = "There is no {name}"
    did_you_mean: str = "Did you mean {server}?"
    address_lacks_scheme: str = "An address begins with https://. Send {command} with the whole address."
    address_refused_title: str = "This address cannot be connected"
    addresses_for_admins: str = "Only an administrator may connect a server that is not configured."
    addresses_off: str = "This bot connects only configured servers."
    addresses_off_advice: str = "To allow others, set mcp_auth_chats.connect_urls to true in config.yaml."
    other_address: str = "To connect another server, send {command} and its https address."
    servers_title: str = "Which server do you want to connect?"
    no_servers: str = "This bot has no server yet. Its operator adds servers to config.yaml."
    connections_title: str = "Connections"
    status_connected: str = "connected"
    status_connected_as: str = "connected as {account}"
    status_not_connected: str = phrases.NOT_CONNECTED
    status_login_needed: str = "login needed: {reason}"
    status_unreadable: str = "unreadable: {reason}"
    status_login_waiting: str = "a login waits for you"
    shared_note: str = "All users of this bot share these connections."
    own_note: str = "Only you use these connections."
    connect_button: str = "Connect {server}"
    disconnect_server_button: str = "Disconnect {server}"
    more_servers: str = "There are more servers. Type {command} and the name of one."
    # Disconnecting.
    disconnect_button: str = "Disconnect"
    confirm_disconnect_title: str = "Disconnect {server}?"
    confirm_disconnect_shared: str = "All users of this bot lose the connection."
    confirm_disconnect_own: str = "The tokens are revoked and deleted."
    confirm_disconnect_button: str = "Yes, disconnect"
    keep_connection_button: str = "Keep it"
    still_connected: str = "{server} stays connected."
    disconnected_title: str = "{server}: disconnected"
    nothing_to_disconnect: str = "There is nothing to disconnect."
    tokens_revoked: str = "The tokens are revoked and deleted."
    revocation_unconfirmed: str = (
        "The tokens are deleted here. The provider did not confirm that it revoked them: check its page of "
        "connected applications."
    )
    # Permission and limits.
    unknown_user_title: str = "You may not use this bot yet"
    unknown_user: str = "Ask the operator of this bot to allow you. Your id here is {user}."
    unknown_user_code: str = "An administrator can admit you: they send me {approve} {code} in private."
    paired_title: str = "You are an administrator of this bot"
    paired: str = "Send {connect} to connect a server. Send {people} to see who may use this bot."
    approved_title: str = "{user} may use this bot now"
    admitted_title: str = "You may use this bot now"
    admitted: str = "Send {connect} to connect a server."
    admitted_to_look: str = "Send {connections} to see what is connected."
    approve_failed_title: str = "No one waits with this code"
    approve_failed: str = "A code is valid for ten minutes, once. Ask the person to write to me again."
    people_title: str = "Admitted from this chat"
    people_note: str = "config.yaml and the command line may allow others."
    admin_label: str = "Administrator"
    user_label: str = "User"
    revoke_button: str = "Remove {user}"
    admins_only: str = "These connections are shared. Only an administrator of this bot may change them."
    too_many_title: str = "Too many open logins"
    too_many: str = "You already have {count} open logins. Finish or cancel one of them first."
    too_often_title: str = "Too many logins within an hour"
    too_often: str = "You have started too many logins within an hour. Try again later."
    too_busy_title: str = "This bot is busy"
    too_busy: str = "The users of this bot have too many open logins. Try again in a few minutes."
    # In a group.
    wrote_privately: str = "I wrote to you privately."
    open_private: str = "I cannot write to you yet. Open our private chat and continue there."
    open_private_button: str = "Open the private chat"
    continue_here: str = (
        "I cannot write to you privately. Press the button to continue: it works only for the person who "
        "asked, and no one else sees the reply."
    )
    continue_here_button: str = "Continue"
    server_message_label: str = phrases.SERVER_SAYS
    login_over: str = "That login is over."
    not_your_login: str = "That login belongs to another user."
    # Reminders.
    login_needed_title: str = "{server}: a login is needed"
    session_ends_soon_title: str = "{server}: log in again soon"
    session_over: str = "The session is over: {reason}"
    session_ended: str = "The session ended at {clock}, and could not refresh itself."
    session_ends_soon: str = "The session ends at {clock}, and cannot refresh itself beyond that."
    log_in_again_button: str = "Log in again"
    # A short reply to a pressed button.
    please_wait: str = "One moment…"
    # Descriptions in the platform's list of commands.
    connect_description: str = "Log in to a server"
    connections_description: str = "Show connections, or disconnect"
    disconnect_description: str = "Disconnect a server"
    server_option_description: str = "The name of the server, or its https address"
    # Help of the standalone bot.
    hint: str = "I only connect servers: send {connect}."
    hint_waiting: str = "A login to {server} waits. Follow its three steps, or cancel it."
    help_title: str = "I connect your agent to its MCP servers"
    help: str = "{connect}: log in to a server\n{connections}: show connections, or disconnect"
    # Error codes, with the message and the advice that replace those of the error.
    errors: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])


ENGLISH = Messages()
