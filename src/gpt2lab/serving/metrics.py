"""The metrics that ``/metrics`` reports to Prometheus: only counts and times, no text and no user names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "gpt2lab_requests_total", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "gpt2lab_request_seconds",
            "Time to the end of an answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.disconnects = Counter(
            "gpt2lab_disconnects_total", "Clients that left before the end of their answer.", registry=self.registry
        )
        self.refused = Counter(
            "gpt2lab_refused_total",
            "Requests refused because too many samples waited.",
            ["model"],
            registry=self.registry,
        )
        self._steps = Counter("gpt2lab_steps_total", "Steps of the engine.", ["model"], registry=self.registry)
        self._drawn = Counter("gpt2lab_drawn_tokens_total", "Tokens drawn.", ["model"], registry=self.registry)
        self._read = Counter("gpt2lab_prompt_tokens_total", "Tokens of prompts.", ["model"], registry=self.registry)
        self._cached = Counter(
            "gpt2lab_cached_prompt_tokens_total",
            "Tokens of prompts that were not computed, because their keys and values were kept.",
            ["model"],
            registry=self.registry,
        )
        self._prompt_cache = Gauge(
            "gpt2lab_prompt_cache_bytes",
            "Bytes of keys and values kept for later prompts.",
            ["model"],
            registry=self.registry,
        )
        self._failures = Counter("gpt2lab_failures_total", "Steps that failed.", ["model"], registry=self.registry)
        self._outstanding = Gauge(
            "gpt2lab_outstanding_samples", "Samples that run or wait.", ["model"], registry=self.registry
        )
        self._first = Histogram(
            "gpt2lab_time_to_first_token_seconds",
            "From a request to its first token.",
            ["model"],
            buckets=_SECONDS,
            registry=self.registry,
        )

    def of_model(self, name: str) -> ModelMetrics:
        """Return the metrics with the label ``name``."""
        return ModelMetrics(self, name)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' format."""
        return generate_latest(self.registry)


class ModelMetrics:
    """The metrics of one model."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.refused = metrics.refused.labels(name)
        self.prompt_tokens = metrics._read.labels(name)
        self.cached_tokens = metrics._cached.labels(name)
        self.prompt_cache = metrics._prompt_cache.labels(name)
        self.failures = metrics._failures.labels(name)
        self.outstanding = metrics._outstanding.labels(name)
        self.first_token = metrics._first.labels(name)
        self._steps = metrics._steps.labels(name)
        self._drawn = metrics._drawn.labels(name)

    def step(self, n_tokens: int) -> None:
        """Count one step that drew ``n_tokens``."""
        self._steps.inc()
        self._drawn.inc(n_tokens)
