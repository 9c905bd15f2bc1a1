"""Reading config.yaml and .env, with the mistakes that operators make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_mcp_auth_remote.config import find_server, hermes_home_path, load_servers, server_from_url
from hermes_mcp_auth_remote.config.files import read_variables
from hermes_mcp_auth_remote.errors import ConfigError, McpAuthError, ServerNotFound
from hermes_mcp_auth_remote.values import Secret, Server, ServerOptions

SECRET = "s3cret-that-nobody-may-see"


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(yaml: str, env: str = "") -> Path:
        (tmp_path / "config.yaml").write_text(dedent(yaml), encoding="utf-8")
        (tmp_path / ".env").write_text(env, encoding="utf-8")
        return tmp_path

    return write


def test_home_path_comes_from_the_environment_or_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hermes_home_path({"HERMES_HOME": "/srv/hermes"}) == Path("/srv/hermes")
    assert hermes_home_path({"HERMES_HOME": "~/elsewhere"}) == tmp_path / "elsewhere"
    assert hermes_home_path({}) == hermes_home_path({"HERMES_HOME": " "}) == tmp_path / ".hermes"


def test_only_enabled_entries_with_a_url_and_auth_oauth_are_loaded(write: Write) -> None:
    home = write("""
        model: anything
        mcp_servers:
          ours: {url: "https://a.example/mcp", auth: oauth}
          loud: {url: "https://b.example/mcp", auth: OAuth}
          away: {url: "https://c.example/mcp", auth: oauth, enabled: false}
          open: {url: "https://d.example/mcp"}
          key: {url: "https://e.example/mcp", auth: header}
          local: {command: npx, args: [x], auth: oauth}
          empty:
    """)
    assert list(load_servers(home, {})) == ["ours", "loud"]


def test_without_a_config_there_are_no_servers(tmp_path: Path, write: Write) -> None:
    assert load_servers(tmp_path, {}) == {}
    with pytest.raises(ServerNotFound, match=r"names no server with a `url`"):
        find_server("linear", tmp_path, {})
    for text in ("", "# nothing", "model: x", "mcp_servers:", "mcp_servers: {}", "just text"):
        assert load_servers(write(text), {}) == {}


def test_find_server_accepts_an_entry_without_auth_or_a_disabled_one(write: Write) -> None:
    home = write("mcp_servers: {open: {url: 'https://d.example/mcp', enabled: false}}")
    assert find_server("open", home, {}) == Server("open", "https://d.example/mcp")


def test_every_option_is_read(write: Write) -> None:
    home = write(
        """
        mcp_servers:
          all:
            url: https://MCP.example:443/mcp?project=1
            auth: oauth
            headers: {X-Key: "${KEY}", X-Plain: plain}
            timeout: 5
            ssl_verify: ~/ca.pem
            client_cert: /c.pem
            client_key: /k.pem
            oauth:
              client_id: id
              client_secret: ${env:HUSH}
              client_name: Mine
              client_metadata_url: https://me.example/client.json
              private_key_file: /p.pem
              token_endpoint_auth_method: private_key_jwt
              application_type: web
              scope: "a  b"
              scope_cap: [a, b, c]
              redirect_uri: https://Proxy.example/callback
              redirect_host: localhost
              redirect_port: "${PORT}"
              authorization_server: https://as.example/
              trusted_issuers: [https://as.example, "https://other.example/"]
              resource: https://mcp.example
              authorize_params: {access_type: offline}
              allow_missing_pkce: true
              allow_addresses: [10.0.0.1/8, "fd00::1"]
              flow: device
              user_agent: mine/1
              timeout: 120
              something_from_the_future: [1, {2: 3}]
        """,
        f"KEY=k1\nHUSH={SECRET}\nPORT=8123",
    )
    server = find_server("all", home, {"HOME": "/nowhere"})
    assert server == Server(
        "all",
        "https://mcp.example/mcp?project=1",
        ServerOptions(
            client_id="id",
            client_secret=Secret(SECRET),
            client_name="Mine",
            client_metadata_url="https://me.example/client.json",
            private_key_file="/p.pem",
            token_endpoint_auth_method="private_key_jwt",
            application_type="web",
            scope=frozenset({"a", "b"}),
            scope_cap=frozenset({"a", "b", "c"}),
            # Redirect URIs and issuers are compared as plain strings, so the operator's spelling stays.
            redirect_uri="https://Proxy.example/callback",
            redirect_host="localhost",
            redirect_port=8123,
            authorization_server="https://as.example/",
            trusted_issuers=frozenset({"https://as.example", "https://other.example/"}),
            resource="https://mcp.example",
            authorize_params={"access_type": "offline"},
            allow_missing_pkce=True,
            allow_addresses=("10.0.0.0/8", "fd00::1/128"),
            flow="device",
            user_agent="mine/1",
            login_seconds=120,
            verify_tls=True,
            ca_file=str(Path("~/ca.pem").expanduser()),
            client_cert="/c.pem",
            client_key="/k.pem",
        ),
        {"X-Key": Secret("k1"), "X-Plain": Secret("plain")},
    )
    assert SECRET not in repr(server)
    assert "plain" not in repr(server)


@pytest.mark.parametrize(
    ("yaml", "name", "value"),
    [
        ("timeout: 3600", "login_seconds", 600),
        ("timeout: 90.5", "login_seconds", 90),
        ("timeout:", "login_seconds", 600),
        ("resource: false", "resource", False),
        ("flow: browser", "flow", "loopback"),
        ("flow: device", "flow", "device"),
        ("device: false", "device", False),
        ("device:", "device", True),
        ("redirect_host: '[::1]'", "redirect_host", "::1"),
        ("redirect_uri: ''", "redirect_uri", None),
        ("{cimd: false, client_metadata_url: 'https://me.example/c'}", "client_metadata_url", None),
        ("scope: []", "scope", None),
        ("scope_cap: []", "scope_cap", frozenset()),
        ("trusted_issuers: https://as.example", "trusted_issuers", frozenset({"https://as.example"})),
    ],
)
def test_an_option_has_its_documented_value(write: Write, yaml: str, name: str, value: object) -> None:
    block = f"\n              {yaml}"
    home = write(f"""
        mcp_servers:
          a:
            url: https://a.example/mcp
            oauth:{block}
    """)
    assert getattr(find_server("a", home, {}).options, name) == value


@pytest.mark.parametrize(
    ("yaml", "verify", "ca_file", "certificate", "key"),
    [
        ("ssl_verify: false", False, None, None, None),
        ("ssl_verify: true", True, None, None, None),
        ("ssl_verify: /ca.pem", True, "/ca.pem", None, None),
        ("client_cert: [/c.pem, /k.pem]", True, None, "/c.pem", "/k.pem"),
        ("client_cert: /both.pem", True, None, "/both.pem", None),
    ],
)
def test_tls_options_have_the_names_that_hermes_uses(
    write: Write, yaml: str, verify: object, ca_file: str | None, certificate: str | None, key: str | None
) -> None:
    options = find_server("a", write(f"mcp_servers: {{a: {{url: 'https://a.example', {yaml}}}}}"), {}).options
    assert (options.verify_tls, options.ca_file) == (verify, ca_file)
    assert (options.client_cert, options.client_key) == (certificate, key)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("oauth: {client_id: 123}", "mcp_servers.a.oauth.client_id must be text; put it in quotes."),
        ("oauth: {client_secret: [x]}", "mcp_servers.a.oauth.client_secret must be text; put it in quotes."),
        ("oauth: {scope: [a, 1]}", "mcp_servers.a.oauth.scope must be text; put it in quotes."),
        (
            "oauth: {redirect_port: 70000}",
            "mcp_servers.a.oauth.redirect_port must be a number from 0 to 65535.",
        ),
        (
            "oauth: {redirect_port: yes}",
            "mcp_servers.a.oauth.redirect_port must be a number from 0 to 65535.",
        ),
        ("oauth: {timeout: 0}", "mcp_servers.a.oauth.timeout must be a number of at least 1."),
        ("oauth: {timeout: .nan}", "mcp_servers.a.oauth.timeout must be a number of at least 1."),
        ("oauth: {timeout: .inf}", "mcp_servers.a.oauth.timeout must be a number of at least 1."),
        ("oauth: {timeout: soon}", "mcp_servers.a.oauth.timeout must be a number of at least 1."),
        (
            "oauth: {allow_missing_pkce: 'true'}",
            "mcp_servers.a.oauth.allow_missing_pkce must be true or false.",
        ),
        (
            "oauth: {flow: magic}",
            "mcp_servers.a.oauth.flow must be one of auto, loopback, browser, paste, device.",
        ),
        (
            "oauth: {redirect_host: 0.0.0.0}",
            "mcp_servers.a.oauth.redirect_host must be one of 127.0.0.1, localhost, ::1, [::1].",
        ),
        (
            "oauth: {redirect_uri: 'myapp://callback'}",
            "The value of mcp_servers.a.oauth.redirect_uri is not an https URL.",
        ),
        (
            "oauth: {allow_addresses: [intranet]}",
            "mcp_servers.a.oauth.allow_addresses must list addresses or networks such as 10.0.0.0/8.",
        ),
        (
            "oauth: {authorize_params: {prompt: true}}",
            "mcp_servers.a.oauth.authorize_params.prompt must be text; put it in quotes.",
        ),
        ("oauth: text", "mcp_servers.a.oauth must be a mapping of keys to values."),
        ("oauth: {1: x}", "mcp_servers.a.oauth: a key is not text; put it in quotes."),
        (
            'headers: {X: "a\\r\\nY: b"}',
            "mcp_servers.a.headers.X contains a line break or another control character.",
        ),
        *(
            (
                f'headers: {{X: y, {name}: "7"}}',
                f"mcp_servers.a.headers.{name} is a header that the HTTP client sets.",
            )
            for name in ("Content-Length", "transfer-encoding", "HOST", "Connection", "Expect", "TE")
        ),
        (
            "client_cert: [a, b, password]",
            "mcp_servers.a.client_cert must be one file, or [certificate, key] with an unencrypted key.",
        ),
        ("auth: basic", "mcp_servers.a.auth is not `oauth`."),
    ],
)
def test_the_error_for_a_wrong_value_names_its_key(write: Write, yaml: str, message: str) -> None:
    home = write(f"mcp_servers: {{a: {{url: 'https://a.example/mcp', {yaml}}}}}")
    with pytest.raises(ConfigError) as caught:
        find_server("a", home, {})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{command: npx}", "a is a stdio server and needs no login."),
        ("{auth: oauth}", "mcp_servers.a.url is missing."),
        ("", "mcp_servers.a must be a mapping of keys to values."),
        ("[x]", "mcp_servers.a must be a mapping of keys to values."),
        ("{url: 'http://far.example/mcp'}", "The value of mcp_servers.a.url is plain http"),
        ("{url: 'https://u:p@a.example/mcp'}", "The value of mcp_servers.a.url carries user information"),
    ],
)
def test_the_error_for_an_unusable_entry_names_the_reason(write: Write, entry: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_server("a", write(f"mcp_servers:\n  a: {entry}"), {})
    assert str(caught.value).startswith(message)


def test_the_error_names_an_unset_variable_in_a_url(write: Write) -> None:
    home = write("mcp_servers: {a: {url: 'https://${env:MCP_HOST}/mcp'}}")
    with pytest.raises(ConfigError) as caught:
        find_server("a", home, {})
    assert caught.value.advice == "Set MCP_HOST in .env."
    assert find_server("a", home, {"MCP_HOST": "a.example"}).url == "https://a.example/mcp"


def test_an_unknown_server_error_suggests_similar_names(write: Write) -> None:
    home = write("mcp_servers: {linear: {url: 'https://l.example'}, notion: {url: 'https://n.example'}}")
    for name in ("linaer", "LINEAR"):
        with pytest.raises(ServerNotFound) as caught:
            find_server(name, home, {})
        assert caught.value.advice == "Did you mean linear?"
    with pytest.raises(ServerNotFound, match="it has linear, notion"):
        find_server("zzz", home, {})


@pytest.mark.parametrize(
    ("yaml", "line", "key"),
    [
        ("mcp_servers:\n  a: {url: 'https://a.example'}\n  a: {url: 'https://b.example'}", 3, "a"),
        ("mcp_servers: {}\nmodel: x\nmcp_servers: {}", 3, "mcp_servers"),
        ("mcp_servers:\n  a:\n    oauth:\n      scope: a\n      client_id: b\n      scope: c", 6, "scope"),
        ("mcp_servers:\n  a:\n    x: [{k: 1,\n k: 2}]", 4, "k"),
    ],
)
def test_the_error_for_a_repeated_key_names_its_line(write: Write, yaml: str, line: int, key: str) -> None:
    home = write(yaml)
    with pytest.raises(ConfigError) as caught:
        load_servers(home, {})
    assert str(caught.value) == f"{home / 'config.yaml'}, line {line}: the key `{key}` is given twice."


def test_a_key_may_repeat_outside_of_mcp_servers(write: Write) -> None:
    home = write("model: {a: 1, a: 2}\nmcp_servers: {a: {url: 'https://a.example', auth: oauth}}")
    assert list(load_servers(home, {})) == ["a"]


def test_yaml_anchors_and_merges_work_and_cycles_do_not_hang(write: Write) -> None:
    home = write("""
        common: &common {auth: oauth, oauth: {scope: a}}
        mcp_servers:
          one: {<<: *common, url: "https://one.example"}
          two: {<<: *common, url: "https://two.example", circle: &circle [*circle]}
    """)
    assert [server.options.scope for server in load_servers(home, {}).values()] == [frozenset("a")] * 2


@pytest.mark.parametrize(
    ("yaml", "line"),
    [
        (f"mcp_servers:\n  a:\n    key: '{SECRET}", 3),
        (f"mcp_servers:\n  a: {{k: {SECRET}\n  b: c: d", 3),
        (f"mcp_servers:\n  a: !{SECRET} x", 2),
        (f"mcp_servers:\n  a: *{SECRET}", 2),
        (f"mcp_servers:\n  a: {SECRET}\n\tb: c", 3),
    ],
)
def test_the_error_for_invalid_yaml_names_the_line_and_quotes_no_text(
    write: Write, yaml: str, line: int
) -> None:
    home = write(yaml)
    with pytest.raises(ConfigError) as caught:
        load_servers(home, {})
    assert str(caught.value) == f"{home / 'config.yaml'}, line {line}: this is not valid YAML."
    assert ("use spaces" in caught.value.advice) == ("\t" in yaml)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "yaml",
    [
        "mcp_servers: [a, b]",
        "mcp_servers: text",
        "mcp_servers: {1: {url: 'https://a.example'}}",
        "mcp_servers: {a: 2024-99-99}",
        "mcp_servers: " + "[" * 5000,
    ],
)
def test_a_value_of_the_wrong_type_is_a_config_error(write: Write, yaml: str) -> None:
    with pytest.raises(ConfigError):
        load_servers(write(yaml), {})


def test_a_file_that_is_not_utf8_or_not_a_file_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"mcp_servers: {a: \xff}")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_servers(tmp_path, {})
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory") as caught:
        load_servers(tmp_path, {})
    assert caught.value.advice == "Replace it by a file."


def test_two_server_names_that_share_token_files_of_hermes_are_refused(write: Write) -> None:
    home = write("""
        mcp_servers:
          my.server: {url: "https://a.example", auth: oauth}
          my_server: {url: "https://b.example", auth: oauth}
          my server: {command: npx}
          other: {url: "https://c.example", auth: oauth}
    """)
    for read in (lambda: load_servers(home, {}), lambda: find_server("my_server", home, {})):
        with pytest.raises(ConfigError, match=r"use the same token file in Hermes: my_server\.json"):
            read()
    assert find_server("other", home, {}).name == "other"


def test_an_env_file_is_read_as_hermes_reads_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "# comment\n"
        "PLAIN=value\n"
        "  export EXPORTED = spaced out   # a comment\n"
        "HASH=a#b\n"
        'DOUBLE="two words # kept" # comment\n'
        "SINGLE='$raw \\n'\n"
        'ESCAPED="a\\"b\\nc\\\\d"\n'
        'LINES="one\ntwo"\n'
        "EMPTY=\n"
        "not an assignment\n"
        "1BAD=x\n"
        "WINDOWS=crlf\r\n"
        "LAST=end",
        encoding="utf-8",
        newline="",
    )
    assert read_variables(tmp_path / ".env", {"PLAIN": "from outside", "KEPT": "yes"}) == {
        "KEPT": "yes",
        "PLAIN": "value",
        "EXPORTED": "spaced out",
        "HASH": "a#b",
        "DOUBLE": "two words # kept",
        "SINGLE": "$raw \\n",
        "ESCAPED": 'a"b\nc\\d',
        "LINES": "one\ntwo",
        "EMPTY": "",
        "WINDOWS": "crlf",
        "LAST": "end",
    }


def test_a_reference_to_an_unset_or_empty_variable_stays_unchanged(write: Write) -> None:
    home = write(
        "mcp_servers: {a: {url: 'https://a.x', oauth: {client_id: '${NO}-${EMPTY}-${ env:YES }-$YES'}}}",
        "EMPTY=\nYES=y",
    )
    assert find_server("a", home, {}).options.client_id == "${NO}-${EMPTY}-y-$YES"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://mcp.linear.app/mcp", "linear-app"),
        ("https://mcp.example.com/team-a/mcp", "example-com-team-a"),
        ("http://127.0.0.1:8080/mcp", "127-0-0-1-8080"),
        ("https://www.mcp", "server"),
        ("https://b\u00fccher.example/sse", "xn-bcher-kva-example"),
    ],
)
def test_a_server_from_a_url_gets_a_readable_name(url: str, name: str) -> None:
    assert server_from_url(url).name == name
    assert server_from_url(url, "mine").name == "mine"


@pytest.mark.parametrize("url", ["linear", "http://far.example", "file:///etc/passwd", "javascript:x", ""])
def test_server_from_url_refuses_a_text_that_is_not_an_https_url(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        server_from_url(url)
    assert caught.value.advice == "Pass the server's https address."


@given(
    st.binary(max_size=200) | st.text(alphabet=" \n:{}[]&*!|>'\"-#%@`ab1,?\t<", max_size=80).map(str.encode)
)
def test_random_files_raise_only_mcp_auth_errors(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    home = tmp_path_factory.mktemp("home")
    (home / "config.yaml").write_bytes(b"mcp_servers:\n  a: " + data)
    (home / ".env").write_bytes(data)
    try:
        load_servers(home, {})
        find_server("a", home, {})
    except McpAuthError:
        pass


def test_a_flow_that_another_key_turns_off_is_refused(write: Write) -> None:
    home = write("""
        mcp_servers:
          a:
            url: https://a.example/mcp
            oauth: {flow: device, device: false}
    """)
    with pytest.raises(ConfigError, match=r"oauth\.device turns off"):
        find_server("a", home, {})
