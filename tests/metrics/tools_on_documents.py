"""What OmniSTEval 0.1.10 and simulstream 1.0.0 say of logs of documents, as JSON: run by the Python that has them.

python tools_on_documents.py FOLDER word|char LANGUAGE BLEU_TOKENIZER
"""

import argparse
import json
import sys
from pathlib import Path

from omnisteval.io import load_resegmentation_inputs
from omnisteval.resegment import resegment
from omnisteval.scoring import ShortformDegeneracyScorer, evaluate_instances
from simulstream.config import yaml_config
from simulstream.metrics.readers import LogReader, YamlReferenceReader
from simulstream.metrics.scorers.latency import LatencyScoringSample
from simulstream.metrics.scorers.latency.stream_laal import StreamLaal


def omnisteval(folder: Path, char: bool, language: str, tokenizer: str, form: str) -> dict:
    """Scores, segments, and which words were dropped."""
    loaded = load_resegmentation_inputs(
        speech_segmentation=str(folder / "segments.yaml"),
        text_segmentation=None,
        ref_sentences_file=str(folder / "references.txt"),
        hypothesis_file=str(folder / f"{form}.jsonl"),
        hypothesis_format="jsonl" if form == "omnisteval" else form,
        char_level=char,
        simulstream_config_file=str(folder / "simulstream.yaml"),
    )
    instances, rows = resegment(*loaded, char_level=char, lang=language)
    scores, *_ = evaluate_instances(instances, bleu_tokenizer=tokenizer)
    return {"scores": scores, "rows": rows, "degeneracy": ShortformDegeneracyScorer()(instances)}


def simulstream(folder: Path, unit: str) -> dict:
    log = LogReader(yaml_config(folder / "simulstream.yaml"), folder / "simulstream.jsonl", latency_unit=unit)
    references = YamlReferenceReader(folder / "segments.yaml", folder / "references.txt").references
    outputs = log.final_outputs_and_latencies()
    samples = [LatencyScoringSample(name, outputs[name], reference) for name, reference in references.items()]
    scores = StreamLaal(argparse.Namespace(latency_unit=unit)).score(samples)
    return {"stream_laal": scores.ideal_latency, "ca_stream_laal": scores.computational_aware_latency}


def main() -> None:
    folder, unit, language, tokenizer = Path(sys.argv[1]), *sys.argv[2:]
    said = {
        form: omnisteval(folder, unit == "char", language, tokenizer, form) for form in ("omnisteval", "simulstream")
    }
    print(json.dumps(said | {"stream_laal": simulstream(folder, unit)}))


if __name__ == "__main__":
    main()
