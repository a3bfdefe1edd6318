"""Runs gpt2lab on Linux as if on Windows, as far as that goes.

    python tests/helpers/windows.py import                  prints the number of modules that can be imported
    python tests/helpers/windows.py run generate Hello      runs a command
    python tests/helpers/windows.py run info , tokens Hi    runs several, one after another

To our modules, ``sys.platform`` is ``win32``, and modules and names that exist on POSIX alone are missing; other
packages see the system as it is. In the whole process, no file can be renamed, replaced or deleted while it is open or
mapped, and no folder takes the place of another one. Not simulated: paths, code pages, newlines, processes.
"""

from __future__ import annotations

import builtins
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

MISSING_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
MISSING_NAMES = {
    "os": {
        *("chown", "chroot", "confstr", "ctermid", "fchdir", "fchmod", "fchown", "fork", "forkpty", "getegid"),
        *("geteuid", "getgid", "getgroups", "getloadavg", "getpgid", "getpgrp", "getpriority", "getresuid", "getsid"),
        *("getuid", "killpg", "lchmod", "lchown", "link", "lockf", "major", "makedev", "minor", "mkfifo", "mknod"),
        *("nice", "openpty", "pathconf", "pipe2", "posix_fadvise", "posix_fallocate", "posix_spawn", "pread", "preadv"),
        *("pwrite", "pwritev", "readv", "register_at_fork", "sched_getaffinity", "sched_setaffinity", "sendfile"),
        *("setegid", "seteuid", "setgid", "setgroups", "setpgid", "setpriority", "setsid", "setuid", "statvfs"),
        *("symlink", "sync", "sysconf", "tcgetpgrp", "ttyname", "uname", "wait", "wait3", "wait4", "waitid", "writev"),
        *("O_CLOEXEC", "O_DIRECTORY", "O_DSYNC", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC"),
    },
    "signal": {
        *("SIGALRM", "SIGBUS", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGIO", "SIGKILL", "SIGPIPE", "SIGPROF", "SIGQUIT"),
        *("SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGUSR1", "SIGUSR2", "SIGVTALRM", "SIGWINCH"),
        *("ITIMER_PROF", "ITIMER_REAL", "ITIMER_VIRTUAL", "alarm", "getitimer", "pause", "pthread_kill"),
        *("pthread_sigmask", "setitimer", "siginterrupt", "sigpending", "sigtimedwait", "sigwait", "sigwaitinfo"),
    },
    "mmap": {"MADV_DONTNEED", "MAP_ANON", "MAP_ANONYMOUS", "MAP_POPULATE", "MAP_PRIVATE", "MAP_SHARED", "PROT_READ"},
    "socket": {"AF_UNIX", "SO_REUSEPORT", "fromfd", "send_fds", "recv_fds", "socketpair"},
    "time": {"tzset", "pthread_getcpuclockid"},
    "sys": {"getdlopenflags", "setdlopenflags"},
}
OTHER_VALUES: dict[str, dict[str, Any]] = {"sys": {"platform": "win32"}}
IN_USE, DENIED = 32, 5  # error numbers of Windows


class Facade(ModuleType):
    """A module of the standard library without what Windows lacks."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__dict__["_real"] = importlib.import_module(name)

    def __getattr__(self, name: str) -> Any:
        module = self.__dict__["_real"].__name__
        if name in MISSING_NAMES[module]:
            raise AttributeError(f"module {module!r} has no attribute {name!r} on Windows", name=name, obj=self)
        return OTHER_VALUES.get(module, {}).get(name) or getattr(self.__dict__["_real"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_real"], name, value)


def module_names() -> Iterator[str]:
    """Yield the names of all modules of the package."""
    import gpt2lab

    yield "gpt2lab"
    yield from (found.name for found in pkgutil.walk_packages(gpt2lab.__path__, "gpt2lab."))


def import_all() -> list[str]:
    """Import every module whose packages are installed; return the names."""
    imported = []
    for name in module_names():
        if name == "gpt2lab.__main__":
            continue
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] in {"gpt2lab", *MISSING_MODULES}:
                raise
        else:
            imported.append(name)
    return imported


def become_windows() -> None:
    """Let modules of ours that are imported from now on see Windows."""
    facades = {name: Facade(name) for name in MISSING_NAMES}
    really_import = builtins.__import__

    def import_for(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> ModuleType:
        if str((globals or {}).get("__name__", "")).partition(".")[0] == "gpt2lab":
            if name in MISSING_MODULES:
                raise ModuleNotFoundError(f"No module named {name!r} on Windows", name=name)
            if name in facades:
                return facades[name]
        return really_import(name, globals, locals, fromlist, level)

    builtins.__import__ = import_for
    sys.addaudithook(forbid)


def forbid(event: str, arguments: tuple[Any, ...]) -> None:
    """Raise Windows' errors; called before each event that Python reports."""
    if event == "os.rename":
        source, target = (Path(os.fsdecode(each)).absolute() for each in arguments[:2])
        if target.is_dir():
            raise windows_error(DENIED, "Access is denied", target)
        check_closed(source, target)
    elif event in ("os.remove", "os.rmdir", "shutil.rmtree") and arguments[-1] in (-1, None):  # not below a descriptor
        check_closed(Path(os.fsdecode(arguments[0])).absolute())


def check_closed(*paths: Path) -> None:
    """Raise an error if this process has one of ``paths``, or a file below it, open or mapped."""
    for name in open_files():
        for path in paths:
            if Path(name) == path or path in Path(name).parents:
                raise windows_error(IN_USE, "The file is being used by another process", path)


def open_files() -> set[str]:
    """Return the paths of the files that this process has open or mapped."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the listing's own
            found.add(str(descriptor.readlink()))
    mapped = (line.split(maxsplit=5)[5:] for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines())
    found |= {name for names in mapped for name in names}
    return {name for name in found if name.startswith("/") and not name.startswith(("/proc", "/dev"))}


def windows_error(number: int, text: str, path: Path) -> PermissionError:
    """Return the error that Windows' Python raises."""
    error = PermissionError(13, text, str(path))
    error.winerror = number  # type: ignore[attr-defined]
    return error


def main() -> None:
    """Read the command line."""
    action, *arguments = sys.argv[1:]
    become_windows()
    if action == "import":
        print(len(import_all()))
    else:
        run([command.split("\0") for command in "\0".join(arguments).split("\0,\0")])


def run(commands: list[list[str]]) -> None:
    """Run commands until one fails."""
    program = importlib.import_module("gpt2lab.cli.main").main
    for command in commands:
        try:
            program(command)
        except SystemExit as end:
            if end.code:
                raise


if __name__ == "__main__":
    main()
