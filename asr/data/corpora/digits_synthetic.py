"""The corpus that ships with the project: synthetic voices that read digits."""

from __future__ import annotations

from pathlib import Path

from asr.data.corpora.manifest import prepare_manifest
from asr.data.corpus_folder import Advance, Say
from asr.data.prepare import PreparedCorpus, silent

SHIPPED = Path("recipes") / "digits_synthetic"


def prepare_digits_synthetic(
    data_dir: str | Path,
    *,
    name: str = "digits_synthetic",
    source: str | Path | None = None,
    audio_format: str = "wav",
    sample_rate: int = 16_000,
    num_workers: int | None = None,
    say: Say = silent,
    progress: Advance = silent,
) -> PreparedCorpus:
    """Prepare the synthetic digits; nothing is downloaded.

    Args:
        data_dir: folder of all corpora.
        name: of the corpus, and of its folder in `data_dir`.
        source: folder with train, dev and test.jsonl; None takes recipes/digits_synthetic of the
            checkout that this package is in.
        audio_format: "wav" or "flac" (16 bit, mono, written beside the manifests) or "keep".
        sample_rate: of written audio [Hz].
        num_workers: threads; None takes one a core.
        say: told of every step, and of what is bad.
        progress: told how far a long step is: what is done, its unit, how many of how many.

    Returns:
        The prepared corpus.

    Raises:
        ValueError: where the corpus is not found, or anything in it is bad.
        OSError: a file that cannot be read or written.
    """
    folder = Path(source) if source is not None else Path(__file__).parents[3] / SHIPPED
    if source is None and not folder.is_dir():
        raise ValueError(
            f"{folder}: missing, as asr does not run from a checkout; "
            f"expected source, the path of a checkout's {SHIPPED}"
        )
    return prepare_manifest(
        name,
        data_dir,
        source=folder,
        audio_format=audio_format,
        sample_rate=sample_rate,
        num_workers=num_workers,
        say=say,
        progress=progress,
    )
