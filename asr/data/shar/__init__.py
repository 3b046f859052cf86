"""Corpora in shards of Lhotse's Shar format: written, and read as windows of a training.

A folder holds, for every shard, `cuts.000000.jsonl.gz` (what is said) and `recording.000000.tar`
(encoded audio), see https://lhotse.readthedocs.io. Local folders are read without the package
lhotse: one of its cuts may name a shell command as the source of its audio, which here is not even
looked at, as all audio comes from the tar.
"""
