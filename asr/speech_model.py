"""What transcribing needs of a model, whatever runs its network: arrays of NumPy in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from asr.lexicon import Lexicon
from asr.model_spec import ModelSpec, construct, lexicon_of
from asr.text import CharTokenizer, TextNormalizer, Unit, settled

Waveform = NDArray[np.float32]
LogProbs = NDArray[np.float32]
Lengths = NDArray[np.int64]


@dataclass(frozen=True)
class Timing:
    """How samples become frames, and what a model that reads forwards sees of the future.

    Attributes:
        sample_rate: of the waveforms [Hz].
        hop_length: between feature frames [samples].
        win_length: of a feature frame [samples].
        is_centered: frame t is centred on sample t * hop_length; False: whole windows only.
        subsampling: feature frames for one frame of the network.
        upsampling: output frames of each.
        live_extra: feature frames behind those of a step that it must see.
        live_delay: output frames by which the first step lags behind.
    """

    sample_rate: int
    hop_length: int
    win_length: int
    is_centered: bool
    subsampling: int
    upsampling: int
    live_extra: int
    live_delay: int

    @property
    def frame_shift_s(self) -> float:
        """Time between output frames [s]."""
        return self.hop_length / self.sample_rate * self.subsampling / self.upsampling

    @property
    def silence_before(self) -> int:
        """Zeros before the first sample, of which the first frames are made [samples]."""
        return (self.win_length + 1) // 2 if self.is_centered else 0

    def feature_count(self, num_samples: int) -> int:
        """Count the feature frames of a waveform."""
        if self.is_centered:
            return num_samples // self.hop_length + 1
        return max(num_samples - self.win_length + self.hop_length, 0) // self.hop_length

    def output_count(self, num_samples: int) -> int:
        """Count the output frames of a waveform."""
        return -(-self.feature_count(num_samples) // self.subsampling) * self.upsampling

    def window_length(self, num_features: int) -> int:
        """Samples of so many feature frames, one after the other."""
        return (num_features - 1) * self.hop_length + self.win_length


class SpeechModel(Protocol):
    """A network with its features, alphabet and text rules; see `Recognizer` and `OnnxModel`.

    Attributes:
        spec: the description.
        tokenizer: characters <-> ids.
        text: the transcript rules.
        lexicon: the words of a model of phones.
        timing: of its frames.
    """

    spec: ModelSpec
    tokenizer: CharTokenizer
    text: TextNormalizer
    lexicon: Lexicon | None
    timing: Timing

    def describe(self, spec: ModelSpec) -> None:
        """Take all from a description that is no network.

        Raises:
            ValueError: a lexicon, phones or rules that make no sense.
        """
        self.spec = spec
        self.tokenizer = CharTokenizer(spec.alphabet)
        self.text = construct(TextNormalizer, "text", spec.text)
        self.lexicon = lexicon_of(spec)

    @property
    def unit(self) -> Unit:
        """What its errors are counted in; of a file that does not say, as its alphabet is."""
        if self.lexicon is not None:
            return "word"
        return cast(Unit, settled(self.text, [self.tokenizer.alphabet.replace(" ", "")]).unit)

    @property
    def label_names(self) -> list[str]:
        """The characters or phones in the order of their ids, from 1."""
        return [self.spec.phones.get(each, each) for each in self.tokenizer.alphabet]

    @property
    def spellings(self) -> Mapping[str, Sequence[str]] | None:
        """The only words that it can write, and how each is spelt; None for any words."""
        return None if self.lexicon is None else self.lexicon.pronunciations

    def spell(self, text: str) -> str:
        """Write a normalised text in the characters of the alphabet: as it is, or as it is said.

        Raises:
            ValueError: a word that the lexicon has not.
        """
        return text if self.lexicon is None else self.lexicon.spell(text)

    def readable(self, spelt: str) -> str:
        """Write what `spell` gave for people: phones by their names, `DH AH | K AE T`."""
        return spelt if self.lexicon is None else self.lexicon.names(spelt)

    @property
    def sample_rate(self) -> int:
        """Of the waveforms [Hz]."""
        return self.timing.sample_rate

    @property
    def frame_shift_s(self) -> float:
        """Time between output frames [s]."""
        return self.timing.frame_shift_s

    @property
    def is_live(self) -> bool:
        """Whether it reads forwards alone, and so runs on a stream without hearing it twice."""
        ...

    @property
    def runs_on(self) -> str:
        """What runs it, for people: "cpu", "cuda:0", "onnxruntime on cpu"."""
        ...

    @property
    def num_parameters(self) -> int:
        """Numbers that were learnt."""
        ...

    def log_probs(
        self, waveforms: Sequence[Waveform], *, chunk_s: float | None = None
    ) -> tuple[LogProbs, Lengths]:
        """Run recordings of any length.

        Args:
            waveforms: at least one, each `(num_samples,)` float32 at `sample_rate`.
            chunk_s: of the longest stretch that the network needs to see at once [s], so that
                memory need not grow with a recording; None runs all as one batch.

        Returns:
            log_probs `(B, T, V)` float32 and log_prob_lengths `(B,)` int64 [output frames]; no row
            depends on the others.

        Raises:
            ValueError: they would not fit into memory.
        """
        ...

    def begin(self, num_streams: int = 1) -> Any:
        """Begin B streams, for `step`.

        Raises:
            ValueError: a model that is not live.
        """
        ...

    def step(
        self, samples: NDArray[np.float32], num_frames: Lengths, state: Any
    ) -> tuple[LogProbs, Any]:
        """Run the next feature frames of streams; all steps together give what the whole gives.

        The first samples of a stream are `timing.silence_before` zeros. A step takes the samples of
        N + `timing.live_extra` feature frames; those of the last `live_extra` come again at the
        beginning of the next step, which begins N * hop_length samples later. The first
        `timing.live_delay` output frames are of before the beginning: the caller drops them. In the
        last step zeros follow the samples, of as many frames as bring those of the delay.

        Args:
            samples: `(B, timing.window_length(N + live_extra))`, N a multiple of the subsampling.
            num_frames: `(B,)`, how many of these feature frames exist: all but in the last step.
            state: what the step before returned, or `begin`.

        Returns:
            log_probs `(B, N / subsampling * upsampling, V)` float32, and the state.
        """
        ...
