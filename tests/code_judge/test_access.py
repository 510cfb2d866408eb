"""Who may do what over HTTP, and that no request, however broken, does harm."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator

import pytest
from judge_service import Judge, running

TOKEN = "s3cret-Token~with+all/kinds="


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """A service with a token, from a file, and a small limit of bodies."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "token").write_text(TOKEN + "\n")
    settings = {"CODE_JUDGE_TOKEN_FILE": str(folder / "token"), "MAX_BODY": "1", "PRELOAD": "json"}
    with running(folder, "--workers", "1", MAX_EXECUTION_TIME="2", **settings) as judge:
        judge.token = TOKEN
        yield judge


def _raw(judge: Judge, request: bytes, patience: float = 10) -> bytes:
    """What comes back for these bytes until the service closes the connection; after a silence of `patience`
    seconds this side says that it has no more to send.
    """
    parts = urllib.parse.urlsplit(judge.url)
    received = b""
    with (
        socket.create_connection((parts.hostname, parts.port), 10) as connection,
        contextlib.suppress(OSError),
    ):
        connection.sendall(request)
        connection.settimeout(patience)
        while True:
            try:
                part = connection.recv(65536)
            except TimeoutError:
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(10)
                continue
            if not part:
                break
            received += part
    return received


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def _post(body: bytes, *headers: bytes, path: bytes = b"/run") -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"host: h", b"connection: close", *headers]
    return b"\r\n".join([*lines, b"content-length: %d" % len(body), b"", body])


AUTHORIZED = b"authorization: Bearer " + TOKEN.encode()
BODY = b'{"solution": "print(1)"}'
JSON = b"content-type: application/json"


@pytest.mark.parametrize(
    "header",
    [b"x: y", b"authorization:", b"authorization: Bearer", b"authorization: Bearer ", b"authorization: Bearer wrong",
     b"authorization: " + TOKEN.encode(), b"authorization: Basic " + TOKEN.encode(), AUTHORIZED[:-1], AUTHORIZED + b"x",
     AUTHORIZED.lower(), b"authorization: Bearer  " + TOKEN.encode(), b"authorization: Bearer \xff\xfe\x80",
     "authorization: Bearer schlüssel".encode(), b"authorization: \xc3\xa9 " + TOKEN.encode()],
)  # fmt: skip
def test_a_wrong_token_in_whatever_bytes_is_401(guarded: Judge, header: bytes) -> None:
    answer = _raw(guarded, _post(BODY, JSON, header))
    assert _status(answer) == 401 and b"www-authenticate: Bearer" in answer.lower().replace(
        b"bearer", b"Bearer"
    )


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER"])
def test_the_right_token_is_taken_whatever_the_case_of_the_scheme(guarded: Judge, scheme: bytes) -> None:
    assert (
        _status(_raw(guarded, _post(BODY, JSON, b"authorization: " + scheme + b" " + TOKEN.encode()))) == 200
    )


