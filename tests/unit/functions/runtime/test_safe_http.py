import gzip
import itertools
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import dns.resolver
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.provisional import urls

from functions.runtime import safe_http
from functions.runtime.safe_http import (
    MAX_REDIRECTS,
    Fetched,
    Policy,
    UrlAnswerError,
    UrlBusyError,
    UrlError,
    UrlRefusedError,
    UrlTimeoutError,
    UrlTooLargeError,
    UrlUnreachableError,
    UrlUntrustedError,
)
from tests.fakes.fake_web import INSIDE, OUTSIDE, Authority, Greeter, Names, Web, closed_port, page

POLICY = Policy(schemes=("http",), networks=(OUTSIDE,))
PICTURE = b"\x89PNG and more" * 1000

NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.8.8.8",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.251",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:a9fe:a9fe::5601:5601",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "172.15.255.255",
    "172.32.0.1",
    "192.0.1.1",
    "223.255.255.255",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2606:4700:4700::1111",
    "2a00:1450:4001:80b::200e",
]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    with Names() as server:
        monkeypatch.setattr(dns.resolver, "default_resolver", server.resolver())
        server.is_at("photos.test", [OUTSIDE])
        server.is_at("inside.test", [INSIDE])
        yield server


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as server:
        yield server


@pytest.fixture
def inside() -> Iterator[Web]:
    """A web server that fake_web have no business with."""
    with Web(INSIDE) as server:
        server.pages = {f"{host}/": page(b"secret") for host in ("photos.test", "inside.test", INSIDE)}
        yield server
        assert server.requests == []


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def get(url: str, *, policy: Policy = POLICY, limit_bytes: int = 1 << 20, timeout_s: float = 5) -> Fetched:
    return safe_http.get(url, policy, limit_bytes=limit_bytes, timeout_s=timeout_s, field="image_url")


def post(url: str, *, timeout_s: float = 5) -> int:
    return safe_http.post(url, b'{"id": 7}', {"Content-Type": "application/json"}, POLICY, timeout_s=timeout_s)


def literal(address: str) -> str:
    return f"[{address}]" if ":" in address else address


# What a URL says.


@pytest.mark.parametrize(
    "url",
    [
        "https://photos.example/cup.png",
        "HTTPS://Photos.Example./cup.png?size=2&sig=a%2Fb+c==#top",
        "https://photos.example",
        "https://photos.example:443/a",
        "https://photos.example:8443/a",
        "https://my_bucket.s3.example/a b/ü.png",
        "https://bücher.example/",
        "https://1.2.3.4.example/",
        *(f"https://{literal(address)}/" for address in PUBLIC),
    ],
)
def test_a_url_of_a_public_server_is_accepted(url: str) -> None:
    Policy().check(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "photos.example/a",
        "//photos.example/a",
        "https:",
        "https:///a",
        "https:photos.example/a",
        "https://",
        "https://:443/",
        "https://?a",
        "http://photos.example/",
        "ftp://photos.example/",
        "file:///etc/passwd",
        "gopher://photos.example/",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "https://user@photos.example/",
        " https://photos.example/",
        "https://user:password@photos.example/",
        "https://@photos.example/",
        "https://photos.example:22/",
        "https://photos.example:80/",
        "https://photos.example:0/",
        "https://photos.example:65536/",
        "https://photos.example:-1/",
        "https://photos.example:https/",
        "https://photos.example\\@inside.example/",
        "https:\\\\photos.example/",
        "https://photos.example/\r\nHost: inside.example",
        "https://photos.example/\x00",
        "https://photos.example/\t",
        "https://photos.example/\ud800",
        "https://pho tos.example/",
        "https://photos..example/",
        "https://.example/",
        "https://photos.example%2f.inside.example/",
        "https://%31%32%37.0.0.1/",
        "https://-/\u200b",
        f"https://{'a' * 64}.example/",
        f"https://{'a.' * 130}example/",
        f"https://photos.example/{'a' * 9000}",
        "https://[photos.example]/",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://[2606:4700:4700::1111%eth0]/",
        "https://[v1.x]/",
        "https://localhost/",
        "https://LOCALHOST./",
        "https://a.localhost/",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(UrlRefusedError):
        Policy().check(url)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_a_literal_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(UrlRefusedError):
        Policy().check(f"https://{literal(address)}/latest/meta-data/")


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0X7F.0.0.1",
        "0x7f.1",
        "017700000001",
        "0177.0.0.1",
        "127.1",
        "127.0.1",
        "127.0.0.1.",
        "127.0.0.01",
        "134744072",
        "010.8.8.8",
        "8.8.8",
        "8.8.8.8.8",
        "8.8.8.256",
        "8.8.8.0x8",
        "a.0x",
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020.0.1",
        "\u2488\u24ea.0.1",
        "\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:0:0:1]",
    ],
)
def test_no_way_of_writing_an_address_gets_past_the_check(host: str) -> None:
    with pytest.raises(UrlRefusedError):
        Policy().check(f"https://{host}/")


