"""``gpt2lab completion``: a script that lets a shell complete subcommands, options and their values."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from gpt2lab.errors import UsageError

SHELLS = ("bash", "zsh", "fish")


@click.command(
    short_help="Print a script that completes gpt2lab's words with Tab.",
    epilog="""\b
    eval "$(gpt2lab completion bash)"          in ~/.bashrc
    eval "$(gpt2lab completion zsh)"           in ~/.zshrc, after compinit
    gpt2lab completion fish > ~/.config/fish/completions/gpt2lab.fish
    """,
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print a script for SHELL that completes subcommands, options and their values with Tab.

    The script asks gpt2lab itself at each Tab, so it stays valid when gpt2lab is updated.
    """
    found = get_completion_class(shell)
    assert found is not None
    try:
        source = found(ctx.find_root().command, {}, "gpt2lab", "_GPT2LAB_COMPLETE").source()
    except FileNotFoundError:  # click asks bash for its version
        raise UsageError("bash is not on the path, so its version is unknown: install bash 4.4 or newer") from None
    click.echo(source)
