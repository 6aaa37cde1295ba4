import hashlib, os, time, uuid, resource, json, datetime, subprocess, sys
import pytest
from tests.rows import insert_tasks
from tests.saved import finish, store_dir
from synicix_core.database import execute
from synicix_core.runner.leftovers import find_leftovers
from synicix_core.runner.leftover_removal import remove_leftovers
pytestmark = pytest.mark.database
N = int(os.environ.get("N", 100000))

def b32(i):
    import base64
    return base64.b32encode(hashlib.md5(str(i).encode()).digest()).decode().rstrip("=").lower()

def test_perf(pipeline, capsys):
    tables = pipeline.tables
    (task,) = insert_tasks(pipeline)
    finish(pipeline, task)
    base_task = pipeline.TrainingTask.to_dicts()[0]
    # many training configs: raw
    tc = (pipeline.TrainingConfig).to_dicts()[0]
    md5s = [hashlib.md5(str(i).encode()).hexdigest() for i in range(N)]
    conn = pipeline.connection
    q = (lambda s: s)
    def many(table, cols, rows):
        for s in range(0, len(rows), 2000):
            part = rows[s:s+2000]
            execute(conn, f"INSERT INTO {table} ({', '.join(cols)}) VALUES " + ", ".join("(" + ", ".join(["%s"]*len(cols)) + ")" for _ in part), tuple(v for r in part for v in r))
    cols = list(tc)
    many(pipeline.TrainingConfig.full_table_name, cols, [[m if c == "training_config_md5_hash" else (i + 5 if c == "seed" else (json.dumps(tc[c]) if isinstance(tc[c], (dict, list)) else tc[c])) for c in cols] for i, m in enumerate(md5s)])
    many(pipeline.TrainingTask.full_table_name, ["training_task_md5_hash", "dataset_config_md5_hash", "model_config_md5_hash", "training_config_md5_hash"], [[m, base_task["dataset_config_md5_hash"], base_task["model_config_md5_hash"], m] for m in md5s])
    old = datetime.datetime(2024, 1, 1)
    many(pipeline.TrainingAttempt.full_table_name, ["training_task_md5_hash","attempt","worker","host","pid","process","device","state","started_at","heartbeat_at"], [[m,1,"a"*32,"h",1,"","cpu","finished",old,old] for m in md5s])
    sd = store_dir(pipeline)
    names = ["training_epoch_loss_history","validation_epoch_loss_history","regularization_loss_history","model_class_params_history"]
    def blob(i, k):
        h = b32((i, k))
        return json.dumps({"hash": h, "path": f"_hash/{pipeline.schema_name}/{h}", "schema": pipeline.schema_name, "store": "external_training_result", "size": 10})
    many(pipeline.TrainingResult.full_table_name, ["training_task_md5_hash","test_score","status","scores","epochs",*names,"model_save_path","model_sha256","by_attempt","train_seconds","code_sha256","provenance","utc_insert_time"],
        [[m,0.5,"completed","{}",2,*(blob(i,k) for k in range(4)),f"{m}.1.pt","0"*64,1,1.0,"0"*64,"{}",old] for i,m in enumerate(md5s)])
    for i, m in enumerate(md5s):
        (pipeline.settings.model_save_dir / f"{m}.1.pt").write_bytes(b"x")
        for k in range(4):
            (sd / b32((i,k))).write_bytes(b"x")
    execute(conn, "ANALYZE " + ("" if conn.adapter.backend == "postgresql" else "TABLE " + pipeline.TrainingResult.full_table_name))
    m0 = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    c0=time.process_time(); t = time.time(); f = find_leftovers(tables, pipeline.settings.model_save_dir); t1 = time.time() - t; c1=time.process_time()-c0
    assert not f.leftovers
    m1 = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # orphans: N/2 checkpoints + N/2 blobs
    for i, m in enumerate(md5s[: N//2]):
        (pipeline.settings.model_save_dir / f"{m}.1.checkpoint").write_bytes(b"x")
        (sd / b32(("o", i))).write_bytes(b"x")
    for m in md5s[:2000]:
        (pipeline.settings.model_save_dir / f"{m}.1.pt").unlink()
    pf=__import__('cProfile').Profile(); c0=time.process_time(); t = time.time(); f = find_leftovers(tables, pipeline.settings.model_save_dir); t2 = time.time() - t; c2=time.process_time()-c0
    import cProfile, pstats; pr=cProfile.Profile(); c0=time.process_time(); t = time.time(); r = remove_leftovers(tables, pipeline.settings.model_save_dir, f); t3 = time.time() - t; c3=time.process_time()-c0
    m2 = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with capsys.disabled():
        print('cpu', c1, c2, c3); pass
        print(f"\n{conn.adapter.backend} N={N}: tidy scan {t1:.1f}s, scan with {len(f.leftovers)} leftovers {t2:.1f}s, removal {t3:.1f}s; {r.files} files {r.results} rows {len(r.errors)} errors kept {r.kept}; rss {m0/1024:.0f} -> {m1/1024:.0f} -> {m2/1024:.0f} MiB; load {os.getloadavg()}")
