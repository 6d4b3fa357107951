"""``broker completion``: the scripts, and that a real bash proposes what they say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_commands import run
from tests.contract.service import environment

BASH = shutil.which("bash")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str) -> None:
    """It names our command and asks it for proposals; the shell itself, where there is one, can read it."""
    ended = run("completion", shell)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"{shell}_complete" in ended.stdout
    program = shutil.which(shell)
    if program is not None:
        read = subprocess.run([program, "-n"], input=ended.stdout, capture_output=True, text=True, check=False)
        assert (read.returncode, read.stderr) == (0, "")


@pytest.mark.skipif(BASH is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "proposed"),
    [
        (["broker", ""], {"up", "serve", "demo", "bindings", "completion"}),
        (["broker", "bindings", "re"], {"release"}),
        (["broker", "bindings", "list", "--st"], {"--state", "--state-dir"}),
        (["broker", "bindings", "list", "--state", "rel"], {"releasing", "released"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bash_proposes(words: list[str], proposed: set[str], tmp_path: Path) -> None:
    """Sub-commands, options, and the values of an option."""
    script = tmp_path / "broker.bash"
    script.write_text(run("completion", "bash").stdout, encoding="utf-8")
    quoted = " ".join(f"'{word}'" for word in words)
    ask = (
        f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; "
        f'_broker_completion broker; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ended = subprocess.run(
        [str(BASH), "-c", ask], env=environment(PATH=path), capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    found = set(ended.stdout.split())
    assert proposed <= found
    if words[-1]:
        assert found == proposed


def test_an_unknown_shell_is_wrong_usage() -> None:
    """Exit code 2, and what there is."""
    ended = run("completion", "tcsh")
    assert ended.returncode == 2
    assert "fish" in ended.stderr
