"""``gpt2lab explore``: what temperature does, what comes next and why, and what happens inside."""

from __future__ import annotations

import click

from gpt2lab.cli.explore import attend, compare, next, score, sweep, tokens


@click.group()
def command() -> None:
    """Look inside: what temperature does, what comes next, attention, and how models differ."""


for module in (sweep, next, score, compare, tokens, attend):
    command.add_command(module.command, module.__name__.rpartition(".")[2])
