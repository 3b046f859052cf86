"""The doctor on hand-made corpora: every fault is found, and only that; a model listens, too."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from asr.data.checks import Examined, find_misfits
from asr.data.doctor import (
    Examination,
    Rules,
    clean_paths,
    clean_utterances,
    edges,
    examine,
    shortfall_quantity,
    write_clean,
)
from asr.data.manifest import Utterance, read_manifest
from asr.finding import Finding, Kind, Severity
from asr.text import TextNormalizer

RATE = 16_000  # [Hz]
WORDS = ["one", "two", "six", "ten", "four", "five", "nine", "zero", "three", "seven", "eight"]
Row = dict[str, Any]


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Never twice the same for two seeds; 20 dB below full scale."""
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))


def frames(seconds: float) -> int:
    """Output frames of 40 ms."""
    return int(seconds / 0.04) + 1


def required(tokens: list[int]) -> int:
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))


RULES = Rules(TextNormalizer(), None, RATE, frames, required)


class Corpus:
    """A folder with 24 good utterances, of 1.5 to 2.1 s and about 6 characters a second."""

    def __init__(self, folder: Path, name: str = "train", seed: int = 0) -> None:
        self.folder = folder
        self.manifest = folder / f"{name}.jsonl"
        self.lines: list[str] = []
        for number in range(24):
            seconds = 1.5 + 0.1 * (number % 7)
            text = " ".join(WORDS[(number + seed + step) % 11] for step in range(2 + number % 2))
            row = self.row(f"{name}{number}", text, noise(seconds, 100 * seed + number))
            self.add(row | {"speaker": f"{name} speaker {number % 3}"})

    def row(
        self, name: str, text: str, waveform: np.ndarray, rate: int = RATE, suffix: str = "wav"
    ) -> Row:
        """Writes the recording of an utterance and gives its line."""
        path = f"{name}.{suffix}"
        soundfile.write(self.folder / path, waveform, rate)
        return {
            "audio_filepath": path, "duration": len(waveform) / rate, "text": text, "id": name
        }  # fmt: skip

    def add(self, line: Row | str) -> None:
        self.lines.append(line if isinstance(line, str) else json.dumps(line))
        self.manifest.write_text("\n".join(self.lines) + "\n")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


def found(examination: Examination) -> dict[str | None, set[str]]:
    kinds: dict[str | None, set[str]] = {}
    for finding in examination.findings:
        kinds.setdefault(finding.id, set()).add(finding.kind.value)
    return kinds


def only(examination: Examination, kind: Kind) -> Finding:
    (finding,) = (each for each in examination.findings if each.kind is kind)
    return finding


def test_a_good_corpus_has_no_finding(corpus: Corpus) -> None:
    examination = examine([corpus.manifest], RULES)
    assert examination.findings == ()
    assert examination.overlaps == ()
    (manifest,) = examination.manifests
    assert manifest.lines == len(manifest.utterances) == 24
    assert manifest.seconds == pytest.approx(sum(1.5 + 0.1 * (n % 7) for n in range(24)))
    assert manifest.speakers == {"train speaker 0", "train speaker 1", "train speaker 2"}
    assert manifest.sample_rates == {RATE: 24}
    assert examination.alphabet == "".join(sorted(set(" ".join(WORDS))))


TEXT = "nine zero four"


def clipped(corpus: Corpus) -> Row:
    waveform = noise(2.0, 707)
    waveform[:320] = 1.0  # 1 % of 32,000
    return corpus.row("x", TEXT, waveform)


def damaged(content: bytes) -> Callable[[Corpus], Row]:
    def make(corpus: Corpus) -> Row:
        row = corpus.row("x", TEXT, noise(2.0, 707))
        (corpus.folder / "x.wav").write_bytes(content)
        return row

    return make


def cut(corpus: Corpus) -> Row:
    row = corpus.row("x", TEXT, noise(2.0, 707))
    path = corpus.folder / "x.wav"
    path.write_bytes(path.read_bytes()[:32_044])
    return row


