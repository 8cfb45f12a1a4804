import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.local_ollama.go.template_lex import TemplateError
from deployments.local_ollama.go.template_parse import parse
from deployments.local_ollama.go.template_run import Record, run
from deployments.local_ollama.go.template_tree import identifiers, up_to_response

TURNS = [Record(Role="user", Content="a"), Record(Role="assistant", Content="b")]
VALUES = {"System": "S", "Prompt": "P", "Empty": "", "Messages": TURNS, "Map": {"k": 1}}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ .System }}-{{ .Prompt }}", "S-P"),
        ("{{ if .Empty }}x{{ else if .System }}y{{ else }}z{{ end }}", "y"),
        ("{{ range .Messages }}<{{ .Role }}>{{ .Content }}{{ end }}", "<user>a<assistant>b"),
        ("{{ range $i, $m := .Messages }}{{ $i }}{{ $m.Role }}{{ $.System }}{{ end }}",
         "0userS1assistantS"),
        ('{{ range .Messages }}{{ if eq .Role "user" "x" }}U{{ else }}A{{ end }}{{ end }}', "UA"),
        ("a \n{{- .System -}}\n b", "aSb"),
        ("a{{- /* note */ -}} b{{/* note */}}c", "abc"),
        ("{{ if and .System (not .Empty) (or .Empty .Prompt) }}y{{ end }}", "y"),
        ("{{ $x := 1 }}{{ if .System }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("{{ with .System }}{{ . }}{{ end }}{{ with .Empty }}x{{ else }}-{{ end }}", "S-"),
        ("{{ range .Messages }}{{ if eq .Content `b` }}{{ break }}{{ end }}{{ .Role }}{{ end }}",
         "user"),
        ("{{ (index .Messages 1).Content }}{{ len .Messages }}{{ slice .System 0 0 }}", "b2"),
        ('{{ printf "%s=%d%%" .System 3 }}{{ .Map | json }}', 'S=3%{"k":1}'),
        ("{{ .Missing }}|{{ .Map.k }}|{{ eq (len .Messages) 2 }}", "<no value>|1|true"),
        ("{{ if ne .System `T` }}{{ if lt 1 2 }}x{{ end }}{{ end }}", "x"),
    ],
)  # fmt: skip
def test_templates_say_what_go_says(template: str, text: str) -> None:
    """Fields, branches, loops, variables, pipelines and trimming work as in Go."""
    assert run(parse(template), VALUES) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ .Foo", "template: :1: unclosed action"),
        ("a\n{{ .Foo", "template: :2: unclosed action"),
        ("{{ if .A }}x", "template: :1: unexpected EOF"),
        ("{{ end }}", "template: :1: unexpected {{end}}"),
        ("{{ foo . }}", 'template: :1: function "foo" not defined'),
        ("{{ $x }}", 'template: :1: undefined variable "$x"'),
        ("{{ if }}x{{ end }}", "template: :1: missing value for if"),
        ("{{}}", "template: :1: missing value for command"),
        ('{{ "a }}', "template: :1: unterminated quoted string"),
        ("{{ break }}", "template: :1: {{break}} outside {{range}}"),
        ("{{/* a", "template: :1: unclosed comment"),
    ],
)
def test_templates_that_cannot_be_read(template: str, message: str) -> None:
    """A template with a mistake is refused in Go's words, with the line."""
    with pytest.raises(TemplateError) as wrong:
        parse(template)
    assert str(wrong.value) == message


def test_a_struct_has_no_other_fields() -> None:
    """A field that a message does not have is an error, not an empty text."""
    with pytest.raises(TemplateError, match="can't evaluate field Foo in type"):
        run(parse("{{ range .Messages }}{{ .Foo }}{{ end }}"), VALUES)


def test_endless_templates_are_given_up() -> None:
    """A template that loops for ever is stopped after a number of steps."""
    loops = "{{ range 100000 }}" * 3 + "{{ end }}" * 3
    with pytest.raises(TemplateError, match="too many steps"):
        run(parse(loops), {})


@pytest.mark.parametrize("function", ['printf "%s%s"', "print", "println"])
def test_text_that_doubles_is_given_up(function: str) -> None:
    """Also where it is only kept: forty turns of this would be more than any memory."""
    double = f"{{{{ range 40 }}}}{{{{ $x = {function} $x $x }}}}{{{{ end }}}}"
    with pytest.raises(TemplateError, match="too much text"):
        run(parse('{{ $x := "a" }}' + double), {})


def test_identifiers_and_the_part_before_the_response() -> None:
    """A template tells which fields it reads, and can be cut where the answer would stand."""
    nodes = parse("{{ if .System }}S{{ end }}{{ .Prompt }}A{{ .Response }}<end>")
    assert identifiers(nodes) == {"system", "prompt", "response"}
    assert run(up_to_response(nodes), {"Prompt": "p", "Response": "r"}) == "pAr"


PARTS = st.sampled_from(
    ["{{", "}}", "{{-", "-}}", " ", ".A", "if", "else", "end", "range", "$x", ":=", "(", ")", "|",
     '"s"', "`", "eq", "1", "/*", "*/", "text", "\n", "with", "with .A", "index", "printf", "%"]
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(PARTS, max_size=14).map("".join), st.sampled_from([{}, VALUES]))
def test_any_template_runs_or_is_refused(template: str, values: dict[str, Any]) -> None:
    """No template brings the server down: it makes a text or a TemplateError."""
    with contextlib.suppress(TemplateError):
        assert isinstance(run(parse(template), values), str)
