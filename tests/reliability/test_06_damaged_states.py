"""Check 6: a damaged state gives way to an older one with a warning, or the run is refused."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from asr.trainer.checkpoint import Progress, StateStore, read_state
from asr.trainer.trainer import Training
from tests.reliability.driver import recipe
from tests.trainer.fitting import trainer_of

FLIPS = 20


@pytest.fixture
def finished(corpus: Callable[..., Path], tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A run with two states, and the spec it was made from."""
    spec = {"train": str(corpus(60)), "dev": str(corpus(6, "dev"))}
    (tmp_path / "run").mkdir()
    trainer_of(max_epochs=2, scan_memory=False).fit(recipe(spec), tmp_path / "run")
    return tmp_path / "run", spec


def damages(seed: int) -> list[tuple[str, Callable[[Path, Path], None]]]:
    """What may happen to the newest of two states: a name, and what does it."""
    generator = np.random.default_rng(seed)

    def cut(share: float) -> Callable[[Path, Path], None]:
        def apply(newest: Path, older: Path) -> None:
            content = newest.read_bytes()
            newest.write_bytes(content[: int(share * len(content))])

        return apply

    def flip(newest: Path, older: Path) -> None:
        content = bytearray(newest.read_bytes())
        content[generator.integers(len(content))] ^= 1 << generator.integers(8)
        newest.write_bytes(content)

    def folder(newest: Path, older: Path) -> None:
        newest.unlink()
        newest.mkdir()

    def both_gone(newest: Path, older: Path) -> None:
        newest.unlink()
        older.write_bytes(b"")

    def foreign(newest: Path, older: Path) -> None:
        # A newer file that another run left: whole, but not this run's.
        store = StateStore(newest.parent.parent / "other" / "state")
        shutil.copytree(newest.parent, store.folder)
        content, _ = store.load()
        changed = content.replace(read_state(content, "").origin.run.encode(), b"0" * 16)
        newest.with_name("999999-step-999.pt").write_bytes(changed)

    def other_model(newest: Path, older: Path) -> None:
        pass  # the recipe is another one

    return [
        ("empty", cut(0.0)), *((f"cut {share:g}", cut(share)) for share in (0.01, 0.5, 0.99)),
        *((f"bit {number}", flip) for number in range(FLIPS)),
        ("missing", lambda newest, older: newest.unlink()), ("folder", folder),
        ("foreign", foreign), ("none whole", both_gone),
    ]  # fmt: skip


def test_no_damage_starts_from_scratch_in_silence(
    finished: tuple[Path, dict[str, str]],
    tmp_path: Path,
    seed: int,
    survived: Callable[[str, int, int], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole, spec = finished
    good = 0
    for number, (name, damage) in enumerate(damages(seed)):
        folder = tmp_path / f"case{number}"
        shutil.copytree(whole, folder)
        older, newest = sorted((folder / "state").glob("*.pt"))
        newest_step = int(newest.stem.split("-")[-1])
        damage(newest, older)
        caplog.clear()
        begun = begin(folder, spec)
        warned = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        if name == "none whole":
            fine = isinstance(begun, str) and "holds no whole training state" in begun
        elif name == "foreign":
            fine = isinstance(begun, Progress) and begun.step == newest_step and bool(warned)
        else:
            fine = isinstance(begun, Progress) and 0 < begun.step < newest_step and bool(warned)
        good += fine
        assert fine, (name, begun, warned)
    survived("damaged states", good, 4 + FLIPS + 4)


def test_a_model_of_another_size_is_refused(
    finished: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, spec = finished
    other = recipe(spec)
    smaller = type(other.recognizer)(
        other.recognizer.spec.__class__(
            other.recognizer.spec.features,
            other.recognizer.spec.model.__class__("BiLstmCtc", {"hidden_size": 8, "num_layers": 1}),
            "abcd",
            {},
        )
    )
    changed = other.__class__(**{**other.__dict__, "recognizer": smaller})
    with pytest.raises(ValueError, match="does not fit this model"):
        trainer_of(max_epochs=3, scan_memory=False).fit(changed, folder, resume=True)


def begin(folder: Path, spec: dict[str, str]) -> Progress | str:
    """Where a run goes on, or why it does not."""
    trainer = trainer_of(max_epochs=3, scan_memory=False)
    try:
        return Training(trainer, recipe(spec), folder, resume=True).progress
    except ValueError as error:
        return str(error)
