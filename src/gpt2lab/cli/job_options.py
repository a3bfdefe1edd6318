"""The options of ``gpt2lab generate --prompts … --out …``, and those of a Ray cluster."""

from __future__ import annotations

from typing import NamedTuple

from gpt2lab.cli.options import Decorated, Integer, option
from gpt2lab.errors import UsageError


def ray_options(function: Decorated) -> Decorated:
    """Add ``--ray --ray_address --workers``."""
    group = "Cluster"
    options = (
        option(group, "--ray", is_flag=True, help="Run on a Ray cluster, or on Ray workers on this machine."),
        option(
            group,
            "--ray_address",
            metavar="HOST:PORT",
            help="Address of the cluster; auto uses the one that this machine belongs to.  [default: $RAY_ADDRESS, or "
            "a temporary cluster on this machine's cores]",
        ),
        option(
            group,
            "--workers",
            type=Integer(1),
            metavar="N",
            help="Number of workers.  [default: as many as the CPUs of the cluster allow]",
        ),
    )
    for add in reversed(options):
        function = add(function)
    return function


def job_options(function: Decorated) -> Decorated:
    """Add the options for writing many prompts' samples into one file."""
    group = "Many prompts into a file"
    size = option(
        group,
        "--part_size",
        type=Integer(1),
        default=64,
        metavar="N",
        help="Prompts per part. A worker takes, and saves, one part at a time.",
    )
    overwrite = option(
        group,
        "--overwrite",
        is_flag=True,
        help="Replace the --out file if it exists, and discard parts of a run with other settings.",
    )
    return size(overwrite(ray_options(function)))


class JobOptions(NamedTuple):
    """The values of :func:`job_options`."""

    part_size: int
    overwrite: bool
    ray: bool
    ray_address: str | None
    workers: int | None

    def check(self, *, wanted: bool) -> None:
        """Raise :class:`UsageError` for options without effect; ``wanted`` says whether there is a job."""
        check_ray(self.ray, self.ray_address, self.workers)
        given = "ray" if self.ray else "overwrite" if self.overwrite else None
        if given and not wanted:
            raise UsageError(f"--{given} needs --prompts and --out")


def check_ray(ray: bool, address: str | None, workers: int | None) -> None:
    """Raise :class:`UsageError` for cluster options without ``--ray``."""
    given = "workers" if workers else "ray_address" if address else None
    if given and not ray:
        raise UsageError(f"--{given} needs --ray")
