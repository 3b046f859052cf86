"""Corpora: one `prepare_<corpus>` each, and what they share: folder, audio, manifests, report."""