@given(st.sampled_from([a for a in NOT_PUBLIC if ":" not in a]), st.integers(0, 4))
def test_an_address_that_carries_a_private_one_is_not_public(address: str, way: int) -> None:
    number = int(IPv4Address(address))
    prefixes = [0, 0xFFFF << 32, 0xFFFF << 48, 0x64FF9B << 96, 0x64FF9B0001 << 80]
    carrier = number << 80 | 0x2002 << 112 if way == 4 else prefixes[way] | number
    assert not Policy().allows(str(IPv6Address(carrier)))


@given(st.ip_addresses(v=6))
def test_of_ipv6_only_global_unicast_is_public_and_what_carries_a_public_address(address: IPv6Address) -> None:
    carried = address.ipv4_mapped or (int(address) >> 32 == 0x64FF9B << 64 and IPv4Address(int(address) & 0xFFFFFFFF))
    if Policy().allows(str(address)):
        assert Policy().allows(str(carried)) if carried else int(address) >> 125 == 1 and address.is_global


@settings(max_examples=50)
@given(st.one_of(urls(), st.text(max_size=60), st.text(max_size=40).map("https://{}/".format)))
def test_any_text_is_accepted_or_refused(text: str) -> None:
    try:
        Policy().check(text)
    except UrlRefusedError as error:
        assert error.facts()["error"] == "UrlRefusedError"


def test_networks_of_the_policy_may_be_reached_and_their_neighbours_may_not() -> None:
    policy = Policy(networks=("10.0.0.0/24", "fd12::/16"))
    assert all(policy.allows(address) for address in ("10.0.0.7", "::ffff:10.0.0.7", "fd12::7", "8.8.8.8"))
    assert not any(policy.allows(address) for address in ("10.0.1.7", "fd13::7", "169.254.169.254"))


@pytest.mark.parametrize("wrong", [{"networks": ("10.0.0.0/33",)}, {"networks": ("ten",)}, {"schemes": ("ftp",)}])
def test_a_policy_that_cannot_be_meant_is_refused_at_once(wrong: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ValueError):
        Policy(**wrong)


def test_an_error_says_what_was_at_fault_without_what_may_be_a_credential() -> None:
    with pytest.raises(UrlRefusedError) as caught:
        Policy().check(
            "https://user:secret@photos.example:22/@cup.png?X-Amz-Signature=secret#secret", field="image_url"
        )
    facts = caught.value.facts()
    assert (facts["field"], facts["value"]) == ("image_url", "https://photos.example:22/@cup.png")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["user:secret@photos.example", "https:/a:secret@b/", "\\\\a:secret@b", "//secret@b?secret"]
)
def test_nor_does_it_if_the_url_is_hardly_one(url: str) -> None:
    with pytest.raises(UrlRefusedError) as caught:
        Policy().check(url)
    assert "secret" not in str(caught.value)


# Where a name leads.


