"""`Student`: one way to ask any model for its supervised rows.

    rows = student(batch)                           # Rows(logits=float[N, V])
    rows = student(batch, {"logits", "routing"})    # and how every layer of experts treated the batch's real tokens
    rows = student(batch, {"hidden"})               # the head and its input: losses are then made chunk by chunk
    rows = student(batch, {"vision"})               # the vision tower's features alone
    rows = student(batch, {Tap(layer=0)})           # and the head-averaged attention map of a layer

The language-model head runs here, inside the wrapped forward and on the N supervised rows only: with 6 cameras a driving
batch has thousands of positions and a few dozen answer tokens, so this saves almost all of the head's work and memory,
and DDP and FSDP2 hooks fire because everything happens in one forward. LoRA changes layers in place, so a PEFT model
is asked through its base model.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

import torch
from torch import Tensor, nn

from drivedistill.batch import Batch, Head, Map, RoleInputs, Routing, Rows, Tap
from drivedistill.models import attention
from drivedistill.models.fusion import IMAGE, PADDING
from drivedistill.models.mixture import Decision, Mixture


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
        self.to_teacher = nn.ModuleDict()
        """By layer, from this model's hidden states to the teacher's; they learn, and are left behind after training."""

    def forward(self, batch: Batch, needs: Set[str | Tap] = frozenset({"logits"})) -> Rows:
        """Logits of the supervised rows, `float[N, V]`; equal to `model(**inputs).logits` at these positions.

        Args:
            batch: The samples.
            needs: `logits`, `routing` (with logits), `vision` (alone), `hidden` (with logits: in their place, if the head is
                one product; a head with LoRA or in 8 bits gives logits), and any `Tap` (beside them, see `attention.py`).
        """
        inputs = batch.role(self.role)
        base = bare(self.model)
        if "vision" in needs:
            return Rows(vision=vision_features(base, inputs))
        layers = mixtures(base) if "routing" in needs else {}
        for layer in layers.values():
            layer.recording = True
        wanted = [need for need in needs if isinstance(need, Tap)]
        end = attention.begin(base, inputs, wanted)
        if wanted and len(wanted) == len(needs) and not torch.is_grad_enabled():
            with attention.no_further(base, max(tap.layer for tap in wanted)):
                FORWARD[base.config.model_type](base, inputs)
            return Rows(taps=end())
        hidden, head = FORWARD[base.config.model_type](base, inputs)
        taps = {tap: self._translated(tap, seen) for tap, seen in end().items()}
        decisions = {name: layer.last for name, layer in layers.items() if layer.last is not None}
        for layer in layers.values():  # gradient checkpointing runs the layers again: that is not recorded
            layer.recording, layer.last = False, None
        tokens = token_samples(base, inputs) if decisions else {}
        routing = {name: real_tokens(decision, tokens[place_of(name)]) for name, decision in decisions.items()}
        hidden = hidden.flatten(0, 1)[inputs.rows]
        described = head_of(base) if "hidden" in needs else None
        logits = head(hidden) if described is None else None
        return Rows(logits, routing, None, None if described is None else hidden, described, taps)

    def _translated(self, tap: Tap, seen: Map) -> Map:
        """Hidden states in the teacher's width, where that is learnt."""
        if tap.signal != "hidden" or str(tap.layer) not in self.to_teacher:
            return seen
        return Map(self.to_teacher[str(tap.layer)](seen.values), seen.queries, seen.keys)


def bare(model: Any) -> Any:
    """The model without its PEFT wrapper; LoRA layers stay where they are."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def bare_name(name: str) -> str:
    """A parameter's name in its own model, whatever it is wrapped in; what a recipe's patterns are matched against."""
    return name.removeprefix("module.").removeprefix("model.").removeprefix("base_model.model.")


def mixtures(model: Any) -> dict[str, Mixture]:
    """Layers of experts by name, PEFT's wrappers left out of the names."""
    return {
        name.replace(".base_layer", ""): module
        for name, module in bare(model).named_modules()
        if isinstance(module, Mixture)
    }


# --- answers --------------------------------------------------------------------------------------------------------

ToLogits = Callable[[Tensor], Tensor]


def _driving_t5(model: Any, inputs: RoleInputs) -> tuple[Tensor, ToLogits]:
    return model.decode_hidden(**inputs.model), model.lm_logits


def _decoder_only(model: Any, inputs: RoleInputs) -> tuple[Tensor, ToLogits]:
    return model.model(**inputs.model, use_cache=False).last_hidden_state, model.lm_head


