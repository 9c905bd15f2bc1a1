from __future__ import annotations

from ipaddress import ip_address

import pytest

from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.http.addresses import (
    AddressPolicy,
    is_cloud_metadata,
    is_intranet,
    parse_ip_literal,
    read_networks,
    unwrap_ipv4,
)
from tests.requirements import covers

PUBLIC = ["93.184.216.34", "1.1.1.1", "2606:2800:220:1:248:1893:25c8:1946", "2a00:1450:4001::200e"]
LOOPBACK = ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"]
INTRANET = [
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "100.127.255.254",
    "fc00::1",
    "fdff::1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "2002:0a00:0001::",
    # Teredo: such an address contains the client's address with inverted bits. Here it is 10.0.0.1.
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
]
RESERVED = [
    "169.254.1.1",
    "fe80::1",
    "fe80::1%eth0",
    "::ffff:169.254.1.1",
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "224.0.0.1",
    "239.255.255.250",
    "ff02::1",
    "ff0e::1",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "2001:db8::1",
    "3fff::1",
    "100::1",
    "fec0::1",
    "64:ff9b:1::a00:1",
    "::7f00:1",
    "::a00:1",
    "::ffff:0:127.0.0.1",
    "4000::1",
    "5f00::1",
    "2001:10::1",
]
CLOUD_METADATA = [
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd20:ce::254",
]
OPEN_POLICY = AddressPolicy(allows_loopback=True)


@covers("address-policy")
@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_always_allowed(text: str) -> None:
    assert AddressPolicy().allows(ip_address(text))


@covers("address-policy")
@pytest.mark.parametrize("text", LOOPBACK)
def test_loopback_is_allowed_only_by_its_option(text: str) -> None:
    assert not AddressPolicy().allows(ip_address(text))
    assert AddressPolicy(allows_loopback=True).allows(ip_address(text))


@covers("address-policy")
@pytest.mark.parametrize("text", INTRANET)
def test_policy_alone_does_not_allow_intranet(text: str) -> None:
    assert is_intranet(ip_address(text))
    assert not AddressPolicy(allows_loopback=True).allows(ip_address(text))


@covers("address-policy")
@pytest.mark.parametrize("text", [*RESERVED, *CLOUD_METADATA])
def test_reserved_and_metadata_addresses_are_never_allowed_by_default(text: str) -> None:
    assert not OPEN_POLICY.allows(ip_address(text))
    assert not is_intranet(ip_address(text))


@covers("address-policy")
@pytest.mark.parametrize("text", [*LOOPBACK, *INTRANET, *RESERVED, *CLOUD_METADATA])
def test_the_operators_list_can_allow_every_address(text: str) -> None:
    address = ip_address(text)
    plain = str(address).partition("%")[0]
    assert AddressPolicy(allowed_networks=read_networks([plain])).allows(address)
    assert AddressPolicy(
        allowed_networks=read_networks([str(unwrap_ipv4(address)).partition("%")[0]])
    ).allows(address)


@pytest.mark.parametrize("text", CLOUD_METADATA)
def test_cloud_metadata_addresses_are_recognized_in_every_notation(text: str) -> None:
    assert is_cloud_metadata(ip_address(text))


def test_the_operators_list_allows_no_other_address() -> None:
    policy = AddressPolicy(allowed_networks=read_networks([" 10.1.2.3/16 ", "fd00:1::/64"]))
    assert policy.allows(ip_address("10.1.255.255"))
    assert policy.allows(ip_address("fd00:1::9"))
    assert not policy.allows(ip_address("10.2.0.0"))
    assert not policy.allows(ip_address("fd00:2::9"))
    assert not policy.allows(ip_address("127.0.0.1"))


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.0/33", "intranet.example", "10.0.0.0/8;::1"])
def test_an_invalid_network_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError, match="allow_addresses"):
        read_networks(["10.0.0.0/8", text])


@pytest.mark.parametrize("host", ["127.1", "0x7f.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1."])
def test_an_unusual_address_notation_is_not_a_literal(
    host: str,
) -> None:
    assert parse_ip_literal(host) is None


def test_literals_are_read_with_and_without_brackets() -> None:
    assert parse_ip_literal("[::1]") == parse_ip_literal("::1") == ip_address("::1")
    assert parse_ip_literal("10.0.0.1") == ip_address("10.0.0.1")
    assert parse_ip_literal("mcp.example") is None
