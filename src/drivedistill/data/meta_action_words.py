"""The English of driving: which words say a speed or a path, and which only look as if they did.

Everything is a regular expression over lower-case text. `{side}` stands for left and right.
"""

from __future__ import annotations

import re

from drivedistill.data.senna_rules import PathPlan, SpeedPlan


def _any(*words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(words)})\b")


ROAD_USER = (
    "(?:cars?|vehicles?|trucks?|bus|buses|vans?|lorry|lorries|trams?|trains?|traffic|pedestrians?|person|people|children|"
    "child|cyclists?|motorcyclists?|bicycles?|motorcycles?|bikes?|riders?|scooters?|animals?|dogs?|deer|cows?|sheep|objects?)"
)
_ACTS = "(?:turn|stopp|wait|brak|slow|chang|accelerat|merg|driv|go|mov|yield|park|cross|enter|approach)"
_LIKE = "(?:same|current|constant|steady|present|normal|safe|low|slow|high|reasonable|moderate|appropriate|consistent)"
_PACE = "(?:speeds?|velocity|pace)"

MASKED = _any(
    r"(?:stop|yield|give way|turn)[ -](?:signs?|lines?|lights?|signals?)|bus stops?|stopping (?:distance|sight)|stop-and-go",
    r"brake lights?|acceleration lanes?|(?:left|right)[ -]turn(?:ing)? (?:lanes?|signals?|lights?|arrows?)|straight lanes?",
    rf"(?:stopped|stationary|parked|waiting|braking|slowing|turning|accelerating|merging|slow) (?:\w+ )?{ROAD_USER}",
    rf"(?<!ego )(?<!own )(?<!our ){ROAD_USER}(?: (?:ahead|in front|behind|nearby))?(?: (?:that|who|which)(?: is| are)?)?"
    rf" {_ACTS}(?:ing|ed)(?: \w+)*",
    r"(?:ready|prepared?|able|alert|enough \w+|signals?|signall?ing|wants?|intends?|waiting|waits?|wait) to"
    r" (?:stop|brake|slow|yield|react|turn|change|wait|decelerate|accelerate|give way)(?: \w+)*",
    r"(?:stop|brake|slow down|yield|decelerate|wait|turn|accelerate)(?: \w+)?"
    r" (?:if|when|where|as) (?:necessary|needed|required)",
)
"""Looks like something that the ego vehicle does and is not: a thing, somebody else's action, a possibility."""

SIDE_CLAUSE = _any(
    "because", "since", "due to", "given that", "as (?:the|there|it|an?)", "so that", "so as", "in order", "in case", "until",
    "unless", "if", "when", "whenever", "while", "before", "after", "to (?:avoid|prevent|follow|ensure|obey|let|allow|see)",
    "(?:the|whose) reason", "(?:the|an?)(?: high| low)? probability", "high probability", "can lead",
)  # fmt: skip
"""Opens a reason, a purpose, a time or a condition."""

EGO = _any(
    "ego",
    "self",
    "we",
    "i",
    "you",
    "our",
    "your",
    "my",
    "action",
    "plan",
    "decision",
    "should",
    "must",
    "has to",
    "needs to",
    r"(?:^|there is |there's )no (?:need|reason)",
)
"""A clause with one of them is about the ego vehicle."""

NOT_BUT = re.compile(r"\bnot ((?:\w+ ){1,4}?)(?:left|right)(?: lane)?,? but (?:to )?(?:the )?(left|right)\b")
"""Not one side but the other: what is done, and to which."""

SOMEBODY = re.compile(
    rf"(?:and |so |but |then )?(?:(?:there|the (?:road|light|lane|sign|signal|scene|weather|street)|{ROAD_USER})\b"
    rf"|(?:the|an?|this|that|another|other|some|any|no|two|several|these)\b.*?\b{ROAD_USER}\b)"
)
"""A clause that begins like this is about others, unless it names the ego vehicle."""

DENIAL = _any(
    "not",
    "never",
    "no",
    "without",
    "avoid(?:s|ing)?",
    "instead of",
    "rather than",
    "cannot",
    r"\w+n't",
    "nor",
    "neither",
)
NO_PLAN = _any("without", "no (?:room|space|time)")
"""A denial that says what would happen, or what cannot be done."""

NOT_MOVING = _any(
    r"(?:not|\w+n't|never|without|stop|stops) (?:yet )?(?:moving|move|proceed|driving|enter)", "no movement"
)
"""A denial that is a statement: the vehicle stands."""

