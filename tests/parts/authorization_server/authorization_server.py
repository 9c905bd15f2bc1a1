"""The authorization server with a record of every request, with faults and with the tests' settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hermes_mcp_auth_remote.demo.authorization_server import AuthorizationServer
from hermes_mcp_auth_remote.demo.ledger import DemoClient
from hermes_mcp_auth_remote.demo.state import without_none
from tests.parts.authorization_server.behaviour import Behaviour
from tests.parts.authorization_server.faults import Fault, Gate, RecordedRequest, Step
from tests.parts.authorization_server.recorder import RequestRecord


class FaultyAuthorizationServer(AuthorizationServer):
    """Records requests and plays faults, for this server and for the protected resources."""

    behaviour: Behaviour

    def __init__(self, origin: str, behaviour: Behaviour | None = None, **kwargs: Any) -> None:
        super().__init__(origin, behaviour or Behaviour(), **kwargs)
        self.record = RequestRecord()

    def metadata(self, *, openid: bool = False) -> dict[str, object]:
        """Return the metadata document, changed by `metadata_issuer` and `metadata_overrides`."""
        issuer = self.behaviour.metadata_issuer or self.issuer
        overrides = {"issuer": issuer, **self.behaviour.metadata_overrides}
        return without_none({**super().metadata(openid=openid), **overrides})

    def response_issuer(self) -> str | None:
        """Return the `iss` parameter of authorization responses: `iss_value` if it is set."""
        return super().response_issuer() if self.behaviour.iss_value is None else self.behaviour.iss_value

    @property
    def accepted_resources(self) -> frozenset[str]:
        """The resources that a client may request tokens for, including an overridden identifier."""
        overridden = self.behaviour.resource_overrides.get("resource")
        return self.resources | {overridden} if isinstance(overridden, str) else self.resources

    @property
    def requests(self) -> list[RecordedRequest]:
        """Every request to this server and to the protected resources, in order."""
        return self.record.requests

    def count_requests(self, step: Step) -> int:
        """Count the requests of one step so far."""
        return self.record.count_requests(step)

    def fail_next(
        self,
        step: Step,
        *,
        status: int | None = None,
        body: bytes | str = b"",
        headers: Mapping[str, str] | None = None,
        delay_seconds: float = 0,
        hang_up: bool = False,
        after_processing: bool = False,
        times: int | None = 1,
    ) -> None:
        """Play a `Fault` for the next `times` requests of a step; if None, for all until `clear_faults`."""
        encoded = body.encode() if isinstance(body, str) else body
        fault = Fault(status, encoded, headers or {}, delay_seconds, None, hang_up, after_processing)
        self.record.add_fault(step, fault, times)

    def hold(self, step: Step, *, after_processing: bool = False) -> Gate:
        """Hold every request of a step until the caller opens the returned gate."""
        return self.record.hold(step, after_processing=after_processing)

    def clear_faults(self) -> None:
        """Remove all faults and open all gates."""
        self.record.clear_faults()

    def add_client(
        self,
        *redirect_uris: str,
        auth_method: str = "none",
        client_id: str = "",
        secret: str | None = None,
        name: str = "A client registered by hand",
        grant_types: tuple[str, ...] = ("authorization_code", "refresh_token"),
    ) -> DemoClient:
        """Register a client by hand. Create an id if it has none, and a secret if its method needs one."""
        client = DemoClient(client_id, name, redirect_uris, auth_method, secret, grant_types)
        return self.ledger.add_client(client)