def test_every_post_needs_the_token_and_says_so_in_its_description(guarded: Judge) -> None:
    description = guarded.get("/openapi.json")
    stranger = Judge(guarded.url, guarded.process)
    posts = [path for path, operations in description["paths"].items() if "post" in operations]
    assert len(posts) >= 6
    for path in posts:
        status, answer, headers = stranger.request("POST", path, b"{}")
        assert status == 401 and headers["www-authenticate"].startswith("Bearer"), path
        assert TOKEN not in json.dumps(answer)
        operation = description["paths"][path]["post"]
        later = {"504"} if path == "/run_code" else {"429", "503"}
        assert operation["security"] and {"400", "401", "413", "422", *later} <= set(operation["responses"])
    (scheme,) = description["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


def test_gets_stay_open_and_tell_no_secret(guarded: Judge) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for path in ("/", "/ping", "/ready", "/status", "/metrics", "/docs", "/openapi.json"):
        with opener.open(guarded.url + path, timeout=10) as answer:
            content = answer.read().decode()
        assert TOKEN not in content and "valkey.sock" not in content and "unix://" not in content


def test_every_operation_has_a_text_and_every_post_examples_that_work(judge: Judge) -> None:
    description = judge.get("/openapi.json")
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            assert len(operation.get("description", "")) > 10, path
            assert "security" not in operation, "this service has no token"
            if method == "post":
                examples = operation["requestBody"]["content"]["application/json"]["examples"]
                for example in examples.values():
                    assert judge.post(path, example["value"]), path


def test_the_front_page_lists_what_there_is_without_any_network(judge: Judge) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(judge.url + "/", timeout=10) as answer:
        assert answer.headers["content-type"].startswith("text/html")
        page = answer.read().decode()
    assert all(path in page for path in judge.get("/openapi.json")["paths"])
    assert "src=" not in page and "http://" not in page and "https://" not in page


def test_a_body_beyond_the_limit_is_413_declared_or_not(guarded: Judge) -> None:
    body = json.dumps({"solution": "#" * (2 << 20)}).encode()
    head = b"POST /run HTTP/1.1\r\nhost: h\r\n" + AUTHORIZED + b"\r\n" + JSON + b"\r\n"
    declared = head + b"content-length: %d\r\n\r\n" % len(body)
    assert _status(_raw(guarded, declared)) == 413
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:900_000], body[900_000:]))
    answer = _raw(guarded, head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert _status(answer) in (413, 0), "told, or cut off while still sending"
    short = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    assert (
        _status(_raw(guarded, head + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n" + short))
        == 200
    )


def _broken_requests(seed: int) -> Iterator[bytes]:
    """Requests as nobody should send them; half of them a good one with a few bytes changed."""
    rng = random.Random(seed)
    yield from (
        _post(b"[" * 100_000, JSON),
        _post(b'{"a":' * 50_000, JSON),
        _post(b'{"solution": NaN}', JSON),
        _post(b'{"solution": "a", "input": 1e999}', JSON),
        _post(b'{"solution": "a", "sub_id": "\\ud800", "options": {"\\udfff": "\\ud800"}}', JSON),
        _post(b'{"solution": "a", "options": {"timeout": "nan", "seed": "' + b"9" * 5000 + b'"}}', JSON),
        _post(b'{"solution": "a", "options": {"timeout": "-inf"}}', JSON),
        _post(b'{"solution": "a", "solution": ["b"]}', JSON),
        _post(b'{"submissions": []}', JSON, path=b"/run/batch"),
        _post(b'{"submissions": [null, 1, {}]}', JSON, path=b"/judge/long-batch"),
        _post(b"\xff\xfe\x00", JSON),
        _post(b"\xef\xbb\xbf" + BODY, JSON),
        _post(BODY, b"content-type: application/json; charset=utf-16"),
        _post(BODY, b"content-type: multipart/form-data; boundary=\xff"),
        _post(BODY, b"content-type: " + b"x" * 5000),
        _post(BODY),
        _post(b"", JSON),
        _post(BODY, JSON, b"content-encoding: gzip"),
        _post(BODY, JSON, path=b"/run/" + b"../" * 50 + b"etc/passwd"),
        _post(BODY, JSON, path=b"/run?" + b"a=%ff&" * 500),
        _post(BODY, JSON, path=b"/%00%ff%2e%2e"),
        b"BREW /run HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET /run HTTP/9.9\r\n\r\n",
        b"POST /run HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n",
        b"POST /run HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        b"POST /run HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n" + JSON + b"\r\n\r\n" + BODY,
        b"POST /run HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(3000)) + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    )
    for _ in range(60):
        request = bytearray(_post(BODY, JSON))
        for _ in range(rng.randint(1, 4)):
            request[rng.randrange(len(request))] = rng.randrange(256)
        yield bytes(request)


def test_no_broken_request_is_answered_by_5xx_or_does_harm(judge: Judge) -> None:
    found: dict[int, int] = {}
    for request in _broken_requests(seed=20260131):
        status = _status(_raw(judge, request, patience=0.25))
        assert status < 500, request[:300]
        found[status] = found.get(status, 0) + 1
    assert found.get(400, 0) and found.get(422, 0) and found.get(200, 0), found
    assert judge.prints("print(1)") == "1\n"


def test_a_refusal_does_not_send_the_input_back(judge: Judge) -> None:
    status, answer, _ = judge.request("POST", "/run", json.dumps({"solution": ["x" * 1000]}).encode())
    assert status == 422 and "xxx" not in json.dumps(answer)
    assert answer["detail"][0]["loc"] == ["body", "solution"]
