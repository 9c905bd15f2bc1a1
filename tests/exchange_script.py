"""Scripts for exchanges: the expected requests and their responses, checked one by one.

    script_exchange(discover(url, Challenge()))
      .expects("GET https://mcp.example/.well-known/oauth-protected-resource/mcp").responds(404)
      .expects("GET https://mcp.example/.well-known/oauth-protected-resource")
      .responds(200, read_sample("x/prm"))
      .returns(…)

`returns` or `raises` runs the exchange. If a request is missing, additional or different, the test fails and
shows both transcripts.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import parse_qsl

import pytest

from hermes_mcp_auth_remote.errors import McpAuthError, NetworkError
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response
from hermes_mcp_auth_remote.values import Secret

T = TypeVar("T")
E = TypeVar("E", bound=McpAuthError)

SAMPLES = Path(__file__).parent / "samples"
Body = Mapping[str, object] | list[object] | str | bytes | None


def read_sample(name: str) -> bytes:
    """Return a sample's bytes: "stripe/prm" names the file tests/samples/stripe/prm with any suffix."""
    (path,) = (SAMPLES / name).parent.glob(Path(name).name + ".*")
    return path.read_bytes()


def make_response(status: int, body: Body = None, headers: Mapping[str, str] | None = None) -> Response:
    """Build a response: a mapping or list is sent as JSON, text as HTML, bytes unchanged."""
    if isinstance(body, bytes):
        media_type, data = "application/json", body
    elif isinstance(body, str):
        media_type, data = "text/html; charset=utf-8", body.encode()
    else:
        media_type, data = "application/json", b"" if body is None else json.dumps(body).encode()
    merged = {"content-type": media_type, **(headers or {})}
    return Response(status, tuple(merged.items()), data)


def form_of(request: Request) -> dict[str, str]:
    """Read a request's form; a name that occurs twice fails the test."""
    pairs = parse_qsl(request.body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs), "a form field occurs twice"
    return dict(pairs)


@dataclass
class _ExpectedRequest:
    line: str
    form: Mapping[str, str | None] | None
    body: Mapping[str, object] | None
    headers: Mapping[str, str | None]
    response: Response | NetworkError | None = None


@dataclass
class ExchangeScript(Generic[T]):
    """A script for one exchange. `requests` holds the requests that the exchange sent."""

    exchange: Exchange[T]
    requests: list[Request] = field(default_factory=list[Request])
    _expected: list[_ExpectedRequest] = field(default_factory=list[_ExpectedRequest])

    def expects(
        self,
        line: str,
        *,
        form: Mapping[str, str | None] | None = None,
        json: Mapping[str, object] | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> ExchangeScript[T]:
        """Expect a request such as "GET https://…"; compare only the named fields, members and headers.

        The value None means that the form field or header must be absent.
        """
        self._expected.append(_ExpectedRequest(line, form, json, headers or {}))
        return self

    def responds(
        self, status: int, body: Body = None, headers: Mapping[str, str] | None = None
    ) -> ExchangeScript[T]:
        """Set the response to the last expected request."""
        self._expected[-1].response = make_response(status, body, headers)
        return self

    def fails(self, error: NetworkError) -> ExchangeScript[T]:
        """Let the last expected request fail with a network error."""
        self._expected[-1].response = error
        return self

    def returns(self, expected: T | None = None) -> T:
        """Run the exchange and return its value. If `expected` is not None, compare the value with it."""
        value = self._run()
        if expected is not None:
            assert value == expected
        return value

    def raises(self, kind: type[E], text: str = "") -> E:
        """Run the exchange and return its error. Check the class, and search `text` in message and advice."""
        with pytest.raises(kind) as caught:
            self._run()
        error = caught.value
        assert type(error) is kind
        assert text in f"{error} {error.advice}"
        return error

    def _run(self) -> T:
        try:
            request = next(self.exchange)
            for scene in self._expected:
                self.requests.append(request)
                self._compare_request(scene, request)
                assert scene.response is not None, f"the script has no response for {scene.line}"
                if isinstance(scene.response, NetworkError):
                    request = self.exchange.throw(scene.response)
                else:
                    request = self.exchange.send(scene.response)
        except StopIteration as stop:
            self._check_complete()
            value: T = stop.value
            return value
        except McpAuthError:
            self._check_complete()
            raise
        self.requests.append(request)
        self.exchange.close()
        raise self._build_failure("one request too many")

    def _compare_request(self, scene: _ExpectedRequest, request: Request) -> None:
        if scene.line != f"{request.method} {request.url}":
            self.exchange.close()
            raise self._build_failure("another request than the script's")
        if scene.form is not None:
            _compare_members(scene.line, scene.form, form_of(request))
        if scene.body is not None:
            _compare_members(scene.line, scene.body, json.loads(request.body))
        _compare_members(scene.line, scene.headers, headers_of(request))

    def _check_complete(self) -> None:
        if len(self.requests) < len(self._expected):
            raise self._build_failure("the exchange ended before the script")

    def _build_failure(self, reason: str) -> BaseException:
        expected = [scene.line for scene in self._expected]
        sent = [f"{request.method} {request.url}" for request in self.requests]
        lines = (f"{reason} (- script, + exchange):", *difflib.ndiff(expected, sent))
        return pytest.fail.Exception("\n".join(lines), pytrace=False)


def headers_of(request: Request) -> dict[str, str]:
    """Return a request's headers as they are sent."""
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in request.headers}


def _compare_members(line: str, expected: Mapping[str, object], actual: Mapping[str, object]) -> None:
    for name, value in expected.items():
        assert actual.get(name) == value, f"{name} of {line}"


def script_exchange(exchange: Exchange[T]) -> ExchangeScript[T]:
    """Start a script for an exchange."""
    return ExchangeScript(exchange)
