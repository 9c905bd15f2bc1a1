"""A buffer for one message of any size: small ones stay in memory, large ones go to a temporary file."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Self

from hermes_mcp_auth_remote.errors import ResponseTooLarge, StoreUnwritable

# A larger message goes to a temporary file, so that results of any size need constant memory. The bridge
# does not parse it.
MAX_MEMORY_BYTES = 1_048_576
# More than any client can pass to a model, and less than a disk can hold.
MAX_MESSAGE_BYTES = 1_073_741_824
_CHUNK_BYTES = 262_144
_END_BYTES = 4096
_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")


class MessageBuffer:
    """Collects the JSON text of one message as a single line. Close it after use."""

    __slots__ = ("_file", "_memory", "size")

    def __init__(self) -> None:
        # Streams have many small messages, so create the file only for a large one.
        self._file: IO[bytes] | None = None
        self._memory = bytearray()
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Append a part of the text; line breaks become blanks.

        Raises ResponseTooLarge, or StoreUnwritable if the temporary file cannot be written.
        """
        self.size += len(chunk)
        if self.size > MAX_MESSAGE_BYTES:
            raise ResponseTooLarge("The server sent a message of more than 1 GiB.")
        line = chunk.translate(_LINE_BREAKS)
        if self._file is None and self.size <= MAX_MEMORY_BYTES:
            self._memory += line
            return
        with _explain_file_errors():
            if self._file is None:
                self._file = TemporaryFile()  # noqa: SIM115  `close` closes it
                self._file.write(self._memory)
                self._memory.clear()
            self._file.write(line)

    @property
    def is_small(self) -> bool:
        """True if the text is in memory."""
        return self._file is None

    def read_all(self) -> bytes:
        """Return the whole text. Call it only if `is_small`."""
        return bytes(self._memory)

    def read_ends(self) -> tuple[bytes, bytes]:
        """Return the first and the last kilobytes. Raises StoreUnwritable if the file cannot be written."""
        if self._file is None:
            return bytes(self._memory[:_END_BYTES]), bytes(self._memory[-_END_BYTES:])
        # The first `seek` writes the end of the text.
        with _explain_file_errors():
            self._file.seek(0)
            head = self._file.read(_END_BYTES)
            self._file.seek(max(0, self.size - _END_BYTES))
            return head, self._file.read(_END_BYTES)

    def read_chunks(self) -> Iterator[bytes]:
        """Yield the text in parts."""
        if self._file is None:
            yield bytes(self._memory)
            return
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK_BYTES):
            yield chunk

    def close(self) -> None:
        """Delete the text."""
        if self._file is not None:
            # On a full disk, `close` fails again.
            with contextlib.suppress(OSError):
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def _explain_file_errors() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnwritable(
            f"A message of more than 1 MiB needs a temporary file, which cannot be written: {error.strerror}."
        ) from None
