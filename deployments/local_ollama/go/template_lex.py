"""Splits a Go template into text and actions, and an action into tokens."""

import re
from dataclasses import dataclass

_SPACE = " \t\r\n"
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    | (?P<string>"(?:\\.|[^"\\\n])*")
    | (?P<raw>`[^`]*`)
    | (?P<char>'(?:\\.|[^'\\\n])+')
    | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    | (?P<declare>:=)
    | (?P<field>\.[^\W\d]\w*)
    | (?P<dot>\.)
    | (?P<variable>\$\w*)
    | (?P<word>[^\W\d]\w*)
    | (?P<sign>[|(),=])""",
    re.VERBOSE,
)


class TemplateError(ValueError):
    """A template that cannot be parsed or run; the message is Go's."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an action: its kind, its text, and whether space stands before it."""

    kind: str
    text: str
    spaced: bool


@dataclass(frozen=True, slots=True)
class Action:
    """What stands between `{{` and `}}`, with its line."""

    tokens: tuple[Token, ...]
    line: int


def failed(line: int, message: str) -> TemplateError:
    """A parse error in Go's form."""
    return TemplateError(f"template: :{line}: {message}")


def split(template: str) -> list[str | Action]:
    """Text and actions in order, with the space trimmed that `{{-` and `-}}` ask for."""
    parts: list[str | Action] = []
    at, trim_next = 0, False
    while True:
        start = template.find("{{", at)
        text = template[at:] if start < 0 else template[at:start]
        text = text.lstrip(_SPACE) if trim_next else text
        if start < 0:
            return [*parts, text] if text else parts
        inner = start + 2
        if template[inner : inner + 1] == "-" and template[inner + 1 : inner + 2] in tuple(_SPACE):
            text, inner = text.rstrip(_SPACE), inner + 2
        if text:
            parts.append(text)
        line = template.count("\n", 0, inner) + 1
        tokens, at, trim_next = _action(template, inner, line)
        if tokens is not None:
            parts.append(Action(tuple(tokens), line))


def _action(template: str, at: int, line: int) -> tuple[list[Token] | None, int, bool]:
    """Tokens up to `}}` (None for a comment), where it ends, and whether it trims what follows."""
    if template.startswith("/*", at):
        end = template.find("*/", at)
        if end < 0:
            raise failed(line, "unclosed comment")
        close = template[end + 2 :]
        for ending, trims in (("}}", False), (" -}}", True)):
            if close.startswith(ending):
                return None, end + 2 + len(ending), trims
        raise failed(line, "comment ends before closing delimiter")
    tokens: list[Token] = []
    spaced = False
    while True:
        if spaced and template.startswith("-}}", at):
            return tokens, at + 3, True
        if template.startswith("}}", at):
            return tokens, at + 2, False
        found = _TOKEN.match(template, at)
        if found is None:
            raise _unreadable(template, at, line)
        spaced = found.lastgroup == "space"
        if not spaced:
            before = found.start() > 0 and template[found.start() - 1] in _SPACE
            tokens.append(Token(found.lastgroup or "", found[0], before))
        at = found.end()


def _unreadable(template: str, at: int, line: int) -> TemplateError:
    if at >= len(template):
        return failed(line, "unclosed action")
    char = template[at]
    names = {'"': "unterminated quoted string", "`": "unterminated raw quoted string"}
    if char in names:
        return failed(line, names[char])
    if char in "{}":
        return failed(line, f'unexpected "{char}" in operand')
    return failed(line, f"unrecognized character in action: U+{ord(char):04X} '{char}'")
