"""Written for the predecessor of Synicix; only hooks.py and dataset_classes/adapter.py are new."""
