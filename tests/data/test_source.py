"""Sources: a manifest as one window, its gate, and batches that workers do not change."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr.augment import WaveformAugment
from asr.data.batch import Batch, BatchLoader
from asr.data.dataset import Request, RequestDataset, load_request
from asr.data.manifest import Utterance
from asr.data.plan import plan_epoch
from asr.data.source import ManifestSource, Ranks
from asr.data.window import Gate, Tokens, Window, label, no_gate
from asr.finding import Finding, Kind
from asr.text import CharTokenizer

RATE = 8000  # [Hz]
TOKENIZER = CharTokenizer("abc")


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    generator = np.random.default_rng(0)
    made = []
    for number in range(9):
        path = tmp_path / f"{number}.wav"
        num_samples = 400 * (number + 1)
        soundfile.write(path, generator.uniform(-0.5, 0.5, num_samples), RATE, subtype="FLOAT")
        made.append(Utterance(path, "abc"[: number % 3 + 1], num_samples / RATE, f"u{number}"))
    return made


def open_one(utterances: list[Utterance], gate: Gate = no_gate) -> Window:
    windows = ManifestSource(utterances).open(TOKENIZER, gate, 0, Ranks(1, 3))
    assert windows.count() == 1
    (window,) = windows.epoch(7)
    assert list(windows.epoch(7, start=1)) == []
    return window


def load(window: Window, plan: list[tuple[int, ...]], workers: int, epoch: int = 2) -> list[Batch]:
    augment = WaveformAugment(speeds=(0.9, 1.1), gain_db=(-6.0, 6.0))
    loader = BatchLoader(RequestDataset(RATE, seed=4, augment=augment), num_workers=workers)
    batches = list(loader.load(window.requests(epoch, plan)))
    loader.close()
    return batches


def test_a_manifest_is_one_window_that_every_rank_can_read(utterances: list[Utterance]) -> None:
    window = open_one(utterances)
    assert window.utterances == tuple(utterances)
    assert [list(ids) for ids in window.tokens] == [TOKENIZER.encode(u.text) for u in utterances]
    assert window.shares == (0.0, 1.0)
    arguments = {"seed": 3, "epoch": 2, "batch_duration_s": 1.0, "world_size": 3}
    assert window.plan(**arguments) == plan_epoch(window.durations, **arguments)  # type: ignore[arg-type]
    totals = ManifestSource(utterances).totals
    assert (totals.utterances, totals.longest_s) == (9, 0.45)
    assert totals.seconds == pytest.approx(sum(range(1, 10)) * 0.05)


def test_what_cannot_be_learnt_is_left_out_by_name(utterances: list[Utterance]) -> None:
    bad = [
        Utterance(Path("x.wav"), "", 1.0, "empty"),
        Utterance(Path("x.wav"), "abx", 1.0, "unknown"),
    ]

    def gate(some: Sequence[Utterance], tokens: Sequence[Tokens]) -> list[Finding | None]:
        assert [u.id for u in some] == [f"u{number}" for number in range(9)]
        assert [list(ids) for ids in tokens] == [TOKENIZER.encode(u.text) for u in some]
        return [
            utterance.finding(Kind.INFEASIBLE, f"{len(ids)} tokens") if len(ids) > 2 else None
            for utterance, ids in zip(some, tokens, strict=True)
        ]

    window = open_one([*bad, *utterances], gate)
    assert window.left_out == ()
    left_out = ManifestSource([*bad, *utterances]).open(TOKENIZER, gate, 0, Ranks()).left_out
    assert [each.id for each in left_out] == ["empty", "unknown", "u2", "u5", "u8"]
    assert {utterance.id for utterance in window.utterances} == {"u0", "u1", "u3", "u4", "u6", "u7"}
    found = {each.id: (each.kind, each.reason) for each in left_out}
    assert found["empty"] == (Kind.EMPTY_TEXT, "empty text, expected at least one character")
    assert found["unknown"][0] is Kind.UNKNOWN_CHARACTER
    assert "'x' (U+0078 LATIN SMALL LETTER X) not in the alphabet" in found["unknown"][1]
    assert found["u2"] == found["u5"] == found["u8"] == (Kind.INFEASIBLE, "3 tokens")
    assert len(found) == 5


@pytest.mark.parametrize(("size", "width"), [(255, 1), (256, 2), (65_535, 2), (65_536, 4)])
def test_labels_are_as_narrow_as_the_alphabet_allows(size: int, width: int) -> None:
    letters = [letter for letter in map(chr, range(0x3000, 0x110000)) if letter.isprintable()][
        :size
    ]
    tokenizer = CharTokenizer(letters)
    last = letters[-1]
    (tokens,) = label([Utterance(Path("x.wav"), last, 1.0, "u")], tokenizer, no_gate)
    assert isinstance(tokens, array)
    assert tokens.tolist() == [size]
    assert tokens.itemsize == width


def test_the_fingerprint_is_of_ids_durations_offsets_and_texts() -> None:
    base = Utterance(Path("x.wav"), "a", 1.0, "u")
    changed = [
        Utterance(Path("x.wav"), "b", 1.0, "u"),
        Utterance(Path("x.wav"), "a", 2.0, "u"),
        Utterance(Path("x.wav"), "a", 1.0, "v"),
        Utterance(Path("x.wav"), "a", 1.0, "u", offset=0.5),
    ]
    prints = {ManifestSource([item]).fingerprint() for item in [base, *changed]}
    assert len(prints) == 5
    moved = Utterance(Path("elsewhere/x.wav"), "a", 1.0, "u")
    assert ManifestSource([moved]).fingerprint() == ManifestSource([base]).fingerprint()


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_plan_and_workers_change_nothing(
    utterances: list[Utterance], workers: int
) -> None:
    window = open_one(utterances)
    plan = window.plan(seed=0, epoch=2, batch_duration_s=1.0)
    batches = load(window, plan, workers)
    alone = load(window, plan, 0)
    for batch, same, members in zip(batches, alone, plan, strict=True):
        assert [u.id for u in batch.utterances] == [f"u{position}" for position in members]
        torch.testing.assert_close(batch.waveforms, same.waveforms, rtol=0, atol=0)
        assert batch.seeds == same.seeds
        assert torch.equal(batch.tokens, same.tokens)
    other = load(window, plan, 0, epoch=3)
    assert other[0].seeds != alone[0].seeds


def test_one_loader_serves_one_plan_after_another(utterances: list[Utterance]) -> None:
    window = open_one(utterances)
    loader = BatchLoader(RequestDataset(RATE), num_workers=2)
    for plan in ([(0, 1), (2,)], [(8,), (), (3, 4)]):
        ids = [[u.id for u in batch.utterances] for batch in loader.load(window.requests(0, plan))]
        assert ids == [[f"u{position}" for position in batch] for batch in plan]
    loader.close()


def test_audio_in_memory_is_named_by_where_it_came_from(utterances: list[Utterance]) -> None:
    encoded = utterances[3].audio_filepath.read_bytes()
    there = Utterance(Path("shards/recording.000001.tar/u3"), "a", 0.2, "u3")
    waveform = load_request(Request(0, there, (1,), encoded), RATE)
    from_file = load_request(Request(0, utterances[3], (1,)), RATE)
    np.testing.assert_array_equal(waveform, from_file)
    message = r"^shards/recording\.000001\.tar/u3: <4 bytes of audio>: cannot be read as audio"
    with pytest.raises(ValueError, match=message):
        load_request(Request(0, there, (1,), b"nono"), RATE)
