"""A finished run for people: as markdown, and as a table of its hosts."""

from __future__ import annotations

from tasks.core.ingest.summary import IngestSummary
from tasks.core.run.efficiency import LEFT_TO_OTHERS, where_the_time_went
from tasks.core.run.news import readable_seconds
from tasks.core.run.run_record import RunRecord

HostRow = dict[str, str | int | float]

TO_TELL = 0.05
"""Share of the slot time from which it is worth a word that others had it."""


def counts_line(record: RunRecord) -> str:
    """The counts that are not zero, the reports first."""
    named = {
        "translated": record.translated,
        "flagged": record.flagged,
        "reused": record.reused,
        "passed (nothing to translate)": record.passed,
        "failed": record.failed,
        "unchanged": record.unchanged,
        "unfinished": record.unfinished,
    }
    parts = [f"{count:,} {name}" for name, count in named.items() if count]
    return f"{record.reports:,} reports: " + (", ".join(parts) or "nothing to do")


def ingest_lines(summary: IngestSummary) -> list[str]:
    """What was read, what was set aside and why, and what is worth knowing."""
    files = len(summary.files)
    read = (
        f"{summary.dataset}: {summary.rows_in:,} rows in {files} "
        f"{'file' if files == 1 else 'files'}, {summary.reports:,} reports, "
        f"{summary.rejected:,} rejected"
    )
    return [
        read,
        *(f"  rejected: {count:,} {reason}" for reason, count in summary.reasons.items()),
        *(f"  note: {note}" for note in summary.notes),
    ]


def opening_lines(record: RunRecord) -> list[str]:
    """What a run is going to do."""
    todo = f"{record.planned:,} to translate, {record.unchanged:,} unchanged"
    if record.beyond_limit:
        todo += f", {record.beyond_limit:,} left for another run by --limit"
    hosts, digest = len(record.hosts), (record.model_digest or "")[:12]
    going = (
        f"{record.dataset}: {todo}; {record.source_lang} → {record.target_lang} with "
        f"{record.model} ({digest}), {hosts} {'host' if hosts == 1 else 'hosts'}"
    )
    return [*record.notes, going]


def host_rows(record: RunRecord) -> list[HostRow]:
    """One row a host, ready for a table; rates are over the time the host was busy."""
    return [
        {
            "host": url,
            "slots": host.slots,
            "requests": host.requests,
            "failures": host.failures,
            "peak": host.peak_in_flight,
            "busy s": round(host.busy_seconds, 1),
            "tokens": host.output_tokens,
            "tokens/s": _rate(host.output_tokens, host.busy_seconds),
            "req/s": _rate(host.requests, host.busy_seconds),
        }
        for url, host in record.hosts.items()
    ]


def efficiency_line(record: RunRecord) -> str | None:
    """How near a run came to the least time that its hosts need; None without an answer."""
    if record.efficiency is None or record.lower_bound_seconds is None:
        return None
    shares = {part.what: part.share for part in where_the_time_went(record.hosts.values())}
    left = shares.get(LEFT_TO_OTHERS, 0.0)
    return (
        f"efficiency {record.efficiency:.1%}: {record.makespan_seconds:.1f} s from the first "
        f"request to the last answer; these hosts, as they were, need "
        f"{record.lower_bound_seconds:.1f} s at least"
        + (f", with the {left:.0%} of their slot time that others had" if left >= TO_TELL else "")
    )


def time_rows(record: RunRecord) -> list[HostRow]:
    """Where the time of all slots went, ready for a table."""
    return [
        {
            "slot time": part.what,
            "seconds": round(part.slot_seconds, 1),
            "share": f"{part.share:.1%}",
        }
        for part in where_the_time_went(record.hosts.values())
    ]


def markdown(record: RunRecord, root: str) -> str:
    """The run on a page: what came out of it, where it is, what each host did."""
    wall = readable_seconds(record.wall_seconds or 0.0)
    ended = (
        f"**{record.state.replace('_', ' ')}** after {wall} with `{record.model}` "
        f"(`{(record.model_digest or 'not asked')[:12]}`, profile `{record.profile}`)."
    )
    lines = [
        f"# {record.dataset}: {record.source_lang} → {record.target_lang}",
        "",
        ended,
        "",
        *_table(
            [
                {"what": name.replace("_", " "), "reports": getattr(record, name)}
                for name in (
                    "rows_in", "rejected", "reports", "translated", "flagged", "reused",
                    "passed", "failed", "unchanged", "unfinished",
                )
            ]
        ),
        "",
        *_table(host_rows(record)),
        "",
        *_where_the_time_went(record),
        f"Translations: `{root}/translations/{record.dataset}/**/*.parquet`  ",
        f"Run: `{root}/runs/{record.run_id}/run.json`",
    ]  # fmt: skip
    if record.error:
        lines += ["", f"Error: {record.error}"]
    return "\n".join(lines)


def _where_the_time_went(record: RunRecord) -> list[str]:
    efficiency = efficiency_line(record)
    return (
        [f"{efficiency[0].upper()}{efficiency[1:]}.", "", *_table(time_rows(record)), ""]
        if efficiency
        else []
    )


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 2) if seconds else 0.0


def _table(rows: list[HostRow]) -> list[str]:
    if not rows:
        return []
    names = list(rows[0])
    return [
        "| " + " | ".join(names) + " |",
        "|" + " --- |" * len(names),
        *("| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows),
    ]
