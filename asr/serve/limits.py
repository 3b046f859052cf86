"""What a server takes at most, of each of its processes: sizes, times, and how many at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields


def _limit(default: float, what: str, bound: str = "max") -> float:
    limit: float = field(default=default, metadata={"help": what, "bound": bound})
    return limit


@dataclass(frozen=True)
class Limits:
    """Bounds on what clients can make one process of a server do.

    Raises:
        ValueError: a bound that is not above 0.
    """

    upload_mb: float = _limit(100, "of a request's body [MB]")
    uploads_mb: float = _limit(1000, "of all bodies that are being sent or wait [MB]")
    duration_s: float = _limit(3600, "of a recording [s]")
    waiting_s: float = _limit(7200, "of all recordings that are decoded and wait [s of audio]")
    queue: float = _limit(64, "requests for transcripts that are at work or wait")
    per_client: float = _limit(32, "of these, of one client: a key, or else an address")
    connections: float = _limit(512, "connections")
    streams: float = _limit(100, "live streams")
    stream_s: float = _limit(14_400, "of a live stream [s of audio]")
    message_kb: float = _limit(256, "of a message of a live stream [kB]")
    request_s: float = _limit(600, "that a request waits and works once its body is there [s]")
    silence_s: float = _limit(20, "without a sign of a client: headers, a body, a message [s]")
    upload_kb_per_s: float = _limit(8, "of a body's pace, after that silence [kB/s]", "min")
    decoding_s: float = _limit(60, "that the decoding of a file takes [s]")
    decoding_mb: float = _limit(512, "of memory that it takes besides the file [MB]")
    shutdown_s: float = _limit(60, "for what runs, once the server is told to end [s]")

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not 0 < value < math.inf:
                raise ValueError(f"{each.name} is {value:g}, expected more than 0")

    @property
    def upload_bytes(self) -> int:
        return round(self.upload_mb * 1e6)
