"""``broker tones``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import click

from broker.cli.desk import confirm, tell, the_app, with_app, with_json, with_state_dir, with_yes, work

_LIST = ("name", "state", "state_reason", "state_since", "duration_ms", "size_bytes")
_STANDARD = "-"


@click.group()
def tones() -> None:
    r"""Tones: voice files that a bind may name.

    The platform has no interface for them: a file is uploaded and approved in its console. `add` checks what the
    platform demands; upload what `export` writes, and note with `submit`, `approve` and `reject` what became of it.
    Binds may name approved ones only.

    \b
    Examples:
      broker tones add greeting.wav --convert --app food
      broker tones export greeting.wav upload/greeting.wav --app food
      broker tones submit greeting.wav --app food
      broker tones approve greeting.wav --app food
    """


@tones.command("list")
@click.option("--state", help="Only in this state: draft, submitted, approved or rejected.")
@with_app
@with_state_dir
@with_json
def list_tones(state: str | None, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """List the tones of an app."""
    from broker.flows.operate import tones as flow
    from broker.flows.operate.fields import ToneFilter, read

    async def job(desk: Any) -> Any:
        return await flow.every(desk, await the_app(desk, app), read(ToneFilter, {"state": state}))

    tell(work(state_dir, job), as_json=as_json, columns=_LIST)


@tones.command()
@click.argument("name")
@with_app
@with_state_dir
@with_json
def show(name: str, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Show one tone."""
    from broker.flows.operate import tones as flow

    async def job(desk: Any) -> Any:
        return await flow.show(desk, await the_app(desk, app), name)

    tell(work(state_dir, job), as_json=as_json)


@tones.command()
@click.argument("file", type=click.File("rb"))
@click.option("--name", help="Name at the platform; otherwise the file's own.")
@click.option("--convert", is_flag=True, help="Make A-law, 8 kHz, mono of PCM (8 or 16 bits), mu-law or A-law.")
@with_app
@with_state_dir
@with_json
def add(file: BinaryIO, name: str | None, convert: bool, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Check a wav file and take it in as a draft. Other content under a known name makes that a draft again."""
    from broker.domain.tone import MOST_SOURCE_BYTES
    from broker.flows.operate import tones as flow
    from broker.flows.operate.fields import NewTone, read

    if name is None and file.name == "<stdin>":
        raise click.UsageError("A file from standard input needs --name.")
    content = file.read(MOST_SOURCE_BYTES + 1)
    if len(content) > MOST_SOURCE_BYTES:
        click.echo(f"The file has more than {MOST_SOURCE_BYTES:,} bytes.", err=True)
        sys.exit(1)

    async def job(desk: Any) -> Any:
        new = read(NewTone, {"name": Path(file.name).name if name is None else name, "convert": convert})
        return await flow.add(desk, await the_app(desk, app), new, content)

    tell(work(state_dir, job), as_json=as_json)


@tones.command()
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False))
@with_app
@with_state_dir
def export(name: str, file: str, app: str | None, state_dir: str | None) -> None:
    """Write the file that is to be uploaded; - = standard output. A file that is there already is left alone."""
    from broker.flows.operate import tones as flow

    async def job(desk: Any) -> Any:
        return await flow.export(desk, await the_app(desk, app), name)

    content: bytes = work(state_dir, job)
    if file == _STANDARD:
        sys.stdout.buffer.write(content)
        return
    try:
        with Path(file).open("xb") as target:
            target.write(content)
    except OSError as error:
        click.echo(f"{file}: {error.strerror}", err=True)
        sys.exit(1)


@tones.command()
@click.argument("name")
@click.option("--reason", required=True, help="What the platform's reviewers said.")
@with_app
@with_state_dir
@with_json
def reject(name: str, reason: str, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Note that the platform did not approve the file. It can be added again."""
    from broker.flows.operate import tones as flow
    from broker.flows.operate.fields import Rejection, read

    async def job(desk: Any) -> Any:
        return await flow.reject(desk, await the_app(desk, app), name, read(Rejection, {"reason": reason}).reason)

    tell(work(state_dir, job), as_json=as_json)


@tones.command()
@click.argument("name")
@with_yes
@with_app
@with_state_dir
@with_json
def remove(name: str, yes: bool, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Forget a tone and its file. Bindings that have it keep it."""
    from broker.flows.operate import tones as flow

    confirm(f"Forget {name} and its file?", yes=yes)

    async def job(desk: Any) -> Any:
        return await flow.remove(desk, await the_app(desk, app), name)

    tell(work(state_dir, job), as_json=as_json)


def _mover(name: str, words: str) -> None:
    """Add a command that notes a step of the review."""

    def move(name_of_tone: str, app: str | None, state_dir: str | None, as_json: bool) -> None:
        from broker.flows.operate import tones as flow

        flows: dict[str, Callable[..., Any]] = {"submit": flow.submit, "approve": flow.approve}

        async def job(desk: Any) -> Any:
            return await flows[name](desk, await the_app(desk, app), name_of_tone)

        tell(work(state_dir, job), as_json=as_json)

    command = click.argument("name_of_tone", metavar="NAME")(with_app(with_state_dir(with_json(move))))
    tones.command(name, help=words)(command)


_mover("submit", "Note that the file was uploaded in the platform's console.")
_mover("approve", "Note that the platform approved the file: binds may name it within about a second.")
