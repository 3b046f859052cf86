"""What the server counts and measures, for Prometheus."""

from __future__ import annotations

import os

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Where the processes of one server leave their counts for each other: prometheus_client's own
# variable, which it reads when it is imported.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
PIECES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counts of one process; with several, `text` adds them up."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        if SHARED_FOLDER not in os.environ:
            ProcessCollector(registry=registry)  # memory, descriptors, processor time
        self.requests = Counter(
            "asr_requests", "Answers, by route and status.", ["route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "asr_request_seconds", "Time from a request's first byte to its answer's last.",
            ["route"], buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.audio_seconds = Counter(
            "asr_audio_seconds", "Audio of recordings that was transcribed.", registry=registry
        )
        self.compute_seconds = Counter(
            "asr_compute_seconds", "Time in which it was transcribed.", registry=registry
        )
        self.batch_pieces = Histogram(
            "asr_batch_pieces", "Pieces of recordings that were computed together.",
            buckets=PIECES, registry=registry,
        )  # fmt: skip
        self.lost_decoders = Counter(
            "asr_lost_decoders", "Decoding processes that a file ended, by its size or its time.",
            registry=registry,
        )  # fmt: skip
        self.queued = Gauge(
            "asr_queued_requests", "Requests for transcripts, at work or waiting.",
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self.streams = Gauge(
            "asr_streams", "Live streams.", registry=registry, multiprocess_mode="livesum"
        )
        self.stream_seconds = Counter(
            "asr_stream_seconds", "Audio of live streams.", registry=registry
        )
        self.connections = Gauge(
            "asr_connections", "Open connections.", registry=registry, multiprocess_mode="livesum"
        )

    def text(self) -> bytes:
        """Write all as Prometheus reads it."""
        if SHARED_FOLDER not in os.environ:
            return generate_latest(self._registry)
        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return generate_latest(shared)
