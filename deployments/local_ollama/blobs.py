"""Files that clients sent, by digest, in a folder of this server's own that goes with it."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from deployments.local_ollama.errors import RequestError
from deployments.local_ollama.go.text import quote

MOST_BYTES = 8 << 30
_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")


class BlobStore:
    """Blobs on disk, at most MOST_BYTES together. `close` removes them all."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._folder: Path | None = None
        self._sizes: dict[str, int] = {}
        self._arriving = 0
        self._elsewhere: dict[str, Path] = {}

    def path(self, digest: str) -> Path | None:
        """The file with this digest (`sha256:...`), or None."""
        key = _key(digest)
        if key in self._elsewhere:
            return self._elsewhere[key]
        return self._place(key) if key in self._sizes else None

    def adopt(self, digest: str, path: Path) -> None:
        """Know a file that lies elsewhere; it is never removed."""
        self._elsewhere[_key(digest)] = path

    async def receive(self, digest: str, body: AsyncIterator[bytes]) -> bool:
        """Write a blob as it arrives; False where it was there already. Raises RequestError."""
        if self.path(digest) is not None:
            return False
        folder = self._made_folder()
        handle, name = tempfile.mkstemp(dir=folder, prefix="arriving-")
        arrived, seen = 0, hashlib.sha256()
        try:
            with os.fdopen(handle, "wb") as file:
                async for part in body:
                    arrived += len(part)
                    self._arriving += len(part)
                    if self._arriving + sum(self._sizes.values()) > self._most:
                        raise RequestError(500, f"write {name}: no space left on device")
                    seen.update(part)
                    file.write(part)
            key = f"sha256:{seen.hexdigest()}"
            if key != digest:
                expected, got = quote(digest), quote(key)
                raise RequestError(400, f"digest mismatch, expected {expected}, got {got}")
            os.replace(name, self._place(key))  # noqa: PTH105 - as quick as a rename is, so no await
            self._sizes[key] = arrived
        finally:
            self._arriving -= arrived
            _forget(name)
        return True

    def close(self) -> None:
        """Remove the folder and every blob in it."""
        self._sizes.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _made_folder(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="local-ollama-"))
        return self._folder

    def _place(self, key: str) -> Path:
        return self._made_folder() / key.replace(":", "-")


def _forget(name: str) -> None:
    Path(name).unlink(missing_ok=True)


def _key(digest: str) -> str:
    """The digest in its usual form. Raises RequestError for text that is no digest."""
    if not _DIGEST.fullmatch(digest):
        raise RequestError(400, "invalid digest format")
    return digest.replace("-", ":")


def digest_of(path: Path) -> str:
    """The `sha256:...` of a file."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
