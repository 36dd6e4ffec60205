"""What the study runs, as data: the lines of its tables, each a sweep of run.py; the heads that are trained for it;
what is timed, tested and shown. ``{divergence}`` in an override stands for the folder of that head."""

# --- the bundled model

WITHOUT_TRAINING = {
    "waitk": ["policy=waitk", "k=1,2,3,4,5,7"],
    "waitk bare": ["policy=waitk", "k=1,2,3,4,5,7", "limits.bare=true"],
    "alignatt": ["policy=alignatt", "policy.f=1,2,3"],
    "alignatt max_lag": ["policy=alignatt", "policy.f=1,2", "max_lag=2,3"],
    "alignatt bare max_lag": ["policy=alignatt", "policy.f=1,2", "max_lag=3,4", "limits.bare=true"],
    "multi_k": ["policy=multi_k", "policy.k_max=3,5"],
    "lsg": ["policy=lsg", "policy.delta=2.0", "policy.k_min=1,2,3"],
    "dst": ["policy=dst", "policy.threshold=0.45,0.6,0.7,0.8"],
    "drfrattn": ["policy=drfrattn", "policy.threshold=0.3,0.2,0.1,0.05"],
    "doa": ["policy=doa", "policy.f=1,2"],
    "full": ["policy=full"],
}
LEARNED = {
    # The head that comes with the bundled model.
    "learned": ["policy=learned", "policy.threshold=0.7,0.8,0.87,0.93"],
    "learned max_lag=3": ["policy=learned", "policy.threshold=0.65,0.7,0.75,0.8", "max_lag=3"],
    "learned max_lag=4": ["policy=learned", "policy.threshold=0.7,0.8,0.87,0.93,0.95", "max_lag=4"],
    "learned max_lag=5": ["policy=learned", "policy.threshold=0.93", "max_lag=5"],
    # A token of the model's own.
    "wait_token": ["model=tiny-en-de-wait", "policy=wait_token", "policy.latency=1,2,3,4,5"],
    "wait_token max_lag=4": ["model=tiny-en-de-wait", "policy=wait_token", "policy.latency=1,2,3,4,5", "max_lag=4"],
}
BESIDE = {"full tiny-en-de-wait": ["model=tiny-en-de-wait", "policy=full"]}
"""For the table alone: what another set of weights has for whole sentences."""
HEADS = {
    "divergence": ["labels=divergence"],
    "agreement": ["labels=agreement"],
    "oracle": ["labels=oracle"],
    "alignment": ["labels=alignment"],
    "reward": [
        "objective=grpo",
        "model.head_path={divergence}",
        "training.steps=40",
        "objective.sentences=48",
        "objective.kl=0.01",
    ],
}
"""Heads that the study trains, as overrides of ``streamllm train-head``; of each, a line of its own with `max_lag`."""
HELD_OUT = 200
"""Pairs that tell how well a head has learned; nothing is chosen by that."""
THRESHOLDS = {
    "divergence": "0.7,0.8,0.87,0.93",
    "agreement": "0.5,0.65,0.8,0.9",
    "oracle": "0.5,0.65,0.8,0.9",
    "alignment": "0.5,0.65,0.8,0.9",
    "reward": "0.2,0.35,0.5,0.65",
}
HEAD_LINES = {
    f"head {name} max_lag=4": [
        "policy=learned",
        f"policy.threshold={THRESHOLDS[name]}",
        "max_lag=4",
        f"model.head_path={{{name}}}",
    ]
    for name in HEADS
}

# --- the bundled model after learning by reward, with a head of its own

