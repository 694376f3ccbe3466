"""The sections of a recipe: what each field means, and its default.

Papers leave much open; every such point is a field here, and its default is our reading of the paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from drivedistill.drivekd_sections import DriveKD
from drivedistill.problems import Problem
from drivedistill.records import Capability, Regime, refuse_together
from drivedistill.section import Count, NotNegative, Pattern, Percent, Positive, Section, Share


class Source(Section):
    """A data set and how it is split. Every source names its regime, since no published file does."""

    name: str
    format: Literal["drivelm", "coda_lm", "senna", "clips", "messages", "jsonl"]
    root: Path
    regime: Regime
    split_by: Literal["scene", "question", "file"] = "scene"
    """`scene`: no scene is shared between splits (the default). `question`: EM-VLM4AD's way, which leaks scenes.
    `file`: the data set's own files or folders."""
    file: str = "train"
    """Which of the format's files is read (and then split by scene or question)."""
    fractions: dict[str, NotNegative] = {"train": 0.9, "val": 0.05, "test": 0.05}
    files: dict[str, str] = {}
    """For `split_by: file`: our split -> the format's file or folder, e.g. `{train: Train, val: Mini}`."""
    seed: int = 0
    templates: list[str] = []
    """Keep only questions of these kinds, as `data check` names them; empty keeps all."""
    capabilities: list[Capability] = []
    """Keep only questions of these capabilities, e.g. for Drive-KD's students of a single one; empty keeps all."""
    without: list[str] = []
    """Leave questions of these kinds out of every split."""
    every: dict[str, Count] = {}
    """Kind of question -> keep it on every n-th key frame of the split `train` only, e.g. `{objects: 4}`."""
    limit: Count | None = None
    """Keep only the first samples of every split; for smoke runs."""

    @model_validator(mode="after")
    def _splits(self) -> Source:
        total = sum(self.fractions.values())
        if self.split_by == "file" and not self.files:
            expected, remedy = (
                "the files of every split, as `split_by: file` needs",
                "add e.g. {train: Train, val: Val}",
            )
            refuse_together([Problem("", "files", expected, "none", remedy)])
        if self.split_by != "file" and abs(total - 1) > 1e-6:
            found = f"a sum of {total:g}"
            refuse_together([Problem("", "fractions", "shares that sum to 1", found, "correct the shares")])
        return self


class Data(Section):
    """What is learnt from, and how a sample becomes tensors."""

    sources: Annotated[list[Source], Field(min_length=1)]
    corner_ratio: Positive | None = None
    """Sample so many regular questions per corner question (CLKD: 17); null takes the data as they are."""
    image_size: Count = 224
    """Side of the square picture given to the model, in pixels."""
    jpeg_scale: Literal["full", "reduced"] = "full"
    """`reduced`: decode a JPEG that is at least four times as large as `image_size` at 1/2, 1/4 or 1/8, which takes half of the
    time and moves pixels by about one grey level of 255. Part of what a model learns: it is asked as it was trained."""
    region_drawing: Literal["target", "full"] = "target"
    """Draw a region's red rectangle after scaling (never thinner than a pixel), or on the full picture (official)."""
    coordinates: Literal["pixel", "unit"] = "pixel"
    """How the model reads and writes points: pixels (DriveLM) or 0-1 (DriveBench)."""
    choices: Literal["letter", "words"] = "letter"
    """Multiple choice: read with the options and answered by a letter, or read without and answered in an option's words."""
    views: Literal["all", "named"] = "all"
    """Which pictures a question comes with: all of its frame, or those of the cameras that it names (`<c1,CAM_BACK,...>`), all
    where it names none (DriveBench)."""
    points: bool = False
    """Give a driving_t5 model the places that a question names, besides the text of their tags."""
    tiles: Literal["one", "dynamic"] = "one"
    """Decoder-only models. `one`: every picture becomes one square tile of `image_size`, whatever its shape (Drive-KD).
    `dynamic`: it keeps its shape, and the model's processor decides on tiles (InternVL) or pixels (Qwen2.5-VL)."""
    supervise: Literal["answer", "turn"] = "answer"
    """Decoder-only models: the answer and its end token, or everything that the template writes into the assistant's turn,
    from its header to the last line break (Drive-KD)."""
    layout: Literal["compact", "padded"] = "compact"
    """`compact`: text, then image tokens, padding last. `padded`: EM-VLM4AD's padded text before the image tokens."""
    max_question_tokens: Count = 512
    max_answer_tokens: Count = 512
    """Longer texts are refused, never cut."""
    vision_cache: Path | None = None
    """Folder of `drivedistill cache`: features of frozen vision towers are read from it instead of pictures."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that prepare batches; 0: the training process itself."""
    prefetch: Count = 2
    """Micro-batches that every worker keeps ready."""
    image_cache_mb: Annotated[int, Field(ge=0)] = 512
    """Memory for decoded pictures; about 90 DriveLM questions share a frame."""


