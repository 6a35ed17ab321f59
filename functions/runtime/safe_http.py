"""HTTP client for untrusted URLs: images that callers link to, and webhooks.

A caller who chooses a URL could choose one that only this server reaches (server-side request forgery). So each request
resolves the host once, requires all of its addresses to be public, and connects to an address that was checked,
whatever DNS returns later. Each redirect is checked like a new request. TLS is still verified against the host's name.
"""

import re
import ssl
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import ClassVar, Final, TypeAlias
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import httpcore
import idna

from core.errors import BackgroundRemoverError

MAX_REDIRECTS: Final = 5
MAX_URL_CHARS: Final = 8192
"""Longest URL. A presigned S3 URL with a session token has about 2,000 characters."""

MIN_PORT: Final = 1024
"""Lowest port other than the scheme's default. Lower ones belong to other services, e.g. mail."""

_MAX_CONNECTS: Final = 4
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_REDIRECTS: Final = {301, 302, 303, 307, 308}

_NOT_PUBLIC: Final = "The host has no public address, or also has private ones"

_IN_PATH: Final = "/%:@!$&'()*+,;=~"
_IN_QUERY: Final = _IN_PATH + "?"
_HOST_NAME: Final = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_USER: Final = re.compile(r"^((?:[a-z0-9+.-]*:)?/+)?[^/]*@", re.IGNORECASE)

_IpAddress: TypeAlias = IPv4Address | IPv6Address

# IANA's special-purpose address registries: https://www.iana.org/assignments/iana-ipv4-special-registry and -ipv6-.
# Not Python's `is_global`, which differs between releases and includes multicast.
_SPECIAL_V4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_GLOBAL_V6: Final = IPv6Network("2000::/3")
_SPECIAL_V6: Final = tuple(
    IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)  # Teredo and other protocols' own, documentation, 6to4
_NAT64: Final = IPv6Network("64:ff9b::/96")


class UrlError(BackgroundRemoverError):
    """Base of errors of untrusted URLs. ``value`` is the URL without the parts that may hold secrets."""

    remedy_text: ClassVar[str]

    def __init__(self, message: str, *, url: str, field: str) -> None:
        super().__init__(message, field=field, value=_without_secrets(url), remedy=self.remedy_text)


class UrlRefusedError(UrlError):
    """The URL is not allowed, or its host has a private address."""

    retryable = False
    remedy_text = "Use the URL of a public server, without a user name or password."


class UrlUntrustedError(UrlError):
    """The server's certificate is not valid for its name."""

    retryable = False
    remedy_text = "Serve it with a certificate that browsers trust."


class UrlUnreachableError(UrlError):
    """The server does not answer, or closed the connection early."""

    retryable = True
    remedy_text = "Check that the server can be reached from the Internet, and try again."


class UrlTimeoutError(UrlError):
    """The server did not respond in time."""

    retryable = True
    remedy_text = "Try again, or use a faster server."


class UrlBusyError(UrlError):
    """The server is overloaded (status 429 or 5xx)."""

    retryable = True
    remedy_text = "Try again later."


class UrlAnswerError(UrlError):
    """The server's response is not the file."""

    retryable = False
    remedy_text = "Use the URL of the file itself, one that needs no login."


class UrlTooLargeError(UrlError):
    """The file is larger than the limit."""

    retryable = False
    remedy_text = "Use the URL of a smaller file."


@dataclass(frozen=True)
class Policy:
    """Allowed URLs.

    A URL must have one of the schemes, the scheme's default port or one of at least ``MIN_PORT``, no user name, and a
    host whose addresses are all public. ``localhost`` is 127.0.0.1 and never resolved.

    Attributes:
        schemes: ``https``, or ``https`` and ``http``; also of redirects.
        networks: private networks that are allowed, in CIDR notation.

    Raises:
        ValueError: a network or a scheme is invalid.
    """

    schemes: tuple[str, ...] = ("https",)
    networks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for network in self.networks:
            ip_network(network)
        if unknown := set(self.schemes) - set(_DEFAULT_PORTS):
            raise ValueError(f"not an HTTP scheme: {sorted(unknown)}")

    def check(self, url: str, *, field: str = "url") -> None:
        """Check a URL without resolving its host.

        Raises:
            UrlRefusedError: the URL is not allowed.
        """
        _target(url, self, field)

    def allows(self, address: str) -> bool:
        """Return whether a connection may go to an IP address."""
        parsed = _unmapped(ip_address(address))
        return _is_public(parsed) or any(parsed in ip_network(network) for network in self.networks)


@dataclass(frozen=True)
class Fetched:
    """A file, and the URL that it came from after redirects, without its query."""

    data: bytes
    url: str