FORWARD: dict[str, Callable[[Any, RoleInputs], tuple[Tensor, ToLogits]]] = {
    "driving_t5": _driving_t5,
    "internvl": _decoder_only,
    "qwen2_5_vl": _decoder_only,
    "llava": _decoder_only,
}


def head_of(model: Any) -> Head | None:
    """A model's head as the one product that it is, in the type that it computes in now; None for one that is more."""
    is_t5 = model.config.model_type == "driving_t5"
    layer = model.language_model.lm_head if is_t5 else model.lm_head
    if type(layer) is not nn.Linear:  # LoRA, 8 bits
        return None
    scale = model.config.text.d_model**-0.5 if is_t5 and model.config.text.scale_decoder_outputs else 1.0
    device = layer.weight.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return Head(layer.weight, layer.bias, scale, dtype=dtype)


def full_logits(model: Any, inputs: RoleInputs) -> Tensor:
    """`float[N, V]` by the model's own forward over every position: the reference that `Student` must equal."""
    with torch.no_grad():
        return model(**inputs.model).logits.flatten(0, 1)[inputs.rows]


# --- vision ---------------------------------------------------------------------------------------------------------


def vision_features(model: Any, inputs: RoleInputs) -> Tensor:
    """Tokens of the present views, `float[X, P, D_v]`.

    Raises:
        ValueError: The family's tower cannot be asked alone.
    """
    if model.config.model_type != "driving_t5":
        raise ValueError(f"the vision tower of {model.config.model_type} cannot be matched; only DrivingT5's can")
    present = inputs.model["view_mask"]
    if "vision_features" in inputs.model:
        return inputs.model["vision_features"][present]
    return model.vision(inputs.model["pixel_values"], present)[present]


# --- routing --------------------------------------------------------------------------------------------------------


def token_samples(model: Any, inputs: RoleInputs) -> dict[str, Tensor]:
    """For the places where experts may sit, the sample of every token, -1 for padding, flat `int64[...]`."""
    samples = torch.arange(inputs.targets.shape[0], device=inputs.targets.device)[:, None]
    if model.config.model_type == "driving_t5":
        views = inputs.model["view_mask"]
        real = {
            "fusion": views.bool(),  # MiniDrive's gate decides for a picture
            "adapter": model.image_mask(views, inputs.model.get("points")),
            "encoder": _encoder_kinds(model, inputs) != PADDING,
            "decoder": inputs.model["decoder_attention_mask"].bool(),
        }
    else:
        assert inputs.token_kind is not None
        real = {"adapter": inputs.token_kind == IMAGE, "decoder": inputs.token_kind != PADDING}
    marked = {place: torch.where(mask, samples, -1).flatten() for place, mask in real.items()}
    if model.config.model_type != "driving_t5":
        marked["adapter"] = marked["adapter"][
            marked["adapter"] >= 0
        ]  # pictures lie one after the other, without padding
    return marked


def token_kinds(model: Any, inputs: RoleInputs) -> dict[str, Tensor]:
    """`TEXT` or `IMAGE` for every real token of the places that see both, flat `int8[M]`."""
    if model.config.model_type == "driving_t5":
        mixed = {"encoder": _encoder_kinds(model, inputs)}
    else:
        assert inputs.token_kind is not None
        mixed = {"decoder": inputs.token_kind}
    return {place: kind[kind != PADDING] for place, kind in mixed.items()}


def _encoder_kinds(model: Any, inputs: RoleInputs) -> Tensor:
    """A `DrivingT5`'s `token_kind` of a batch."""
    names = ("input_ids", "attention_mask", "view_mask")
    return model.token_kind(*(inputs.model[name] for name in names), inputs.model.get("points"))


def place_of(name: str) -> str:
    """`fusion`, `adapter`, `encoder` or `decoder`: which tokens a layer sees, from its name."""
    if name == "fusion":
        return name
    if "adapter" in name or "projector" in name or "merger" in name:
        return "adapter"
    return "encoder" if ".encoder." in name else "decoder"


def real_tokens(decision: Decision, samples: Tensor) -> Routing:
    """A decision without padding, given the sample of every token (see `token_samples`)."""
    real = samples >= 0
    return Routing(
        decision.logits.flatten(0, -2)[real],
        decision.probabilities.flatten(0, -2)[real],
        decision.selected.flatten(0, -2)[real],
        samples[real],
    )
