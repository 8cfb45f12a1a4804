"""Model names: `[[host/]namespace/]model[:tag]`, as Ollama reads and shows them."""

import re
from dataclasses import dataclass
from typing import Self

HOST, NAMESPACE, TAG = "registry.ollama.ai", "library", "latest"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")


@dataclass(frozen=True, slots=True)
class ModelName:
    """A complete name: what was left out is filled in."""

    host: str
    namespace: str
    model: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The name that `text` stands for, or None where it is no name."""
        rest, tag = text, TAG
        colon = rest.rfind(":")
        if colon > rest.rfind("/"):
            rest, tag = rest[:colon], rest[colon + 1 :]
        parts = rest.split("/")
        if len(parts) > 3:  # noqa: PLR2004 - host, namespace and model
            return None
        model = parts[-1]
        namespace = parts[-2] if len(parts) > 1 else NAMESPACE
        host = parts[0] if len(parts) > 2 else HOST  # noqa: PLR2004 - host, namespace and model
        fits = (
            _HOST.fullmatch(host)
            and _NAMESPACE.fullmatch(namespace)
            and _PART.fullmatch(model)
            and _PART.fullmatch(tag)
        )
        return cls(host, namespace, model, tag) if fits else None

    @property
    def full(self) -> str:
        """The name with all its parts."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def shortest(self) -> str:
        """The name without the parts that go without saying; the tag is always shown."""
        if self.host.lower() != HOST:
            return self.full
        if self.namespace.lower() != NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    @property
    def key(self) -> str:
        """What two names have in common that stand for the same model."""
        return self.full.lower()

    @property
    def in_the_cloud(self) -> bool:
        """Whether the name asks for a model that Ollama would run elsewhere."""
        return self.tag == "cloud" or self.tag.endswith("-cloud")


def full_name(text: str) -> str:
    """The name with its tag, as lists show it; text that is no name stays as it is."""
    name = ModelName.parse(text)
    return text if name is None else name.shortest
