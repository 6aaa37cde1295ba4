"""A pipeline without a database: tables in memory, with the methods and messages of the real ones."""

import copy
import hashlib
import importlib
from pathlib import Path
from types import SimpleNamespace

import torch

from synicix_core import CriterionProvider, DatasetProvider, ModelProvider, OptimizerProvider
from synicix_core.errors import ParamsError, ProviderNotFound
from synicix_core.hashing import content_md5
from synicix_core.parameters import check_params
from synicix_core.settings import Settings
from tests.factories import Distribution, EntryPoint, plugin, registry

TASK_COLUMNS = ("dataset_config_md5_hash", "model_config_md5_hash", "training_config_md5_hash")


class Data(torch.utils.data.Dataset):
    """Eight examples; supplies ``density`` to models where ``dense`` is set."""

    def __init__(self, path, tier, dense: bool = False):
        self.inputs, self.targets = torch.ones(8, 3), torch.zeros(8, 2)
        self.additional = {"density": 2.0} if dense else {}

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.inputs[index], self.targets[index]

    def get_additional_model_params(self):
        return self.additional


class Net(torch.nn.Module):
    def __init__(self, input_shape, output_shape, hidden_size: int = 8, density: float = 1.0):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(*input_shape, hidden_size), torch.nn.Linear(hidden_size, 2))

    def forward(self, x):
        return self.layers(x)


class Needy(torch.nn.Module):
    def __init__(self, input_shape, output_shape, density: float):
        super().__init__()


class Broken(Net):
    """Fails in the forward pass: in its own way, or by leaving."""

    def __init__(self, input_shape, output_shape, leave: bool = False):
        super().__init__(input_shape, output_shape)
        self.leave = leave

    def forward(self, x):
        if self.leave:
            raise SystemExit(3)
        raise RuntimeError("mat1 and mat2 do not fit")


class Loss(torch.nn.MSELoss):
    def __init__(self, weight: float = 1.0):
        super().__init__()


def optimizer(parameters, **params):
    return torch.optim.SGD(parameters, **params)


def core():
    distribution = Distribution("synicix-core", "0.1.0")
    return EntryPoint(distribution, "core", "synicix_core.builtin", importlib.import_module("synicix_core.builtin"))


def lab():
    return plugin(
        "lab-kit",
        DatasetProvider("Data", target=Data),
        *(ModelProvider(target.__name__, target=target) for target in (Net, Needy, Broken)),
        CriterionProvider("Loss", target=Loss),
        OptimizerProvider("Descent", target=optimizer),
    )


DEFAULTS = {
    "dataset": {
        "dataset_class_params": {},
        **{f"{tier}_sampler_provider": "" for tier in ("train", "validation", "test")},
        **{f"{tier}_sampler_class_params": {} for tier in ("train", "validation", "test")},
    },
    "model": {},
    "training": {
        "trainer_provider": "synicix-core/NNTrainer",
        "batch_size": 4,
        "epoch_limit": 2,
        "seed": 0,
        "optimizer_provider": "synicix-core/Adam",
        "metrics": [{"provider": "synicix-core/loss", "params": {}}],
    },
}


class FakeTable:
    def __init__(self, kind, pipeline):
        self.kind = kind
        self.pipeline = pipeline
        self.md5 = f"{kind}_config_md5_hash"
        self.stored = {}
        self.inserts = 0

    def prepare(self, tuple_dicts, labels=()):
        rows, mistakes, notes = [], [], []
        for number, given in enumerate(copy.deepcopy(list(tuple_dicts)), 1):
            row = DEFAULTS[self.kind] | given
            label = labels[number - 1] if labels else f"row {number}"
            for column in [key for key in row if key.endswith("_provider") and row[key]]:
                prefix = column.removesuffix("_provider")
                params = f"{prefix}_class_params"
                try:
                    kind = "sampler" if prefix.endswith("_sampler") else prefix
                    registered = self.pipeline.registry.resolve(kind, row[column])
                except ProviderNotFound as error:
                    mistakes.append((f"{label}.{column}", str(error)))
                    continue
                checked = check_params(
                    registered, row.get(params, {}), optional_missing=prefix == "model", path=f"{label}.{params}"
                )
                mistakes += checked.mistakes
                notes += checked.notes
                row[column], row[params] = registered.qualified, checked.values
            if row.get("batch_size", 1) < 1:
                mistakes.append((f"{label}.batch_size", f"is an integer from 1 on, not {row['batch_size']}"))
            rows.append(self.complete(row))
        if mistakes:
            raise ParamsError(f"nothing was inserted into {self.kind}", mistakes)
        return SimpleNamespace(rows=rows, notes=tuple(dict.fromkeys(notes)))

    def complete(self, row):
        content = dict(row)
        if self.kind == "dataset":
            file = self.pipeline.dataset_dir / row["dataset_file_name"]
            content["dataset_file_name"] = hashlib.sha256(file.read_bytes()).hexdigest()
            row["additional_model_params"] = {"density": 2.0} if row["dataset_class_params"].get("dense") else {}
            row |= {"input_shape": [3], "output_shape": [2]}
        return {self.md5: content_md5(content), **row}

    def existing(self, keys):
        return {key for key in keys if key in self.stored}

    def insert_prepared(self, rows):
        self.inserts += 1
        prepared = {row[self.md5]: row for row in rows}
        new = [{self.md5: key} for key in prepared if key not in self.stored]
        existing = [{self.md5: key} for key in prepared if key in self.stored]
        self.stored |= prepared
        return SimpleNamespace(new=new, existing=existing)


class FakeTasks:
    def __init__(self):
        self.stored = {}
        self.inserts = 0

    def __call__(self):
        return self

    def to_arrays(self, *columns):
        return tuple([row[column] for row in self.stored.values()] for column in columns)

    def insert_tuples(self, tuple_dicts, skip_invalid=False):
        self.inserts += 1
        rows = {tuple(row[column] for column in TASK_COLUMNS): row for row in tuple_dicts}
        new = [row for key, row in rows.items() if key not in self.stored]
        existing = [row for key, row in rows.items() if key in self.stored]
        self.stored |= rows
        return SimpleNamespace(new=new, existing=existing)


class FakePipeline:
    def __init__(self, dataset_dir: Path):
        self.dataset_dir = dataset_dir
        base = dataset_dir.parent
        self.settings = Settings(base, dataset_dir, dataset_cache_dir=base / "cache", model_save_dir=base / "models")
        self.registry = registry(core(), lab())
        self.DatasetConfig = FakeTable("dataset", self)
        self.ModelConfig = FakeTable("model", self)
        self.TrainingConfig = FakeTable("training", self)
        self.TrainingTask = FakeTasks()

    def counts(self):
        tables = (self.DatasetConfig, self.ModelConfig, self.TrainingConfig, self.TrainingTask)
        return [len(table.stored) for table in tables]
