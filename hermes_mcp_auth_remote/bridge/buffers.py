"""A buffer for one message of any size: small ones stay in memory, large ones go to a temporary file."""

from __future__ import annotations

from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import Self

from hermes_mcp_auth_remote.errors import ResponseTooLarge

# A larger message goes to a temporary file, so that results of any size need constant memory. The bridge
# does not parse it.
MAX_MEMORY_BYTES = 1_048_576
# More than any client can pass to a model; less than a disk.
MAX_MESSAGE_BYTES = 1_073_741_824
_CHUNK_BYTES = 262_144
_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")


class MessageBuffer:
    """Collects the JSON text of one message as a single line. Close it after use."""

    __slots__ = ("_file", "size")

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=MAX_MEMORY_BYTES)  # noqa: SIM115  `close` closes it
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Append a part of the text; line breaks become blanks. Raises ResponseTooLarge."""
        self.size += len(chunk)
        if self.size > MAX_MESSAGE_BYTES:
            raise ResponseTooLarge("The server sent a message of more than 1 GiB.")
        self._file.write(chunk.translate(_LINE_BREAKS))

    @property
    def is_small(self) -> bool:
        """True if the text is in memory."""
        return self.size <= MAX_MEMORY_BYTES

    def read_all(self) -> bytes:
        """Return the whole text. Call it only if `is_small`."""
        self._file.seek(0)
        return self._file.read()

    def read_chunks(self) -> Iterator[bytes]:
        """Yield the text in parts."""
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK_BYTES):
            yield chunk

    def close(self) -> None:
        """Delete the text."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
