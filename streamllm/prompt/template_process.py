"""Renders a chat template in a process of its own, so that its memory, time and length have bounds. `template` starts
it. It takes JSON from standard input and gives JSON; what a template sees is as transformers has it."""

import contextlib
import json
import sys
from typing import Any


def bound(seconds: float, memory: int) -> None:
    """From here on, this process may compute so many seconds and hold so many bytes; the system ends one that does
    not, or tells Python that memory is over. Where the system knows no such bounds there are none."""
    import signal

    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)  # whose signal ends a process, whatever it is doing


def environment() -> Any:
    """The sandbox in which transformers renders chat templates, but for its clock and what it tracks."""
    from jinja2 import ext, nodes, utils
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(ext.Extension):
        """A block that says which text an assistant has written: its text is all of it."""

        tags = {"generation"}  # noqa: RUF012  jinja wants a set

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.CallBlock(self.call_method("_whole"), [], [], body).set_lineno(line)

        def _whole(self, caller: Any) -> str:
            return str(caller())

    class Namespace(utils.Namespace):
        def __init__(*args: Any, **kwargs: Any) -> None:
            self, args = args[0], args[1:]
            values = dict(*args, **kwargs)
            for name in values:
                _check_name(name)
            utils.Namespace.__init__(self, values)

        def __setitem__(self, name: str, value: Any) -> None:
            _check_name(name)
            utils.Namespace.__setitem__(self, name, value)

    class Dictionary:
        def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
            return dict(*args, **kwargs)

        def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
            return dict.fromkeys(*args, **kwargs)

    def _check_name(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a namespace of a chat template cannot have {name!r}")

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    sandbox = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
    )
    sandbox.filters["tojson"] = tojson
    sandbox.globals |= {"raise_exception": raise_exception, "dict": Dictionary(), "namespace": Namespace}
    return sandbox


def rendered(template: str, variables: dict[str, Any], length: int) -> str:
    """The text of a template.

    Raises:
        ValueError: it has more than ``length`` characters; and whatever a template raises.
    """
    parts: list[str] = []
    left = length
    for part in environment().from_string(template).generate(**variables):
        left -= len(part)
        if left < 0:
            raise ValueError(f"it writes more than {length} characters")
        parts.append(part)
    return "".join(parts)


def main() -> None:
    task = json.load(sys.stdin)
    sys.path[:0] = task["path"]
    import jinja2.ext
    import jinja2.sandbox  # noqa: F401  before there are bounds

    bound(task["seconds"], task["memory"])
    answers = []
    for variables in task["variables"]:
        try:
            answers.append({"text": rendered(task["template"], variables, task["length"])})
        except MemoryError:
            answers.append({"error": f"it takes more than {task['memory'] >> 20} MiB of memory"})
        except Exception as error:  # whatever a template raises
            answers.append({"error": str(error) or type(error).__name__})
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