def not_finite(corpus: Corpus) -> Row:
    row = corpus.row("x", TEXT, noise(2.0, 707))
    waveform = noise(2.0, 707)
    waveform[99] = np.nan
    soundfile.write(corpus.folder / "x.wav", waveform, RATE, subtype="FLOAT")
    return row


def audio(
    waveform: np.ndarray, rate: int = RATE, text: str = TEXT, **fields: object
) -> Callable[[Corpus], Row]:
    return lambda corpus: corpus.row("x", text, waveform, rate) | fields


def again(corpus: Corpus) -> Row:
    """The recording of line 1 as FLAC, under another name and with another text."""
    samples, rate = soundfile.read(corpus.folder / "train0.wav", dtype="int16")
    return corpus.row("x", TEXT, samples, rate, suffix="flac")


SILENCE = np.zeros(round(2.5 * RATE))
FAULTS: list[tuple[str, Callable[[Corpus], Row], dict[str, str]]] = [
    ("empty text", audio(noise(2, 707), text="?!"), {"empty_text": "expected at least one char"}),
    (
        "unknown character", audio(noise(2, 707), text="nine \u00e9"),
        {"unknown_character": "character '\u00e9' (U+00E9 LATIN SMALL LETTER E WITH ACUTE) not in"},
    ),
    (
        "too long a text", audio(noise(1.0, 707), text="o".join("nivrenivrenivre")),
        {"infeasible": "1.00 s give 26 output frames, expected at least 29 for its 29 characters",
         "text_rate": "29 characters in 1.00 s, 29.0 a second, expected "},
    ),
    ("missing", lambda corpus: {"audio_filepath": "x.wav", "text": TEXT, "id": "x"},
     {"missing_audio": "x.wav: no such file, expected audio"}),
    ("empty file", damaged(b""), {"unreadable_audio": "x.wav: empty file, expected audio"}),
    ("text file", damaged(b"not audio"), {"unreadable_audio": "x.wav: cannot be read as audio"}),
    ("cut", cut, {"unreadable_audio": "x.wav: cut short, 1 s of audio, expected 2 s"}),
    ("NaN", not_finite, {"unreadable_audio": "x.wav: NaN or Inf among the samples"}),
    ("offset", audio(noise(2, 707), offset=2.5), {"unreadable_audio": "offset 2.5 s, expected"}),
    ("clipped", clipped, {"clipping": "1.00 % of the samples at full scale, expected at most 0.1"}),
    ("zeros", audio(np.zeros(32_000)), {"silence": "nothing but zeros, expected -60 dBFS"}),
    ("faint", audio(noise(2, 707) / 500), {"silence": "-74 dBFS, expected -60 dBFS or more"}),
    (
        "silence first", audio(np.concatenate([SILENCE, noise(2, 707)])),
        {"edge_silence": "2.5 s of silence before the speech, expected at most 2 s"},
    ),
    (
        "silence last", audio(np.concatenate([noise(2, 707), SILENCE])),
        {"edge_silence": "2.5 s of silence after the speech, expected at most 2 s"},
    ),
    (
        "8 kHz", audio(noise(2, 707, 8000), 8000),
        {"low_rate": "8000 Hz, expected 16000 Hz or more: nothing is in it above 4000 Hz",
         "mixed_rate": "8000 Hz, expected 16000 Hz as 24 of 25"},
    ),
    ("22 kHz", audio(noise(2, 707, 22_050), 22_050), {"mixed_rate": "22050 Hz, expected 16000 Hz"}),
    ("shorter", audio(noise(2, 707), duration=2.5), {"wrong_duration": "2.00 s of audio, exp"}),
    (
        "longer", audio(noise(2, 707), duration=1.5),
        {"wrong_duration": "2.00 s in the file, expected 1.50 s by the manifest"},
    ),
    (
        "too short", audio(noise(0.09, 707), text="o"),
        {"too_short": "0.09 s, expected 0.1 to 40 s", "duration_outlier": "0.09 s, expected 0.4"},
    ),
    (
        "too long", audio(noise(41, 707), text=" ".join(WORDS * 5)),
        {"too_long": "41.00 s, expected 0.1 to 40 s", "duration_outlier": "41.00 s, expected 0.4"},
    ),
    ("slow", audio(noise(4, 707), text="six"), {"text_rate": "3 characters in 4.00 s, 0.8 a"}),
    (
        "same audio", again,
        {"duplicate_audio": "audio of line 1 (train0) again, with another text, expected each"},
    ),
    (
        "same text", audio(noise(1.5, 707), text="one two", speaker="train speaker 0"),
        {"duplicate_text": "speaker, text and duration of line 1 (train0) again"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "expected"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS]
)
def test_each_fault_is_found_and_nothing_else(
    make: Callable[[Corpus], Row], expected: dict[str, str], corpus: Corpus
) -> None:
    alphabet = examine([corpus.manifest], RULES, headers_only=True).alphabet
    corpus.add(make(corpus))
    rules = Rules(TextNormalizer(), alphabet, RATE, frames, required)
    examination = examine([corpus.manifest], rules)
    assert found(examination) == {"x": set(expected)}
    for finding in examination.findings:
        assert expected[finding.kind.value] in finding.reason
        assert "\n" not in finding.reason
        assert finding.place == f"{corpus.manifest}:25"


def test_headers_only_decodes_nothing(corpus: Corpus) -> None:
    corpus.add(cut(corpus))
    (corpus.folder / "x.wav").rename(corpus.folder / "cut.wav")
    corpus.lines[-1] = corpus.lines[-1].replace("x.wav", "cut.wav")
    corpus.add(clipped(corpus) | {"id": "clipped"})
    headers = examine([corpus.manifest], RULES, headers_only=True)
    assert found(headers) == {"x": {"wrong_duration"}}  # the file ends early
    assert all(each.level_db is None for each in headers.manifests[0].utterances)
    decoded = examine([corpus.manifest], RULES)
    assert found(decoded) == {"x": {"unreadable_audio"}, "clipped": {"clipping"}}
    assert all(each.level_db is not None for each in decoded.manifests[0].utterances[:24])


def test_lines_that_cannot_be_read_and_ids_that_occur_twice(corpus: Corpus) -> None:
    corpus.add("{no JSON")
    corpus.add(corpus.row("y", TEXT, noise(2.0, 8)) | {"id": "train3"})
    examination = examine([corpus.manifest], RULES)
    assert [
        str(finding).removeprefix(f"{corpus.manifest}:") for finding in examination.findings
    ] == [
        "25: bad JSON at column 2 (Expecting property name enclosed in double quotes)",
        "26: train3: id 'train3' is that of line 4 already",
    ]
    assert examination.manifests[0].lines == 26


def test_the_fastest_speed_decides_what_is_feasible(corpus: Corpus) -> None:
    corpus.add(corpus.row("x", "nive" * 6, noise(0.96, 707)))  # 25 frames for 24, 22 at speed 1.1
    assert "infeasible" not in found(examine([corpus.manifest], RULES)).get("x", set())
    fast = Rules(TextNormalizer(), None, RATE, frames, required, speed=1.1)
    finding = only(examine([corpus.manifest], fast), Kind.INFEASIBLE)
    assert finding.reason.startswith("0.96 s give 22 output frames at speed 1.1, expected at least")


def test_parts_of_a_file_are_neither_duplicates_nor_of_a_wrong_duration(corpus: Corpus) -> None:
    soundfile.write(corpus.folder / "whole.wav", noise(6.0, 9), RATE)
    for number in range(3):
        part = {"audio_filepath": "whole.wav", "offset": 2.0 * number, "duration": 2.0}
        corpus.add(part | {"text": TEXT + " o" * number, "id": f"part{number}"})
    assert examine([corpus.manifest], RULES).findings == ()
    corpus.add(part | {"text": TEXT, "id": "part3"})
    finding = only(examine([corpus.manifest], RULES), Kind.DUPLICATE_AUDIO)
    assert (finding.id, finding.reason) == (
        "part3", "audio of line 27 (part2) again, with another text, expected each once",
    )  # fmt: skip


def test_what_splits_share(corpus: Corpus) -> None:
    folder = corpus.folder / "other"
    folder.mkdir()
    dev = Corpus(folder, "dev", seed=5)
    corpus.add(corpus.row("leak", "two one", noise(2.0, 77)) | {"speaker": "dev speaker 2"})
    dev.add(dev.row("copy", "two one", noise(2.0, 77)))
    examination = examine([corpus.manifest, dev.manifest], RULES)
    speakers, texts, audio = examination.overlaps
    assert (speakers.what, speakers.shared, speakers.total) == ("speakers", 1, 3)
    assert speakers.examples == ("dev speaker 2",)
    assert speakers.share == pytest.approx(1 / 3)
    own = [json.loads(line)["text"] for line in corpus.lines]
    others = [json.loads(line)["text"] for line in dev.lines]
    assert (texts.what, texts.total) == ("texts", 25)
    assert texts.shared == sum(text in own for text in others)
    assert (audio.what, audio.shared, audio.total, audio.examples) == ("audio", 1, 25, ("copy",))
    finding = only(examination, Kind.AUDIO_OVERLAP)
    assert (finding.manifest, finding.id) == (corpus.manifest, "leak")
    assert f"{dev.manifest}:25 (copy)" in finding.reason
    assert only(examination, Kind.SPEAKER_OVERLAP).reason.startswith("1 of 3 speakers of ")
    assert only(examination, Kind.TEXT_OVERLAP).line is None


def test_the_first_manifest_gives_the_alphabet(corpus: Corpus, tmp_path: Path) -> None:
    dev = tmp_path / "dev.jsonl"
    dev.write_text(json.dumps(corpus.row("d", "nine \u00fcber", noise(2.0, 8))) + "\n")
    finding = only(examine([corpus.manifest, dev], RULES), Kind.UNKNOWN_CHARACTER)
    assert (finding.manifest, finding.id) == (dev, "d")
    assert "character 'b' (U+0062 LATIN SMALL LETTER B) and 1 more" in finding.reason


def test_a_manifest_without_any_character(tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    soundfile.write(tmp_path / "a.wav", noise(1.0), RATE)
    manifest.write_text('{"audio_filepath": "a.wav", "text": "..."}\n')
    examination = examine([manifest], RULES)
    assert (examination.alphabet, found(examination)) == ("", {"a.wav": {"empty_text"}})


@pytest.mark.parametrize("jobs", [1, 4])
def test_any_number_of_threads_finds_the_same(jobs: int, corpus: Corpus) -> None:
    for number, make in enumerate((clipped, cut)):
        corpus.add(make(corpus) | {"id": f"x{number}"})
    told: list[tuple[int, int]] = []
    examination = examine(
        [corpus.manifest], RULES, jobs=jobs, progress=lambda *counts: told.append(counts)
    )
    assert told == [(number, 26) for number in range(1, 27)]
    assert examination.findings == examine([corpus.manifest], RULES).findings


def test_no_damage_to_a_file_stops_it(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    seeds = []
    for suffix in ("wav", "flac", "ogg"):
        soundfile.write(tmp_path / f"seed.{suffix}", noise(0.3), RATE)
        seeds.append((suffix, (tmp_path / f"seed.{suffix}").read_bytes()))
    rows = []
    for number in range(150):
        suffix, content = seeds[number % 3]
        mutant = bytearray(content)
        for position in generator.integers(0, min(len(mutant), 200), 3):
            mutant[position] = generator.integers(256)
        if number % 5 == 0:
            del mutant[int(generator.integers(len(mutant))) :]
        (tmp_path / f"{number}.{suffix}").write_bytes(mutant)
        rows.append({"audio_filepath": f"{number}.{suffix}", "text": "o"})
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    examination = examine([manifest], RULES)
    assert len(examination.manifests[0].utterances) == 150
    unreadable = [f for f in examination.findings if f.kind is Kind.UNREADABLE_AUDIO]
    assert 30 < len(unreadable) < 150
    assert all("\n" not in finding.reason for finding in examination.findings)


# Cleaning.


def dirty(corpus: Corpus) -> Examination:
    corpus.add("{no JSON")
    corpus.add(corpus.row("empty", "", noise(2.0, 8)))
    corpus.add(clipped(corpus) | {"id": "clipped", "note": "kept"})
    return examine([corpus.manifest], RULES)


@pytest.mark.parametrize(
    ("also", "dropped"), [((), {"empty"}), ((Kind.CLIPPING,), {"empty", "clipped"})]
)
def test_a_cleaned_manifest_is_without_the_errors_and_else_the_same(
    also: Sequence[Kind], dropped: set[str], corpus: Corpus, tmp_path: Path
) -> None:
    examination = dirty(corpus)
    target = tmp_path / "clean.jsonl"
    (left,) = write_clean(examination, [target], also)
    before = {each.utterance.id: each.utterance for each in
              examination.manifests[0].utterances}  # fmt: skip
    cleaned = read_manifest(target)
    assert left == len(cleaned)
    assert [u.id for u in cleaned] == [name for name in before if name not in dropped]
    assert all(utterance == before[utterance.id] for utterance in cleaned)
    again = examine([target], RULES)
    assert not [f for f in again.findings if f.kind.severity is Severity.ERROR]


def test_nothing_left_is_no_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"audio_filepath": "a.wav", "text": "one"}\n')
    examination = examine([manifest], RULES)
    assert clean_utterances(examination, examination.manifests[0]) == []
    with pytest.raises(ValueError, match=r"m\.jsonl: no utterance is left"):
        write_clean(examination, [tmp_path / "clean.jsonl"])
    assert not (tmp_path / "clean.jsonl").exists()


def test_where_cleaned_manifests_go(tmp_path: Path) -> None:
    train, dev = tmp_path / "train.csv", tmp_path / "dev.jsonl"
    assert clean_paths([train], tmp_path / "x.jsonl") == [tmp_path / "x.jsonl"]
    folder = tmp_path / "clean"
    assert clean_paths([train, dev], folder) == [folder / "train.jsonl", folder / "dev.jsonl"]
    with pytest.raises(ValueError, match=r"x\.csv: not a name for a manifest"):
        clean_paths([train], tmp_path / "x.csv")
    with pytest.raises(ValueError, match=r"dev\.jsonl: is examined, expected another"):
        clean_paths([dev], tmp_path / "a" / ".." / "dev.jsonl")
    with pytest.raises(ValueError, match=r"dev\.jsonl: is examined, expected another"):
        clean_paths([train, dev], tmp_path)
    with pytest.raises(ValueError, match=r"dev\.jsonl: two manifests would be written to it"):
        clean_paths([dev, tmp_path / "b" / "dev.tsv"], folder)


# Histograms.


@pytest.mark.parametrize("is_log", [False, True])
def test_bins_are_of_equal_width_or_ratio(is_log: bool) -> None:
    low, high = 0.1, 39.9
    bounds = edges(low, high, 12, is_log)
    steps = [b / a if is_log else b - a for a, b in pairwise(bounds)]
    assert len(steps) == 12
    assert steps == pytest.approx([(high / low) ** (1 / 12) if is_log else (high - low) / 12] * 12)
    assert (bounds[0], bounds[-1]) == (low, high)


@pytest.mark.parametrize("is_log", [False, True])
def test_no_value_lies_outside_of_the_bins(is_log: bool) -> None:
    values = np.random.default_rng(0).uniform(0.1, 40.0, (200, 2))
    for low, high in np.sort(values).tolist():  # e^log(x) is below or above half of them
        assert np.histogram([low, high], edges(low, high, 40, is_log))[0].sum() == 2
        assert np.histogram([low, low], edges(low, low, 40, is_log))[0].sum() == 2


# The doctor with a model that listens: whom it hears, and what becomes of what it says.


WITH_MODEL = Rules(TextNormalizer(), "abc ", RATE, lambda seconds: int(seconds / 0.04), len)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three utterances that a training can take, and four that it cannot."""
    texts = {"good": "A b", "wrong": "ab", "refused": "b c", "long": "a", "empty": ".", "x": "x"}
    rows = []
    for number, (name, text) in enumerate(texts.items()):
        seconds = 41 if name == "long" else 1 + number / 10
        noise = 0.1 * np.random.default_rng(number).standard_normal(int(seconds * RATE))
        soundfile.write(tmp_path / f"{name}.wav", noise, RATE)
        rows.append({"audio_filepath": f"{name}.wav", "text": text, "id": name})
    rows.append({"audio_filepath": "gone.wav", "text": "a", "id": "gone"})
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_model_runs_on_what_nothing_else_is_wrong_with(manifest: Path) -> None:
    asked: list[tuple[str, str]] = []

    def shortfall(utterance: Utterance, text: str) -> float:
        asked.append((utterance.id, text))
        if utterance.id == "refused":
            raise ValueError("text: every path of its labels has probability 0, expected more")
        return {"good": 0.5, "wrong": 0.51}[utterance.id]

    rules = replace(WITH_MODEL, shortfall=shortfall, max_shortfall=0.5)
    examination = examine([manifest], rules)
    assert asked == [("good", "a b"), ("wrong", "ab"), ("refused", "b c")]
    misfits = [each for each in examination.findings if each.kind is Kind.TEXT_MISFIT]
    assert [(each.id, each.line, each.reason) for each in misfits] == [
        (
            "wrong",
            2,
            "0.51 nats a frame behind the model's own path, expected at most 0.50 of a right text",
        ),
        ("refused", 3, "text: every path of its labels has probability 0, expected more"),
    ]
    assert shortfall_quantity(0.5).values(examination.manifests[0]) == [0.5, 0.51]
    plain = examine([manifest], WITH_MODEL)
    assert set(plain.findings) == set(examination.findings) - set(misfits)
    assert shortfall_quantity(math.inf).values(plain.manifests[0]) == []


def test_where_nothing_is_decoded_no_model_runs(manifest: Path) -> None:
    def shortfall(utterance: Utterance, text: str) -> float:
        raise AssertionError("headers were to be read only")

    rules = replace(WITH_MODEL, shortfall=shortfall, max_shortfall=0.5)
    assert examine([manifest], rules, headers_only=True).findings == (
        examine([manifest], WITH_MODEL, headers_only=True).findings
    )


def examined(shortfalls: list[float | None]) -> list[Examined]:
    utterance = Utterance(Path("a.wav"), "a", 1.0, "a", manifest=Path("m"))
    return [
        Examined(replace(utterance, line=line), "a", None, 1.0, 25, 1, shortfall)
        for line, shortfall in enumerate(shortfalls, start=1)
    ]


@pytest.mark.parametrize(
    ("shortfalls", "lines"),
    [
        pytest.param([0.0] * 25 + [0.69, 0.71], [27], id="a good model"),
        # Median 0.6, median deviation 0.1: 0.6 + 3 * 0.14826 = 1.04.
        pytest.param([0.5, 0.6, 0.7] * 10 + [1.04, 1.05, None], [32], id="a poor model"),
        pytest.param([2.0] * 25 + [1.4, 1.41], [*range(1, 26), 27], id="wrong texts everywhere"),
        pytest.param([0.9] * 18 + [0.5], [*range(1, 19)], id="too few to compare"),
        pytest.param([None] * 30, [], id="no model"),
    ],
)
def test_the_limit_by_hand(shortfalls: list[float | None], lines: list[int]) -> None:
    assert [finding.line for finding in find_misfits(examined(shortfalls), 0.7)] == lines
