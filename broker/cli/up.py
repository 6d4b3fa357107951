"""``broker up``: everything on this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import aiohttp
import click
import orjson
import uvloop
from aiohttp import web

from broker import log as logging
from broker.cli.approvals import Approvals
from broker.cli.demo import EXTENSION_DIGITS, POOLS, DemoApp, Identity, app_name, identity, seed
from broker.demo.target import ADDRESSES
from broker.embedded import Embedded, EmbeddedError, default_state_dir
from broker.embedded.process import started_at
from broker.settings import Settings, SettingsError, database_url, load
from broker.store.crypto import SealBroken, Vault, parse_data_keys, parse_index_key
from broker.store.database import Database, DatabaseAway
from broker.store.migrate import MigrationError, migrate
from broker.store.statements import statements

if TYPE_CHECKING:
    from broker.supervisor import Supervisor

_EMULATOR_START_S = 10
_LONGEST_ADVANCE_S = 366 * 86_400


class CannotStart(Exception):
    """One sentence for the user."""


@dataclass(frozen=True, slots=True)
class _Emulator:
    process: Process
    wire: str
    admin: str


def run(
    *,
    state_dir: str | None,
    port: int,
    workers: int,
    edge_workers: int | None,
    test_clock: bool,
    emulator: Sequence[str],
    as_json: bool,
) -> int:
    """Start the parts, say where they are, and serve until a signal. ``emulator``: its settings, as NAME=VALUE."""
    folder = Path(state_dir) if state_dir else default_state_dir()
    try:
        with ExitStack() as stack:
            dsn = database_url(os.environ)
            if dsn is None:
                # Started here, in the main thread: the server ends when this very thread's process does.
                embedded = Embedded(folder)
                server = embedded.start()
                stack.callback(embedded.stop)
                dsn = server.dsn
            else:
                folder.mkdir(parents=True, exist_ok=True)
            who = identity(folder)
            environment = _environment(dsn, who, port, workers, edge_workers)
            settings = load(environment)
            log_file = stack.enter_context((folder / "broker.log").open("ab"))
            # Standard output carries the ready line and nothing else.
            logging.configure("warning", log_file)
            uvloop.run(
                _up(settings, environment, folder, who, log_file, emulator, test_clock=test_clock, as_json=as_json)
            )
            # Whoever still signals means what is being done already: the database's last checkpoint.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
    except SettingsError as error:
        click.echo("\n".join(error.problems), err=True)
        return 2
    except (CannotStart, EmbeddedError, MigrationError, DatabaseAway, SealBroken) as error:
        click.echo(str(error), err=True)
        return 1
    except OSError as error:
        click.echo(f"{folder}: {error.strerror or error}", err=True)
        return 1
    return 0


def _environment(dsn: str, who: Identity, port: int, workers: int, edge_workers: int | None) -> dict[str, str]:
    """Return the workers' environment: the user's BROKER_* settings, with what `up` decides on top."""
    ours = {"BROKER_DATA_KEYS": who.data_keys, "BROKER_INDEX_KEY": who.index_key}
    given = {name: value for name, value in os.environ.items() if name != "BROKER_DATABASE_URL_FILE"}
    return {
        **{name: key for name, key in ours.items() if f"{name}_FILE" not in given},
        **given,
        "BROKER_DATABASE_URL": dsn,
        "BROKER_API_PORT": str(port),
        "BROKER_ADMIN_PORT": str(port + 1 if port else 0),
        "BROKER_EDGE_PORT": str(port + 2 if port else 0),
        "BROKER_WORKERS": str(workers),
        **({"BROKER_EDGE_WORKERS": str(edge_workers)} if edge_workers is not None else {}),
    }


async def _up(
    settings: Settings,
    environment: Mapping[str, str],
    folder: Path,
    who: Identity,
    log_file: BinaryIO,
    emulator_settings: Sequence[str],
    *,
    test_clock: bool,
    as_json: bool,
) -> None:
    db = Database(
        settings.database_url,
        connections=2,
        timeout_s=settings.db_timeout_s,
        statement_cache=settings.db_statement_cache,
    )
    # One process loads while the other one does; a child whose parent gives up ends with it.
    starting = asyncio.create_task(_start_emulator(folder / "emulator", log_file, emulator_settings))
    await asyncio.sleep(0)  # from here on it runs
    from broker.supervisor import CannotServe, Supervisor

    emulator, _ = await asyncio.gather(starting, _open(db, settings))
    approvals = Approvals(db, wire=emulator.wire, admin=emulator.admin)
    try:
        vault = Vault(parse_data_keys(settings.data_keys), parse_index_key(settings.index_key))
        await asyncio.gather(_tell_emulator(emulator, who), seed(db, vault, who, emulator.wire))
        await approvals.start()
        await db.fetch(statements("testclock")["install" if test_clock else "remove"])
        supervisor = Supervisor(
            settings,
            environment,
            worker_log=log_file,
            admin_routes=(lambda app: _add_test_clock(app, db, emulator)) if test_clock else None,
        )
        try:
            ready = await supervisor.start()
        except CannotServe as error:
            raise CannotStart(str(error)) from None
        if ready:
            await _point_pushes(emulator, who, supervisor.edge_url)
            told = _ready_line(supervisor, settings, emulator, who)
            _leave_addresses(told, folder)
            _announce(told, folder, as_json=as_json)
        await supervisor.run_until_signal()
    finally:
        (folder / ADDRESSES).unlink(missing_ok=True)
        await approvals.stop()
        if emulator.process.returncode is None:
            emulator.process.send_signal(signal.SIGTERM)
            await emulator.process.wait()
        await db.close()


async def _open(db: Database, settings: Settings) -> None:
    await migrate(settings.database_url)
    await db.open()


async def _start_emulator(folder: Path, log_file: BinaryIO, settings: Sequence[str]) -> _Emulator:
    given = [word for setting in settings for word in ("--set", setting)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "broker.cli.child", str(os.getpid()), "--state-dir", str(folder), "--rate", "0", "--json",
        *given, stdout=PIPE, stderr=log_file,
        start_new_session=True,  # a signal to the group is ours: the workers drain first
    )  # fmt: skip
    assert process.stdout is not None  # noqa: S101 - asked for with PIPE
    try:
        line = await asyncio.wait_for(process.stdout.readline(), _EMULATOR_START_S)
        told = orjson.loads(line)
    except (TimeoutError, orjson.JSONDecodeError):
        raise CannotStart(f"The platform emulator did not start; {folder.parent / 'broker.log'} says why.") from None
    return _Emulator(process, told["emulator"], told["emulator_admin"])


async def _tell_emulator(emulator: _Emulator, who: Identity) -> None:
    async with aiohttp.ClientSession(raise_for_status=True, timeout=aiohttp.ClientTimeout(total=10)) as http:
        for mode, app in who.apps.items():
            url = f"{emulator.admin}/emulator/apps/{app.app_key}"
            await http.put(url, json=_terms(mode, app))
            rented = [{"number": x, "area_code": pool.area_code} for pool in POOLS[mode] for x in pool.numbers()]
            await http.put(f"{url}/numbers", json=rented)


async def _point_pushes(emulator: _Emulator, who: Identity, edge: str) -> None:
    """Have the emulator tell us of the demonstration apps' calls, messages and numbers, and ask where it is to."""
    async with aiohttp.ClientSession(raise_for_status=True, timeout=aiohttp.ClientTimeout(total=10)) as http:
        for mode, app in who.apps.items():
            here = f"{edge}/n/{app_name(mode)}"
            told = {
                **_terms(mode, app),
                "events_url": f"{here}/events",
                "cdr_url": f"{here}/cdr",
                "sms_url": f"{here}/sms",
                "sms_control_url": f"{here}/sms-control",
                "status_url": f"{here}/number-status",
            }
            await http.put(f"{emulator.admin}/emulator/apps/{app.app_key}", json=told)


