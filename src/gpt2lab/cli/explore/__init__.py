"""``gpt2lab explore``: what temperature does, what comes next and why, and what happens inside."""

from __future__ import annotations

import click

from gpt2lab.cli.explore import attend, compare, next, patch, score, sweep, tokens


@click.group(invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Look inside: what temperature does, what comes next, attention, and how models differ."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for module in (sweep, next, score, compare, tokens, attend, patch):
    command.add_command(module.command, module.__name__.rpartition(".")[2])
