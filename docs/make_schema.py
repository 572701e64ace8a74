"""Write docs/report.schema.json from the classes of a report: `python docs/make_schema.py [--check]`."""

from __future__ import annotations

import argparse
import ast
import collections.abc
import dataclasses
import inspect
import json
import sys
import textwrap
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pytest_gpuclean.reports.data import FORMAT, VERSION, Report
from pytest_gpuclean.reports.shape import hints_of

FILE = Path(__file__).with_name("report.schema.json")
SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean"}


def schema() -> dict[str, Any]:
    """Make the schema of a report file."""
    found: dict[str, Any] = {}
    own = _object(Report, found)
    own["properties"] = {"format": {"const": FORMAT}, "version": {"const": VERSION}, **own["properties"]}
    own["required"] = ["format", "version", "runs"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A report of pytest-gpuclean, version {VERSION}",
        **own,
        "description": "Written by --gpu-report=FILE.json, and by gpuclean report merge. Sizes are in bytes, lengths "
        "of time in seconds. What is not there is at the default that its description says. Later releases may add "
        "fields; the version is raised where a reader of the old one would misunderstand the new one.",
        "$defs": dict(sorted(found.items())),
    }


def _object(kind: Any, found: dict[str, Any]) -> dict[str, Any]:
    described = _descriptions(kind)
    hints = hints_of(kind)
    properties, required = {}, []
    for field in dataclasses.fields(kind):
        rule = _rule(hints[field.name], found)
        if field.name in described:
            rule = {**rule, "description": described[field.name]}
        has_factory = field.default_factory is not dataclasses.MISSING
        if field.default is dataclasses.MISSING and not has_factory:
            required.append(field.name)
        elif not has_factory and field.default not in ((), None):
            rule = {**rule, "default": field.default}
        properties[field.name] = rule
    text = (inspect.getdoc(kind) or "").partition("\n")[0]
    return {"description": text, "type": "object", "properties": properties, "required": required}


def _rule(hint: Any, found: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        name = hint.__name__  # type: ignore[union-attr]
        if name not in found:
            found[name] = {}
            found[name] = _object(hint, found)
        return {"$ref": f"#/$defs/{name}"}
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return {"anyOf": [_rule(inner, found), {"type": "null"}]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (tuple, collections.abc.Iterable):
        return {"type": "array", "items": _rule(arguments[0], found)}
    if origin is collections.abc.Mapping:
        return {"type": "object", "additionalProperties": _rule(arguments[1], found)}
    return {"type": SIMPLE[hint]}


def _descriptions(kind: type) -> dict[str, str]:
    """Read the text below each field of a class."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found


def main() -> int:
    """Write the file, or say that it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the file is out of date")
    options = parser.parse_args()
    wanted = json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
    if not options.check:
        FILE.write_text(wanted, encoding="utf-8")
        return 0
    is_current = FILE.exists() and FILE.read_text(encoding="utf-8") == wanted
    print(f"{FILE.name} is {'up to date' if is_current else 'out of date: run python docs/make_schema.py'}")
    return 0 if is_current else 1


if __name__ == "__main__":
    sys.exit(main())
