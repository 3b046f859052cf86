"""Decoders side by side: utterances a second on one core, and how many times flashlight-text's.

    OMP_NUM_THREADS=1 python -m benchmarks.decoder
    OMP_NUM_THREADS=1 python -m benchmarks.decoder --model best.safetensors --manifest dev.jsonl \
      --lm lm.arpa

Without a model the log-probabilities are random ones with the peaks of a trained model: 250 frames,
29 labels, one frame in three a letter. Texts for them and their 3-gram are made up of 5,000 words.
All decoders are timed in turn, several rounds, and the best round counts.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from asr.decoder import BeamSearch, Greedy
from asr.decoder.kneser_ney import encode, train
from asr.decoder.ngram import UNKNOWN, NgramModel
from asr.decoder.ngram_file import load_ngram_model, save_ngram_model
from tests.decoder.plain_prefix_search import PlainSearch, Worth

ALPHABET = " 'abcdefghijklmnopqrstuvwxyz"  # 29 labels with the blank
FRAMES, BEAM = 250, 50
Decode = Callable[[Tensor, Tensor], object]


def random_words(generator: np.random.Generator, count: int) -> list[str]:
    """Made-up words of 1 to 12 letters, the letters as often as in English."""
    letters = np.array(list("etaoinshrdlcumwfgypbvkjxqz"))
    shares = 1 / np.arange(3, 29)
    words: set[str] = set()
    while len(words) < count:
        length = 1 + min(11, generator.poisson(4))
        words.add("".join(generator.choice(letters, length, p=shares / shares.sum())))
    return sorted(words)


def sentences(generator: np.random.Generator, words: list[str], count: int) -> list[list[str]]:
    """Sentences in which some words are frequent, and each has its usual followers."""
    shares = 1 / np.arange(1, len(words) + 1)
    followers = generator.integers(0, len(words), (len(words), 4))
    made = []
    for _ in range(count):
        word = int(generator.choice(len(words), p=shares / shares.sum()))
        sentence = [words[word]]
        for _ in range(int(generator.integers(5, 20))):
            if generator.random() < 0.6:
                word = int(followers[word, generator.integers(4)])
            else:
                word = int(generator.choice(len(words), p=shares / shares.sum()))
            sentence.append(words[word])
        made.append(sentence)
    return made


def peaky(generator: np.random.Generator, text: str) -> np.ndarray:
    """`(FRAMES, 29)` log-probabilities that say the beginning of a text, not always surely."""
    path = np.zeros(FRAMES, np.int64)
    places = np.sort(generator.permutation(FRAMES)[: FRAMES // 3])
    # A letter that follows itself needs a frame between.
    tokens = [ALPHABET.index(letter) + 1 for letter in text][: len(places)]
    for place, token in zip(places, tokens, strict=False):
        path[place] = token
    for before, after in pairwise(range(FRAMES)):
        if path[before] == path[after] != 0:
            path[after] = 0
    logits = generator.normal(0, 1.5, (FRAMES, len(ALPHABET) + 1))
    logits[np.arange(FRAMES), path] += generator.gamma(4, 2.5, FRAMES)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def real(model: Path, manifest: Path, count: int) -> tuple[Tensor, Tensor, str]:
    """Log-probabilities of a model for the first utterances of a manifest, and its alphabet."""
    from asr.data.dataset import load_utterance
    from asr.data.manifest import read_manifest
    from asr.model_file import load_model

    recognizer, _ = load_model(model, torch.device("cpu"))
    utterances = read_manifest(manifest)[:count]
    waveforms = [
        torch.from_numpy(load_utterance(each, recognizer.features.sample_rate))
        for each in utterances
    ]
    padded = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
    with torch.inference_mode():
        log_probs, lengths = recognizer.eval()(padded, torch.tensor(list(map(len, waveforms))))
    return log_probs, lengths, recognizer.tokenizer.alphabet


def twin(decoder: BeamSearch) -> Decode:
    """The pure-Python search with a decoder's settings."""
    search = PlainSearch(BEAM, 1, decoder.max_tokens, *decoder.limits, Worth())

    def decode(log_probs: Tensor, lengths: Tensor) -> object:
        rows = log_probs.double().numpy()
        return [search(row[:n].tolist()) for row, n in zip(rows, lengths.tolist(), strict=True)]

    return decode


def lexicon_free(alphabet: str) -> Decode:
    """flashlight-text without a lexicon and without a language model."""
    from flashlight.lib.text import decoder as library

    options = library.LexiconFreeDecoderOptions(
        beam_size=BEAM, beam_size_token=len(alphabet) + 1, beam_threshold=25.0, lm_weight=0.0,
        sil_score=0.0, log_add=True, criterion_type=library.CriterionType.CTC,
    )  # fmt: skip
    lm = library.ZeroLM()
    space = alphabet.index(" ") + 1
    search = library.LexiconFreeDecoder(options, lm, space, 0, [])

    def decode(log_probs: Tensor, lengths: Tensor) -> object:
        frames = log_probs.float().contiguous().numpy()
        shape = frames.shape[-1]
        return [
            search.decode(row.ctypes.data, n, shape)
            for row, n in zip(frames, lengths.tolist(), strict=True)
        ]

    decode.kept = lm  # type: ignore[attr-defined]  # which the library only refers to
    return decode


