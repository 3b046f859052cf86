"""Inputs as they come from elsewhere, each with its right outcome: shared/cases.

The layouts of other corpora there are tested with their importers.
"""

# ruff: noqa: RUF001 - texts of many languages

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from asr.audio import find_audio, load_audio
from asr.cli.main import main
from asr.data.checks import check_file
from asr.data.manifest import read_manifest
from asr.decoder_file import read_decoder_file
from asr.features import LogMel
from asr.segment import find_segments
from asr.subtitles import columns, cues, vtt
from asr.text import TextNormalizer, settled
from asr.word import Word

RATE = 16_000
DEMO = Path(__file__).parents[1] / "runs" / "train" / "demo" / "best.safetensors"


def likeness(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """How alike two waveforms are at their best shift of up to 0.2 s; 1 is the same."""
    length = min(len(found), len(expected))
    a, b = found[:length] - found[:length].mean(), expected[:length] - expected[:length].mean()
    spectrum = np.fft.rfft(a, 2 * length) * np.conj(np.fft.rfft(b, 2 * length))
    shifts = np.abs(np.fft.irfft(spectrum))
    most = max(shifts[: RATE // 5].max(), shifts[-RATE // 5 :].max())
    return float(most / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.fixture
def case(
    speech_cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """Copies a case and makes it the working folder."""

    def copy(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(speech_cases / name, folder)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)  # a copy of what cannot be written could not be either
        monkeypatch.chdir(folder)
        return folder

    return copy


@pytest.fixture
def sentence(speech_cases: Path) -> NDArray[np.float32]:
    """What several of the cases say, 8 s."""
    return load_audio(speech_cases / "dc-offset" / "without.wav", RATE)


# --- audio --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("chained-streams-cut/chain.ogg", 16.0),
        ("chained-streams-cut/chain.opus", 16.0),
        ("chained-streams-cut/two_mp3.mp3", 16.0),
        ("mp3-length-is-a-guess/vbr_from_pipe.mp3", 8.1),
        ("mp3-length-is-a-guess/silence_first_from_pipe.mp3", 11.1),
        ("mp3-length-is-a-guess/cbr_with_cover.mp3", 8.1),
        ("flac-without-length/from_pipe.flac", 1.14),
        ("wav-size-zero/size_zero.wav", 1.14),
        ("wav-size-zero/junk_then_size_zero.wav", 1.14),
        ("wav-gsm-unseekable/gsm610.wav", 1.2),
    ],
)
def test_recordings_are_read_to_their_end(
    name: str, seconds: float, speech_cases: Path, sentence: NDArray[np.float32]
) -> None:
    waveform = load_audio(speech_cases / name, RATE)
    assert len(waveform) / RATE == pytest.approx(seconds, abs=0.2)
    if name.startswith("chained"):
        half = len(waveform) // 2
        assert likeness(waveform[:half], sentence) > 0.8
        assert likeness(waveform[half:], sentence) > 0.8


def test_an_offset_carries_no_sound(speech_cases: Path) -> None:
    features = LogMel(sample_rate=RATE)
    found = []
    for name in ("without.wav", "dc_20_percent.wav"):
        waveform = torch.from_numpy(load_audio(speech_cases / "dc-offset" / name, RATE))
        found.append(features.log_mel(waveform[None], torch.tensor([len(waveform)]))[0][0])
    difference = (found[0] - found[1])[found[0] > found[0].mean()]
    # One of them is half as loud, which is the same everywhere.
    assert (difference - difference.mean()).abs().mean() < 0.1  # 0.6 with the offset


def test_channels_that_cancel_each_other_are_not_mixed(speech_cases: Path) -> None:
    waveform = load_audio(speech_cases / "opposite-phase-stereo" / "anti.wav", RATE)
    assert np.abs(waveform).max() > 0.05


def test_samples_beyond_full_scale_are_made_softer_not_clipped(case: Callable[[str], Path]) -> None:
    folder = case("float-wav-clipped-by-prepare")
    command = ["prepare", "corpus=manifest", "corpus.name=x", "corpus.train=m.jsonl"]
    assert main(command) == 0
    (written,) = (folder / "data" / "x" / "audio" / "train").iterdir()
    prepared, _ = soundfile.read(written, dtype="float32")
    source, _ = soundfile.read(folder / "int16_range_float.wav", dtype="float32")
    assert np.mean(np.abs(prepared) > 0.99) < 1e-3
    assert likeness(prepared, source) > 0.999


def test_silence_around_speech_is_no_speech(speech_cases: Path) -> None:
    folder = speech_cases / "silence-moves-normaliser"
    lengths = []
    for name in ("short.wav", "short_1s_zeros_around.wav", "short_5s_zeros_around.wav"):
        waveform = load_audio(folder / name, RATE)
        lengths.append(sum(span.length for span in find_segments(waveform, RATE)) / RATE)
    assert max(lengths) < 2.0
    assert max(lengths[1:]) - min(lengths[1:]) < 0.1


@pytest.mark.skipif(not DEMO.exists(), reason="no model of make demo")
def test_the_demo_model_writes_what_is_said(
    speech_cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [
        "flac-without-length/from_pipe.flac", "opposite-phase-stereo/anti.wav",
        "wav-size-zero/size_zero.wav", "wav-size-zero/junk_then_size_zero.wav",
        "silence-moves-normaliser/short.wav", "nfd-file-name/a\u0308.wav",
        "silence-moves-normaliser/short_1s_zeros_around.wav",
        "silence-moves-normaliser/short_5s_zeros_around.wav",
        "float-wav-clipped-by-prepare/int16_range_float.wav",
    ]  # fmt: skip
    paths = [str(speech_cases / name) for name in names if (speech_cases / name).exists()]
    assert main(["transcribe", "--model", str(DEMO), *paths]) == 0
    texts = [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()]
    assert texts == ["two zero four"] * len(paths)


# --- files and settings -------------------------------------------------------------------------


def test_a_folder_has_recordings_of_any_kind_and_links(case: Callable[[str], Path]) -> None:
    folder = case("folder-skips-recordings")
    link = folder / "calls" / "spk1"  # a link, which not every copy keeps
    if not link.is_dir():
        link.unlink()
        link.symlink_to("../spk1")
    found, others = find_audio(folder / "calls")
    assert [path.name for path in found] == ["a.wav", "b.m4a", "c.sph", "d.wav"]
    assert others == []
    for path in found:
        assert len(load_audio(path, RATE)) > 0.5 * RATE


def test_names_in_other_encodings_and_forms(case: Callable[[str], Path]) -> None:
    folder = case("latin1-file-name")
    name = os.fsencode(folder) + b"/gr\xfc\xdfe.wav"
    os.rename(folder / "copy_me_to_a_latin1_name.wav", name)
    (found,), _ = find_audio(folder)
    assert len(load_audio(found, RATE)) > RATE
    case("nfd-file-name")
    (utterance,) = read_manifest(Path("m.jsonl"))
    fault = check_file(utterance)
    assert fault is None or "another Unicode form" in str(fault)


def test_hotwords_that_yaml_takes_for_something_else(case: Callable[[str], Path]) -> None:
    folder = case("hotwords-yaml-keys")
    assert read_decoder_file(folder / "decoder.yaml")["hotwords"] == {"no": 4, "off": 4}


def test_a_path_with_letters_beyond_ascii_is_told_in_the_quotes_that_it_needs(
    case: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    case("hydra-non-ascii-path")
    assert main(["evaluate", "model_file=m.safetensors", "manifest=\u00fcmlaut/m.jsonl"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "\"manifest='\u00fcmlaut/m.jsonl'\"" in line
    assert main(["evaluate", "model_file=m.safetensors", "manifest='\u00fcmlaut/m.jsonl'"]) == 2
    assert "m.safetensors" in capsys.readouterr().err  # the manifest was read; the model is none


def test_parts_of_a_long_recording_have_ids_of_their_own(speech_cases: Path) -> None:
    first, second = read_manifest(speech_cases / "segment-ids-collide" / "m.jsonl")
    assert first.id != second.id


def test_subtitles_of_a_language_without_spaces_and_of_markup() -> None:
    found = cues([Word("今天天气很好我们去公园散步吧" * 6, 0.2, 29.8, 1)])
    assert all(columns(line) <= 42 for cue in found for line in cue.lines)
    assert all(cue.end - cue.start <= 7.1 for cue in found)
    text = vtt([Word("r&d", 0, 1, 1), Word("<unk>", 1, 2, 1)])
    assert "r&amp;d &lt;unk&gt;" in text


# --- texts --------------------------------------------------------------------------------------


def texts_of(manifest: Path, rules: TextNormalizer) -> list[str]:
    """The texts of a manifest by some rules."""
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    return [rules(row["text"]) for row in rows]


def test_turkish_has_an_i_with_a_dot_and_one_without(speech_cases: Path) -> None:
    manifest = speech_cases / "turkish-dotted-i" / "m.jsonl"
    expected = ["iyi günler", "iyi günler", "ısparta ılık"]
    assert texts_of(manifest, TextNormalizer(language="tr")) == expected
    assert not any("\u0307" in text for text in texts_of(manifest, TextNormalizer()))


def test_joiners_and_tatweel_that_carry_nothing_go(speech_cases: Path) -> None:
    first, second, third, fourth = texts_of(
        speech_cases / "joiner-and-tatweel" / "m.jsonl", TextNormalizer()
    )
    assert (first, third) == (second, fourth) == ("foo bar", "كتاب")


def test_tags_go_where_that_is_asked_for(
    case: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = case("noise-tags-become-words")
    command = ["prepare", "corpus=manifest", "corpus.name=x", "corpus.train=m.jsonl"]
    assert main([*command, "corpus.text.drop_in='[]()'"]) == 0
    row = json.loads((folder / "data" / "x" / "train.jsonl").read_text())
    assert row["text"] == "two zero four"


@pytest.mark.parametrize(
    ("name", "rules", "expected"),
    [
        ("tr", {"language": "tr"}, {1: "ığdır soğuk bir ildir", 0: "istanbul çok güzel bir şehir"}),
        ("he", {"language": "he"}, {2: "צה״ל פרסם הודעה", 3: "ג׳ירפה גבוהה"}),
        ("he", {"language": "he", "numbers": "he"}, {7: "יש לי שלוש ספרים"}),
        ("ar", {"remove_arabic_marks": True}, {4: "مرحبا بك", 5: "السلام عليكم"}),
        ("ar", {"numbers": "ar"}, {3: "عندي ثلاثة كتب"}),
        ("hi", {}, {0: "नमस्ते आप कैसे हैं", 1: "मैं ठीक हूँ"}),
        ("vi", {}, {0: "xin chào bạn khỏe không", 5: "đà nẵng rất đẹp"}),
        ("de", {"numbers": "de"}, {2: "ich habe drei äpfel und zwölf birnen",
                                   6: "der zug fährt um acht dreißig uhr"}),
        ("en", {"numbers": "en", "drop_in": "[]<>"}, {
            1: "um i think so", 2: "he was born in nineteen eighty four", 5: "hello world",
        }),
        ("cmn", {}, {0: "你好 世界", 4: "北京是中国的首都"}),
    ],
)  # fmt: skip
def test_languages(
    name: str, rules: dict[str, object], expected: dict[int, str], speech_cases: Path
) -> None:
    texts = texts_of(speech_cases / "languages" / f"{name}.jsonl", TextNormalizer(**rules))  # type: ignore[arg-type]
    assert {place: texts[place] for place in expected} == expected
    unit = settled(TextNormalizer(), texts).unit
    assert unit == ("character" if name == "cmn" else "word")
