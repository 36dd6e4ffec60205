#!/usr/bin/env bash
# mweralign 1.4.1 (its function `align_texts`): a blank last reference changes how many lines come back; and importing it
# sets up logging.
#
# simulstream 1.0.0 joins references by line breaks and asserts that as many lines come back. Seen:
#
#     a last reference that is blank is lost:              ['a', 'b', '']   -> 2 lines
#     with a line break after each, it is not:             ['a', 'b', '']   -> 3 lines
#     importing it gives the root logger a handler:        True
#
# Some other references end the process of whoever calls it: call it in a process of its own.
#
# Exits with 0 while this is so, and with 1 once it has changed. Needs PyPI; leaves nothing behind.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mweralign==1.4.1
cat > "$folder/align.py" <<'PY'
import logging
import sys

before = list(logging.getLogger().handlers)
from mweralign.mweralign import align_texts

if len(sys.argv) == 1:
    print(logging.getLogger().handlers != before)
else:
    print(len(align_texts(sys.argv[1], "a b").split("\n")), "lines")
PY
said() { "$folder/venv/bin/python" "$folder/align.py" "$@"; }
{
    said $'a\nb\n'
    said $'a\nb\n\n'
    said
} 2> /dev/null | tee "$folder/said"
printf '%s\n' '2 lines' '3 lines' True | diff - "$folder/said"
