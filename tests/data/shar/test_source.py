"""Shards as windows: every utterance once, ranks that agree, and a resume that changes no bit."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Sequence
from itertools import chain, pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch

from asr.data.dataset import Batch, Planner, Tokens, Window, batch_loader, label_manifest
from asr.data.manifest import Utterance
from asr.data.plan import rank_batches
from asr.data.shar.source import SharSource, SharWindows, shard_order, window_bounds
from asr.finding import Finding, Kind
from asr.text import CharTokenizer
from tests.data.loading import no_gate

from .conftest import COUNT, RATE, MakeSource

TOKENIZER = CharTokenizer("abcd")
BUDGET = 2.0  # [s]


def open_for(source: SharSource, rank: int = 0, world_size: int = 1, seed: int = 0) -> SharWindows:
    return source.open(TOKENIZER, no_gate, seed, rank, world_size)


def plan_of(window: Window, epoch: int, world_size: int) -> list[tuple[int, ...]]:
    return Planner(0, BUDGET, world_size=world_size).batches(window, epoch)


def batches_of(
    source: SharSource, epoch: int, rank: int, world_size: int, workers: int = 0, start: int = 0
) -> list[list[Batch]]:
    """Of a rank, by window."""
    loader = batch_loader(RATE, num_workers=workers)
    planner = Planner(0, BUDGET, rank=rank, world_size=world_size)
    found = []
    for window in open_for(source, rank, world_size).epoch(epoch, start):
        steps = planner.steps([window], epoch)
        found.append(list(loader.load(batch for step in steps for batch in step.requests)))
    return found


def test_windows_take_every_shard_once_and_leave_no_rank_without() -> None:
    for num_shards, world_size, per_window in product(range(1, 31), range(1, 5), (1, 2, 5)):
        if num_shards < world_size:
            continue
        bounds = window_bounds(num_shards, world_size, per_window)
        assert list(chain(*(range(*each) for each in bounds))) == list(range(num_shards))
        for first, end in bounds:
            assert world_size <= end - first < world_size * (per_window + 1)


def test_window_bounds_by_hand() -> None:
    assert window_bounds(10, 4, 1) == [(0, 4), (4, 10)]  # two left for four ranks
    assert window_bounds(12, 4, 1) == [(0, 4), (4, 8), (8, 12)]
    assert window_bounds(10, 2, 2) == [(0, 4), (4, 8), (8, 10)]
    assert window_bounds(3, 1, 10) == [(0, 3)]


def test_the_order_of_shards_is_a_permutation_of_seed_and_epoch() -> None:
    orders = {(s, e): tuple(shard_order(20, s, e)) for s, e in product(range(3), range(3))}
    assert len(set(orders.values())) == 9
    assert all(sorted(order) == list(range(20)) for order in orders.values())
    assert tuple(shard_order(20, 1, 2)) == orders[1, 2]


@pytest.mark.parametrize(("world_size", "per_window"), [(1, 1), (1, 4), (2, 1), (3, 2), (4, 1)])
def test_every_utterance_once_an_epoch_and_ranks_agree(
    shards: Path, make_source: MakeSource, world_size: int, per_window: int
) -> None:
    source = make_source(shards, shards_per_window=per_window)
    assert open_for(source).num_utterances == COUNT
    for epoch in range(2):
        ranks = [
            list(open_for(source, rank, world_size).epoch(epoch)) for rank in range(world_size)
        ]
        seen = []
        for windows in zip(*ranks, strict=True):
            plans = [plan_of(window, epoch, world_size) for window in windows]
            assert all(plan == plans[0] for plan in plans)
            for rank, window in enumerate(windows):
                assert window.utterances == windows[0].utterances
                share = rank_batches(plans[0], world_size, rank)
                assert set(chain(*share)) == window.audio.keys()  # and nobody holds more
                seen += [window.utterances[position].id for position in chain(*share)]
            assert sum(len(window.audio) for window in windows) == len(windows[0].utterances)
        assert len(seen) == COUNT
        assert len(set(seen)) == COUNT
        shares = [window.shares for window in ranks[0]]
        assert shares[0][0] == 0.0
        assert shares[-1][1] == 1.0
        assert all(one[1] == two[0] for one, two in pairwise(shares))


def test_shards_give_the_examples_of_the_manifest(
    utterances: list[Utterance], shards: Path, make_source: MakeSource
) -> None:
    source = make_source(shards, shards_per_window=3)
    plain = [
        Utterance(u.audio_filepath, u.text.lower(), u.duration, u.id, offset=u.offset)
        for u in utterances
    ]
    (whole,) = label_manifest(plain, TOKENIZER, no_gate).epoch(1)
    alone = batch_loader(RATE).load([whole.request(1, position)] for position in range(COUNT))
    expected = {batch.utterances[0].id: batch for batch in alone}
    rows = 0
    for batch in chain(*batches_of(source, 1, 0, 1)):
        for row, utterance in enumerate(batch.utterances):
            same = expected[utterance.id]
            num_samples = int(batch.num_samples[row])
            assert num_samples == int(same.num_samples[0])
            assert torch.equal(batch.waveforms[row, :num_samples], same.waveforms[0])
            length = int(batch.token_lengths[row])
            assert torch.equal(batch.tokens[row, :length], same.tokens[0])
            assert batch.seeds[row] == same.seeds[0]
            rows += 1
    assert rows == COUNT


# What a fresh process makes of (epoch, window, group), as one digest a batch.
DIGESTS = """
import hashlib
import sys
from pathlib import Path

