"""A result is stale when the source file of a provider that made it is another one here."""

from __future__ import annotations

import pytest

from synicix_core.hashing import file_sha256
from synicix_core.tables.code_digest import code_digest
from synicix_core.training import staleness
from synicix_core.training.staleness import find_stale, stale_restriction, stale_tasks, why_stale
from tests.cli.conftest import finish
from tests.rows import insert_tasks

pytestmark = pytest.mark.database


def provider(kind, name, sha256, version="0.1"):
    distribution = name.partition("/")[0]
    return {"kind": kind, "provider": name, "distribution": distribution, "version": version, "sha256": sha256}


def finish_with(pipeline, tasks, *providers):
    provenance = {"providers": list(providers)}
    finish(pipeline, dict.fromkeys(tasks, 0.5), provenance=provenance, code_sha256=code_digest(providers))
    return code_digest(providers)


@pytest.fixture
def line_sha256(pipeline):
    return file_sha256(pipeline.registry.resolve_stored("model", "toy-lab/Line").source_file())


def test_only_other_source_files_make_a_result_stale(pipeline, line_sha256, monkeypatch):
    monkeypatch.setattr(staleness, "_PAGE", 2)
    tasks = insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(7)])
    finish_with(pipeline, tasks[:2], provider("model", "toy-lab/Line", line_sha256))
    old = finish_with(pipeline, tasks[2:5], provider("model", "toy-lab/Line", "0" * 64, "0.0.9"))
    finish_with(pipeline, tasks[5:6], provider("model", "gone-lab/Net", "1" * 64))
    report = find_stale(pipeline.tables, pipeline.registry)
    assert list(report.codes) == [old]
    (reason,) = report.reasons
    assert reason.startswith("the source file of the model toy-lab/Line has changed, version 0.0.9 then and ")
    assert "model gone-lab/Net" in report.unknown and "model toy-lab/Line" not in report.unknown
    assert list(stale_tasks(pipeline.tables, report)) == sorted(tasks[2:5])
    found = pipeline.connection.query(stale_restriction(pipeline.tables, report)).fetchall()
    assert sorted(row[0] for row in found) == sorted(tasks[2:5])


def test_nothing_is_stale_without_results_or_changes(pipeline, line_sha256):
    assert find_stale(pipeline.tables, pipeline.registry).codes == {}
    tasks = insert_tasks(pipeline)
    finish_with(pipeline, tasks, provider("model", "toy-lab/Line", line_sha256))
    report = find_stale(pipeline.tables, pipeline.registry)
    assert report.codes == {} and report.reasons == ()
    assert list(stale_tasks(pipeline.tables, report)) == []


def test_one_result_is_compared_by_its_provenance(pipeline, line_sha256):
    same = {"providers": [provider("model", "toy-lab/Line", line_sha256)]}
    assert why_stale(same, pipeline.registry) == ((), ())
    other = {"providers": [provider("model", "toy-lab/Line", "0" * 64), provider("model", "gone-lab/Net", "0" * 64)]}
    (change,), unknown = why_stale(other, pipeline.registry)
    assert (change.provider, unknown) == ("toy-lab/Line", ("model gone-lab/Net",))
    assert why_stale(None, pipeline.registry) == ((), ())