def get(url: str, policy: Policy, *, limit_bytes: int, timeout_s: float, field: str = "url") -> Fetched:
    """Fetch a file, following up to ``MAX_REDIRECTS`` redirects, each checked like the URL itself.

    Args:
        url: of the file.
        policy: the allowed URLs.
        limit_bytes: largest accepted file.
        timeout_s: total limit in seconds, from the first DNS lookup to the last byte.
        field: the input that contained the URL, for errors.

    Raises:
        UrlRefusedError, UrlUntrustedError, UrlUnreachableError, UrlTimeoutError, UrlBusyError, UrlAnswerError,
        UrlTooLargeError: the request failed.
    """
    ends_at = time.monotonic() + timeout_s
    for _ in range(1 + MAX_REDIRECTS):
        target = _target(url, policy, field)
        with _exchange("GET", target, policy, ends_at, {"Accept": "image/*, */*;q=0.1"}) as response:
            if response.status not in _REDIRECTS:
                return Fetched(_file(response, target, limit_bytes), _without_secrets(url))
            location = _header(response, "location")
        if not location:
            raise target.failed(UrlAnswerError, "The server redirects without a location")
        try:
            url = urljoin(url, location)
        except ValueError as error:
            raise target.failed(UrlRefusedError, "The server redirects to an invalid URL") from error
    raise target.failed(UrlAnswerError, f"There are more than {MAX_REDIRECTS} redirects")


def post(
    url: str, body: bytes, headers: Mapping[str, str], policy: Policy, *, timeout_s: float, field: str = "url"
) -> int:
    """Send a request and return the response's status; its body is not read, and redirects are not followed.

    Args:
        url: of the receiver.
        body: of the request.
        headers: of the request, e.g. ``Content-Type``.
        policy: the allowed URLs.
        timeout_s: total limit in seconds, from the DNS lookup to the response's last header.
        field: the input that contained the URL, for errors.

    Raises:
        UrlRefusedError, UrlUntrustedError, UrlUnreachableError, UrlTimeoutError: the request failed.
    """
    target = _target(url, policy, field)
    with _exchange("POST", target, policy, time.monotonic() + timeout_s, headers, body) as response:
        return response.status


@dataclass(frozen=True)
class _Target:
    """An allowed URL, parsed once: the request uses exactly the parts that were checked."""

    url: str
    field: str
    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def failed(self, error: type[UrlError], message: str) -> UrlError:
        return error(message, url=self.url, field=self.field)


def _target(url: str, policy: Policy, field: str) -> _Target:
    def refused(message: str) -> UrlRefusedError:
        return UrlRefusedError(message, url=url, field=field)

    if len(url) > MAX_URL_CHARS:
        raise refused(f"The URL is longer than {MAX_URL_CHARS} characters")
    if not url.isprintable() or "\\" in url or url != url.strip():
        raise refused("The URL has characters that are not allowed in URLs")
    try:
        parts = urlsplit(url)
        host, port = _host(parts), parts.port
    except ValueError as error:  # errors of idna and ipaddress are ValueErrors
        raise refused("The URL has no valid host") from error
    if parts.scheme not in policy.schemes:
        raise refused(f"The URL must start with {' or '.join(f'{scheme}://' for scheme in policy.schemes)}")
    if "@" in parts.netloc:
        raise refused("The URL contains a user name or a password")
    own_port = _DEFAULT_PORTS[parts.scheme]
    if port is not None and port != own_port and port < MIN_PORT:
        raise refused(f"The port must be {own_port}, or {MIN_PORT} and above")
    if any(not policy.allows(address) for address in _literal(host)):
        raise refused(_NOT_PUBLIC)
    path = quote(parts.path or "/", safe=_IN_PATH) + (f"?{quote(parts.query, safe=_IN_QUERY)}" if parts.query else "")
    return _Target(url, field, parts.scheme, host, own_port if port is None else port, path)


def _host(parts: SplitResult) -> str:
    """Return a URL's host: an address in canonical form, or a lower-case ASCII name.

    Raises:
        ValueError: the host is neither. ``127.1``, ``0x7f000001`` and ``2130706433``, which some resolvers take for
            addresses and others for names, are invalid.
    """
    text = parts.hostname or ""
    if "[" in parts.netloc:
        return str(_unmapped(IPv6Address(text if "%" not in text else "")))
    name = text if text.isascii() else idna.encode(text, uts46=True).decode()
    name = name.removesuffix(".")
    if not _HOST_NAME.fullmatch(name):
        raise ValueError("not a host name")
    return str(IPv4Address(name)) if _NUMBER.fullmatch(name.rpartition(".")[2]) else name


def _literal(host: str) -> list[str]:
    """Return the address of a host that needs no DNS lookup, or an empty list."""
    if host == "localhost" or host.endswith(".localhost"):
        return ["127.0.0.1"]
    return [host] if ":" in host or _NUMBER.fullmatch(host.rpartition(".")[2]) else []


def _unmapped(address: _IpAddress) -> _IpAddress:
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _is_public(address: _IpAddress) -> bool:
    """Return whether an address is publicly routable.

    NAT64 addresses count as the IPv4 address that they embed; other IPv6 addresses that embed IPv4 are not public.
    """
    if isinstance(address, IPv6Address) and address in _NAT64:
        address = IPv4Address(int(address) & 0xFFFFFFFF)
    if isinstance(address, IPv6Address):
        return address in _GLOBAL_V6 and not any(address in network for network in _SPECIAL_V6)
    return not any(address in network for network in _SPECIAL_V4)


