"""Kaldi's folders of data: segments, splits, and entries that are commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asr.data.corpora.kaldi import Kaldi
from tests.data.corpora.conftest import Made


def test_utterances_are_parts_of_recordings(made: Made) -> None:
    made.audio("rec1.wav", seconds=2.0)
    made.audio("wav/my rec.wav", seconds=1.0)
    made.text("wav.scp", "rec1 rec1.wav\nrec2\twav/my rec.wav\n")
    made.text("text", "s1-a yes sir\ns1-b\tyes\ns2-c yes\n")
    made.text("utt2spk", "s1-a s1\ns1-b s1\ns2-c s2\n")
    made.text(
        "segments", "s1-a rec1 0 0.5\ns1-b rec1 0.5 -1\ns2-c rec2 0.0 0.25\ns2-d rec2 0.5 1\n"
    )
    corpus = made.prepare(Kaldi())
    assert {n: (u.text, u.duration, u.speaker) for n, u in made.written().items()} == {
        "s1-a": ("yes sir", 0.5, "s1"), "s1-b": ("yes", 1.5, "s1"), "s2-c": ("yes", 0.25, "s2"),
    }  # fmt: skip
    assert "source: 1 utterances have no text and were passed over." in corpus.notes


def test_folders_are_splits_by_their_names(made: Made) -> None:
    for folder in ("train_clean_5", "dev_clean_2", "local", "lang"):
        made.audio(f"{folder}/{folder}.wav")
        made.text(f"{folder}/wav.scp", f"{folder} {folder}.wav")
        made.text(f"{folder}/text", f"{folder} yes")
    (made.source / "lang" / "text").unlink()
    corpus = made.prepare(Kaldi())
    assert [each.name for each in corpus.splits] == ["train", "dev"]
    assert made.texts("dev") == {"dev_clean_2": "yes"}
    assert corpus.notes[:2] == (
        "lang has no file text and was passed over.",
        "local is not train, dev or test by its name: passed over.",
    )


def test_relative_paths_begin_in_the_folder_that_is_named(made: Made, tmp_path: Path) -> None:
    made.audio("sound/a.wav")
    made.text("data/wav.scp", "a a.wav")
    made.text("data/text", "a yes")
    layout = Kaldi(str(made.source / "sound"))
    assert made.prepare(layout, source=made.source / "data").splits[0].utterances == 1


def test_commands_are_never_run_and_named(made: Made) -> None:
    canary = made.source / "canary"
    made.audio("a.wav")
    made.text("wav.scp", f"a a.wav\nb touch {canary} |\nc | touch {canary}\nd raw.ark:17\n")
    text = made.text("text", "a yes\nb yes\nc yes\nd yes\n")
    command = re.escape(f"{text}:2: b: b is the command ")
    with pytest.raises(ValueError, match=f"{command}.*never run: write its audio to a file"):
        made.prepare(Kaldi())
    made.prepare(Kaldi(), skip_bad=True)
    assert made.texts() == {"a": "yes"}
    assert "d: d lies in the archive 'raw.ark:17'" in made.rejected()[2]
    assert not canary.exists()


def test_faults_are_named_by_line(made: Made) -> None:
    made.audio("a.wav")
    made.text("wav.scp", "r a.wav\r\n".encode("utf-8-sig"))
    made.text("segments", "a r 0 0.2\r\nb r 0.2 0.1\r\nc gone 0 1\r\nd r 0\r\ne r 0.1 0.3\r\n")
    made.text("text", "a yes\r\nb yes\r\nc yes\r\nd yes\r\ne\r\nf yes\r\na/b yes\r\n")
    made.prepare(Kaldi(), skip_bad=True)
    assert made.texts() == {"a": "yes"}
    reasons = made.rejected()
    assert reasons[0] == "b is 'r 0.2 0.1' in segments, expected recording, start and end"
    assert reasons[1] == "c: gone is not in wav.scp, expected its recording"
    assert reasons[4] == "a/b is not in segments, expected the recording that it is of"
    assert "the text rules leave empty" in reasons[5]
    made.text("wav.scp", "r a.wav\nr b.wav\n")
    with pytest.raises(ValueError, match=r"wav\.scp:2: 'r' is there already, expected each once"):
        made.prepare(Kaldi())
    (made.source / "wav.scp").unlink()
    with pytest.raises(ValueError, match=r"holds no wav\.scp, nor folders that do"):
        made.prepare(Kaldi())


def test_the_copy_of_a_folder(speech_cases: Path, made: Made) -> None:
    made.prepare(Kaldi(), source=speech_cases / "import-formats" / "kaldi")
    first = made.written()["251-rec1-0000"]
    assert (first.text, first.duration, first.speaker) == ("lectures", 1.535, "251")
