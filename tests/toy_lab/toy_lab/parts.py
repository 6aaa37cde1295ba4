"""The toy lab's dataset, models and trainer."""

import errno
import faulthandler
import os
import signal
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from synicix_core.errors import DatasetError
from synicix_core.training.contract import TrainingDiverged


class Points(Dataset):
    """``y = slope * x`` with a little noise; the file holds the slope."""

    def __init__(self, path, tier, n: int = 16, chunk: int = 1, offer: str = "", empty: str = ""):
        self.offer = offer
        slope = float(Path(path).read_text())
        generator = torch.Generator().manual_seed(["train", "validation", "test"].index(tier))
        size = 0 if tier == empty else n
        self.x = torch.randn(size, 3, generator=generator)
        self.y = slope * self.x.sum(1, keepdim=True) + 0.01 * torch.randn(size, 1, generator=generator)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]

    def get_additional_model_params(self):
        return {self.offer: 1} if self.offer else {}


class Line(nn.Module):
    """A linear model with an L2 penalty."""

    def __init__(self, input_shape, output_shape, penalty: float = 0.0, bias: bool = True):
        super().__init__()
        self.linear = nn.Linear(input_shape[0], output_shape[0], bias=bias)
        self.penalty = penalty

    def forward(self, x):
        return self.linear(x), self.penalty * self.linear.weight.square().sum()


class NeedsMore(Line):
    """Needs `width`."""

    def __init__(self, input_shape, output_shape, width: int):
        super().__init__(input_shape, output_shape)


class Slow(Line):
    """Takes `seconds` for each batch."""

    def __init__(self, input_shape, output_shape, seconds: float = 0.01):
        super().__init__(input_shape, output_shape)
        self.seconds = seconds

    def forward(self, x):
        time.sleep(self.seconds)
        return super().forward(x)


class Tight(Line):
    """Runs out of memory with more than `fits` examples at a time."""

    def __init__(self, input_shape, output_shape, fits: int = 1):
        super().__init__(input_shape, output_shape)
        self.fits = fits

    def forward(self, x):
        if len(x) > self.fits:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {len(x)} GiB.")
        return super().forward(x)


class Misbehaving:
    """A trainer without a context, in the old shape, that goes wrong in the way `how` names."""

    def __init__(
        self, train_dataloader, validation_dataloader, test_dataloader, device, model_class, model_class_params,
        optimizer_class, optimizer_class_params, criterion_class, criterion_class_params, model_save_path, max_epoch,
        how: str = "well", seconds: float = 0.0,
    ):  # fmt: skip
        self.model = model_class(**model_class_params)
        self.path = model_save_path
        self.max_epoch = max_epoch
        self.how = how
        self.seconds = seconds
        self.loader = test_dataloader
        self.criterion = criterion_class(**criterion_class_params)

    def train(self):
        if self.how == "raise":
            raise ValueError("the toy trainer failed \0 as asked")
        if self.how == "exit":
            raise SystemExit(3)
        if self.how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "crash":
            faulthandler._sigsegv()
        if self.how == "memory":
            raise MemoryError
        if self.how == "disk":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.how == "diverge":
            raise TrainingDiverged("training diverged", where="epoch 1", why="as asked")
        if self.how == "data":
            raise DatasetError("the file is not what it was", file="line.txt")
        if self.how == "sleep":
            time.sleep(self.seconds)
        if self.how == "unsaved":
            return
        torch.save(self.model.state_dict(), self.path)

    def validate(self):
        return self.evaluate()

    def evaluate(self, return_outputs_targets_and_loss=False):
        with torch.no_grad():
            pairs = [(self.model(x)[0], y) for x, y in self.loader]
        outputs, targets = (torch.cat(part) for part in zip(*pairs, strict=True))
        loss = float(self.criterion(outputs, targets))
        return {"outputs": outputs, "targets": targets, "loss": loss} if return_outputs_targets_and_loss else loss

    def load_best_performing_model(self):
        if self.how != "unsaved":
            self.model.load_state_dict(torch.load(self.path, weights_only=True))
