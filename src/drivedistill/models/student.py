"""`Student`: one way to ask any model for its supervised rows.

    rows = student(batch)          # Rows(logits=float[N, V])

The language-model head runs here, inside the wrapped forward and on the N supervised rows only: with 6 cameras a driving
batch has thousands of positions and a few dozen answer tokens, so this saves almost all of the head's work and memory,
and DDP and FSDP2 hooks fire because everything happens in one forward. LoRA changes layers in place, so a PEFT model
is asked through its base model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from drivedistill.batch import Batch, RoleInputs, Rows


class Student(nn.Module):
    """A model behind the project's contract; the teacher is one too, in another role.

    Args:
        model: `DrivingT5`, a supported Hugging Face vision-language model, or a `PeftModel` around one.
        role: Which inputs of the batch it reads.
    """

    def __init__(self, model: nn.Module, role: str = "student") -> None:
        super().__init__()
        self.model = model
        self.role = role

    def forward(self, batch: Batch) -> Rows:
        """Logits of the supervised rows, `float[N, V]`; equal to `model(**inputs).logits` at these positions."""
        inputs = batch.role(self.role)
        base = bare(self.model)
        hidden, head = FORWARD[base.config.model_type](base, inputs)
        return Rows(head(hidden.flatten(0, 1)[inputs.rows]))


def bare(model: Any) -> Any:
    """The model without its PEFT wrapper; LoRA layers stay where they are."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def bare_name(name: str) -> str:
    """A parameter's name in its own model, whatever it is wrapped in; what a recipe's patterns are matched against."""
    return name.removeprefix("module.").removeprefix("model.").removeprefix("base_model.model.")


Head = Callable[[Tensor], Tensor]


def _driving_t5(model: Any, inputs: RoleInputs) -> tuple[Tensor, Head]:
    return model.decode_hidden(**inputs.model), model.lm_logits


def _decoder_only(model: Any, inputs: RoleInputs) -> tuple[Tensor, Head]:
    return model.model(**inputs.model, use_cache=False).last_hidden_state, model.lm_head


FORWARD: dict[str, Callable[[Any, RoleInputs], tuple[Tensor, Head]]] = {
    "driving_t5": _driving_t5,
    "internvl": _decoder_only,
    "qwen2_5_vl": _decoder_only,
    "llava": _decoder_only,
}


def full_logits(model: Any, inputs: RoleInputs) -> Tensor:
    """`float[N, V]` by the model's own forward over every position: the reference that `Student` must equal."""
    with torch.no_grad():
        return model(**inputs.model).logits.flatten(0, 1)[inputs.rows]
