"""Decoding to the words of a lexicon only, by flashlight-text and KenLM."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asr.decoder.beam_search import check_beam, utterances_of
from asr.decoder.greedy import Hypothesis, collapse
from asr.decoder.ngram import UNKNOWN
from asr.decoder.ngram_file import Form, form_of, load_ngram_model, save_ngram_model
from asr.decoder.token_trie import SPACE
from asr.memory import require_memory
from asr.text import BLANK_ID, CharTokenizer
from asr.untrusted import open_regular, shown, unpacked, whole_lines

NEEDS = "flashlight-text is not installed: pip install 'lstm-asr[decode]' (Python 3.11 or 3.12)"

MAX_REASON_LENGTH = 300  # characters of KenLM's own message
IMPOSSIBLE = -1e30  # in float32, where flashlight-text adds scores up


class LexiconBeamSearch:
    """Finds the likeliest sequence of words of a lexicon, with KenLM as the language model.

    flashlight-text walks the lexicon as a tree of spellings. A hypothesis has the log-probability
    of its best alignment, not the sum over all; score = log P(alignment | audio) + lm_weight * log
    P(words) + word_bonus * words [nats].

    Args:
        alphabet: of the model, with a space.
        lexicon: a file of one word a line; None for the words of the language model that the
            alphabet can write.
        language_model: ARPA, gzip or not, `.ngram`, or a binary file of KenLM, which needs a
            lexicon; None for none.
        lm_weight: what its log-probabilities count, at least 0.
        word_bonus: for each word [nats].
        beam_size: partial hypotheses that are kept from frame to frame.
        nbest: hypotheses for an utterance, at most.
        max_tokens: labels that are tried in a frame, the likeliest ones.
        beam_threshold: what is so much worse than the best is dropped [nats].

    Attributes:
        unwritable: words of the language model that the alphabet cannot write.

    Raises:
        ValueError: flashlight-text is not installed, a setting is out of range, there are no words,
            or the alphabet cannot write one of the lexicon's.
        OSError: a file that cannot be read.
    """

    def __init__(
        self,
        alphabet: str,
        lexicon: Path | str | None = None,
        language_model: Path | str | None = None,
        lm_weight: float = 0.5,
        word_bonus: float = 1.0,
        beam_size: int = 50,
        nbest: int = 1,
        max_tokens: int = 40,
        beam_threshold: float = 25.0,
    ) -> None:
        check_beam(beam_size, nbest, max_tokens, beam_threshold, lm_weight)
        try:
            from flashlight.lib.text import decoder, dictionary
            from flashlight.lib.text.decoder import kenlm
        except ImportError as error:
            raise ValueError(NEEDS) from error
        self.alphabet, self.beam_size, self.nbest = alphabet, beam_size, nbest
        self.max_tokens, self.beam_threshold = max_tokens, beam_threshold
        self.word_bonus = word_bonus
        self._tokenizer = CharTokenizer(alphabet)
        if SPACE not in alphabet:
            raise ValueError("the model's alphabet has no space, which a lexicon needs")
        self._space = self._tokenizer.encode(SPACE)[0]
        lm_path = None if language_model is None else Path(language_model)
        self.unwritable: list[str] = []
        if lexicon is not None:
            words = _read_lexicon(Path(lexicon), self._tokenizer)
        elif lm_path is not None:
            words, self.unwritable = load_ngram_model(lm_path).written_in(alphabet)
        else:
            raise ValueError("a lexicon search needs a lexicon or a language model")
        # The parts of flashlight-text's decoder are kept, as it only refers to them.
        self._dictionary: Any = dictionary.Dictionary([*words, UNKNOWN])
        if lm_path is None:
            self._lm: Any = decoder.ZeroLM()
        elif form_of(lm_path) != Form.COMPACT:
            self._lm = _load_kenlm(kenlm, lm_path, self._dictionary)
        else:
            with tempfile.TemporaryDirectory() as folder:
                arpa = Path(folder) / "lm.arpa"
                save_ngram_model(arpa, load_ngram_model(lm_path))
                self._lm = _load_kenlm(kenlm, arpa, self._dictionary)
        self._decoder = self._build(decoder, words, 0.0 if lm_path is None else lm_weight)

    def _build(self, library: Any, words: list[str], lm_weight: float) -> Any:
        """Build flashlight-text's decoder with a tree of the words' spellings."""
        self._trie = library.Trie(len(self.alphabet) + 1, self._space)
        start = self._lm.start(False)
        for number, word in enumerate(words):
            _, score = self._lm.score(start, number)
            spelling = [*self._tokenizer.encode(word), self._space]
            self._trie.insert(spelling, number, score)
        self._trie.smear(library.SmearingMode.MAX)
        options = library.LexiconDecoderOptions(
            beam_size=self.beam_size,
            beam_size_token=self.max_tokens,
            beam_threshold=self.beam_threshold,
            # KenLM says log10.
            lm_weight=lm_weight * math.log(10),
            word_score=self.word_bonus,
            unk_score=-math.inf,
            sil_score=0.0,
            log_add=False,
            criterion_type=library.CriterionType.CTC,
        )
        return library.LexiconDecoder(
            options, self._trie, self._lm, self._space, BLANK_ID, len(words), [], False
        )

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        """Decode a batch.

        Args:
            log_probs: `(B, T, V)` [nats].
            lengths: `(B,)` int64 [output frames].

        Returns:
            For each utterance its hypotheses, best first, no two of them with the same tokens. An
            utterance in which no word fits has the empty one.

        Raises:
            ValueError: as `BeamSearch` does.
        """
        utterances = utterances_of(log_probs, lengths, self.alphabet)
        return [self._decode(utterance) for utterance in utterances]

    def _decode(self, log_probs: NDArray[np.float64]) -> list[Hypothesis]:
        # A word ends with a space, so one more frame is let end the last: a space or a blank, free.
        frames = np.full((len(log_probs) + 1, log_probs.shape[1]), IMPOSSIBLE, np.float32)
        frames[:-1] = np.maximum(log_probs, IMPOSSIBLE)
        frames[-1, [BLANK_ID, self._space]] = 0.0
        found: dict[tuple[int, ...], Hypothesis] = {}
        for result in self._decoder.decode(frames.ctypes.data, *frames.shape):
            # Its path has a space before the first frame and two behind the last.
            path = result.tokens[1 : len(log_probs) + 1]
            scores = log_probs[np.arange(len(path)), path].tolist()
            hypothesis = collapse(path, scores, result.score)
            # Where nothing fits, flashlight-text breaks off within a word.
            ended = [self._dictionary.get_entry(word) for word in result.words if word >= 0]
            is_complete = self._tokenizer.decode(hypothesis.tokens).split() == ended
            if result.score > IMPOSSIBLE and is_complete:
                found.setdefault(hypothesis.tokens, hypothesis)
        return list(found.values())[: self.nbest] or [Hypothesis((), (), (), (), -math.inf)]


def _load_kenlm(library: Any, path: Path, dictionary: Any) -> Any:
    """Load a language model by KenLM, which itself has no bounds: a pipe, a bomb, a sparse file."""
    if form_of(path) == Form.KENLM:
        require_memory(path.stat().st_size, str(path))
    else:
        with open_regular(path, "a language model") as file:
            for _ in whole_lines(unpacked(file, path), path):
                pass
    try:
        return library.KenLM(str(path), dictionary)
    except RuntimeError as error:
        reason = str(error)[:MAX_REASON_LENGTH]  # KenLM quotes lines of any length
        raise ValueError(f"{path}: KenLM cannot read it: {reason}") from error


def _read_lexicon(path: Path, tokenizer: CharTokenizer) -> list[str]:
    words: dict[str, None] = {}
    with open_regular(path, "a lexicon") as file:
        for number, line in whole_lines(file, path):
            try:
                word = line.decode().strip()
                if len(word.split()) > 1:
                    raise ValueError(f"{shown(word)}, expected one word a line")
                tokenizer.encode(word)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from error
            if word:
                words[word] = None
    if not words:
        raise ValueError(f"{path}: no words, expected one a line")
    return list(words)
