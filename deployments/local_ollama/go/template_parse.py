"""Reads a Go template into its tree, with Go's words for what it cannot read."""

import json

from deployments.local_ollama.go.template_functions import KNOWN_FUNCTIONS
from deployments.local_ollama.go.template_lex import Action, Token, failed, split
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
    Scalar,
)

_BLOCKS = ("if", "with", "range")
_WORDS: dict[str, Scalar] = {"true": True, "false": False, "nil": None}
_UNSUPPORTED = frozenset({"define", "block", "template"})


def parse(template: str) -> list[Node]:
    """The nodes of a template. Raises TemplateError in Go's words."""
    try:
        return _Parser(split(template)).everything()
    except RecursionError:
        raise failed(1, "this template nests too deep") from None


class _Parser:
    def __init__(self, parts: list[str | Action]) -> None:
        self._parts = parts
        self._at = 0
        self._line = 1
        self._known = [{"$"}]
        self._loops = 0

    def everything(self) -> list[Node]:
        nodes, ending = self._nodes()
        if ending:
            raise failed(self._line, f"unexpected {{{{{ending[0].text}}}}}")
        return nodes

    def _nodes(self) -> tuple[list[Node], tuple[Token, ...]]:
        """Nodes up to `end` or `else` (whose tokens come second) or the end of the template."""
        nodes: list[Node] = []
        while self._at < len(self._parts):
            part = self._parts[self._at]
            self._at += 1
            if isinstance(part, str):
                nodes.append(part)
                continue
            self._line = part.line
            first = part.tokens[0].text if part.tokens else ""
            if first in ("end", "else"):
                return nodes, part.tokens
            nodes.append(self._action(part.tokens, first))
        return nodes, ()

    def _action(self, tokens: tuple[Token, ...], first: str) -> Node:
        if not tokens:
            raise failed(self._line, "missing value for command")
        if first in _BLOCKS:
            return self._branch(first, tokens[1:])
        if first in ("break", "continue"):
            if not self._loops:
                raise failed(self._line, f"{{{{{first}}}}} outside {{{{range}}}}")
            return Jump(first)
        if first in _UNSUPPORTED:
            raise failed(self._line, f"{{{{{first}}}}} is not supported by this server")
        return Output(self._pipeline(list(tokens), "command"))

    def _branch(self, kind: str, tokens: tuple[Token, ...]) -> Branch:
        self._known.append(set(self._known[-1]))
        branch = Branch(kind, self._pipeline(list(tokens), kind))
        self._loops += kind == "range"
        branch.body, ending = self._nodes()
        self._loops -= kind == "range"
        if ending and ending[0].text == "else":
            if len(ending) > 1 and ending[1].text in ("if", "with"):
                branch.otherwise = [self._branch(ending[1].text, ending[2:])]
                self._known.pop()
                return branch
            branch.otherwise, ending = self._nodes()
            if ending and ending[0].text == "else":
                raise failed(self._line, "expected end; found {{else}}")
        if not ending:
            raise failed(self._line, "unexpected EOF")
        self._known.pop()
        return branch

    def _pipeline(self, tokens: list[Token], context: str) -> Pipeline:
        names, declares = self._variables(tokens)
        commands: list[Operand] = []
        while True:
            commands.append(self._command(tokens, context))
            if not tokens or tokens[0].text != "|":
                break
            tokens.pop(0)
        self._known[-1].update(names)
        return Pipeline(tuple(commands), tuple(names), declares)

    def _variables(self, tokens: list[Token]) -> tuple[list[str], bool]:
        """Names before `:=` or `=`, taken off the front."""
        until = next((i for i, t in enumerate(tokens) if t.text in (":=", "=")), None)
        names = [t.text for t in tokens[:until] if t.kind == "variable"] if until else []
        if not until or not names:
            return [], False
        declares = tokens[until].text == ":="
        del tokens[: until + 1]
        if not declares:
            self._require(names)
        return names, declares

    def _require(self, names: list[str]) -> None:
        for name in names:
            if not any(name in scope for scope in self._known):
                raise failed(self._line, f'undefined variable "{name}"')

    def _command(self, tokens: list[Token], context: str) -> Operand:
        if not tokens or tokens[0].text in ("|", ")"):
            raise failed(self._line, f"missing value for {context}")
        if tokens[0].kind == "word" and tokens[0].text not in _WORDS:
            name = self._function(tokens.pop(0))
            arguments: list[Operand] = []
            while tokens and tokens[0].text not in ("|", ")"):
                arguments.append(self._operand(tokens))
            return Call(name, tuple(arguments))
        operand = self._operand(tokens)
        if tokens and tokens[0].text not in ("|", ")"):
            shown = tokens[0].text
            raise failed(self._line, f"unexpected <{shown}> in {context}")
        return operand

    def _function(self, token: Token) -> str:
        if token.text not in KNOWN_FUNCTIONS:
            raise failed(self._line, f'function "{token.text}" not defined')
        return token.text

    def _operand(self, tokens: list[Token]) -> Operand:
        token = tokens.pop(0)
        if token.kind in ("string", "raw", "char", "number"):
            return Constant(self._constant(token))
        if token.text in _WORDS:
            return Constant(_WORDS[token.text])
        if token.kind in ("dot", "field"):
            first = (token.text[1:],) if token.kind == "field" else ()
            return Path("", (*first, *_fields(tokens)))
        if token.kind == "variable":
            self._require([token.text])
            return Path(token.text, _fields(tokens))
        if token.kind == "word":
            return Call(self._function(token), ())
        return self._bracketed(token, tokens)

    def _bracketed(self, token: Token, tokens: list[Token]) -> Path:
        if token.text != "(":
            raise failed(self._line, f'unexpected "{token.text}" in operand')
        inner = self._pipeline(tokens, "parenthesized pipeline")
        if not tokens or tokens.pop(0).text != ")":
            raise failed(self._line, "unclosed left paren")
        return Path(inner, _fields(tokens))

    def _constant(self, token: Token) -> Scalar:
        if token.kind == "raw":
            return token.text[1:-1]
        if token.kind == "char":
            return ord(token.text[1])
        try:
            value: Scalar = json.loads(token.text.lstrip("+"))
        except ValueError:
            raise failed(self._line, f"bad number or text: {token.text}") from None
        return value


def _fields(tokens: list[Token]) -> tuple[str, ...]:
    """Fields that follow at once, as in `$.A.B`."""
    names: list[str] = []
    while tokens and tokens[0].kind == "field" and not tokens[0].spaced:
        names.append(tokens.pop(0).text[1:])
    return tuple(names)
