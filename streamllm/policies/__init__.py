"""Read/write policies, one small file each. They import `streamllm.records` only: no mlx."""

from streamllm.policies.full import Full
from streamllm.policies.waitk import WaitK

__all__ = ["Full", "WaitK"]