def test_a_file_is_fetched_from_where_its_name_leads(names: Names, web: Web) -> None:
    web.pages["photos.test/a/cup.png?size=2"] = page(PICTURE)
    fetched = get(f"http://Photos.test:{web.port}/a/cup.png?size=2#top")
    assert fetched == Fetched(PICTURE, f"http://Photos.test:{web.port}/a/cup.png")
    [request] = web.requests
    assert request.headers == {
        "host": f"photos.test:{web.port}",
        "user-agent": "precision-background-remover",
        "accept-encoding": "identity",
        "accept": "image/*, */*;q=0.1",
    }


def test_characters_that_no_request_has_are_escaped_and_escapes_are_kept(names: Names, web: Web) -> None:
    web.pages["photos.test/a%20b/%C3%BC%2F.png?q=%5B1%5D&r=%2F+"] = page(PICTURE)
    assert get(f"http://photos.test:{web.port}/a b/ü%2F.png?q=[1]&r=%2F+").data == PICTURE


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_a_name_that_leads_to_an_address_that_is_not_public_is_refused(names: Names, address: str) -> None:
    names.is_at("photos.test", [address])
    with pytest.raises(UrlRefusedError) as caught:
        get("https://photos.test/", policy=Policy())
    assert address not in str(caught.value)


@pytest.mark.parametrize("other", [[INSIDE], ["10.0.0.1"], ["::1"], ["fd00:ec2::254"]])
def test_all_addresses_of_a_name_have_to_be_allowed(names: Names, web: Web, inside: Web, other: list[str]) -> None:
    names.is_at("photos.test", [OUTSIDE, *other])
    with pytest.raises(UrlRefusedError):
        get(f"http://photos.test:{web.port}/")
    assert web.requests == []


def test_the_address_that_was_checked_is_the_one_connected_to(names: Names, web: Web) -> None:
    names.is_at("photos.test", [OUTSIDE], [INSIDE])
    web.pages["photos.test/"] = page(PICTURE)
    assert get(f"http://photos.test:{web.port}/").data == PICTURE
    assert names.asked == ["photos.test"]


def test_a_name_that_leads_elsewhere_on_the_next_hop_is_refused_there(names: Names, web: Web, inside: Web) -> None:
    names.is_at("photos.test", [OUTSIDE], [INSIDE])
    web.pages["photos.test/"] = page(status=302, location=f"http://photos.test:{inside.port}/")
    with pytest.raises(UrlRefusedError):
        get(f"http://photos.test:{web.port}/")
    assert names.asked == ["photos.test", "photos.test"]


def test_an_alias_is_what_it_stands_for(names: Names, web: Web, inside: Web) -> None:
    names.is_alias("cdn.test", "photos.test")
    names.is_alias("evil.test", "inside.test")
    web.pages["cdn.test/"] = page(PICTURE)
    assert get(f"http://cdn.test:{web.port}/").data == PICTURE
    with pytest.raises(UrlRefusedError):
        get(f"http://evil.test:{inside.port}/")


def test_a_name_that_nobody_has_is_told_from_a_private_one_by_nothing(names: Names) -> None:
    names.is_at("empty.test", [])

    def told(name: str) -> dict[str, object]:
        with pytest.raises(UrlRefusedError) as caught:
            get(f"http://{name}/")
        return caught.value.facts() | {"value": None}

    assert told("nobody.test") == told("empty.test") == told("inside.test")


def test_a_name_server_that_fails_may_answer_later(names: Names) -> None:
    names.fails("photos.test", "SERVFAIL")
    with pytest.raises(UrlUnreachableError):
        get("http://photos.test/")


def test_localhost_is_this_machine_and_never_looked_up(names: Names, web: Web) -> None:
    web.pages["localhost/"] = page(PICTURE)
    assert get(f"http://localhost:{web.port}/").data == PICTURE
    assert names.asked == []


