"""The study for people: what it advises, and the curves as tables."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import fill

from drivedistill.evaluate.rows import ALL
from drivedistill.study.advice import DECISIVE, Choice, Words, snippet
from drivedistill.study.curves import Curve, Curves
from drivedistill.study.observe import BINS, GRID
from drivedistill.tables import markdown, with_interval

_RULES = """\
Rules. A curve of similarity that is flat before the last layer speaks for all layers but the last, whole maps; one that rises
to a late peak, for the peak; any other, for the layer of highest similarity among those whose incoming image and text
tokens are least aligned. Single layers are imitated in their text-to-vision block (so much is Drive-KD's Table 3, no curve's
doing). Maps or hidden states: what is three times as steady from question to question. The shapes are those of Drive-KD's
own study of InternVL3-8B; that layers so chosen teach better was shown there alone."""

_READ_ME = f"""\
Layers count from 0, as in recipes. `change`: cosine of what enters and what leaves a layer, mean over tokens, then questions.
`alignment`: cosine of mean image and mean text token of what enters the layer. `similarity`: mean cosine of two questions of
a capability, of their mean hidden state behind the layer. `dispersion`: one minus the mean cosine of two questions, mean over
capabilities; `hidden` is one minus similarity, maps are compared on {GRID} x {GRID} cells, each side stretched to one length.
Cells are never negative, so two maps are nearer than two hidden states to begin with: read a small factor as none. Margin:
first minus second probability at each of the answer's tokens, by its place. Brackets: 95 % interval, whole scenes drawn
anew. Questions about one scene share their pictures, so many questions of few scenes look more alike than they should.
`study.json` has every number, by capability."""

_T5 = """\
This model reads with an encoder and writes with a decoder. Layers are the decoder's, states those of the answer's tokens, maps
those of its cross-attention: every encoder position (full), or the image tokens (text-to-vision). Its layers see no image
tokens, so there is no alignment."""


def report(model: str, found: Curves, choices: dict[str, Choice], said: Words) -> str:
    """The content of `study.md`, legible as it is."""
    whole = found.margin[ALL]
    parts = [
        f"# Study of {model}",
        f"Teacher-forced passes over {whole.questions:,} questions of {whole.scenes:,} scenes, {found.layers} layers.",
        *([_T5] if found.alignment is None else []),
        "## What to imitate",
        "\n".join(_sentences(found, choices, said)),
        f"```yaml\n{snippet(choices, said)}```" if choices else "Nothing: two questions of a capability are the least.",
        _RULES,
        "## Layers",
        markdown(list(_by_layer(found))),
        "## Margin along the answer",
        markdown(list(_by_place(found))),
        _READ_ME,
    ]
    return "\n\n".join(parts) + "\n"


def _sentences(found: Curves, choices: dict[str, Choice], said: Words) -> Iterator[str]:
    for name, choice in choices.items():
        lesson = choice.lesson
        what = "hidden states" if lesson.signal == "hidden" else f"attention ({lesson.block.replace('_', ' ')})"
        doubts = "".join(f" In doubt: {doubt}." for doubt in choice.doubts)
        yield _line(f"{name}: layers {lesson.layers}, {what}. {choice.rule.capitalize()}: {choice.why}.{doubts}")
    for name in found.similarity.keys() - choices.keys():
        yield _line(f"{name}: one question only, nothing to compare.")
    if said.advised_against:
        verdict = f"below {DECISIVE}: the teacher is undecided, imitating its words (KL) is advised against"
    else:
        verdict = f"not below {DECISIVE}: nothing here speaks against imitating its words (KL), or for it"
    yield _line(f"words: mean margin {said.margin:.2f}, {verdict}.")


def _line(text: str) -> str:
    return fill(f"- {text}", 120, subsequent_indent="  ")


def _by_layer(found: Curves) -> Iterator[list[str]]:
    head = ["layer", "change", *(["alignment"] if found.alignment else [])]
    yield [
        *head,
        *(f"similarity, {name}" for name in found.similarity),
        *(f"dispersion, {s.replace('_', ' ')}" for s in found.dispersion),
    ]
    spread = {signal: mean_curve(list(by_name.values())) for signal, by_name in found.dispersion.items()}
    for layer in range(found.layers):
        shown = [found.change, *([found.alignment] if found.alignment else []), *found.similarity.values()]
        cells = [_cell(curve, layer) for curve in shown]
        yield [str(layer), *cells, *(_number(values[layer], ".2g") for values in spread.values())]
    if found.alignment:
        empty = [""] * (len(found.similarity) + len(spread))
        yield ["behind the last", "", _cell(found.alignment, found.layers), *empty]


def _by_place(found: Curves) -> Iterator[list[str]]:
    yield ["questions", "n", *(f"{100 * place // BINS} %" for place in range(BINS))]
    for name, curve in found.margin.items():
        yield [name, f"{curve.questions:,}", *(_number(value, ".2f") for value in curve.values)]


def mean_curve(curves: list[Curve]) -> list[float | None]:
    """Mean over the capabilities that have numbers."""
    known = [curve.values for curve in curves if None not in curve.values]
    columns = zip(*known, strict=True) if known else ([] for _ in curves[0].values)
    return [sum(v for v in column if v is not None) / len(known) if known else None for column in columns]


def _cell(curve: Curve, place: int) -> str:
    value = curve.values[place]
    return "-" if value is None else with_interval(value, curve.low[place], curve.high[place], ".3f")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
