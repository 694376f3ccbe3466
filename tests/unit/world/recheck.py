"""A second opinion on every answer: the same log and masks, other formulas (sampled points, finite differences).

`contradictions` is strict where an answer is sharp and lenient where the question was only asked far from a tie.
"""

import re
from itertools import combinations

import numpy as np
from recheck_planning import PLANNING
from second_look import CLASSES, GENERAL, Second

from drivedistill.world.catalogue import with_article

TAG = re.compile(r"<c(\d+),(CAM_[A-Z_]+),([\d.]+),([\d.]+)>")
ORDER = ["CAM_BACK_LEFT", "CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK"]
BEARINGS = {
    "front": 0, "front left": 45, "left": 90, "back left": 135, "back": 180,
    "back right": -135, "right": -90, "front right": -45,
}  # fmt: skip
NUMBERS = ("two", "three", "four", "five", "six")
SIDES = {
    "around the ego vehicle": lambda x, y: 0 * x + 9.0,
    "in front of the ego vehicle": lambda x, y: x,
    "behind the ego vehicle": lambda x, y: -x,
    "to the left of the ego vehicle": lambda x, y: y,
    "to the right of the ego vehicle": lambda x, y: -y,
}


def contradictions(drive, step, views, questions):
    """What is wrong with the questions about one key frame, one line each; empty if nothing is."""
    second = Second(drive, step, views)
    found = []
    for question in questions:
        problems = [*well_formed(second, question), *tags_true(second, question)]
        check = CHECKS.get(question.template)
        if check is None:
            problems.append("nobody checks this template")
        elif not problems:
            problem = check(second, question)
            problems += [problem] if problem else []
        found += [f"{question.template}: {problem} | {question.text} -> {question.answer}" for problem in problems]
    return found


def well_formed(second, question):
    text = f"{question.text} {question.answer}"
    if re.search(r"\b[Aa] (?:[aeiou]|SUV)|\b[Aa]n (?!SUV)[^aeiou]|  |\.\.| ,|None", text):
        yield "bad grammar"
    if not question.text.rstrip().endswith(("?", "ego vehicle.", "driving decision.")):
        yield "the question does not end"
    if not re.search(r"(\.|^[0-4]|^5 or more)$", question.answer):
        yield "the answer does not end"
    yield from (f"{actor} cannot be seen" for actor in question.about if not second.visible(actor))


def tags_true(second, question):
    """Tags are middles of masks, belong to the objects the question is about, and count from left to right."""
    found = TAG.findall(f"{question.text} {question.answer}")
    places = []
    for number, camera, x, y in dict.fromkeys(found):
        owners = [actor for actor in second.ids if second.tag(actor) == (camera, x, y)]
        if not any(owner in question.about for owner in owners):
            yield f"<c{number}> is nobody"
        places.append((int(number), ORDER.index(camera), float(x)))
    places.sort()
    if places != sorted(places, key=lambda place: place[1:]):
        yield "numbers do not run from left to right"


def objects(second, question):
    """Every object is told, with others of its name and sector in one word, where the first of them comes."""
    tags, answer = TAG.findall(question.answer), re.sub(r"There (is|are) ", "", question.answer).split(" of these")[0]
    told = re.findall(r"(?:^|, and |, | and )([a-zA-Z ]+?) to the ([a-z ]+?) of the ego vehicle", answer)
    if len(told) != len(set(told)) or [int(tag[0]) for tag in tags] != list(range(1, len(tags) + 1)):
        return "told twice, or numbered otherwise"
    if (question.answer.startswith("There are")) != (told[0][0].split()[0] in NUMBERS):
        return "is or are"
    if [second.tag(actor) for actor in question.about] != [tuple(tag) for _, *tag in tags]:
        return "other tags"
    return None if _all_told(second, told, question.about) else f"{told} are others"


def _all_told(second, told, actors):
    """Can the words be given out to all actors, so that the first of those who are left has the next ones?"""
    if not told or not actors:
        return not told and not actors
    (words, sector), *others = told
    fits = [
        (actor, noun, count)
        for actor in actors
        for noun in second.nouns(actor)
        for count in range(1, 7)
        if words == amount(noun, count) and second.off(actor, BEARINGS[sector]) < 23
    ]
    if not fits or fits[0][0] != actors[0]:
        return False
    rest = [actor for actor, *_ in fits[1:]]
    return any(
        _all_told(second, others, [actor for actor in actors[1:] if actor not in same])
        for same in combinations(rest, fits[0][2] - 1)
    )