@contextmanager
def _exchange(
    method: str, target: _Target, policy: Policy, ends_at: float, headers: Mapping[str, str], body: bytes | None = None
) -> Generator[httpcore.Response, None, None]:
    """Send one request and yield the response after its headers."""
    all_headers = {
        "Host": target.authority,
        "User-Agent": "precision-background-remover",
        "Accept-Encoding": "identity",
        **headers,
    }
    url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
    try:
        with (
            httpcore.ConnectionPool(network_backend=_CheckedNetwork(policy, ends_at)) as pool,
            pool.stream(method, url, headers=list(all_headers.items()), content=body) as response,
        ):
            yield response
    except _NotPublicError as error:
        raise target.failed(UrlRefusedError, _NOT_PUBLIC) from error
    except httpcore.TimeoutException as error:
        raise target.failed(UrlTimeoutError, "The server did not respond in time") from error
    except _UntrustedError as error:
        raise target.failed(UrlUntrustedError, "The server's certificate is not valid for its name") from error
    except (httpcore.NetworkError, httpcore.RemoteProtocolError) as error:
        raise target.failed(
            UrlUnreachableError, "The server does not answer, or closed the connection early"
        ) from error


def _file(response: httpcore.Response, target: _Target, limit_bytes: int) -> bytes:
    if response.status != HTTPStatus.OK:
        busy = response.status == HTTPStatus.TOO_MANY_REQUESTS or response.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        raise target.failed(
            UrlBusyError if busy else UrlAnswerError, f"The server responded with status {response.status}"
        )
    if _header(response, "content-encoding").lower() not in {"", "identity"}:
        raise target.failed(UrlAnswerError, "The server compressed the file, although the request forbids it")
    too_large = target.failed(UrlTooLargeError, f"The file is larger than {limit_bytes:,} bytes")
    if int(_header(response, "content-length") or 0) > limit_bytes:
        raise too_large
    data = bytearray()
    for chunk in response.iter_stream():
        data += chunk
        if len(data) > limit_bytes:
            raise too_large
    return bytes(data)


def _header(response: httpcore.Response, name: str) -> str:
    return next(
        (value.decode("utf-8", "replace") for key, value in response.headers if key.lower() == name.encode()), ""
    )


def _without_secrets(url: str) -> str:
    """Return a URL without query, fragment, user name and password, any of which may be a credential."""
    return _USER.sub(r"\1", re.split(r"[?#]", url, maxsplit=1)[0])


class _NotPublicError(Exception):
    """A host has no address, or one that is not allowed. Callers do not learn which, so that they cannot probe."""


class _UntrustedError(Exception):
    """A server's certificate is not valid."""


class _CheckedNetwork(httpcore.NetworkBackend):
    """Connects only to addresses that the policy allows, until a deadline in ``time.monotonic``."""

    def __init__(self, policy: Policy, ends_at: float) -> None:
        self._policy, self._ends_at, self._sockets = policy, ends_at, httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = _literal(host) or _resolve(host, self._ends_at)
        if not addresses or not all(self._policy.allows(address) for address in addresses):
            raise _NotPublicError
        *others, last = addresses[:_MAX_CONNECTS]
        for left, address in zip(range(len(others), 0, -1), others, strict=True):
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return self._connect(address, port, _left_s(self._ends_at) / (1 + left))
        return self._connect(last, port, _left_s(self._ends_at))

    def _connect(self, address: str, port: int, timeout_s: float) -> httpcore.NetworkStream:
        return _TimedStream(self._sockets.connect_tcp(address, port, timeout_s), self._ends_at)


class _TimedStream(httpcore.NetworkStream):
    """A connection with a total deadline: httpcore's own timeouts restart with each byte."""

    def __init__(self, stream: httpcore.NetworkStream, ends_at: float) -> None:
        self._stream, self._ends_at = stream, ends_at

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left_s(self._ends_at))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left_s(self._ends_at))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            secured = self._stream.start_tls(ssl_context, server_hostname, _left_s(self._ends_at))
        except httpcore.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise _UntrustedError from error
            raise
        return _TimedStream(secured, self._ends_at)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def _left_s(ends_at: float) -> float:
    left_s = ends_at - time.monotonic()
    if left_s <= 0:
        raise httpcore.TimeoutException
    return left_s


def _resolve(name: str, ends_at: float) -> list[str]:
    """Return all addresses of a name, IPv4 first: AWS Lambda functions rarely have IPv6 egress."""
    import dns.resolver  # imported late: it takes a fifth of a second, and few requests have a URL

    addresses = []
    try:
        for kind in ("A", "AAAA"):
            answer = dns.resolver.resolve(name, kind, lifetime=_left_s(ends_at), search=False, raise_on_no_answer=False)
            addresses += [str(_unmapped(ip_address(record.address))) for record in answer]
    except dns.resolver.NXDOMAIN:
        return []
    except dns.exception.Timeout as error:
        raise httpcore.ConnectTimeout from error
    except dns.exception.DNSException as error:
        raise httpcore.ConnectError from error
    return addresses
