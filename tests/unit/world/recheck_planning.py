"""The second opinion on predictions, plans and behavior."""

import re

import numpy as np

from drivedistill.data.drivelm_challenge import BEHAVIORS
from drivedistill.world.catalogue import with_article

SECONDS = re.compile(r"In about (\d+) seconds?\.")
MOVES = {
    "keep going at the same speed": (0.0, 0),
    "accelerate and go straight": (2.0, 0),
    "brake gently": (-2.0, 0),
    "brake suddenly": (-6.0, 0),
    "change to the left lane": (0.0, 1),
    "change to the right lane": (0.0, -1),
}
AFTER = {
    "goes straight and keeps the same speed": "keep going at the same speed",
    "accelerates and goes straight": "accelerate and go straight",
    "brakes gently": "brake gently",
    "steps on the brakes": "brake suddenly",
    "changes to the left lane": "change to the left lane",
    "changes to the right lane": "change to the right lane",
}


def in_path(second, question):
    return second.agrees(question, second.on_strip(question.about[0]))


def future(second, question):
    actor, answer = question.about[0], question.answer
    path, speed = second.path(actor, 3.0), second.speed(actor)
    gone = np.linalg.norm(path[-1] - path[0])
    later = np.linalg.norm(path[-1] - path[-3]) / 0.2
    d = second.drive.scene.road.track.project(path[[0, -1], 0], path[[0, -1], 1])[1]
    shift = abs(d[1] - d[0])
    truths = {
        "Stationary.": gone < 0.4,
        "Keep going straight.": gone > 1 and abs(later - speed) < max(1.0, 0.25 * speed),
        "Slow down.": later < speed - 1,
        "Cross the road.": shift > 1.2 and shift > 0.7 * gone,
        "Change to the left lane.": shift > 1.2 and second.drive.indicators[actor, second.step] == 1,
        "Change to the right lane.": shift > 1.2 and second.drive.indicators[actor, second.step] == -1,
        "Come toward the ego vehicle in its lane.": second.drive.scene.actors[actor - 1].role == "wrong way",
    }
    return None if truths.get(answer, True) else f"goes {gone:.1f} m, {speed:.1f} -> {later:.1f} m/s, shift {shift:.1f}"


def closing(second, question):
    actor = question.about[0]
    gaps = np.linalg.norm(second.path(actor, 1.0) - second.path(0, 1.0), axis=1)
    return second.agrees(question, gaps[-1] < gaps[0])


def reach(second, question):
    said = int(SECONDS.match(question.answer)[1])
    speed = int(re.search(r"drives at (\d+) meters", question.text)[1])
    just_before = second.speed(0, 1e-9)
    if min(abs(speed - second.speed(0)), abs(speed - just_before)) > 0.7:
        return f"it drives at {second.speed(0):.1f}"
    seconds = second.along(question.about[0]) / speed
    return None if abs(seconds - said) < 0.45 else f"after {seconds:.1f} s"


def intention(second, question):
    actor = question.about[0]
    lane = second.lane_middle()
    d = second.drive.scene.road.track.project(*second.path(actor, 4.0)[[0, -1]].T)[1] - lane
    if not 5.5 < second.relative(actor)[0] < 21.5:
        return "its place tells"
    enters = abs(d[1]) < abs(d[0]) - 1.2 and second.drive.indicators[actor, second.step] * d[0] < 0
    return second.agrees(question, bool(enters))


def notice(second, question):
    tags = re.findall(r"notice that (<[^>]+>)\. The object is ([^,]+(?:light|sign)?), so", question.answer)
    said = [[second.tag(actor)[0], *second.tag(actor)[1:]] for actor in question.about]
    if [tag[0].strip("<>").split(",")[1:] for tag in tags] != said or len(tags) != 3:
        return "other objects"
    ranks = []
    for place, actor in enumerate(question.about):
        if not second.on_strip(actor) and second.off(actor, 0) > 68 and actor not in second.decided():
            return "it is neither ahead nor on the way"
        cause = place == 0 and "keep an eye" not in question.answer.split(". Secondly")[0]
        if cause and actor < 1000 and actor not in second.decided():
            return "it reacts to nobody like this"
        ranks.append((0, 0.0) if cause else (1 if second.on_strip(actor) else 2, second.distance(actor)))
    return None if ranks == sorted(ranks) else f"order {ranks}"


def collision(second, question):
    said = {words for words in MOVES if words in question.answer.lower()}
    if not said and not question.answer.startswith("No such action"):
        return "unknown actions"
    actor = question.about[0]
    surely, perhaps = (
        {words for words in second.possible() if second.hits(*MOVES[words], actor, margin)} for margin in (0.0, 0.15)
    )
    return None if surely <= said <= perhaps else f"{sorted(surely)}"


def probability(second, question):
    words = AFTER[re.search(r"after the ego vehicle ([a-z ]+)\?", question.text)[1]]
    high = question.answer == "High."
    hits = second.hits(*MOVES[words], question.about[0], 0.15 if high else 0.0)
    return None if hits == high else f"hits: {hits}"


