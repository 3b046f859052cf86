"""Segments of many recordings: read ahead within bounds, in batches of like length, in halves."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import asr.emission
from asr.emission import End, Piece, emissions, like_length, read_ahead

RATE = 100  # [Hz]


def piece(number: int, seconds: float) -> Piece:
    samples = np.zeros(round(seconds * RATE), np.float32)
    return Piece(number, f"{number}.wav", None, None, 0, samples, len(samples))


def recording(number: int, *seconds: float) -> Iterator[Piece | End]:
    for each in seconds:
        yield piece(number, each)
    yield End(number, 0)


def test_batches_are_of_like_length_and_ends_come_behind_their_pieces() -> None:
    items = [each for number in range(20) for each in recording(number, *range(1, number + 2))]
    open_pieces = {number: number + 1 for number in range(20)}
    seen = 0
    for batch in like_length(items, RATE, pool_s=300):
        if isinstance(batch, End):
            assert open_pieces[batch.number] == 0
            seen += 1
            continue
        lengths = [len(each.samples) for each in batch]
        assert lengths == sorted(lengths, reverse=True)
        assert lengths[0] * len(lengths) <= asr.emission.BATCH_S * RATE
        for each in batch:
            open_pieces[each.number] -= 1
    assert seen == 20


def test_an_end_without_pieces_does_not_wait() -> None:
    def items() -> Iterator[Piece | End]:
        yield End(0, 5)
        raise AssertionError("the next recording was read first")

    assert next(like_length(items(), RATE)) == End(0, 5)


def test_what_is_read_ahead_is_bounded() -> None:
    given = 0
    lock = threading.Lock()

    def counted(number: int) -> Iterator[Piece | End]:
        nonlocal given
        for _ in range(30):
            with lock:
                given += 1
            yield piece(number, 20)

    items = read_ahead((counted(number) for number in range(6)), RATE)
    next(items)
    time.sleep(0.2)
    # READ_S of 20 s each, one in the hand of each reader, and the one that was taken.
    assert given <= asr.emission.READ_S / 20 + asr.emission.MAX_READERS + 1
    assert sum(1 for _ in items) == 6 * 30 - 1
    assert given == 6 * 30


def test_readers_end_with_their_reader() -> None:
    items = read_ahead((recording(number, *[60.0] * 50) for number in range(5)), RATE)
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("reader ")]


def test_a_mistake_in_a_reader_is_told() -> None:
    def broken() -> Iterator[Piece | End]:
        yield piece(0, 1)
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(read_ahead([broken()], RATE))


class Small:
    """A recogniser with memory for two pieces, and for none of the third recording."""

    sample_rate = RATE

    def log_probs(self, parts: list[Any], chunk_s: float | None) -> tuple[Any, Any]:
        if len(parts) > 2 or any(len(part) == 3 * RATE for part in parts):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return np.zeros(len(parts)), np.zeros(len(parts))


def test_a_batch_that_memory_does_not_hold_goes_in_halves() -> None:
    batch = [piece(number, number) for number in range(7, 0, -1)]
    found = list(emissions(Small(), batch, lambda pieces, *_: len(pieces)))  # type: ignore[arg-type]
    assert [each.number for pieces, _ in found for each in pieces] == [7, 6, 5, 4, 3, 2, 1]
    results = {pieces[0].number: result for pieces, result in found}
    error = results.pop(3)
    assert str(error) == ("3.wav: memory ran out, expected a shorter recording, or more memory")
    assert all(isinstance(result, int) and result <= 2 for result in results.values())
    assert list(emissions(Small(), [], len)) == []  # type: ignore[arg-type]
