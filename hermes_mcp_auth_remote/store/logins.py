"""Pending logins, `mcp-tokens/logins/<id>.json`: any process with the same home can finish them, one does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from hermes_mcp_auth_remote.errors import LoginNotFound, StoreCorrupt, StoreError
from hermes_mcp_auth_remote.login import Login, Status
from hermes_mcp_auth_remote.oauth.authorization import AuthorizationRequest
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.wire import Document
from hermes_mcp_auth_remote.store.disk import (
    TEMPORARY,
    has_directory,
    private_directory,
    read_private,
    remove,
    remove_older,
    write_private,
)
from hermes_mcp_auth_remote.store.documents import (
    from_bytes,
    metadata_document,
    read_metadata,
    to_bytes,
)
from hermes_mcp_auth_remote.store.lock import FileLock
from hermes_mcp_auth_remote.store.members import VERSION, Members
from hermes_mcp_auth_remote.values import Key, Origin, Secret

# A login that is over stays so long, for whoever still asks how it ended.
KEEP_SECONDS = 3600
# A change is one small file's read and write.
LOCK_SECONDS = 30

# No dot and no slash: an id is a file's name, and it may come from a chat.
_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")
_SECRET_MEMBERS = frozenset({"client_secret", "registration_access_token"})


class LoginFiles:
    """Pending logins below `root` (`HERMES_HOME/mcp-tokens`). Any thread or process may use it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / "logins"

    def add(self, login: Login) -> None:
        """Store a new login; raises StoreUnwritable, StoreUnsafe."""
        self._prepare()
        self._write(login)

    def get(self, login_id: str) -> Login:
        """Return a login; raises LoginNotFound (also where the id is none), StoreCorrupt, StoreUnsafe."""
        path = self._path(login_id)
        data = read_private(path) if self._is_there() else None
        if data is None:
            raise LoginNotFound("There is no such login here; it may be over for long.")
        login = read_login(from_bytes(data, str(path)), str(path))
        if login.id != login_id:
            raise StoreCorrupt(f"{path} holds another login than its name says.")
        return login

    def change(self, login_id: str, change: Callable[[Login], Login]) -> Login:
        """Read, change and write a login in one step that no other process or thread comes between.

        What `change` raises is passed on, and nothing is written. Raises LoginNotFound, StoreBusy and the
        other StoreErrors.
        """
        self._path(login_id)
        if not self._is_there():
            raise LoginNotFound("There is no such login here.")
        with self._lock().hold(LOCK_SECONDS):
            login = self.get(login_id)
            changed = change(login)
            if changed != login:
                self._write(changed)
        return changed

    def all(self) -> list[Login]:
        """Return every login in the order of beginning; a file that cannot be read is left out, and left."""
        if not self._is_there():
            return []
        logins: list[Login] = []
        for path in list(self._folder.iterdir()):
            stem, _, suffix = path.name.partition(".")
            if suffix != "json" or not _ID.fullmatch(stem):
                continue
            try:
                logins.append(self.get(stem))
            except (StoreError, LoginNotFound):
                continue
        return sorted(logins, key=lambda login: (login.begun_at, login.id))

    def purge(self, now: float) -> None:
        """Remove what has been over for an hour (`now`: epoch seconds). Raises StoreUnwritable, StoreBusy."""
        if not self._is_there():
            return
        with self._lock().hold(LOCK_SECONDS):
            for login in self.all():
                if login.expires_at + KEEP_SECONDS < now:
                    remove(self._path(login.id))
            # By the disk's clock, not by ours: a file that is being written just now is not old.
            old = self._folder.stat().st_mtime - KEEP_SECONDS
            for path in list(self._folder.iterdir()):
                # Left behind by a writer that was killed.
                if path.name.endswith(TEMPORARY):
                    remove_older(path, old)

    def _path(self, login_id: str) -> Path:
        if not _ID.fullmatch(login_id):
            raise LoginNotFound("That is no login's id.")
        return self._folder / f"{login_id}.json"

    def _lock(self) -> FileLock:
        return FileLock(self._folder / ".lock")

    def _is_there(self) -> bool:
        return has_directory(self._root) and has_directory(self._folder)

    def _prepare(self) -> None:
        private_directory(self._root)
        private_directory(self._folder)

    def _write(self, login: Login) -> None:
        kept = without_secrets(login) if login.is_over else login
        write_private(self._path(login.id), to_bytes(login_document(kept)))


