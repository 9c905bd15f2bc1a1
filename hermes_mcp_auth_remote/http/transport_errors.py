"""What went wrong on the way, in a sentence: what httpcore, TLS and sockets raise becomes a NetworkError."""

from __future__ import annotations

import re
import ssl

import httpcore

from hermes_mcp_auth_remote.errors import NetworkError, TimedOut, Unreachable

TRANSPORT_ERRORS = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
    OSError,
    UnicodeError,  # a name that TLS cannot send
)

_PRIVATE_CA_ADVICE = "If your network has its own certificate authority, name its file in SSL_CERT_FILE."
# Of OpenSSL's x509_vfy.h: has expired; is not valid yet.
_VALIDITY_PERIOD_CODES = frozenset({9, 10})
# Another host, another address.
_NAME_MISMATCH_CODES = frozenset({62, 64})


# The advice after a token request that was sent: the server may have taken what it spends.
SENT_REQUEST_ADVICE = "Try again in a minute; if that is refused, log in again."


def timeout_error(host: str, step: str, *, was_sent: bool = False) -> TimedOut:
    """Say that a step at a host took too long; `was_sent` if the host may have got the request."""
    said = "got the {} but did not answer" if was_sent else "did not answer the {}"
    return TimedOut(f"{host} {said.format(step)} in time.")


def network_error(error: Exception, host: str, step: str) -> NetworkError:
    """Say what broke during a step at a host; the words of the error itself may hold what was sent, so no."""
    if isinstance(error, TimeoutError | httpcore.TimeoutException):
        return timeout_error(host, step)
    if isinstance(error, httpcore.ProxyError):
        return _proxy_error(error, host, step)
    tls = _find_tls_error(error)
    if isinstance(tls, ssl.SSLCertVerificationError):
        return _certificate_error(tls.verify_code, host)
    if tls is not None:
        return Unreachable(
            f"{host} and we found no common TLS during the {step}.",
            "Check that the address and port speak https, and whether it asks for a client certificate.",
        )
    if isinstance(error, httpcore.RemoteProtocolError):
        return Unreachable(f"{host} broke off its answer to the {step}, or it is not HTTP.")
    return Unreachable(f"The connection to {host} broke during the {step}.")


def _proxy_error(error: Exception, host: str, step: str) -> NetworkError:
    status = re.match(r"[0-9]{3}", str(error))
    if status is not None and status[0] == "407":
        return Unreachable(
            f"The proxy asks for a user and a password before it lets the {step} through.",
            "Write them into HTTPS_PROXY, as in http://user:password@proxy.example:3128.",
        )
    said = f" (status {status[0]})" if status else ""
    return Unreachable(f"The proxy did not let the {step} through to {host}{said}.")


def _certificate_error(verify_code: int, host: str) -> NetworkError:
    if verify_code in _VALIDITY_PERIOD_CODES:
        return Unreachable(
            f"The TLS certificate of {host} has expired, or is not valid yet.",
            "Check the clock of this machine; if it is right, the server's operator has to renew it.",
        )
    if verify_code in _NAME_MISMATCH_CODES:
        return Unreachable(
            f"The TLS certificate of {host} is for another name.",
            "Check the server's address; if it is right, its operator has to mend this.",
        )
    return Unreachable(f"The TLS certificate of {host} is from an unknown authority.", _PRIVATE_CA_ADVICE)


def _find_tls_error(error: BaseException | None) -> ssl.SSLError | None:
    seen = 0
    while error is not None and seen < 8:
        if isinstance(error, ssl.SSLError):
            return error
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None
