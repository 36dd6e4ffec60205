#!/usr/bin/env bash
# mosestokenizer 1.2.1, which OmniSTEval 0.1.10 tokenises with: it knows no abbreviation of Russian.
#
# The lines of its list of Russian abbreviations (and some of others) end in a carriage return, which its Perl keeps as a
# part of the abbreviation. So the full stop is cut off "бульв." while German "bzw." keeps its own. Seen:
#
#     ru: бульв.  -> ['бульв', '.'], though nonbreaking_prefix.ru has it: True
#     de: bzw.  -> ['bzw.']
#
# Exits with 0 while this is so, and with 1 once it has changed. Needs PyPI and Perl; leaves nothing behind.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mosestokenizer==1.2.1
"$folder/venv/bin/python" - <<'PY'
import sys
from pathlib import Path

import mosestokenizer

known = (Path(mosestokenizer.__file__).parent / "nonbreaking_prefixes" / "nonbreaking_prefix.ru").read_text("utf-8")
word = next(line for line in known.split("\n") if line.islower() and len(line) > 2 and line.isalpha())
russian = mosestokenizer.MosesTokenizer("ru", no_escape=True)(f"{word}.")
german = mosestokenizer.MosesTokenizer("de", no_escape=True)("bzw.")
print(f"ru: {word}.  -> {russian}, though nonbreaking_prefix.ru has it: True")
print(f"de: bzw.  -> {german}")
sys.exit((russian, german) != ([word, "."], ["bzw."]))
PY
