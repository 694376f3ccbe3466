"""Planning: which actions collide, which are safe, whom to mind, what to do and why."""

from __future__ import annotations

import numpy as np

from drivedistill.world.action import CHANGE_M, LOOK_AHEAD_S, SPEED_CHANGE, SPEED_LOOK_AHEAD_S, STOPPED, TURN_RAD, later
from drivedistill.world.questions.frame import Frame
from drivedistill.world.questions.observe import Seen
from drivedistill.world.questions.question import Question
from drivedistill.world.questions.right_of_way import gives_way
from drivedistill.world.questions.whatif import PRIMITIVES, is_past
from drivedistill.world.questions.words import because, listing, longitudinal, plan, sentence, spot, word
from drivedistill.world.scene import STANDING, Drive

AFTER = (
    "goes straight and keeps the same speed",
    "accelerates and goes straight",
    "brakes gently",
    "steps on the brakes",
    "changes to the left lane",
    "changes to the right lane",
)
"""The primitives as DriveLM tells them in questions about the probability of a collision."""
LOW_PER_HIGH = 2
IDLE_SHARE = 0.2
"""Share of the frames in which somebody is asked about who is in nobody's way"""
NAVIGATION_M = 60.0
"""The route is told when the junction is this close."""
HORIZON = "in the next three seconds"
"""`LOOK_AHEAD_S` in words"""
TARGET = f"What is the target action of the ego vehicle {HORIZON}?"
SPEED_CHANGES = (-SPEED_CHANGE, SPEED_CHANGE)
ROUTES = {1: "turns left", -1: "turns right", 0: "goes straight on"}


def planning(frame: Frame) -> list[Question]:
    """Questions about what to do."""
    rng = np.random.default_rng([frame.drive.scene.seed, frame.step, 15])
    questions = [*_probabilities(frame, rng), *_safe(frame), *_plan(frame)]
    for item in frame.key:
        if item.is_actor:
            questions += [*_collision(frame, item), *_account(frame, item), *_give_way(frame, item)]
    return [*questions, *_based_on(frame, rng)]


def _collision(frame: Frame, item: Seen) -> list[Question]:
    colliding = frame.what_if.colliding(item.id) if frame.what_if and frame.speed > 1 else None
    if colliding is None:
        return []
    words = listing([PRIMITIVES[index].words for index in colliding])
    return [
        Question(
            "planning", "collision",
            f"What actions taken by the ego vehicle can lead to a collision with {frame.tags[item.id]}?",
            sentence(words) if words else "No such action will lead to a collision.",
            tags=(1,), closed=True, group=spot(frame, item), about=(item.id,),
        )
    ]  # fmt: skip


def _probabilities(frame: Frame, rng: np.random.Generator) -> list[Question]:
    """Collision after one primitive; twice as many low ones as high ones, of the same primitives where possible."""
    if frame.what_if is None or frame.speed < 1:
        return []
    outcomes = [
        (index, item, frame.what_if.collides(index, item.id))
        for item in frame.key
        if item.is_actor
        for index in np.flatnonzero(frame.what_if.possible).tolist()
    ]
    high = [(index, item) for index, item, outcome in outcomes if outcome]
    used = {index for index, _ in high}
    low = [(index, item) for index, item, outcome in outcomes if outcome is False]
    drawn = [low[place] for place in rng.permutation(len(low))]
    drawn.sort(key=lambda entry: entry[0] not in used)
    count = max(1, LOW_PER_HIGH * len(high))
    return [
        Question(
            "planning", "probability",
            f"What is the probability of colliding with {frame.tags[item.id]} after the ego vehicle {AFTER[index]}?",
            answer, tags=(0,), closed=True, group=f"{word(AFTER[index])} {spot(frame, item)}", about=(item.id,),
        )
        for answer, chosen in (("High.", high), ("Low.", drawn[:count]))
        for index, item in chosen
    ]  # fmt: skip


def _account(frame: Frame, item: Seen) -> list[Question]:
    """Yes if it is the reason of the plan or on the way; no if no action leads to it, and nothing is done about it."""
    around = frame.drive.decisions[max(0, frame.step - 10) : later(frame.step, 3.0) + 1]
    binds = frame.cause is item or (frame.what_if is not None and frame.what_if.in_path(item.id) is True)
    named = any(decision.actor == item.id for decision in around)
    apart = frame.what_if is not None and frame.what_if.colliding(item.id) == [] and not named
    if not binds and (not apart or (frame.what_if and frame.what_if.in_path(item.id) is None)):
        return []
    return [
        Question(
            "planning", "account",
            f"Is it necessary for the ego vehicle to take {frame.tags[item.id]} into account?",
            "Yes." if binds else "No.", tags=(0,), closed=True, group=spot(frame, item), about=(item.id,),
        )
    ]  # fmt: skip


def _give_way(frame: Frame, item: Seen) -> list[Question]:
    must = gives_way(frame, item)
    if must is None:
        return []
    return [
        Question(
            "planning", "give_way", f"Does the ego vehicle have to give way to {frame.tags[item.id]}?",
            "Yes." if must else "No.", tags=(0,), closed=True, group=spot(frame, item), about=(item.id,),
        )
    ]  # fmt: skip


