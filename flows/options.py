"""The options of the `reports` command: their names, help texts and kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from tasks.core.settings import HOST_FORM, LimitsName, PolicyName

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
Verbose = Annotated[
    bool, Parameter(name="--verbose", negative=(), help="Show Prefect's own log, too.")
]
Engine = Annotated[
    Literal["llama", "simulated"],
    Parameter(help="llama: a small language model; simulated: word by word, at any speed."),
]

Hosts = Annotated[
    tuple[str, ...],
    Parameter(
        name="--host",
        negative=(),
        show_default=False,
        help=f"An Ollama server as {HOST_FORM}; without SLOTS they are found out. Repeatable.",
    ),
]
HostsFile = Annotated[
    str | None,
    Parameter(
        name="--hosts-file",
        help="Text file with one host a line, as for --host; read again during the run, so that "
        "hosts can join and leave.",
    ),
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
Limits = Annotated[
    LimitsName,
    Parameter(
        name="--limits",
        help="How runs at the same time share hosts: local: by locks of this machine; prefect: by "
        "concurrency limits of the Prefect server, too; auto: prefect where PREFECT_API_URL is "
        "set, else local.",
    ),
]
Hedge = Annotated[
    bool,
    Parameter(
        name="--hedge",
        negative="--no-hedge",
        help="Near the end, let idle slots ask again for what takes longest; the first answer "
        "counts.",
    ),
]
OtherWeights = Annotated[
    bool,
    Parameter(
        name="--allow-other-weights",
        negative=(),
        help="Let the model's name mean different weights on different hosts.",
    ),
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


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Translating:
    """The options of every command that translates, under the names of the settings."""

    hosts: Hosts = ()
    hosts_file: HostsFile = None
    model: Model
    source_lang: From = "fr"
    target_lang: To = "en"
    limit: Limit = None
    policy: Policy = "pull"
    limits: Limits = "auto"
    hedge: Hedge = True
    other_weights: OtherWeights = False
    fleet_timeout_seconds: FleetTimeout = 300
    load_timeout_seconds: LoadTimeout = 600
    num_ctx: NumCtx = 4096
    profile: ProfileName = None
