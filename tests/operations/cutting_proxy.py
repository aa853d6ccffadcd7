"""A proxy before PostgreSQL that loses a COMMIT or a claim, or only the answer to it, when the test says so."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from pathlib import Path

CHUNK = 65536


class CuttingProxy:
    """Listens in `folder` under the name of PostgreSQL's own socket `server`.

    `cuts` has one word for each COMMIT and each claim (which commits by itself) to come: "before": the line is cut
    before the server has it, "after": before its answer comes back, "": not at all. When it is empty nothing is cut.
    """

    def __init__(self, folder: Path, server: Path) -> None:
        self.cuts: list[str] = []
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / server.name))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(str(self._server))
            while True:
                ready, _, _ = select.select([client, server], [], [])
                for line, other in ((client, server), (server, client)):
                    if line not in ready:
                        continue
                    data = line.recv(CHUNK)
                    cut = self._cut_of(data) if line is client else ""
                    if not data or cut == "before":
                        return
                    other.sendall(data)
                    if cut == "after":
                        server.recv(CHUNK)  # it is committed, and nobody is told
                        return

    def _cut_of(self, data: bytes) -> str:
        said = data[5:].rstrip(b"\0")
        commits = data[:1] == b"Q" and (said.upper() == b"COMMIT" or b"taken AS (" in said)
        return self.cuts.pop(0) if commits and self.cuts else ""
