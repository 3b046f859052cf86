"""A model of phones, by every command: it writes words, told apart by a language model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.cli.main import main
from asr.decoder.ngram import END, START, UNKNOWN
from asr.model_file import load_model
from asr.transcriber import Transcriber
from tests.cli.conftest import TINY, write_corpus

Fails = Callable[..., str]

# Tones stand for phones; "sea" and "see" are said alike, and "cab" in two ways.
LEXICON = """\
sea\tTC TA
see\tTC TA
ba\tTB TA
cab\tTC TA TB
cab\tTC TB
b\tTB
"""
TEXTS = ("sea", "ba b", "cab", "b sea", "ba", "b ba", "cab b", "sea ba", "b cab", "ba sea", "b")


def arpa(likely: str, unlikely: str) -> str:
    """A unigram model in which one of two words is the likelier."""
    logs = {UNKNOWN: -3, START: -99, END: -1, likely: -0.3, unlikely: -2, "ba": -1, "b": -1}
    rows = "".join(f"{value}\t{word}\n" for word, value in logs.items())
    return f"\\data\\\nngram 1={len(logs)}\n\n\\1-grams:\n{rows}\n\\end\\\n"


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lexicon, and a manifest of texts that tones say by it."""
    folder = tmp_path_factory.mktemp("phones")
    (folder / "lexicon.txt").write_text(LEXICON)
    said = {}
    for line in reversed(LEXICON.splitlines()):
        word, phones = line.split("\t")
        said[word] = phones.replace("T", "").replace(" ", "").lower()
    texts = (*TEXTS, "zebra b")  # which the lexicon has not
    audio = [" ".join(said.get(word, word[:1]) for word in text.split()) for text in texts]
    write_corpus(folder, texts, [each.replace("z", "c") for each in audio])
    return folder


@pytest.fixture(scope="module")
def trained(spoken: Path) -> Path:
    """The folder of a training of phones."""
    manifest = spoken / "train.jsonl"
    status = main(
        ["train", *TINY, f"data.train={manifest}", f"data.dev={manifest}", "name=phones",
         f"data.lexicon={spoken}/lexicon.txt", f"paths.run_dir={spoken}",
         "trainer.max_epochs=60", "trainer.validate_every=30", "trainer.max_left_out=0.2"]
    )  # fmt: skip
    assert status == 0
    return spoken / "train" / "phones"


@pytest.fixture(scope="module")
def model(trained: Path) -> str:
    return str(trained / "best.safetensors")


def test_a_text_with_a_word_that_the_lexicon_has_not_is_left_out(trained: Path) -> None:
    log = (trained / "train.log").read_text()
    assert "1 of 12 training utterances left out: 1 text out of the lexicon" in log
    assert "1 of 12 dev utterances left out: first: " in log
    assert "word 'zebra' not in the lexicon" in log


def test_the_model_file_holds_its_phones_and_its_lexicon(model: str) -> None:
    recognizer, training = load_model(Path(model))
    assert sorted(recognizer.spec.phones.values()) == ["TA", "TB", "TC"]
    assert recognizer.lexicon is not None
    assert "\n".join(recognizer.lexicon.lines()) == LEXICON.strip()
    assert recognizer.unit == "word"
    assert training["dev_cer"] < 0.1


def transcribed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["transcribe", *arguments]) == 0
    return capsys.readouterr().out.rstrip("\n").rpartition("\t")[2]


def test_transcripts_are_words(
    model: str, spoken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (spoken / "train.jsonl").read_text().splitlines()]
    clips = {row["text"]: str(spoken / row["audio_filepath"]) for row in rows}
    assert transcribed(capsys, "--model", model, clips["b cab"]) == "b cab"
    for likely, other in (("sea", "see"), ("see", "sea")):
        lm = tmp_path / f"{likely}.arpa"
        lm.write_text(arpa(likely, other))
        assert transcribed(capsys, "--model", model, "--lm", str(lm), clips["b sea"]) == (
            f"b {likely}"
        )
        hot = ("--lm", str(lm), "--hotword", f"{other}:30")
        assert transcribed(capsys, "--model", model, *hot, clips["b sea"]) == f"b {other}"
    one = tmp_path / "one.txt"
    one.write_text("see\tTC TA\nb\tTB\n")
    assert transcribed(capsys, "--model", model, "--lexicon", str(one), clips["b sea"]) == "b see"
    (word, *_) = Transcriber.load(model).transcribe_file(clips["cab b"]).words
    assert word.word == "cab"
    assert 0 <= word.start < word.end < 0.6
    assert word.confidence > 0.5