def test_a_literal_address_is_connected_to_if_the_policy_allows_it(web: Web, inside: Web) -> None:
    web.pages[f"{OUTSIDE}/"] = page(PICTURE)
    assert get(f"http://{OUTSIDE}:{web.port}/").data == PICTURE
    assert get(f"http://[::ffff:{OUTSIDE}]:{web.port}/", policy=POLICY).data == PICTURE
    with pytest.raises(UrlRefusedError):
        get(f"http://{INSIDE}:{inside.port}/")


def test_of_a_name_s_addresses_four_are_tried_and_those_of_ipv4_first(names: Names, web: Web) -> None:
    *dead, mapped = "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6", f"::ffff:{OUTSIDE}"
    names.is_at("photos.test", [*dead[:3], mapped])
    names.is_at("many.test", [*dead, mapped])
    web.pages |= dict.fromkeys(["photos.test/", "many.test/"], page(PICTURE))
    policy = Policy(schemes=("http",), networks=("127.0.0.0/8",))
    assert get(f"http://photos.test:{web.port}/", policy=policy).data == PICTURE
    with pytest.raises(UrlUnreachableError):
        get(f"http://many.test:{web.port}/", policy=policy)


def test_proxies_of_the_environment_are_ignored(names: Names, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{OUTSIDE}:{closed_port()}")
    web.pages["photos.test/"] = page(PICTURE)
    assert get(f"http://photos.test:{web.port}/").data == PICTURE


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_to_another_host_and_takes_nothing_along(names: Names, web: Web, status: int) -> None:
    names.is_at("cdn.test", [OUTSIDE])
    web.pages["photos.test/a?sig=secret"] = page(status=status, location="/b/", set_cookie="id=7")
    web.pages["photos.test/b/"] = page(status=status, location=f"//cdn.test:{web.port}/c")
    web.pages["cdn.test/c"] = page(PICTURE)
    fetched = get(f"http://photos.test:{web.port}/a?sig=secret")
    assert fetched == Fetched(PICTURE, f"http://cdn.test:{web.port}/c")
    assert {frozenset(request.headers) for request in web.requests} == {
        frozenset({"host", "user-agent", "accept", "accept-encoding"})
    }


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://2852039166/",
        "http://inside.test:{inside}/",
        "http://127.0.0.2:{inside}/",
        "//inside.test:{inside}/",
        "https://photos.test:{web}/",
        "file:///etc/passwd",
        "gopher://photos.test/",
        "http://user:password@photos.test:{web}/",
        "http://photos.test:22/",
        "http://[",
    ],
)
def test_a_redirect_is_checked_as_the_url_itself(names: Names, web: Web, inside: Web, location: str) -> None:
    web.pages["photos.test/"] = page(status=302, location=location.format(web=web.port, inside=inside.port))
    with pytest.raises(UrlRefusedError):
        get(f"http://photos.test:{web.port}/")
    assert len(web.requests) == 1


def test_redirects_come_to_an_end(names: Names, web: Web) -> None:
    web.pages |= {f"photos.test/{n}": page(status=302, location=f"/{n + 1}") for n in range(MAX_REDIRECTS)}
    web.pages[f"photos.test/{MAX_REDIRECTS}"] = page(PICTURE)
    assert get(f"http://photos.test:{web.port}/0").data == PICTURE
    web.requests.clear()
    web.pages["photos.test/loop"] = page(status=302, location="/loop")
    with pytest.raises(UrlAnswerError, match="redirects"):
        get(f"http://photos.test:{web.port}/loop")
    assert len(web.requests) == 1 + MAX_REDIRECTS


def test_a_redirect_to_nowhere_is_no_answer(names: Names, web: Web) -> None:
    web.pages["photos.test/"] = page(status=302)
    with pytest.raises(UrlAnswerError):
        get(f"http://photos.test:{web.port}/")


