"""Where shards may lie: a folder or a URL, never a command."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import ModuleType

import pytest

from asr.data.shar.folder import SharFolder


@pytest.mark.parametrize("location", ["pipe:cat x", "pipe://x", "file:///tmp", "s3:x", "ftp://x/y"])
def test_commands_and_other_urls_are_refused(location: str) -> None:
    with pytest.raises(ValueError, match=r"not a folder of shards, expected a path or http://"):
        SharFolder(location)


def test_a_local_folder(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"x")
    (tmp_path / "a").mkdir()
    folder = SharFolder(f"{tmp_path}/")
    assert folder.names() == ["a", "b"]
    assert folder.where("b") == f"{tmp_path}/b"
    with folder.open("b") as file:
        assert file.read() == b"x"
    with pytest.raises(ValueError, match="not a regular file, expected a file of Shar"):
        folder.open("a")
    with pytest.raises(FileNotFoundError):
        folder.open("c")
    with pytest.raises(NotADirectoryError, match="is no folder, expected one of Shar shards"):
        SharFolder(tmp_path / "c")


def test_a_url_is_opened_by_smart_open_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    smart_open = pytest.importorskip("lhotse.utils").SmartOpen
    opened = []

    def fake(uri: str, mode: str, **arguments: object) -> io.BytesIO:
        opened.append((uri, mode, arguments))
        return io.BytesIO(b"x")

    module = ModuleType("smart_open")
    module.open = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "smart_open", module)
    monkeypatch.setattr(smart_open, "smart_open", None)
    folder = SharFolder("s3://bucket/shards/")
    with folder.open("cuts.000000.jsonl.gz") as file:
        assert file.read() == b"x"
    ((uri, mode, arguments),) = opened
    assert (uri, mode) == ("s3://bucket/shards/cuts.000000.jsonl.gz", "rb")
    assert arguments["compression"] == "disable"
    with pytest.raises(ValueError, match="cannot be listed, expected an index in it"):
        folder.names()


@pytest.mark.parametrize("missing", ["lhotse", "smart_open"])
def test_a_url_without_its_packages(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing == "smart_open":
        smart_open = pytest.importorskip("lhotse.utils").SmartOpen
        monkeypatch.setattr(smart_open, "smart_open", None)
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "lhotse":
        monkeypatch.setitem(sys.modules, "lhotse.utils", None)
    with pytest.raises(ValueError, match=r"needs .*: pip install 'lstm-asr\[lhotse\]' smart_open"):
        SharFolder("https://example.org/shards").open("cuts.000000.jsonl.gz")
