"""Ray Data as this package uses it: rows go in, workers turn each into more rows, rows come out.

Ray Data assigns rows to workers, and gives the rows of a dead worker to another. Our workers' errors travel as rows,
because Ray turns exceptions into pages of text. Only this module imports ray, and only when it is used.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from gpt2lab.errors import Gpt2LabError, UsageError, first_line
from gpt2lab.system.cores import logical_cores

ADDRESS_VARIABLE = "RAY_ADDRESS"
LOCAL_STORE = 512 << 20
"""Bytes of the object store of a cluster started for one job."""
BLOCK = 4 << 20
"""Bytes of rows sent together."""
CONNECT_SECONDS = 5

ERROR = "error"
"""The kind of row that ends a job; its data is the error message."""


class Row(NamedTuple):
    """A message: a number that its sender chose, its kind, and data."""

    number: int
    kind: str
    data: bytes


Worker = Callable[[int, bytes], Iterable[tuple[int, str, bytes]]]
"""A function that turns one row into any number of rows."""


@dataclass(frozen=True)
class Stage:
    """A step that is applied to each row.

    Attributes:
        make: is called with ``arguments`` in each worker; its result is called with each row of kind ``""``. Rows of
            other kinds pass unchanged.
        cpus: the number of the cluster's CPUs that each worker takes.
        workers: the number of workers; None: as many as the cluster has CPUs for, or one if they run ``here``.
        here: whether the workers run only on this machine, without reserving its CPUs.
    """

    make: Callable[..., Worker]
    arguments: Mapping[str, Any]
    cpus: int = 1
    workers: int | None = None
    here: bool = False


@contextmanager
def connected(address: str | None = None) -> Iterator[Any]:
    """Yield the package ray, connected to the cluster at ``address`` or, without one, in ``$RAY_ADDRESS``.

    Without either, a cluster of this machine's cores is started, which no other machine can reach, and stopped at the
    end. Raises :class:`~gpt2lab.errors.UsageError` if ray is not installed or there is no cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray would send usage statistics to its makers
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError(f"--ray needs {error.name}: pip install 'gpt2lab[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get(ADDRESS_VARIABLE) or None
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM,)}
    try:
        if address and address != "local":
            _check_reachable(address)
            _start_quietly(partial(ray.init, address=address, **quiet))
        else:
            own = {"num_cpus": logical_cores(), "object_store_memory": LOCAL_STORE, "_node_ip_address": "127.0.0.1"}
            _start_quietly(partial(ray.init, address="local", include_dashboard=False, **own, **quiet))
    except UsageError:
        raise
    except Exception as error:  # Ray raises Exception itself if a machine is too busy to start in time
        what = f"there is no Ray cluster at {address}" if address else "Ray cannot be started here"
        raise UsageError(f"{what} ({first_line(error)})") from None
    finally:
        with suppress(ValueError):  # in another thread they cannot be set, and Ray has not set them
            for number, handler in handlers.items():
                signal.signal(number, handler)
    try:
        yield ray
    finally:
        ray.shutdown()


def rows(ray: Any, given: Sequence[Row], stages: Sequence[Stage], *, in_order: bool = False) -> Iterator[Row]:
    """Yield the rows that ``stages`` make from the rows ``given``, as they arrive, or ``in_order``.

    Raises a worker's error as a :class:`~gpt2lab.errors.UsageError`, and another one if Ray gives up.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = in_order
    context.target_max_block_size = BLOCK
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    dataset = ray.data.from_arrow([_table([row]) for row in given])
    for stage in stages:
        dataset = dataset.map_batches(
            _Actor,
            batch_size=1,
            batch_format="pyarrow",
            fn_constructor_kwargs={"make": stage.make, "arguments": dict(stage.arguments)},
            **_resources(ray, stage, len(given)),
        )
    try:
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in _rows_of(table):
                if row.kind == ERROR:
                    raise UsageError(row.data.decode())
                yield row
    except ray.exceptions.RayError as error:
        missing = error.__cause__ if isinstance(error.__cause__, ImportError) else getattr(error, "cause", None)
        if isinstance(missing, ImportError):
            raise UsageError(f"a worker lacks {missing.name}: install the same packages on all machines") from None
        raise UsageError(f"Ray gave up on the job: {type(error).__name__}: {_last_line(error)}") from error


def _resources(ray: Any, stage: Stage, n_rows: int) -> dict[str, Any]:
    """Return Ray's arguments for the number of workers, their place and their CPUs."""
    place: dict[str, Any] = {"num_cpus": stage.cpus}
    count = stage.workers
    if stage.here:
        place = {"num_cpus": 0, "resources": {f"node:{ray.util.get_node_ip_address()}": 1e-4}}
    elif count is None:
        cpus = int(ray.cluster_resources().get("CPU", 0))
        if cpus < stage.cpus:
            raise UsageError(f"a worker needs {stage.cpus} CPUs, but the cluster has {cpus}: use fewer --threads")
        count = cpus // stage.cpus
    return {"compute": ray.data.ActorPoolStrategy(size=max(1, min(count or 1, n_rows))), **place}


class _Actor:
    """A worker in a process of the cluster."""

    def __init__(self, make: Callable[..., Worker], arguments: Mapping[str, Any]) -> None:
        self._complaint = ""
        try:
            self._work = make(**arguments)
        except Gpt2LabError as error:
            self._complaint = str(error)

    def __call__(self, table: Any) -> Iterator[Any]:
        for row in _rows_of(table):
            try:
                if self._complaint:
                    yield _table([Row(row.number, ERROR, self._complaint.encode())])
                elif row.kind:
                    yield _table([row])
                else:
                    for made in self._work(row.number, row.data):
                        yield _table([Row(*made)])
            except Gpt2LabError as error:
                yield _table([Row(row.number, ERROR, str(error).encode())])


def _table(of: Sequence[Row]) -> Any:
    import pyarrow as pa

    columns = {
        "number": pa.array([row.number for row in of], pa.int64()),
        "kind": pa.array([row.kind for row in of], pa.string()),
        "data": pa.array([row.data for row in of], pa.large_binary()),
    }
    return pa.table(columns)


def _rows_of(table: Any) -> Iterator[Row]:
    columns = (table.column(name).to_pylist() for name in ("number", "kind", "data"))
    return (Row(*row) for row in zip(*columns, strict=True))


def _start_quietly(init: Callable[[], Any]) -> None:
    """Start or join a cluster while its C++ part is silent on stderr: everything important arrives as exceptions."""
    before = os.environ.get("RAY_BACKEND_LOG_LEVEL")
    os.environ["RAY_BACKEND_LOG_LEVEL"] = before or "fatal"
    stderr = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nothing:  # it logs a line before it applies its log level
            os.dup2(nothing.fileno(), 2)
        init()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        if before is None:
            del os.environ["RAY_BACKEND_LOG_LEVEL"]


def _check_reachable(address: str) -> None:
    """Raise :class:`UsageError` if the cluster is out of reach: Ray would keep trying, and then end the process."""
    if address == "auto":
        return
    if "://" in address:
        raise UsageError(
            f"{address} is an address for Ray clients: run gpt2lab on a machine of the cluster (ray job submit) and "
            "give its host:port, or auto"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"{address!r} is not the address of a Ray cluster: give host:port, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"there is no Ray cluster at {address} ({error})") from None


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2]
