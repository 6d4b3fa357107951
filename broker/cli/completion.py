"""``broker completion``: what a shell needs to complete our commands."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    r"""Print a script that lets SHELL complete commands, options and their values.

    \b
    Examples:
      broker completion bash > /etc/bash_completion.d/broker
      broker completion zsh > "${fpath[1]}/_broker"
      broker completion fish > ~/.config/fish/completions/broker.fish
    """
    from click.shell_completion import get_completion_class

    root = click.get_current_context().find_root()
    kind = get_completion_class(shell)
    if kind is None:  # pragma: no cover - all of the choices are built in
        raise click.UsageError(f"{shell} is not known.")
    made = kind(root.command, {}, "broker", "_BROKER_COMPLETE")
    # Not made.source(): that runs a bash of this machine to ask for its version, and the script may be for another one.
    click.echo(made.source_template % made.source_vars())
