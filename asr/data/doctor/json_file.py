"""An examination as JSON: totals, every finding, every overlap."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from dataclasses import asdict
from typing import Any

from asr.data.doctor.examine import Examination
from asr.data.doctor.examined import ExaminedManifest
from asr.data.doctor.quantity import quantities
from asr.finding import Severity, row_of

FORMAT = "asr doctor"
VERSION = 1


def examination_to_json(
    examination: Examination, min_duration_s: float, max_duration_s: float
) -> str:
    """Everything, for programs; ASCII, so that no name in it does anything to a terminal.

    Args:
        examination: what was found.
        min_duration_s: of a training [s].
        max_duration_s: of a training [s].
    """
    severities = Counter(finding.kind.severity for finding in examination.findings)
    kinds = Counter(finding.kind for finding in examination.findings)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "alphabet": examination.alphabet,
        "errors": severities[Severity.ERROR],
        "warnings": severities[Severity.WARNING],
        "kinds": {kind.value: count for kind, count in kinds.most_common()},
        "manifests": [
            _totals(each, min_duration_s, max_duration_s) for each in examination.manifests
        ],
        "overlaps": [
            asdict(each) | {"first": str(each.first), "second": str(each.second)}
            for each in examination.overlaps
        ],
        "findings": [row_of(finding) for finding in examination.findings],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _totals(manifest: ExaminedManifest, min_duration_s: float, max_duration_s: float) -> Any:
    distributions = {}
    for quantity in quantities(min_duration_s, max_duration_s):
        if values := quantity.values(manifest):
            distributions[quantity.label] = {
                "lowest": values[0],
                "median": statistics.median(values),
                "highest": values[-1],
            }
    return {
        "manifest": str(manifest.manifest),
        "lines": manifest.lines,
        "utterances": len(manifest.utterances),
        "seconds": manifest.seconds,
        "speakers": len(manifest.speakers),
        "sample_rates": {str(rate): count for rate, count in manifest.sample_rates.items()},
        "distributions": distributions,
    }
