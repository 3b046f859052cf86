"""asr tune-decoder: the weights that err least are found, written, and usable."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from asr.cli.main import main
from asr.cli.tune_decoder import DevUtterance, Search
from asr.decoder import BeamSearch, Greedy
from asr.decoder.ngram_file import load_ngram_model
from asr.transcriber import Transcriber

Fails = Callable[..., str]


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That knows the words of the corpus, and prefers "c a" to "ca"."""
    path = tmp_path_factory.mktemp("lm") / "words.arpa"
    words = {"<unk>": -3.0, "<s>": -99.0, "</s>": -0.5, "a": -0.6, "b": -0.8, "c": -0.6, "ca": -2.5}
    words |= dict.fromkeys(("ab", "ba", "abc", "cab", "ac", "bac", "cb", "bca"), -1.2)
    lines = [f"{log10}\t{word}" for word, log10 in words.items()]
    head = f"\\data\\\nngram 1={len(words)}\n\n\\1-grams:\n"
    path.write_text(head + "\n".join(lines) + "\n\n\\end\\\n")
    return path


def test_what_is_found_is_written_and_used_by_evaluate(
    model_file: Path,
    corpus: Path,
    language_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "tuned"
    arguments = [
        "tune-decoder", "--model", str(model_file), "--manifest", str(corpus),
        "--lm", str(language_model), "--output", str(out), "--trials", "12", "--device", "cpu",
    ]  # fmt: skip
    assert main(arguments) == 0
    told = capsys.readouterr().out
    record = json.loads((out / "tuning.json").read_text())
    assert record["baselines"] == {"greedy": 0.0, "beam": 0.0}
    assert len(record["trials"]) == 12
    first = record["trials"][0]
    assert (first["lm_weight"], first["word_bonus"], first["unk_score"]) == (0.5, 1.0, -5.0)
    lowest = min(record["trials"], key=lambda trial: (trial["wer"], trial["cer"]))
    settings = yaml.safe_load((out / "decoder.yaml").read_text())
    for name in ("lm_weight", "word_bonus", "unk_score", "prior_weight"):
        assert settings[name] == pytest.approx(lowest[name], abs=1e-4)
    assert f"tuned    dev WER {100 * lowest['wer']:.2f} %" in told
    assert (out / "tuning.png").read_bytes().startswith(b"\x89PNG")
    again = tmp_path / "again"
    assert main([*arguments[:8], str(again), *arguments[9:]]) == 0
    assert json.loads((again / "tuning.json").read_text()) == record
    status = main(
        ["evaluate", f"decoder={out / 'decoder.yaml'}", f"model_file={model_file}",
         f"manifest={corpus}", f"paths.run_dir={tmp_path}", "name=tuned", "device=cpu"]
    )  # fmt: skip
    assert status == 0
    found = json.loads((tmp_path / "evaluate" / "tuned" / "evaluation.json").read_text())
    errors = found["words"]["errors"]
    assert errors / found["words"]["reference_length"] == pytest.approx(lowest["wer"])


def test_a_language_model_in_the_same_folder_is_named_without_it(
    model_file: Path, corpus: Path, language_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(model_file, folder / "model.safetensors")
    shutil.copy(language_model, folder / "words.arpa")
    assert main(
        ["tune-decoder", "--model", str(folder), "--manifest", str(corpus), "--trials", "1",
         "--lm", str(folder / "words.arpa"), "--output", str(folder), "--device", "cpu"]
    ) == 0  # fmt: skip
    assert yaml.safe_load((folder / "decoder.yaml").read_text())["language_model"] == "words.arpa"
    moved = folder.rename(tmp_path / "moved")
    assert isinstance(Transcriber.load(moved / "model.safetensors").decoder, BeamSearch)


def test_errors_are_those_of_each_utterance_alone(model_file: Path, language_model: Path) -> None:
    transcriber = Transcriber.load(model_file, "cpu")
    generator = torch.Generator().manual_seed(0)
    utterances = [
        DevUtterance(torch.randn(frames, 5, generator=generator).log_softmax(-1), "abc a")
        for frames in (9, 3, 14, 6, 11)
    ]
    search = Search(transcriber, load_ngram_model(language_model), language_model, 8, utterances)
    weights = {"lm_weight": 1.0, "word_bonus": 0.0, "unk_score": -2.0, "prior_weight": 0.5}
    for decoder in (Greedy(), search.beam(language_model=search.language_model, **weights)):
        words = 0
        for utterance in utterances:
            alone = Search(
                transcriber, search.language_model, language_model, 8, [utterance]
            ).errors(decoder)
            words += alone[0].errors
        assert search.errors(decoder)[0].errors == words


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--trials", "0"], "--trials 0, expected 1 or more"),
        (["--batch-duration-s", "0"], "--batch-duration-s 0.0, expected above 0"),
    ],
)
def test_settings_out_of_range_are_named(
    model_file: Path,
    corpus: Path,
    language_model: Path,
    tmp_path: Path,
    fails: Fails,
    change: list[str],
    message: str,
) -> None:
    line = fails(
        "tune-decoder", "--model", str(model_file), "--manifest", str(corpus), "--lm",
        str(language_model), "--output", str(tmp_path), *change,
    )  # fmt: skip
    assert line == message
    assert not list(tmp_path.iterdir())


def test_what_exists_is_kept_and_texts_need_words(
    model_file: Path, corpus: Path, language_model: Path, tmp_path: Path, fails: Fails
) -> None:
    tuned = tmp_path / "decoder.yaml"
    tuned.write_text("mine")
    arguments = [
        "tune-decoder", "--model", str(model_file), "--lm", str(language_model), "--output",
        str(tmp_path), "--manifest",
    ]  # fmt: skip
    line = fails(*arguments, str(corpus))
    assert line == f"{tuned} exists, expected a new --output or --overwrite"
    assert tuned.read_text() == "mine"
    silent = tmp_path / "silent.jsonl"
    row = json.loads(corpus.read_text().splitlines()[0])
    row |= {"text": "", "audio_filepath": str(corpus.parent / row["audio_filepath"])}
    silent.write_text(json.dumps(row) + "\n")
    line = fails(*arguments, str(silent), "--overwrite")
    assert line == f"{silent}: no word in its texts, expected at least one"