def _terms(mode: str, app: DemoApp) -> dict[str, Any]:
    digits = {"extension_digits": EXTENSION_DIGITS} if mode == "axe" else {}
    return {"secret": app.app_secret, "mode": mode, "rate": 0, "burst": None, **digits}


def _add_test_clock(app: web.Application, db: Database, emulator: _Emulator) -> None:
    async def advance(request: web.Request) -> web.Response:
        try:
            seconds = orjson.loads(await request.read())["advance_s"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            seconds = None
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= _LONGEST_ADVANCE_S:
            return _json(422, {"detail": f"advance_s must be a number from 0 to {_LONGEST_ADVANCE_S}"})
        row = await db.fetchrow(statements("testclock")["advance"], float(seconds))
        if seconds:  # the emulator takes no 0
            async with aiohttp.ClientSession(raise_for_status=True, timeout=aiohttp.ClientTimeout(total=10)) as http:
                await http.post(f"{emulator.admin}/emulator/clock", json={"advance_s": seconds})
        return _json(200, {"ahead_s": row["ahead_s"] if row else 0})

    app.router.add_post("/test/clock", advance)


def _json(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")


def _ready_line(supervisor: Supervisor, settings: Settings, emulator: _Emulator, who: Identity) -> dict[str, Any]:
    return {
        "api": supervisor.api_url,
        "admin": supervisor.admin_url,
        "edge": supervisor.edge_url,
        "console": None,
        "emulator": emulator.wire,
        "emulator_admin": emulator.admin,
        "api_key": who.apps["axb"].api_key,
        "apps": [{"name": app_name(mode), "mode": mode, **asdict(app)} for mode, app in who.apps.items()],
        "database": settings.database_url,
        "pids": supervisor.pids,
    }


def _leave_addresses(ready: Mapping[str, Any], folder: Path) -> None:
    """Say where the parts are to commands beside us; without secrets."""
    addresses = {name: ready[name] for name in ("api", "admin", "edge", "emulator", "emulator_admin")}
    draft = folder / f"{ADDRESSES}.new"
    draft.write_bytes(orjson.dumps({"pid": os.getpid(), "started": started_at(os.getpid()), **addresses}))
    draft.replace(folder / ADDRESSES)


def _announce(ready: Mapping[str, Any], folder: Path, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(ready) + b"\n")
        sys.stdout.buffer.flush()
        return
    api, key = ready["api"], ready["api_key"]
    keys = "\n".join(f"  {app['name']:<10} {app['api_key']}" for app in ready["apps"])
    click.echo(
        f"""Ready.
  API        {api}
  admin      {ready["admin"]}
  edge       {ready["edge"]}
  emulator   {ready["emulator"]}  (admin {ready["emulator_admin"]})
  state      {folder}  (log: broker.log)

API keys, an app of each mode of the platform:
{keys}

Bind an order's two phones to an X number:
  curl -s {api}/v1/bindings -H 'Authorization: Bearer {key}' \\
    -d '{{"a":"+8613900000001","b":"+8613900000002","area_code":"0755","order_id":"order-1"}}'

Place a call on the emulator from A to the x of the answer:
  curl -s {ready["emulator_admin"]}/emulator/calls -d '{{"from":"+8613900000001","to":"X"}}'

Release it (id of the answer):
  curl -s -X DELETE {api}/v1/bindings/ID -H 'Authorization: Bearer {key}'

Stop with Ctrl-C."""
    )
