"""Data: corpora become manifests, manifests become batches."""
