"""The HTTP routes: authorization, parameters, injected faults, and long polls."""

from __future__ import annotations

import asyncio
import re
import secrets
import traceback

from aiohttp import web

from tests.parts.bot_api.api import BotApi
from tests.parts.bot_api.known import unknown
from tests.parts.bot_api.methods import METHODS
from tests.parts.bot_api.parameters import Parameters, read_parameters
from tests.parts.bot_api.trouble import HTML, Trouble
from tests.parts.bot_api.updates import long_poll_seconds
from tests.parts.bot_api.values import Call, File, Json, Refused
from tests.parts.bot_api.webhook import WEBHOOKS

LARGEST_REQUEST_BYTES = 60 * 1024 * 1024
NAMES = {name.lower(): name for name in ("getUpdates", *METHODS, *WEBHOOKS)}


class Routes:
    """The HTTP routes of the Bot API; they run on the server's event loop."""

    def __init__(self, api: BotApi) -> None:
        self.api = api
        self.world = api.world
        self.closing = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=LARGEST_REQUEST_BYTES)
        app.router.add_get(r"/file/bot{token}/{path:.+}", self.file)
        app.router.add_route("*", r"/bot{token:[^/]*}/{method:[^/]*}", self.call)
        app.router.add_route("*", r"/{rest:.*}", self.nowhere)
        return app

    async def nowhere(self, request: web.Request) -> web.StreamResponse:
        return _answer(_failure(Refused(404, "Not Found")))

    async def file(self, request: web.Request) -> web.StreamResponse:
        try:
            self._authorised(request.match_info["token"])
        except Refused as refusal:
            return _answer(_failure(refusal))
        for file in list(self.world.files.values()):
            if file.path == request.match_info["path"]:
                return web.Response(body=file.data, content_type="application/octet-stream")
        return _answer(_failure(Refused(404, "Not Found: file not found")))

    def _authorised(self, token: str) -> None:
        if not re.fullmatch(r"\d+:[A-Za-z0-9_-]{20,}", token):
            raise Refused(404, "Not Found")
        if not secrets.compare_digest(token, self.api.token):
            raise Refused(401, "Unauthorized")

    async def call(self, request: web.Request) -> web.StreamResponse:
        try:
            self._authorised(request.match_info["token"])
            name = _named(request.match_info["method"])
        except Refused as refusal:
            self._record(request.match_info["method"], Parameters({}), _failure(refusal))
            return _answer(_failure(refusal))
        trouble = self.api.next(name)
        if trouble and trouble.kind == "down":
            self._record(name, Parameters({}), None, trouble)
            return _cut(request)
        try:
            parameters = await read_parameters(request)
        except Refused as refusal:
            self._record(name, Parameters({}), _failure(refusal))
            return _answer(_failure(refusal))
        if trouble and trouble.kind in {"hold", "slow"}:
            await self._delay(trouble)
        if trouble and trouble.kind == "gateway":
            self._record(name, parameters, None, trouble)
            return web.Response(
                status=int(trouble.status[:3]),
                text=HTML.format(status=trouble.status),
                content_type="text/html",
            )
        try:
            answer = await self._answer(name, parameters, trouble)
        except Exception:  # noqa: BLE001  `serve_bot_api` raises it when its block ends
            self.api.faults.append(traceback.format_exc())
            answer = _failure(Refused(500, "Internal Server Error"))
        self._record(name, parameters, answer, trouble)
        if answer is None or (trouble and trouble.kind == "hang_up"):
            return _cut(request)
        return _answer(answer)

    async def _delay(self, trouble: Trouble) -> None:
        if trouble.kind == "slow":
            await asyncio.sleep(trouble.seconds)
            return
        released = asyncio.Event()

        def release() -> None:
            self.loop.call_soon_threadsafe(released.set)

        trouble.on_release.append(release)
        if trouble.released.is_set():
            released.set()
        trouble.reached.set()
        self.world.notify()
        await released.wait()

    async def _answer(self, name: str, parameters: Parameters, trouble: Trouble | None) -> Json | None:
        try:
            self._check(name, parameters, trouble)
            if name == "getUpdates":
                return await self._get_updates(parameters)
            with self.world.lock:
                method = METHODS.get(name) or WEBHOOKS[name]
                return {"ok": True, "result": method(self.world, parameters)}
        except Refused as refusal:
            return _failure(refusal)

    def _check(self, name: str, parameters: Parameters, trouble: Trouble | None) -> None:
        if trouble and trouble.refusal is not None:
            raise trouble.refusal
        if self.world.logged_out and name != "logOut":
            raise Refused(400, "Logged out")
        if self.api.rate_limits is not None and parameters.text("chat_id"):
            with self.world.lock:
                self.api.rate_limits.check(name, parameters.integer("chat_id"))

    async def _get_updates(self, parameters: Parameters) -> Json | None:
        """Return pending updates or wait for some; None if the connection must be cut."""
        updates = self.world.updates
        poller = asyncio.Event()
        dropped = False

        def wake() -> None:
            self.loop.call_soon_threadsafe(poller.set)

        def drop() -> None:
            nonlocal dropped
            dropped = True
            wake()

        seconds = long_poll_seconds(parameters.integer("timeout"))
        until = self.loop.time() + seconds
        with self.world.lock:
            updates.allow(parameters.json_array("allowed_updates"))
            updates.begin(poller, parameters.integer("offset"))
            updates.listeners.append(wake)
            updates.pollers_waiting += 1
            self.world.changed.notify_all()
        self.api.polls_dropped.append(drop)
        try:
            while True:
                with self.world.lock:
                    poller.clear()
                    batch = updates.take(poller, parameters.integer("limit"))
                if dropped or self.closing.is_set():
                    return None
                left = until - self.loop.time()
                if batch or left <= 0:
                    return {"ok": True, "result": batch}
                try:
                    await asyncio.wait_for(poller.wait(), left)
                except TimeoutError:
                    continue
        finally:
            self.api.polls_dropped.remove(drop)
            with self.world.lock:
                updates.listeners.remove(wake)
                updates.pollers_waiting -= 1
                updates.end(poller)
                self.world.changed.notify_all()

    def _record(
        self, name: str, parameters: Parameters, answer: Json | None, trouble: Trouble | None = None
    ) -> None:
        given = [*parameters.values, *(upload for upload in parameters.uploads)]
        attached = {value.removeprefix("attach://") for value in _texts(parameters)}
        odd = (
            () if name not in NAMES.values() else unknown(name, [one for one in given if one not in attached])
        )
        files = {key: File("", "", upload.name, upload.data) for key, upload in parameters.uploads.items()}
        kind = trouble.kind if trouble else ""
        call = Call(name, parameters.values, files, answer, self.world.clock(), odd, kind)
        with self.world.lock:
            self.world.calls.append(call)
            self.world.changed.notify_all()


def _named(method: str) -> str:
    """Return a method's documented name. Like the real server, ignore its case. Raise ApiError."""
    name = NAMES.get(method.lower())
    if name is None:
        raise Refused(404, "Not Found: method not found")
    return name


def _texts(parameters: Parameters) -> list[str]:
    return [
        value for text in parameters.values.values() for value in re.findall(r"attach://[^\"\s,}]+", text)
    ]


def _failure(refusal: Refused) -> Json:
    answer: Json = {"ok": False, "error_code": refusal.error_code, "description": refusal.description}
    return answer | ({"parameters": refusal.parameters} if refusal.parameters else {})


def _answer(answer: Json) -> web.Response:
    code = answer.get("error_code", 200)
    return web.json_response(answer, status=code if isinstance(code, int) else 200)


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
