import pytest

from deployments.local_ollama.hosts import is_local
from deployments.local_ollama.naming import ModelName, full_name


@pytest.mark.parametrize(
    ("text", "full", "shortest"),
    [
        ("m", "registry.ollama.ai/library/m:latest", "m:latest"),
        ("m:7b", "registry.ollama.ai/library/m:7b", "m:7b"),
        ("me/m", "registry.ollama.ai/me/m:latest", "me/m:latest"),
        ("hf.co/me/m:q4", "hf.co/me/m:q4", "hf.co/me/m:q4"),
        ("localhost:5000/me/m", "localhost:5000/me/m:latest", "localhost:5000/me/m:latest"),
    ],
)
def test_names_are_completed(text: str, full: str, shortest: str) -> None:
    """What a name leaves out is filled in, and left out again where it goes without saying."""
    name = ModelName.parse(text)
    assert name is not None
    assert (name.full, name.shortest) == (full, shortest)


@pytest.mark.parametrize(
    "text", ["", "a b", "m:", ":m", "http://x/y", "a/b/c/d", "-m", "m" * 81, "é"]
)
def test_what_is_no_name(text: str) -> None:
    """Spaces, empty parts, odd letters and overlong parts make no name."""
    assert ModelName.parse(text) is None
    assert full_name(text) == text


@pytest.mark.parametrize(
    ("header", "local"),
    [
        ("127.0.0.1:11434", True), ("localhost", True), ("LOCALHOST:1", True), ("", True),
        ("[::1]:11434", True), ("::1", True), ("192.168.1.5", True), ("box.local:80", True),
        ("a.internal", True), ("10.0.0.1", True), ("evil.com", False), ("evil.com:11434", False),
        ("8.8.8.8", False), ("local", False), ("127.0.0.1.evil.com", False),
    ],
)  # fmt: skip
def test_only_local_hosts_are_served(header: str, *, local: bool) -> None:
    """Names of this machine and private addresses are local, all others are not."""
    assert is_local(header) is local
