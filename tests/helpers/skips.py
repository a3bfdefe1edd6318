"""Counts skipped tests by reason, and with ``--installed`` fails if any of them should have run.

``--installed=test,train`` says which extras the environment was given. A skip is then a failure if one of these, or the
machine itself, provides what was missing, or if :mod:`needs` does not know its reason. With pytest-xdist the reports of
all workers arrive at the controller, which alone counts them; a module that is skipped whole counts once.
"""

from __future__ import annotations

from collections import Counter

import pytest

from needs import NAME_OF, NEEDS


def verdict(reason: str, count: int, installed: frozenset[str]) -> str | None:
    """Return why ``count`` tests may not be skipped for ``reason``; None if they may."""
    name = NAME_OF.get(reason)
    if name is None:
        return "tests/helpers/needs.py does not declare this reason"
    if NEEDS[name].is_due(installed):
        return "should be here"
    most = NEEDS[name].at_most
    if most is not None and count > most:
        return f"no more than {most} tests may be"
    return None


class Skips:
    """The plugin; ``installed`` is None where skips are only counted."""

    def __init__(self, installed: frozenset[str] | None) -> None:
        self._installed = installed
        self._counts: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._count(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._count(report)

    def _count(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        assert isinstance(report.longrepr, tuple)
        self._counts[report.longrepr[2].removeprefix("Skipped: ")] += 1

    @property
    def faults(self) -> dict[str, str]:
        """Return the reasons for which no test may be skipped here, each with an explanation."""
        if self._installed is None:
            return {}
        verdicts = {reason: verdict(reason, n, self._installed) for reason, n in self._counts.items()}
        return {reason: why for reason, why in verdicts.items() if why}

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.faults and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._counts:
            return
        terminalreporter.section(f"{self._counts.total()} skipped, by reason")
        for reason, count in self._counts.most_common():
            fault = self.faults.get(reason)
            terminalreporter.write_line(f"{count:5}  {reason}" + (f" -- FAILED: {fault}" if fault else ""))
