"""Waveforms to normalised log-mel features, in batches on any device."""

from asr.features.log_mel import LogMel

__all__ = ["LogMel"]