def test_evaluation_counts_words(
    model: str, spoken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lm = tmp_path / "lm.arpa"
    lm.write_text(arpa("sea", "see"))
    status = main(
        ["evaluate", f"model_file={model}", f"manifest={spoken}/train.jsonl", "name=words",
         f"paths.run_dir={tmp_path}", "decoder=beam_ngram", f"decoder.language_model={lm}"]
    )  # fmt: skip
    assert status == 0
    folder = tmp_path / "evaluate" / "words"
    evaluation = json.loads((folder / "evaluation.json").read_text())
    texts = {each["reference"]: each["hypothesis"] for each in evaluation["utterances"]}
    assert texts["b sea"] == "b sea"
    assert texts["cab b"] == "cab b"
    assert main(
        ["evaluate", f"model_file={model}", f"manifest={spoken}/train.jsonl", "name=plain",
         f"paths.run_dir={tmp_path}"]
    ) == 0  # fmt: skip
    plain = json.loads((tmp_path / "evaluate" / "plain" / "evaluation.json").read_text())
    assert plain["settings"]["decoder"] == "BeamSearch"  # greedy would be phones


def test_a_known_text_is_aligned_by_its_phones(
    model: str, spoken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "aligned"
    arguments = ["align", "--model", model, "--manifest", str(spoken / "train.jsonl")]
    main([*arguments, "--format", "json", "--output", str(output)])
    lines = [line for path in output.rglob("*.json*") for line in path.read_text().splitlines()]
    rows = [json.loads(line) for line in lines]
    (row,) = [row for row in rows if row["text"] == "b cab"]
    assert [word["word"] for word in row["words"]] == ["b", "cab"]
    assert [each["character"] for each in row["words"][1]["characters"]] == ["TC", "TA", "TB"]
    capsys.readouterr()
    assert main(["align", "--model", model, str(spoken / "00.wav"), "zebra"]) == 2
    assert "word 'zebra' not in the lexicon" in capsys.readouterr().err


def test_a_start_keeps_phones_by_name(
    model: str, spoken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lexicon = tmp_path / "more.txt"
    lexicon.write_text(LEXICON + "tau\tTA TAU\n")
    manifest = spoken / "train.jsonl"
    status = main(
        ["train", *TINY, f"data.train={manifest}", f"data.dev={manifest}", "name=more",
         f"data.lexicon={lexicon}", f"paths.run_dir={tmp_path}", f"init_from={model}",
         "trainer.max_epochs=1", "trainer.max_left_out=0.2"]
    )  # fmt: skip
    assert status == 0
    log = (tmp_path / "train" / "more" / "train.log").read_text()
    assert "phones: 4 kept ('  TB TC TA'), 1 added ('TAU'), none dropped" in log
    assert "reference  TB | TB TA" in log


def test_a_start_brings_its_lexicon(model: str, spoken: Path, tmp_path: Path) -> None:
    manifest = spoken / "train.jsonl"

    def log_of(name: str, *words: str) -> str:
        status = main(
            ["train", *TINY, f"data.train={manifest}", f"data.dev={manifest}", f"name={name}",
             f"paths.run_dir={tmp_path}", f"init_from={model}", "trainer.max_epochs=1",
             "trainer.max_left_out=0.2", *words]
        )  # fmt: skip
        assert status == 0
        return (tmp_path / "train" / name / "train.log").read_text()

    own = log_of("own")
    assert "phones: 4 kept ('  TB TC TA'), none added, none dropped" in own
    assert "reference  TB | TB TA" in own
    assert "added ('" in log_of("characters", "data.lexicon=null")
    assert main(["train", f"resume={tmp_path}/train/own", "trainer.max_epochs=2"]) == 0


def test_a_larger_lexicon_of_a_start_says_the_words_that_it_has_not(
    spoken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, lexicon = spoken / "train.jsonl", tmp_path / "large.txt"
    made = [f"{a}{b}{c}{d}" for a in "bc" for b in "ae" for c in "bcz" for d in ("", "a", "b", "c")]
    made += [f"z{word}" for word in made] + [f"{word}r" for word in made]
    sounds = {"b": "TB", "c": "TC", "z": "TC", "a": "TA", "e": "TA", "r": "TB"}
    said = [f"{word}\t{' '.join(sounds[each] for each in word)}\n" for word in made]
    lexicon.write_text(LEXICON + "".join(said))
    common = [*TINY, f"data.train={manifest}", f"data.dev={manifest}", f"paths.run_dir={tmp_path}",
              "trainer.max_epochs=1"]  # fmt: skip
    first = f"data.lexicon={lexicon}"
    assert main(["train", *common, first, "name=first", "trainer.max_left_out=0.2"]) == 0
    start = tmp_path / "start"
    start.mkdir()
    shutil.copy(tmp_path / "train" / "first" / "best.safetensors", start / "model.safetensors")
    (start / "decoder.yaml").write_text("_target_: asr.decoder.BeamSearch\n")
    assert main(["train", *common, f"init_from={start}", "name=second"]) == 0  # nothing left out
    log = (tmp_path / "train" / "second" / "train.log").read_text()
    assert "words that the lexicon has not are said as its own are (1): 'zebra'" in log
    assert f"manifest=TEST_MANIFEST decoder={start}/decoder.yaml" in log
    recognizer, _ = load_model(tmp_path / "train" / "second" / "best.safetensors")
    assert recognizer.lexicon is not None
    assert recognizer.lexicon.names(recognizer.spell("zebra")) == "TC TA TB TB TA"
    capsys.readouterr()
    clip = str(next(spoken.rglob("*.wav")))
    status = main(["transcribe", "--model", str(start), "--hotword", "zebra:50", clip])
    captured = capsys.readouterr()
    assert (status, "zebra" in captured.out) == (0, True)
    assert "said as its own are (1): 'zebra'" in captured.err
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("bazra ba\n")
    assert main(["align", "--model", str(start), clip, "zebra"]) == 0
    assert " zebra " in capsys.readouterr().out
    more = ["--phrases", str(phrases), "--decoder", "beam"]
    assert main(["transcribe", "--model", str(start), *more, clip]) == 0
    assert "said as its own are (1): 'bazra'" in capsys.readouterr().err


def test_alphabet_and_lexicon_are_one_too_many(spoken: Path, fails: Callable[..., str]) -> None:
    manifest = spoken / "train.jsonl"
    assert "data.alphabet and data.lexicon, expected one of them" in fails(
        "train", f"data.train={manifest}", f"data.dev={manifest}", f"paths.run_dir={spoken}",
        f"data.lexicon={spoken}/lexicon.txt", "data.alphabet=abc", "name=both",
    )  # fmt: skip


def test_the_doctor_holds_texts_against_the_lexicon(
    model: str, spoken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "findings.json"
    main(["doctor", "--model", model, "--json", str(report), str(spoken / "train.jsonl")])
    found = [each for each in json.loads(report.read_text())["findings"] if each["id"] == "11.wav"]
    assert ("unknown_word", "word 'zebra' not in the lexicon") in {
        (each["kind"], each["reason"]) for each in found
    }
    assert "unknown_character" not in report.read_text()


def test_a_small_model_may_have_other_words(
    model: str, spoken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Fails
) -> None:
    small, words = tmp_path / "small.safetensors", tmp_path / "words.txt"
    rows = [json.loads(line) for line in (spoken / "train.jsonl").read_text().splitlines()]
    clips = {row["text"]: str(spoken / row["audio_filepath"]) for row in rows}
    words.write_text("Bee\tTB\nzee\tTC TA\n")
    out = ("--output", str(small), "--lexicon", str(words))
    assert main(["shrink", model, *out]) == 0
    recognizer, _ = load_model(small)
    assert recognizer.lexicon is not None
    assert recognizer.lexicon.missing("bee zee sea") == ["sea"]
    assert recognizer.spec.phones == load_model(Path(model))[0].spec.phones
    capsys.readouterr()
    assert transcribed(capsys, "--model", str(small), clips["b sea"]) == "bee zee"
    small.unlink()
    words.write_text("zoo\tZ UW\n")
    assert "words.txt:1: phone 'Z', expected one of the model's, TA TB TC" in fails(
        "shrink", model, *out
    )
    assert not small.exists()


def test_a_model_of_characters_has_no_lexicon(model_file: Path, spoken: Path, fails: Fails) -> None:
    told = fails(
        "shrink", str(model_file), "--output", str(spoken / "small.safetensors"),
        "--lexicon", str(spoken / "lexicon.txt"),
    )  # fmt: skip
    assert "--lexicon has no effect on a model of characters, expected one of phones" in told
