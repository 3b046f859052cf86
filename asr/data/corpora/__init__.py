"""Corpora: one importer each, a function `prepare_<corpus>` that gives utterances to `prepare`."""
