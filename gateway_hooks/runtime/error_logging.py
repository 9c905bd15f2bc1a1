"""Log unexpected errors during the handling of an event, and do not raise them.

The stack frames of the application and the chat library contain the message with the pasted code. If an error
reaches these frames, it is logged, or sent to an error tracker, together with that message.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

from hermes_mcp_auth_remote.traceback_redaction import hide_locals, raise_location


@contextmanager
def log_errors(message: str, log: logging.Logger) -> Generator[None]:
    """Log the type and location of an Exception in the block, without its text, and suppress it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  no error may reach the callers
        log.error("%s (internal error): %s in %s.", message, type(error).__name__, raise_location(error))  # noqa: TRY400
    except BaseException as stop:
        hide_locals(stop)
        raise
