# ruff: noqa: C408
# Left as its author wrote it for the predecessor.
import numpy as np
import torch
from torch.utils.data import Dataset


class ScanDataset(Dataset):
    """Frames and responses of one scan, all trials in one file; `mode` chooses what predicts what."""

    def __init__(self, file_path, mode, trial_type=None):
        scan = np.load(file_path)
        chosen = np.ones(len(scan["frames"]), dtype=bool)
        if trial_type is not None:
            chosen = scan["trial_types"] == trial_type
        self.frames = scan["frames"][chosen]
        self.responses = scan["responses"][chosen]
        self.mode = mode

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, index):
        frame = torch.tensor(self.frames[index], dtype=torch.float32)
        response = torch.tensor(self.responses[index], dtype=torch.float32)
        if self.mode == "encoding":
            return frame, response
        return response, frame

    def get_additional_model_params(self):
        return dict()
