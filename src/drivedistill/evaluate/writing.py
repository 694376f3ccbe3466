"""Engines: in which ways a model's answers are computed. All write the same tokens.

eager     our own loop around one step of the decoder (models/decode.py)
compiled  the same with the step compiled; the first answers wait for the compiler
graph     the same with the step in a CUDA graph; needs a GPU
generate  Hugging Face's `generate`, which also knows beams
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from drivedistill.evaluate.decoding import Decoding
from drivedistill.models.decode import Limits, OnToken, Step, Written, fixed_shapes, write
from drivedistill.models.decode_graph import GraphStep
from drivedistill.models.decode_t5 import T5Step
from drivedistill.models.decode_vlm import VlmStep
from drivedistill.models.student import bare
from drivedistill.problems import InputError, Problem
from drivedistill.subject import Subject

Engine = Literal["eager", "compiled", "graph", "generate"]

STEPS: dict[str, Callable[[Any, list[int]], Step]] = {
    "driving_t5": T5Step,
    "internvl": VlmStep,
    "qwen2_5_vl": VlmStep,
    "llava": VlmStep,
}
"""The step of a decoder, by `model_type`."""

Writer = Callable[[dict[str, Tensor], OnToken | None], Written]
"""Inputs of B questions, and who is told every token, to what was written."""


def writer(subject: Subject, decoding: Decoding, engine: Engine = "eager") -> Writer:
    """Who writes a model's answers; a change of the model's weights or device asks for a new one.

    Args:
        subject: The model, in evaluation mode on its device.
        decoding: `beams` above 1 are always `generate`'s.
        engine: See above.

    Raises:
        InputError: CUDA graphs without a GPU.
    """
    if engine == "graph" and subject.model.device.type != "cuda":
        remedy = "use `eager` or `compiled`"
        raise InputError(Problem("command line", "--engine", "a GPU for CUDA graphs", "none", remedy))
    settings = generation_settings(subject, decoding)
    if engine == "generate" or decoding.beams > 1:
        return _Generate(subject, settings)
    model = bare(subject.model)
    ends = list(settings.eos_token_id)
    step = ENGINES[engine](STEPS[model.config.model_type](model, ends))
    limits = Limits(decoding.max_new_tokens, decoding.min_new_tokens)

    def greedy(inputs: dict[str, Tensor], on_token: OnToken | None = None) -> Written:
        return write(step, inputs, limits, ends=ends, pad=settings.pad_token_id, on_token=on_token)

    return greedy


def generation_settings(subject: Subject, decoding: Decoding) -> GenerationConfig:
    """Nothing of the model's own settings but its special tokens."""
    own, tokenizer = subject.model.generation_config, subject.preparation.tokenizer
    ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    return GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        min_new_tokens=decoding.min_new_tokens or None,
        num_beams=decoding.beams,
        do_sample=False,
        use_cache=True,
        # Training ends an answer with the tokenizer's end token, whatever the published model did.
        eos_token_id=sorted({end for end in [*ends, tokenizer.eos_token_id] if end is not None}),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=own.bos_token_id,
        decoder_start_token_id=own.decoder_start_token_id,
    )


# --- engines --------------------------------------------------------------------------------------------------------


def _compiled(step: Any) -> Step:
    """On a processor weights are frozen into the code; a GPU gets fused kernels (and CUDA graphs from `graph`)."""
    if step.ends.device.type == "cpu":
        import torch._inductor.config  # takes a second

        # For the whole process: the tracer looks here, and not at the options of one `torch.compile`.
        torch._inductor.config.freezing = True
    step = fixed_shapes(step)
    step.forward = torch.compile(step.forward, dynamic=False)
    for part in step.reading_parts():  # number of pictures and length of the question differ from batch to batch
        part.forward = torch.compile(part.forward)
    return step


ENGINES: dict[str, Callable[[Any], Step]] = {"eager": lambda step: step, "compiled": _compiled, "graph": GraphStep}


class _Generate:
    """Hugging Face's own way.

    Args:
        subject: The model.
        settings: For `generate`.
    """

    def __init__(self, subject: Subject, settings: GenerationConfig) -> None:
        self.model, self.settings = bare(subject.model), settings

    def __call__(self, inputs: dict[str, Tensor], on_token: OnToken | None = None) -> Written:
        # `generate` fills gaps of a given configuration from the model's own, so the model's own is replaced.
        self.model.generation_config = self.settings
        chosen, told = _ChosenProbability(), {} if on_token is None else {"streamer": _Streamer(on_token)}
        with torch.inference_mode():
            written = self.model.generate(**inputs, **told, logits_processor=LogitsProcessorList([chosen]))
        prompt = 1 if self.model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        # With beams the likeliest next token of a beam need not be the one that survives.
        sure = torch.stack(chosen.steps, dim=1) if self.settings.num_beams == 1 else None
        return Written(written[:, prompt:], sure)


class _ChosenProbability(LogitsProcessor):
    """Notes how probable the likeliest token of every step was: under greedy decoding, the token that is written."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []
        """`float[B]` each."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Leave the scores as they are."""
        self.steps.append(scores.float().softmax(dim=-1).amax(dim=-1))
        return scores


class _Streamer:
    """Hands tokens on, after the prompt, with which `generate` begins."""

    def __init__(self, on_token: OnToken) -> None:
        self.on_token, self.begun = on_token, False

    def put(self, value: Tensor) -> None:
        """Called by `generate` with the prompt, then with every token."""
        if self.begun:
            self.on_token(value)
        self.begun = True

    def end(self) -> None:
        """Called by `generate` after the last token."""
