"""A fake internet on localhost: a DNS server and web servers with scripted responses."""

import socket
import socketserver
import ssl
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

OUTSIDE, INSIDE = "127.0.0.1", "127.0.0.2"
"""Two loopback addresses. Tests' policies allow the first, like a public address, and not the second."""


class Server:
    """Runs a socketserver in a thread while the context is open."""

    def __init__(self, server: socketserver.UDPServer | socketserver.TCPServer) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.002})
        self.port: int = server.socket.getsockname()[1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Threads(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads, block_on_close = True, False


class Names(Server):
    """A DNS server. Names without records do not exist.

    Attributes:
        asked: names of all queries for A records, in order.
    """

    def __init__(self) -> None:
        server = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                data, udp = self.request
                if response := server._respond(dns.message.from_wire(data)):
                    udp.sendto(response.to_wire(), self.client_address)

        super().__init__(socketserver.UDPServer((OUTSIDE, 0), Handler))
        self.asked: list[str] = []
        self._records: dict[tuple[str, str], list[list[str]]] = {}
        self._failing: dict[str, dns.rcode.Rcode] = {}
        self._silent: set[str] = set()

    def resolver(self) -> dns.resolver.Resolver:
        """Return a resolver that queries this server only."""
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = [OUTSIDE], self.port
        return resolver

    def is_at(self, name: str, *addresses: Iterable[str]) -> None:
        """Resolve the name to these addresses: one list per query, the last one for all later queries."""
        for kind, version in (("A", 4), ("AAAA", 6)):
            self._records[name, kind] = [[a for a in each if ip_address(a).version == version] for each in addresses]

    def is_alias(self, name: str, of: str) -> None:
        """Make the name a CNAME of another."""
        self._records[name, "CNAME"] = [[f"{of}."]]

    def fails(self, name: str, rcode: str) -> None:
        """Respond to queries for the name with an error."""
        self._failing[name] = dns.rcode.from_text(rcode)

    def is_silent(self, name: str) -> None:
        """Never respond to queries for the name."""
        self._silent.add(name)

    def _respond(self, query: dns.message.Message) -> dns.message.Message | None:
        [question] = query.question
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        if kind == "A":
            self.asked.append(name)
        if name in self._silent:
            return None
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if name in self._failing:
            response.set_rcode(self._failing[name])
            return response
        while alias := self._records.get((name, "CNAME")):
            response.answer.append(dns.rrset.from_text(f"{name}.", 0, "IN", "CNAME", *alias[0]))
            name = alias[0][0].removesuffix(".")
        lists = self._records.get((name, kind))
        if lists is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif records := lists.pop(0) if len(lists) > 1 else lists[0]:
            response.answer.append(dns.rrset.from_text(f"{name}.", 0, "IN", kind, *records))
        return response


@dataclass(frozen=True)
class Request:
    """A request to a web server. Header names are lower-case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Web(Server):
    """A web server with scripted responses.

    Attributes:
        pages: raw responses by host and path, e.g. ``photos.test/cup.png``; each an iterable of pieces.
        requests: all requests, in order.
    """

    def __init__(self, address: str = OUTSIDE, tls: ssl.SSLContext | None = None) -> None:
        web = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):  # the client disconnected
                    if tls:
                        with tls.wrap_socket(self.request, server_side=True) as secured:
                            self.respond(secured.makefile("rb"), secured.sendall)
                    else:
                        self.respond(self.rfile, self.request.sendall)

            def respond(self, read: Any, send: Any) -> None:
                method, path, _ = read.readline().decode().split(" ", 2)
                lines = iter(lambda: read.readline().decode().strip(), "")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = read.read(int(headers.get("content-length", 0)))
                web.requests.append(Request(method, path, headers, body))
                host = headers["host"].rpartition(":")[0] or headers["host"]
                for piece in web.pages[host + path]:
                    send(piece)

        super().__init__(_Threads((address, 0), Handler))
        self.pages: dict[str, Iterable[bytes]] = {}
        self.requests: list[Request] = []


class Greeter(Server):
    """A non-HTTP server: sends a greeting, and then reads until the client disconnects."""

    def __init__(self, greeting: bytes = b"") -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.sendall(greeting)
                with suppress(OSError):
                    while self.request.recv(1 << 16):
                        pass

        super().__init__(_Threads((OUTSIDE, 0), Handler))


def page(body: bytes = b"", status: int = 200, **headers: str) -> list[bytes]:
    """Return a response in one piece; headers are keyword arguments such as ``content_type="image/png"``."""
    headers = {"content_length": str(len(body))} | headers
    lines = [f"HTTP/1.1 {status} Status", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return ["\r\n".join([*lines, "", ""]).encode() + body]


class Authority:
    """A certificate authority; ``file`` is its certificate."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        certificate = self._signed(self._name, self._key, x509.BasicConstraints(ca=True, path_length=None))
        self.file = folder / "authority.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, *names: str) -> ssl.SSLContext:
        """Return a TLS context with a certificate for these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        certificate = self._signed(subject, key, x509.SubjectAlternativeName([x509.DNSName(name) for name in names]))
        file = self._folder / f"{names[0]}.pem"
        plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        pem = serialization.Encoding.PEM
        file.write_bytes(certificate.public_bytes(pem) + key.private_bytes(pem, *plain))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(extension, critical=False)
            .sign(self._key, hashes.SHA256())
        )


def closed_port() -> int:
    """Return a port without a listener."""
    with socket.socket() as probe:
        probe.bind((OUTSIDE, 0))
        port: int = probe.getsockname()[1]
    return port
