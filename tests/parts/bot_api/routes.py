"""The HTTP routes: authorization, parameters, injected faults, and long polls."""

from __future__ import annotations

import asyncio
import re
import secrets
import traceback

from aiohttp import web

from tests.parts.bot_api.api import BotApi
from tests.parts.bot_api.faults import PROXY_ERROR_HTML, Fault
from tests.parts.bot_api.method_parameters import unknown_parameters
from tests.parts.bot_api.methods import METHODS
from tests.parts.bot_api.parameters import Parameters, read_parameters
from tests.parts.bot_api.update_queue import long_poll_seconds
from tests.parts.bot_api.values import ApiError, Call, File, Json
from tests.parts.bot_api.webhooks import WEBHOOK_METHODS

LARGEST_REQUEST_BYTES = 60 * 1024 * 1024
METHOD_NAMES = {name.lower(): name for name in ("getUpdates", *METHODS, *WEBHOOK_METHODS)}


class Routes:
    """The HTTP routes of the Bot API; they run on the server's event loop."""

    def __init__(self, api: BotApi) -> None:
        self.api = api
        self.state = api.state
        self.closing = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=LARGEST_REQUEST_BYTES)
        app.router.add_get(r"/file/bot{token}/{path:.+}", self.serve_file)
        app.router.add_route("*", r"/bot{token:[^/]*}/{method:[^/]*}", self.serve_call)
        app.router.add_route("*", r"/{rest:.*}", self.serve_not_found)
        return app

    async def serve_not_found(self, request: web.Request) -> web.StreamResponse:
        return _json_response(_error_json(ApiError(404, "Not Found")))

    async def serve_file(self, request: web.Request) -> web.StreamResponse:
        try:
            self._check_token(request.match_info["token"])
        except ApiError as refusal:
            return _json_response(_error_json(refusal))
        for file in list(self.state.files.values()):
            if file.path == request.match_info["path"]:
                return web.Response(body=file.data, content_type="application/octet-stream")
        return _json_response(_error_json(ApiError(404, "Not Found: file not found")))

    def _check_token(self, token: str) -> None:
        if not re.fullmatch(r"\d+:[A-Za-z0-9_-]{20,}", token):
            raise ApiError(404, "Not Found")
        if not secrets.compare_digest(token, self.api.token):
            raise ApiError(401, "Unauthorized")

    async def serve_call(self, request: web.Request) -> web.StreamResponse:
        try:
            self._check_token(request.match_info["token"])
            name = _method_name(request.match_info["method"])
        except ApiError as refusal:
            self._record(request.match_info["method"], Parameters({}), _error_json(refusal))
            return _json_response(_error_json(refusal))
        fault = self.api.take_fault(name)
        if fault and fault.kind == "down":
            self._record(name, Parameters({}), None, fault)
            return _abort_connection(request)
        try:
            parameters = await read_parameters(request)
        except ApiError as refusal:
            self._record(name, Parameters({}), _error_json(refusal))
            return _json_response(_error_json(refusal))
        if fault and fault.kind in {"hold", "slow"}:
            await self._delay(fault)
        if fault and fault.kind == "gateway":
            self._record(name, parameters, None, fault)
            return web.Response(
                status=int(fault.status[:3]),
                text=PROXY_ERROR_HTML.format(status=fault.status),
                content_type="text/html",
            )
        try:
            response = await self._run_method(name, parameters, fault)
        except Exception:  # noqa: BLE001  `serve_bot_api` raises it when its block ends
            self.api.internal_errors.append(traceback.format_exc())
            response = _error_json(ApiError(500, "Internal Server Error"))
        self._record(name, parameters, response, fault)
        if response is None or (fault and fault.kind == "hang_up"):
            return _abort_connection(request)
        return _json_response(response)

    async def _delay(self, fault: Fault) -> None:
        if fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
            return
        release_event = asyncio.Event()

        def release() -> None:
            self.loop.call_soon_threadsafe(release_event.set)

        fault.on_release.append(release)
        if fault.released.is_set():
            release_event.set()
        fault.reached.set()
        self.state.notify()
        await release_event.wait()

    async def _run_method(self, name: str, parameters: Parameters, fault: Fault | None) -> Json | None:
        try:
            self._check(name, parameters, fault)
            if name == "getUpdates":
                return await self._get_updates(parameters)
            with self.state.lock:
                method = METHODS.get(name) or WEBHOOK_METHODS[name]
                return {"ok": True, "result": method(self.state, parameters)}
        except ApiError as refusal:
            return _error_json(refusal)

    def _check(self, name: str, parameters: Parameters, fault: Fault | None) -> None:
        if fault and fault.refusal is not None:
            raise fault.refusal
        if self.state.is_logged_out and name != "logOut":
            raise ApiError(400, "Logged out")
        if self.api.rate_limits is not None and parameters.text("chat_id"):
            with self.state.lock:
                self.api.rate_limits.check(name, parameters.integer("chat_id"))

    async def _get_updates(self, parameters: Parameters) -> Json | None:
        """Return pending updates or wait for some; None if the connection must be cut."""
        updates = self.state.updates
        poller = asyncio.Event()
        is_dropped = False

        def wake() -> None:
            self.loop.call_soon_threadsafe(poller.set)

        def drop() -> None:
            nonlocal is_dropped
            is_dropped = True
            wake()

        seconds = long_poll_seconds(parameters.integer("timeout"))
        deadline = self.loop.time() + seconds
        with self.state.lock:
            updates.set_allowed(parameters.json_array("allowed_updates"))
            updates.start_poll(poller, parameters.integer("offset"))
            updates.listeners.append(wake)
            updates.pollers_waiting += 1
            self.state.changed.notify_all()
        self.api.poll_droppers.append(drop)
        try:
            while True:
                with self.state.lock:
                    poller.clear()
                    batch = updates.next_batch(poller, parameters.integer("limit"))
                if is_dropped or self.closing.is_set():
                    return None
                seconds_left = deadline - self.loop.time()
                if batch or seconds_left <= 0:
                    return {"ok": True, "result": batch}
                try:
                    await asyncio.wait_for(poller.wait(), seconds_left)
                except TimeoutError:
                    continue
        finally:
            self.api.poll_droppers.remove(drop)
            with self.state.lock:
                updates.listeners.remove(wake)
                updates.pollers_waiting -= 1
                updates.end_poll(poller)
                self.state.changed.notify_all()

    def _record(
        self, name: str, parameters: Parameters, response: Json | None, fault: Fault | None = None
    ) -> None:
        parameter_names = [*parameters.values, *(upload for upload in parameters.uploads)]
        attached_names = {value.removeprefix("attach://") for value in _attachment_references(parameters)}
        unknown_names = (
            ()
            if name not in METHOD_NAMES.values()
            else unknown_parameters(
                name,
                [
                    parameter_name
                    for parameter_name in parameter_names
                    if parameter_name not in attached_names
                ],
            )
        )
        files = {key: File("", "", upload.name, upload.data) for key, upload in parameters.uploads.items()}
        kind = fault.kind if fault else ""
        call = Call(name, parameters.values, files, response, self.state.clock(), unknown_names, kind)
        with self.state.lock:
            self.state.calls.append(call)
            self.state.changed.notify_all()


def _method_name(method: str) -> str:
    """Return a method's documented name. Like the real server, ignore its case. Raise ApiError."""
    name = METHOD_NAMES.get(method.lower())
    if name is None:
        raise ApiError(404, "Not Found: method not found")
    return name


def _attachment_references(parameters: Parameters) -> list[str]:
    return [
        value for text in parameters.values.values() for value in re.findall(r"attach://[^\"\s,}]+", text)
    ]


def _error_json(refusal: ApiError) -> Json:
    document: Json = {"ok": False, "error_code": refusal.error_code, "description": refusal.description}
    return document | ({"parameters": refusal.parameters} if refusal.parameters else {})


def _json_response(document: Json) -> web.Response:
    code = document.get("error_code", 200)
    return web.json_response(document, status=code if isinstance(code, int) else 200)


def _abort_connection(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
