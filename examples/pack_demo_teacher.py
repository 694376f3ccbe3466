"""Turn finished runs into what `drivedistill quickstart` ships: fp16 weights, a card, and where they come from.

    python examples/pack_demo_teacher.py runs/demo_teacher data/world6k src/drivedistill/quickstart/teacher
    python examples/pack_demo_teacher.py runs/demo_half_tower data/world6k src/drivedistill/quickstart/teacher/half_tower

A run of recipes/demo_teacher.yaml becomes the teacher, one of recipes/demo_half_tower.yaml the student with half of its tower.

`origin.json` names the generator, its version, the hash of the data learnt from and that of the small data set whose hash the
tests keep: a test fails when the world has changed since.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from drivedistill.data.images import PictureCache
from drivedistill.recipe import load_recipe
from drivedistill.records import write_json
from drivedistill.subject import load_subject, save_subject

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "unit" / "world" / "golden.json"

HEAD = """\
---
library_name: drivedistill
tags: [autonomous-driving, visual-question-answering, synthetic-data]
---

"""

TEACHER = """\
# The quickstart's teacher

Answers questions about six pictures of 112 pixels of the embedded driving world (`drivedistill world`): synthetic ordinary
roads. It is small enough to be halved in a demonstration and knows no real road: never use it to drive anything.

- **Architecture**: a vision tower of {vision:.2f} M parameters (`models/pyramid.py`) and a T5 of {text:.2f} M (4 + 4 blocks),
  {total:.2f} M in all, stored in half precision.
- **Taught on** {questions:,} questions of the train split of `regular/` (data hash `{data_hash}`, {generator} {version},
  seed {world_seed}, {keyframes:,} key frames). It never saw a corner case; checkpoint chosen by the validation split of
  `regular/`.
- **Training**: the tower on what the data know about its pictures (`drivedistill pretrain`), then frozen; the rest for
  {steps:,} steps of {batch} questions ({hours:.1f} hours of one processor core), seed {seed}.
- **Made with** recipes/demo_teacher.yaml; how well it answers is in docs/log.md.
- **Licence**: that of the package. Data and weights were made by its own code.
"""

HALF_TOWER = """\
# The quickstart's student with half a vision tower

Half of the teacher's vision tower ({vision:.2f} M parameters) and half of its T5 blocks ({text:.2f} M), {total:.2f} M in all,
stored in half precision. The tower has learnt to see as the whole one does; the T5 blocks are the teacher's, and have learnt
nothing since the others were cut out: `drivedistill quickstart` teaches it to answer.

- **Training**: mean squared difference to the teacher's features for {steps:,} steps of the pictures of {batch} questions
  ({hours:.1f} hours on one core that also did other things), seed {seed}. Left on validation: {loss:.2f} of a variance of 1.
- **Pictures** of the train split, one in eighteen of a corner case (data hash
  `{data_hash}`, {generator} {version}, seed {world_seed}, {keyframes:,} key
  frames). No answer was looked at.
- **Made with** recipes/demo_half_tower.yaml; docs/log.md says how well it sees.
- **Licence**: that of the package. Data and weights were made by its own code.
"""


def pack(run: Path, world: Path, out: Path) -> dict[str, Any]:
    """Write the teacher, or the student with half of its tower; returns what `origin.json` says.

    What was in the folder before is gone, so the teacher comes first: another one needs another half tower.
    """
    recipe = load_recipe(run / "recipe.yaml")
    matched = recipe.distill.signal == "vision"
    expected = "demo_half_tower" if matched else "demo_teacher"
    if recipe.name != expected:
        raise SystemExit(f"{run} is a run of the recipe `{recipe.name}`; the card tells of recipes/{expected}.yaml.")
    subject = load_subject(str(run), PictureCache(1))
    facts = json.loads((run / "run.json").read_text("utf-8"))
    manifest = json.loads((world / "manifest.json").read_text("utf-8"))
    golden = json.loads(GOLDEN.read_text("utf-8"))
    sizes = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in subject.model.named_children()}
    total = sum(parameter.numel() for parameter in subject.model.parameters()) / 1e6
    origin = {
        "generator": manifest["generator"],
        "version": manifest["version"],
        "data_hash": manifest["data_hash"],
        "golden_hash": golden["data_hash"],
        "libraries": manifest["libraries"],
        "recipe": f"recipes/{expected}.yaml",
        **{key: facts[key] for key in ("seed", "steps", "seconds", "best_step", "best_validation_loss", "versions")},
    }
    batch = round(facts["epochs"] * facts["questions"]["train"] / facts["steps"])
    card = (HEAD + (HALF_TOWER if matched else TEACHER)).format(
        vision=sizes["vision"],
        text=sizes["language_model"],
        total=total,
        questions=facts["questions"]["train"],
        batch=batch,
        hours=facts["seconds"] / 3600,
        loss=facts["best_validation_loss"],
        world_seed=manifest["seed"],
        keyframes=manifest["keyframes"],
        **{key: origin[key] for key in ("data_hash", "generator", "version", "steps", "seed")},
    )
    save_subject(subject, subject.model.half(), out, card)
    shutil.copy(run / "recipe.yaml", out / "recipe.yaml")
    write_json(out / "origin.json", origin)
    return origin


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("run", "world", "out"):
        parser.add_argument(name, type=Path)
    asked = parser.parse_args()
    print(json.dumps(pack(asked.run, asked.world, asked.out), indent=2))
