"""The exchange scripts: other tests rely on their failures."""

from __future__ import annotations

import pytest

from hermes_mcp_auth_remote.errors import DiscoveryFailed, ServerError, TimedOut
from hermes_mcp_auth_remote.oauth.wire import Exchange, get_json, post_form
from tests.exchange_script import script_exchange


def exchange_two_requests() -> Exchange[int]:
    first = yield get_json("https://h.example/1", "first")
    second = yield post_form("https://h.example/2", "second", {"a": "1"})
    return first.status + second.status


def exchange_that_fails() -> Exchange[int]:
    yield get_json("https://h.example/1", "first")
    raise DiscoveryFailed("no")


def test_a_matching_script_returns_the_value_of_the_exchange() -> None:
    script = script_exchange(exchange_two_requests()).expects(
        "GET https://h.example/1", headers={"accept": "application/json"}
    )
    script.responds(200).expects("POST https://h.example/2", form={"a": "1", "b": None}).responds(201)
    script.returns(401)
    assert [request.step for request in script.requests] == ["first", "second"]


def test_an_unexpected_request_fails_with_both_transcripts() -> None:
    script = script_exchange(exchange_two_requests()).expects("GET https://h.example/1").responds(200)
    with pytest.raises(
        pytest.fail.Exception, match=r"one request too many(?s:.*)\+ POST https://h.example/2"
    ):
        script.returns()


def test_a_missing_request_fails_with_both_transcripts() -> None:
    script = script_exchange(exchange_two_requests()).expects("GET https://h.example/1").responds(200)
    script.expects("POST https://h.example/2").responds(200).expects("GET https://h.example/3").responds(200)
    with pytest.raises(
        pytest.fail.Exception, match=r"ended before the script(?s:.*)- GET https://h.example/3"
    ):
        script.returns()


def test_a_different_request_fails() -> None:
    script = script_exchange(exchange_two_requests()).expects("GET https://h.example/other").responds(200)
    with pytest.raises(pytest.fail.Exception, match="another request"):
        script.returns()


def test_a_different_form_field_fails() -> None:
    script = script_exchange(exchange_two_requests()).expects("GET https://h.example/1").responds(200)
    script.expects("POST https://h.example/2", form={"a": "2"}).responds(200)
    with pytest.raises(AssertionError, match="a of POST"):
        script.returns()


def test_an_error_of_another_class_fails() -> None:
    script = script_exchange(exchange_that_fails()).expects("GET https://h.example/1").responds(200)
    with pytest.raises(DiscoveryFailed):
        script.raises(TimedOut)


def test_a_base_class_of_the_raised_error_fails() -> None:
    script = script_exchange(exchange_that_fails()).expects("GET https://h.example/1").responds(200)
    with pytest.raises(AssertionError):
        script.raises(ServerError)


def test_a_return_value_instead_of_an_error_fails() -> None:
    script = script_exchange(exchange_two_requests()).expects("GET https://h.example/1").responds(200)
    script.expects("POST https://h.example/2").responds(200)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        script.raises(DiscoveryFailed)
