"""A corpus of the user's own: checked, refused in one line, or written for training."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.data.corpora.manifest import prepare_manifest
from asr.data.manifest import read_manifest
from asr.data.prepare import PreparedCorpus
from asr.text import TextNormalizer

RATE = 8_000  # [Hz]


class Source:
    """A folder with audio and manifests."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "source"
        self.data = root / "data"
        (self.folder / "audio").mkdir(parents=True)

    def audio(self, name: str, seconds: float = 1.0) -> str:
        """Write noise; its path as a manifest has it."""
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, round(seconds * RATE))
        soundfile.write(self.folder / "audio" / name, noise, RATE)
        return f"audio/{name}"

    def manifest(self, name: str, *records: dict[str, object] | str) -> Path:
        """Write a manifest; records without audio get a file of 1 s."""
        lines = []
        for number, record in enumerate(records):
            if isinstance(record, dict):
                audio = {"audio_filepath": self.audio(f"{Path(name).stem}{number}.wav")}
                record = json.dumps(audio | record)
            lines.append(record)
        path = self.folder / name
        path.write_text("\n".join(lines))
        return path

    def prepare(self, **arguments: object) -> PreparedCorpus:
        """Prepare the folder as `mine`."""
        if "train" not in arguments:
            arguments.setdefault("source", self.folder)
        arguments.setdefault("sample_rate", RATE)
        return prepare_manifest("mine", self.data, **arguments)  # type: ignore[arg-type]

    def rejected(self) -> list[dict[str, str]]:
        """The lines of rejected.jsonl."""
        lines = (self.data / "mine" / "rejected.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


def test_a_folder_becomes_a_corpus(source: Source) -> None:
    source.manifest(
        "train.jsonl",
        {"text": "Hello, World!", "speaker": "a", "id": "u1", "room": "small"},
        {"text": "don\u2019t", "speaker": "b"},
    )
    dev = source.audio("dev.wav", 2.0)
    (source.folder / "dev.csv").write_text(f"audio_filepath,text,speaker\n{dev},hello,c\n")
    (source.folder / "test.tsv").write_text(f"audio_filepath\ttext\n{dev}\tworld\n")
    corpus = source.prepare()
    assert corpus.alphabet == " 'dehlnortw"
    totals = [(s.name, s.utterances, s.seconds, s.speakers) for s in corpus.splits]
    assert totals == [("train", 2, 2.0, 2), ("dev", 1, 2.0, 1), ("test", 1, 2.0, 0)]
    assert corpus.splits[0].characters_per_second == (5.0, 11.0)
    train = read_manifest(corpus.folder / "train.jsonl")
    assert [(u.id, u.text, u.speaker, u.duration) for u in train] == [
        ("u1", "hello world", "a", 1.0),
        ("audio/train1.wav", "don't", "b", 1.0),
    ]
    assert train[0].extra == {"room": "small"}
    assert train[0].audio_filepath.parent == corpus.folder / "audio" / "train"
    assert corpus.notes[0] == "dev and test share 1 recordings."


def test_corpus_json_describes_what_was_prepared(source: Source) -> None:
    source.manifest("train.jsonl", {"text": "One 1"})
    corpus = source.prepare(text=TextNormalizer(lowercase=False))
    described = json.loads((corpus.folder / "corpus.json").read_text())
    assert described["alphabet"] == corpus.alphabet == " 1Oen"
    assert described["text"]["lowercase"] is False
    assert described["audio"] == {"format": "wav", "sample_rate": RATE}
    assert described["splits"]["train"]["utterances"] == 1
    assert len(described["splits"]["train"]["sha256"]) == len(described["fingerprint"]) == 64
    assert described["notes"][:2] == [
        "There is no dev split; dev_fraction takes one from train.",
        "The alphabet has 1: 1 of 1 texts, as 'One 1'. Spell out what is read as words: "
        "corpus.text.numbers=en (de, fr ...) does it for numbers, corpus.text.replace for others.",
    ]


def test_a_second_time_everything_is_already_done(source: Source) -> None:
    source.manifest("train.jsonl", {"text": "one"})
    source.manifest("dev.jsonl", {"text": "one"})
    first: list[str] = []
    second: list[str] = []
    corpus = source.prepare(say=first.append)
    before = {path: path.stat().st_mtime_ns for path in corpus.folder.glob("*.json*")}
    assert source.prepare(say=second.append) == corpus
    assert {path: path.stat().st_mtime_ns for path in corpus.folder.glob("*.json*")} == before
    assert first[-3:] == [
        "train.jsonl: 1 utterances, written",
        "dev.jsonl: 1 utterances, written",
        "corpus.json: written",
    ]
    assert second[-3:] == [
        "train.jsonl: 1 utterances, already done",
        "dev.jsonl: 1 utterances, already done",
        "corpus.json: already done",
    ]


def test_a_split_that_is_gone_is_removed(source: Source) -> None:
    source.manifest("train.jsonl", {"text": "one"})
    dev = source.manifest("dev.jsonl", {"text": "one"})
    folder = source.prepare().folder
    dev.unlink()
    lines: list[str] = []
    source.prepare(say=lines.append)
    assert not (folder / "dev.jsonl").exists()
    assert "removed 2 files of an earlier preparation" in lines
    assert len(list((folder / "audio").rglob("*.wav"))) == 1


def test_every_kind_of_bad_line_stops_in_one_line_and_is_listed(source: Source) -> None:
    short = source.audio("short.wav", 0.5)
    (source.folder / "audio" / "text.wav").write_text("no audio")
    train = source.manifest(
        "train.jsonl",
        {"text": "good"},
        "{broken",
        {"text": "?!"},
        {"text": "lost", "audio_filepath": "audio/lost.wav"},
        {"text": "short", "audio_filepath": short, "duration": 5.0},
        {"text": "no audio", "audio_filepath": "audio/text.wav"},
        {"text": "devil", "audio_filepath": "/dev/zero"},
    )
    test = source.manifest("test.jsonl", {"text": "g\u00f6d"}, {"text": "dog"})
    lines: list[str] = []
    with pytest.raises(ValueError, match="skip_bad=true leaves them out") as caught:
        source.prepare(say=lines.append)
    assert str(caught.value).startswith(f"{train}:2: bad JSON at column 2")
    assert "(and 4 more)" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len([line for line in lines if line.startswith("bad: ")]) == 5
    assert not (source.data / "mine" / "train.jsonl").exists()

    corpus = source.prepare(skip_bad=True)
    assert [(s.name, s.utterances) for s in corpus.splits] == [("train", 1), ("test", 1)]
    assert corpus.alphabet == "dgo"
    assert "7 bad utterances were left out, listed in rejected.jsonl." in corpus.notes
    reasons = {entry["where"]: entry["reason"] for entry in source.rejected()}
    assert reasons.keys() == {f"{train}:{n}" for n in range(2, 8)} | {f"{test}:1"}
    assert reasons[f"{train}:3"] == (
        "text is '?!', which the text rules leave empty, expected words"
    )
    assert reasons[f"{train}:4"] == f"{source.folder}/audio/lost.wav: no such file, expected audio"
    assert reasons[f"{train}:5"].startswith("audio lasts 0.500 s, expected 5.000 s")
    assert "cannot be read as audio" in reasons[f"{train}:6"]
    assert reasons[f"{train}:7"] == "/dev/zero: not a regular file, expected audio"
    assert reasons[f"{test}:1"].startswith(
        "text has '\u00f6' (U+00F6 LATIN SMALL LETTER O WITH DIAERESIS), which the training "
    )
    entry = next(e for e in source.rejected() if e["where"] == f"{train}:4")
    assert entry["id"] == "audio/lost.wav"


def test_rejections_of_before_do_not_stay(source: Source) -> None:
    source.manifest("train.jsonl", {"text": "one"}, "{")
    source.prepare(skip_bad=True)
    assert len(source.rejected()) == 1
    source.manifest("train.jsonl", {"text": "one"})
    source.prepare()
    assert not (source.data / "mine" / "rejected.jsonl").exists()


def test_a_given_alphabet_may_have_what_training_lacks(source: Source) -> None:
    source.manifest("train.jsonl", {"text": "god"})
    source.manifest("test.jsonl", {"text": "g\u00f6d"})
    with pytest.raises(ValueError, match=r"test\.jsonl:1: text has '\u00f6' .* the training texts"):
        source.prepare()
    assert source.prepare(alphabet="god\u00f6").alphabet == "dgo\u00f6"
    with pytest.raises(ValueError, match=r"train\.jsonl:1: text has 'g' .* the alphabet lacks"):
        source.prepare(alphabet="od\u00f6")


def test_characters_are_counted_anew_when_training_loses_some(source: Source) -> None:
    (source.folder / "audio" / "text.wav").write_text("no audio")
    source.manifest(
        "train.jsonl", {"text": "ab"}, {"text": "abc", "audio_filepath": "audio/text.wav"}
    )
    source.manifest("test.jsonl", {"text": "ab"}, {"text": "c"})
    corpus = source.prepare(skip_bad=True)
    assert corpus.alphabet == "ab"
    assert [s.utterances for s in corpus.splits] == [1, 1]


def test_nothing_left_is_said(source: Source) -> None:
    source.manifest("train.jsonl", {"text": "?"})
    with pytest.raises(ValueError, match="mine: no train utterance is left, expected at least one"):
        source.prepare(skip_bad=True)


def test_several_manifests_make_one_split(source: Source, tmp_path: Path) -> None:
    first = source.manifest("train.jsonl", {"text": "one"})
    (tmp_path / "other").mkdir()
    record = {"audio_filepath": f"{source.folder}/audio/train0.wav", "text": "two", "id": "x"}
    second = tmp_path / "other" / "train.jsonl"
    second.write_text(json.dumps(record))
    corpus = source.prepare(train=[first, str(second)])
    read = read_manifest(corpus.folder / "train.jsonl")
    assert [(u.id, u.text) for u in read] == [
        ("source/audio/train0.wav", "one"),
        ("other/x", "two"),
    ]


def test_the_same_id_in_two_manifests_is_bad(source: Source) -> None:
    first = source.manifest("a.jsonl", {"text": "one", "id": "x"})
    second = source.manifest("b.jsonl", {"text": "two", "id": "x"})
    with pytest.raises(
        ValueError, match=re.escape(f"{second}:1: id 'source/x' is that of {first}:1")
    ):
        source.prepare(train=[first, second])


def test_dev_is_taken_from_train(source: Source) -> None:
    source.manifest("train.jsonl", *({"text": "one", "speaker": f"s{n // 2}"} for n in range(10)))
    corpus = source.prepare(dev_fraction=0.2)
    train, dev = (read_manifest(split.manifest) for split in corpus.splits)
    assert (len(train), len(dev)) == (8, 2)
    assert not {u.speaker for u in train} & {u.speaker for u in dev}
    assert corpus.notes[0] == "dev was taken from train by speaker: 20.0% of its utterances."
    source.manifest("dev.jsonl", {"text": "one"})
    with pytest.raises(
        ValueError, match=r"dev_fraction is 0\.2, expected 0 as dev is .*dev\.jsonl"
    ):
        source.prepare(dev_fraction=0.2)


def test_shared_speakers_are_noted(source: Source) -> None:
    source.manifest("train.jsonl", {"text": "one", "speaker": "a"}, {"text": "one"})
    source.manifest("test.jsonl", {"text": "one", "speaker": "a"}, {"text": "one"})
    notes = source.prepare().notes
    assert "train and test share 1 speakers (a): error rates are those of known voices." in notes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": None}, "neither source nor train is given, expected one of them"),
        ({"train": "x", "source": "y"}, "source and train are both given, expected one of them"),
        ({"train": []}, "train is an empty list, expected manifests"),
        ({"train": "x.jsonl", "audio_format": "mp3"}, "audio_format is 'mp3', expected one of"),
        ({"train": "x", "sample_rate": 10}, "sample_rate is 10, expected 1000 to 384000 Hz"),
        ({"train": "x", "sample_rate": "8k"}, "sample_rate is '8k', expected 1000 to 384000 Hz"),
        ({"train": "x", "num_workers": 0}, "num_workers is 0, expected a whole number from 1 up"),
        ({"train": "x", "duration_tolerance_s": -1}, "duration_tolerance_s is -1, expected"),
        ({"train": "x", "skip_bad": "no"}, "skip_bad is 'no', expected true or false"),
        ({"train": "x", "alphabet": "aa"}, "alphabet has 'a' (U+0061 LATIN SMALL LETTER A) twice"),
        ({"train": "x"}, "x: not a manifest's name"),
    ],
)
def test_wrong_arguments(source: Source, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        source.prepare(**arguments)
    assert not (source.data / "mine").exists()


def test_folders_without_or_with_too_many_manifests(source: Source) -> None:
    with pytest.raises(ValueError, match="source: holds no manifest for training, expected one of"):
        source.prepare()
    source.manifest("train.jsonl", {"text": "one"})
    source.manifest("train.csv", "audio_filepath,text")
    with pytest.raises(ValueError, match=r"holds train\.jsonl and train\.csv, expected one"):
        source.prepare()
    with pytest.raises(FileNotFoundError):
        source.prepare(train=source.folder / "missing.jsonl")
    (source.folder / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"empty\.jsonl: holds no utterances"):
        source.prepare(train=source.folder / "empty.jsonl")


def test_a_corpus_is_not_made_from_its_own_output(source: Source) -> None:
    source.manifest("train.jsonl", {"text": "one"})
    folder = source.prepare().folder
    with pytest.raises(ValueError, match=r"train\.jsonl: lies in .*mine, which is written"):
        source.prepare(train=folder / "train.jsonl")
    assert len(read_manifest(folder / "train.jsonl")) == 1


def test_paths_of_commands_and_addresses_are_never_followed(source: Source) -> None:
    canary = source.folder / "canary"
    hostile = [
        f"touch {canary} |",
        f"$(touch {canary})",
        f"`touch {canary}`",
        f"a.wav; touch {canary}",
        "https://example.org/a.wav",
        "../../../../etc/passwd",
    ]
    train = source.manifest("train.jsonl", *({"text": "x", "audio_filepath": h} for h in hostile))
    with pytest.raises(ValueError, match="no train utterance is left"):
        source.prepare(skip_bad=True)
    assert [e["where"] for e in source.rejected()] == [f"{train}:{n}" for n in (1, 5, 2, 3, 4, 6)]
    assert not canary.exists()


def test_real_speech(speech_data: Path, tmp_path: Path) -> None:
    source = speech_data / "librispeech_dev_clean_part"
    lines = (source / "dev.jsonl").read_text().splitlines()[:3]
    records = [json.loads(line) for line in lines]
    for record in records:
        record["audio_filepath"] = str(source / record["audio_filepath"])
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(map(json.dumps, records)))
    corpus = prepare_manifest("real", tmp_path / "data", train=manifest)
    written = read_manifest(corpus.folder / "train.jsonl")
    for utterance, record in zip(written, records, strict=True):
        assert utterance.text == record["text"]
        assert utterance.duration == pytest.approx(record["duration"], abs=0.001)
        assert soundfile.info(utterance.audio_filepath).samplerate == 16_000
