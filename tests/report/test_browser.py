"""The page in a browser: the list is there, can be sorted and searched, and runs no data."""

import json
import re
import shutil
import subprocess

import pytest

from asr.metrics.error_rate import score_utterance
from asr.report import EvaluatedUtterance, Evaluation, ModelDescription
from asr.report.page import render_page

pytestmark = pytest.mark.browser

ATTACK = "<img/src=x/onerror=document.title='attacked'>"

# Runs in the page after its own script and leaves what it saw in an element of the page.
PROBE = """
const shown = () => [...document.querySelectorAll("table.list tbody th bdi:first-child")]
  .map((each) => each.textContent);
const click = (key) => document.querySelector(`[data-key=${key}]`).click();
const sorted = () => document.querySelector("th[aria-sort]").getAttribute("aria-sort");
const enter = (id, name, value) => {
  document.getElementById(id)[name] = value;
  document.getElementById(id).dispatchEvent(new Event("input"));
};
const seen = { opened: shown(), range: document.getElementById("range").textContent };
document.getElementById("next").click();
seen.second = shown();
click("id");
seen.byId = [shown().slice(0, 3), sorted()];
click("id");
seen.byIdBackwards = [shown().slice(0, 3), sorted()];
enter("search", "value", "Word7 Other");
seen.found = shown();
enter("search", "value", "");
enter("speaker", "value", "1");
seen.ofSpeaker = shown();
enter("speaker", "value", "");
enter("wrong", "checked", true);
seen.wrong = document.getElementById("range").textContent;
enter("search", "value", "nowhere");
seen.nothing = [shown(), document.getElementById("range").textContent];
seen.title = document.title;
const result = document.createElement("pre");
result.id = "result";
result.textContent = JSON.stringify(seen);
document.body.append(result);
"""


def opened(page, folder):
    """The document as it is after its scripts have run."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium or google-chrome on PATH")
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8", newline="\n")
    # A container's root cannot have the sandbox, and the page is our own.
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += ["--disable-quic", f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    finished = subprocess.run([*command, path.as_uri()], capture_output=True, timeout=60)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.decode()


@pytest.fixture
def page():
    """Sixty utterances: word 0 to 59, every third one wrong, the last of another speaker."""
    utterances = []
    for index in range(60):
        hypothesis = f"word{index} {ATTACK if index % 3 == 0 else 'other'}"
        errors = score_utterance(f"u{index}", f"word{index} other", hypothesis)
        speaker = "s2" if index == 59 else "s1"
        utterances.append(EvaluatedUtterance(f"u{index}", speaker, 1.0, f"{index}.wav", errors))
    return render_page(Evaluation("t", ModelDescription("m", 1), "f", None, tuple(utterances)))


def test_list_sorts_and_searches(page, tmp_path):
    without_policy = page.replace("Content-Security-Policy", "not-a-policy")
    probed = without_policy.replace("</body>", f"<script>{PROBE}</script></body>")
    dom = opened(probed, tmp_path)
    seen = json.loads(re.search(r'<pre id="result">(.*)</pre>', dom)[1])
    wrong = [f"u{index}" for index in range(0, 60, 3)]
    right = [f"u{index}" for index in range(60) if index % 3]
    assert seen["opened"] == (wrong + right)[:50]
    assert seen["range"] == "1 to 50 of 60 utterances"
    assert seen["second"] == (wrong + right)[50:]
    assert seen["byId"] == [["u0", "u1", "u2"], "ascending"]
    assert seen["byIdBackwards"] == [["u59", "u58", "u57"], "descending"]
    assert seen["found"] == ["u7"]
    assert seen["ofSpeaker"] == ["u59"]
    assert seen["wrong"].endswith("of 20 utterances")
    assert seen["nothing"] == [[], "No utterance matches"]
    assert seen["title"] != "attacked"


def test_only_its_own_script_runs(page, tmp_path):
    foreign = "<script>document.title = 'attacked'</script><img src=x onerror=\"title='attacked'\">"
    dom = opened(page.replace("</body>", f"{foreign}</body>"), tmp_path)
    assert re.search(r"<title>(.*)</title>", dom)[1] == "16.67\u202f% WER, t"
    assert '<div id="browser">' in dom  # its own did run
