# ruff: noqa: RUF005, UP008
# Left as its author wrote it for the predecessor.
import numpy as np
import torch
from torch import nn


class TwoLayerNet(nn.Module):
    def __init__(self, input_shape, output_shape, hidden_size, l1_loss_lamda=0.0):
        super(TwoLayerNet, self).__init__()
        self.output_shape = output_shape
        self.l1_loss_lamda = l1_loss_lamda
        self.hidden = nn.Linear(int(np.prod(input_shape)), hidden_size)
        self.readout = nn.Linear(hidden_size, int(np.prod(output_shape)))

    def forward(self, x):
        x = torch.relu(self.hidden(x.view(x.shape[0], -1)))
        output = self.readout(x).view((-1,) + self.output_shape)

        regularization_loss = 0
        for parameter in self.parameters():
            regularization_loss += self.l1_loss_lamda * torch.sum(torch.abs(parameter))

        return output, regularization_loss
