# /// script
# requires-python = ">=3.11"
# dependencies = ["torch", "numpy", "matplotlib", "tqdm"]
#
# [tool.gpujobs]
# threads = 1
# gpu_mem = "1GiB"
# expect = "20s"
# ///
"""Say how steep a line is, after reading it in pieces.

Forty lines y = g x through the origin, each with a slope g between -1 and 1. The network never sees a line as a whole:
a window of ten points slides along it in steps of five, so that each piece shares half of its points with the next,
and two LSTM layers read the nineteen pieces in order. What they hold after the last one becomes a single number, the
slope. This is regression from a sequence: one answer for all of it, where a forecast has one for every point.

    python jobs/slope_lstm.py --out slopes        100 epochs, a few seconds on one CPU core
    python jobs/slope_lstm.py --epochs 10         stopped early: see in the figure what is still wrong

Thirty lines are for training. The other ten are only ever looked at: as long as their loss falls along with that of
the training lines, the network is finding the rule and not learning thirty answers by heart. Notice what it finds
hard. After ten epochs the predicted slopes lie on an S and not on the diagonal, because the layers squash what is
large; the other ninety straighten it. In the end the loss is about 3e-5, so a slope is wrong by half a hundredth.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

try:
    import numpy as np
    import torch
    from matplotlib.figure import Figure
    from torch import Tensor, nn
    from torch.nn.functional import mse_loss
    from tqdm import tqdm

    from gpujobs import job
except ModuleNotFoundError as missing:
    sys.exit(f'slope_lstm needs {missing.name}; install it with: pip install "gpujobs[jobs]"')
except KeyboardInterrupt:  # torch takes seconds to load
    sys.exit(130)

POINTS = 100  # of a line, at x = 0, 0.01 ... 0.99
WINDOW, STRIDE = 10, 5  # points in a piece, and from its start to that of the next: an overlap of five
TRAINING, VALIDATION = 30, 10  # lines
HIDDEN = 32  # per layer: far more than a slope needs, so that 100 epochs are enough to find it
BATCH = 8  # three full batches and one of six make an epoch
LEARNING_RATE = 1e-3  # of Adam, its default
WEIGHT_DECAY = 1e-5  # pulls weights gently to zero: of two networks that fit, the plainer one
INTERVAL = 10  # epochs from record to record; the figure has them all


def make_lines(seed: int) -> tuple[Tensor, Tensor]:
    """All lines, cut into windows (line, window, point), and their slopes (line, 1)."""
    random = np.random.default_rng(seed)  # not torch's, or the first weights would be the slopes once more
    slopes = torch.from_numpy(random.uniform(-1, 1, (TRAINING + VALIDATION, 1))).float()
    lines = slopes * (torch.arange(POINTS) / POINTS)
    return lines.unfold(dimension=1, size=WINDOW, step=STRIDE), slopes


class Slope(nn.Module):
    """Says after all windows of a line how steep it was."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WINDOW, HIDDEN, num_layers=2, batch_first=True)
        self.linear = nn.Linear(HIDDEN, 1)

    def forward(self, windows: Tensor) -> Tensor:
        hidden, _ = self.lstm(windows)  # without states of its own it starts from zero: a line knows of no other
        last: Tensor = self.linear(hidden[:, -1])  # only what is held after the last window has seen them all
        return last


def draw(losses: dict[str, list[float]], true: Tensor, predicted: Tensor, path: Path) -> None:
    """What was learned, and how: slopes on the left, both losses on the right."""
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    slopes, curves = figure.subplots(1, 2)
    slopes.axline((0, 0), slope=1, color="grey", linewidth=1, label="as it should be")
    for name, part, marker in (("training", slice(TRAINING), "o"), ("validation", slice(TRAINING, None), "D")):
        slopes.plot(true[part].cpu(), predicted[part].cpu(), marker, markersize=5, label=f"{name} lines")
        curves.plot(range(1, len(losses[name]) + 1), losses[name], ".-", markersize=4, label=f"{name} lines")
    slopes.set(title="Slopes of the lines", xlabel="true slope", ylabel="predicted slope", xlim=(-1.1, 1.1))
    slopes.set(ylim=(-1.1, 1.1), aspect="equal")
    curves.set(title="Mean squared error", xlabel="epoch", ylabel="loss", yscale="log")
    curves.xaxis.get_major_locator().set_params(integer=True)  # there is no epoch 2.5
    for axes in (slopes, curves):
        axes.legend()
        axes.grid(alpha=0.3)
    job.save_figure(figure, path, dpi=100)


def train(out: Path, *, epochs: int = 100, seed: int = 0, device: str = "cpu") -> dict[str, float]:
    """Train on thirty lines; leaves a record every ten epochs and a figure in ``out``, and returns the last record."""
    torch.manual_seed(seed)
    model = Slope().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    windows, slopes = (part.to(device) for part in make_lines(seed))
    known, target = windows[:TRAINING], slopes[:TRAINING]
    unseen, unseen_target = windows[TRAINING:], slopes[TRAINING:]
    sizes = {"windows": windows.size(1), "points": WINDOW, "parameters": sum(p.numel() for p in model.parameters())}
    print(job.line({"lines": TRAINING, "validation_lines": VALIDATION, **sizes, "device": device}))
    train_losses, validation_losses = [], []
    record: dict[str, float] = {}

    began = time.perf_counter()
    with job.Metrics(out) as metrics, tqdm(total=epochs, unit="epoch", disable=None) as bar:
        for epoch in range(1, epochs + 1):
            total = torch.zeros((), device=device)
            for batch in torch.split(torch.randperm(TRAINING, device=device), BATCH):
                optimizer.zero_grad()
                loss = mse_loss(model(known[batch]), target[batch])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += loss.detach() * len(batch)  # stays on the device: to fetch it would be to wait for it
            with torch.no_grad():
                validation_losses.append(mse_loss(model(unseen), unseen_target))
            train_losses.append(total / TRAINING)  # the mean over an epoch in which the weights kept moving
            bar.update()
            if epoch % INTERVAL == 0 or epoch == epochs:
                record = {"epoch": epoch, "train_loss": train_losses[-1].item()}
                record |= {"validation_loss": validation_losses[-1].item()}
                record["seconds"] = round(time.perf_counter() - began, 3)
                metrics.write(**record)
                bar.clear()
                print(job.line(record))
    losses = {"training": torch.stack(train_losses).tolist(), "validation": torch.stack(validation_losses).tolist()}
    with torch.no_grad():
        draw(losses, slopes, model(windows), out / "slopes.png")
    return record


def main(arguments: list[str] | None = None) -> None:
    parser = job.parser(__doc__)
    parser.add_argument("--epochs", type=job.at_least(1), default=100, help="of training (default: %(default)s)")
    options = parser.parse_args(arguments)

    out, device = job.begin(options, most_threads=1)  # so little work is done sooner than shared
    setting = {"epochs": 2 if options.dry_run else options.epochs, "seed": options.seed}
    final = train(out, **setting, device=device)
    result = {"job": "slope_lstm", **setting, "dry_run": options.dry_run, "device": device, **final}
    print(f"result={job.write_result(out, result)}")


if __name__ == "__main__":
    job.run(main)