def without_secrets(login: Login) -> Login:
    """Return a login without what nobody needs once it is over: state, code_verifier, client secret, URL."""
    client = login.request.client
    client = replace(
        client,
        client_secret=None if client.client_secret is None else Secret(""),
        document={name: value for name, value in client.document.items() if name not in _SECRET_MEMBERS},
    )
    # The URL carries the state.
    request = replace(login.request, url="", state=Secret(""), code_verifier=Secret(""), client=client)
    return replace(login, request=request)


def login_document(login: Login) -> Document:
    """Write a login as a JSON object of our own."""
    request, client, origin = login.request, login.request.client, login.origin
    return {
        "version": VERSION,
        "id": login.id,
        "server": login.key.server,
        "owner": login.key.owner,
        "server_url": login.server_url,
        "origin": {
            "platform": origin.platform,
            "chat": origin.chat,
            "thread": origin.thread,
            "user": origin.user,
        },
        "begun_at": login.begun_at,
        "expires_at": login.expires_at,
        "status": login.status,
        "added_scope": sorted(login.added_scope),
        "pastes": login.pastes,
        "failure": None if login.failure is None else list(login.failure),
        "failure_code": login.failure_code,
        "authorization_server": metadata_document(login.authorization_server),
        "request": {
            "url": request.url,
            "state": request.state.reveal(),
            "code_verifier": request.code_verifier.reveal(),
            "redirect_uri": request.redirect_uri,
            "issuer": request.issuer,
            "iss_required": request.iss_required,
            "token_endpoint": request.token_endpoint,
            "authorization_endpoint": request.authorization_endpoint,
            "resource": request.resource,
            "scope": None if request.scope is None else sorted(request.scope),
            "trusted_issuers": sorted(request.trusted_issuers),
            "lifetime_seconds": request.lifetime_seconds,
            "dpop": request.dpop,
        },
        "client": {
            "client_id": client.client_id,
            "client_secret": None if client.client_secret is None else client.client_secret.reveal(),
            "method": client.method,
            "redirect_uris": list(client.redirect_uris),
            "secret_expires_at": client.secret_expires_at,
            "registered": client.registered,
            "document": client.document,
        },
    }


def read_login(document: Mapping[str, object], path: str) -> Login:
    """Read a login; raises StoreCorrupt for anything that we did not write."""
    members = Members(document, path)
    members.check_version()
    origin, failure = members.part("origin"), members.maybe_texts("failure")
    status = members.text("status")
    if status not in get_args(Status) or (failure is not None and len(failure) != 2):
        raise StoreCorrupt(f"{path} holds a status or a failure that there is not.")
    return Login(
        id=members.text("id"),
        key=Key(members.text("server"), members.maybe_text("owner")),
        server_url=members.text("server_url"),
        request=_read_request(members.part("request"), _read_client(members.part("client"))),
        authorization_server=read_metadata(members.part("authorization_server").all, path),
        origin=Origin(
            origin.text("platform"), origin.text("chat"), origin.text("thread"), origin.text("user")
        ),
        begun_at=members.number("begun_at"),
        expires_at=members.number("expires_at"),
        status=cast("Status", status),
        added_scope=frozenset(members.texts("added_scope")),
        pastes=int(members.number("pastes")),
        failure=None if failure is None else (failure[0], failure[1]),
        failure_code=members.maybe_text("failure_code"),
    )


def _read_request(members: Members, client: Client) -> AuthorizationRequest:
    return AuthorizationRequest(
        url=members.text("url"),
        state=Secret(members.text("state")),
        code_verifier=Secret(members.text("code_verifier")),
        redirect_uri=members.text("redirect_uri"),
        client=client,
        issuer=members.text("issuer"),
        iss_required=members.flag("iss_required"),
        token_endpoint=members.text("token_endpoint"),
        authorization_endpoint=members.text("authorization_endpoint"),
        resource=members.maybe_text("resource"),
        scope=members.maybe_set("scope"),
        trusted_issuers=frozenset(members.texts("trusted_issuers")),
        lifetime_seconds=members.maybe_number("lifetime_seconds"),
        dpop=members.all.get("dpop") is True,
    )


def _read_client(members: Members) -> Client:
    secret = members.maybe_text("client_secret")
    return Client(
        client_id=members.text("client_id"),
        client_secret=None if secret is None else Secret(secret),
        method=members.text("method"),
        redirect_uris=members.texts("redirect_uris"),
        secret_expires_at=members.maybe_number("secret_expires_at"),
        registered=members.flag("registered"),
        document=members.part("document").all,
    )
