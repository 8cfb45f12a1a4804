from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.core.settings import (
    HostAddress,
    IngestSettings,
    RunSettings,
    Settings,
    TranslateSettings,
    dataset_name_for,
    hide_credentials,
)


def translate(**given: Any) -> TranslateSettings:
    """Settings to translate with, the rest as a user would give it at least."""
    least: dict[str, Any] = {"root": "out", "dataset": "ds", "hosts": ["gpu1"], "model": "m"}
    return TranslateSettings(**{**least, **given})


def complaint(**given: Any) -> str:
    """What is said of settings that are refused."""
    with pytest.raises(ValidationError) as raised:
        translate(**given)
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "url", "slots"),
    [
        ("gpu1", "http://gpu1:11434", None),
        ("gpu1=4", "http://gpu1:11434", 4),
        (" gpu1:8000=16 ", "http://gpu1:8000", 16),
        ("GPU1.Example.org", "http://gpu1.example.org:11434", None),
        ("http://gpu1", "http://gpu1:80", None),
        ("https://gpu1", "https://gpu1:443", None),
        ("HTTPS://GPU1/", "https://gpu1:443", None),
        ("http://gpu1:11434/=2", "http://gpu1:11434", 2),
        ("https://gate/ollama/one/", "https://gate:443/ollama/one", None),
        ("gate/Ollama", "http://gate:11434/Ollama", None),
        ("10.0.0.7", "http://10.0.0.7:11434", None),
        ("[::1]", "http://[::1]:11434", None),
        ("http://[FE80::1]:8000=2", "http://[fe80::1]:8000", 2),
        ("gpu1=007", "http://gpu1:11434", 7),
    ],
)
def test_addresses(text: str, url: str, slots: int | None) -> None:
    """Every spelling of a host comes to one URL, as the ollama client would complete it."""
    assert HostAddress.parse(text) == HostAddress(url, slots)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("gpu1=0", "a whole number from 1"),
        ("gpu1=-1", "a whole number from 1"),
        ("gpu1=4.5", "a whole number from 1"),
        ("gpu1=four", "a whole number from 1"),
        ("gpu1=", "a whole number from 1"),
        ("gpu1=²", "a whole number from 1"),
        ("gpu1=٤", "a whole number from 1"),
        ("gpu1:port", "the port is not a number"),
        ("gpu1:70000", "the port is not a number"),
        ("http://gpu1:0", "the port is not a number"),
        ("", "is not the address of"),
        ("=4", "is not the address of"),
        ("http://", "is not the address of"),
        ("ftp://gpu1", "is not the address of"),
        ("file:///etc/passwd", "is not the address of"),
        ("http://gpu1?model=4", "is not the address of"),
        ("http://gpu1#top", "is not the address of"),
        ("http://[::1", "is not the address of"),
        ("http://[gpu1]", "is not the address of"),
        ("gpu\u2100", "is not the address of"),
        ("gpu 1", "holds a space"),
        ("http://gpu1,http://gpu2", "more than one address"),
        ("gpu1;gpu2", "more than one address"),
        ("http://gpu1\n:80", "holds a space"),
    ],
)
def test_what_is_no_address(text: str, reason: str) -> None:
    """What is no address is refused with what is wrong and the form that is wanted."""
    with pytest.raises(ValueError, match=reason) as raised:
        HostAddress.parse(text)
    assert "URL or URL=SLOTS, for example http://gpu1:11434=4" in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "http://me:secret@gpu1",
        "http://me:secret@gpu1=4",
        "http://me:secret@gpu1=x",
        "http://me:sec@secret@gpu1:99999",
        "me:secret@gpu1",
        "me:secret@gpu1:port=4",
        "http://secret@gpu1",
        "http://me:s=secret@gpu1",
        "http://me:secret\u2100@gpu1",
        "http://me:secret@[::1",
        "ftp://me:secret@gpu1",
        "http://gpu1/secret@x",
    ],
)
def test_credentials_are_refused_and_never_shown(text: str) -> None:
    """A password in a URL is refused without being repeated, also where pydantic tells of it."""
    with pytest.raises(ValueError, match=r"\*\*\*@") as raised:
        HostAddress.parse(text)
    assert "secret" not in str(raised.value)
    assert "secret" not in complaint(hosts=[text])


@given(st.text(max_size=30), st.sampled_from(["", "http://", "HTTPS://"]))
@example("two\nlines", "")
@example("a://b", "http://")
def test_hidden_credentials_stay_hidden(password: str, scheme: str) -> None:
    """Whatever a password is made of, nothing of it is left before the last `@`."""
    assert hide_credentials(f"{scheme}me:{password}@gpu1") == f"{scheme}***@gpu1"


@given(st.text(max_size=40))
def test_parsing_ends_in_an_address_or_a_reason(text: str) -> None:
    """Any text is an address that reads back as itself, or a ValueError that names the form."""
    try:
        read = HostAddress.parse(text).url
    except ValueError as error:
        read = str(error)
    if "give URL or URL=SLOTS" not in read:
        assert HostAddress.parse(read) == HostAddress(read)


def test_defaults() -> None:
    """What a user need not say."""
    settings = translate()
    assert (settings.source_lang, settings.target_lang) == ("fr", "en")
    assert (settings.policy, settings.num_ctx, settings.limit) == ("pull", 4096, None)
    assert (settings.fleet_timeout_seconds, settings.load_timeout_seconds) == (300, 600)
    assert settings.profile is None
    assert (settings.limits, settings.hedge, settings.other_weights) == ("auto", True, False)
    assert settings.hosts_file is None
    assert settings.addresses == (HostAddress("http://gpu1:11434"),)


