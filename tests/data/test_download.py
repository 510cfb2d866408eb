"""The download script against a server that breaks off, lies, or is not there."""

import hashlib
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTENT = b"PAR1" + bytes(range(256)) * 4000 + b"PAR1"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PATH = "/datasets/Gen-Verse/Open-AgentRL-Eval/resolve/main/aime2024/aime_2024_problems.parquet"


@dataclass
class Hub:
    """A hub that redirects to its storage.

    Attributes:
        breaks: how many answers break off after `portion` bytes.
        digest: what it says of the file; None: nothing.
        ranges: whether it can go on with a file.
    """

    url: str = ""
    breaks: int = 0
    portion: int = 300_000
    digest: str | None = DIGEST
    content: bytes = CONTENT
    ranges: bool = True
    requests: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)


@pytest.fixture
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            asked = self.headers.get("Range")
            state.requests.append((self.command, self.path, asked, self.headers.get("Authorization")))
            if self.path.startswith("/datasets/"):
                self.send_response(302 if self.path == PATH else 404)
                self.send_header("Location", "/storage")
                if state.digest:
                    self.send_header("X-Linked-ETag", f'"{state.digest}"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.ranges else 0
            if start >= len(state.content):
                self.send_error(416)
                return
            rest = state.content[start:]
            self.send_response(206 if start else 200)
            if start:
                end = len(state.content)
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            if state.breaks > 0:
                state.breaks -= 1
                rest = rest[: state.portion]
            self.wfile.write(rest)
            self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def download(folder: Path, *names: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("HF_") and "proxy" not in key.lower()
    }
    given = {"DATA_DIR": str(folder), "RETRY_SECONDS": "0", **environment}
    command = ["bash", str(ROOT / "dataset" / "download.sh"), *names]
    return subprocess.run(command, env={**kept, **given}, capture_output=True, text=True, timeout=60)


def test_a_transfer_that_breaks_off_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    hub.breaks = 2
    result = download(tmp_path, "aime2024", HF_ENDPOINT=hub.url)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "aime2024.parquet").read_bytes() == CONTENT
    ranges = [asked for method, path, asked, _ in hub.requests if method == "GET" and path == "/storage"]
    assert ranges[1:] == ["bytes=300000-", "bytes=600000-"]
    assert "broke off at 300000 bytes" in result.stderr
    assert "SHA-256 as the hub says" in result.stdout
    assert (tmp_path / "SHA256SUMS").read_text() == f"{DIGEST}  aime2024.parquet\n"
    assert not list(tmp_path.glob("*.part"))


def test_a_script_that_gave_up_goes_on_when_it_is_started_again(hub: Hub, tmp_path: Path) -> None:
    hub.breaks, hub.portion = 3, 0
    (tmp_path / "aime2024.parquet.part").write_bytes(CONTENT[:1000])
    result = download(tmp_path, "aime2024", HF_ENDPOINT=hub.url, TRIES="3")
    assert result.returncode == 1
    assert "1000 bytes are there, the next start goes on with them" in result.stderr
    assert not (tmp_path / "aime2024.parquet").exists()
    assert download(tmp_path, "aime2024", HF_ENDPOINT=hub.url).returncode == 0
    assert (tmp_path / "aime2024.parquet").read_bytes() == CONTENT
    assert hub.requests[-1][2] == "bytes=1000-"


def test_a_whole_file_that_was_not_renamed_yet_is_taken(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "aime2024.parquet.part").write_bytes(CONTENT)
    result = download(tmp_path, "aime2024", HF_ENDPOINT=hub.url)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "aime2024.parquet").read_bytes() == CONTENT


def test_a_server_that_cannot_go_on_sends_everything_again(hub: Hub, tmp_path: Path) -> None:
    hub.breaks, hub.ranges = 1, False
    result = download(tmp_path, "aime2024", HF_ENDPOINT=hub.url)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "aime2024.parquet").read_bytes() == CONTENT


def test_a_beginning_of_another_file_is_thrown_away(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "aime2024.parquet.part").write_bytes(b"x" * 5000)
    result = download(tmp_path, "aime2024", HF_ENDPOINT=hub.url)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "aime2024.parquet").read_bytes() == CONTENT
    assert "fetching all of it anew" in result.stderr


