"""What pages for users name is there: files, headings, settings and options of commands."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from asr.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    path
    for pattern in ("*.md", "docs/**/*.md", "recipes/*/README.md", "models/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]
HYDRA_COMMANDS = ("prepare", "train", "evaluate")
PLUGIN = re.compile(r"hydra[/.](launcher|sweeper)|sweep=tpe")  # an extra that may be missing

each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)


def headings(page: Path) -> set[str]:
    """The anchors of a page, as hosts of Markdown make them from its headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(page: Path) -> list[list[str]]:
    """The words of the command lines of a page that call asr."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```|((?:^ {4}[^\n]*\n)+)", text, re.M | re.S)
    lines = "".join(fenced or indented for fenced, indented in blocks).replace("\\\n", " ")
    found = [line.strip() for line in lines.splitlines() if re.match(r"\s*asr \w", line)]
    return [shlex.split(line, comments=True)[1:] for line in found]


def composable(override: str) -> str:
    """An override as a single run takes it: the first of several values, any value for `<...>`."""
    key, value = override.split("=", 1)
    if key == "decoder" and value.endswith(".yaml"):
        return "decoder=beam_ngram"
    if re.fullmatch("<.*>", value):
        return f"{key}=x"
    return override if value[0] in "'\"[{" or "(" in value else f"{key}={value.split(',')[0]}"


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{target}: no such file"
        assert not anchor or anchor in headings(file), f"{target}: no such heading"


@each_page
def test_files_that_a_page_names_are_there(page: Path) -> None:
    named = re.findall(
        r"(?<![\w/.])(?:asr|benchmarks|conf|recipes|tests)/[\w/]+\.(?:py|yaml)\b",
        page.read_text(encoding="utf-8"),
    )
    missing = sorted({name for name in named if not (ROOT / name).is_file()})
    assert not missing


def test_the_index_has_every_page() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    missing = [page.name for page in DOCS.glob("*.md") if f"]({page.name})" not in index]
    assert missing == ["README.md"]


@each_page
def test_settings_that_a_page_shows_compose(page: Path) -> None:
    for command, *words in commands(page):
        if command not in HYDRA_COMMANDS or any(PLUGIN.search(word) for word in words):
            continue
        overrides = [composable(word) for word in words if "=" in word and word[0] != "-"]
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            compose(command, overrides=overrides)


@each_page
def test_options_that_a_page_shows_are_in_the_help(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, *words in commands(page):
        assert command in COMMANDS
        options = {word.split("=")[0] for word in words if word.startswith("--")}
        if command in HYDRA_COMMANDS or not options:
            continue
        with suppress(SystemExit):
            main([command, *words[: command == "lm"], "--help"])
        assert options <= set(re.findall(r"--[\w-]+", capsys.readouterr().out))


def test_the_files_for_a_deployment_hold(capsys: pytest.CaptureFixture[str]) -> None:
    pages = (DOCS / "deploy.md").read_text() + (DOCS / "serving.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", pages, re.S)
    kinds = [document.get("kind") for block in blocks for document in yaml.safe_load_all(block)]
    assert kinds == [None, "Deployment", "Service"]
    with suppress(SystemExit):
        main(["serve", "--help"])
    known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    others = {
        "--create-home", "--uid", "--no-cache-dir", "--index-url", "--start-period", "--now",
        "--from-file",
    }  # fmt: skip
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]+", pages)) - others <= known
