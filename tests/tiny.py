"""Tiny models with random weights, built from configurations: every supported family in well under a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from drivedistill import sections as cards
from drivedistill.build import build_student
from drivedistill.data.images import PictureCache
from drivedistill.data.samples import write_samples
from drivedistill.models.hf_vlm import InternVLProcessor, Qwen2_5_VLProcessor
from drivedistill.recipe import Recipe
from drivedistill.records import CAMERAS, Sample
from drivedistill.subject import Subject

TEXTS = [
    "What should the ego vehicle do? Slow down and keep lane.",
    "There is a pedestrian crossing at the left front of the ego car.",
    "Turn left, turn right, accelerate, stop, <c1,CAM_FRONT,800.0,400.5>",
] * 20

SPECIAL = {
    "internvl": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"],
    "qwen2_5_vl": [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
        "<|video_pad|>",
    ],
    "llava": ["<pad>", "<s>", "</s>", "<image>"],
}
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}IMAGE"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT_MODEL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}


def _tokenizer(kind: str, **special: Any) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=SPECIAL[kind], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def internvl(seed: int = 0, **text: Any) -> tuple[Any, Any]:
    tokenizer = _tokenizer(
        "internvl",
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    )
    images = GotOcr2ImageProcessorPil(size={"height": 28, "width": 28}, crop_to_patches=False)
    chat = CHAT.replace("IMAGE", "<IMG_CONTEXT>\n")
    processor = InternVLProcessor(image_processor=images, tokenizer=tokenizer, image_seq_length=4, chat_template=chat)
    config = InternVLConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "image_size": (28, 28),
            "patch_size": (7, 7),
        },
        text_config={"model_type": "qwen2", "vocab_size": len(tokenizer), **TEXT_MODEL, **text},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    torch.manual_seed(seed)
    return InternVLForConditionalGeneration(config).eval(), processor


def qwen2_5_vl(seed: int = 0, **text: Any) -> tuple[Any, Any]:
    tokenizer = _tokenizer(
        "qwen2_5_vl",
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
    )
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 8})
    chat = CHAT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    processor = Qwen2_5_VLProcessor(image_processor=images, tokenizer=tokenizer, chat_template=chat)
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "out_hidden_size": 32,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        text_config={
            "vocab_size": len(tokenizer),
            **TEXT_MODEL,
            **text,
            "bos_token_id": ids("<|endoftext|>"),
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    torch.manual_seed(seed)
    return Qwen2_5_VLForConditionalGeneration(config).eval(), processor


def llava(seed: int = 0, **text: Any) -> tuple[Any, Any]:
    tokenizer = _tokenizer(
        "llava", pad_token="<pad>", bos_token="<s>", eos_token="</s>", extra_special_tokens={"image_token": "<image>"}
    )
    images = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    chat = CHAT.replace("IMAGE", "<image>\n").replace("<|im_start|>", "").replace("<|im_end|>", "")
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat,
    )
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 28,
            "patch_size": 7,
        },
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **TEXT_MODEL, **text},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        vision_feature_layer=-2,
    )
    torch.manual_seed(seed)
    return LlavaForConditionalGeneration(config).eval(), processor


VLMS = {"internvl": internvl, "qwen2_5_vl": qwen2_5_vl, "llava": llava}


def save_vlm(kind: str, folder: Path, seed: int = 0, **text: Any) -> Path:
    """Write a tiny model and its processor as a hub snapshot would lie on disk; `text` changes its language model."""
    model, processor = VLMS[kind](seed, **text)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def pictures(folder: Path, size: tuple[int, int] = (160, 90)) -> dict[str, str]:
    """Six noisy pictures on disk, by camera."""
    generator = np.random.default_rng(0)
    paths = {}
    for camera in CAMERAS:
        path = folder / f"{camera}.png"
        Image.fromarray(generator.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path)
        paths[camera] = str(path)
    return paths


QUESTIONS = [
    ("What now?", "Stop."),
    (
        "What should the ego vehicle do near <c1,CAM_BACK,100.0,50.0>?",
        "Slow down and keep lane, <c1,CAM_BACK,100.0,50.0>.",
    ),
    ("Is it raining?", "No."),
    ("Describe the scene in front of the ego car.", "A pedestrian is crossing at the left front of the ego car."),
    ("Turn?", ""),
    ("What is the moving status of the truck?", "Going ahead."),
    ("Which lights are on?", "None, no, none."),
    ("What could lead to a collision?", "Accelerate and turn left."),
]


def samples(images: dict[str, str]) -> list[Sample]:
    """Eight samples whose lengths, numbers of views, regimes and tasks differ."""
    tasks = ["perception", "prediction", "planning", "behavior"]
    made = []
    for i, (question, answer) in enumerate(QUESTIONS):
        views = CAMERAS[:1] if i % 3 == 0 else CAMERAS
        made.append(
            Sample(
                id=f"s{i}",
                dataset="drawn",
                scene=f"scene{i // 2}",
                frame=f"frame{i}",
                split="train",
                regime="corner" if i % 3 == 0 else "regular",
                task=tasks[i % 4],
                question=question,
                answer=answer,
                images={camera: images[camera] for camera in views},
            )
        )
    return made


def subject(family: str, folder: Path, seed: int = 0, lora: bool = False) -> Subject:
    """A ready model of any family: `driving_t5` or a key of `VLMS`."""
    options = {"lora": cards.Lora(r=4, alpha=8, dropout=0.0, targets=LORA[family])} if lora else {}
    torch.manual_seed(seed)
    cache = PictureCache(50)
    source = cards.Source(name="drawn", format="jsonl", root=folder, regime="regular")
    texts = [Sample(**{**SPOKEN, "question": q, "answer": a}) for q, a in QUESTIONS]
    if family == "driving_t5":
        data = cards.Data(sources=[source], image_size=32)
        text = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
        vision = {"depths": [1, 1], "hidden_sizes": [16, 32], "num_stages": 2}
        overrides = {"text": text, "vision": vision, "fusion_hidden": 8}
        card = cards.Model(preset="tiny", overrides=overrides, tokenizer_size=300, allow_random=True, **options)
        return build_student(card, data, cache, texts)
    data = cards.Data(sources=[source], image_size=28)
    path = folder / f"{family}-{seed}"
    if not path.exists():
        save_vlm(family, path, seed)
    return build_student(cards.Model(path=str(path), **options), data, cache, texts)


LORA = {
    "driving_t5": r".*\.(q|v)",
    "internvl": r".*language_model.*\.(q_proj|v_proj)",
    "qwen2_5_vl": r".*language_model.*\.(q_proj|v_proj)",
    "llava": r".*language_model.*\.(q_proj|v_proj)",
}
SPOKEN = {
    "id": "x",
    "dataset": "drawn",
    "scene": "x",
    "frame": "x",
    "split": "train",
    "regime": "regular",
    "task": "planning",
    "images": {},
}
FAMILIES = ["driving_t5", *VLMS]


def recipe(folder: Path, fractions: dict[str, float] | None = None, **changes: Any) -> Recipe:
    """A run of a few steps on the eight samples; `changes` are dotted fields with `__` for the dot."""
    root = folder / "drawn"
    if not root.exists():
        root.mkdir(parents=True)
        write_samples(root / "train.jsonl", samples(pictures(root)), root)
    text = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
    tree: dict[str, Any] = {
        "name": "drawn",
        "data": {
            "image_size": 32,
            "sources": [
                {
                    "name": "drawn",
                    "format": "jsonl",
                    "root": str(root),
                    "regime": "regular",
                    "fractions": fractions or {"train": 0.75, "val": 0.25},
                }
            ],
        },
        "model": {
            "preset": "tiny",
            "tokenizer_size": 300,
            "overrides": {
                "text": text,
                "vision": {"depths": [1, 1], "hidden_sizes": [16, 32], "num_stages": 2},
                "fusion_hidden": 8,
            },
        },
        "train": {"steps": 6, "batch_size": 2, "learning_rate": 1e-3, "validate_every": 3, "log_every": 1},
    }
    for key, value in changes.items():
        node = tree
        *parents, last = key.split("__")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return Recipe.model_validate(tree)
