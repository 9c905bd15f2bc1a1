"""Which URLs may be shown, opened or fetched."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_mcp_auth_remote.errors import UnsafeUrl
from hermes_mcp_auth_remote.oauth.urls import (
    add_scheme,
    canonical_resource,
    covers_url,
    endpoint_url,
    host_of,
    is_loopback_host,
    is_safe_url,
    is_same_address,
    protected_resource_urls,
    safe_url,
)
from tests.requirements import covers

UNSAFE_URLS = {
    "file": "file:///etc/passwd",
    "javascript": "javascript:alert(1)",
    "data": "data:text/html,x",
    "plain http": "http://as.example/token",
    "user name": "https://as.example@evil.example/",
    "user name and password": "https://a:b@evil.example/",
    "empty user information": "https://@evil.example/",
    "shell characters": 'https://as.example/" & calc.exe & "',
    "back quotes": "https://as.example/`id`",
    "a line end": "https://as.example/\r\nX: y",
    "a tab in the scheme": "ht\ttps://as.example/",
    "leading space": " https://as.example/",
    "backslash": "https://as.example\\@evil.example/",
    "no host": "https:///path",
    "relative": "/authorize",
    "without scheme": "as.example/authorize",
    "empty": "",
    "port that is not a number": "https://as.example:http/",
    "port out of range": "https://as.example:99999/",
    "percent signs in the host": "https://%65vil.example/",
    "semicolon in the host": "https://a;b.example/",
    "no-break space in the host": "https://a\u00a0b.example/",
    "full-width slash in the host": "https://as.example\uff0fevil.example/",
    "half a surrogate pair": "https://as.example/\ud800",
    "zone in an address": "https://[fe80::1%25eth0]/",
    "unclosed bracket": "https://[::1/",
    "three dots": "https://as...example/",
    "8193 characters": "https://as.example/" + "a" * 8174,
    "loopback look-alike": "http://127.0.0.1.evil.example/",
    "loopback as user name": "http://localhost@evil.example/",
    "the unspecified address": "http://0.0.0.0/",
    "mapped loopback": "http://[::ffff:7f00:1]:x/",
}
# Browsers and resolvers read these as addresses of this machine, or refuse them.
NUMERIC_HOSTS = [
    "2130706433",
    "127.1",
    "127.0.1",
    "0x7f000001",
    "0X7F.1",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "127.0.0.01",
    "127.0.0.1.",
    "127.0.0.0x1",
    "0",
    "0x",
    "0.0",
    "0.0.0.0",
    "0.0.0.0.",
    "0.1.2.3",
    "00.0.0.0",
    "1.2.3.4.5",
    "256.1.1.1",
    "127.0.0.1.0",
    "auth.example.0x7f",
    "auth.example.1",
    "auth.example.1.",
    "4294967297",
    "１２７.1",
    "②130706433",
    "０x7f000001",
    "127。1",
    "[::]",
    "[0:0:0:0:0:0:0:0]",
    "[::ffff:0.0.0.0]",
    "[::ffff:0:0]",
    "[::0.0.0.0]",
    "[::ffff:0.1.2.3]",
]
LOOPBACK_ADDRESSES = [
    "127.0.0.1",
    "127.8.8.8",
    "１２７.0.0.1",
    "127。0。0。1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::FFFF:7f00:1]",
    "[0:0:0:0:0:ffff:127.9.9.9]",
    "localhost.",
    "a.LOCALHOST",
]


@covers("safe-urls")
@pytest.mark.parametrize("url", UNSAFE_URLS.values(), ids=UNSAFE_URLS.keys())
def test_an_unsafe_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UnsafeUrl) as caught:
        safe_url(url, "address")
    assert url == "" or url not in f"{caught.value} {caught.value.advice}"


@covers("numeric-hosts", "safe-urls")
@pytest.mark.parametrize("host", NUMERIC_HOSTS)
def test_a_host_that_is_a_number_is_refused_on_every_scheme_and_port(host: str) -> None:
    for url in (f"https://{host}/", f"https://{host}:8443/token", f"http://{host}/", f"https://{host}"):
        with pytest.raises(UnsafeUrl):
            safe_url(url, "address")
        with pytest.raises(UnsafeUrl):
            endpoint_url(url, "`authorization_endpoint`", "https://auth.example")


@covers("numeric-hosts")
@pytest.mark.parametrize("host", LOOPBACK_ADDRESSES)
def test_an_endpoint_on_this_machine_is_refused_in_every_spelling_of_a_remote_issuer(host: str) -> None:
    for url in (f"https://{host}/authorize", f"http://{host}:8080/"):
        with pytest.raises(UnsafeUrl, match="on this machine, but the issuer is not"):
            endpoint_url(url, "`authorization_endpoint`", "https://auth.example")
        assert endpoint_url(url, "`authorization_endpoint`", "http://127.0.0.1:9000")


@covers("numeric-hosts")
@pytest.mark.parametrize(
    "host", ["93.184.216.34", "10.0.0.1", "[2606:4700::1]", "1.example", "0x7f.example", "1-2.x0", "a.1b"]
)
def test_strict_addresses_and_names_with_digits_are_hosts(host: str) -> None:
    assert (
        endpoint_url(f"https://{host}/a", "`token_endpoint`", "https://auth.example") == f"https://{host}/a"
    )


@covers("numeric-hosts")
@given(st.ip_addresses(v=4))
def test_every_spelling_of_an_ipv4_address_is_the_quad_or_refused(address: IPv4Address) -> None:
    number = int(address)
    high, low = divmod(number, 2**16)
    spellings = [str(number), hex(number), f"0{number:o}", f"{high >> 8}.{high & 255}.{low}", f"{address}."]
    assert not any(is_safe_url(f"https://{spelling}/") for spelling in spellings)
    assert is_safe_url(f"https://{address}/") == (number >= 2**24)


@covers("one-identity")
@pytest.mark.parametrize(
    ("url", "other_url", "is_same"),
    [
        ("https://a.example/mcp", "https://a.example/mcp", True),
        ("https://a.example", "HTTPS://A.example:443/#part", True),
        ("https://a.example/mcp", "https://a.example/mcp/", False),
        ("https://a.example/mcp?a=1&b=2", "https://a.example/mcp?b=2&a=1", False),
        ("http://a.example/mcp", "http://a.example/mcp", False),
        ("https://a.example/mcp", "http://a.example/mcp", False),
        ("", "", False),
    ],
)
def test_two_urls_are_one_address_only_if_both_are_safe(url: str, other_url: str, *, is_same: bool) -> None:
    assert is_same_address(url, other_url) is is_same
    assert is_same_address(other_url, url) is is_same


@covers("scheme-missing")
@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("mcp.linear.app/mcp", "https://mcp.linear.app/mcp"),
        (" mcp.linear.app ", "https://mcp.linear.app"),
        ("MCP.Linear.app:8443", "https://MCP.Linear.app:8443"),
        ("mcp.linear.app/mcp?to=https://x", "https://mcp.linear.app/mcp?to=https://x"),
        ("intranet:8080/mcp", "https://intranet:8080/mcp"),
        ("10.0.0.8/mcp", "https://10.0.0.8/mcp"),
        ("localhost:9101/mcp", "http://localhost:9101/mcp"),
        ("localhost/mcp", "http://localhost/mcp"),
        ("127.0.0.1:9101/mcp", "http://127.0.0.1:9101/mcp"),
        ("[::1]:9101/mcp", "http://[::1]:9101/mcp"),
        ("//mcp.linear.app/mcp", "https://mcp.linear.app/mcp"),
        ("https:/mcp.linear.app/mcp", "https://mcp.linear.app/mcp"),
        ("HTTPS:mcp.linear.app/mcp", "https://mcp.linear.app/mcp"),
        ("https//mcp.linear.app/mcp", "https://mcp.linear.app/mcp"),
        ("https://mcp.linear.app/mcp", None),
        ("ftp://mcp.linear.app/mcp", None),
        ("linear", None),
        ("localhost", None),
        ("github/copilot", None),
        ("notes.v2", None),
        ("v1.2", None),
        ("user@mcp.linear.app/mcp", None),
        ("a b.example/mcp", None),
        ("https:", None),
        ("//", None),
        ("", None),
        ("a" * 9000 + ".example/mcp", None),
    ],
)
def test_an_address_without_a_scheme_is_recognized(text: str, url: str | None) -> None:
    assert add_scheme(text) == url


@covers("safe-urls")
@pytest.mark.parametrize(
    ("url", "written"),
    [
        ("https://AS.Example:443/a?b=c%20d#e", "https://as.example/a?b=c%20d#e"),
        ("http://127.0.0.1:8765/callback", "http://127.0.0.1:8765/callback"),
        ("http://localhost:80/x", "http://localhost/x"),
        ("http://[::1]:9/", "http://[::1]:9/"),
        ("http://127.8.8.8/", "http://127.8.8.8/"),
        ("https://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC"),
        ("HTTPS://as.example", "https://as.example"),
        ("https://under_score.example/", "https://under_score.example/"),
    ],
)
def test_a_safe_url_is_normalised(url: str, written: str) -> None:
    assert safe_url(url, "address") == written
    assert safe_url(written, "address") == written


@covers("safe-urls", "no-crash")
@given(st.text() | st.text().map("https://{}".format) | st.text().map("https://h.example/{}".format))
def test_any_text_is_a_safe_url_or_refused(text: str) -> None:
    try:
        written = safe_url(text, "address")
    except UnsafeUrl:
        return
    assert safe_url(written, "address") == written
    assert written.isascii()
    assert "@" not in written.split("/")[2]
    assert host_of(written)


@given(st.text())
def test_the_host_of_any_text_is_ascii(text: str) -> None:
    assert host_of(text).isascii()
    assert host_of(f"https://{text}").isascii()


def test_a_look_alike_host_is_shown_in_punycode() -> None:
    assert host_of("https://\u0430pple.example/") == "xn--pple-43d.example"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("a.localhost", True),
        ("127.0.0.1", True),
        ("[::1]", True),
        ("[::ffff:127.0.0.1]", True),
        ("::ffff:7f00:1", True),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False),
        ("localhost.example", False),
        ("0.0.0.0", False),
        ("2130706433", False),
        ("", False),
    ],
)
def test_loopback_hosts_are_distinguished_from_look_alikes(host: str, *, expected: bool) -> None:
    assert is_loopback_host(host) is expected


@covers("resource-covers", "resource-per-path")
@pytest.mark.parametrize(
    ("resource", "covered"),
    [
        ("https://mcp.example/a/mcp", True),
        ("https://MCP.example:443/a/mcp/", True),
        ("https://mcp.example/a", True),
        ("https://mcp.example", True),
        ("https://mcp.example/", True),
        ("https://mcp.example/b", False),
        ("https://mcp.example/a/mc", False),
        ("https://mcp.example/a/mcp/deeper", False),
        ("https://mcp.example/a/mcp?project=1", False),
        ("https://mcp.example:8443/a/mcp", False),
        ("https://other.example/a/mcp", False),
        ("https://mcp.example.evil.example/a/mcp", False),
    ],
)
def test_quirk_10_and_11_a_resource_covers_its_path_and_below(resource: str, *, covered: bool) -> None:
    assert covers_url(resource, "https://mcp.example/a/mcp") is covered


@covers("resource-choice")
@pytest.mark.parametrize(
    ("url", "resource"),
    [
        ("https://MCP.example:443/", "https://mcp.example"),
        ("https://mcp.example", "https://mcp.example"),
        ("https://mcp.example/mcp/", "https://mcp.example/mcp/"),
        ("https://mcp.example/mcp#part", "https://mcp.example/mcp"),
        ("https://mcp.example/mcp?project_ref=1", "https://mcp.example/mcp?project_ref=1"),
    ],
)
def test_quirk_28_no_slash_is_added_to_a_resource(url: str, resource: str) -> None:
    assert canonical_resource(url) == resource


@covers("server-query")
def test_quirk_12_metadata_urls_are_tried_with_and_without_the_query() -> None:
    base = "https://mcp.example/.well-known/oauth-protected-resource"
    assert protected_resource_urls("https://mcp.example/mcp?project_ref=1") == (
        f"{base}/mcp?project_ref=1",
        f"{base}/mcp",
        base,
    )
    assert protected_resource_urls("https://mcp.example/") == (base,)
