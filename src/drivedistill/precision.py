"""Which arithmetic this machine is quick in."""

from __future__ import annotations

from typing import Literal


def fast_precision() -> Literal["no", "bf16"]:
    """`bf16` where the processor computes in it, `no` where it would only be imitated."""
    import torch  # two seconds and 300 MB, which whoever only imports this file does not need

    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    return "bf16" if any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name) else "no"
