#!/usr/bin/env bash
# OmniSTEval 0.1.10: a word whose first token is a mark, written before anything that matches, is in no segment.
#
# Before the first reference word, a word that matches nothing goes to that word only if it is more similar to it than
# minus infinity. A mark (a dash, an opening bracket) is not, and so its word is dropped from the texts and the
# latencies. "(Ja" is dropped as a whole: its first token, the bracket, speaks for it. Seen, for the reference "Ja .":
#
#     "- Ja ." -> "Ja ."
#     "(Ja ."  -> "."
#
# Exits with 0 while this is so, and with 1 once it has changed. Needs PyPI and Perl; leaves nothing behind.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet omnisteval==0.1.10
"$folder/venv/bin/python" - <<'PY'
import sys

from omnisteval.alignment import Word, align_sequences, process_alignment
from omnisteval.tokenization import tokenize_words


def kept(text):
    reference, hypothesis = [Word(word, seq_id=0) for word in ("ja", ".")], [Word(word) for word in text.split()]
    tokens = [tokenize_words([words], "de")[0] for words in (reference, hypothesis)]
    words = process_alignment(*align_sequences(*tokens, False), False)
    return " ".join(word.original for word in words if word.main)


seen = {text: kept(text) for text in ("- Ja .", "(Ja .")}
for text, words in seen.items():
    print(f'"{text}" -> "{words}"')
sys.exit(seen != {"- Ja .": "Ja .", "(Ja .": "."})
PY