class Lora(Section):
    """Low-rank adapters (EM-VLM4AD: r 64, alpha 32, dropout 0.05 on q and v)."""

    r: Count = 64
    alpha: Positive = 32
    dropout: NotNegative = 0.05
    targets: Pattern = r".*\.(q|v)"
    """Regular expression on module names."""
    init: Literal["default", "loftq"] = "default"
    """`loftq`: the adapters start as what mends the rounding of an 8-bit base (arXiv 2310.08659)."""
    expert_targets: Pattern | None = None
    """Regular expression on the names of stacked feed-forward experts, e.g. `expert_(up|gate|down)$`: every expert gets an
    adapter of its own. Needs `dropout: 0`, since an adapter of a stack is added to the weights, not run on tokens."""
    also_train: list[Pattern] = [
        r"(fusion|points|adapter|interaction|modal_embedding|camera_embedding|router|expert_(up|gate|down))\.",
        r"(projector|merger)\..*expert_",
    ]
    """Regular expressions on parameter names: what learns in full beside the adapters. The default has routers, adapter
    experts and `lora` experts; experts that are whole layers or slices learn when they are named: `expert_`."""

    @model_validator(mode="after")
    def _no_dropout_on_stacks(self) -> Lora:
        if self.expert_targets is not None and self.dropout:
            expected, remedy = "0, as `expert_targets` needs", "set dropout to 0, or remove expert_targets"
            refuse_together([Problem("", "dropout", expected, f"{self.dropout:g}", remedy)])
        return self


def _ascending(indices: list[int]) -> list[int]:
    if sorted(set(indices)) != indices:
        raise ValueError("indices in ascending order, each once")
    return indices


Indices = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_ascending)]
Blocks = Literal["half", "first_half", "alternate"] | Indices
"""`half`: evenly spaced with the first and the last (6 -> 0, 2, 5); `alternate`: every second from 0; or the indices kept."""


class Shrink(Section):
    """Which blocks of the model at `path` stay (CLKD: half of them). Null: all."""

    encoder: Blocks | None = None
    """T5's encoder; null for decoder-only models."""
    decoder: Blocks | None = None
    """T5's decoder, or the language model of a decoder-only one."""
    vision: Literal["half"] | list[Count] | None = None
    """Blocks kept per stage of a Swin tower (`half`: [2, 2, 6, 2] -> [1, 1, 3, 1]); one number for a plain tower."""

    @model_validator(mode="after")
    def _something(self) -> Shrink:
        if self.encoder is None and self.decoder is None and self.vision is None:
            expected, remedy = "what is cut: `encoder`, `decoder` or `vision`", "name one of them, or remove shrink"
            refuse_together([Problem("", "", expected, "none of them", remedy)])
        return self


def _require_enough(router: str, k: int, experts: int) -> None:
    if router == "top_k" and k > experts:
        found, remedy = f"{k} of {experts} experts", "lower k, or raise experts"
        refuse_together([Problem("", "k", "not more than there are", found, remedy)])


class AdapterExperts(Section):
    """The visual adapter as a mixture of experts (CLKD equations 1-2: dense, per visual token)."""

    experts: Count = 4
    router: Literal["dense", "sample", "top_k", "top_p"] = "dense"
    """`dense`: every token weighs all experts; `sample`: all tokens of a sample share their weights."""
    k: Count = 2
    p: Annotated[float, Field(ge=0, le=1)] = 0.4
    init_noise: NotNegative = 0.02
    """Copied experts are equal; each gets Gaussian noise of this share of its weights' standard deviation."""

    @model_validator(mode="after")
    def _enough(self) -> AdapterExperts:
        _require_enough(self.router, self.k, self.experts)
        return self


