"""The shards of a training: every utterance once an epoch, and a resume that changes no bit."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, pairwise, product
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr.data.dataset import (
    Batch,
    Planner,
    Tokens,
    Window,
    batch_loader,
    label_manifest,
    load_request,
)
from asr.data.manifest import Utterance, write_manifest
from asr.data.plan import rank_batches
from asr.data.shar import INDEX_FILE, SharIndex, write_index
from asr.data.shar_writer import SharSettings, SharWriter
from asr.data.shards import (
    SharSource,
    SharWindows,
    StreamedSplits,
    load_shar,
    shard_order,
    window_bounds,
)
from asr.finding import Finding, Kind
from asr.text import CharTokenizer, TextNormalizer
from tests.data.conftest import COUNT, RATE, MakeSource
from tests.data.loading import digests, no_gate

# --- the splits of such a training ------------------------------------------------------------


Foreign = tuple[Path, list[str]]


@pytest.fixture(scope="session")
def dev(utterances: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> Path:
    manifest = tmp_path_factory.mktemp("dev") / "dev.jsonl"
    write_manifest(manifest, utterances[5:8])
    return manifest


def load(
    folder: Path, dev: Path, said: list[str] | None = None, **changes: object
) -> StreamedSplits:
    arguments: dict[str, object] = {"text": TextNormalizer(), **changes}
    notice = (said if said is not None else []).append
    return load_shar(str(folder), str(dev), notice=notice, **arguments)  # type: ignore[arg-type]


def write(utterances: list[Utterance], folder: Path, **settings: object) -> Path:
    list(SharWriter(utterances, folder, SharSettings(**settings)).write())  # type: ignore[arg-type]
    return folder


def test_with_an_index_nothing_else_is_read(
    shards: Path, dev: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("asr.data.shar.read_cuts", None)
    splits = load(shards, dev, said, shards_per_window=2)
    assert splits.alphabet == "abcd"
    assert splits.train.index.utterances == COUNT
    assert splits.train.shards_per_window == 2
    assert len(splits.dev) == 3
    assert said == []


def test_other_text_rules_count_the_alphabet_anew(shards: Path, dev: Path) -> None:
    said: list[str] = []
    text = TextNormalizer(lowercase=False)
    splits = load(shards, dev, said, text=text)
    assert splits.alphabet == "ABCDabcd"
    (line,) = said
    assert "all cuts are read once, as the alphabet was counted by other text rules" in line
    said.clear()
    assert load(shards, dev, said, text=text, alphabet="abcdABCD").alphabet == "abcdABCD"
    assert said == []


def test_a_training_takes_the_rules_that_the_shards_were_written_by(
    utterances: list[Utterance], dev: Path, tmp_path: Path
) -> None:
    rules = TextNormalizer(lowercase=False, replace=(("x", "y"),))
    folder = write(utterances, tmp_path / "shards", text=rules)
    said: list[str] = []
    splits = load(folder, dev, said)
    assert replace(splits.text, unit=rules.unit) == rules
    (line,) = said
    assert line.startswith(f"text rules are those that {folder} was prepared with: lowercase=false")
    with pytest.raises(ValueError, match=r'data\.text\.keep="-", and .*shards was prepared with'):
        load(folder, dev, text=TextNormalizer(keep="-"))


def test_without_an_index_it_is_made_once(
    utterances: list[Utterance], dev: Path, tmp_path: Path
) -> None:
    folder = write(utterances, tmp_path / "s", shard_size=20)
    before = json.loads((folder / INDEX_FILE).read_text())
    (folder / INDEX_FILE).unlink()
    said: list[str] = []
    first = load(folder, dev, said)
    assert said[0].endswith(f"no {INDEX_FILE}, all cuts are read once")
    assert f"written, 3 shards, {COUNT} utterances" in said[1]
    after = json.loads((folder / INDEX_FILE).read_text())
    for shard in before["shards"]:
        shard["recording_sha256"] = None  # its tars were not read
    assert (after["shards"], after["characters"]) == (before["shards"], before["characters"])
    said.clear()
    assert load(folder, dev, said).fingerprint() == first.fingerprint()
    assert said == []


def test_a_folder_that_cannot_keep_its_index(
    utterances: list[Utterance], dev: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(utterances[:6], tmp_path / "s", shard_size=3)
    (folder / INDEX_FILE).unlink()

    def refuse(folder: Path, index: SharIndex) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("asr.data.shards.write_index", refuse)
    said: list[str] = []
    assert load(folder, dev, said, alphabet="abcd").train.index.utterances == 6
    assert "the index is not kept (Permission denied), so the next run reads anew" in said[1]


@pytest.mark.filterwarnings(  # lhotse leaves files for the garbage collector to close
    "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"
)
def test_shards_that_lhotse_wrote(tmp_path: Path, dev: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    from lhotse.shar import SharWriter as LhotseWriter

    lhotse.set_current_audio_backend("LibsndfileBackend")
    generator = np.random.default_rng(0)
    folder = tmp_path / "foreign"
    folder.mkdir()
    waveforms = {}
    with LhotseWriter(folder, fields={"recording": "flac"}, shard_size=3) as writer:
        for number in range(7):
            samples = generator.integers(-3000, 3000, (2, RATE)).astype(np.int16)
            path = tmp_path / f"{number}.wav"
            soundfile.write(path, samples.T, RATE, subtype="PCM_16")
            recording = lhotse.Recording.from_file(path)
            supervisions = [
                lhotse.SupervisionSegment(
                    f"s{number}", recording.id, 0.0, 0.4, text="Ab c", speaker="anna"
                )
            ] * (2 if number == 5 else 1)
            cut = lhotse.MonoCut(
                f"rec/{number}.5", 0.25, 0.5, 1, supervisions=supervisions, recording=recording
            )
            writer.write(cut)
            waveforms[cut.id] = samples[1, RATE // 4 : RATE * 3 // 4] / 2**15
    said: list[str] = []
    splits = load(folder, dev, said, alphabet="abcd ")
    assert "cut rec/5.5 is no utterance: it has 2 supervisions, expected 1" in said[1]
    assert splits.train.index.utterances == 6
    seen = {}
    windows = splits.train.open(CharTokenizer("abc "), no_gate, 0)
    for window in windows.epoch(0):
        for position, utterance in enumerate(window.utterances):
            assert (utterance.text, utterance.speaker) == ("ab c", "anna")
            assert utterance.duration == 0.5
            seen[utterance.id] = load_request(window.request(0, position), RATE)
    assert seen.keys() == waveforms.keys() - {"rec/5.5"}
    for name, waveform in seen.items():
        np.testing.assert_allclose(waveform, waveforms[name], atol=2 / 2**15)  # lhotse's rounding


def test_shards_that_are_being_written(
    utterances: list[Utterance], dev: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "s"
    writing = SharWriter(utterances, folder, SharSettings(shard_size=20)).write()
    next(writing)
    writing.close()
    with pytest.raises(ValueError, match="its shards are not all written, go on with asr shar"):
        load(folder, dev)


def test_an_index_of_other_shards(utterances: list[Utterance], dev: Path, tmp_path: Path) -> None:
    folder = write(utterances, tmp_path / "s", shard_size=20)
    tar = folder / "recording.000001.tar"
    tar.rename(folder / "gone")
    with pytest.raises(ValueError, match=r"index\.json: recording\.000001\.tar is missing"):
        load(folder, dev)
    (folder / "gone").rename(tar)
    (folder / "cuts.000007.jsonl.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"index\.json: cuts\.000007\.jsonl\.gz is not in it"):
        load(folder, dev)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged index"),
        ("[]", "damaged index"),
        ("{}", "damaged index"),
        ('{"version": 2}', "version 2, expected 1"),
        ('{"version": 1, "shards": [{"cuts": 1}]}', "damaged index"),
        ('{"version": 1, "shards": [], "text": {}}', "damaged index"),
    ],
)
def test_a_damaged_index(dev: Path, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / INDEX_FILE).write_text(content)
    with pytest.raises(ValueError, match=rf"index\.json: {message}"):
        load(tmp_path, dev)


def test_an_index_cannot_lead_out_of_its_folder(shards: Path, dev: Path, tmp_path: Path) -> None:
    content = (shards / INDEX_FILE).read_text()
    (tmp_path / INDEX_FILE).write_text(content.replace("cuts.000000", "../cuts.000000"))
    with pytest.raises(ValueError, match=r"'\.\./cuts\.000000\.jsonl\.gz' is no name of cuts"):
        load(tmp_path, dev)


def test_folders_without_shards(shards: Path, dev: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no shards, expected cuts\.000000\.jsonl\.gz"):
        load(tmp_path, dev)
    (tmp_path / "cuts.000000.jsonl.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"has no recording\.000000\.tar beside it"):
        load(tmp_path, dev)
    (tmp_path / "recording.000000.tar").write_bytes(b"")
    with pytest.raises(ValueError, match="no utterance in 1 shards, expected some"):
        load(tmp_path, dev)


def test_dev_has_a_character_that_the_shards_lack(
    shards: Path, utterances: list[Utterance], tmp_path: Path
) -> None:
    manifest = tmp_path / "dev.jsonl"
    write_manifest(manifest, [Utterance(utterances[0].audio_filepath, "axe", 0.1, "u")])
    with pytest.raises(ValueError, match=r"^dev: \S+dev\.jsonl:1: u: character 'e' "):
        load(shards, manifest)


def test_the_fingerprint_is_of_both_splits(shards: Path, dev: Path, tmp_path: Path) -> None:
    base = load(shards, dev).fingerprint()
    assert load(shards, dev).fingerprint() == base
    lines = dev.read_text().splitlines(keepends=True)
    other = dev.with_name("other.jsonl")
    other.write_text("".join(lines[:2]))
    assert load(shards, other).fingerprint() != base
    assert load(shards, dev, shards_per_window=3).fingerprint() != base


def test_write_index_is_whole(tmp_path: Path) -> None:
    write_index(tmp_path, SharIndex((), {"é": 1}, {}))
    assert json.loads((tmp_path / INDEX_FILE).read_text())["characters"] == {"é": 1}


# --- the windows ------------------------------------------------------------------------------


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


def test_epoch_window_and_group_bring_back_the_very_batches(shards: Path) -> None:
    whole = digests(shards, 0, 1, 0, 0)
    assert len({line.split()[0] for line in whole}) == 3
    first = sum(line.startswith("0 ") for line in whole)
    assert digests(shards, 2, 1, 0, 0) == whole
    assert digests(shards, 0, 1, 1, 1) == whole[first + 1 :]
    fresh = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.data.loading", str(shards), *"2111"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert fresh.stdout.splitlines() == whole[first + 1 :]


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


def test_a_limit_takes_the_first_utterances_of_the_first_shards(
    shards: Path, dev: Path, make_source: MakeSource
) -> None:
    everything = [each.id for window in open_for(make_source(shards)).epoch(0)
                  for each in window.utterances]  # fmt: skip
    splits = load(shards, dev, limit=6)
    windows = splits.train.open(TOKENIZER, no_gate, 0)
    assert windows.num_utterances == 6
    assert windows.count() == 2  # of four utterances a shard
    for epoch in range(2):
        found = [each.id for window in windows.epoch(epoch) for each in window.utterances]
        assert len(found) == len(set(found)) == 6
        assert set(found) < set(everything)
    first = open_for(make_source(shards, limit=4)).load(0, 0)
    assert {each.id for each in first.utterances} < set(found)
    assert len(splits.dev) == 3
    assert load(shards, dev, limit=2).dev == splits.dev[:2]
    assert splits.fingerprint() != load(shards, dev).fingerprint()
    with pytest.raises(
        ValueError, match="2 shards for 3 processes, expected at least one for each"
    ):
        splits.train.open(TOKENIZER, no_gate, 0, 0, 3)
    with pytest.raises(ValueError, match="limit 0, expected at least 1 utterance of each split"):
        load(shards, dev, limit=0)
