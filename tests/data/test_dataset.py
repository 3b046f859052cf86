"""Utterances to examples to batches: the right part of the file, draws that only the request
decides, padding, and batches that loading processes do not change."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr.augment import Pauses, WaveformAugment
from asr.data import dataset
from asr.data.dataset import (
    Batch,
    Example,
    Gate,
    ManifestWindows,
    PlannedStep,
    Planner,
    Request,
    Tokens,
    Window,
    batch_loader,
    collate,
    draw_seed,
    join_examples,
    label,
    label_manifest,
    load_example,
    load_request,
    load_utterance,
)
from asr.data.manifest import Utterance
from asr.data.plan import plan_epoch
from asr.finding import Finding, Kind
from asr.text import CharTokenizer
from tests.data.loading import no_gate, requests_of

RATE = 8000  # [Hz]
NOISY = WaveformAugment(speeds=(0.9, 1.0, 1.1), gain_db=(-6.0, 6.0))
TOKENIZER = CharTokenizer("abc")
PLAN = [(4, 1), (0,), (5, 2, 3)]


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    """Nine noises of 0.05 to 0.45 s."""
    generator = np.random.default_rng(0)
    made = []
    for number in range(9):
        path = tmp_path / f"{number}.wav"
        num_samples = 400 * (number + 1)
        soundfile.write(path, generator.uniform(-0.5, 0.5, num_samples), RATE, subtype="FLOAT")
        made.append(Utterance(path, "abc"[: number % 3 + 1], num_samples / RATE, f"u{number}"))
    return made


def tokens_of(utterances: Sequence[Utterance]) -> list[Tokens]:
    return [TOKENIZER.encode(utterance.text) for utterance in utterances]


# --- examples ----------------------------------------------------------------------------------


def load(utterance: Utterance, epoch: int = 0, seed: int = 0, vary: bool = False) -> Example:
    request = Request(epoch, utterance, TOKENIZER.encode(utterance.text))
    example = load_example(request, RATE, seed, NOISY if vary else None)
    assert isinstance(example, Example)
    return example


def test_an_example_is_the_file_with_its_tokens(utterances: list[Utterance]) -> None:
    for utterance in utterances:
        example = load(utterance)
        samples, _ = soundfile.read(utterance.audio_filepath, dtype="float32")
        assert example.waveform.dtype == np.float32
        np.testing.assert_array_equal(example.waveform, samples)
        assert list(example.tokens) == TOKENIZER.encode(utterance.text)
        assert example.utterances == (utterance,)


def test_offset_and_duration_cut_their_part_out(utterances: list[Utterance]) -> None:
    path = utterances[3].audio_filepath
    samples, _ = soundfile.read(path, dtype="float32")
    part = load_utterance(Utterance(path, "a", 0.05, "part", offset=0.1), RATE)
    np.testing.assert_array_equal(part, samples[800:1200])
    rest = load_utterance(Utterance(path, "a", None, "rest", offset=0.1), RATE)
    np.testing.assert_array_equal(rest, samples[800:])


def test_an_utterance_may_be_on_one_channel_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (800, 2)).astype(np.float32)
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    for channel, expected in ((0, samples[:, 0]), (1, samples[:, 1]), (None, samples.mean(axis=1))):
        one = load_utterance(Utterance(path, "a", None, "u", channel=channel), RATE)
        np.testing.assert_allclose(one, expected, atol=1e-7)
    example = load_example(Request(0, Utterance(path, "a", 0.1, "u", channel=2), [1]), RATE)
    assert isinstance(example, Finding)
    assert "channel 2" in example.reason


def test_draws_depend_on_seed_epoch_and_id_alone(utterances: list[Utterance]) -> None:
    there = [load(each, 1, 5, vary=True) for each in utterances]
    np.random.seed(0)  # a global state that anybody may have moved
    back = [load(each, 1, 5, vary=True) for each in reversed(utterances)][::-1]
    for one, other in zip(there, back, strict=True):
        np.testing.assert_array_equal(one.waveform, other.waveform)
        assert one.seed == other.seed


def test_another_seed_epoch_or_id_draws_anew(utterances: list[Utterance]) -> None:
    first, other = utterances[0], replace(utterances[0], id="other")
    examples = [
        load(first, 0, 5, vary=True), load(first, 1, 5, vary=True), load(first, 0, 6, vary=True),
        load(other, 0, 5, vary=True),
    ]  # fmt: skip
    assert len({example.seed for example in examples}) == 4
    assert len({example.waveform.tobytes() for example in examples}) == 4


def test_what_is_not_to_be_varied_is_not(utterances: list[Utterance]) -> None:
    plain = load_example(Request(0, utterances[0], (1,), is_varied=False), RATE, 5, NOISY)
    assert isinstance(plain, Example)
    np.testing.assert_array_equal(plain.waveform, load(utterances[0]).waveform)


def test_the_seed_that_is_left_does_not_repeat_the_waveforms_draws(
    utterances: list[Utterance],
) -> None:
    example = load(utterances[0], seed=5)
    assert example.seed != draw_seed(5, 0, "u0")
    assert 0 <= example.seed < 2**63


def test_draw_seed_is_fixed_for_all_time() -> None:
    # blake2b of "0/0/a" and "7/3/some id", 8 bytes, the last one first, halved
    # (computed once with b2sum -l 64): other numbers would change every training.
    assert draw_seed(0, 0, "a") == 0x7A593B3188F72E8C >> 1
    assert draw_seed(7, 3, "some id") == 0x3566DA1C1784E2CD >> 1


def test_draw_seed_keeps_its_parts_apart() -> None:
    keys = [(1, 11, "1"), (11, 1, "1"), (1, 1, "11"), (1, 1, "1"), (0, 0, ""), (0, 0, "/")]
    assert len({draw_seed(*key) for key in keys}) == len(keys)


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no audio at all")
    found = load_example(Request(0, Utterance(broken, "a", 1.0, "b"), (1,)), RATE)
    assert isinstance(found, Finding)
    assert found.id == "b"
    assert found.reason.startswith(f"{broken}: cannot be read as audio")
    gone = tmp_path / "gone.wav"
    found = load_example(Request(0, Utterance(gone, "a", 1.0, "g"), (1,)), RATE)
    assert found == Finding(Kind.UNREADABLE_AUDIO, f"{gone}: No such file or directory", "g")


def test_audio_in_memory_is_named_by_where_it_came_from(utterances: list[Utterance]) -> None:
    encoded = utterances[3].audio_filepath.read_bytes()
    there = Utterance(Path("shards/recording.000001.tar/u3"), "a", 0.2, "u3")
    waveform = load_request(Request(0, there, (1,), encoded), RATE)
    from_file = load_request(Request(0, utterances[3], (1,)), RATE)
    np.testing.assert_array_equal(waveform, from_file)
    message = r"^shards/recording\.000001\.tar/u3: <4 bytes of audio>: cannot be read as audio"
    with pytest.raises(ValueError, match=message):
        load_request(Request(0, there, (1,), b"nono"), RATE)


# --- batches -----------------------------------------------------------------------------------


def example(name: str, samples: list[float], tokens: tuple[int, ...]) -> Example:
    utterance = Utterance(Path(f"{name}.wav"), "text", 1.0, name)
    return Example(np.array(samples, dtype=np.float32), tokens, len(samples), (utterance,))


@pytest.fixture
def batch() -> Batch:
    return collate(
        [example("a", [0.5, -0.5], (3,)), example("b", [0.25], ()), example("c", [1.0] * 3, (1, 2))]
    )


def assert_same(left: Batch, right: Batch) -> None:
    for name in ("waveforms", "num_samples", "tokens", "token_lengths"):
        assert torch.equal(getattr(left, name), getattr(right, name)), name
    assert left.seeds == right.seeds
    assert left.rows == right.rows


def test_collate_by_hand(batch: Batch) -> None:
    assert batch.waveforms.tolist() == [[0.5, -0.5, 0.0], [0.25, 0.0, 0.0], [1.0, 1.0, 1.0]]
    assert batch.waveforms.dtype == torch.float32
    assert batch.num_samples.tolist() == [2, 1, 3]
    assert batch.num_samples.dtype == torch.int64
    assert batch.tokens.tolist() == [[3, 0], [0, 0], [1, 2]]
    assert batch.tokens.dtype == torch.int64
    assert batch.token_lengths.tolist() == [1, 0, 2]
    assert batch.seeds == (2, 1, 3)
    assert [u.id for u in batch.utterances] == ["a", "b", "c"]


def test_collate_of_empty_transcripts_alone() -> None:
    batch = collate([example("a", [0.5], ()), example("b", [0.25], ())])
    assert batch.tokens.shape == (2, 0)
    assert batch.tokens.dtype == torch.int64
    assert batch.token_lengths.tolist() == [0, 0]


def test_collate_of_nothing() -> None:
    batch = collate([])
    assert batch.waveforms.shape == (0, 0)
    assert batch.tokens.shape == (0, 0)
    assert batch.token_lengths.dtype == batch.num_samples.dtype == torch.int64
    assert batch.utterances == ()


def test_keep_takes_rows_out_of_everything(batch: Batch) -> None:
    kept = batch.keep(torch.tensor([True, False, True]))
    assert kept.waveforms.tolist() == [[0.5, -0.5, 0.0], [1.0, 1.0, 1.0]]
    assert kept.num_samples.tolist() == [2, 3]
    assert kept.tokens.tolist() == [[3, 0], [1, 2]]
    assert kept.token_lengths.tolist() == [1, 2]
    assert kept.seeds == (2, 3)
    assert [u.id for u in kept.utterances] == ["a", "c"]
    assert_same(batch.keep(torch.tensor([True] * 3)), batch)
    assert batch.keep(torch.tensor([False] * 3)).waveforms.shape == (0, 3)


def test_to_another_device_keeps_everything(batch: Batch) -> None:
    assert_same(batch.to(torch.device("cpu")), batch)
    moved = batch.to(torch.device("meta"))
    tensors = (moved.waveforms, moved.num_samples, moved.tokens, moved.token_lengths)
    assert {tensor.device.type for tensor in tensors} == {"meta"}


# --- joined and empty rows ---------------------------------------------------------------------


def varied(count: int, longest_s: float = 0.5) -> list[Example]:
    """Examples of growing length, each of one level, with its number as its label."""
    made = []
    for number in range(1, count + 1):
        waveform = np.full(round(longest_s * number / count * RATE), number / 100, np.float32)
        utterance = Utterance(Path(f"{number}.wav"), "a", 1.0, str(number), speaker=str(number % 2))
        made.append(Example(waveform, (number,), 100 + number, (utterance,), True))
    return made


def joined_rows(examples: list[Example], **settings: float) -> list[Example]:
    return join_examples(examples, Pauses(**settings), RATE, space=(99,))


def test_joined_rows_have_every_utterance_once_with_its_own_text() -> None:
    examples = varied(9)
    rows = joined_rows(examples, joined=1.0)
    assert len(rows) < 9
    assert sorted(u.id for row in rows for u in row.utterances) == sorted("123456789")
    for row in rows:
        names = [int(utterance.id) for utterance in row.utterances]
        spaced = [label for name in names for label in (name, 99)][:-1]
        assert list(row.tokens) == spaced
        spoken = sum(len(examples[name - 1].waveform) for name in names)
        assert len(row.waveform) >= spoken + (len(names) - 1) * 0.1 * RATE
        start = 0
        for name in names:  # in this order, whatever the pauses between sound like
            own = examples[name - 1].waveform
            places = np.flatnonzero(row.waveform[start:] == own[0])
            assert len(places) >= len(own)
            start += int(places[len(own) - 1]) + 1


def test_half_of_the_joined_batches_join_one_speaker_first() -> None:
    apart = 0
    for seed in range(200):
        examples = [replace(each, seed=seed) for each in varied(8)]
        rows = joined_rows(examples, joined=1.0, joined_s=2.0)  # pairs to fours
        apart += all(len({u.speaker for u in row.utterances}) == 1 for row in rows)
    assert 60 < apart < 160


def test_a_row_without_speech_is_never_beside_joined_ones() -> None:
    empty = joined = 0
    for seed in range(200):
        rows = joined_rows([replace(each, seed=seed) for each in varied(4)], joined=0.4, empty=0.4)
        silent = [row for row in rows if not row.utterances]
        assert all(not list(row.tokens) for row in silent)
        assert all(len(row.waveform) == 0.5 * RATE for row in silent)
        joins = any(len(row.utterances) > 1 for row in rows)
        assert len(silent) + joins <= 1
        empty, joined = empty + len(silent), joined + joins
    assert 50 < empty < 110
    assert 50 < joined < 110


def test_what_is_not_varied_or_not_finite_stays_alone() -> None:
    examples = varied(6)
    examples[2] = replace(examples[2], is_varied=False)
    examples[4].waveform[3] = np.nan
    rows = joined_rows(examples, joined=1.0)
    assert any(row is examples[2] for row in rows)
    assert any(row is examples[4] for row in rows)
    assert all(np.isfinite(row.waveform).all() for row in rows if len(row.utterances) > 1)
    still = [replace(each, is_varied=False) for each in examples]
    assert joined_rows(still, joined=1.0) == still


def test_the_loader_joins_alike_in_every_process(utterances: list[Utterance]) -> None:
    pauses = WaveformAugment(pauses=Pauses(around=0.5, joined=0.5, empty=0.5, longest_s=0.5))
    plan = [batch for epoch in range(6) for batch in plan_of(utterances, epoch)]
    alone = list(batch_loader(RATE, 3, pauses, (1,)).load(plan))
    assert max(len(row) for batch in alone for row in batch.rows) > 1
    assert min(len(row) for batch in alone for row in batch.rows) == 0
    loader = batch_loader(RATE, 3, pauses, (1,), num_workers=2)
    for found, batch in zip(loader.load(plan), alone, strict=True):
        assert_same(found, batch)
    loader.close()


# --- loading -----------------------------------------------------------------------------------


def plan_of(utterances: list[Utterance], epoch: int) -> list[list[Request]]:
    return requests_of(utterances, tokens_of(utterances), epoch, PLAN)


def test_the_loader_loads_the_requests_in_order(utterances: list[Utterance]) -> None:
    loader = batch_loader(RATE, 3, NOISY)
    for epoch in (0, 1):
        batches = list(loader.load(plan_of(utterances, epoch)))
        assert [tuple(int(u.id[1:]) for u in b.utterances) for b in batches] == PLAN
        for batch, positions in zip(batches, PLAN, strict=True):
            alone = [load(utterances[each], epoch, 3, vary=True) for each in positions]
            assert_same(batch, collate(alone))


def test_workers_change_nothing(utterances: list[Utterance]) -> None:
    alone, helped = batch_loader(RATE, 3, NOISY), batch_loader(RATE, 3, NOISY, num_workers=2)
    abandoned = helped.load(plan_of(utterances, 0))
    next(abandoned)  # an epoch left in its middle must not leak into the next one
    for epoch in (1, 2):
        expected = list(alone.load(plan_of(utterances, epoch)))
        for found, batch in zip(helped.load(plan_of(utterances, epoch)), expected, strict=True):
            assert_same(found, batch)
    helped.close()


def test_the_rest_of_a_plan_is_the_end_of_the_whole(utterances: list[Utterance]) -> None:
    loader = batch_loader(RATE, 3, NOISY)
    whole = list(loader.load(plan_of(utterances, 4)))
    rest = list(loader.load(plan_of(utterances, 4)[1:]))
    for found, batch in zip(rest, whole[1:], strict=True):
        assert_same(found, batch)
    assert list(loader.load([])) == []


def test_the_loader_pins_the_tensors(
    utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    (batch,) = batch_loader(RATE).load(plan_of(utterances, 0)[:1])
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    for workers in (0, 1):
        loader = batch_loader(RATE, num_workers=workers, pin_memory=True)
        (pinned,) = loader.load(plan_of(utterances, 0)[:1])
        for name in ("waveforms", "num_samples", "tokens", "token_lengths"):
            assert torch.equal(getattr(pinned, name), getattr(batch, name) + 1), name
        assert pinned.utterances == batch.utterances
        loader.close()


class Unvarying:
    """An augmentation whose noise is gone."""

    pauses = None

    def __call__(self, *arguments: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "noise.wav")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_varied_stops_in_one_line_once_its_batch_is_asked_for(
    utterances: list[Utterance], workers: int
) -> None:
    loader = batch_loader(RATE, augment=Unvarying(), num_workers=workers)  # type: ignore[arg-type]
    first, *rest = plan_of(utterances, 0)
    batches = loader.load([[replace(each, is_varied=False) for each in first], *rest])
    assert [u.id for u in next(batches).utterances] == ["u4", "u1"]
    with pytest.raises(ValueError, match=r"^cannot vary u0: noise.wav: No such file or directory$"):
        next(batches)
    loader.close()


def test_an_utterance_that_ends_its_worker_is_named(
    utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "load_example", lambda *_: os._exit(4))
    loader = batch_loader(RATE, num_workers=1)
    with pytest.raises(ValueError, match=r"^the batch of u4, u1 cannot be loaded: .* status 4 "):
        next(loader.load(plan_of(utterances, 0)))
    loader.close()


# --- what an epoch asks for --------------------------------------------------------------------


def open_one(utterances: list[Utterance], gate: Gate = no_gate) -> Window:
    windows = label_manifest(utterances, TOKENIZER, gate)
    assert windows.count() == 1
    (window,) = windows.epoch(7)
    assert list(windows.epoch(7, start=1)) == []
    assert windows.load(7, 0) is window
    return window


def test_a_manifest_is_one_window_that_every_rank_can_read(utterances: list[Utterance]) -> None:
    window = open_one(utterances)
    assert window.utterances == tuple(utterances)
    assert [list(ids) for ids in window.tokens] == [TOKENIZER.encode(u.text) for u in utterances]
    assert window.shares == (0.0, 1.0)
    planner = Planner(seed=3, batch_duration_s=1.0, rank=1, world_size=3)
    expected = plan_epoch(window.durations, seed=3, epoch=2, batch_duration_s=1.0, world_size=3)
    assert planner.batches(window, 2) == expected
    windows = ManifestWindows(window)
    assert (windows.num_utterances, windows.longest_s) == (9, 0.45)
    assert windows.seconds == pytest.approx(sum(range(1, 10)) * 0.05)


def test_what_cannot_be_learnt_is_left_out_by_name(utterances: list[Utterance]) -> None:
    bad = [
        Utterance(Path("x.wav"), "", 1.0, "empty"),
        Utterance(Path("x.wav"), "abx", 1.0, "unknown"),
    ]

    def gate(some: Sequence[Utterance], tokens: Sequence[Tokens]) -> list[Finding | None]:
        assert [u.id for u in some] == [f"u{number}" for number in range(9)]
        assert [list(ids) for ids in tokens] == [TOKENIZER.encode(u.text) for u in some]
        return [
            u.finding(Kind.INFEASIBLE, f"{len(ids)} tokens") if len(ids) > 2 else None
            for u, ids in zip(some, tokens, strict=True)
        ]

    window = open_one([*bad, *utterances], gate)
    assert window.left_out == ()
    left_out = label_manifest([*bad, *utterances], TOKENIZER, gate).left_out
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


def steps_of(window: Window, group: int = 0, **settings: int) -> list[PlannedStep]:
    planner = Planner(seed=3, batch_duration_s=0.5, **settings)
    return list(planner.steps([window], 2, group))


def test_the_steps_of_all_ranks_are_the_plan(utterances: list[Utterance]) -> None:
    window = open_one(utterances)
    settings = {"world_size": 2, "accumulate": 2}
    ranks = [steps_of(window, rank=rank, **settings) for rank in (0, 1)]
    plan = Planner(3, 0.5, 2, False, 0, 2).batches(window, 2)
    found = []
    for one, other in zip(*ranks, strict=True):
        for mine, theirs in zip(one.requests, other.requests, strict=True):
            found += [tuple(int(each.utterance.id[1:]) for each in own) for own in (mine, theirs)]
        assert (one.num_tokens, one.audio_s) == (other.num_tokens, other.audio_s)
    assert found == plan
    assert sum(step.num_utterances for step in ranks[0]) == 9
    assert sum(step.num_tokens for step in ranks[0]) == sum(len(u.text) for u in utterances)
    assert sum(step.audio_s for step in ranks[0]) == pytest.approx(sum(window.durations))
    shares = [step.epochs_done for step in ranks[0]]
    assert shares == sorted(shares)
    assert 2 < shares[0] < shares[-1] < 3
    assert steps_of(window, group=1, rank=1, **settings) == ranks[1][1:]


def test_what_is_left_out_of_a_window_is_told_with_its_first_step(
    utterances: list[Utterance],
) -> None:
    finding = Finding(Kind.TOO_LONG, "9 s", "u9")
    window = replace(open_one(utterances), left_out=(finding,))
    told = [step.left_out for step in steps_of(window)]
    assert told == [(finding,)] + [()] * (len(told) - 1)
    assert all(step.left_out == () for step in steps_of(window, group=1))
    (nothing,) = steps_of(
        replace(window, utterances=(), tokens=(), owners=()),
    )
    assert (nothing.requests, nothing.left_out) == ((), (finding,))


def test_a_place_that_a_window_has_not_is_refused(utterances: list[Utterance]) -> None:
    window = open_one(utterances)
    count = len(steps_of(window))
    assert steps_of(window, group=count) == []
    with pytest.raises(ValueError, match=f"of step {count + 1} of a window, expected at most"):
        steps_of(window, group=count + 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_one_loader_serves_one_plan_after_another(
    utterances: list[Utterance], workers: int
) -> None:
    window = open_one(utterances)
    loader = batch_loader(RATE, 4, NOISY, num_workers=workers)
    seeds = set()
    for epoch in (2, 3):
        for step in Planner(0, 1.0).steps([window], epoch):
            (batch,) = loader.load(step.requests)
            assert [u.id for u in batch.utterances] == [r.utterance.id for r in step.requests[0]]
            assert_same(batch, collate([load_example(r, RATE, 4, NOISY) for r in step.requests[0]]))
            seeds |= set(batch.seeds)
    assert len(seeds) == 2 * len(utterances)
    loader.close()