def amount(noun, count):
    """So many of them, in words."""
    if count == 1:
        return with_article(noun)
    irregular = {"person": "people", "child": "children", "person with a stroller": "people with strollers"}
    irregular |= {"deer": "deer", "sheep": "sheep", "pile of logs": "piles of logs"}
    many = irregular.get(noun, f"{noun}es" if noun.endswith("bus") else f"{noun}s")
    return f"{NUMBERS[count - 2]} {many.replace('pile of cardboard boxess', 'piles of cardboard boxes')}"


def weather(second, question):
    conditions = second.drive.scene.conditions
    words = question.answer[:-1].lower().split(", ")
    dry = words[0] == "dry" and conditions.weather in ("clear", "cloudy") and conditions.light == "night"
    return None if words[1] == conditions.light and (dry or words[0] == conditions.weather) else "other weather"


def light(second, question):
    heads = [head.id for head in second.drive.scene.heads]
    if "no traffic light" in question.answer:
        near = [head for head in heads if 0 < second.relative(head)[0] < 85]
        return "there is one" if near or any(second.count(head) for head in heads) else None
    shown = second.drive.signals[second.step]
    seen = any(second.visible(head) for head in heads)
    return None if seen and question.answer == f"{shown.capitalize()}." else "other light"


def status(second, question):
    actor, answer = question.about[0], question.answer
    speed, course = second.speed(actor), second.course(actor)
    side, x = second.drive.indicators[actor, second.step], second.relative(actor)[0]
    truths = {
        "Stopped.": speed < 0.3,
        "Going ahead.": speed > 0.6 and (abs(course) < 45 or abs(course) > 135),
        "Crossing.": speed > 0.6 and 50 < abs(course) < 130,
        "Oncoming.": speed > 0.6 and abs(course) > 130 and x > 0,
        "Driving away.": speed > 0.6 and abs(course) > 130 and x < 0,
        "Braking.": speed > 0.6 and second.gain(actor) < 0 and x > 0,
        "Signalling left.": side > 0,
        "Signalling right.": side < 0,
        "Turn left.": speed > 0.6,
        "Turn right.": speed > 0.6,
    }
    return None if truths[answer] else f"speed {speed:.2f}, course {course:.0f}, indicator {side}"


def description(second, question):
    nouns = second.nouns(question.about[0]) - set(GENERAL.values())
    if second.most(question.about[0]) < 99:
        nouns -= {"child", "construction worker", "taxi", "police car"}
    return None if uncapital(question.answer) in nouns else f"it is {nouns}"


def uncapital(answer):
    """What a sentence says inside of one; "SUV" keeps its capitals."""
    return answer[:-1] if answer.startswith("SUV") else f"{answer[0].lower()}{answer[1:-1]}"


def hidden(second, question):
    share = second.hidden_share(question.about[0], lenient=question.answer == "Yes.")
    wrong = share is not None and (share < 0.12) == (question.answer == "Yes.")
    return f"{share:.2f} of it are hidden" if wrong and not 0.04 < share < 0.2 else None


def hidden_by(second, question):
    nouns = {with_article(noun) for other in second.in_front_of(question.about[0]) for noun in second.nouns(other)}
    return None if uncapital(question.answer) in nouns else f"hidden by {nouns}"


def presence(second, question):
    word, noun, sector = re.match(
        r"Are there (moving |stopped |standing |)([a-z ]+) to the ([a-z ]+) of the ego car", question.text
    ).groups()
    there = [
        actor
        for actor in second.actors
        if second.visible(actor)
        and second.kind(actor) in CLASSES[noun]
        and second.off(actor, BEARINGS[sector]) < 22.5
        and (not word or (second.speed(actor) > 0.5) == (word == "moving "))
    ]
    return None if bool(there) == (question.answer == "Yes.") else f"there are {there}"


def count(second, question):
    noun, camera = re.match(r"How many ([a-z ]+) are visible in (CAM_[A-Z_]+)\?", question.text).groups()
    wanted = [actor for actor in second.actors if second.kind(actor) in CLASSES[noun]]
    low = sum(second.visible(actor) and second.tag(actor)[0] == camera for actor in wanted)
    high = sum(second.scaled(actor, camera) >= 8 for actor in wanted)
    return _between(question.answer, low, high)


