"""Mends what keeps SimulEval 1.1.4's remote evaluator from evaluating text at all:

    simuleval --remote-eval --user-dir scripts/simuleval_fixes …

It iterates over an attribute that the evaluator does not have, and the segments of text that it sends hold a type
where the target language belongs, which is no JSON. How sentences are sent, recorded and scored stays SimulEval's.
"""

import json
from typing import Any

from simuleval.data.segments import TextSegment
from simuleval.evaluator import SentenceLevelEvaluator


def to_json(segment: Any) -> str:
    language = segment.tgt_lang if isinstance(segment.tgt_lang, str) else None
    return json.dumps(vars(segment) | {"tgt_lang": language})


SentenceLevelEvaluator.instance_iterator = property(lambda evaluator: evaluator.iterator)
TextSegment.json = to_json
