"""asr train: compose, build, fit; on several devices in a process each."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from asr.atomic_file import replace_text
from asr.cli.hydra_app import quoted, run_hydra
from asr.cli.options import check_outputs, files_of
from asr.cli.processes import (
    ERROR_FILE,
    check_started_by_srun,
    leave_stopped,
    own_rank,
    run_on_processes,
    slurm_ranks,
    tell_parent,
)
from asr.cli.record import recorded_overrides, working_folder, write_record
from asr.cli.terminal import one_line, tell
from asr.lock import locked
from asr.starter_model import decoder_file, model_path

RESUME = "resume="
LOCK_FILE = ".lock"  # in the run's folder
AUTO = "auto"  # go on where there is a state, begin where there is none
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")  # the name of a run without one
OWN_FILES = (  # in the run's folder, besides pictures and kept models
    "best.safetensors", "last.safetensors", "start.safetensors", "steps.csv", "validations.csv",
    "worst.jsonl", "left_out.jsonl", "train.log", "error.txt",
)  # fmt: skip
CER_SHARE = 1e-3  # of the objective: too little to outweigh a word, enough to part equal WERs


def main(arguments: list[str]) -> int:
    """Run `asr train`; see conf/train.yaml for its settings."""
    if own_rank():
        # Ranks share the run's folder; rank 0 alone writes the log there.
        arguments = [*arguments, "hydra.job_logging.root.handlers=[]"]
    given = [word.removeprefix(RESUME) for word in arguments if word.startswith(RESUME)]
    if given and given[-1] not in ("", "null", AUTO):
        folder = Path(given[-1])
        earlier = recorded_overrides(folder)
        if (origin := working_folder(folder, earlier)) != Path.cwd():
            if not own_rank():
                tell(f"paths are meant from {origin}, where the training was begun")
            folder = folder.absolute()
            os.chdir(origin)
        # What was added to the settings of its day, +key=value, may be one of today's.
        earlier = [re.sub(r"^\+(?!\+)", "++", word) for word in earlier]
        # Then those given now, in the run's own folder. A job of a sweep goes on by itself.
        run_dir = quoted("hydra.run.dir", str(folder))
        arguments = [*earlier, *arguments, run_dir, "hydra.mode=RUN"]
    return run_hydra("train", _job, arguments)


def _job(config: DictConfig) -> float | None:
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    if ERROR_FILE in os.environ:  # one of several processes, whose parent does the rest
        _train(config, run_dir)
        return None
    logger = logging.getLogger("asr")
    # Another training in this folder, on any machine, is refused.
    alone = locked(run_dir / LOCK_FILE, "trains in this folder now", unlockable=logger.warning)
    with slurm_ranks() as rank, nullcontext() if rank else alone:
        check_outputs(
            [run_dir / name for name in OWN_FILES],
            [*files_of(config.data.get("train")), *files_of(config.data.get("dev"))],
        )
        # Outside of what is told in the folder, which may be that of another training.
        if not _is_resumed(config, run_dir) and not rank and not _has_state(run_dir):
            write_record(run_dir, config)
        with _told_in(run_dir, is_first=rank == 0):
            if config.trainer.devices > 1 and "RANK" not in os.environ:
                run_on_processes(config.trainer.devices, own_arguments())
            else:
                if "RANK" not in os.environ:
                    check_started_by_srun(os.environ)
                _train(config, run_dir)
            return None if rank else objective(run_dir)


def objective(run_dir: Path) -> float:
    """Tell what a sweep minimises: the dev WER of a run's best model, equal ones parted by the CER.

    It is the order in which a training chooses its own best model, so the best trial of a sweep is
    the one whose model one would take. A small dev set has few words, and many trials the same WER;
    its characters part them. The loss would part them too, but it grows with a model's confidence
    in what it gets wrong, and so ranks models of other sizes and dropouts differently.
    """
    from asr.report.runs import read_validations

    best = min((row.wer, row.cer) for row in read_validations(run_dir))
    return best[0] + CER_SHARE * best[1]


def own_arguments() -> list[str]:
    """Write the command line of the running job alone, be it of a multirun, in its own folder."""
    hydra = HydraConfig.get()
    of_multirun = re.compile(r"\+*hydra[./](mode|run|sweep|sweeper|launcher)\b")
    settings = [word for word in hydra.overrides.hydra if not of_multirun.match(word)]
    folders = [
        word
        for source in hydra.runtime.config_sources
        if source.provider == "command-line"
        for word in ("--config-dir", source.path)
    ]
    run_dir = quoted("hydra.run.dir", hydra.runtime.output_dir)
    return ["train", *folders, *hydra.overrides.task, *settings, run_dir, "hydra.mode=RUN"]


@contextmanager
def _told_in(run_dir: Path, is_first: bool) -> Iterator[None]:
    """Leave the reason of a failure in the run's folder, where `asr runs` finds it."""
    from asr.report.runs import ERROR_TEXT

    if is_first:  # a later task must not take away what an earlier one has told
        (run_dir / ERROR_TEXT).unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        with suppress(OSError):  # a full disk, say, of which the error itself tells
            replace_text(run_dir / ERROR_TEXT, f"{one_line(error)}\n")
        raise


