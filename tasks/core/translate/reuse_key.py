"""The key under which a translation is known: the same key is never paid for twice."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from tasks.core.translate.profiles import Prompting


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything but the text that a translation depends on."""

    model_digest: str
    source_lang: str
    target_lang: str
    prompt_sha256: str
    options_sha256: str
    glossary_sha256: str | None = None

    @classmethod
    def of(cls, prompting: Prompting, model_digest: str) -> Recipe:
        """The recipe of a run."""
        return cls(
            model_digest=model_digest,
            source_lang=prompting.source_lang,
            target_lang=prompting.target_lang,
            prompt_sha256=prompting.prompt_sha256,
            options_sha256=prompting.options_sha256,
        )

    def reuse_key(self, text: str) -> str:
        """Hash of the recipe and a text. Parts end in NUL, so none can pass for two."""
        parts = (
            self.model_digest,
            self.source_lang,
            self.target_lang,
            self.prompt_sha256,
            self.options_sha256,
            self.glossary_sha256 or "",
            text,
        )
        digest = hashlib.sha256()
        for part in parts:
            # A lone surrogate has no UTF-8 form; ingest rejects such rows.
            digest.update(part.encode())
            digest.update(b"\0")
        return digest.hexdigest()
