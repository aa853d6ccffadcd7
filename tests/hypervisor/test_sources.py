"""Sources give all bytes or say why not, and lead tenants nowhere but to public addresses."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypervisor import sources
from hypervisor.contract import Permanent, SourceSpec, Transient
from hypervisor.sources import open_source, refusal_of, shown
from tests.hypervisor.object_server import ObjectServer

BODY = bytes(range(256)) * 4096


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    with ObjectServer() as running:
        yield running


def spec(url: str, *, token: str = "", public: bool = False) -> SourceSpec:
    return SourceSpec(url, "raw", "", None, None, bearer_token=token, public_addresses_only=public)


def read(url: str, **options: object) -> bytes:
    return b"".join(open_source(spec(url, **options)).chunks())  # type: ignore[arg-type]


def test_an_http_object_is_read_whole_and_its_length_is_known(server: ObjectServer) -> None:
    source = open_source(spec(server.serve("/a", BODY)))
    assert b"".join(source.chunks()) == BODY
    assert source.announced_size_bytes == len(BODY)


def test_a_file_of_the_node_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "an image.raw"
    path.write_bytes(BODY)
    source = open_source(spec(path.as_uri()))
    assert b"".join(source.chunks()) == BODY
    assert source.announced_size_bytes == len(BODY)


def test_a_body_without_length_is_read_to_its_end(server: ObjectServer) -> None:
    assert read(server.serve("/a", BODY, length=None)) == BODY


def test_a_line_that_is_cut_may_be_tried_again(server: ObjectServer) -> None:
    with pytest.raises(Transient, match="broke in the middle"):
        read(server.serve("/a", BODY, first=70_000))


def test_silence_in_the_middle_may_be_tried_again(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SILENCE_TIMEOUT_S", 0.3)
    with pytest.raises(Transient, match="silent"):
        read(server.stall("/a", BODY, 1000))


def test_an_aborted_read_ends_at_once(server: ObjectServer) -> None:
    source = open_source(spec(server.stall("/a", BODY, 1000)))
    chunks = source.chunks()
    assert len(next(chunks)) == 1000
    source.abort()
    with pytest.raises(Transient):
        next(chunks)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_server_in_trouble_may_be_tried_again(server: ObjectServer, status: int) -> None:
    with pytest.raises(Transient, match=str(status)):
        read(server.status("/a", status))


@pytest.mark.parametrize("status", [204, 400, 401, 403, 404, 410])
def test_an_answer_that_will_not_change_is_final(server: ObjectServer, status: int) -> None:
    with pytest.raises(Permanent, match=str(status)):
        read(server.status("/a", status))


def test_a_refused_connection_may_be_tried_again() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(Transient, match="refused"):
            read(f"http://127.0.0.1:{unused.getsockname()[1]}/a")


def test_an_unknown_host_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **options: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Permanent, match=r"images\.example"):
        read("http://images.example/a")


def test_a_resolver_in_trouble_may_be_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: object, **options: object) -> object:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", away)
    with pytest.raises(Transient):
        read("http://images.example/a")


def test_messages_show_no_secrets_of_the_url(server: ObjectServer) -> None:
    with pytest.raises(Permanent) as caught:
        read(f"http://me:hidden@127.0.0.1:{server.port}/none?signature=hidden#hidden")
    assert "hidden" not in caught.value.message + caught.value.advice
    assert "/none" in caught.value.message


def test_a_shown_url_keeps_host_port_and_path() -> None:
    assert shown("https://u:p@[2001:db8::1]:8443/x/y.gz?key=1") == "https://[2001:db8::1]:8443/x/y.gz?…"
    assert shown("http://[") == "(a malformed URL)"


def test_redirects_are_followed(server: ObjectServer) -> None:
    server.serve("/c", BODY)
    server.status("/b", 307, Location="c")
    assert read(server.status("/a", 302, Location="/b")) == BODY


def test_a_sixth_redirect_is_too_many(server: ObjectServer) -> None:
    with pytest.raises(Permanent, match="more than 5 times"):
        read(server.status("/a", 302, Location="/a"))
    assert len(server.seen) == 6


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/", "", "http://"])
def test_a_redirect_leads_to_http_only(server: ObjectServer, location: str) -> None:
    with pytest.raises(Permanent):
        read(server.status("/a", 302, Location=location))


def test_the_token_goes_to_the_named_server_only(server: ObjectServer) -> None:
    with ObjectServer() as other:
        other.serve("/b", BODY)
        assert read(server.status("/a", 302, Location=other.url("/b")), token="secret") == BODY
        assert server.seen[0][1]["Authorization"] == "Bearer secret"
        assert "Authorization" not in other.seen[0][1]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",  # noqa: S104
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "::ffff:8.8.8.8",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_no_address_inside_is_public(address: str) -> None:
    assert refusal_of(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "151.101.0.223", "2606:4700::1111"])
def test_a_global_address_is_public(address: str) -> None:
    assert refusal_of(address) == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
def test_a_tenant_is_not_led_to_loopback_however_it_is_written(server: ObjectServer, host: str) -> None:
    server.serve("/a", BODY)
    with pytest.raises(Permanent):
        read(server.url("/a", host=host), public=True)
    assert server.seen == []


def test_a_tenant_may_not_read_files_of_the_node() -> None:
    with pytest.raises(Permanent) as caught:
        open_source(spec("file:///etc/passwd", public=True))
    assert caught.value.advice == "Schemes that can be read are http and https."


class Resolver:
    """Gives a name another set of addresses at each look."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, **options: object) -> list[tuple[object, ...]]:
        self.asked.append(host)
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]


