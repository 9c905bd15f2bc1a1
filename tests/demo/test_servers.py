"""After the demo has started and stopped, no port and no thread of it remains."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from pathlib import Path

import httpx
import pytest
import trustme

from tests.consent_form import approve, fetch
from tests.demo.manual_client import ManualClient
from tests.parts.authorization_server import serve_demo

pytestmark = pytest.mark.slow


def test_the_demo_closes_its_ports_and_threads() -> None:
    threads_before = set(threading.enumerate())
    with serve_demo() as demo:
        port = httpx.URL(demo.mcp_url).port
        assert httpx.get(demo.ping_url).status_code == 401
    assert {thread.name for thread in set(threading.enumerate()) - threads_before} == set()
    with socket.socket() as free:
        free.bind(("127.0.0.1", port))


def test_several_demos_run_side_by_side() -> None:
    with serve_demo() as first_demo, serve_demo() as second_demo:
        token = ManualClient(first_demo).obtain_tokens()["access_token"]
        assert ManualClient(second_demo).call_mcp(token).status_code == 401
        assert first_demo.authorization_server.count_requests("token") == 1
        assert second_demo.authorization_server.count_requests("token") == 0


def test_a_port_in_use_is_an_error_and_a_free_port_is_used() -> None:
    with serve_demo() as demo:
        port = httpx.URL(demo.mcp_url).port or 0
        with pytest.raises(OSError, match="use"), serve_demo(port=port):
            pass
    with serve_demo(port=port) as second_demo:
        assert second_demo.mcp_url == f"http://127.0.0.1:{port}/mcp"
        assert httpx.get(second_demo.ping_url).status_code == 401


def test_an_exception_in_the_block_still_stops_the_servers() -> None:
    with pytest.raises(KeyError), serve_demo() as demo:
        raise KeyError
    with pytest.raises(httpx.ConnectError):
        httpx.get(demo.ping_url)


def test_with_tls_all_urls_are_https(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    ca_file, certificate, key = (tmp_path / name for name in ("ca.pem", "certificate.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca_file)
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    with serve_demo(ssl_certfile=str(certificate), ssl_keyfile=str(key), host="localhost") as demo:
        assert demo.issuer.startswith("https://localhost:")
        url = f"{demo.issuer}/.well-known/oauth-authorization-server"
        status, _, text = fetch("GET", url, ca_file=str(ca_file))
        assert (status, demo.issuer in text) == (200, True)
        uri = "http://127.0.0.1:5000/callback"
        client = demo.authorization_server.add_client(uri)
        with httpx.Client(verify=ssl.create_default_context(cafile=str(ca_file))) as http:
            assert http.get(demo.ping_url).status_code == 401
        query = (
            f"response_type=code&client_id={client.client_id}&redirect_uri={uri}&resource={demo.mcp_url}"
            f"&code_challenge={'a' * 43}&code_challenge_method=S256"
        )
        assert approve(f"{demo.issuer}/authorize?{query}", ca_file=str(ca_file)).startswith(uri)


def test_no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serve_demo() as demo:
        client = ManualClient(demo)
        client.call_mcp(client.obtain_tokens()["access_token"])
    messages = [record.getMessage() for record in caplog.records if not record.name.startswith("http")]
    assert not [
        text
        for text in messages
        if any(secret in text for secret in demo.authorization_server.minted_secrets)
    ]
