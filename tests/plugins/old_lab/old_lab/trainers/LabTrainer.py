# ruff: noqa: B007, C408, PLW2901
# Left as its author wrote it for the predecessor.
import copy

import numpy as np
import torch


class LabTrainer:
    def __init__(
        self,
        train_dataloader,
        validation_dataloader,
        test_dataloader,
        device,
        model_class,
        model_class_params,
        optimizer_class,
        optimizer_class_params,
        criterion_class,
        criterion_class_params,
        model_save_path,
        max_epoch,
        patience=5,
    ):
        self.train_dataloader = train_dataloader
        self.validation_dataloader = validation_dataloader
        self.test_dataloader = test_dataloader
        self.device = device

        self.model = model_class(**model_class_params).to(device)
        self.optimizer = optimizer_class(self.model.parameters(), **optimizer_class_params)
        self.criterion = criterion_class(**criterion_class_params)

        self.model_save_path = model_save_path
        self.max_epoch = max_epoch
        self.patience = patience

        self.training_epoch_loss_history = []
        self.validation_epoch_loss_history = []
        self.regularization_loss_history = []
        self.model_class_params_history = []

    def train(self):
        best_loss = np.inf
        epochs_without_progress = 0

        for epoch in range(self.max_epoch):
            losses, regularization_losses = [], []
            self.model.train()
            for inputs, targets in self.train_dataloader:
                inputs, targets = inputs.to(self.device), targets.to(self.device)
                self.optimizer.zero_grad()
                outputs, regularization_loss = self.model(inputs)
                loss = self.criterion(outputs, targets)
                (loss + regularization_loss).backward()
                self.optimizer.step()
                losses.append(loss.item())
                regularization_losses.append(regularization_loss.item())

            self.training_epoch_loss_history.append(np.mean(losses))
            self.regularization_loss_history.append(np.mean(regularization_losses))
            self.validation_epoch_loss_history.append(self.validate())
            self.model_class_params_history.append(
                {name: parameter.detach().cpu().numpy().copy() for name, parameter in self.model.named_parameters()}
            )

            if self.validation_epoch_loss_history[-1] < best_loss:
                best_loss = self.validation_epoch_loss_history[-1]
                epochs_without_progress = 0
                torch.save(copy.deepcopy(self.model.state_dict()), self.model_save_path)
            else:
                epochs_without_progress += 1
                if epochs_without_progress == self.patience:
                    break

    def validate(self):
        self.model.eval()
        losses = []
        with torch.no_grad():
            for inputs, targets in self.validation_dataloader:
                outputs, _ = self.model(inputs.to(self.device))
                losses.append(self.criterion(outputs, targets.to(self.device)).item())
        return np.mean(losses)

    def evaluate(self, return_outputs_targets_and_loss=False):
        self.model.eval()
        all_outputs, all_targets = [], []
        with torch.no_grad():
            for inputs, targets in self.test_dataloader:
                outputs, _ = self.model(inputs.to(self.device))
                all_outputs.append(outputs.cpu())
                all_targets.append(targets)
        outputs, targets = torch.cat(all_outputs), torch.cat(all_targets)
        loss = self.criterion(outputs, targets).item()
        if return_outputs_targets_and_loss:
            return dict(outputs=outputs, targets=targets, loss=loss)
        return loss

    def load_best_performing_model(self):
        self.model.load_state_dict(torch.load(self.model_save_path))
