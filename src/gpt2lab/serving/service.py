"""The shared state of a server's routes: models, runs, settings, keys, metrics, and whether new work is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpt2lab.serving.errors import stopping
from gpt2lab.serving.keys import Keys
from gpt2lab.serving.metrics import Metrics
from gpt2lab.serving.models import ServedModels

if TYPE_CHECKING:
    from gpt2lab.model import LanguageModel
    from gpt2lab.serving.settings import Settings
    from gpt2lab.serving.watch.run import Run


class Service:
    """The models, watched runs, settings, keys and metrics of a server, and whether new work is accepted."""

    def __init__(
        self, models: Sequence[tuple[str, LanguageModel]], settings: Settings, runs: Sequence[Run] = ()
    ) -> None:
        self.settings = settings
        self.runs = tuple(runs)
        self.keys = Keys(settings)
        self.metrics = Metrics()
        self.models = ServedModels(models, settings, self.metrics)
        self.draining = False

    @property
    def busy(self) -> bool:
        """Whether any sample runs or waits."""
        return any(served.worker.outstanding for served in self.models)

    def abandon(self) -> None:
        """End all jobs, because the time to drain is over."""
        for served in self.models:
            for job in served.worker.jobs:
                served.worker.cancel(job, stopping())
