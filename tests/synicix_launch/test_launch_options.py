"""Options of launchers: declared once, given by flags and settings, wrong in every way at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from synicix_launch.kubernetes.names import missing_tag
from synicix_launch.kubernetes.options import KubernetesOptions
from synicix_launch.options import Given, declared_options, option, read_options
from synicix_launch.slurm.options import SlurmOptions
from synicix_launch.values import at_least, duration, seconds_of


@dataclass(frozen=True)
class Options:
    queue: str = option("gpu", "The queue.")
    cores: int = option(2, "Cores.", check=at_least(1))
    share: float | None = option(None, "A share.")
    quiet: bool = option(False, "Say nothing.")
    script: Path | None = option(None, "A script.")  # noqa: RUF009 - a field
    plugins: tuple[str, ...] = option((), "Plugins.")


def read(flags: dict[str, str] | None = None, table: dict[str, Any] | None = None) -> tuple[dict[str, Any], list[str]]:
    given: dict[str, list[Given]] = {}
    for name, value in (table or {}).items():
        given.setdefault(name, []).append(Given(f"file.{name}", value, is_text=False, folder=Path("/project")))
    for name, text in (flags or {}).items():
        given.setdefault(name, []).append(Given(f"--{name}", text, is_text=True, folder=Path("/here")))
    mistakes: list[str] = []
    return read_options(declared_options(Options), given, mistakes), mistakes


def test_a_flag_wins_over_the_table_and_the_table_over_the_default():
    values, mistakes = read({"queue": "long"}, {"queue": "short", "cores": 8})
    assert not mistakes
    assert values["queue"] == "long" and values["cores"] == 8 and values["share"] is None


def test_flags_are_read_as_their_type_says():
    values, mistakes = read({"cores": "3", "share": "0.5", "plugins": "a, b,", "script": "x.sh"})
    assert not mistakes
    assert values["cores"] == 3 and values["share"] == 0.5 and values["plugins"] == ("a", "b")
    assert values["script"] == Path("/here/x.sh")


def test_paths_of_the_file_are_relative_to_the_project():
    assert read(table={"script": "x.sh"})[0]["script"] == Path("/project/x.sh")


def test_an_integer_serves_for_a_number():
    assert read(table={"share": 1}) == (read({"share": "1"})[0], [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cores", "4"),
        ("cores", True),
        ("cores", 1.0),
        ("cores", 0),
        ("queue", 1),
        ("queue", "a\nb"),
        ("quiet", "yes"),
        ("quiet", 1),
        ("share", float("nan")),
        ("share", "half"),
        ("plugins", "a,b"),
        ("plugins", ["a", 1]),
        ("script", 3),
        ("script", ""),
        ("script", "~nobody-of-that-name/x"),
    ],
)
def test_a_wrong_value_in_the_table_is_refused_with_its_place(name, value):
    values, mistakes = read(table={name: value})
    assert [line.startswith(f"file.{name}: must be ") for line in mistakes] == [True]
    assert repr(value) in mistakes[0]
    assert values[name] == getattr(Options(), name), "the default is kept, so that the other checks can go on"


def test_all_mistakes_are_told_at_once_with_what_may_be_meant():
    _, mistakes = read({"cores": "many"}, {"cores": 0, "qeue": "x", "nonsense": 1})
    assert len(mistakes) == 4
    assert any("file.qeue: there is no such option; did you mean queue?" in line for line in mistakes)
    assert any("file.nonsense" in line and "the options are queue, cores" in line for line in mistakes)
    assert "--cores: must be an integer, not 'many'" in mistakes


def test_a_field_that_no_flag_can_stand_for_is_refused():
    @dataclass
    class Wrong:
        nested: dict[str, str] | None = option(None, "No flag is like that.")  # noqa: RUF009 - a field

    @dataclass
    class Plain:
        queue: str = "gpu"

    for wrong in (Wrong, Plain, dict):
        with pytest.raises(TypeError):
            declared_options(wrong)


@pytest.mark.parametrize("options", [KubernetesOptions, SlurmOptions])
def test_every_option_of_ours_says_what_it_is(options):
    for each in declared_options(options):
        assert each.help.endswith(".") and len(each.help) < 150, each.name


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("90m", 5400), ("12h", 43200), ("2d", 172800), ("12:00:00", 43200), ("1-12:00:00", 129600)],
)
def test_times_are_read(text, seconds):
    assert duration(text) == text
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["tomorrow", "", "0h", "12", "12:00", "1-2", "-1h", "1h30m", "00:00:00", "1:99:00"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="such as 90m"):
        duration(text)


@pytest.mark.parametrize(
    ("image", "lacks"),
    [
        ("synicix", True),
        ("synicix:latest", True),
        ("host:5000/lab/synicix", True),
        ("host:5000/lab/synicix:1.2", False),
        ("synicix:0.1.0-cu130", False),
        ("synicix@sha256:" + "0" * 64, False),
        ("host:5000/synicix:latest@sha256:" + "0" * 64, False),
    ],
)
def test_an_image_says_which_one_it_is(image, lacks):
    assert missing_tag(image) is lacks


WRONG = {
    KubernetesOptions: {
        "image": ["synicix", "Synicix:1", "synicix:latest", "syn icix:1", "synicix@sha256:12"],
        "memory": ["16 gigs", "16", "0Gi", "-1Gi", "16Gb", "1.5Gi"],
        "namespace": ["My Lab", "lab_1", "-lab", "lab-", "", "x" * 64],
        "name": ["Synicix", "a.b", "x" * 41],
        "queue": ["my queue", "Q"],
        "time_limit": ["tomorrow"],
        "compute_capability": ["7", "sm_75", "7.5.1", "0.5"],
        "gpu_memory": ["24Gi", "0", "-5"],
        "gpus": ["-1", "two", "0.5"],
        "cpus": ["0", "500m"],
        "database_host": ["db example", "postgresql://db", "-db", "db:x"],
        "context": ["a b", ""],
    },
    SlurmOptions: {
        "partition": ["gpu; rm", "a b", ""],
        "account": ["$(id)"],
        "qos": ["a b"],
        "constraint": ["a\tb"],
        "memory": ["16 gigs", "16Gi", "0G", "-1G"],
        "time_limit": ["tomorrow", "90"],
        "gpus": ["-1", "two"],
        "cpus": ["0"],
        "at_once": ["0", "-3"],
        "name": ["my job", "a/b"],
    },
}


@pytest.mark.parametrize(
    ("options", "name", "text"),
    [(options, name, text) for options, names in WRONG.items() for name, texts in names.items() for text in texts],
)
def test_what_a_scheduler_would_not_take_is_refused_before(options, name, text):
    mistakes: list[str] = []
    given = {name: [Given("--it", text, is_text=True, folder=Path("/"))]}
    read_options(declared_options(options), given, mistakes)
    assert len(mistakes) == 1
    assert mistakes[0].startswith("--it: must be ")
    assert mistakes[0].endswith(f", not {text!r}")