def with_lexicon(alphabet: str, words: list[str], model: NgramModel) -> Decode:
    """flashlight-text for words of a lexicon, with the language model in KenLM."""
    from flashlight.lib.text import decoder as library
    from flashlight.lib.text.decoder import kenlm
    from flashlight.lib.text.dictionary import Dictionary

    dictionary = Dictionary([*words, UNKNOWN])
    with tempfile.TemporaryDirectory() as folder:
        save_ngram_model(Path(folder) / "lm.arpa", model)
        lm = kenlm.KenLM(str(Path(folder) / "lm.arpa"), dictionary)
    space, start = alphabet.index(" ") + 1, lm.start(False)
    trie = library.Trie(len(alphabet) + 1, space)
    for number, word in enumerate(words):
        spelling = [*(alphabet.index(letter) + 1 for letter in word), space]
        trie.insert(spelling, number, lm.score(start, number)[1])
    trie.smear(library.SmearingMode.MAX)
    options = library.LexiconDecoderOptions(
        beam_size=BEAM, beam_size_token=len(alphabet) + 1, beam_threshold=25.0,
        lm_weight=0.5 * math.log(10), word_score=1.0, unk_score=-math.inf, sil_score=0.0,
        log_add=False, criterion_type=library.CriterionType.CTC,
    )  # fmt: skip
    search = library.LexiconDecoder(options, trie, lm, space, 0, len(words), [], False)

    def decode(log_probs: Tensor, lengths: Tensor) -> object:
        # A word ends with a space: one more frame lets the last one end.
        frames = np.full((*log_probs.shape[:1], log_probs.shape[1] + 1, log_probs.shape[2]), -1e30)
        frames[:, :-1] = log_probs
        frames[:, -1, [0, space]] = 0.0
        rows = np.ascontiguousarray(frames, np.float32)
        return [
            search.decode(row.ctypes.data, n + 1, row.shape[-1])
            for row, n in zip(rows, lengths.tolist(), strict=True)
        ]

    decode.kept = lm, trie, dictionary  # type: ignore[attr-defined]
    return decode


def seconds(decode: Decode, log_probs: Tensor, lengths: Tensor) -> float:
    """Of this thread's processor for a batch [s]."""
    start = time.process_time()
    decode(log_probs, lengths)
    return time.process_time() - start


def decoders(alphabet: str, words: Sequence[str], lm: Path) -> dict[str, tuple[Decode, int]]:
    """Each decoder by name, and which share of the utterances, one in so many, it is timed on."""
    model = load_ngram_model(lm)
    plain = BeamSearch(BEAM)
    found: dict[str, tuple[Decode, int]] = {
        "flashlight-text, lexicon-free": (lexicon_free(alphabet), 4),
        "greedy": (Greedy(), 1),
        "beam": (plain, 1),
        "beam, no pruning, no skipping": (
            BeamSearch(BEAM, min_token_log_prob=-np.inf, beam_threshold=np.inf, skip_blank=1.0), 1,
        ),
        "beam, n-gram": (BeamSearch(BEAM, alphabet=alphabet, language_model=model), 1),
    }  # fmt: skip
    for count in (1, 100, 10_000):
        hotwords = dict.fromkeys(words[:count], 8.0)
        name = f"beam, hotwords: {len(hotwords):,}"
        found[name] = (BeamSearch(BEAM, alphabet=alphabet, hotwords=hotwords), 1)
    found["beam, pure Python"] = (twin(plain), 16)
    lexicon = {word: (word,) for word in model.written_in(alphabet)[0]}
    found["beam, lexicon, n-gram"] = (
        BeamSearch(BEAM, alphabet=alphabet, language_model=model, lexicon=lexicon),
        1,
    )
    # A second word for each spelling: twice as many words, all of them homophones.
    twice = lexicon | {f"{word}'": (word,) for word in lexicon}
    found["the same, two words a spelling"] = (
        BeamSearch(BEAM, alphabet=alphabet, language_model=model, lexicon=twice),
        1,
    )
    found["flashlight-text, lexicon and KenLM"] = (with_lexicon(alphabet, list(lexicon), model), 4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, help="a model file; default: random frames")
    parser.add_argument("--manifest", type=Path, help="utterances for the model")
    parser.add_argument("--lm", type=Path, help="an n-gram model; default: of made-up sentences")
    parser.add_argument("--count", type=int, default=48, help="utterances; default: 48")
    parser.add_argument("--rounds", type=int, default=3, help="the best one counts; default: 3")
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    vocabulary = random_words(generator, 15_000)
    texts = sentences(generator, vocabulary[::3], 20_000)
    alphabet = ALPHABET
    if options.model is None:
        rows = [peaky(generator, " ".join(texts[number])) for number in range(options.count)]
        log_probs = torch.from_numpy(np.stack(rows)).float()
        lengths = torch.full((options.count,), FRAMES)
    else:
        log_probs, lengths, alphabet = real(options.model, options.manifest, options.count)
    with tempfile.TemporaryDirectory() as folder:
        lm = options.lm or Path(folder) / "lm.arpa"
        if options.lm is None:
            save_ngram_model(lm, train(encode(texts), 3).model)
        allowed = set(alphabet)
        hotwords = [word for word in generator.permutation(vocabulary) if allowed.issuperset(word)]
        candidates = decoders(alphabet, hotwords, lm)
    best = dict.fromkeys(candidates, np.inf)
    for _ in range(options.rounds):
        for name, (decode, share) in candidates.items():
            own = seconds(decode, log_probs[::share], lengths[::share])
            best[name] = min(best[name], own / len(lengths[::share]))
    mean = lengths.float().mean().item()
    table = Table(
        "decoder", "utterances/s", "times lexicon-free",
        title=f"beam {BEAM}, {mean:.0f} frames, {log_probs.shape[-1]} labels, one core",
    )  # fmt: skip
    base = best["flashlight-text, lexicon-free"]
    for name, own in best.items():
        table.add_row(name, f"{1 / own:.4g}", f"{base / own:.3g}")
    Console().print(table)


if __name__ == "__main__":
    main()
