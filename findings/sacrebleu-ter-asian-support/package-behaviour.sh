#!/usr/bin/env bash
# sacrebleu 2.6.0: TER with asian_support alone takes a Chinese sentence for one word.
#
# `TER(asian_support=True)` reads as if it cut Chinese and Japanese into characters. It does so only together with
# normalized=True, which is off by default: one wrong character of four is then a TER of 100, and the signature says
# "asian:yes" all the same. Seen:
#
#     asian_support: 100.0 (…|norm:no|punct:yes|asian:yes|…)
#     asian_support and normalized: 25.0
#
# Exits with 0 while this is so, and with 1 once it has changed. Needs PyPI; leaves nothing behind.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "sacrebleu==2.6.0"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

from sacrebleu.metrics.ter import TER

found = []
for settings in ({}, {"normalized": True}):
    metric = TER(asian_support=True, **settings)
    found.append(metric.corpus_score(["一只狗跑"], [["一只猫跑"]]).score)
    print(" and ".join(["asian_support", *settings]) + f": {found[-1]} ({metric.get_signature()})")
sys.exit(found != [100.0, 25.0])
PYTHON
