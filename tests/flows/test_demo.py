"""What the demo needs, said before it starts anything."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest

from flows.local import MODEL_FILE, require, server_settings
from tasks.core.errors import ConfigurationError


def failing(package: str, error: ImportError, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this package could not be imported."""
    load = importlib.import_module

    def import_module(name: str) -> Any:
        if name == package:
            raise error
        return load(name)

    monkeypatch.setattr("flows.local.importlib", SimpleNamespace(import_module=import_module))


@pytest.mark.parametrize("package", ["xllamacpp", "sacrebleu"])
def test_a_missing_package_is_named_with_the_next_step(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever lacks an optional package reads which, how to get it, and what works without."""
    require(package)
    failing(package, ModuleNotFoundError(f"No module named {package!r}"), monkeypatch)
    with pytest.raises(ConfigurationError) as raised:
        require(package)
    assert str(raised.value) == (
        f"--engine llama needs {package}, which is not installed: run `make demo`, or "
        "`pip install -e '.[demo]'`, or give --engine simulated"
    )


def test_a_missing_system_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever lacks a library that the wheel was built against reads which one."""
    reason = "libgomp.so.1: cannot open shared object file: No such file or directory"
    failing("xllamacpp", ImportError(reason), monkeypatch)
    with pytest.raises(ConfigurationError) as raised:
        server_settings("llama")
    assert str(raised.value) == (
        f"--engine llama needs xllamacpp, which does not load ({reason}): install the library it "
        "misses (libgomp1 on Debian), or give --engine simulated"
    )


def test_the_simulation_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without llama.cpp the simulated servers still start; the model's do not."""
    failing("xllamacpp", ModuleNotFoundError("No module named 'xllamacpp'"), monkeypatch)
    assert server_settings("simulated", slots=2, tokens_per_second=0.0).slots == 2
    with pytest.raises(ConfigurationError):
        server_settings("llama")


def test_the_models_servers_use_one_thread_each() -> None:
    """Two servers with more threads would fight over two cores."""
    server = server_settings("llama")
    assert (server.engine, server.threads, server.slots) == ("llama", 1, 4)
    assert server.model_file == str(MODEL_FILE)
    assert MODEL_FILE.is_file()
