"""Results as files: what was measured, when, with which command, on what."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path("bench-output")


def environment() -> dict[str, Any]:
    """What a reader has to know to judge a figure, or to measure it again."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": command(),
        "commit": _commit(),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def command() -> str:
    """The command line, as one types it."""
    main = sys.modules["__main__"].__spec__
    name = main.name.removesuffix(".__main__") if main else Path(sys.argv[0]).name
    return " ".join(("python -m", name, *sys.argv[1:]))


def write_json(path: Path, results: dict[str, Any]) -> None:
    """Write results, also where the folder is not there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _commit() -> str:
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said.stdout.strip()
