"""The exchange scripts: other tests rely on their failures."""

from __future__ import annotations

import pytest

from hermes_mcp_auth_remote.errors import DiscoveryFailed, ServerError, TimedOut
from hermes_mcp_auth_remote.oauth.wire import Exchange, get_json, post_form
from tests.playbook import play


def two_requests() -> Exchange[int]:
    first = yield get_json("https://h.example/1", "first")
    second = yield post_form("https://h.example/2", "second", {"a": "1"})
    return first.status + second.status


def broken() -> Exchange[int]:
    yield get_json("https://h.example/1", "first")
    raise DiscoveryFailed("no")


def test_a_script_that_fits_returns_the_exchange_s_value() -> None:
    played = play(two_requests()).expects("GET https://h.example/1", headers={"accept": "application/json"})
    played.answers(200).expects("POST https://h.example/2", form={"a": "1", "b": None}).answers(201)
    played.returns(401)
    assert [request.step for request in played.requests] == ["first", "second"]


def test_one_request_too_many_fails_with_both_transcripts() -> None:
    script = play(two_requests()).expects("GET https://h.example/1").answers(200)
    with pytest.raises(
        pytest.fail.Exception, match=r"one request too many(?s:.*)\+ POST https://h.example/2"
    ):
        script.returns()


def test_one_request_too_few_fails_with_both_transcripts() -> None:
    script = play(two_requests()).expects("GET https://h.example/1").answers(200)
    script.expects("POST https://h.example/2").answers(200).expects("GET https://h.example/3").answers(200)
    with pytest.raises(
        pytest.fail.Exception, match=r"ended before the script(?s:.*)- GET https://h.example/3"
    ):
        script.returns()


def test_another_request_than_the_script_s_fails() -> None:
    script = play(two_requests()).expects("GET https://h.example/other").answers(200)
    with pytest.raises(pytest.fail.Exception, match="another request"):
        script.returns()


def test_another_form_field_fails() -> None:
    script = play(two_requests()).expects("GET https://h.example/1").answers(200)
    script.expects("POST https://h.example/2", form={"a": "2"}).answers(200)
    with pytest.raises(AssertionError, match="a of POST"):
        script.returns()


def test_an_error_of_another_kind_than_expected_fails() -> None:
    script = play(broken()).expects("GET https://h.example/1").answers(200)
    with pytest.raises(DiscoveryFailed):
        script.raises(TimedOut)


def test_a_parent_of_the_error_that_was_raised_is_not_enough() -> None:
    script = play(broken()).expects("GET https://h.example/1").answers(200)
    with pytest.raises(AssertionError):
        script.raises(ServerError)


def test_a_value_where_an_error_was_expected_fails() -> None:
    script = play(two_requests()).expects("GET https://h.example/1").answers(200)
    script.expects("POST https://h.example/2").answers(200)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        script.raises(DiscoveryFailed)