def _based_on(frame: Frame, rng: np.random.Generator) -> list[Question]:
    """The plan where the object is its reason; going on, for one object that is in nobody's way, in some frames."""
    named = {decision.actor for decision in frame.drive.decisions[frame.step :]}
    idle = [
        item
        for item in frame.key
        if item.is_actor
        and item.id not in named
        and frame.what_if
        and frame.what_if.in_path(item.id) is False
        and item.status != "Crossing."
    ]
    idle = [idle[int(rng.integers(len(idle)))]] if idle and rng.random() < IDLE_SHARE and frame.speed > 1 else []
    told = [(item, "keep going at the same speed", "there is no safety issue") for item in idle]
    if frame.cause is not None and frame.cause.id in frame.tags:
        told.append((frame.cause, longitudinal(frame), because(frame)))
    return [
        Question(
            "planning", "based_on",
            f"What actions could the ego vehicle take based on {frame.tags[item.id]}? Why take this action and what's "
            "the probability?",
            f"The action is to {act}. The reason is that {reason}, which has a high probability.",
            tags=(1,), about=(item.id,),
        )
        for item, act, reason in told
    ]  # fmt: skip


def _safe(frame: Frame) -> list[Question]:
    """Actions without a collision that stay on the road and stop where they must; not asked when one is doubtful."""
    outcome = frame.what_if
    if outcome is None or frame.speed < 1:
        return []
    safe = []
    for index in np.flatnonzero(outcome.possible).tolist():
        touched = np.flatnonzero(np.isfinite(outcome.touch[index])).tolist()
        close = np.flatnonzero(np.isfinite(outcome.near[index])).tolist()
        hits = any(actor in frame.by_id for actor in touched)
        if outcome.lawful[index] is False or hits:
            continue
        if outcome.lawful[index] is None or close:
            return []
        safe.append(PRIMITIVES[index].words)
    if not safe:
        return []
    return [
        Question(
            "planning", "safe", "In this scenario, what are safe actions to take for the ego vehicle?",
            sentence(listing(safe)), tags=(1,), closed=True,
        )
    ]  # fmt: skip


def _plan(frame: Frame) -> list[Question]:
    """What the ego vehicle does next, and why; not asked if the reason cannot be seen."""
    if not frame.reason_shown or against_the_light(frame) or not _clear_cut(frame):
        return []
    where = route(frame.drive, frame.step)
    cause = (frame.cause.id,) if frame.cause else ()
    return [
        Question(
            "planning", "plan", f"{where}What action should the ego vehicle take {HORIZON}, and why?",
            f"The ego vehicle should {plan(frame)}, because {because(frame)}.", tags=(1,), about=cause,
        ),
        Question(
            "planning", "target", where + TARGET, sentence(plan(frame)), tags=(0,), closed=True, group=word(where),
        ),
    ]  # fmt: skip


def _clear_cut(frame: Frame) -> bool:
    """Would the action have the same name if it were a little weaker or stronger, or told over three seconds?"""
    drive, step = frame.drive, frame.step
    end = later(step, LOOK_AHEAD_S)
    before, after, at_end = drive.speeds[0, [step, later(step, SPEED_LOOK_AHEAD_S), end]]
    stops, changes = np.array([after, at_end]) < STOPPED, np.array([after, at_end]) - before
    if stops.any() != stops.all() or (not stops.any() and len(set(np.digitize(changes, SPEED_CHANGES).tolist())) > 1):
        return False
    shift, turn = abs(drive.offsets[end] - drive.offsets[step]), abs(drive.poses[0, end, 2] - drive.poses[0, step, 2])
    near = (
        (abs(abs(after - before) - SPEED_CHANGE), 0.25 if after > 2 * STOPPED else 0.0),
        (abs(after - STOPPED), 0.2),
        (abs(shift - CHANGE_M) if not np.any(drive.turning[step : end + 1]) else np.inf, 0.3),
        (abs(turn - TURN_RAD), 0.06),
    )
    return all(away >= enough for away, enough in near)


def against_the_light(frame: Frame) -> bool:
    """It drives on before a red light: the light is about to change, which nobody can see."""
    waits = frame.action.longitudinal in ("stop", "decelerate") or (frame.speed < STANDING)
    return not is_past(frame.drive, frame.step) and frame.light in ("red", "yellow") and not waits


def route(drive: Drive, step: int) -> str:
    """The navigation's word before a junction: nobody sees from outside where somebody wants to go."""
    junction = drive.scene.road.junction
    if junction is None:
        return ""
    centre = drive.scene.road.track.world(junction.s, 0.0)
    x, y, yaw = drive.poses[0, step]
    ahead = float(np.cos(yaw) * (centre.x - x) + np.sin(yaw) * (centre.y - y))
    turns = drive.turning[step:]
    if not np.any(turns) and not 0 < ahead < NAVIGATION_M:
        return ""
    side = int(turns[np.flatnonzero(turns)[0]]) if np.any(turns) else 0
    return f"The route {ROUTES[side]} at the junction. "
