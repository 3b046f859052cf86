"""Check 7: NaN and Inf, wherever and whenever, reach neither weights nor files, and are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.model_file import load_model
from asr.trainer import step as step_module
from asr.trainer.step import Stepper
from tests.reliability.driver import recipe
from tests.trainer.fitting import state_of, trainer_of

STEPS = (1, 10, 20)  # the first, the tenth, the last
PLACES = ("audio", "activation", "loss", "gradient")


class Saboteur:
    """Makes something infinite or NaN for the first utterance of one step's batch."""

    def __init__(self, place: str, step: int, value: float) -> None:
        self.place, self.at, self.value = place, step, value
        self.now = 0
        self.victim = ""

    def install(self, patch: pytest.MonkeyPatch) -> None:
        step, losses, ctc = Stepper.step, Stepper._finite_losses, step_module.ctc_loss

        def stepped(stepper: Stepper, batches: Any, *rest: Any, **named: Any) -> Any:
            self.now += 1
            if self.now == self.at:
                self.victim = batches[0].utterances[0].id
                if self.place == "audio":
                    batches[0].waveforms[0, 10] = self.value
            return step(stepper, batches, *rest, **named)

        def spoilt(stepper: Stepper, batch: Any, incidents: Any) -> Any:
            names = [utterance.id for utterance in batch.utterances]
            hit = self.now == self.at and self.victim in names
            row = names.index(self.victim) if hit else -1
            hooks = []
            if hit and self.place == "activation":
                hooks.append(stepper.model.register_forward_hook(self._spoil_output(row)))
            if hit and self.place == "loss":
                patch.setattr(step_module, "ctc_loss", self._spoil_loss(ctc, self.victim, batch))
            kept, outputs = losses(stepper, batch, incidents)
            for hook in hooks:
                hook.remove()
            patch.setattr(step_module, "ctc_loss", ctc)
            if outputs is not None and hit and self.place == "gradient":
                values = torch.ones_like(outputs[0])
                values[row] = self.value
                spoilt_losses = Spoil.apply(outputs[0], values)
                outputs = (spoilt_losses, *outputs[1:])
            return kept, outputs

        patch.setattr(Stepper, "step", stepped)
        patch.setattr(Stepper, "_finite_losses", spoilt)

    def _spoil_output(self, row: int) -> Callable[..., Any]:
        state = {"row": row}

        def hook(module: Any, inputs: Any, output: Any) -> Any:
            log_probs, lengths = output
            if state["row"] < 0:
                return output
            spoilt = log_probs.clone()
            spoilt[state["row"], 0] = self.value
            state["row"] = -1  # once: the rest is computed anew without it
            return spoilt, lengths

        return hook

    def _spoil_loss(self, ctc: Any, victim: str, batch: Any) -> Callable[..., Tensor]:
        row = [utterance.id for utterance in batch.utterances].index(victim)
        size = len(batch.utterances)

        def loss(log_probs: Tensor, lengths: Tensor, tokens: Tensor, sizes: Tensor) -> Tensor:
            losses: Tensor = ctc(log_probs, lengths, tokens, sizes)
            if len(losses) == size:
                losses = losses.clone()
                losses[row] = self.value
            return losses

        return loss


class Spoil(torch.autograd.Function):
    """Passes losses through and multiplies their gradients."""

    @staticmethod
    def forward(context: Any, losses: Tensor, values: Tensor) -> Tensor:
        context.save_for_backward(values)
        return losses.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (values,) = context.saved_tensors
        return gradient * values, None


@pytest.mark.parametrize("place", PLACES)
def test_nothing_that_is_no_number_is_learnt_or_saved(
    corpus: Callable[..., Path],
    tmp_path: Path,
    survived: Callable[[str, int, int], None],
    place: str,
) -> None:
    good = 0
    for step in STEPS:
        folder = tmp_path / f"step{step}"
        folder.mkdir()
        spec = {"train": str(corpus(60, letters=(3, 3))), "dev": str(corpus(6, "dev"))}
        saboteur = Saboteur(place, step, np.nan if step == 10 else np.inf)
        with pytest.MonkeyPatch.context() as patch:
            for name in ("draw_curves", "draw_alignments"):
                patch.setattr(f"asr.trainer.diagnostics.{name}", lambda *_, **__: None)
            saboteur.install(patch)
            trainer = trainer_of(
                max_epochs=1, batch_duration_s=1.3, save_every_steps=1, scan_memory=False
            )
            made = recipe(spec)
            made.augment.waveform.pauses = None  # type: ignore[union-attr]  # a row an utterance
            assert trainer.fit(made, folder).step == STEPS[-1]
        lines = (folder / "left_out.jsonl").read_text().splitlines()
        named = [json.loads(line)["id"] for line in lines]
        state = state_of(folder).parts
        moments = [m for each in state["optimizer"]["state"].values() for m in each.values()]
        weights = [*state["model"].values(), *moments]
        weights += load_model(folder / "best.safetensors")[0].state_dict().values()
        finite = all(bool(torch.isfinite(value).all()) for value in weights)
        fine = finite and named == [saboteur.victim]
        assert fine, (place, step, named, saboteur.victim, finite)
        good += fine
    survived(f"not finite, {place}", good, len(STEPS))
