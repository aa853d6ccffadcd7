"""Opens the place where a backup object's bytes are, an HTTP server or a file of the node, as a stream.

A tenant's URL is led nowhere but to public addresses: names are resolved here, each address is checked, and the
connection goes to the very address that was checked, so that a name which changes its mind gains nothing.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import httpx

from hypervisor.contract import Permanent, SourceSpec, Transient

CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 30.0
MAX_REDIRECTS = 5
FILE_CHUNK_BYTES = 256 * 1024

REDIRECTS = {301, 302, 303, 307, 308}
TRY_AGAIN = {408, 425, 429}

# Addresses that carry an IPv4 address inside and so could smuggle a private one past the check.
TRANSLATED_NETWORKS = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


class Source(Protocol):
    """A stream of stored bytes, read once, by one thread."""

    announced_size_bytes: int | None  # known from the first chunk on, if the source says it at all

    def chunks(self) -> Iterator[bytes]:
        """Open the source and give all its bytes. Raises Transient or Permanent."""

    def abort(self) -> None:
        """Called from another thread: wake whoever waits for bytes; `chunks` then fails."""


def open_source(spec: SourceSpec) -> Source:
    """The source that a spec names; nothing is opened before its first chunk is asked for."""
    try:
        scheme = urlsplit(spec.url).scheme.lower()
    except ValueError as fault:
        raise Permanent(f"The source's URL is malformed: {fault}", advice="Correct the URL.") from fault
    if scheme in ("http", "https"):
        return HttpSource(spec)
    if scheme == "file" and not spec.public_addresses_only:
        return FileSource(spec)
    allowed = "http and https" if spec.public_addresses_only else "http, https and file"
    raise Permanent(
        f"The source {shown(spec.url)} cannot be read: its scheme is {scheme or 'missing'!r}",
        advice=f"Schemes that can be read are {allowed}.",
    )


def shown(url: str) -> str:
    """A URL as it may be printed: without user, password, query and fragment, where secrets live."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(a malformed URL)"
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{port}{parts.path}{'?…' if parts.query else ''}"


