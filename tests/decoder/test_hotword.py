"""The automaton of hotwords, walked letter by letter."""

from __future__ import annotations

import pytest

from asr.decoder.hotword import HotwordAutomaton, build_automaton, follow
from asr.text import CharTokenizer

TOKENIZER = CharTokenizer(" abcdefghijklmnopqrstuvwxyz")
PHRASES = {"new": 3.0, "new york": 8.0, "york city": 9.0}


def walk(automaton: HotwordAutomaton, text: str) -> list[tuple[float, float]]:
    """Credit and gain after each letter."""
    state, seen = automaton.start, []
    for token in TOKENIZER.encode(text):
        state = follow(automaton.trie, automaton.fails, state, token)
        seen.append((float(automaton.credits[state]), float(automaton.gains[state])))
    return seen


def test_credit_grows_with_what_matches_and_goes_with_the_match() -> None:
    automaton = build_automaton({"acme": 8.0}, TOKENIZER)
    assert walk(automaton, "acme ") == [(2, 0), (4, 0), (6, 0), (8, 0), (0, 8)]
    assert walk(automaton, "acid") == [(2, 0), (4, 0), (0, 0), (0, 0)]
    assert walk(automaton, "xacme ") == [(0, 0)] * 6
    assert walk(automaton, "acmes ")[-2:] == [(0, 0), (0, 0)]


def test_phrases_that_overlap_are_all_found() -> None:
    automaton = build_automaton(PHRASES, TOKENIZER)
    seen = walk(automaton, "new york city ")
    assert sum(gain for _, gain in seen) == 3 + 8 + 9
    assert seen[2] == (3, 0)  # "new": itself is worth more than its share of "new york"
    assert seen[3] == (8 * 4 / 8, 3)
    assert seen[8] == (9 * 5 / 9, 8)  # "york " goes on where "new york" has ended
    assert seen[-1] == (0, 9)


def test_nobody_gets_more_by_one_token_than_is_told() -> None:
    automaton = build_automaton(PHRASES, TOKENIZER)
    for state in range(len(automaton.fails)):
        following = [
            follow(automaton.trie, automaton.fails, state, token) for token in range(1, 28)
        ]
        most = max(float(automaton.credits[s] + automaton.gains[s]) for s in following)
        assert automaton.reach[state] == most


@pytest.mark.parametrize("phrase", ["", " ", "a ", "a  b"])
def test_phrases_that_are_none(phrase: str) -> None:
    with pytest.raises(ValueError, match=r"expected words with single spaces between$"):
        build_automaton({phrase: 1.0}, TOKENIZER)
