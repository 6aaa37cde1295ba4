from old_lab.dataset_classes.ScanDataset import ScanDataset


def scan_dataset(path, tier, mode="encoding"):
    """Call the old dataset in the new way."""
    return ScanDataset(path, mode, trial_type=tier)