def refusal_of(address: str) -> str:
    """Why a tenant's URL may not lead to the address; "" if it may."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped or ip.sixtofour or ip.teredo or any(ip in network for network in TRANSLATED_NETWORKS):
            return "an IPv4 address in disguise"
        if ip.is_site_local:
            return "a private address"
    if ip.is_loopback:
        return "a loopback address"
    if ip.is_link_local:
        return "a link-local address"
    if ip.is_multicast:
        return "a multicast address"
    if ip.is_unspecified:
        return "the unspecified address"
    if not ip.is_global or ip.is_reserved:
        return "a private address"
    return ""


class FileSource:
    """A file on the node itself, for operators."""

    def __init__(self, spec: SourceSpec) -> None:
        parts = urlsplit(spec.url)
        path = unquote(parts.path)
        if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
            raise Permanent(
                f"The source {shown(spec.url)} does not name an absolute path of this node",
                advice="Write file:///absolute/path.",
            )
        self._path = Path(path)
        self._aborted = False
        self.announced_size_bytes: int | None = None

    def chunks(self) -> Iterator[bytes]:
        try:
            # Non-blocking: opening a named pipe must not wait for a writer.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as fault:
            raise Permanent(
                f"The file {self._path} cannot be opened: {fault.strerror}",
                advice="Correct the path or its permissions.",
            ) from fault
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise Permanent(f"{self._path} is not a regular file", advice="Name a disk image file.")
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            self.announced_size_bytes = status.st_size
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while not self._aborted:
                try:
                    chunk = file.read(FILE_CHUNK_BYTES)
                except OSError as fault:
                    raise Permanent(
                        f"Reading the file {self._path} failed: {fault.strerror}",
                        advice="Look at the disk that holds it.",
                    ) from fault
                if not chunk:
                    return
                yield chunk

    def abort(self) -> None:
        self._aborted = True


class HttpSource:
    """An object behind an HTTP or HTTPS URL; redirects are followed by hand, at most five."""

    def __init__(self, spec: SourceSpec) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._aborted = False
        self.announced_size_bytes: int | None = None

    def chunks(self) -> Iterator[bytes]:
        time_outs = httpx.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        # No proxies and no .netrc from the environment: both would send us, or the token, elsewhere.
        with httpx.Client(trust_env=False, timeout=time_outs, follow_redirects=False) as client:
            response, url = self._arrive(client)
            try:
                self._note_socket(response)
                length = response.headers.get("content-length", "")
                self.announced_size_bytes = int(length) if length.isascii() and length.isdigit() else None
                yield from response.iter_raw()
            except httpx.TimeoutException as fault:
                raise Transient(
                    f"{shown(str(url))} fell silent for {SILENCE_TIMEOUT_S:g} seconds in the middle of the transfer",
                    advice="Look at the server that holds the image, then retry.",
                ) from fault
            except (httpx.TransportError, httpx.StreamError) as fault:
                raise Transient(
                    f"The connection to {shown(str(url))} broke in the middle of the transfer: {fault}",
                    advice="Retry; if it breaks again, look at the server and the network between.",
                ) from fault
            finally:
                with self._lock:
                    self._socket = None
                response.close()

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            if self._socket is not None:
                # The plain socket's own shutdown: that of a TLS socket would pull its state from under the reader.
                with suppress(OSError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _note_socket(self, response: httpx.Response) -> None:
        with self._lock:
            if self._aborted:
                raise Transient("The transfer was given up")
            self._socket = response.extensions["network_stream"].get_extra_info("socket")

    def _arrive(self, client: httpx.Client) -> tuple[httpx.Response, httpx.URL]:
        """The open 200 answer at the end of all redirects, and its URL."""
        url = self._parse(self._spec.url)
        first = url
        for _ in range(MAX_REDIRECTS + 1):
            token = self._spec.bearer_token if _origin(url) == _origin(first) else ""
            response = self._ask(client, url, token)
            status = response.status_code
            if status == HTTPStatus.OK:
                return response, url
            location = response.headers.get("location", "")
            response.close()
            if status not in REDIRECTS:
                raise _bad_status(status, url)
            url = self._parse(str(url.join(location)) if location else "")
        raise Permanent(
            f"{shown(str(first))} redirects more than {MAX_REDIRECTS} times",
            advice="Use the URL at the end of the chain.",
        )

    def _parse(self, text: str) -> httpx.URL:
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL as fault:
            raise Permanent(f"The URL {shown(text)} is malformed: {fault}", advice="Correct the URL.") from fault
        if url.scheme not in ("http", "https") or not url.host:
            raise Permanent(
                f"The source leads to {shown(text)!r}, which is neither an http nor an https URL",
                advice="Use the URL of an HTTP server.",
            )
        return url

    def _ask(self, client: httpx.Client, url: httpx.URL, token: str) -> httpx.Response:
        """The answer of the first address of the host that can be reached, its body not yet read."""
        headers = {"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity", "User-Agent": "vdc"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        unreached: Exception | None = None
        for address in self._addresses(url):
            request = client.build_request(
                "GET", url.copy_with(host=address), headers=headers, extensions=self._extensions(client, url)
            )
            try:
                return client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as fault:
                unreached = fault
            except httpx.TimeoutException as fault:
                raise Transient(
                    f"{shown(str(url))} did not answer within {SILENCE_TIMEOUT_S:g} seconds",
                    advice="Look at the server that holds the image, then retry.",
                ) from fault
            except httpx.TransportError as fault:
                raise Transient(
                    f"{shown(str(url))} broke the connection instead of answering: {fault}",
                    advice="Retry; if it goes on, look at the server.",
                ) from fault
        raise _unreached(url, unreached)

    def _extensions(self, client: httpx.Client, url: httpx.URL) -> dict[str, object]:
        extensions: dict[str, object] = {"timeout": client.timeout.as_dict()}
        if url.scheme == "https":
            extensions["sni_hostname"] = _host(url)  # certificates are checked against the name, not the address
        return extensions

    def _addresses(self, url: httpx.URL) -> list[str]:
        """Addresses of the URL's host in the resolver's order, all of them allowed."""
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        try:
            found = socket.getaddrinfo(_host(url), port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as fault:
            if getattr(fault, "errno", None) in (socket.EAI_AGAIN, socket.EAI_FAIL):
                raise Transient(
                    f"The host name {url.host} of {shown(str(url))} could not be looked up: {fault}",
                    advice="Look at the resolver of the node (/etc/resolv.conf), then retry.",
                ) from fault
            raise Permanent(
                f"The host name {url.host} of {shown(str(url))} is not known", advice="Correct the host name."
            ) from fault
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if self._spec.public_addresses_only:
            for address in addresses:
                if refusal := refusal_of(address):
                    raise Permanent(
                        f"The host {url.host} of {shown(str(url))} has the address {address}: {refusal}",
                        advice="Images are fetched from public addresses only; upload the file instead.",
                    )
        return addresses


def _host(url: httpx.URL) -> str:
    """The host as it goes over the wire: ASCII, an IPv6 address without brackets."""
    return url.raw_host.decode("ascii")


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _bad_status(status: int, url: httpx.URL) -> Transient | Permanent:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "no known status"
    said = f"{shown(str(url))} answered {status} ({phrase})"
    if status >= 500 or status in TRY_AGAIN:
        return Transient(said, advice="The server is in trouble or busy; retry later.")
    if status in (401, 403, 407):
        return Permanent(said, advice="Give access to the object, or use a URL that needs none.")
    if status in (404, 410):
        return Permanent(said, advice="Nothing is there: correct the URL or put the object back.")
    return Permanent(said, advice="Use a URL that answers 200 to a plain GET.")


def _unreached(url: httpx.URL, fault: Exception | None) -> Transient | Permanent:
    causes = []
    link: BaseException | None = fault
    while link is not None:
        causes.append(link)
        link = link.__cause__ or link.__context__
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return Permanent(
            f"The certificate of {shown(str(url))} cannot be trusted: {fault}",
            advice="Use a server with a valid certificate for that name.",
        )
    if any(isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED for cause in causes):
        return Transient(
            f"{shown(str(url))} refused the connection",
            advice="Start the server, or correct host and port, then retry.",
        )
    return Transient(
        f"{shown(str(url))} cannot be reached: {fault or 'no address'}",
        advice="Look at the server and the network between, then retry.",
    )
