"""Fuzz WWW-Authenticate headers, one per line: `read_challenge` never raises and returns bounded data."""

from fuzz.inputs import check, read_sample
from hermes_mcp_auth_remote.oauth.challenge import MAX_RESOURCE_METADATA_URLS, read_challenge

SEEDS = (
    read_sample("sentry/challenge.txt"),
    b'Bearer realm=\'a\', scope="read write", error=insufficient_scope\nDPoP algs="ES256"',
    b'Negotiate, Basic realm="x\\"y" , Bearer  resource_metadata = https://a.example/b',
)


def fuzz_one_input(data: bytes) -> None:
    """Read the headers."""
    challenge = read_challenge(data.decode("latin-1").split("\n"))
    check(len(challenge.resource_metadata) <= MAX_RESOURCE_METADATA_URLS, "too many requests")
    check(all(word.isascii() and word.isprintable() for word in challenge.scope or ()), "an invalid scope")
