"""What the built-in jobs are compared with: the lessons as they are usually written down first.

Each is put into code step by step: a cell at a time, a name at a time, an image at a time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class SineCells(nn.Module):
    """Two LSTM cells, one after the other at every point; the outputs are put together at the end.

    Drawn from the same seed its weights are those of the job's network: the parameters are made in the same order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([nn.LSTMCell(1, 64), nn.LSTMCell(64, 64)])
        self.linear = nn.Linear(64, 1)

    def forward(self, curves: Tensor, future: int = 0) -> Tensor:
        state = [(torch.zeros(len(curves), 64, device=curves.device),) * 2 for _ in self.cells]
        outputs = [self.step(point, state) for point in curves.split(1, dim=1)]
        for _ in range(future):
            outputs.append(self.step(outputs[-1], state))
        return torch.cat(outputs, dim=1)

    def step(self, value: Tensor, state: list[tuple[Tensor, Tensor]]) -> Tensor:
        for layer, cell in enumerate(self.cells):
            state[layer] = cell(value, state[layer])
            value = state[layer][0]
        return self.linear(value)


class NameCell(nn.Module):
    """One letter and a hidden state in, the next hidden state and a guess of the language out."""

    def __init__(self, letters: int, languages: int, hidden: int = 128) -> None:
        super().__init__()
        self.to_hidden = nn.Linear(letters + hidden, hidden)
        self.to_language = nn.Linear(letters + hidden, languages)

    def forward(self, letter: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([letter, hidden], dim=1)
        return torch.log_softmax(self.to_language(both), dim=1), self.to_hidden(both)


def name_by_name(
    names: Mapping[str, Sequence[str]], alphabet: str, draws: int, seed: int, device: str
) -> dict[str, float]:
    """One name, one step of SGD; ``names`` are the names of every language, in letters of the alphabet."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    languages = list(names)
    model = NameCell(len(alphabet), len(languages)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005)

    def read(name: str) -> Tensor:
        hidden = torch.zeros(1, 128, device=device)
        guess = hidden
        for letter in name:
            one_hot = torch.zeros(1, len(alphabet), device=device)
            one_hot[0, alphabet.index(letter)] = 1
            guess, hidden = model(one_hot, hidden)
        return guess

    began = time.perf_counter()
    for _ in range(draws):
        language = int(random.integers(len(languages)))
        known = names[languages[language]]
        guess = read(known[random.integers(len(known))])
        loss = torch.nn.functional.nll_loss(guess, torch.tensor([language], device=device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # summed up for the curve of the loss
    seconds = time.perf_counter() - began
    with torch.no_grad():
        shares = [
            np.mean([read(name).argmax().item() == language for name in known])
            for language, known in enumerate(names.values())
        ]
    return {"seconds": seconds, "balanced_accuracy": float(np.mean(shares))}


class Images(Dataset[tuple[Tensor, int]]):
    """An image is converted when it is asked for, as torchvision does: array to picture to tensor, bytes to [0, 1]."""

    def __init__(self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = Image.fromarray(self.images[index])
        values = torch.from_numpy(np.array(picture, copy=True)).view(1, 28, 28)
        return values.contiguous().float().div(255), int(self.labels[index])


class Rows(nn.Module):
    """The rows of an image through a recurrent network, a linear layer on its last output."""

    def __init__(self, cell: str) -> None:
        super().__init__()
        kinds: dict[str, type[nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
        self.network = kinds[cell](28, 128, 2, batch_first=True)
        self.linear = nn.Linear(128, 10)

    def forward(self, rows: Tensor) -> Tensor:
        output, _ = self.network(rows)
        return self.linear(output[:, -1])


def image_by_image(
    train: tuple[Any, Any], test: tuple[Any, Any], cell: str, epochs: int, seed: int, device: str
) -> dict[str, float]:
    """``train`` and ``test`` are images of shape (N, 28, 28) and labels of shape (N,), both uint8."""
    torch.manual_seed(seed)
    model = Rows(cell).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    began = time.perf_counter()
    for _ in range(epochs):
        for images, labels in DataLoader(Images(*train), batch_size=100, shuffle=True):
            rows = images.reshape(-1, 28, 28).to(device)
            loss = nn.functional.cross_entropy(model(rows), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    right = 0
    with torch.no_grad():
        for images, labels in DataLoader(Images(*test), batch_size=100):
            guesses = model(images.reshape(-1, 28, 28).to(device)).argmax(1)
            right += int((guesses == labels.to(device)).sum())
    return {"seconds": time.perf_counter() - began, "accuracy": right / len(test[0])}
