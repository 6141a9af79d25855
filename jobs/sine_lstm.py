# /// script
# requires-python = ">=3.11"
# dependencies = ["torch", "numpy", "matplotlib", "tqdm"]
#
# [tool.gpujobs]
# gpus = 1
# threads = 2
# gpu_mem = "2GiB"
# expect = "2m"
# ///
"""Predict a sine wave: two LSTM layers, trained with L-BFGS.

The network learns from 97 curves. It reads each point by point and says at every point what comes next; after the last
known point it reads its own answers, and so draws the curve on into the future. Every step leaves a figure of that.
Look at several: the loss, which falls from step to step, is about the next point only. Where the network reads itself,
errors feed on themselves, and a smaller loss does not always make the better future.

    python jobs/sine_lstm.py --out wave           ten steps, about a minute on two CPU cores
    python jobs/sine_lstm.py --signal cos-sin2    the same network on cos(sin^2(x/T)), its sizes drawn from the seed
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
    sys.exit(f'sine_lstm needs {missing.name}; install it with: pip install "gpujobs[jobs]"')
except KeyboardInterrupt:  # torch takes seconds to load
    sys.exit(130)

HIDDEN = 64  # per layer: enough to hold the phase of the wave, small enough for a CPU
LEARNING_RATE = 0.08  # L-BFGS proposes steps of about the right length; full ones (1.0) overshoot here
EVALUATIONS = 20  # of loss and gradient in one L-BFGS step, torch's default
FUTURE = 1000  # points predicted beyond the known ones: as many again


def make_curves(signal: str, seed: int, tiny: bool = False) -> tuple[Tensor, Tensor]:
    """The curves to train on and those to test on; each row is the signal from another starting point."""
    random = np.random.default_rng(seed)
    count, length, period, tests = 100, 1000, 20, 3
    if signal == "cos-sin2":
        count, length, period = random.integers((50, 800, 10), (200, 1200, 30)).tolist()
        tests = count - int(0.95 * count)
    if tiny:
        count, length, tests = 10, 60, 3
    start = random.integers(-4 * period, 4 * period, size=(count, 1))
    x = (np.arange(length) + start) / period
    y = np.sin(x) if signal == "sine" else np.cos(np.sin(x) ** 2)
    curves = torch.from_numpy(y.astype(np.float32))
    return curves[tests:], curves[:tests]


class NextPoint(nn.Module):
    """Says after every point of a curve what the next one will be."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, HIDDEN, num_layers=2, batch_first=True)
        self.linear = nn.Linear(HIDDEN, 1)

    def forward(self, curves: Tensor, future: int = 0) -> Tensor:
        # All known points go through both layers in one call. A loop over LSTM cells gives the same numbers and
        # takes twice as long, because every point then pays for a dozen small operations of its own.
        hidden, state = self.lstm(curves.unsqueeze(-1))
        points = self.linear(hidden)
        ahead = [points]
        last = points[:, -1:]
        for _ in range(future):  # here nothing can be fused: each point is the input of the next
            hidden, state = self.lstm(last, state)
            last = self.linear(hidden)
            ahead.append(last)
        return torch.cat(ahead, dim=1).squeeze(-1)


def draw(predicted: Tensor, known: int, path: Path) -> None:
    """Three predicted curves, solid over the known part, dotted over the future."""
    figure = Figure(figsize=(12, 6))  # without pyplot: no window system, and nothing kept from figure to figure
    axes = figure.subplots()
    axes.set(title="Predicted values; dotted: the future", xlabel="x", ylabel="y")
    for curve, colour in zip(predicted.cpu().numpy(), ("red", "blue", "green"), strict=False):
        axes.plot(np.arange(known), curve[:known], color=colour, linewidth=2)
        axes.plot(np.arange(known, len(curve)), curve[known:], ":", color=colour, linewidth=2)
    job.save_figure(figure, path, dpi=200)


def train(
    out: Path, *, signal: str = "sine", steps: int = 10, seed: int = 0, device: str = "cpu", tiny: bool = False
) -> dict[str, float]:
    """Train on one signal; leaves a figure and a record per step in ``out`` and returns the last record."""
    torch.manual_seed(seed)
    model = NextPoint().to(device)
    curves, test = (part.to(device) for part in make_curves(signal, seed, tiny))
    known, target, test_target = curves[:, :-1], curves[:, 1:], test[:, 1:]
    optimizer = torch.optim.LBFGS(model.parameters(), lr=LEARNING_RATE, max_iter=EVALUATIONS)
    sizes = {"curves": len(curves), "test_curves": len(test), "points": curves.size(1)}
    print(job.line({"signal": signal, **sizes, "device": device}))
    loss = torch.tensor(0.0)
    record: dict[str, float] = {}

    # The bar is shown on a terminal only (disable=None), and moves with every evaluation: a step is long.
    with job.Metrics(out) as metrics, tqdm(total=steps * EVALUATIONS, unit="eval", disable=None) as bar:

        def evaluate() -> Tensor:
            """Loss and gradient at the weights that L-BFGS wants to know about."""
            nonlocal loss
            optimizer.zero_grad()
            loss = mse_loss(model(known), target)
            loss.backward()  # type: ignore[no-untyped-call]
            bar.update()
            return loss

        for step in range(steps):
            began = time.perf_counter()
            optimizer.step(evaluate)  # type: ignore[no-untyped-call]
            with torch.no_grad():
                predicted = model(test[:, :-1], future=test.size(1) if tiny else FUTURE)
                test_loss = mse_loss(predicted[:, : test_target.size(1)], test_target)
            # Once a step these numbers are fetched from the device (L-BFGS fetches many more, to measure its way). The
            # train loss is that of the last evaluation: asking again would cost time and tell nothing new.
            record = {"step": step, "train_loss": loss.item(), "test_loss": test_loss.item()}
            record["seconds"] = round(time.perf_counter() - began, 3)
            metrics.write(**record)
            bar.clear()
            print(job.line(record))
            draw(predicted, test_target.size(1), out / f"predict{step}.png")
    return record


def main(arguments: list[str] | None = None) -> None:
    parser = job.parser(__doc__)
    parser.add_argument("--signal", choices=("sine", "cos-sin2"), default="sine", help="default: %(default)s")
    parser.add_argument("--steps", type=job.at_least(1), default=10, help="steps of L-BFGS (default: %(default)s)")
    options = parser.parse_args(arguments)

    job.keep_memory()  # halves the time of a step on the CPU
    out, device = job.begin(options)
    setting = {"signal": options.signal, "steps": 1 if options.dry_run else options.steps, "seed": options.seed}
    final = train(out, **setting, device=device, tiny=options.dry_run)
    result = {"job": "sine_lstm", **setting, "dry_run": options.dry_run, "device": device, **final}
    print(f"result={job.write_result(out, result)}")


if __name__ == "__main__":
    job.run(main)
