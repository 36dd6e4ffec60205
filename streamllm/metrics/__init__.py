"""How late and how good a run was: latency.py (from delays), arrival.py (in seconds, over a clock), behaviour.py (from
events), quality.py (sacrebleu), summary.py (all of them, over traces). Import from the modules: the functions
``latency`` and ``quality`` would hide them if named here."""
