"""Read/write policies, one small file each. They import `streamllm.records` only (and each other): no mlx."""

from streamllm.policies.alignatt import AlignAtt
from streamllm.policies.bounded import Bounded
from streamllm.policies.confidence import Confidence
from streamllm.policies.entropy import Entropy
from streamllm.policies.full import Full
from streamllm.policies.hold_n import HoldN
from streamllm.policies.local_agreement import LocalAgreement
from streamllm.policies.multi_k import MultiK
from streamllm.policies.oracle import Oracle
from streamllm.policies.ralcp import RALCP
from streamllm.policies.stride import Stride
from streamllm.policies.wait_if_diff import WaitIfDiff
from streamllm.policies.wait_if_worse import WaitIfWorse
from streamllm.policies.waitk import WaitK

__all__ = [
    "RALCP",
    "AlignAtt",
    "Bounded",
    "Confidence",
    "Entropy",
    "Full",
    "HoldN",
    "LocalAgreement",
    "MultiK",
    "Oracle",
    "Stride",
    "WaitIfDiff",
    "WaitIfWorse",
    "WaitK",
]