from asr.data.dataset import Planner, batch_loader
from asr.data.shar.folder import SharFolder
from asr.data.shar.index import read_index
from asr.data.shar.source import SharSource
from tests.data.loading import no_gate
from asr.augment import WaveformAugment
from asr.text import TextNormalizer, CharTokenizer

folder, workers, epoch, start, group = sys.argv[1], *map(int, sys.argv[2:])
place = SharFolder(folder)
source = SharSource(place, read_index(place), TextNormalizer(), shards_per_window=2)
windows = source.open(CharTokenizer("abcd"), no_gate, 0, 1, 2)
augment = WaveformAugment(speeds=(0.9, 1.0, 1.1), gain_db=(-6.0, 6.0))
loader = batch_loader(8000, 0, augment, num_workers=workers)
loader.start()
planner = Planner(0, 2.0, rank=1, world_size=2)
for step in planner.steps(windows.epoch(epoch, start), epoch, group):
    for batch in loader.load(step.requests):
        digest = hashlib.sha256(repr((batch.seeds, [u.id for u in batch.utterances])).encode())
        for tensor in (batch.waveforms, batch.num_samples, batch.tokens, batch.token_lengths):
            digest.update(tensor.numpy().tobytes())
        print(step.window, digest.hexdigest())
loader.close()
"""


def digests(shards: Path, workers: int, epoch: int, window: int, group: int) -> list[str]:
    arguments = [str(shards), *map(str, (workers, epoch, window, group))]
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(DIGESTS), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.splitlines()


def test_epoch_window_and_group_bring_back_the_very_batches(shards: Path) -> None:
    whole = digests(shards, 0, 1, 0, 0)
    assert len({line.split()[0] for line in whole}) == 3
    first = sum(line.startswith("0 ") for line in whole)
    assert digests(shards, 2, 1, 0, 0) == whole
    assert digests(shards, 0, 1, 1, 1) == whole[first + 1 :]
    assert digests(shards, 2, 1, 1, 1) == whole[first + 1 :]


def test_what_cannot_be_learnt_is_left_out_in_its_window(
    shards: Path, make_source: MakeSource, utterances: list[Utterance]
) -> None:
    def gate(utterances: Sequence[Utterance], tokens: Sequence[Tokens]) -> list[Finding | None]:
        assert [ids[0] == 1 for ids in tokens] == [u.text[0] == "a" for u in utterances]
        return [
            utterance.finding(Kind.INFEASIBLE, "starts with a") if ids[0] == 1 else None
            for utterance, ids in zip(utterances, tokens, strict=True)
        ]

    source = make_source(shards, min_duration_s=0.2, max_duration_s=0.7)
    windows = list(source.open(CharTokenizer("abc"), gate, 0, 0, 2).epoch(0))
    found = {each.id: each for window in windows for each in window.left_out}
    kept = {utterance.id for window in windows for utterance in window.utterances}
    assert kept.isdisjoint(found)
    assert len(kept) + len(found) == COUNT
    for utterance in utterances:
        text, duration = utterance.text.lower(), utterance.duration or 0.0
        if not 0.2 <= duration <= 0.7:
            kind = Kind.TOO_SHORT if duration < 0.2 else Kind.TOO_LONG
            assert found[utterance.id].kind is kind
            assert found[utterance.id].reason == f"{duration:.2f} s, expected 0.2 to 0.7 s"
        elif "d" in text:
            assert found[utterance.id].kind is Kind.UNKNOWN_CHARACTER
            assert "'d' (U+0064 LATIN SMALL LETTER D)" in found[utterance.id].reason
        elif text.startswith("a"):
            assert found[utterance.id] == Finding(Kind.INFEASIBLE, "starts with a", utterance.id)
        else:
            assert utterance.id in kept


def test_fewer_shards_than_ranks(shards: Path, make_source: MakeSource) -> None:
    source = make_source(shards)
    assert open_for(source, 11, 12).count() == 1
    with pytest.raises(ValueError, match=r"12 shards for 13 processes, expected at least one for"):
        open_for(source, 0, 13)


def test_no_shards_in_a_window(shards: Path, make_source: MakeSource) -> None:
    with pytest.raises(ValueError, match="shards_per_window 0, expected at least 1"):
        make_source(shards, shards_per_window=0)


def test_the_fingerprint_is_of_content_rules_and_window(
    shards: Path, make_source: MakeSource
) -> None:
    base = make_source(shards).fingerprint()
    assert make_source(shards).fingerprint() == base
    assert make_source(shards, shards_per_window=2).fingerprint() != base
    assert make_source(shards, max_duration_s=5.0).fingerprint() != base


def test_the_next_window_is_read_meanwhile_and_the_one_before_is_let_go(
    shards: Path, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[tuple[int, threading.Thread]] = []
    load = SharWindows.load
    reading = threading.Semaphore(0)

    def noted(self: SharWindows, epoch: int, number: int) -> Window:
        loads.append((number, threading.current_thread()))
        reading.release()
        return load(self, epoch, number)

    monkeypatch.setattr(SharWindows, "load", noted)
    windows = open_for(make_source(shards)).epoch(0)
    earlier: list[weakref.ref[Window]] = []
    for number in range(4):
        window = next(windows)
        for _ in range(2 if number == 0 else 1):
            assert reading.acquire(timeout=10.0)
        assert [each[0] for each in loads] == list(range(number + 2))  # one ahead, not more
        assert all(reference() is None for reference in earlier)
        earlier.append(weakref.ref(window))
        del window
    assert all(thread is not threading.main_thread() for _, thread in loads)
    windows.close()


def test_a_changed_file_is_named(shards: Path, make_source: MakeSource, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(shards, folder)
    tar = folder / "recording.000003.tar"
    content = bytearray(tar.read_bytes())
    content[700] ^= 1  # within the audio of the first cut
    tar.write_bytes(content)
    with pytest.raises(ValueError, match=r"recording\.000003\.tar: sha256 \w+\.\.\., expected"):
        list(open_for(make_source(folder)).epoch(0))
    tar.write_bytes(content[:5000])
    with pytest.raises(ValueError, match=r"recording\.000003\.tar: (damaged tar|ends)"):
        list(open_for(make_source(folder)).epoch(0))
    (folder / "cuts.000002.jsonl.gz").write_bytes(gzip.compress(b"{}\n"))
    with pytest.raises(ValueError, match=r"cuts\.000002\.jsonl\.gz: sha256 \w+\.\.\., expected"):
        list(open_for(make_source(folder)).epoch(0))
    assert np.isfinite(open_for(make_source(folder)).seconds)
