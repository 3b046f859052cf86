"""Hydra's record of a run's settings, which a command that is refused leaves as it was.

Hydra writes `.hydra/` before the command can look at the folder: `asr train name=...` of a name
that exists, or a resume with settings that do not fit, would leave its own for the next resume.
"""

from __future__ import annotations

from pathlib import Path

from asr.atomic_file import replace_bytes

RECORD = Path(".hydra")
ACCEPTED = RECORD / "accepted"  # a copy, of the last command that was not refused
OVERRIDES = "overrides.yaml"


def accept(run_dir: Path) -> None:
    """Keep the record as it is now.

    Raises:
        OSError: it cannot be written.
    """
    _copy(run_dir / RECORD, run_dir / ACCEPTED)


def restore(run_dir: Path) -> None:
    """Bring back the record that was kept last, if one was.

    Raises:
        OSError: it cannot be written.
    """
    _copy(run_dir / ACCEPTED, run_dir / RECORD)


def overrides_file(run_dir: Path) -> Path | None:
    """The file of a run's own overrides; None where there is no run."""
    files = (run_dir / folder / OVERRIDES for folder in (ACCEPTED, RECORD))
    return next((file for file in files if file.is_file()), None)


def _copy(source: Path, target: Path) -> None:
    for file in sorted(source.glob("*.yaml")):
        target.mkdir(exist_ok=True)
        replace_bytes(target / file.name, file.read_bytes())
