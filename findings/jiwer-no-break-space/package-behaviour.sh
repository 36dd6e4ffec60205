#!/usr/bin/env bash
# jiwer 4.0.0: a no-break space is a letter, so two words are one.
#
# The default transforms divide words at plain spaces only, where `str.split` divides at any white space. French and
# typeset references have no-break spaces: "un chien\u00a0!" against "un chien !" is then an error of the words, and
# the rate may pass 1. Seen:
#
#     word error rate of "a b" against "a<no-break space>b": 2.0
#     after " ".join(text.split()) of both: 0.0
#
# Exits with 0 while this is so, and with 1 once it has changed. Needs PyPI; leaves nothing behind.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "jiwer==4.0.0"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import jiwer

plain = jiwer.wer(["a\u00a0b"], ["a b"])
joined = jiwer.wer([" ".join("a\u00a0b".split())], ["a b"])
print(f'word error rate of "a b" against "a<no-break space>b": {float(plain)}')
print(f'after " ".join(text.split()) of both: {float(joined)}')
sys.exit((plain, joined) != (2.0, 0.0))
PYTHON
