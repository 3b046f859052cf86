"""Training: the loop, schedules, resumable state and logs."""

from asr.trainer.trainer import Recipe, Trainer

__all__ = ["Recipe", "Trainer"]
