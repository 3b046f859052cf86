"""The spelling of a vocabulary leads to its words, and to nothing else."""

from __future__ import annotations

from asr.decoder.token_trie import ROOT, child
from asr.decoder.word_model import build_word_model
from asr.text import CharTokenizer
from tests.decoder.searches import bigram_model

WORDS = ("a", "ab", "cab", "caf\u00e9")


def test_words_by_what_an_alphabet_can_write() -> None:
    written, unwritable = bigram_model(WORDS).written_in(" abc<>s/unk")
    assert written == ["a", "ab", "cab"]  # not the marks
    assert unwritable == ["caf\u00e9"]


def test_a_spelling_leads_to_its_word() -> None:
    model, tokenizer = bigram_model(WORDS), CharTokenizer("bca ")
    written, _ = model.written_in("bca ")
    words = build_word_model({w: (w,) for w in written}, "bca ", model, 0.5, 1.0, -5.0)
    for text, known in (("a", 1), ("ab", 1), ("cab", 1), ("c", 0), ("ca", 0)):
        node = ROOT
        for token in tokenizer.encode(text):
            node = child(words.trie, node, token)
        own = words.entries[words.first_entries[node] : words.first_entries[node + 1]]
        assert [words.lm_ids[word] for word in own] == [model.word_id(text)] * known
    assert words.space == 4