SPEED_WORDS: tuple[tuple[SpeedPlan, re.Pattern[str]], ...] = (
    (
        "STOP",
        _any(
            "stop(?:s|ped|ping)?", "halt(?:s|ed|ing)?", "stationary", "standstill", "wait(?:s|ing)?", "stand(?:s|ing)? still",
            "(?:stay|remain|keep)(?:s|ing)? (?:parked|still|put|in place|where it is)", "pull(?:s|ing)? over",
        ),
    ),
    (
        "DECELERATE",
        _any(
            r"decelerat\w*", "slow", "slows", "slow(?:ed|ing)", "brak(?:e|es|ed|ing)", "yield(?:s|ing)?", "giv(?:e|es|ing) way",
            rf"(?:reduc|lower|decreas)\w*(?: \w+){{0,3}}? {_PACE}", "eas(?:e|es|ing) off",
        ),
    ),
    (
        "ACCELERATE",
        _any(
            r"accelerat\w*", r"speed(?:s|ing)?(?: \w+)? up", rf"increas\w*(?: \w+){{0,3}}? {_PACE}",
            "(?:go|goes|going|drive) faster",
            r"(?:pick|gather|gain)(?:s|ing)? (?:up )?speed", "start(?:s|ing)? (?:moving|to move|driving|to drive|off)",
            "(?:mov|driv)(?:e|es|ing) off", "(?:pull|set)(?:s|ting|ing)? (?:away|off)",
        ),
    ),
    (
        "KEEP",
        _any(
            rf"(?:keep|maintain|hold)(?:s|ing)?(?: at)?(?: (?:its|the|an?|your|our))?(?: {_LIKE})* {_PACE}",
            "(?:keep(?:s|ing)? (?:going|moving|on)|continu(?:e|es|ing)|proceed(?:s|ing)?|driv(?:e|es|ing))"
            "(?! (?:straight|ahead|forward))",
            "keep$", "go(?:es|ing)? on", "cruis(?:e|es|ing)",
            rf"(?:at|with) (?:the |an? |its )?{_LIKE} {_PACE}", "mov(?:e|es|ing) (?:on|slowly)",
            "(?:no change in|unchanged|constant) speed", "pass with care",
        ),
    ),
)  # fmt: skip
"""In the order in which they count: the most careful first."""

SLOWLY = _any(
    rf"(?:at|with) (?:an? |the |its )?(?:same )?(?:slow|low) {_PACE}",
    rf"(?:keep|maintain)\w* (?:\w+ )?(?:slow|low) {_PACE}",
)
"""A slow speed that stays is no slowing down."""

_TO = "(?: (?:to|toward|towards|on)(?: the| its)?)?"
_LANE = "(?:most|-hand| adjacent| next)? lane"


def _sided(kind: str, *words: str) -> tuple[tuple[PathPlan, re.Pattern[str]], ...]:
    plans: dict[str, tuple[PathPlan, PathPlan]] = {
        "CHANGE": ("LEFT_CHANGE", "RIGHT_CHANGE"),
        "TURN": ("LEFT_TURN", "RIGHT_TURN"),
    }
    sides = zip(plans[kind], ("left", "right"), strict=True)
    return tuple((plan, _any(*(word.replace("{side}", side) for word in words))) for plan, side in sides)


PATH_WORDS: tuple[tuple[PathPlan, re.Pattern[str]], ...] = (
    *_sided(
        "CHANGE",
        rf"(?:to|into|onto|towards?|take|taking|enter|entering) the {{side}}{_LANE}",
        rf"chang(?:e|es|ing)(?: (?:the |its )?lanes?)?{_TO} {{side}}",
        r"lane change to the {side}", r"{side}(?: lane)? change",
        rf"(?:merg|mov|shift|switch|overtak|swerv|pass|pull)(?:e|es|s|ing)?(?: (?:over|out|slightly|it))?(?: lanes?)?"
        rf"{_TO} {{side}}",
        rf"slightly (?:steer|turn|veer|bear|mov)(?:e|s|es|ing)?{_TO} {{side}}", "slight {side} turn",
    ),
    *_sided(
        "TURN",
        rf"(?:turn|steer|veer|bear|bend|curv)(?:e|s|es|ing)?(?: (?:sharply|around|hard|gently))?{_TO} {{side}}(?!{_LANE})",
        rf"(?:turn|steer)(?:s|ing)? (?:at|through) the \w+{_TO} {{side}}", r"(?:bend|curve|road) to the {side}",
        r"{side}(?:-hand)?[ -](?:turn|bend|curve)(?:s|ing)?",
    ),
    (
        "STRAIGHT",
        _any(
            "straight", "(?:go|proceed|continu|mov|driv)(?:e|es|s|ing)? (?:ahead|forward)",
            "(?:slightly )?offset to the (?:left|right)",
            r"(?:keep|stay|remain)(?:s|ing)?(?: (?:in|to|within))? (?:its|the|this|your|our)(?: (?:own|current|same))? lane",
            r"(?:keep|maintain)(?:s|ing)? (?:its|the)(?: (?:current|same))? (?:direction|course|heading)",
        ),
    ),
)  # fmt: skip

TURNING = _any(
    "(?:turn|steer|veer|swerv|merg|overtak)(?:e|s|es|ing)?", r"chang(?:e|es|ing)(?: (?:to )?(?:\w+ )?lanes?| to| left| right)",
    "lane changes?", "(?:left|right)[ -](?:turn|change)s?", "(?:to|into|onto) the (?:left|right)",
)  # fmt: skip
"""To either side; in a denial."""
