"""The `reports` command.

Exit codes: 0 every report has a translation; 1 the run could not finish; 2 bad usage or
configuration; 3 finished, but some reports failed; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from flows import interrupts
from flows.options import (
    Dataset,
    Engine,
    Evolve,
    IdColumn,
    OptionalDataset,
    Root,
    TextColumn,
    Translating,
    Verbose,
)
from flows.usage import at_least_one, usage_message, validated, wrong
from tasks.core.errors import ConfigurationError, ReportTranslationError
from tasks.core.settings import IngestSettings, RunSettings, Settings, TranslateSettings

DONE, COULD_NOT_FINISH, BAD_USAGE, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 130

app = App(
    name="reports",
    help="Translate whole datasets of reports with the Ollama servers you already have.",
    version="0.1.0",
    result_action="return_value",
    # What to do next is said below.
    suppress_keyboard_interrupt=False,
)


@app.command
def run(
    *source: str,
    root: Root,
    translating: Translating,
    dataset: OptionalDataset = None,
    text_column: TextColumn = None,
    id_column: IdColumn = None,
    evolve: Evolve = False,
    verbose: Verbose = False,
) -> int:
    """Read SOURCE files, folders or globs as reports and translate what is missing."""
    settings = validated(
        RunSettings,
        sources=list(source),
        root=root,
        dataset=dataset,
        text_column=text_column,
        id_column=id_column,
        evolve=evolve,
        **asdict(translating),
    )
    return _run_flow("run", settings, verbose=verbose)


@app.command
def ingest(
    *source: str,
    root: Root,
    dataset: Dataset,
    text_column: TextColumn = None,
    id_column: IdColumn = None,
    evolve: Evolve = False,
    verbose: Verbose = False,
) -> int:
    """Read SOURCE files, folders or globs as reports; nothing is translated."""
    settings = validated(
        IngestSettings,
        sources=list(source),
        root=root,
        dataset=dataset,
        text_column=text_column,
        id_column=id_column,
        evolve=evolve,
    )
    return _run_flow("ingest", settings, verbose=verbose)


@app.command
def translate(
    *,
    root: Root,
    dataset: Dataset,
    translating: Translating,
    verbose: Verbose = False,
) -> int:
    """Translate what is missing of a dataset that was ingested before."""
    settings = validated(TranslateSettings, root=root, dataset=dataset, **asdict(translating))
    return _run_flow("translate", settings, verbose=verbose)


@app.command(name="local-hosts")
def local_hosts(
    *,
    count: Annotated[int, Parameter(help="How many servers.")] = 2,
    slots: Annotated[int, Parameter(help="Requests that each answers at once.")] = 4,
    tokens_per_second: Annotated[
        float, Parameter(help="Speed of each simulated slot; 0: at once.")
    ] = 500.0,
    engine: Engine = "simulated",
) -> int:
    """Run local Ollama-compatible servers until interrupted, to try things on."""
    at_least_one("--count", count)
    at_least_one("--slots", slots)
    if tokens_per_second < 0:
        raise ConfigurationError(wrong("--tokens-per-second", tokens_per_second))
    from flows.local import run_local_hosts, server_settings

    server = server_settings(engine, slots=slots, tokens_per_second=tokens_per_second)
    return run_local_hosts(count, server, engine)


@app.command
def demo(
    *,
    root: Annotated[
        str, Parameter(name="--root", help="Folder for what the demo writes.")
    ] = "demo-output",
    engine: Engine = "llama",
    verbose: Verbose = False,
) -> int:
    """Translate the sample reports on two local servers and show the result."""
    _prepare_prefect(verbose=verbose)
    from flows.demo import run_demo

    return run_demo(root, engine)


@app.command
def serve(
    *,
    limit: Annotated[int, Parameter(help="Runs at a time; further ones wait.")] = 1,
) -> int:
    """Serve the deployments of deployments/prefect.yaml on this machine, without a work pool."""
    from flows.serving import serve_deployments

    at_least_one("--limit", limit)
    serve_deployments(limit)
    return DONE


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: run the command and exit with its code."""
    interrupts.listen()
    sys.exit(exit_code(arguments))


def exit_code(arguments: Sequence[str] | None = None) -> int:
    """Run the command; what is wrong is said in one line."""
    tokens = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code: Any = app(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _complain(usage_message(error), BAD_USAGE)
    except ConfigurationError as error:
        return _complain(str(error), BAD_USAGE)
    except ReportTranslationError as error:
        return _complain(str(error), COULD_NOT_FINISH)
    except KeyboardInterrupt:
        return _complain(
            "interrupted; what is finished is kept, give the same command again to go on",
            INTERRUPTED,
        )
    return code if isinstance(code, int) else DONE


def _run_flow(name: str, settings: Settings, *, verbose: bool) -> int:
    _prepare_prefect(verbose=verbose)
    from flows.running import run_flow
    from tasks.core.run.lifecycle import run_hosts
    from tasks.limits import limits_in_use

    if isinstance(settings, TranslateSettings):
        # What is wrong is said before a temporary server takes its time to start.
        limits_in_use(settings.limits)
        run_hosts(settings)
    return run_flow(name, settings)


def _prepare_prefect(*, verbose: bool) -> None:
    """Settle what Prefect reads from the environment when it is imported."""
    if not verbose:
        # The command says what happens in its own words; the flow run's log has them, too.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    # A temporary server that makes its database on a busy machine takes longer than the 20 s
    # that Prefect gives it.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")


def _complain(message: str, code: int) -> int:
    from flows.terminal import complain

    complain(f"reports: {message}")
    return code


if __name__ == "__main__":
    main()
