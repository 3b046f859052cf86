"""Checks of the audio of one utterance, once it is measured."""

from __future__ import annotations

from collections.abc import Iterator

from asr.data.doctor.measure import Audio, Signal
from asr.data.manifest import Utterance
from asr.finding import Finding, Kind

DURATION_TOLERANCE_S = 0.1  # [s] between manifest and file, as in asr prepare
MAX_CLIPPED_SHARE = 1e-3  # 16 samples of a second at 16 kHz: more than a peak that just touches
SILENT_DB = -60.0  # [dBFS] below this six bits of sixteen are left to the speech, if there is any
MAX_EDGE_S = 2.0  # [s] of silence at either end


def check_audio(
    utterance: Utterance, audio: Audio, sample_rate: int, is_whole: bool
) -> Iterator[Finding]:
    """What to look at in an utterance's audio.

    Args:
        utterance: as the manifest has it.
        audio: as measured.
        sample_rate: of the model [Hz].
        is_whole: whether the utterance should be all of its file.
    """
    if audio.sample_rate < sample_rate:
        yield utterance.finding(
            Kind.LOW_RATE,
            f"{audio.sample_rate} Hz, expected {sample_rate} Hz or more: nothing is in it above "
            f"{audio.sample_rate // 2} Hz",
        )
    expected_s = utterance.duration
    if expected_s is not None and abs(expected_s - audio.duration_s) > DURATION_TOLERANCE_S:
        yield utterance.finding(
            Kind.WRONG_DURATION,
            f"{audio.duration_s:.2f} s of audio, expected {expected_s:.2f} s by the manifest",
        )
    elif expected_s is not None and is_whole and audio.file_s - expected_s > DURATION_TOLERANCE_S:
        yield utterance.finding(
            Kind.WRONG_DURATION,
            f"{audio.file_s:.2f} s in the file, expected {expected_s:.2f} s by the manifest: the "
            "rest is not used",
        )
    if audio.signal is not None:
        yield from check_signal(utterance, audio.signal)


def check_signal(utterance: Utterance, signal: Signal) -> Iterator[Finding]:
    """What to look at in the samples."""
    if signal.clipped_share > MAX_CLIPPED_SHARE:
        yield utterance.finding(
            Kind.CLIPPING,
            f"{100 * signal.clipped_share:.2f} % of the samples at full scale, expected at most "
            f"{100 * MAX_CLIPPED_SHARE:g} %",
        )
    if signal.level_db < SILENT_DB:
        what = "nothing but zeros" if signal.peak == 0 else f"{signal.level_db:.0f} dBFS"
        yield utterance.finding(Kind.SILENCE, f"{what}, expected {SILENT_DB:g} dBFS or more")
        return
    for silence_s, where in ((signal.leading_s, "before"), (signal.trailing_s, "after")):
        if silence_s > MAX_EDGE_S:
            yield utterance.finding(
                Kind.EDGE_SILENCE,
                f"{silence_s:.1f} s of silence {where} the speech, expected at most "
                f"{MAX_EDGE_S:g} s",
            )
