"""Check 8: labels that cannot be learnt are named before the first step and dilute nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from asr.audio import load_audio
from asr.data.manifest import Utterance
from asr.data.splits import Splits, load_splits
from asr.recognizer import ModelSpec, Part, Recognizer
from asr.text import CharTokenizer, TextNormalizer
from asr.trainer.step import Stepper, StepResult
from tests.trainer.fitting import recipe_of, trainer_of

RATE = 8000  # [Hz]
FRAME_S = 0.02  # [s] of an output frame: the features' 10 ms, every second one
ALPHABET = "abcd"
BLANK, OUT_OF_RANGE = "dabcabcd", "dcbacbad"  # texts whose labels get a bad id


@dataclass(frozen=True)
class Case:
    """An utterance, and the kind of fault that must be found in it; None for a good one."""

    text: str
    frames: int
    kind: str | None = None


class BadIds(CharTokenizer):
    """Gives the blank or an id that no model has, as a faulty tokenizer would."""

    def encode(self, text: str) -> list[int]:
        tokens = super().encode(text)
        bad = {BLANK: 0, OUT_OF_RANGE: self.vocab_size}
        return [*tokens[:3], bad[text], *tokens[4:]] if text in bad else tokens


def without_repeats(length: int, generator: np.random.Generator) -> str:
    """A text in which no letter follows itself."""
    steps = np.cumsum(generator.integers(1, len(ALPHABET), length)) % len(ALPHABET)
    return "".join(ALPHABET[step] for step in steps)


def cases(generator: np.random.Generator) -> list[Case]:
    """100 utterances of which 14 are bad; a third of the good ones has no frame to spare."""
    made = [Case("", 9, "empty_text"), Case("...", 9, "empty_text"), Case(" ", 9, "empty_text")]
    made += [Case(text, 40, "unknown_character") for text in ("abxd", "d\u00e9a")]
    made += [Case(text, 40, "bad_label") for text in (BLANK, OUT_OF_RANGE)]
    for length in (4, 6, 9, 12):  # a frame too few
        made.append(Case(without_repeats(length, generator), length - 1, "infeasible"))
    for text, frames in (("aa", 2), ("abbcc", 6), ("dddd", 6)):  # enough but for the repeats
        made.append(Case(text, frames, "infeasible"))
    for number in range(100 - len(made)):
        text = without_repeats(int(generator.integers(2, 12)), generator)
        doubled = text + text[-1] * int(generator.integers(0, 3))
        needed = 2 * len(doubled) - len(text)
        made.append(Case(doubled, needed + (0 if number % 3 == 0 else number % 20)))
    return [made[position] for position in generator.permutation(len(made))]


@pytest.fixture
def corpus(tmp_path: Path, seed: int) -> tuple[list[Case], Path]:
    """The cases as noise of their lengths, and their manifest."""
    generator = np.random.default_rng(seed)
    made = cases(generator)
    rows = []
    for number, case in enumerate(made):
        num_samples = round((case.frames - 1) * FRAME_S * RATE)  # the last frame is centred there
        noise = 0.1 * generator.standard_normal(num_samples)
        soundfile.write(tmp_path / f"{number}.wav", noise, RATE, subtype="FLOAT")
        row = {"audio_filepath": f"{number}.wav", "text": case.text, "duration": num_samples / RATE}
        rows.append(row | {"id": f"u{number}"})
    manifest = tmp_path / "train.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made, manifest


def load(manifest: Path) -> Splits:
    good = manifest.with_name("dev.jsonl")
    soundfile.write(manifest.with_name("dev.wav"), np.zeros(RATE), RATE)
    good.write_text(json.dumps({"audio_filepath": "dev.wav", "text": "abc"}))
    text = TextNormalizer()
    return load_splits(
        str(manifest), str(good), text, ALPHABET, min_duration_s=0, notice=lambda line: None
    )


@pytest.fixture
def recognizer(seed: int) -> Recognizer:
    torch.manual_seed(seed)
    made = Recognizer(
        ModelSpec(
            Part("LogMel", {"sample_rate": RATE, "n_mels": 20}),
            Part(
                "BiLstmCtc",
                {"subsampling": 2, "channels": 4, "hidden_size": 16, "num_layers": 1, "dropout": 0},
            ),
            ALPHABET,
            {},
        )
    )
    made.tokenizer = BadIds(ALPHABET)
    return made


def ctc_by_hand(log_probs: np.ndarray, tokens: Sequence[int]) -> float:
    """-ln p(labels) [nats] by the forward recursion over blanks and labels (Graves et al. 2006)."""
    labels = [0]
    for token in tokens:
        labels += [token, 0]
    alpha = np.full(len(labels), -np.inf)
    alpha[:2] = log_probs[0, labels[:2]]
    for frame in log_probs[1:]:
        before = alpha.copy()
        for s in range(len(labels)):
            sources = [before[s]] + ([before[s - 1]] if s else [])
            if s > 1 and labels[s] not in (0, labels[s - 2]):
                sources.append(before[s - 2])
            alpha[s] = np.logaddexp.reduce(sources) + frame[labels[s]]
    return -float(np.logaddexp(alpha[-1], alpha[-2]))


@torch.no_grad()
def loss_by_hand(recognizer: Recognizer, utterances: Sequence[Utterance]) -> float:
    """The loss [nats a character] of utterances, each run alone and scored in float64."""
    nats, characters = 0.0, 0
    for utterance in utterances:
        waveform = torch.from_numpy(load_audio(utterance.audio_filepath, RATE))[None]
        log_probs, _ = recognizer(waveform, torch.tensor([waveform.shape[1]]))
        tokens = [1 + ALPHABET.index(letter) for letter in utterance.text]
        nats += ctc_by_hand(log_probs[0].double().numpy(), tokens)
        characters += len(tokens)
    return nats / characters


def test_exactly_the_bad_labels_are_left_out_and_nothing_is_diluted(
    corpus: tuple[list[Case], Path],
    recognizer: Recognizer,
    tmp_path: Path,
    survived: Callable[[str, int, int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, manifest = corpus
    splits = load(manifest)
    good = [u for u in splits.train if made[int(u.id[1:])].kind is None]
    expected_loss = loss_by_hand(recognizer, good)
    listed: list[dict[str, Any]] = []
    losses: list[float] = []
    step = Stepper.step

    def watched(self: Stepper, *arguments: Any, **named: Any) -> StepResult:
        lines = (tmp_path / "left_out.jsonl").read_text().splitlines()
        listed.extend(json.loads(line) for line in lines)
        result = step(self, *arguments, **named)
        losses.append(result.loss)
        return result

    monkeypatch.setattr(Stepper, "step", watched)
    trainer = trainer_of(max_epochs=1, accumulate=999, batch_duration_s=3.0, max_left_out=0.14)
    trainer.fit(recipe_of(recognizer, splits), tmp_path)
    assert len(losses) == 1, "all in one step"
    found = {row["id"]: row["kind"] for row in listed}
    assert len(found) == len(listed) == 14
    right = sum(found.get(f"u{number}") == case.kind for number, case in enumerate(made))
    survived("labels", right, len(made))
    assert losses[0] == pytest.approx(expected_loss, rel=1e-6, abs=0)


def test_beyond_the_share_it_stops_with_a_summary_before_the_first_step(
    corpus: tuple[list[Case], Path],
    recognizer: Recognizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Stepper, "step", lambda *_, **__: pytest.fail("it took a step"))
    message = (
        r"^14 of 100 training utterances cannot be used, expected at most 5% "
        r"\(trainer\.max_left_out\): 7 texts too long for CTC, 3 empty texts, 2 texts out of the "
        r"alphabet, 2 labels out of range; first: .*train\.jsonl:\d+: u\d+: "
    )
    with pytest.raises(ValueError, match=message):
        trainer_of().fit(recipe_of(recognizer, load(corpus[1])), tmp_path)
    assert len((tmp_path / "left_out.jsonl").read_text().splitlines()) == 14
