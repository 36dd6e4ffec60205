"""Read/write policies, one small file each. May import records and check, and never mlx."""

from typing import TYPE_CHECKING

from streamllm.faces import face

if TYPE_CHECKING:
    from streamllm.policies.alignatt import AlignAtt as AlignAtt
    from streamllm.policies.bounded import Bounded as Bounded
    from streamllm.policies.confidence import Confidence as Confidence
    from streamllm.policies.doa import DOA as DOA
    from streamllm.policies.drfrattn import DrFrattn as DrFrattn
    from streamllm.policies.dst import DST as DST
    from streamllm.policies.entropy import Entropy as Entropy
    from streamllm.policies.frontier import Frontier as Frontier
    from streamllm.policies.full import Full as Full
    from streamllm.policies.hold_n import HoldN as HoldN
    from streamllm.policies.learned import Learned as Learned
    from streamllm.policies.local_agreement import LocalAgreement as LocalAgreement
    from streamllm.policies.lsg import LSG as LSG
    from streamllm.policies.multi_k import MultiK as MultiK
    from streamllm.policies.oracle import Oracle as Oracle
    from streamllm.policies.ralcp import RALCP as RALCP
    from streamllm.policies.stride import Stride as Stride
    from streamllm.policies.wait_if_diff import WaitIfDiff as WaitIfDiff
    from streamllm.policies.wait_if_worse import WaitIfWorse as WaitIfWorse
    from streamllm.policies.wait_token import WaitToken as WaitToken
    from streamllm.policies.waitk import WaitK as WaitK

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "AlignAtt": "streamllm.policies.alignatt",
        "Bounded": "streamllm.policies.bounded",
        "Confidence": "streamllm.policies.confidence",
        "DOA": "streamllm.policies.doa",
        "DST": "streamllm.policies.dst",
        "DrFrattn": "streamllm.policies.drfrattn",
        "Entropy": "streamllm.policies.entropy",
        "Frontier": "streamllm.policies.frontier",
        "Full": "streamllm.policies.full",
        "HoldN": "streamllm.policies.hold_n",
        "LSG": "streamllm.policies.lsg",
        "Learned": "streamllm.policies.learned",
        "LocalAgreement": "streamllm.policies.local_agreement",
        "MultiK": "streamllm.policies.multi_k",
        "Oracle": "streamllm.policies.oracle",
        "RALCP": "streamllm.policies.ralcp",
        "Stride": "streamllm.policies.stride",
        "WaitIfDiff": "streamllm.policies.wait_if_diff",
        "WaitIfWorse": "streamllm.policies.wait_if_worse",
        "WaitK": "streamllm.policies.waitk",
        "WaitToken": "streamllm.policies.wait_token",
    },
)