def safe(second, question):
    said = {words for words in MOVES if words in question.answer.lower()}
    seen = [actor for actor in second.actors if second.visible(actor)]
    for words in second.possible():
        hits = [any(second.hits(*MOVES[words], actor, margin) for actor in seen) for margin in (0.0, 0.15)]
        allowed = not second.unlawful(*MOVES[words])
        if words in said and (hits[0] or not allowed):
            return f"{words} is not safe"
        if words not in said and not hits[1] and allowed:
            return f"{words} is safe"
    return None


def room(second, question):
    words = re.search(r"(change to the (?:left|right) lane)", question.text)[1]
    seen = [actor for actor in second.actors if second.visible(actor)]
    free = question.answer == "Yes."
    hits = any(second.hits(*MOVES[words], actor, 0.0 if free else 0.15) for actor in seen)
    return None if hits != free and not second.unlawful(*MOVES[words]) else f"hits: {hits}"


def account(second, question):
    actor = question.about[0]
    decided = actor in second.decided() or actor > 1000
    if question.answer == "Yes.":
        return None if decided or second.on_strip(actor) else "nothing happens"
    hit = [words for words in second.possible() if second.hits(*MOVES[words], actor, 0.0)]
    return f"{hit}, {decided}" if hit or decided or second.on_strip(actor) else None


def based_on(second, question):
    actor = question.about[0]
    if "no safety issue" in question.answer:
        return "it is on the way" if actor in second.decided() or second.on_strip(actor) else None
    if actor < 1000:
        named = any(f"{with_article(noun)} " in question.answer for noun in second.nouns(actor))
        return None if actor in second.decided() and named else "no cause"
    return None if "traffic light is" in question.answer or "sign" in question.answer else "no cause"


def give_way(second, question):
    order = second.order_at_crossing(question.about[0])
    if order is None:
        return None
    return second.agrees(question, order == "other first") if question.answer == "Yes." or order else None


def plan(second, question):
    return _plan(second, question.answer.split(", because")[0].removeprefix("The ego vehicle should "), question)


def target(second, question):
    return _plan(second, question.answer[0].lower() + question.answer[1:-1], question)


def _plan(second, words, question):
    before, after = second.speed(0), second.speed(0, 2.0)
    speed = {
        "keep going at the same speed": abs(after - before) < 1.3 and after > 0.4,
        "accelerate": after > before + 0.7,
        "slow down": after < before - 0.7,
        "brake to a stop": after < 0.8,
        "remain stopped": before < 0.8 and after < 0.8,
    }
    in_three = {
        **speed,
        "accelerate": second.speed(0, 3.0) > before + 0.5,
        "slow down": second.speed(0, 3.0) < before - 0.5,
    }
    in_three |= {"keep going at the same speed": abs(second.speed(0, 3.0) - before) < 1.5}
    stated = [known for known in speed if known in words]
    if len(stated) != 1 or not speed[stated[0]] or not in_three[stated[0]]:
        return f"{before:.1f} -> {after:.1f} m/s"
    left = second.shift(3.0)
    if ("left" in words and left < 0.5) or ("right" in words and left > -0.5):
        return f"{left:.1f} m to the left"
    if re.search("turn|bend", words) and ("turn" in words) != second.at_junction():
        return "one turns at a junction and follows a bend elsewhere"
    because = question.answer.split(", because ")
    if because[-1].endswith("at the junction.") and ("will turn" in because[-1]) == bool(
        second.drive.turning[second.step]
    ):
        return "it turns now or will do so"
    if not re.search("in the next three seconds", question.text):
        return "nobody knows until when"
    if "bend" in words and because[-1] == "the road ahead is free.":
        return "the reason is the bend"
    if len(because) == 2 and (cause := question.about):
        nouns = second.nouns(cause[0]) if cause[0] < 1000 else {"traffic light", "stop sign"}
        return None if any(noun in because[1] for noun in nouns) else "other reason"
    return "no cause" if len(because) == 2 and re.search(r"\ban? ", because[1].replace("a stop", "")) else None


def behavior(second, question):
    if question.answer not in BEHAVIORS:
        return "not one of DriveLM's answers"
    speed = second.speed(0)
    bands = {
        "not moving": (0, 0.4), "driving slowly": (0.5, 5), "driving with normal speed": (5, 12),
        "driving fast": (12, 19), "driving very fast": (19, 99),
    }  # fmt: skip
    low, high = next(band for words, band in bands.items() if question.answer.endswith(f"{words}."))
    return None if low <= speed <= high else f"{speed:.1f} m/s"


PLANNING = {
    check.__name__: check
    for check in (
        in_path, future, closing, reach, intention, notice, collision, probability, safe, room, account, based_on,
        give_way, plan, target, behavior,
    )
}  # fmt: skip
