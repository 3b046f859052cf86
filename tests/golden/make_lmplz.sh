#!/bin/sh
# Makes lmplz_order3.arpa.gz and lmplz_order4_pruned.arpa.gz of lmplz.txt (made-up sentences) with
# KenLM's lmplz. What lies here was made by the estimation library (lm/builder) of the source
# package kenlm 0.3.0 of PyPI, with these settings.
#
# Run it with lmplz on the path: `sh tests/golden/make_lmplz.sh`.
set -eu
cd "$(dirname "$0")"
lmplz --order 3 --discount_fallback <lmplz.txt | gzip -n >lmplz_order3.arpa.gz
lmplz --order 4 --prune 0 0 1 --discount_fallback <lmplz.txt | gzip -n >lmplz_order4_pruned.arpa.gz