def test_one_private_address_among_public_ones_refuses_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", Resolver(["8.8.8.8", "10.0.0.1"]))
    with pytest.raises(Permanent, match=r"10\.0\.0\.1"):
        read("http://images.example/a", public=True)


def test_the_connection_goes_to_the_address_that_was_checked(
    server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serve("/a", BODY)
    resolver = Resolver(["127.0.0.1"], ["10.255.255.1"])  # a second look would lead elsewhere
    checked: list[str] = []
    monkeypatch.setattr(sources, "refusal_of", lambda address: checked.append(address) or "")
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, port, *rest, **options: (
            resolver(host, port) if host == "images.example" else real(host, port, *rest, **options)
        ),
    )
    assert read(f"http://images.example:{server.port}/a", public=True) == BODY
    assert resolver.asked == ["images.example"]
    assert checked == ["127.0.0.1"]
    assert server.seen[0][1]["Host"] == f"images.example:{server.port}"


def test_a_redirect_is_checked_again(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.serve("/b", BODY)
    server.status("/a", 302, Location=server.url("/b", host="127.0.0.2"))
    monkeypatch.setattr(sources, "refusal_of", lambda address: "" if address == "127.0.0.1" else "a loopback address")
    with pytest.raises(Permanent, match=r"127\.0\.0\.2"):
        read(server.url("/a"), public=True)
    assert [path for path, _ in server.seen] == ["/a"]


def test_the_next_address_of_a_host_is_tried(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.serve("/a", BODY)
    real = socket.getaddrinfo
    resolver = Resolver(["127.0.0.9", "127.0.0.1"])  # nobody listens on the first
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, port, *rest, **options: (
            resolver(host, port) if host == "images.example" else real(host, port, *rest, **options)
        ),
    )
    assert read(f"http://images.example:{server.port}/a") == BODY


@pytest.mark.parametrize("url", ["ftp://host/a", "/just/a/path", "", "file://elsewhere/a", "file:relative"])
def test_a_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(Permanent):
        open_source(spec(url))


@pytest.mark.parametrize("url", ["http://", "http://[", "http://host:99999/", "http://a b/", "http://\u2603.\x00/"])
def test_a_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(Permanent):
        read(url)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", Path("/dev/null")):
        with pytest.raises(Permanent, match=str(path)):
            read(path.as_uri())
