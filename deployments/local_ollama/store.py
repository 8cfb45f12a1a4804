"""The server's models by name: one it comes with, and those that clients create."""

import dataclasses
import time
from collections.abc import Iterable

from deployments.local_ollama.blobs import BlobStore
from deployments.local_ollama.errors import RequestError
from deployments.local_ollama.go.text import quote
from deployments.local_ollama.models import Model
from deployments.local_ollama.naming import ModelName

MOST_MODELS = 1000
CLOUD_IS_OFF = "ollama cloud is disabled: remote model is unavailable"


class ModelStore:
    """Models by name, in any case, and the blobs they are made of."""

    def __init__(self, models: Iterable[Model] = (), blobs: BlobStore | None = None) -> None:
        self.blobs = blobs or BlobStore()
        self._models: dict[str, Model] = {}
        for model in models:
            self.put(model)
        self.layers: set[str] = set()

    def listed(self) -> list[Model]:
        """Every model, those changed last first."""
        second = 1_000_000_000
        return sorted(self._models.values(), key=lambda each: -(each.modified_ns // second))

    def find(self, name: ModelName) -> Model | None:
        """The model of that name."""
        return self._models.get(name.key)

    def put(self, model: Model) -> None:
        """Keep a model under its name, in place of the one that had it. Raises RequestError."""
        name = ModelName.parse(model.name)
        if name is None:
            raise RequestError(400, "invalid model name")
        if len(self._models) >= MOST_MODELS and name.key not in self._models:
            raise RequestError(500, "no space left on device")
        self._models[name.key] = model

    def copy(self, source: str, destination: str) -> None:
        """Keep a model under a second name. Raises RequestError."""
        names = []
        for what, given in (("source", source), ("destination", destination)):
            name = ModelName.parse(given)
            if name is None:
                raise RequestError(400, f"{what} {quote(given)} is invalid")
            names.append(name)
        model = self.find(names[0])
        if model is None:
            raise RequestError(404, f"model {quote(source)} not found")
        self.put(dataclasses.replace(model, name=names[1].shortest, modified_ns=time.time_ns()))

    def delete(self, given: str) -> Model:
        """Forget a model and return it. Raises RequestError."""
        name = ModelName.parse(given)
        if name is None:
            raise RequestError(400, f"name {quote(given)} is invalid")
        model = self._models.pop(name.key, None)
        if model is None:
            raise RequestError(404, f"model '{given}' not found")
        return model

    def close(self) -> None:
        """Remove every blob."""
        self.blobs.close()


def asked_model(store: ModelStore, given: str) -> Model:
    """The model that a request to generate, chat or embed names. Raises RequestError."""
    name = ModelName.parse(given)
    if name is None:
        raise RequestError(400, "invalid model name")
    if name.in_the_cloud:
        raise RequestError(403, CLOUD_IS_OFF)
    model = store.find(name)
    if model is None:
        raise RequestError(404, f"model '{given}' not found")
    return model
