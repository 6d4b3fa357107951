"""``/docs``: served from this package, with nothing from anywhere else."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import orjson
import pytest

from broker.api import docs
from broker.api.operations import OPEN
from broker.api.routes import ROUTES
from tests.contract.service import Client, Service

_STATIC = Path(docs.__file__).parent / "static"
_VENDORED = _STATIC / "swagger-ui"
_CHROMIUM = shutil.which("chromium")


def test_vendored_files_are_those_of_the_manifest() -> None:
    """Every vendored file is in the manifest with size and sha256, the licence among them; no other is there."""
    manifest = orjson.loads((_VENDORED / "manifest.json").read_bytes())
    assert (manifest["name"], manifest["licence"]) == ("swagger-ui-dist", "Apache-2.0")
    assert re.fullmatch(r"\d+\.\d+\.\d+", manifest["version"])
    there: dict[str, dict[str, int | str]] = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in _VENDORED.iterdir()
        if path.name != "manifest.json"
    }
    assert there == manifest["files"]
    assert manifest["licence_file"] in there
    assert b"Apache License" in (_VENDORED / manifest["licence_file"]).read_bytes()
    assert sum(path.stat().st_size for path in _VENDORED.iterdir()) < 2_000_000


@pytest.mark.parametrize("path", ["/docs", *(f"/docs/{name}" for name in docs.ASSETS)])
async def test_page_and_assets_are_served(client: Client, path: str) -> None:
    """Each answers without a key, with a policy that allows this origin only, and 304 to who has it."""
    answer = await client.ask("GET", path, key=None)
    assert answer.status == 200
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {source for sources in policy.values() for source in sources.split()} == {"'none'", "'self'", "data:"}
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    kind = answer.headers["Content-Type"]
    named = {".js": "text/javascript", ".css": "text/css", "": "text/html"}
    assert kind == named[Path(path).suffix] + "; charset=utf-8"
    again = await client.ask("GET", path, key=None, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status, again.raw) == (304, b"")


async def test_assets_are_sent_packed(client: Client) -> None:
    """The script, 1.7 MB, travels as 0.5 MB to who takes gzip and as it is to who does not."""
    packed = await client.ask("GET", "/docs/swagger-ui-bundle.js", key=None, headers={"Accept-Encoding": "gzip"})
    plain = await client.ask("GET", "/docs/swagger-ui-bundle.js", key=None, headers={"Accept-Encoding": "identity"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) < 500_000
    assert "Content-Encoding" not in plain.headers
    raw = (_VENDORED / "swagger-ui-bundle.js").read_bytes()
    assert plain.raw == raw
    assert packed.raw == raw  # the client has unpacked it


@pytest.mark.parametrize(
    "name", ["manifest.json", "LICENSE", "..%2fdocs.html", "swagger-ui%2fLICENSE", "x", "docs.html"]
)
async def test_nothing_else_is_served(client: Client, name: str) -> None:
    """What is no asset of the page is 404, whatever the package holds and however it is spelt."""
    (await client.ask("GET", f"/docs/{name}", key=None)).problem(404, "not_found")


async def test_nothing_is_loaded_from_elsewhere(client: Client) -> None:
    """Page, start script and style name no address that a browser would fetch, and no script stands in the page."""
    page = (await client.ask("GET", "/docs", key=None)).raw.decode()
    loaded = re.findall(r"(?:src|href)=[\"']([^\"']*)", page)
    assert {address for address in loaded if not address.startswith("data:")} == {
        "/openapi.json",
        *(f"/docs/{name}" for name in docs.ASSETS),
    }
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", page)
    start = (await client.ask("GET", "/docs/docs.js", key=None)).raw.decode()
    assert "://" not in start
    assert "validatorUrl: null" in start
    style = (await client.ask("GET", "/docs/swagger-ui.css", key=None)).raw.decode()
    assert "@import" not in style
    assert all(target.strip("\"' ").startswith("data:") for target in re.findall(r"url\(([^)]{0,20})", style))


@pytest.mark.skipif(_CHROMIUM is None, reason="chromium is not installed; the page is tested without a browser too")
def test_a_browser_shows_the_operations(service: Service, tmp_path: Path) -> None:
    """In a browser the page lists every operation; the console is empty, and would show what the policy forbids."""
    assert _CHROMIUM is not None
    shown = subprocess.run(
        [
            _CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--v=0",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=20000", "--dump-dom", f"{service.api}/docs",
        ],
        capture_output=True, timeout=120, check=True, text=True,
    )  # fmt: skip
    console = [line for line in shown.stderr.splitlines() if ":CONSOLE" in line]
    assert console == []
    operations = re.findall(r'id="operations-(?!tag-)[a-z]+-([A-Za-z]+)"', shown.stdout)
    assert set(operations) == {route.operation.id for route in ROUTES if route.operation} | {
        operation.id for operation in OPEN.values()
    }