@tell_parent()
def _train(config: DictConfig, run_dir: Path) -> None:
    # Imported here: `asr train --help` and completion need no torch.
    from asr.cli.build import build_recipe, build_trainer, start_file, start_recipe
    from asr.cli.record import deciding_settings
    from asr.trainer.checkpoint import BEST_FILE
    from asr.trainer.distributed import Stopped

    logger = logging.getLogger("asr")
    rank = own_rank()
    if rank:
        logger.setLevel(logging.CRITICAL)  # what rank 0 says too
        logging.getLogger("asr.data.workers").setLevel(logging.WARNING)  # what only this one knows
    resume = _is_resumed(config, run_dir)
    trainer = build_trainer(config)
    start = start_file(config.init_from, run_dir, resume)
    recipe = build_recipe(config, logger.warning, start)
    recipe = start_recipe(recipe, start, run_dir, resume)
    settings = deciding_settings(config, recipe.recognizer.spec)
    ready = (lambda: None) if rank else partial(write_record, run_dir, config)
    try:
        trainer.fit(replace(recipe, settings=settings), run_dir, resume, ready)
    except Stopped as stopped:
        logger.warning("%s", stopped)
        leave_stopped()
    best = os.path.relpath(run_dir / BEST_FILE)
    own = _decoder_of(config.init_from)
    decoder = "" if own is None else f" decoder={own}"
    logger.info("next: asr evaluate model_file=%s manifest=TEST_MANIFEST%s", best, decoder)


def _decoder_of(init_from: str | None) -> Path | None:
    """The decoder file of the model that a training began with, where both are still there."""
    with suppress(OSError):
        return None if init_from is None else decoder_file(model_path(init_from))
    return None


def _is_resumed(config: DictConfig, run_dir: Path) -> bool:
    """Decide whether to go on from a state in the run's folder.

    Raises:
        ValueError: no state to go on from, one that would be lost, or no lasting name for `auto`.
    """
    from asr.trainer.checkpoint import STATE_FOLDER

    has_state = _has_state(run_dir)
    if config.resume == AUTO:
        if TIMESTAMP.fullmatch(str(config.name)):
            raise ValueError("resume=auto without a name, expected name=... that stays the same")
        return has_state
    if config.resume is not None:
        if not has_state:
            raise ValueError(f"resume={config.resume}: holds no training state ({STATE_FOLDER}/)")
        return True
    if has_state and not config.overwrite:
        raise ValueError(
            f"{run_dir} already holds a training, expected a new folder: go on with "
            f"resume={os.path.relpath(run_dir)}, choose another name=, or give overwrite=true"
        )
    return False


def _has_state(run_dir: Path) -> bool:
    from asr.trainer.checkpoint import STATE_FOLDER, StateStore

    return StateStore(run_dir / STATE_FOLDER).exists()
