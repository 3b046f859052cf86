"""Training: an epoch plan in, the best model file out, every step reproducible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from asr.trainer.distributed import World, join_world
from asr.trainer.recipe import Recipe, Settings
from asr.trainer.run import Run
from asr.trainer.state import Progress


@dataclass(kw_only=True)
class Trainer(Settings):
    """Trains a recogniser with CTC, as its settings say.

    The loss of an optimiser step is the sum of its utterances' losses over the number of their
    characters, all ranks and accumulated batches counted together: two ranks, or two accumulated
    batches, take the same step as each other.

    Attributes:
        world: device, precision and ranks, which are joined when a trainer is made.

    Raises:
        ValueError: a setting out of its range, or a device or precision that is not there.
    """

    world: World = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.world = join_world(self.accelerator, self.devices, self.num_nodes, self.precision)

    def fit(
        self,
        recipe: Recipe,
        run_dir: Path,
        resume: bool = False,
        ready: Callable[[], None] = lambda: None,
    ) -> Progress:
        """Train to the end, or to an early stop.

        Writes best.safetensors (lowest dev WER, then CER), last.safetensors, the training states,
        CSV logs and pictures into the run's folder.

        Args:
            recipe: what to train.
            run_dir: folder of the run, which the ranks share.
            resume: go on from the newest state in `run_dir`.
            ready: called before the first step, once recipe, settings and state fit each other.

        Returns:
            Where the training ended.

        Raises:
            Stopped: SIGTERM, SIGUSR1 or Ctrl-C asked it to leave; the state is saved.
            ValueError: no utterance that can be trained on, too many that cannot, a state that does
                not fit, weights that are not finite; a batch that cannot be loaded, with the state
                saved.
            OSError: a full disk; the states before are as they were.
        """
        run = Run(self, self.world, recipe, run_dir, resume)
        ready()
        return run.run()
