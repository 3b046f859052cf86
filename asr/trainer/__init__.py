"""Training: the loop, schedules, resumable state and logs."""

from asr.trainer.trainer import Trainer

__all__ = ["Trainer"]