def test_a_file_that_is_not_what_the_hub_says_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.digest = "0" * 64
    result = download(tmp_path, "aime2024", HF_ENDPOINT=hub.url)
    assert result.returncode == 1
    assert DIGEST in result.stderr and hub.digest in result.stderr
    assert not list(tmp_path.glob("aime2024*"))


def test_a_file_that_is_there_is_checked_and_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    assert download(tmp_path, "aime2024", HF_ENDPOINT=hub.url).returncode == 0
    hub.requests.clear()
    result = download(tmp_path, "aime2024.parquet", HF_ENDPOINT=hub.url)
    assert result.returncode == 0 and "as recorded" in result.stdout
    assert hub.requests == []
    (tmp_path / "aime2024.parquet").write_bytes(CONTENT[:-1])
    result = download(tmp_path, "aime2024", HF_ENDPOINT=hub.url)
    assert result.returncode == 1 and "is not what was downloaded" in result.stderr


def test_a_file_that_changed_on_the_hub_is_not_taken_unasked(hub: Hub, tmp_path: Path) -> None:
    hub.digest = None
    (tmp_path / "SHA256SUMS").write_text(f"{'1' * 64}  aime2024.parquet\n")
    result = download(tmp_path, "aime2024", HF_ENDPOINT=hub.url)
    assert result.returncode == 1
    assert "has changed" in result.stderr and not (tmp_path / "aime2024.parquet").exists()


def test_a_page_instead_of_a_file_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.digest, hub.content = None, b"<html>please log in</html>"
    result = download(tmp_path, "aime2024", HF_ENDPOINT=hub.url)
    assert result.returncode == 1 and "is no parquet file" in result.stderr


def test_the_token_is_sent_and_stands_in_no_output(hub: Hub, tmp_path: Path) -> None:
    result = download(tmp_path, "aime2024", HF_ENDPOINT=hub.url, HF_TOKEN="secret-1")
    assert result.returncode == 0, result.stderr
    assert hub.requests[0][3] == "Bearer secret-1"
    assert "secret-1" not in result.stdout + result.stderr


def test_without_a_network_it_says_what_to_do(tmp_path: Path) -> None:
    result = download(tmp_path, "aime2024", HF_ENDPOINT="http://127.0.0.1:9")
    assert result.returncode == 1
    for way_out in ("HF_ENDPOINT", "https_proxy", "copy them into"):
        assert way_out in result.stderr
    result = download(tmp_path, "aime2024", HF_HUB_OFFLINE="1")
    assert result.returncode == 1 and "HF_HUB_OFFLINE is set" in result.stderr


def test_a_revision_that_does_not_exist_is_told(hub: Hub, tmp_path: Path) -> None:
    result = download(tmp_path, "aime2024", HF_ENDPOINT=hub.url, REVISION="v9")
    assert result.returncode == 1 and "REVISION=v9" in result.stderr and "status 404" in result.stderr


def test_a_dry_run_names_files_and_addresses_and_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    result = download(folder, DRY_RUN="1", HF_ENDPOINT="https://mirror.example/")
    assert result.returncode == 0 and not folder.exists()
    assert f"from https://mirror.example{PATH}" in result.stdout


def test_every_file_that_a_recipe_reads_can_be_downloaded_or_made(tmp_path: Path) -> None:
    texts = [path.read_text() for path in (ROOT / "recipe" / "cleaner").rglob("*.sh")]
    wanted = {name for text in texts for name in re.findall(r"\$ROOT/dataset/([\w.-]+?)\.parquet", text)}
    listed = download(tmp_path, DRY_RUN="1").stdout
    offered = set(re.findall(r"fetch \S+/([\w.-]+)\.parquet", listed))
    assert wanted - {"filtered_sr"} == offered


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [(["aime2026"], {}, "there are: Open-AgentRL-30K"), (["--fast"], {}, "--fast is unknown"),
     ([], {"TRIES": "0"}, "TRIES=0"), ([], {"DRY_RUN": "yes"}, "DRY_RUN=yes")],
)  # fmt: skip
def test_wrong_usage_is_explained(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], message: str
) -> None:
    result = download(tmp_path, *arguments, **environment)
    assert result.returncode == 2 and message in result.stderr
    assert "usage: " in download(tmp_path, "--help").stdout