# What comes back.


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (201, UrlAnswerError),
        (204, UrlAnswerError),
        (206, UrlAnswerError),
        (304, UrlAnswerError),
        (403, UrlAnswerError),
        (404, UrlAnswerError),
        (429, UrlBusyError),
        (500, UrlBusyError),
        (503, UrlBusyError),
    ],
)
def test_an_answer_other_than_the_file_says_whether_to_come_again(
    names: Names, web: Web, status: int, error: type[UrlError]
) -> None:
    web.pages["photos.test/"] = page(b"" if status in {204, 304} else b"no", status=status)
    with pytest.raises(error, match=str(status)):
        get(f"http://photos.test:{web.port}/")


@pytest.mark.parametrize("framing", ["content-length", "chunked", "none"])
def test_a_file_may_be_as_large_as_the_limit_and_no_larger(names: Names, web: Web, framing: str) -> None:
    head = {
        "content-length": f"HTTP/1.1 200 OK\r\nContent-Length: {len(PICTURE)}\r\n\r\n",
        "chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "none": "HTTP/1.0 200 OK\r\n\r\n",
    }[framing].encode()
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (PICTURE[:5], PICTURE[5:])) + b"0\r\n\r\n"
    web.pages["photos.test/"] = [head, chunks if framing == "chunked" else PICTURE]
    url = f"http://photos.test:{web.port}/"
    assert get(url, limit_bytes=len(PICTURE)).data == PICTURE
    with pytest.raises(UrlTooLargeError):
        get(url, limit_bytes=len(PICTURE) - 1)


def test_a_file_that_is_said_to_be_too_large_is_not_read(names: Names, web: Web) -> None:
    web.pages["photos.test/"] = itertools.chain(
        page(content_length=str(1 << 40)), iter(lambda: time.sleep(5) or b"", 0)
    )
    with pytest.raises(UrlTooLargeError):
        get(f"http://photos.test:{web.port}/", timeout_s=2)


def test_a_file_without_an_end_is_left_at_the_limit(names: Names, web: Web) -> None:
    web.pages["photos.test/"] = itertools.chain([b"HTTP/1.0 200 OK\r\n\r\n"], itertools.repeat(bytes(1 << 16)))
    with pytest.raises(UrlTooLargeError):
        get(f"http://photos.test:{web.port}/", limit_bytes=1 << 20)


def dripping(head: bytes, drop: bytes) -> Iterator[bytes]:
    yield head
    for _ in range(200):
        time.sleep(0.02)
        yield drop


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"", b""),
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"x"),
    ],
    ids=["silence", "status", "header", "continue", "body", "chunks", "trailer"],
)
def test_a_server_that_takes_its_time_is_left_when_the_time_is_up(
    names: Names, web: Web, head: bytes, drop: bytes
) -> None:
    web.pages["photos.test/"] = dripping(head, drop)
    started = time.monotonic()
    with pytest.raises(UrlTimeoutError):
        get(f"http://photos.test:{web.port}/", timeout_s=0.1)
    assert 0.1 <= time.monotonic() - started < 2


def test_so_is_a_name_server(names: Names) -> None:
    names.is_silent("photos.test")
    started = time.monotonic()
    with pytest.raises(UrlTimeoutError):
        get("http://photos.test/", timeout_s=0.1)
    assert time.monotonic() - started < 2


def test_the_time_is_one_for_all_redirects(names: Names, web: Web) -> None:
    web.pages |= {
        f"photos.test/{n}": (time.sleep(0.04) or piece for piece in page(status=302, location=f"/{n + 1}"))
        for n in range(MAX_REDIRECTS)
    }
    with pytest.raises(UrlTimeoutError):
        get(f"http://photos.test:{web.port}/0", timeout_s=0.1)
    assert len(web.requests) <= 3


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
    ],
    ids=range(14),
)
def test_a_server_that_breaks_off_or_does_not_speak_http_is_as_good_as_none(
    names: Names, web: Web, answer: bytes
) -> None:
    web.pages["photos.test/"] = [answer]
    with pytest.raises(UrlUnreachableError):
        get(f"http://photos.test:{web.port}/")


