"""docs/moving.md lists every name of the old pipeline beside one that exists."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from synicix_core.errors import ParamsError
from synicix_core.parameters import SUPPLIED, describe
from synicix_core.registry import Registry, get_registry
from synicix_core.settings import Settings
from synicix_core.tables.config_table import Services
from synicix_core.tables.dataset_config import DatasetConfig
from synicix_core.tables.model_config import ModelConfig
from synicix_core.tables.training_config import TrainingConfig
from synicix_core.tables.training_result import TrainingResult
from synicix_core.tables.training_task import TrainingTask
from synicix_core.training.contract import Trainer
from tests import factories
from tests.third_party.fresh_environment import CORE, PLUGINS

PAGE = (CORE / "docs" / "moving.md").read_text()
TABLES: dict[str, Any] = {
    table.__name__: table for table in (DatasetConfig, ModelConfig, TrainingConfig, TrainingTask, TrainingResult)
}

# What the old pipeline's own page names. It is not in this repository, so the list is.
OLD_NAMES = {
    "Tables": "DatasetConfig ModelConfig TrainingConfig TrainingTask TrainingResult",
    "Columns": """
        dataset_config_md5_hash dataset_file_name dataset_type
        dataset_class_module_name dataset_class_name dataset_class_params
        train_sampler_module_name train_sampler_class_name train_sampler_class_params
        validation_sampler_module_name validation_sampler_class_name validation_sampler_class_params
        test_sampler_module_name test_sampler_class_name test_sampler_class_params
        input_shape output_shape additional_model_params
        model_config_md5_hash model_class_module_name model_class_name model_class_params
        training_config_md5_hash trainer_class_module_name trainer_class_name trainer_class_params
        batch_size epoch_limit
        optimizer_class_module_name optimizer_class_name optimizer_class_params
        criterion_class_module_name criterion_class_name criterion_class_params
        training_task_md5_hash
        test_score training_epoch_loss_history validation_epoch_loss_history regularization_loss_history
        model_class_params_history model_save_path utc_insert_time
    """,
    "Methods and arguments of tables": """
        insert_tuples insert_tuple fetch populate reserve_jobs order
        dataset_dir dataset_cache_dir model_save_dir num_workers
    """,
    "What your classes must have": """
        __len___ __getitem__ get_additional_model_params __init__ forward
        train_dataloader validation_dataloader test_dataloader device
        model_class model_class_params optimizer_class optimizer_class_params criterion_class criterion_class_params
        model_save_path max_epoch
        train validate evaluate return_outputs_targets_and_loss load_best_performing_model
    """,
    "Classes that came with it": """
        NeuroDataDataset mode SimpleMLP num_hidden_layers hidden_size l1_loss_lamda l2_loss_lamda NNTrainer
    """,
    "Modules and programs": """
        SynicixMLPipeline synicix_ml_pipeline synicix_ml_pipeline.dataset_classes.NeuroDataDataset
        synicix_ml_pipeline.models.SimpleMLP synicix_ml_pipeline/trainers/NNTrainer.py
        synicix_ml_pipeline.datajoint_tables.TrainingResult training_script.py Pipeline%20Configuration.ipynb
    """,
    "Settings": """
        dj.config['stores'] external_training_result external_training_results
        dataset_dir dataset_cache_dir model_save_dir num_workers DJ_HOST DJ_USER DJ_PASS
    """,
    "Kubernetes": """
        parallelism restartPolicy hostNetwork tolerations nodeAffinity gpu_mem_size tensor_cores nvidia.com/gpu
        volumeMounts synicix/pytorch-fp16-base datajoint-credentials github-credentials GITHUB_USERNAME GITHUB_PASSWORD
    """,
}


def rows(heading: str) -> list[tuple[str, str]]:
    """Return (old, new) of the table below a heading."""
    text = PAGE.split(f"\n### {heading}\n", 1)[1].split("\n### ", 1)[0]
    found = re.findall(r"^\| (.+?) \| (.+?) \|.*\|$", text, re.MULTILINE)
    return [(old.strip("`"), new) for old, new in found if old != "old" and not old.startswith("---")]


def cases(heading: str) -> pytest.MarkDecorator:
    """Parametrise a test by the rows of one table."""
    return pytest.mark.parametrize(("old", "new"), rows(heading), ids=[old for old, _ in rows(heading)])


@pytest.mark.parametrize("heading", OLD_NAMES)
def test_every_old_name_has_its_row(heading: str) -> None:
    assert [old for old, _ in rows(heading)] == OLD_NAMES[heading].split()


def test_every_table_of_the_page_is_checked() -> None:
    assert re.findall(r"^### (.+)$", PAGE, re.MULTILINE) == list(OLD_NAMES)


@cases("Tables")
def test_tables(old: str, new: str) -> None:
    assert TABLES[new.strip("`")].__name__ == old


@cases("Columns")
def test_columns(old: str, new: str) -> None:
    table, column = new.strip("`").split(".")
    declared = re.findall(r"^\s*(\w+)\s*(?:=\s*\w+)?\s*:", TABLES[table].definition, re.MULTILINE)
    assert column in declared
    if "module_name" in old or old.endswith("_class_name"):
        assert column == re.sub(r"(_class)?_(module|class)_name$", "_provider", old)
    else:
        assert column == old


@cases("Methods and arguments of tables")
def test_methods_and_arguments(old: str, new: str) -> None:
    path, argument = _called(new.strip("`"))
    name, _, method = path.partition(".")
    if method == "fetch":
        import datajoint

        function: Any = datajoint.Manual.fetch
    else:
        function = getattr(TABLES[name], method) if method else TABLES[name].__init__
    assert callable(function)
    assert (argument or method) == old
    if argument:
        assert argument in inspect.signature(function).parameters


@cases("What your classes must have")
def test_what_classes_must_have(old: str, new: str) -> None:
    kind, _, rest = new.partition(": ")
    named = [name.strip("`") for name in rest.split(", ")]
    path, argument = _called(named[0])
    if kind == "trainer" and hasattr(Trainer, path):
        assert (argument or path) == old
        assert not argument or argument in inspect.signature(getattr(Trainer, path)).parameters
    elif kind == "trainer":
        assert named == [old]
        assert old in SUPPLIED["trainer"]
    elif old == "__init__":
        assert tuple(named) == SUPPLIED["model"]
    elif kind == "dataset":
        assert path == old.replace("___", "__") or path == old
        assert path in _source("training/build.py") + _source("training/inspect_dataset.py") + _source(
            "training/batches.py"
        )
    else:
        assert (kind, path) == ("model", "forward")


@cases("Classes that came with it")
def test_classes_that_came_with_it(old: str, new: str) -> None:
    match = re.fullmatch(r"(\w+) `([\w-]+/\w+)(?:\((\w+)=…\))?`", new)
    assert match is not None
    kind, qualified, argument = match.groups()
    registered = get_registry().resolve(kind, qualified)
    assert old == (argument or registered.name)
    if argument:
        assert describe(registered).get(argument) is not None


def test_the_old_mode_is_spelt_as_before() -> None:
    registered = get_registry().resolve("dataset", "synicix-neurodata/NeuroDataDataset")
    mode = describe(registered).get("mode")
    assert mode is not None
    assert "'full-encoding'" in mode.type_text


@cases("Modules and programs")
def test_modules_and_programs(old: str, new: str) -> None:
    name = new.strip("`")
    if name.startswith("synicix-run "):
        from synicix_core.cli.main import cli

        assert name.split()[1] in cli.list_commands(click.Context(cli))
        return
    if name.endswith(".ipynb"):
        assert (Path(__file__).parents[1] / name).is_file()
        return
    module = importlib.import_module(name)
    attribute = {"TrainingResult": "Pipeline", "py": "NNTrainer"}.get(old.rpartition(".")[2], old.rpartition(".")[2])
    assert "." not in old or hasattr(module, attribute)


@cases("Settings")
def test_settings(old: str, new: str) -> None:
    kind, _, name = new.rpartition(" ")
    name = name.strip("`")
    checks: dict[str, Callable[[], bool]] = {
        "": _stores_can_be_set,
        "store": lambda: f"<blob@{name}>" in TrainingResult.definition,
        "setting": lambda: name in {item.name for item in fields(Settings)},
        "variable": lambda: _datajoint_reads(name),
    }
    assert checks[kind]()
    assert name in (old, old.removesuffix("s"))


@cases("Kubernetes")
def test_kubernetes_is_said_to_come_later(old: str, new: str) -> None:
    assert new == ("not needed" if old.lower().startswith("github") else "not there yet")


def test_a_row_in_the_old_form_is_answered_with_the_new_form() -> None:
    old, answer = re.findall(r"```(?:python|text)\n(dict\(.*?|nothing was.*?)```", PAGE, re.DOTALL)
    table = ModelConfig()
    table.services = Services(None, Registry([]), None)  # type: ignore[arg-type]
    with pytest.raises(ParamsError) as refused:
        table.prepare([eval(old, {"dict": dict})])
    assert str(refused.value).strip() == answer.strip()


@pytest.mark.parametrize(("table", "prefixes"), [(DatasetConfig, 4), (ModelConfig, 1), (TrainingConfig, 3)])
def test_every_pair_of_old_columns_becomes_one_provider(table: Any, prefixes: int) -> None:
    pairs = {old: new for old, new in rows("Columns") if old.endswith("_class_name") and table.__name__ in new}
    assert len(pairs) == prefixes
    row = {old: f"Some{number}" for number, old in enumerate(pairs)}
    row |= {old.replace("_class_name", "_class_module_name"): "a.module" for old in pairs if "sampler" not in old}
    row |= {old.replace("_class_name", "_module_name"): "" for old in pairs if "sampler" in old}
    made = table()
    made.services = Services(None, Registry([]), None)  # type: ignore[arg-type]
    with pytest.raises(ParamsError) as refused:
        made.prepare([row])
    new = {pairs[old].strip("`").split(".")[1]: row[old] for old in pairs}
    assert repr(new) in str(refused.value)


@pytest.mark.parametrize("name", ["old_lab/hooks.py", "old_lab/dataset_classes/adapter.py"])
def test_files_on_the_page_are_those_that_the_third_party_tests_install(name: str) -> None:
    [text] = re.findall(rf"^\*\*`{re.escape(name)}`\*\*\n\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert text == (PLUGINS / "old_lab" / name).read_text()


def test_the_adapter_is_ten_lines_and_makes_a_dataset_of_the_old_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synicix_core.providers import DatasetProvider
    from synicix_core.training.inspect_dataset import inspect_dataset

    monkeypatch.syspath_prepend(PLUGINS / "old_lab")
    file = tmp_path / "scan.npz"
    tiers = np.array(["train"] * 5 + ["validation"] * 3 + ["test"] * 2)
    np.savez(file, frames=np.zeros((10, 2, 3)), responses=np.zeros((10, 4)), trial_types=tiers)
    module = importlib.import_module("old_lab.dataset_classes.adapter")
    assert len(inspect.getsource(module).splitlines()) <= 10
    registered = factories.registered(DatasetProvider("ScanDataset", target=module.scan_dataset))
    facts = inspect_dataset(registered, file, {"mode": "encoding"})
    assert (facts.input_shape, facts.output_shape, facts.additional_model_params) == ([2, 3], [4], {})
    assert facts.tier_sizes == {"train": 5, "validation": 3, "test": 2}


def test_the_subset_keeps_the_additional_model_params() -> None:
    [text] = re.findall(r"```python\n(from torch.utils.data import Subset.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(text, names)

    class Old(list[int]):
        def get_additional_model_params(self) -> dict[str, int]:
            return {"cells": 3}

    part = names["tier_of"](Old([10, 20, 30]), [2, 0])
    assert ([part[0], part[1]], len(part), part.get_additional_model_params()) == ([30, 10], 2, {"cells": 3})


def _called(text: str) -> tuple[str, str]:
    """Split ``Table.method(argument=…)`` into what is called and the argument, '' without one."""
    match = re.fullmatch(r"([\w.]+)(?:\((\w+)=…\))?", text)
    assert match is not None, text
    return match[1], match[2] or ""


def _source(name: str) -> str:
    return (CORE / "synicix_core" / name).read_text()


def _stores_can_be_set() -> bool:
    import datajoint

    return isinstance(datajoint.config["stores"], dict)


def _datajoint_reads(variable: str) -> bool:
    from datajoint.settings import ENV_VAR_MAPPING

    return variable in ENV_VAR_MAPPING.values()
