"""How late and how good a run was: latency.py (pure Python), quality.py (sacrebleu), summary.py (both, over
traces). Import from the modules: the functions ``latency`` and ``quality`` would hide them if named here."""
