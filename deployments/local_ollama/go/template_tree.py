"""The tree of a Go template: text, output, if, with, range, and the pipelines inside them."""

from dataclasses import dataclass, field

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class Path:
    """A field of the dot (`base` is empty), of a variable (`$x`) or of a bracketed pipeline."""

    base: "str | Pipeline"
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A function and its arguments."""

    name: str
    arguments: tuple["Operand", ...]


Operand = Constant | Path | Call


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands, each given the value of the one before; the last value may be kept in variables."""

    commands: tuple[Operand, ...]
    variables: tuple[str, ...] = ()
    declares: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """`{{ pipeline }}`."""

    pipeline: Pipeline


@dataclass(frozen=True, slots=True)
class Jump:
    """`break` or `continue`."""

    kind: str


@dataclass(slots=True)
class Branch:
    """`if`, `with` or `range`, with what follows and what stands under `else`."""

    kind: str
    pipeline: Pipeline
    body: "list[Node]" = field(default_factory=list)
    otherwise: "list[Node]" = field(default_factory=list)


Node = str | Output | Branch | Jump


def identifiers(nodes: list[Node]) -> frozenset[str]:
    """Every field and variable a template names, in lower case."""
    found: set[str] = set()
    todo: list[Node | Pipeline | Operand] = list(nodes)
    while todo:
        match todo.pop():
            case Output(pipeline):
                todo.append(pipeline)
            case Branch() as branch:
                todo += [branch.pipeline, *branch.body, *branch.otherwise]
            case Pipeline() as pipeline:
                found.update(name.lstrip("$").lower() for name in pipeline.variables)
                todo += pipeline.commands
            case Call(_, arguments):
                todo += arguments
            case Path(base, names):
                found.update(name.lower() for name in names)
                todo += [base] if isinstance(base, Pipeline) else []
    return frozenset(found)


def up_to_response(nodes: list[Node]) -> list[Node]:
    """The template up to the first output of `.Response`: the prompt of an answer to come."""
    return _cut(nodes)[0]


def _cut(nodes: list[Node]) -> tuple[list[Node], bool]:
    kept: list[Node] = []
    for node in nodes:
        if isinstance(node, Output) and "response" in identifiers([node]):
            return [*kept, node], True
        if isinstance(node, Branch):
            body, ends = _cut(node.body)
            otherwise, ends_else = ([], True) if ends else _cut(node.otherwise)
            kept.append(Branch(node.kind, node.pipeline, body, otherwise))
            if ends or ends_else:
                return kept, True
        else:
            kept.append(node)
    return kept, False
