"""The folder a corpus is written to: one writer at a time, and never somebody else's files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from asr.atomic_file import remove_leftovers, replace_bytes
from asr.data.corpora.prepared import SPLITS
from asr.lock import locked

STATE_DIR = ".prepare"  # lock and notes on what is done; its presence marks the folder as ours
DOWNLOAD_DIR = "downloads"  # beside the corpora
_NAME = re.compile(r"\w[\w.-]*")


@contextmanager
def corpus_folder(data_dir: Path, name: str) -> Iterator[Path]:
    """Make and lock `<data_dir>/<name>` for the length of a preparation.

    Args:
        data_dir: folder of all corpora; made where it is missing.
        name: of the corpus.

    Yields:
        The folder, absolute, free of what a killed writer left.

    Raises:
        ValueError: for a name that is no folder's, for manifests that this program did not write,
            for links in place of what it wrote, and while another process prepares the same corpus.
        OSError: where it cannot be made or locked.
    """
    check_name(name)
    folder = Path(data_dir).absolute() / name
    state = folder / STATE_DIR
    foreign = [f for f in _outputs(folder) if f.exists()] if not state.is_dir() else []
    if foreign:
        raise ValueError(
            f"{foreign[0]}: exists and was not written by asr prepare, "
            "expected another corpus name or data folder"
        )
    refuse_links(folder, (STATE_DIR, f"{STATE_DIR}/lock"))
    is_new, makes_folder = not state.is_dir(), not folder.exists()
    state.mkdir(parents=True, exist_ok=True)
    with locked(state / "lock", "prepares this corpus now"):
        remove_leftovers(folder)
        try:
            yield folder
        except BaseException:
            if is_new and [*folder.iterdir(), *state.iterdir()] == [state, state / "lock"]:
                with suppress(OSError):  # the error itself says more
                    (state / "lock").unlink()
                    state.rmdir()
                    if makes_folder:
                        folder.rmdir()
            raise


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Refuse a corpus folder in which something of ours is a link to elsewhere.

    Whoever writes or deletes below such a link does so in a place that nobody chose.

    Args:
        folder: of the corpus, which may itself be one.
        names: of files and folders in it, each after those that it lies in.

    Raises:
        ValueError: one is a symbolic link.
    """
    for name in names:
        if (folder / name).is_symlink():
            raise ValueError(
                f"{folder / name}: a symbolic link, expected what asr prepare made, or nothing"
            )


def check_name(name: str) -> None:
    """Refuse a corpus name that could lead out of the data folder or hide.

    Raises:
        ValueError: naming what a name may hold.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == DOWNLOAD_DIR:
        raise ValueError(
            f"corpus name is {name!r}, expected letters, digits, '_', '-' and '.', beginning "
            f"with a letter or digit, and not {DOWNLOAD_DIR!r}"
        )


def write_if_changed(path: Path, content: bytes) -> bool:
    """Write a file, whole or not at all, unless it holds just that already.

    Returns:
        Whether it was written.
    """
    is_like = path.is_file() and path.stat().st_size == len(content)
    if is_like and path.read_bytes() == content:
        return False
    replace_bytes(path, content)
    return True


def json_bytes(content: Mapping[str, object]) -> bytes:
    """A JSON file for people and programs to read."""
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()


def sha256(content: bytes) -> str:
    """Fingerprint of bytes, 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _outputs(folder: Path) -> list[Path]:
    return [folder / f"{split}.jsonl" for split in SPLITS] + [folder / "corpus.json"]
