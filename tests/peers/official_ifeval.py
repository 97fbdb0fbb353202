"""Runs lm-eval's IFEval scorer as it is, in a process of its own: reads rows on standard input, writes verdicts.

Nothing of this project is imported here. Only langdetect is seeded, whose verdict on a short text is random otherwise.
"""

from __future__ import annotations

import json
import logging
import sys


def main() -> None:
    """Read one JSON list of {doc, response} and write one of the official metrics."""
    import langdetect
    from lm_eval.tasks.ifeval import utils

    langdetect.DetectorFactory.seed = 0
    logging.disable(logging.CRITICAL)
    verdicts = []
    for row in json.load(sys.stdin):
        found = utils.process_results(row["doc"], [row["response"]])
        verdicts.append({name.removesuffix("_acc"): value for name, value in found.items()})
    json.dump(verdicts, sys.stdout)


if __name__ == "__main__":
    main()