def test_hosts_are_told_apart_by_their_url() -> None:
    """One host in two spellings is refused: its slots would be counted twice."""
    assert "http://gpu1:11434 is given twice" in complaint(hosts=["gpu1=2", "http://GPU1:11434/"])
    assert len(translate(hosts=["gpu1:1", "gpu1:2"]).addresses) == 2


def test_some_host_is_given() -> None:
    """Hosts come from --host, from a file, or from both; without either there is no run."""
    from_file = translate(hosts=[], hosts_file="hosts.txt")
    assert (from_file.hosts_file, from_file.addresses) == ("hosts.txt", ())
    assert translate(hosts_file="hosts.txt").addresses == (HostAddress("http://gpu1:11434"),)
    for hosts, hosts_file in (([], None), (None, None), ([], "")):
        said = complaint(hosts=hosts, hosts_file=hosts_file)
        assert "no host is given" in said
        assert "--host as URL or URL=SLOTS" in said
        assert "--hosts-file" in said


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("root", ""),
        ("dataset", ""),
        ("dataset", "a/b"),
        ("dataset", "../up"),
        ("dataset", ".hidden"),
        ("dataset", "ds\n"),
        ("dataset", "x" * 101),
        ("hosts", []),
        ("model", ""),
        ("source_lang", "French"),
        ("target_lang", "EN"),
        ("target_lang", "en\n"),
        ("limit", 0),
        ("policy", "fastest"),
        ("limits", "remote"),
        ("hedge", "sometimes"),
        ("other_weights", "some"),
        ("hosts_file", 7),
        ("fleet_timeout_seconds", -1),
        ("load_timeout_seconds", 0),
        ("num_ctx", 255),
        ("hostz", ["gpu1"]),
    ],
)
def test_settings_that_are_refused(field: str, value: object) -> None:
    """A value that cannot work is refused when it is given, by the name of its field."""
    assert field in complaint(**{field: value})


@pytest.mark.parametrize("language", ["fr", "pt-BR", "zh-Hans", "gsw"])
def test_languages(language: str) -> None:
    """Languages are codes, with a region or script where there is one."""
    assert translate(source_lang=language).source_lang == language


def test_languages_differ() -> None:
    """Nothing is translated into its own language."""
    assert "--to fr" in complaint(target_lang="fr")


def test_settings_do_not_change() -> None:
    """Settings are values: nobody changes them in the middle of a run."""
    with pytest.raises(ValidationError, match="frozen"):
        translate().model = "other"  # type: ignore[misc]


def test_an_empty_field_of_a_form_is_not_given() -> None:
    """A form sends empty texts for fields that were left alone; they get their defaults."""
    settings = translate(profile="", limit="", source_lang="", num_ctx=None)
    assert (settings.profile, settings.limit, settings.source_lang) == (None, None, "fr")
    assert settings.num_ctx == 4096


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("reports.csv", "reports"),
        ("/data/in/Notes 2024.csv", "Notes-2024"),
        ("data/in", "in"),
        ("data/in/", "in"),
        ("data/2024/*.csv", "2024"),
        ("data/**/*.csv", "data"),
        ("*.csv", "reports"),
        ("**/*", "reports"),
        ("data/part-[0-9].csv", "data"),
        ("notes.tar.gz", "notes.tar"),
        ("s3://bucket/notes.parquet", "notes"),
        ("..", "reports"),
        ("/", "reports"),
        ("", "reports"),
        ("données.csv", "donn-es"),
        ("_private.csv", "private"),
    ],
)
def test_the_name_of_a_dataset_without_one(source: str, name: str) -> None:
    """A dataset is named after its first source: the file, or the folder that a glob is in."""
    assert dataset_name_for(source) == name


@given(st.text(max_size=150))
def test_every_name_made_is_a_name(source: str) -> None:
    """A name made from any source is one that would be accepted if it were given."""
    assert Settings(root="out", dataset=dataset_name_for(source)).root == "out"


def test_a_run_takes_its_name_from_its_first_source() -> None:
    """Without a name a run's dataset is that of the first source; a given one is kept."""
    given: dict[str, Any] = {"root": "out", "sources": ["a/x.csv", "b/y.csv"]}
    given |= {"hosts": ["gpu1"], "model": "m"}
    assert RunSettings(**given).dataset == "x"
    assert RunSettings(**given, dataset="").dataset == "x"
    assert RunSettings(**given, dataset="mine").dataset == "mine"
    with pytest.raises(ValidationError, match="dataset"):
        RunSettings(**given, dataset="not a name")


@pytest.mark.parametrize("sources", [[], "x.csv", [7], None])
def test_a_run_without_sources(sources: object) -> None:
    """Sources that are none are refused as such."""
    with pytest.raises(ValidationError, match="sources"):
        RunSettings.model_validate(
            {"root": "out", "sources": sources, "hosts": ["gpu1"], "model": "m"}
        )
    with pytest.raises(ValidationError):
        RunSettings.model_validate("no settings at all")


def test_an_ingest_needs_a_name() -> None:
    """An ingest of its own has to be told the dataset."""
    with pytest.raises(ValidationError, match="dataset"):
        IngestSettings.model_validate({"root": "out", "sources": ["x.csv"]})


@pytest.mark.parametrize("model", [IngestSettings, TranslateSettings, RunSettings])
def test_the_run_form(model: type[Settings]) -> None:
    """Every field of the run form has a place of its own, a help text and a plain type."""
    properties = model.model_json_schema()["properties"]
    places = [field["position"] for field in properties.values()]
    assert len(set(places)) == len(places)
    assert all(field["description"].endswith(".") for field in properties.values())
    assert not any("anyOf" in field for field in properties.values())
    assert not any(field.get("default", 0) is None for field in properties.values())