def _between(answer, low, high):
    said = int(answer[0])
    return None if min(low, 5) <= said <= min(high, 5) else f"between {low} and {high}"


def _matching(second, what, where):
    """Actors who surely and who possibly match words like "red vehicles" and "behind the ego vehicle"."""
    word, noun = what.rsplit(" ", 1) if " " in what else ("", what)
    low, high = 0, 0
    for actor in second.actors:
        if second.kind(actor) not in CLASSES[noun] or second.most(actor) < 8:
            continue
        if word in ("moving", "stopped", "standing"):
            if (second.speed(actor) > 0.5) != (word == "moving"):
                continue
        elif word and (second.drive.scene.actors[actor - 1].colour != word or second.unpainted(actor)):
            continue
        reach = SIDES[where](*second.relative(actor))
        low += bool(reach > 1.9 and second.visible(actor))
        high += bool(reach > 0.1)
    return low, high


def count_around(second, question):
    what, where = re.match(r"How many ([a-z ]+) are there ([a-z ]+)\?", question.text).groups()
    return _between(question.answer, *_matching(second, what, where))


def more(second, question):
    match = re.match(
        r"Are there more ([a-z ]+?) (in front|behind|to the left|to the right)( of)? the ego", question.text
    )
    what, side = match.group(1), match.group(2)
    opposite = {
        "in front": "behind",
        "behind": "in front",
        "to the left": "to the right",
        "to the right": "to the left",
    }
    whole = {words.split(" of")[0].split(" the ego")[0]: words for words in SIDES}
    here, there = (_matching(second, what, whole[words]) for words in (side, opposite[side]))
    true = here[1] > there[0] if question.answer == "Yes." else here[0] < there[1]
    return None if true else f"{here}, {there}"


def closer(second, question):
    one, other = map(second.distance, question.about)
    right = (one < other) == (question.answer == "Yes.") and abs(one - other) > 1.5
    return _misnamed(second, question) or (None if right else f"{one:.1f}, {other:.1f}")


def beside(second, question):
    return _by_names(second, question, 1)


def ahead(second, question):
    return _by_names(second, question, 0)


def _by_names(second, question, axis):
    one, other = question.about
    shift = second.relative(one)[axis] - second.relative(other)[axis]
    right = (shift > 0) == (question.answer == "Yes.") and abs(shift) > 1.5
    return _misnamed(second, question) or (None if right else f"shift {shift:.1f}")


def _misnamed(second, question):
    """A name that fits two, or names in another order than the objects the question is about."""
    nouns = [second.noun(actor) for actor in second.actors if second.most(actor) >= 24]
    if any(nouns.count(second.noun(actor)) > 1 for actor in question.about):
        return "ambiguous names"
    places = [question.text.find(f"the {second.noun(actor)}") for actor in question.about]
    return None if -1 not in places and places == sorted(places) else "names in another order"


def faster(second, question):
    one, other = map(second.speed, question.about)
    right = (one > other) == (question.answer == "Yes.") and abs(one - other) > 1
    return _misnamed(second, question) or (None if right else f"{one:.1f}, {other:.1f}")


def same_direction(second, question):
    one, other = map(second.velocity, question.about)
    cosine = float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    return None if (cosine > 0.7) == (question.answer == "Yes.") and not 0.55 < cosine < 0.8 else f"cosine {cosine:.2f}"


def between(second, question):
    return _misnamed(second, question) or second.agrees(question, second.on_line(question.about[0]))


def next_in_lane(second, question):
    first = second.first_in_lane()
    if question.answer.startswith("Nothing"):
        return None if first is None else f"{first} is in the lane"
    expected = {with_article(noun) for noun in second.nouns(first)} if first else {}
    return None if uncapital(question.answer) in expected else f"{expected} is next"


def is_next(second, question):
    return _misnamed(second, question) or second.agrees(question, second.first_in_lane() == question.about[0])


CHECKS = {
    check.__name__: check
    for check in (
        objects, weather, light, status, description, hidden, hidden_by, presence, count, count_around, more, closer,
        beside, ahead, faster, same_direction, between, next_in_lane, is_next,
    )
} | PLANNING  # fmt: skip
