"""Convert the exceptions of httpcore, TLS and sockets to a NetworkError with a message for the user."""

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
    UnicodeError,  # a host name that TLS cannot encode
)

_PRIVATE_CA_ADVICE = "If your network has its own certificate authority, name its file in SSL_CERT_FILE."
# From OpenSSL's x509_vfy.h: not yet valid; expired.
_VALIDITY_PERIOD_CODES = frozenset({9, 10})
# Host name mismatch; IP address mismatch.
_NAME_MISMATCH_CODES = frozenset({62, 64})


# For a token request that was sent: the server may already have used the grant.
SENT_REQUEST_ADVICE = "Try again in a minute; if that is refused, log in again."


def timeout_error(host: str, step: str, *, was_sent: bool = False) -> TimedOut:
    """Return the error for a step that took too long; `was_sent` if the host may have got the request."""
    if was_sent:
        return TimedOut(f"{host} got the {step} but did not respond in time.")
    return TimedOut(f"{host} did not respond to the {step} in time.")


def network_error(error: Exception, host: str, step: str) -> NetworkError:
    """Return the NetworkError for an exception during a step at a host.

    Never includes the exception's text: it may contain request data.
    """
    if isinstance(error, TimeoutError | httpcore.TimeoutException):
        return timeout_error(host, step)
    if isinstance(error, httpcore.ProxyError):
        return _proxy_error(error, host, step)
    tls_error = _find_tls_error(error)
    if isinstance(tls_error, ssl.SSLCertVerificationError):
        return _certificate_error(tls_error.verify_code, host)
    if tls_error is not None:
        return Unreachable(
            f"The TLS handshake with {host} failed during the {step}.",
            "Check that the address and port use https, and whether the server needs a client certificate.",
        )
    if isinstance(error, httpcore.RemoteProtocolError):
        return Unreachable(f"{host} broke off its response to the {step}, or the response is not HTTP.")
    return Unreachable(f"The connection to {host} broke during the {step}.")


def _proxy_error(error: Exception, host: str, step: str) -> NetworkError:
    status = re.match(r"[0-9]{3}", str(error))
    if status is not None and status[0] == "407":
        return Unreachable(
            f"The proxy requires a user name and a password for the {step}.",
            "Write them into HTTPS_PROXY, as in http://user:password@proxy.example:3128.",
        )
    status_note = f" (status {status[0]})" if status else ""
    return Unreachable(f"The proxy did not let the {step} through to {host}{status_note}.")


def _certificate_error(verify_code: int, host: str) -> NetworkError:
    if verify_code in _VALIDITY_PERIOD_CODES:
        return Unreachable(
            f"The TLS certificate of {host} has expired, or is not valid yet.",
            "Check this machine's clock. If it is right, the server's operator must renew the certificate.",
        )
    if verify_code in _NAME_MISMATCH_CODES:
        return Unreachable(
            f"The TLS certificate of {host} is for another name.",
            "Check the server's address; if it is right, this must be fixed by the server's operator.",
        )
    return Unreachable(f"The TLS certificate of {host} is from an unknown authority.", _PRIVATE_CA_ADVICE)


def _find_tls_error(error: BaseException | None) -> ssl.SSLError | None:
    depth = 0
    while error is not None and depth < 8:
        if isinstance(error, ssl.SSLError):
            return error
        error, depth = error.__cause__ or error.__context__, depth + 1
    return None