REWARDED = ["model=tiny-en-de-reward"]
REWARDED_WITHOUT_TRAINING = {
    "waitk": ["policy=waitk", "k=1,2,3,4,5"],
    "waitk bare": ["policy=waitk", "k=1,2,3,4,5", "limits.bare=true"],
    "alignatt": ["policy=alignatt", "policy.f=1,2,3"],
    "alignatt max_lag": ["policy=alignatt", "policy.f=1,2", "max_lag=2,3"],
    "alignatt bare": ["policy=alignatt", "policy.f=1,2", "limits.bare=true"],
    "alignatt bare max_lag": ["policy=alignatt", "policy.f=1,2", "max_lag=2,3,4", "limits.bare=true"],
    "multi_k": ["policy=multi_k", "policy.k_max=3,5"],
    "lsg": ["policy=lsg", "policy.delta=2.0", "policy.k_min=1,2"],
    "ralcp": ["policy=ralcp", "policy.beam=3", "policy.step=2", "min_lag=2,3"],
    "full": ["policy=full"],
}
REWARDED_LEARNED = {
    "learned": ["policy=learned", "policy.threshold=0.6,0.7,0.8,0.89"],
    "learned max_lag=3": ["policy=learned", "policy.threshold=0.6,0.7,0.76,0.8", "max_lag=3"],
    "learned max_lag=4": ["policy=learned", "policy.threshold=0.7,0.8,0.89,0.95", "max_lag=4"],
    "learned max_lag=5": ["policy=learned", "policy.threshold=0.95", "max_lag=5"],
}
CHOSEN = {
    "1.7": ("learned max_lag=3", "threshold=0.76"),
    "2.5": ("learned max_lag=4", "threshold=0.89"),
    "3.4": ("learned max_lag=4", "threshold=0.95"),
}
"""Of these, the points that stand for the study, chosen on validation alone: for each bound of LAAL."""

# --- an LLM with an adapter

MODEL = ["model=gemma-3-270m", "prompt=zero-shot-en-de"]
LLM_PAIRS = {"adapter": 6000, "head": 500}
LLM_HEAD = ["cells.rows=3"]
LLM_HELD_OUT = 50
LLM_CALIBRATED = 20  # validation sentences that say which attention heads AlignAtt looks at
ADAPTER = ["experiment=lora_en_de", "data.k=[1,2,3,4,5,7,9,full,random,random,random,random]"]
LLM_WITHOUT_TRAINING = {
    "waitk": ["policy=waitk", "k=1,2,3"],
    "waitk bare": ["policy=waitk", "k=1,2,3,4", "limits.bare=true"],
    "alignatt": ["policy=alignatt", "policy.f=1,2", "policy.heads={alignment_heads}"],
    "full": ["policy=full"],
}
LLM_LEARNED = {
    "learned max_lag=3": ["policy=learned", "policy.threshold=0.7", "max_lag=3", "model.head_path={llm}"],
    "learned max_lag=4": ["policy=learned", "policy.threshold=0.7,0.8,0.87,0.93", "max_lag=4", "model.head_path={llm}"],
}

# --- how they are compared and shown

SAMPLES = 1000  # of each bootstrap
TRIALS = 10_000  # of each randomisation
BASELINES = "waitk bare", "waitk"
"""Curves between whose points a line says what they have at the LAAL of a learned point; areas are above the first."""
TOGETHER = {"learned, every bound": ("learned max_lag=3", "learned max_lag=4", "learned max_lag=5")}
"""Curves through the points of several lines."""
PANELS = {
    "without training, and the bundled head": [*WITHOUT_TRAINING, *(name for name in LEARNED if "learned" in name)],
    "what is trained": [
        "waitk bare",
        "learned max_lag=4",
        "wait_token",
        "wait_token max_lag=4",
        *HEAD_LINES,
    ],
}
"""Panels of the plot of the bundled model."""

TIMED = {
    "wait-3": ["policy=waitk", "k=3"],
    "wait-3, bare": ["policy=waitk", "k=3", "limits.bare=true"],
    "alignatt f=2": ["policy=alignatt", "policy.f=2"],
    "learned 0.87, max_lag=4": ["policy=learned", "policy.threshold=0.87", "max_lag=4"],
    "wait_token latency=3, max_lag=4": [
        "model=tiny-en-de-wait",
        "policy=wait_token",
        "policy.latency=3",
        "max_lag=4",
    ],
    "full": ["policy=full"],
}
LLM_TIMED = {
    "wait-3": ["policy=waitk", "k=3"],
    "learned 0.87, max_lag=4": ["policy=learned", "policy.threshold=0.87", "max_lag=4", "model.head_path={llm}"],
}
SENTENCES_TIMED, TURNS = 50, 3
LLM_SENTENCES_TIMED, LLM_TURNS = 20, 1

COMPARED = ("learned max_lag=4", "threshold=0.87"), ("waitk bare", "k=3")
"""The two runs whose sentences are shown side by side."""
