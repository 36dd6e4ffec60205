"""Writes docs/api.md from the docstrings of what `import streamllm` offers; a test says when the page is stale.

python scripts/make_api.py
"""

import argparse
import ast
import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import streamllm

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
HEAD = """# The public API

`import streamllm` costs next to nothing and offers these names; each is found when it is asked for. What is not here
may move between releases.

<!-- Made by `python scripts/make_api.py` from the docstrings. Do not edit. -->
"""


def page() -> str:
    """The whole page, in Markdown."""
    assert streamllm.__doc__ is not None
    example = inspect.cleandoc(streamllm.__doc__.split(":\n\n", 1)[1].split("\nThe rest lies")[0])
    parts = [HEAD, f"```python\n{example.strip()}\n```\n"]
    parts += [_entry(name, getattr(streamllm, name)) for name in sorted(streamllm.__all__, key=str.lower)]
    return "\n".join(parts)


def _entry(name: str, value: Any) -> str:
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return f"## `{name}`\n\n`{value!r}`: {inspect.getdoc(type(value))}\n"
    module = value.__module__
    lines = [f"## `{name}`", "", f"From `{module}`.", ""]
    if not getattr(value, "_is_protocol", False):
        lines += ["```python", _signature(name, value), "```", ""]
    lines.append(_markdown(inspect.getdoc(value) or ""))
    if inspect.isclass(value):
        for method, function in inspect.getmembers(value, inspect.isfunction):
            if not method.startswith("_") and (text := inspect.getdoc(function)):
                lines += ["", f"### `{name}.{_signature(method, function)}`", "", _markdown(text)]
    return "\n".join(lines) + "\n"


def _signature(name: str, value: Any) -> str:
    """As the source has it, so that it says neither modules nor addresses."""
    node: Any = ast.parse(inspect.cleandoc("\n" + inspect.getsource(value))).body[0]
    returns = ""
    if isinstance(node, ast.FunctionDef):
        parameters, returns = _parameters(node), f" -> {ast.unparse(node.returns)}" if node.returns else ""
    elif dataclasses.is_dataclass(value):
        parameters = [ast.unparse(item) for item in node.body if isinstance(item, ast.AnnAssign)]
    else:
        inits = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
        parameters = _parameters(inits[0])[1:] if inits else []
    one = f"{name}({', '.join(parameters)}){returns}"
    return one if len(one) <= 100 else f"{name}(\n" + "".join(f"    {p},\n" for p in parameters) + f"){returns}"


def _parameters(function: ast.FunctionDef) -> list[str]:
    parts = re.split(r",\s*(?![^\[(]*[\])])", ast.unparse(function.args))
    return [re.sub(r"(: [^=]+)=", r"\1 = ", part.strip()) for part in parts]


def _markdown(text: str) -> str:
    """A docstring as Markdown: sections of arguments and errors as lists."""
    lines: list[str] = []
    for line in text.replace("``", "`").splitlines():
        if line.rstrip() in ("Args:", "Returns:", "Raises:", "Yields:", "Attributes:"):
            lines += [f"*{line.rstrip(':')}*", ""]
        elif line.startswith("    ") and not line.startswith("     ") and ": " in line:
            what, _, rest = line.strip().partition(": ")
            lines.append(f"- `{what.strip('`')}`: {rest}")
        elif line.startswith("        "):
            lines.append(f"  {line.strip()}")
        else:
            lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(page(), encoding="utf-8")
