"""The `reports` command.

Exit codes: 0 every report has a translation; 1 the run could not finish; 2 bad usage or
configuration; 3 finished, but some reports failed; 130 interrupted.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from cyclopts import App, CycloptsError, Parameter, UnknownOptionError

from tasks.core.errors import ConfigurationError, ReportTranslationError
from tasks.core.settings import (
    HOST_FORM,
    IngestSettings,
    PolicyName,
    RunSettings,
    Settings,
    TranslateSettings,
)

DONE, COULD_NOT_FINISH, BAD_USAGE, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 130

app = App(
    name="reports",
    help="Translate whole datasets of reports with the Ollama servers you already have.",
    version="0.1.0",
    result_action="return_value",
    # What to do next is said below.
    suppress_keyboard_interrupt=False,
)

Root = Annotated[str, Parameter(name="--root", help="Folder under which everything is stored.")]
Dataset = Annotated[str, Parameter(name="--dataset", help="Name of the dataset.")]
OptionalDataset = Annotated[
    str | None,
    Parameter(name="--dataset", help="Name of the dataset; by default that of the first source."),
]
TextColumn = Annotated[
    str | None,
    Parameter(
        name="--text-column",
        help="Column that holds the text; by default the one with the longest texts.",
    ),
]
IdColumn = Annotated[
    str | None,
    Parameter(name="--id-column", help="Column with a unique id; by default ids are made."),
]
Evolve = Annotated[
    bool,
    Parameter(name="--evolve", negative=(), help="Let new columns or types into the dataset."),
]
Hosts = Annotated[
    list[str],
    Parameter(name="--host", negative=(), help=f"An Ollama server as {HOST_FORM}; repeatable."),
]
Model = Annotated[str, Parameter(name="--model", help="Model name on the hosts.")]
From = Annotated[str, Parameter(name="--from", help="Language of the reports.")]
To = Annotated[str, Parameter(name="--to", help="Language to translate into.")]
Limit = Annotated[
    int | None,
    Parameter(name="--limit", help="Translate at most so many of the missing reports."),
]
Policy = Annotated[
    PolicyName,
    Parameter(name="--policy", help="How hosts get reports; all but pull are baselines."),
]
FleetTimeout = Annotated[
    int,
    Parameter(
        name="--fleet-timeout", help="Seconds to wait for any host when all were lost in a run."
    ),
]
LoadTimeout = Annotated[
    int, Parameter(name="--load-timeout", help="Seconds a host may take to load the model.")
]
NumCtx = Annotated[
    int, Parameter(name="--num-ctx", help="Context length in tokens, for every request.")
]
ProfileName = Annotated[
    str | None, Parameter(name="--profile", help="Prompt profile; by default by model name.")
]
Verbose = Annotated[
    bool, Parameter(name="--verbose", negative=(), help="Show Prefect's own log, too.")
]
Engine = Annotated[
    Literal["llama", "simulated"],
    Parameter(help="llama: a small language model; simulated: word by word, at any speed."),
]

_OPTIONS = {
    "sources": "SOURCE",
    "hosts": "--host",
    "source_lang": "--from",
    "target_lang": "--to",
    "fleet_timeout_seconds": "--fleet-timeout",
    "load_timeout_seconds": "--load-timeout",
}

_FORMS = {
    "--root": "--root FOLDER",
    "--dataset": "--dataset NAME",
    "--model": "--model NAME, for example --model translategemma:12b",
    "--host": f"--host as {HOST_FORM}",
    "--limit": "--limit as a whole number from 1",
    "--fleet-timeout": "--fleet-timeout as a whole number of seconds from 0",
    "--load-timeout": "--load-timeout as a whole number of seconds from 1",
    "--num-ctx": "--num-ctx as a whole number of tokens from 256",
    "--count": "--count as a whole number from 1",
    "--slots": "--slots as a whole number from 1",
    "--tokens-per-second": "--tokens-per-second as a number from 0",
}

AnySettings = TypeVar("AnySettings", bound=Settings)


@app.command
def run(
    *source: str,
    root: Root,
    host: Hosts,
    model: Model,
    dataset: OptionalDataset = None,
    text_column: TextColumn = None,
    id_column: IdColumn = None,
    from_: From = "fr",
    to: To = "en",
    limit: Limit = None,
    policy: Policy = "pull",
    fleet_timeout: FleetTimeout = 300,
    load_timeout: LoadTimeout = 600,
    num_ctx: NumCtx = 4096,
    profile: ProfileName = None,
    evolve: Evolve = False,
    verbose: Verbose = False,
) -> int:
    """Read SOURCE files, folders or globs as reports and translate what is missing."""
    settings = _validated(
        RunSettings,
        sources=list(source),
        root=root,
        dataset=dataset,
        text_column=text_column,
        id_column=id_column,
        evolve=evolve,
        hosts=host,
        model=model,
        source_lang=from_,
        target_lang=to,
        limit=limit,
        policy=policy,
        fleet_timeout_seconds=fleet_timeout,
        load_timeout_seconds=load_timeout,
        num_ctx=num_ctx,
        profile=profile,
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
    settings = _validated(
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
    host: Hosts,
    model: Model,
    from_: From = "fr",
    to: To = "en",
    limit: Limit = None,
    policy: Policy = "pull",
    fleet_timeout: FleetTimeout = 300,
    load_timeout: LoadTimeout = 600,
    num_ctx: NumCtx = 4096,
    profile: ProfileName = None,
    verbose: Verbose = False,
) -> int:
    """Translate what is missing of a dataset that was ingested before."""
    settings = _validated(
        TranslateSettings,
        root=root,
        dataset=dataset,
        hosts=host,
        model=model,
        source_lang=from_,
        target_lang=to,
        limit=limit,
        policy=policy,
        fleet_timeout_seconds=fleet_timeout,
        load_timeout_seconds=load_timeout,
        num_ctx=num_ctx,
        profile=profile,
    )
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
    _at_least_one("--count", count)
    _at_least_one("--slots", slots)
    if tokens_per_second < 0:
        raise ConfigurationError(_wrong("--tokens-per-second", tokens_per_second))
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

    _at_least_one("--limit", limit)
    serve_deployments(limit)
    return DONE


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: run the command and exit with its code."""
    # Being asked to end is an interruption, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(exit_code(arguments))


