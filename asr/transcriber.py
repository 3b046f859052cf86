"""Audio to transcripts with word times, on one engine for files, arrays and batches."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol, overload

from asr.audio_array import AudioArray
from asr.audio_file import Source
from asr.decoder import Greedy, Hypothesis
from asr.decoder_file import build_decoder, finds_no_words, read_own_decoder
from asr.emission import (
    EACH,
    AudioProgress,
    Detector,
    End,
    Piece,
    emissions,
    like_length,
    read_pieces,
    run,
    silent,
    total_duration,
)
from asr.loading import load_speech_model
from asr.segment import PAUSE_S, PHRASE_PAUSE_S
from asr.speech_model import Lengths, LogProbs, SpeechModel
from asr.starter_model import decoder_file, model_path
from asr.stream import Decoding, Stream
from asr.text import word_spans
from asr.transcript import Alternative, Segment, Transcript
from asr.untrusted import read_stream
from asr.word import Word

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 1 << 30  # of a file object: 1 GiB, 9 hours of 16-bit samples at 16 kHz


class Decoder(Protocol):
    """Turns log-probabilities `(B, T, V)` and lengths `(B,)` into hypotheses, best first."""

    def __call__(self, log_probs: LogProbs, lengths: Lengths) -> list[list[Hypothesis]]: ...

    def stream(self, vocab_size: int, max_frames: int) -> Decoding: ...


class Transcriber:
    """Turns audio files and arrays into transcripts.

    A recording of any length is read block by block and cut in its pauses. Its segments, and those
    of other recordings, go through the network in batches of like length, each decoded by itself.

    Args:
        recognizer: a trained model.
        decoder: log-probabilities to hypotheses; None is greedy, of a model of phones a beam search
            for the words of its lexicon.
        calibrate: confidence of a word to the probability that it is right, 0 to 1 both; None
            leaves it as it is.
        detector: finds the segments of a whole waveform that have speech, which is then held as a
            whole; None is `segment.find_segments`, block by block.

    Attributes:
        pause_s: that a recording is cut in, where there is no detector [s]; longer where a decoder
            takes phrases alone, for a part of one is none of them.
    """

    def __init__(
        self,
        recognizer: SpeechModel,
        decoder: Decoder | None = None,
        calibrate: Callable[[float], float] | None = None,
        detector: Detector | None = None,
    ) -> None:
        self.recognizer = recognizer
        self.decoder = decoder or _usual_decoder(recognizer)
        self.calibrate = calibrate
        self.detector = detector
        self.pause_s = PHRASE_PAUSE_S if getattr(self.decoder, "has_phrases", False) else PAUSE_S
        self.sample_rate = recognizer.sample_rate

    @classmethod
    def load(
        cls, model_file: Path | str, device: str = "auto", decoder: Decoder | None = None
    ) -> Transcriber:
        """Load a transcriber from a model file.

        Args:
            model_file: of `asr train` or `asr export`, a run's folder, or the name of a model that
                comes with asr.
            device: "auto", "cpu" or "cuda".
            decoder: log-probabilities to hypotheses; None is the decoder.yaml of a model's folder,
                without one greedy.

        Raises:
            ValueError: no model file, no such device, or a decoder.yaml of something else.
            OSError: missing or unreadable.
        """
        path = model_path(model_file)
        own = decoder_file(path) if decoder is None else None
        settings = None if own is None else read_own_decoder(own)
        recognizer, _ = load_speech_model(path, device)
        if settings is not None and not finds_no_words(settings, recognizer):
            decoder = build_decoder(settings, recognizer, logger.warning)
        return cls(recognizer, decoder)

    @overload
    def transcribe(
        self,
        audio: list[Any] | tuple[Any, ...],
        sample_rate: int | None = None,
        *,
        channel: int | str | None = None,
        speakers: Sequence[str] = (),
        progress: AudioProgress = silent,
    ) -> list[Transcript]: ...

    @overload
    def transcribe(
        self,
        audio: Any,
        sample_rate: int | None = None,
        *,
        channel: int | str | None = None,
        speakers: Sequence[str] = (),
        progress: AudioProgress = silent,
    ) -> Transcript: ...

    def transcribe(
        self,
        audio: Any,
        sample_rate: int | None = None,
        *,
        channel: int | str | None = None,
        speakers: Sequence[str] = (),
        progress: AudioProgress = silent,
    ) -> Transcript | list[Transcript]:
        """Transcribe a recording, or a list of them.

        Args:
            audio: a path; the bytes of a file; a file that is open for reading bytes; an array of
                NumPy or a tensor, `(samples,)`, `(channels, samples)` or `(samples, channels)`,
                floats from -1 to 1 or int16; or a list of these.
            sample_rate: of arrays [Hz]; None is that of the model.
            channel: which of several is read, from 0, or "each" by itself; None for their mean.
            speakers: names of those who speak on each channel, with "each".
            progress: told how much audio is done.

        Returns:
            Its transcript; of a list, a transcript each, in order, none of which depends on the
            others.

        Raises:
            ValueError: audio that cannot be read, or that would not fit into memory.
            OSError: missing or unreadable.
        """
        is_list = isinstance(audio, list | tuple)
        sources = [self._source(each, sample_rate) for each in (audio if is_list else [audio])]
        numbered = self._transcribe(
            sources, channel, speakers, progress,
            is_ahead=not all(isinstance(each, AudioArray) for each in sources),
        )  # fmt: skip
        found: dict[int, Transcript] = {}
        for number, result in numbered:
            if isinstance(result, Exception):
                raise result
            found[number] = result
        return [found[number] for number in range(len(sources))] if is_list else found[0]

    def transcribe_file(
        self,
        source: Path | str | bytes,
        *,
        channel: int | str | None = None,
        speakers: Sequence[str] = (),
        progress: AudioProgress = silent,
    ) -> Transcript:
        """Transcribe an audio file of any length, or the bytes of one.

        Args:
            source: a path, or the bytes of a file.
            channel: which of several is read, from 0, or "each" by itself; None for their mean.
            speakers: names of those who speak on each channel, with "each".
            progress: told how much audio is done.

        Raises:
            ValueError: audio that cannot be read, or that would not fit into memory.
            OSError: missing or unreadable.
        """
        transcript: Transcript = self.transcribe(
            source, channel=channel, speakers=speakers, progress=progress
        )
        return transcript

    def transcribe_files(
        self,
        sources: Iterable[Path | str | bytes],
        *,
        channel: int | str | None = None,
        speakers: Sequence[str] = (),
        progress: AudioProgress = silent,
    ) -> Iterator[tuple[Path | str | bytes, Transcript | Exception]]:
        """Transcribe many files side by side, in memory that does not grow with their number.

        Args:
            sources: paths, or the bytes of files.
            channel: which of several is read, from 0, or "each" by itself; None for their mean.
            speakers: names of those who speak on each channel, with "each".
            progress: told how much audio is done; the headers of all files are read for it.

        Yields:
            Each source as soon as it is done, with its transcript, or with the ValueError or
            OSError of what is wrong with it, which stops no other.
        """
        given = list(sources)
        for number, result in self._transcribe(given, channel, speakers, progress):
            yield given[number], result

    def pieces(self, samples: AudioArray, number: int) -> Iterator[Piece | End]:
        """Cut a recording in its pauses, one piece after the other, for `segments`.

        Args:
            samples: the recording.
            number: of it, which its pieces bear.
        """
        return read_pieces(
            number, samples, self.sample_rate, detector=self.detector, pause_s=self.pause_s
        )

    def segments(
        self, pieces: Iterable[Piece]
    ) -> Iterator[tuple[Sequence[Piece], Sequence[Segment] | ValueError]]:
        """Transcribe pieces of any recordings together, none of which depends on the others.

        Yields:
            Pieces with a segment each, or one alone with what is wrong with it.
        """
        for batch in like_length(pieces, self.sample_rate):
            if not isinstance(batch, End):
                yield from emissions(self.recognizer, batch, self._decode)

    def stream(self, sample_rate: int | None = None) -> Stream:
        """Begin a recording that is heard while it comes: its words are known soon after them.

        A model that reads forwards, of features that do (`features=log_mel_live`), goes through
        each frame once. Others are run again and again on the last seconds: their words come later,
        and cost more.

        Args:
            sample_rate: of the samples to come [Hz]; None is that of the model.

        Raises:
            ValueError: a sample rate below 1.
        """
        vocab_size = self.recognizer.tokenizer.vocab_size
        return Stream(
            self.recognizer,
            lambda max_frames: self.decoder.stream(vocab_size, max_frames),
            self._segment,
            sample_rate,
        )

    def _source(self, audio: Any, sample_rate: int | None) -> Source:
        """What a caller names as audio, as it can be read."""
        if isinstance(audio, Path | str | bytes):
            return audio
        if isinstance(audio, bytearray | memoryview):
            return bytes(audio)
        if hasattr(audio, "read"):
            return _content(audio)
        if hasattr(audio, "ndim") and hasattr(audio, "dtype"):
            return AudioArray(audio, self.sample_rate if sample_rate is None else sample_rate)
        raise ValueError(
            f"audio of type {type(audio).__name__}, expected a path, bytes, an open file, an array "
            "or a tensor"
        )

    def _transcribe(
        self,
        sources: Sequence[Source],
        channel: int | str | None,
        speakers: Sequence[str],
        progress: AudioProgress,
        is_ahead: bool = True,
    ) -> Iterator[tuple[int, Transcript | Exception]]:
        """Yield the number of each source and its transcript, or what is wrong with it."""
        if isinstance(channel, str) and channel != "each":
            raise ValueError(f"channel {channel!r}, expected a number from 0, 'each' or None")
        if speakers and channel != "each":
            raise ValueError("speakers are named, expected channel='each'")
        read = EACH if isinstance(channel, str) else channel
        rate = self.sample_rate
        total = None if progress is silent else total_duration(sources, read)
        recordings = (
            read_pieces(number, source, rate, read, speakers, self.detector, self.pause_s)
            for number, source in enumerate(sources)
        )
        segments: dict[int, list[Segment]] = {}
        for each in run(
            self.recognizer, recordings, self._decode,
            total=total, progress=progress, is_ahead=is_ahead,
        ):  # fmt: skip
            if isinstance(each, End):
                own = segments.pop(each.number, [])
                in_order = tuple(sorted(own, key=lambda segment: segment.start))
                yield each.number, each.error or Transcript(in_order, each.num_samples / rate)
                continue
            for piece, segment in zip(*each, strict=True):
                if segment.words:
                    segments.setdefault(piece.number, []).append(segment)

    def _decode(
        self, pieces: Sequence[Piece], log_probs: LogProbs, lengths: Lengths
    ) -> list[Segment]:
        """Make a segment of each piece."""
        segments = []
        for piece, hypotheses in zip(pieces, self.decoder(log_probs, lengths), strict=True):
            start = piece.start / self.sample_rate
            end = (piece.start + len(piece.samples)) / self.sample_rate
            segment = self._segment(hypotheses, start, end)
            segments.append(replace(segment, channel=piece.channel, speaker=piece.speaker))
        return segments

    def _segment(self, hypotheses: Sequence[Hypothesis], start: float, end: float) -> Segment:
        """Make a segment of what is said from `start` to `end` [s] of a recording."""
        # Hypotheses that differ in spaces alone are one text.
        scores: dict[str, float] = {}
        for each in hypotheses:
            scores.setdefault(self.text_of(each), round(float(each.score), 4))
        alternatives = tuple(Alternative(text, score) for text, score in scores.items())
        words = tuple(self._words(hypotheses[0], start, end))
        return Segment(round(start, 3), round(end, 3), words, alternatives)

    def _words(self, hypothesis: Hypothesis, begin: float, finish: float) -> list[Word]:
        """Make words of a segment's characters, with times in the recording."""
        shift = self.recognizer.frame_shift_s
        text = self.recognizer.tokenizer.decode(hypothesis.tokens)
        words: list[Word] = []
        spans = word_spans(text, self.recognizer.unit)
        spoken = hypothesis.words
        if spoken is None:
            spoken = tuple(self._name(text[first:behind]) for first, behind in spans)
        for (first, behind), word in zip(spans, spoken, strict=True):
            mean = math.fsum(hypothesis.log_probs[first:behind]) / (behind - first)
            confidence = math.exp(mean)
            if self.calibrate is not None:
                confidence = self.calibrate(confidence)
            # The last output frames may lie past the end of the audio: padding filled them up.
            end = min(begin + hypothesis.ends[behind - 1] * shift, finish)
            earliest = words[-1].end if words else begin
            start = max(min(begin + hypothesis.starts[first] * shift, end - shift), earliest)
            times = round(start, 3), round(end, 3)
            is_joined = first > 0 and text[first - 1] != " "
            words.append(Word(word, *times, round(confidence, 4), is_joined=is_joined))
        return words

    def text_of(self, hypothesis: Hypothesis) -> str:
        """Write a hypothesis as its words, with single spaces."""
        if hypothesis.words is not None:
            return " ".join(hypothesis.words)
        return " ".join(
            map(self._name, self.recognizer.tokenizer.decode(hypothesis.tokens).split())
        )

    def _name(self, written: str) -> str:
        """A word of characters as it is, one of phones by their names, `HH-AH-L-OW`."""
        phones = self.recognizer.spec.phones
        return "-".join(phones[each] for each in written) if phones else written


def _usual_decoder(recognizer: SpeechModel) -> Decoder:
    """Greedy; of a model of phones a beam search for the words of its lexicon."""
    if recognizer.lexicon is None:
        return Greedy()
    from asr.decoder import BeamSearch

    return BeamSearch(alphabet=recognizer.tokenizer.alphabet, lexicon=recognizer.spellings)


def _content(file: BinaryIO) -> bytes:
    """All bytes of an open file, which may be a pipe."""
    name = str(getattr(file, "name", "open file"))
    if not isinstance(file.read(0), bytes):
        raise ValueError(f"{name}: opened as text, expected a file opened for reading bytes")
    return read_stream(file, name, "audio", MAX_FILE_BYTES)
