"""A YAML file as a tree of mappings and lists, strictly read, and `key.sub=value` set in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from drivedistill.problems import InputError, Problem, missing_file

_BOOL = "tag:yaml.org,2002:bool"


class _Yaml(yaml.SafeLoader):
    """Plain YAML in which a key may occur once (others silently keep the last of two), and in which `on`, `off`, `yes` and `no`
    are words as in YAML 1.2: `on: trusted` is a field of ours."""

    yaml_implicit_resolvers = {  # noqa: RUF012, by first letter, as the base has them
        first: [(tag, pattern) for tag, pattern in known if tag != _BOOL]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                mark = node.value[position][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"the key `{key}` for the second time", mark)
        return super().construct_mapping(node, deep)


_Yaml.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def read_tree(path: Path, what: str = "a recipe (YAML)") -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        InputError: The file is missing, no YAML, or no mapping, or names a key twice.
    """
    if not path.is_file():
        raise InputError(missing_file(path, what, "check the path; ready recipes are in recipes/"))
    try:
        tree = _Yaml(path.read_text(encoding="utf-8")).get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        found = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(Problem(str(path), where, "a YAML file", found, "mend the YAML")) from error
    if not isinstance(tree, dict):
        raise InputError(Problem(str(path), "", "a YAML mapping", type(tree).__name__, "see recipes/ for examples"))
    return tree


def set_field(tree: dict[str, Any], override: str, place: str = "command line") -> None:
    """Set `a.b.0.c=value` in a tree of mappings and lists; the value is read as YAML.

    Args:
        tree: Changed in place; mappings on the way are made where there are none.
        override: The text with the `=`.
        place: Where it was written, for the finding.

    Raises:
        InputError: There is no `=`, the value is no YAML, or there is no such place in the tree.
    """
    key, equals, value = override.partition("=")
    if not equals or not key:
        remedy = "write e.g. train.learning_rate=3e-4"
        raise InputError(Problem(place, override, "key.sub=value", "no `key=`", remedy))
    try:
        parsed = _Yaml(value).get_single_data()
    except (yaml.YAMLError, ValueError) as error:
        found = f"{value} ({getattr(error, 'problem', None) or ' '.join(str(error).split())})"
        remedy = f"put a text into single quotes, and all into double ones for the shell: \"{key}='...'\""
        raise InputError(Problem(place, override, "a YAML value", found, remedy)) from error
    *parents, last = key.split(".")
    node: Any = tree
    try:
        for parent in parents:
            if isinstance(node, list):
                node = node[int(parent)]
            else:
                if node.get(parent) is None:
                    node[parent] = {}
                node = node[parent]
        node[int(last) if isinstance(node, list) else last] = parsed
    except (ValueError, IndexError, AttributeError, TypeError) as error:
        remedy = "use the key names of the recipe; list entries are numbered from 0"
        raise InputError(Problem(place, override, "the path of a field", str(error), remedy)) from error


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` to `{"a.b": 1}`; lists become their text."""
    if not isinstance(tree, dict):
        return {prefix: tree if isinstance(tree, int | float | str | bool) or tree is None else str(tree)}
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found
