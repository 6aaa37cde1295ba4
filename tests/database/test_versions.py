from __future__ import annotations

import pytest

from synicix_core.database.versions import check_version
from synicix_core.errors import ConfigurationError


@pytest.mark.parametrize(
    ("backend", "text"),
    [
        ("mysql", "8.0.13 MySQL Community Server - GPL"),
        ("mysql", "8.4.6 (Debian)"),
        ("mysql", "10.0.1 MySQL Community Server - GPL"),
        ("postgresql", "PostgreSQL 15.0 on x86_64-pc-linux-gnu, compiled by gcc"),
        ("postgresql", "PostgreSQL 19beta1 on aarch64-apple-darwin"),
    ],
)
def test_what_works_is_accepted(backend: str, text: str) -> None:
    check_version(backend, text)


@pytest.mark.parametrize(
    ("backend", "text", "minimum"),
    [
        ("mysql", "8.0.12 MySQL Community Server - GPL", "MySQL 8.0.13"),
        ("mysql", "5.7.44-log", "MySQL 8.0.13"),
        ("postgresql", "PostgreSQL 14.19 (Ubuntu 14.19-1) on x86_64", "PostgreSQL 15"),
        ("postgresql", "EnterpriseDB", "PostgreSQL 15"),
    ],
)
def test_what_is_too_old_is_refused_with_the_version_found(backend: str, text: str, minimum: str) -> None:
    with pytest.raises(ConfigurationError, match="too old") as caught:
        check_version(backend, text)
    assert text in str(caught.value)
    assert f"{minimum} is the oldest that works" in str(caught.value)


@pytest.mark.parametrize("text", ["11.4.2-MariaDB-ubu2404", "5.5.5-10.11.19-MariaDB", "8.0.36 mariadb.org binary"])
def test_mariadb_is_refused_with_the_reason_and_the_ways_on(text: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"<blob@store>.*MySQL 8\.0\.13 or newer or PostgreSQL 15.*inside the project"
    ):
        check_version("mysql", text)
