"""Runs a parsed Go template over mappings, lists and plain values."""

from collections.abc import Mapping, Sequence
from typing import Any

from deployments.local_ollama.go.template_functions import (
    MOST_CHARACTERS,
    TOO_MUCH_TEXT,
    call,
    shown,
    truth,
)
from deployments.local_ollama.go.template_lex import TemplateError
from deployments.local_ollama.go.template_tree import (
    Branch,
    Call,
    Constant,
    Jump,
    Node,
    Operand,
    Output,
    Path,
    Pipeline,
)

MOST_STEPS = 200_000
"""A template that takes more steps is given up."""


class Record(dict[str, Any]):
    """A struct: asking for a field it does not have is an error. `type_name` is Go's."""

    type_name = "*api.Message"


def run(nodes: Sequence[Node], values: Mapping[str, Any]) -> str:
    """The text a template makes of the values. Raises TemplateError."""
    return _Run(values).text(nodes)


class _LeaveError(Exception):
    def __init__(self, kind: str) -> None:
        self.kind = kind


class _Run:
    def __init__(self, values: Mapping[str, Any]) -> None:
        self._scopes: list[dict[str, Any]] = [{"$": values}]
        self._values = values
        self._steps = 0
        self._made = 0
        self._out: list[str] = []

    def text(self, nodes: Sequence[Node]) -> str:
        self._nodes(nodes, self._values)
        return "".join(self._out)

    def _nodes(self, nodes: Sequence[Node], dot: Any) -> None:
        for node in nodes:
            self._count(1)
            match node:
                case str():
                    self._say(node)
                case Output(pipeline):
                    value = self._value(pipeline, dot)
                    if not pipeline.variables:
                        self._say(shown(value))
                case Jump(kind):
                    raise _LeaveError(kind)
                case Branch(kind="range"):
                    self._range(node, dot)
                case Branch():
                    self._branch(node, dot)

    def _count(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MOST_STEPS:
            raise TemplateError("template: :1: this template takes too many steps")

    def _say(self, text: str) -> None:
        self._measure(text)
        self._out.append(text)

    def _measure(self, text: str) -> None:
        self._made += len(text)
        if self._made > MOST_CHARACTERS:
            raise TemplateError(TOO_MUCH_TEXT)

    def _branch(self, node: Branch, dot: Any) -> None:
        self._scopes.append({})
        value = self._value(node.pipeline, dot)
        if truth(value):
            self._nodes(node.body, value if node.kind == "with" else dot)
        else:
            self._nodes(node.otherwise, dot)
        self._scopes.pop()

    def _range(self, node: Branch, dot: Any) -> None:
        depth = len(self._scopes)
        names = node.pipeline.variables
        over = self._value(Pipeline(node.pipeline.commands), dot)
        pairs = _pairs(over)
        self._count(len(pairs))
        for key, item in pairs:
            given = (key, item)[-len(names) :] if names else ()
            self._scopes.append(dict(zip(names, given, strict=False)))
            try:
                self._nodes(node.body, item)
            except _LeaveError as leaving:
                if leaving.kind == "break":
                    break
            finally:
                del self._scopes[depth:]
        if not pairs:
            self._nodes(node.otherwise, dot)

    def _value(self, pipeline: Pipeline, dot: Any) -> Any:
        value: Any = None
        for at, command in enumerate(pipeline.commands):
            value = self._operand(command, dot, (value,) if at else ())
        for name in pipeline.variables:
            scope = self._scopes[-1] if pipeline.declares else self._scope_of(name)
            scope[name] = value
        return value

    def _scope_of(self, name: str) -> dict[str, Any]:
        return next((s for s in reversed(self._scopes) if name in s), self._scopes[-1])

    def _operand(self, operand: Operand, dot: Any, piped: tuple[Any, ...] = ()) -> Any:
        match operand:
            case Constant(value):
                return value
            case Path(base, names):
                if isinstance(base, Pipeline):
                    value = self._value(base, dot)
                else:
                    value = self._scope_of(base).get(base) if base else dot
                for name in names:
                    value = _field(value, name)
                return value
            case Call(name, arguments):
                if name in ("and", "or") and arguments:
                    return self._junction(name, arguments, dot, piped)
                made = call(name, [*(self._operand(a, dot) for a in arguments), *piped])
                if isinstance(made, str):
                    self._measure(made)
                return made

    def _junction(
        self, name: str, arguments: Sequence[Operand], dot: Any, piped: tuple[Any, ...]
    ) -> Any:
        """`and` and `or` stop at the first argument that decides."""
        value: Any = None
        for argument in arguments:
            value = self._operand(argument, dot)
            if truth(value) is (name == "or"):
                return value
        return piped[0] if piped else value


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    if value is None:
        return []
    if isinstance(value, Mapping):
        return sorted(value.items())
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return [(i, i) for i in range(min(value, MOST_STEPS))]
    raise TemplateError(f"template: :1: range can't iterate over {shown(value)}")


def _field(value: Any, name: str) -> Any:
    if isinstance(value, Record) and name not in value:
        where = f'template: :1: executing "" at <.{name}>: '
        raise TemplateError(f"{where}can't evaluate field {name} in type {value.type_name}")
    if isinstance(value, Mapping):
        return value.get(name)
    if value is None:
        return None
    kind = {str: "string", bool: "bool", int: "int", float: "float64"}.get(type(value), "[]any")
    where = f'template: :1: executing "" at <.{name}>: '
    raise TemplateError(f"{where}can't evaluate field {name} in type {kind}")
