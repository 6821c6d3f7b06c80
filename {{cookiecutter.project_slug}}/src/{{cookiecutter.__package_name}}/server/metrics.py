"""What Prometheus reads at `/metrics`."""

import asyncio
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from .routes import PUBLIC

# If set before prometheus_client is imported, all values are in files of this directory, and the
# processes that share it answer with the values of all.
MULTIPROC_DIR = "PROMETHEUS_MULTIPROC_DIR"

# Between two readings of what is in flight.
SAMPLE_SECONDS = 1.0

# Buckets that OpenTelemetry advises for gen_ai.client.operation.duration.
SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)

router = APIRouter(tags=["health"])


class Metrics:
    """All metrics. Those that OpenTelemetry has too have its names.

    https://opentelemetry.io/docs/specs/semconv/http/http-metrics/
    https://github.com/open-telemetry/semantic-conventions-genai

    No label has a value that clients can choose freely.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._sample: Callable[[], None] = lambda: None
        histogram = partial(Histogram, buckets=SECONDS, registry=registry)
        gauge = partial(Gauge, registry=registry, multiprocess_mode="livesum")
        self.request_duration = histogram(
            "http_server_request_duration_seconds",
            "Duration of requests, streams included; error_type is the type of the problem",
            ["http_request_method", "http_route", "http_response_status_code", "error_type"],
        )
        self.attempt_duration = histogram(
            "gen_ai_client_operation_duration_seconds",
            "Duration of attempts to call OpenAI, streams included",
            ["gen_ai_operation_name", "gen_ai_request_model", "error_type"],
        )
        self.time_to_first_chunk = histogram(
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "Time from the start of an attempt to the first event of its stream",
            ["gen_ai_operation_name", "gen_ai_request_model"],
        )
        self.tokens = Counter(
            "gen_ai_client_token_usage",
            "Tokens that OpenAI reported",
            ["gen_ai_token_type", "gen_ai_request_model", "client_id"],
            registry=registry,
        )
        self.retry_wait = histogram(
            "openai_retry_wait_seconds", "Waits before further attempts", ["error_type"]
        )
        self.queue_wait = histogram(
            "openai_queue_wait_seconds", "Waits for a slot, successful or not"
        )
        self.calls_in_flight = gauge("openai_calls_in_flight", "Calls that have a slot")
        self.calls_max = gauge("openai_calls_max", "MAX_CONCURRENCY, of all workers together")
        self.calls_queued = gauge("openai_calls_queued", "Calls that wait for a slot")
        self.key_status = gauge(
            "openai_key_status", "Number of workers whose key check has this status", ["status"]
        )
        self.storage_up = gauge(
            "rate_limit_storage_up",
            "0 while a worker cannot use RATE_LIMIT_STORAGE_URI",
            multiprocess_mode="livemin",
        )

    async def keep_sampling(self, sample: Callable[[], None]) -> None:
        """Have `sample` set gauges, each second for what other processes answer."""
        self._sample = sample
        while True:
            sample()
            await asyncio.sleep(SAMPLE_SECONDS)

    def exposition(self) -> bytes:
        """The values of all processes that share `MULTIPROC_DIR`; if it is not set, of this one."""
        self._sample()
        directory = os.environ.get(MULTIPROC_DIR)
        if directory is None:
            return generate_latest(self._registry)
        for process in {path.stem.rpartition("_")[2] for path in Path(directory).glob("*.db")}:
            if not _is_alive(int(process)):
                with suppress(FileNotFoundError):  # another process was first
                    mark_process_dead(process)  # type: ignore[no-untyped-call] # keeps its counters
        registry = CollectorRegistry()
        registry.register(WorkersCollector(Path(directory)))
        return generate_latest(registry)


class WorkersCollector(Collector):
    """MultiProcessCollector fails while a worker starts: its files are empty for a moment."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        files = []
        for path in self._directory.glob("*.db"):
            with suppress(FileNotFoundError):  # of a worker that has ended
                files += [str(path)] if path.stat().st_size else []
        merge = MultiProcessCollector.merge
        merged: Iterable[Metric] = merge(files)  # type: ignore[no-untyped-call] # is public
        return merged


def _is_alive(process: int) -> bool:
    if os.name == "nt":
        return True  # there, the signal 0 would end the process
    with suppress(PermissionError):  # another user's process has its number now
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True


@router.get("/metrics", openapi_extra=PUBLIC, response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """The metrics in Prometheus' text format."""
    found: Metrics = request.state.metrics
    # In a thread: the files of several workers take tens of milliseconds.
    text = await asyncio.to_thread(found.exposition)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
