"""The one module that is new: it names what the old files hold."""

from synicix_core import DatasetProvider, ModelProvider, TrainerProvider, hookimpl


@hookimpl
def synicix_datasets():
    """Provide the old dataset through its adapter."""
    yield DatasetProvider("ScanDataset", target="old_lab.dataset_classes.adapter:scan_dataset")


@hookimpl
def synicix_models():
    """Provide the old model."""
    yield ModelProvider("TwoLayerNet", target="old_lab.models.TwoLayerNet:TwoLayerNet")


@hookimpl
def synicix_trainers():
    """Provide the old trainer."""
    yield TrainerProvider("LabTrainer", target="old_lab.trainers.LabTrainer:LabTrainer")