def test_nobody_listening_is_unreachable(names: Names) -> None:
    with pytest.raises(UrlUnreachableError):
        get(f"http://photos.test:{closed_port()}/")


def test_a_compressed_answer_is_refused_unread(names: Names, web: Web) -> None:
    web.pages["photos.test/"] = page(gzip.compress(bytes(1 << 20)), content_encoding="gzip")
    with pytest.raises(UrlAnswerError, match="compressed"):
        get(f"http://photos.test:{web.port}/")


# TLS.


def test_a_certificate_is_held_against_the_name_and_not_the_address(
    names: Names, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    names.is_at("other.test", [OUTSIDE])
    policy = Policy(networks=(OUTSIDE,))
    with Web(tls=authority.server("photos.test")) as web:
        web.pages = {f"{host}/": page(PICTURE) for host in ("photos.test", "other.test", OUTSIDE)}
        assert get(f"https://photos.test:{web.port}/", policy=policy).data == PICTURE
        for host in ("other.test", OUTSIDE):
            with pytest.raises(UrlUntrustedError):
                get(f"https://{host}:{web.port}/", policy=policy)
        assert len(web.requests) == 1


def test_a_certificate_of_an_authority_that_nobody_knows_is_not_trusted(names: Names, authority: Authority) -> None:
    with Web(tls=authority.server("photos.test")) as web, pytest.raises(UrlUntrustedError):
        get(f"https://photos.test:{web.port}/", policy=Policy(networks=(OUTSIDE,)))


def test_a_redirect_may_not_leave_tls(names: Names, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with Web(tls=authority.server("photos.test")) as web, Web() as plain:
        web.pages["photos.test/"] = page(status=302, location=f"http://photos.test:{plain.port}/")
        plain.pages["photos.test/"] = page(PICTURE)
        url = f"https://photos.test:{web.port}/"
        with pytest.raises(UrlRefusedError):
            get(url, policy=Policy(networks=(OUTSIDE,)))
        assert plain.requests == []
        assert get(url, policy=Policy(schemes=("https", "http"), networks=(OUTSIDE,))).data == PICTURE


def test_a_server_without_tls_is_unreachable_by_it(names: Names) -> None:
    with Greeter(b"SSH-2.0-OpenSSH_9.9\r\n") as server, pytest.raises(UrlUnreachableError):
        get(f"https://photos.test:{server.port}/", policy=Policy(networks=(OUTSIDE,)))


def test_a_server_that_says_nothing_of_tls_is_left_when_the_time_is_up(names: Names) -> None:
    with Greeter() as server, pytest.raises(UrlTimeoutError):
        get(f"https://photos.test:{server.port}/", policy=Policy(networks=(OUTSIDE,)), timeout_s=0.1)


# Messages.


def test_a_message_arrives_and_the_status_of_the_answer_is_told(names: Names, web: Web) -> None:
    web.pages["photos.test/hook?id=7"] = page(b"thanks", status=202)
    assert post(f"http://photos.test:{web.port}/hook?id=7") == 202
    [request] = web.requests
    assert (request.method, request.path, request.body) == ("POST", "/hook?id=7", b'{"id": 7}')
    assert request.headers["content-type"] == "application/json"
    assert request.headers["content-length"] == "9"


def test_a_message_is_not_sent_on(names: Names, web: Web, inside: Web) -> None:
    web.pages["photos.test/"] = page(status=307, location=f"http://inside.test:{inside.port}/")
    assert post(f"http://photos.test:{web.port}/") == 307


def test_a_message_goes_only_where_files_come_from(names: Names, inside: Web) -> None:
    with pytest.raises(UrlRefusedError):
        post(f"http://inside.test:{inside.port}/")


def test_the_answer_to_a_message_is_waited_for_no_longer_than_said(names: Names, web: Web) -> None:
    web.pages["photos.test/"] = dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x")
    with pytest.raises(UrlTimeoutError):
        post(f"http://photos.test:{web.port}/", timeout_s=0.1)
