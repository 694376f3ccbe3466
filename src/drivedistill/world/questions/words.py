"""Grammar, names of classes, and the words in which a plan and its reason are told."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence

import numpy as np

from drivedistill.world.action import LOOK_AHEAD_S, later
from drivedistill.world.catalogue import COLOURS, KINDS, name, plural, with_article
from drivedistill.world.questions.frame import Frame
from drivedistill.world.questions.observe import ALIKE, Seen
from drivedistill.world.scene import Actor

COLUMNS = 4
ROWS = (0.46, 0.48, 0.52)
"""Shares of the height that separate rows: objects on the road lie below each other in a narrow band."""
NUMBERS = ("two", "three", "four", "five", "six")
PLURALS = {"person": "people"}
SPEED = {"keep speed": "keep going at the same speed", "accelerate": "accelerate", "decelerate": "slow down"}


def listing(items: Sequence[str]) -> str:
    """ "a", "a and b", "a, b, and c"."""
    if len(items) < 3:
        return " and ".join(items)
    return f"{', '.join(items[:-1])}, and {items[-1]}"


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def number(count: int) -> str:
    """A count as an answer."""
    return str(count) if count < 5 else "5 or more"


def several(noun: str, count: int) -> str:
    """One or more, in words: "a red car", "two people"."""
    if count == 1:
        return with_article(noun)
    colour, _, kind = noun.partition(" ")
    painted = colour in COLOURS
    kind = kind if painted else noun
    many = plural(kind) if kind in KINDS else PLURALS.get(kind, f"{kind}s")
    return f"{NUMBERS[count - 2]} {f'{colour} {many}' if painted else many}"


def spot(frame: Frame, item: Seen) -> str:
    """Camera, column and row of a coarse grid on its picture: what the text of a tag gives away."""
    width, height = frame.size
    x, y = item.middle
    column = min(int(x / width * COLUMNS), COLUMNS - 1)
    return f"{item.camera} {column} {bisect(ROWS, y / height)}"


def goes_by_its_name(frame: Frame, item: Seen) -> bool:
    """Its full name can be made out, and nothing else that shows could be called the same: no tag is needed.

    Tags hold coordinates, which tell where something is; questions about places must do without.
    """
    actors = frame.drive.scene.actors
    shown = [_type(actors[instance - 1]) for instance in (*frame.by_id, *frame.faint) if instance <= len(actors)]
    actor = actors[item.id - 1]
    return item.name == name(actor.kind, actor.colour) and shown.count(_type(actor)) == 1


def _type(actor: Actor) -> tuple[str, str]:
    """Whoever shares it could be taken for the actor from afar."""
    return ALIKE.get(actor.kind, actor.kind), actor.colour if KINDS[actor.kind].painted else ""


def word(text: str) -> str:
    """A text as one word of a group."""
    return text.strip().replace(" ", "-")


def longitudinal(frame: Frame) -> str:
    """What the ego vehicle does with its speed."""
    if frame.action.longitudinal == "stop":
        return "brake to a stop" if frame.speed > 0.5 else "remain stopped"
    return SPEED[frame.action.longitudinal]


def lateral(frame: Frame) -> str:
    """Where the ego vehicle drives: one turns at junctions, elsewhere one follows the road."""
    side = frame.action.lateral.removeprefix("turn ")
    return f"follow the bend to the {side}" if _follows_bend(frame) else frame.action.lateral


def _follows_bend(frame: Frame) -> bool:
    turning = frame.drive.turning[frame.step : later(frame.step, LOOK_AHEAD_S) + 1]
    return frame.action.lateral.startswith("turn") and not np.any(turning)


def plan(frame: Frame) -> str:
    """What the ego vehicle does: direction and speed."""
    if frame.action.longitudinal == "stop" and frame.speed <= 0.5:
        return "remain stopped"
    return f"{lateral(frame)} and {longitudinal(frame)}"


def because(frame: Frame) -> str:
    """The reason as a clause; call it only if `frame.reason_shown`."""
    reason, cause = (frame.decision.reason if frame.decision else "free"), frame.cause
    who = with_article(cause.name) if cause else ""
    return {
        "free": "the road bends" if _follows_bend(frame) else "the road ahead is free",
        "lead": f"it follows {who} ahead",
        "light": f"the traffic light is {frame.light}",
        "stop sign": "there is a stop sign ahead",
        "turn": f"it {'turns' if frame.drive.turning[frame.step] else 'will turn'} at the junction",
        "curve": "the road bends",
        "person": f"{who} is in or entering its path",
        "animal": f"{who} is in or entering its path",
        "obstacle": f"{who} blocks its lane",
        "wrong way": f"{who} comes toward it in its lane",
        "crossing": f"{who} crosses in front of it",
        "merging": f"{who} moves into its lane",
        "yield": f"{who} has priority",
    }[reason]


def state(frame: Frame, item: Seen) -> str | None:
    """ "The object ..." as in the answers to what to notice first; None if it cannot be told."""
    if item.kind == "traffic light":
        return f"is a {frame.light} light"
    if not item.is_actor:
        return f"is {with_article(item.name)}"
    phrases = {
        "Turn left.": "is turning left",
        "Turn right.": "is turning right",
        "Signalling left.": "is signalling left",
        "Signalling right.": "is signalling right",
    }
    if item.status is None:
        return None
    return phrases.get(item.status, f"is {item.status[:-1].lower()}")
