"""The questions of `make_driving_data.py`: DriveLM's templates, answered from what was drawn."""

from __future__ import annotations

from typing import Any

from driving_pictures import Frame, Size, Thing, light_box

Rows = list[tuple[str, str]]
"""Questions and answers"""

DIRECTIONS = {
    "CAM_FRONT": "front",
    "CAM_FRONT_LEFT": "front left",
    "CAM_FRONT_RIGHT": "front right",
    "CAM_BACK": "back",
    "CAM_BACK_LEFT": "back left",
    "CAM_BACK_RIGHT": "back right",
}
KINDS = ("car", "truck", "bus", "pedestrian")
STATES = {
    "Going ahead.": "going ahead",
    "Stopped.": "stopped",
    "Turn left.": "turning left",
    "Turn right.": "turning right",
}
FUTURES = {
    "Going ahead.": "Keep going straight.",
    "Stopped.": "Stationary.",
    "Turn left.": "Turn left.",
    "Turn right.": "Turn right.",
}
LIGHTS = {"red": "Stop.", "yellow": "Prepare to stop.", "green": "Please proceed."}


def drivelm_frame(frame: Frame, size: Size) -> dict[str, Any]:
    """`key_object_infos` and `QA` of one key frame: three key objects at most, and the traffic light."""
    key = {thing.tag(number): thing for number, thing in enumerate(frame.things[:3], start=1)}
    infos: dict[str, Any] = {
        tag: {
            "Category": "Pedestrian" if thing.kind == "pedestrian" else "Vehicle",
            "Status": "Stationary" if thing.state == "Stopped." else "Moving",
            "Visual_description": f"{thing.name.capitalize()}.",
            "2d_bbox": [float(edge) for edge in thing.box],
        }
        for tag, thing in key.items()
    }
    light = ""
    if frame.light:
        box = light_box(size)
        light = Thing("light", frame.light, "Stopped.", "CAM_FRONT", "ahead", box).tag(len(key) + 1)
        infos[light] = {
            "Category": "Traffic element",
            "Status": None,
            "Visual_description": f"{frame.light.capitalize()} light.",
            "2d_bbox": [float(edge) for edge in box],
        }
    questions = {
        "perception": _perception(frame, key, light, size),
        "prediction": _prediction(frame, key, light),
        "planning": _planning(frame, key),
        "behavior": [("Predict the behavior of the ego vehicle.", _behavior(frame))],
    }
    empty = dict.fromkeys(("C", "con_up", "con_down", "cluster", "layer"))
    qa = {
        task: [{"Q": question, "A": answer, **empty} for question, answer in rows] for task, rows in questions.items()
    }
    return {"key_object_infos": infos, "QA": qa}


def _perception(frame: Frame, key: dict[str, Thing], light: str, size: Size) -> Rows:
    rows: Rows = []
    for camera, direction in DIRECTIONS.items():
        inside = [thing for thing in frame.things if thing.camera == camera]
        kinds = {kind: sum(thing.kind == kind for thing in inside) for kind in KINDS}
        counted = [f"{['one', 'two', 'three'][n - 1]} {_plural(kind, n)}" for kind, n in kinds.items() if n]
        verb = "is" if inside and max(kinds.values()) == 1 else "are"
        listed = f"There {verb} {_list(counted)}" if inside else "There are no objects"
        rows.append(
            (f"What are objects to the {direction} of the ego car?", f"{listed} to the {direction} of the ego car.")
        )
        stopped = any(thing.kind == "car" and thing.state == "Stopped." for thing in inside)
        rows.append((f"Are there stopped cars to the {direction} of the ego car?", "Yes." if stopped else "No."))
    names = [f"a {thing.name} to the {DIRECTIONS[thing.camera]} of the ego vehicle" for thing in key.values()]
    names += [f"a {frame.light} light to the front of the ego vehicle"] if light else []
    question = "What are the important objects in the current scene? Those objects will be considered for the future "
    ids = _list([*key, *([light] if light else [])])
    rows.append(
        (question + "reasoning and driving decision.", f"There is {_list(names)}. The IDs of these objects are {ids}.")
    )
    for tag, thing in key.items():
        rows.append((f"What is the visual description of {tag}?", f"{thing.name.capitalize()}."))
        observed = "Stationary." if thing.state == "Stopped." else "Moving."
        rows.append((f"What is the observed status of object {tag}?", observed))
        if thing.kind != "pedestrian":
            rows.append((f"What is the moving status of object {tag}?", thing.state))
    rows.append(("Is there any traffic element in the front view?", "Yes." if light else "No."))
    if light:
        edges = ", ".join(f"{edge:.2f}" for edge in light_box(size))
        question = "Identify all the traffic elements in the front view, categorize them, determine their status, and "
        question += "predict the bounding box around each one."
        answer = f"There is one traffic element in the front view. It is (traffic light, {frame.light}, {edges})."
        rows.append((question, answer))
    return rows


