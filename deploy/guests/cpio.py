"""Write an archive in the "newc" format of cpio, which the kernel unpacks as its initial ram disk."""

from __future__ import annotations

import stat


class CpioArchive:
    """Collects directories and files owned by root; times are zero, so that equal content gives equal bytes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._inode = 0

    def add_directory(self, name: str, permissions: int = 0o755) -> None:
        """Add a directory; its parents must be there."""
        self._add(name, stat.S_IFDIR | permissions, b"")

    def add_file(self, name: str, content: bytes, permissions: int) -> None:
        """Add a file; its directory must be there."""
        self._add(name, stat.S_IFREG | permissions, content)

    def finish(self) -> bytes:
        """The whole archive; nothing can be added any more."""
        self._add("TRAILER!!!", 0, b"")
        return b"".join(self._parts)

    def _add(self, name: str, mode: int, content: bytes) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        # inode, mode, uid, gid, links, mtime, size, device (2), special device (2), length of the name, checksum
        numbers = (self._inode, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % number for number in numbers)
        self._parts += [_padded(header + encoded), _padded(content)]


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