def exit_code(arguments: Sequence[str] | None = None) -> int:
    """Run the command; what is wrong is said in one line."""
    tokens = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code: Any = app(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _complain(_usage_message(error), BAD_USAGE)
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


def _validated(kind: type[AnySettings], **values: object) -> AnySettings:
    """Settings from options; what is wrong names the option."""
    if values.get("sources") == []:
        raise ConfigurationError("SOURCE is missing; give at least one file, folder or glob")
    try:
        return kind.model_validate(values)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if not first["loc"]:
            raise ConfigurationError(first["msg"].removeprefix("Value error, ")) from error
        name = str(first["loc"][0])
        option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
        if option in _FORMS and first["type"] != "value_error":
            # The words are pydantic's, and speak of inputs and fields.
            raise ConfigurationError(_wrong(option, values[name])) from error
        message = f"{option}: {first['msg'].removeprefix('Value error, ')}"
        raise ConfigurationError(message) from error


def _at_least_one(option: str, value: int) -> None:
    if value < 1:
        raise ConfigurationError(f"{option} {value}: give a whole number from 1")


def _wrong(option: str, value: object) -> str:
    return f"{option} {value!r}: give {_FORMS[option]}"


def _usage_message(error: CycloptsError) -> str:
    text = " ".join(str(error).split()).replace('"', "'").rstrip(".")
    text = re.sub(
        r"^Command '[^']*' parameter (\S+) requires an argument", r"\1 needs a value", text
    )
    forms = [form for option, form in _FORMS.items() if re.search(rf"{option}\b", text)]
    if forms and not isinstance(error, UnknownOptionError):
        return f"{text}; give {forms[0]}"
    return f"{text}; see '{' '.join(('reports', *(error.command_chain or ())))} --help'"


def _complain(message: str, code: int) -> int:
    from flows.terminal import complain

    complain(f"reports: {message}")
    return code


if __name__ == "__main__":
    main()
