"""asr serve: what it refuses before it listens; what it answers is tested in tests/serve."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.cli.serve import named_models

Fails = Callable[..., str]


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A file in the place of a model: none of these calls gets so far as to read it."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 lets other machines ask and there are no API keys"),
        (["--host", "::"], "there are no API keys, expected --api-key-file FILE or ASR_API_KEYS"),
        (["--api-key-file", "short.txt"], "key 1 has 5 characters, expected 16 to 512"),
        (["--api-key-file", "spaces.txt"], "key 1 has a space or a character beyond ASCII"),
        (["--api-key-file", "empty.txt"], "empty.txt: no key, expected one a line"),
        (["--decoder", "beam", "--n-best", "3"], "--n-best has no effect here"),
        (["--workers", "0"], "--workers 0, expected at least 1"),
        (["--max-queue", "0"], "queue is 0, expected more than 0"),
        (["--allow-origin", "*"], "--allow-origin *, expected https://NAME"),
        (["--model", "missing.safetensors"], "missing.safetensors"),
    ],
)
def test_it_does_not_start(
    arguments: list[str],
    told: str,
    model: str,
    fails: Fails,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short.txt").write_text("# mine\nquark\n")
    Path("spaces.txt").write_text("quark quark quark quark\n")
    Path("empty.txt").write_text("# none\n")
    message = fails("serve", "--model", model, *arguments)
    assert told in message
    assert "quark" not in message


def test_an_address_that_is_taken_is_told_before_a_model_is_read(model: str, fails: Fails) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" in fails("serve", "--model", model, "--port", str(port))


def test_models_are_called_by_their_folder_or_as_they_are_named(tmp_path: Path) -> None:
    for name in ("mine/best.safetensors", "mine/small.safetensors", "a=b.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    best, small = tmp_path / "mine/best.safetensors", tmp_path / "mine/small.safetensors"
    assert named_models([str(tmp_path / "mine"), str(small)]) == {"mine": best, "small": small}
    assert named_models([f"whisper-1={best}"]) == {"whisper-1": best}
    with pytest.raises(ValueError, match="two are called mine"):
        named_models([str(best), f"mine={small}"])
    with pytest.raises(ValueError, match="'a=b' is no name for clients"):
        named_models([str(tmp_path / "a=b.safetensors")])