def _prediction(frame: Frame, key: dict[str, Thing], light: str) -> Rows:
    rows: Rows = []
    for tag, thing in key.items():
        ahead = thing.camera == "CAM_FRONT" and thing.slot == "ahead"
        rows.append((f"Would {tag} be in the moving direction of the ego vehicle?", "Yes." if ahead else "No."))
        rows.append((f"Is {tag} a traffic sign or a road barrier?", "No."))
        rows.append((f"What is the future state of {tag}?", FUTURES[thing.state]))
    if light and frame.light:
        rows.append((f"What does {light} mean?", LIGHTS[frame.light]))
    order = ["Firstly", "Secondly", "Thirdly", "Finally"]
    seen = [f"that {tag}. The object is {STATES[thing.state]}" for tag, thing in key.items()]
    seen += [f"that {light}. The object is a {frame.light} light"] if light else []
    action = "stop" if frame.stops else "keep going"
    notices = [
        f"{word} notice {text}, so the ego vehicle should {action}." for word, text in zip(order, seen, strict=False)
    ]
    question = "What object should the ego vehicle notice first, second and third when it is getting to the next "
    rows.append((question + "possible location, and what should it do?", " ".join(notices)))
    return rows


def _planning(frame: Frame, key: dict[str, Thing]) -> Rows:
    action, reason = (
        ("brake to a stop", "avoid a collision") if frame.stops else ("keep going", "follow the traffic rules")
    )
    rows: Rows = []
    for tag, thing in key.items():
        ahead = thing.camera == "CAM_FRONT" and thing.slot == "ahead"
        side = "left" if thing.slot == "left" else "right"
        risk = "Accelerating and going straight." if ahead else f"Sharp {side} turn."
        rows.append(
            (
                f"What actions could the ego vehicle take based on {tag}? Why take this action and what's the probability?",
                f"The action is to {action}. The reason is to {reason}, which has a high probability.",
            )
        )
        rows.append((f"What actions taken by the ego vehicle can lead to a collision with {tag}?", risk))
        after = "after the ego vehicle accelerates and goes straight?"
        rows.append((f"What is the probability of colliding with {tag} {after}", "High." if ahead else "Low."))
    safe = "Brake gently to a stop." if frame.stops else "Keep going at the same speed."
    rows.append(("In this scenario, what are safe actions to take for the ego vehicle?", safe))
    rows.append(("What is the target action of the ego vehicle?", "Stop." if frame.stops else "Go straight."))
    return rows


def _behavior(frame: Frame) -> str:
    if frame.stops:
        return "The ego vehicle is going straight. The ego vehicle is not moving."
    return f"The ego vehicle is {frame.bend}. The ego vehicle is {frame.speed}."


def _plural(kind: str, count: int) -> str:
    return kind if count == 1 else f"{kind}es" if kind.endswith("s") else f"{kind}s"


def _list(items: list[str]) -> str:
    if len(items) < 3:
        return " and ".join(items)
    return f"{', '.join(items[:-1])}, and {items[-1]}"