class FfnExperts(Section):
    """Feed-forward layers as mixtures of experts (CLKD section III-B; GShard, Switch, LLaVA-MoD)."""

    experts: Count = 4
    kind: Literal["upcycle", "split", "lora"] = "upcycle"
    """`upcycle`: full copies; `split`: slices of the hidden width, parameter-neutral; `lora`: one shared layer and thin
    low-rank experts (meets CLKD's 63.5 M)."""
    router: Literal["top_k", "top_p", "dense"] = "top_k"
    k: Count = 2
    p: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Smallest set whose probabilities sum to more than p (arXiv 2403.07652)."""
    layers: Literal["every_second", "all", "first_half", "second_half"] | list[Annotated[int, Field(ge=0)]] = (
        "every_second"
    )
    """In encoder and decoder alike; `every_second` from block 0 (LLaVA-MoD's `sparse`)."""
    router_bias: bool = True
    """False: as Mixtral's and Qwen2-MoE's routers, so that a model can be written in their layout."""
    rank: Count = 8
    """Of `lora` experts."""
    init_noise: NotNegative = 0.0
    """As for the adapter; 0 keeps the converted model equal to the dense one, and its experts equal to each other."""

    @model_validator(mode="after")
    def _enough(self) -> FfnExperts:
        _require_enough(self.router, self.k, self.experts)
        return self


class Model(Section):
    """A model: loaded from `path`, or built from `preset` and filled with the weights that are named."""

    path: str | None = None
    """A run, a directory in Hugging Face layout, or a hub id."""
    preset: str | None = None
    """A name from `models/presets.py`: `tiny`, `tiny_student`, `em_vlm4ad_small`, `paper_a`, ...; or, for a vision-language
    model of a published family, from `models/vlm_presets.py`."""
    overrides: dict[str, Any] = {}
    """Fields of the preset's configuration to change, e.g. `{text: {num_layers: 3}}`."""
    vision_weights: str | None = None
    text_weights: str | None = None
    """Directory or hub id of pre-trained parts for a preset."""
    tokenizer: str | None = None
    """For a preset, a directory or hub id. Null: that of `text_weights`, else the teacher's, else one is trained here."""
    tokenizer_size: Count = 1024
    """Vocabulary of a tokenizer trained here."""
    shrink: Shrink | None = None
    """Cut blocks out of the model at `path`; happens first."""
    adapter_experts: AdapterExperts | None = None
    """Turn the visual adapter into experts, after cutting."""
    ffn_experts: FfnExperts | None = None
    """Turn feed-forward layers into experts, after cutting."""
    lora: Lora | None = None
    frozen: list[Pattern] = []
    """Regular expressions on parameter names, e.g. `vision\\.`."""
    quantize: Literal["int8"] | None = None
    """Keep the language model's frozen linear layers in 8 bits while training; what is saved is ordinary again."""
    attention: Literal["sdpa", "eager"] = "sdpa"
    dtype: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    allow_random: bool = False
    """Permit frozen parts that hold random weights (they cannot learn; useful only to measure speed)."""

    @model_validator(mode="after")
    def _fits_together(self) -> Model:
        refuse_together(self._misfits())
        return self

    def _misfits(self) -> Iterator[Problem]:
        if (self.path is None) == (self.preset is None):
            found = "neither" if self.path is None else "both"
            yield Problem("", "", "exactly one of `path` and `preset`", found, "name the one that is meant")
        elif self.path is not None:
            for name in ("overrides", "vision_weights", "text_weights", "tokenizer"):
                if value := getattr(self, name):
                    expected = f"nothing; `{name}` belongs to a preset, a model from `path` brings its own"
                    yield Problem("", name, expected, str(value), "remove it")
        elif self.shrink:
            expected = "nothing; a preset names its own numbers of blocks"
            yield Problem("", "shrink", expected, "blocks to cut", "remove it, or name the whole model in `path`")
        for name in ("ffn_experts", "adapter_experts"):
            if self.path is None and name in self.overrides:
                remedy = f"write `model.{name}`: experts are made after the weights were loaded"
                yield Problem("", f"overrides.{name}", "dense layers", "experts", remedy)
        if self.lora and self.lora.init == "loftq" and not self.quantize:
            expected = "`default`; loftq mends the rounding of `quantize: int8`, which is not asked for"
            yield Problem("", "lora.init", expected, "loftq", "remove it, or add quantize: int8")


class Release(Section):
    """Progressive release (CLKD equation 6): alpha falls geometrically from `distill.weight` at every optimizer step."""

    end: Positive = 0.1
    """alpha after the last step; gamma follows from it and from the run's number of steps."""
    corner_end: Positive | None = None
    """alpha on corner samples after the last step, with a gamma of its own: hold on to a teacher longer, or let go of it
    sooner, where pictures are rare. Null: the same as `end` (literal)."""
    below: Positive | None = None
    """A regime whose alpha is smaller no longer listens; once none does, the teacher is no longer asked and its memory is
    freed. Null: never (literal)."""


class Distill(Section):
    """How the teacher is listened to."""

    signal: Literal["answers", "vision"] = "answers"
    """`answers`: the teacher's words. `vision`: the features of its vision tower, which a cut tower must learn to match
    before it may be frozen."""

    loss: Literal["forward_kl", "reverse_kl", "jensen_shannon"] = "forward_kl"
    temperature: Positive = 1.0
    weight: NotNegative = 1.0
    """alpha: the weight of the teacher's term beside the supervised one; with `release`, alpha at step 0."""
    on: Literal["all", "regular", "trusted", "mined"] = "all"
    """Which rows listen: all (literal), those of regular samples (for a teacher that never saw corner cases), those of
    samples that the teacher understands (for one that never saw some kind of answer), or the mined ones."""
    trust: Positive = 1.0
    """For `on: trusted`: the teacher's mean cross-entropy on the true answer, in nats per token, up to which it
    understands a sample."""
    release: Release | None = None
    """Null: constant weight."""
    supervised_weight: NotNegative = 1.0
    teacher_cache: Path | None = None
    """Folder of `drivedistill cache`: the teacher's words are read from it, and its weights are not loaded."""
    drivekd: DriveKD | None = None
    """Lessons by capability (Drive-KD); null: words only."""


class Mining(Section):
    """H2G (CLKD equations 3-5): learn from the hardest samples and, inside them, from the hardest tokens."""

    samples: Percent = 50
    """m: percentage of a pool's samples."""
    tokens: Percent = 50
    """n: percentage of a chosen sample's tokens."""
    pool: Literal["micro", "ranks", "window", "bank"] = "micro"
    """Among whom samples are ranked: the micro-batch; the micro-batches of all ranks; the optimizer window, scored by a
    pass without gradient; everything seen so far, by a running loss per sample."""
    measure: Literal["loss", "excess", "excess_regular"] = "loss"
    """Hardness: the student's loss (literal); its excess over the teacher's; the excess for regular and the loss for
    corner samples."""
    within_template: bool = False
    """Rank samples among those that ask the same kind of question."""
    exclude: list[Literal["number", "coordinate", "id", "camera", "end", "template"]] = []
    """Kinds of tokens that are never mined and do not count for a sample's hardness; noise rather than difficulty."""
    keep: list[Literal["number", "coordinate", "id", "camera", "end", "template"]] = []
    """Kinds of tokens that come first in every chosen sample, whatever their loss; `[end]` is easy and hardly ever mined."""
    warmup: Share = 0.0
    """Share of the run before anything is mined."""
    anneal: Share = 0.0
    """Share of the run, after the warm-up, in which m and n fall from 100 to their values."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Of the bank's running loss."""


class Train(Section):
    """The loop. A window is what one optimizer step sees: `batch_size * accumulate` samples on every rank."""

    epochs: Positive = 1.0
    steps: Annotated[int, Field(ge=0)] | None = None
    """Optimizer steps; overrides `epochs`. 0: nothing is learnt, the run holds the model as it came (a teacher that is there
    already, as a row of a table)."""
    batch_size: Count = 8
    accumulate: Count = 1
    similar_length: bool = False
    """Put answers of similar length into one micro-batch, which saves padding; with `data.views: named` first of all questions
    with as many pictures. It also decides which samples share a step: gradients of steps then differ more from each other
    than those of random samples."""
    reduction: Literal["tokens", "samples", "sqrt"] = "tokens"
    """Every supervised token counts the same (CLKD), or every sample (Drive-KD), or a sample counts the root of its number
    of tokens (between both: long answers neither drown short ones nor are drowned)."""
    fused_loss: Literal["auto", "on", "off"] = "auto"
    """Losses chunk by chunk of rows, so that the logits of all rows never exist at once; same numbers, less memory. `auto`:
    where the head is one product and frozen, or a micro-batch has twice as many rows as the model is wide. The log says for
    which share of the micro-batches."""
    router_balance: NotNegative = 0.01
    """Weight of the Switch balance loss of layers of experts; 0 is CLKD's equation 7 to the letter."""
    router_z: NotNegative = 0.0
    """Weight of the router z-loss (ST-MoE, arXiv 2202.08906)."""
    router_entropy: NotNegative = 0.0
    """Weight of the routers' entropy; 1e-4 with top-p (arXiv 2403.07652), whose routing would drift to uniform."""
    learning_rate: Positive = 1e-4
    learning_rates: dict[Pattern, Positive] = {}
    """Regular expression on parameter names -> learning rate; the first that matches wins."""
    weight_decay: NotNegative = 0.05
    schedule: Literal["constant", "linear", "cosine", "exponential"] = "exponential"
    """`exponential`: times `decay` per epoch (EM-VLM4AD: 0.9)."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    clip: Positive | None = 1.0
    precision: Literal["no", "bf16"] = "no"
    log_every: Count = 10
    validate_every: Count | None = None
    """Steps between two looks at the validation split; null: once per epoch."""
    validate_limit: Count | None = 2_000
    """Questions per look: of each regime its share, the same ones every time; null: all."""
    save_every: Count | None = None
    """Steps between two checkpoints; null: with every validation."""
    keep: Count = 2
    """Checkpoints kept, besides the best one."""
    trackers: list[Literal["tensorboard", "wandb"]] = []
    sharding: Literal["none", "fsdp2"] = "none"

    @property
    def fused(self) -> Literal["auto", "on", "off"]:
        """`fused_loss`, but for a sharded head, which is whole inside the forward only."""
        return "off" if self.sharding == "fsdp2" else self.fused_loss
