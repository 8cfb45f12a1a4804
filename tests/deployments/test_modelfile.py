from pathlib import Path

import pytest

from deployments.local_ollama.create import model_of
from deployments.local_ollama.modelfile import ModelfileError, read_modelfile
from tests.deployments.gguf_files import gguf


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with weights in it."""
    (tmp_path / "model.gguf").write_bytes(gguf())
    return tmp_path


def written(folder: Path, text: str) -> Path:
    """A Modelfile with this text."""
    path = folder / "Modelfile"
    path.write_text(text, encoding="utf-8")
    return path


def test_all_commands_are_read(folder: Path) -> None:
    """FROM, TEMPLATE, SYSTEM, PARAMETER and LICENSE, quoted or not, with comments between."""
    found = read_modelfile(
        written(
            folder,
            "# a comment\nfrom ./model.gguf\n\n"
            'TEMPLATE """{{ .Prompt }}<sep>\n"""\nSYSTEM "be terse"\n'
            'PARAMETER stop "</s>"\nPARAMETER  stop X\nPARAMETER temperature\t0.5\n'
            "PARAMETER num_ctx 512\nLICENSE MIT\n",
        )
    )
    assert found.weights == folder / "model.gguf"
    assert (found.template, found.system, found.license) == (
        "{{ .Prompt }}<sep>\n", "be terse", "MIT",
    )  # fmt: skip
    assert found.parameters == {"stop": ["</s>", "X"], "temperature": 0.5, "num_ctx": 512}


def test_weights_alone_are_a_model(folder: Path) -> None:
    """A GGUF file needs no Modelfile."""
    model = model_of(read_modelfile(folder / "model.gguf"), "tiny")
    assert (model.name, model.family, model.parameter_size) == ("tiny:latest", "llama", "160")
    assert model.path == folder / "model.gguf"
    assert model.blob.startswith("sha256:")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SYSTEM x\n", "it names no weights"),
        ("FROM ./other.gguf\n", "there is no such file"),
        ("FROM ./model.gguf\nRUN rm\n", "line 2: RUN is no command"),
        ("FROM ./model.gguf\n???\n", "line 2: begin the line with a command"),
    ],
)
def test_mistakes_are_told_with_their_line(folder: Path, text: str, words: str) -> None:
    """What cannot be used is named with its file, and what to do about it."""
    with pytest.raises(ModelfileError, match=words):
        read_modelfile(written(folder, text))


def test_a_template_that_cannot_be_read_is_refused(folder: Path) -> None:
    """The mistake in a template comes out when the server starts, not with the first request."""
    path = written(folder, 'FROM ./model.gguf\nTEMPLATE "{{ if }}"\n')
    with pytest.raises(ModelfileError, match="missing value for if"):
        model_of(read_modelfile(path), "tiny")
