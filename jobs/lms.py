# /// script
# requires-python = ">=3.11"
# dependencies = ["torch", "numpy", "matplotlib", "tqdm"]
#
# [tool.gpujobs]
# threads = 1
# gpu_mem = "1GiB"
# expect = "15s"
# ///
"""An adaptive filter eight times, from NumPy to nn.Linear.

An unknown system answers a signal x with d[n] = 0.1 x[n] + 0.2 x[n-1] + 0.3 x[n-2] and a little noise. A filter with
three weights of its own sees both and finds the numbers. Least mean squares (LMS), the rule of 1960, moves the weights
after every sample by eta times its error times what was in the filter. That is one step of gradient descent, so
PyTorch can take it too, and does so here seven times. Read the eight functions one after the other: each takes one
thing more, from the third on, out of our hands and gives it to the library.

    python jobs/lms.py --out filter               all eight, a few seconds on one CPU core
    python jobs/lms.py --form sgd                 one of them, next to the NumPy form
    python jobs/lms.py --eta 0.01 --samples 5000  smaller steps: slower to arrive, and closer to the truth

Notice that seven forms take the same path to the last digits that a float64 holds. The one called linear does not:
nn.Linear starts from random weights, the others from zero. It arrives all the same, as the start is soon forgotten.
Notice too what convenience costs where a step is three multiplications: microseconds in NumPy, many times that in
the last form, and more still on a GPU, which earns its keep with large tensors only.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

try:
    import numpy as np
    import torch
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from tqdm import tqdm

    from gpujobs import job
except ModuleNotFoundError as missing:
    sys.exit(f'lms needs {missing.name}; install it with: pip install "gpujobs[jobs]"')
except KeyboardInterrupt:  # torch takes seconds to load
    sys.exit(130)

TRUE_WEIGHTS = np.array([0.1, 0.2, 0.3])  # of the unknown system
TAPS = len(TRUE_WEIGHTS)  # the filter is as long as the system, or it could not imitate it
NOISE = 0.1  # standard deviation: a variance of 0.01
TOLERANCE = 1e-12  # between forms: thousands of roundings of a float64 near 1, on any device, and far below any slip
RUNAWAY = 10.0  # a filter that learns weights below 1 has no business out there, not even on its way
WARM_UP = 5  # samples: whatever is loaded or set up on first use is not the cost of a form
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:purple", "tab:brown", "tab:cyan")  # of the forms that agree
DASH = 8  # its length, in widths of the line

Array = NDArray[np.float64]


def make_samples(count: int, seed: int) -> tuple[Array, Array]:
    """For every n what the filter holds, (x[n], x[n-1], x[n-2]), and what the system answers, d[n]."""
    random = np.random.default_rng(seed)
    # The signal begins at n = 0 and is zero before, so the first two samples meet a filter that is not yet full.
    # They are used like all others; system and filter see the same zeros.
    signal = np.concatenate([np.zeros(TAPS - 1), random.standard_normal(count)])
    held = np.lib.stride_tricks.sliding_window_view(signal, TAPS)[:, ::-1].copy()  # newest first; torch wants a copy
    return held, held @ TRUE_WEIGHTS + NOISE * random.standard_normal(count)


# ---- the eight forms: samples in, the path of the weights out, from before the first sample to after the last -----


def with_numpy(held: Array, answers: Array, eta: float) -> Array:
    """The rule as it stands in the textbook."""
    w = np.zeros(TAPS)
    path = [w]
    for x, d in zip(held, answers, strict=True):
        y = w @ x
        e = d - y
        w = w + eta * e * x
        path.append(w)
    return np.stack(path)


def with_tensor(held: Tensor, answers: Tensor, eta: float) -> Tensor:
    """The same lines on tensors, on whatever device they are."""
    w = held.new_zeros(TAPS)
    path = [w]
    for x, d in zip(held, answers, strict=True):
        y = w @ x
        e = d - y
        w = w + eta * e * x
        path.append(w)
    return torch.stack(path)


def with_autograd(held: Tensor, answers: Tensor, eta: float) -> Tensor:
    """The direction comes from the derivative of e², which nobody has to work out by hand."""
    w = held.new_zeros(TAPS).requires_grad_()
    path = [w.detach().clone()]  # a copy, because from here on w is changed in place
    for x, d in zip(held, answers, strict=True):
        y = w @ x
        e = d - y
        loss = e**2
        loss.backward()
        with torch.no_grad():
            # Half of eta, because the derivative of e² is -2 e x, and the rule has no 2.
            w -= eta / 2 * w.grad  # type: ignore[operator]
        w.grad = None  # or the next derivative would be added to this one
        path.append(w.detach().clone())
    return torch.stack(path)


def with_mse(held: Tensor, answers: Tensor, eta: float) -> Tensor:
    """The loss has a name; the mean of a single square is that square."""
    w = held.new_zeros(TAPS).requires_grad_()
    mse = nn.MSELoss()
    path = [w.detach().clone()]
    for x, d in zip(held, answers, strict=True):
        y = w @ x
        loss = mse(y, d)
        loss.backward()
        with torch.no_grad():
            w -= eta / 2 * w.grad  # type: ignore[operator]
        w.grad = None
        path.append(w.detach().clone())
    return torch.stack(path)


def with_sgd(held: Tensor, answers: Tensor, eta: float) -> Tensor:
    """The optimizer takes the step, and clears the gradient."""
    w = held.new_zeros(TAPS).requires_grad_()
    mse = nn.MSELoss()
    optimizer = torch.optim.SGD([w], lr=eta / 2)
    path = [w.detach().clone()]
    for x, d in zip(held, answers, strict=True):
        y = w @ x
        loss = mse(y, d)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        path.append(w.detach().clone())
    return torch.stack(path)


class Filter(nn.Module):
    """Three weights, found by the optimizer because they are a Parameter."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(like.new_zeros(TAPS))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight @ x


def with_module(held: Tensor, answers: Tensor, eta: float) -> Tensor:
    """The model keeps its weights; the loop need not know what they are."""
    model = Filter(like=held)
    mse = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=eta / 2)
    path = [model.weight.detach().clone()]
    for x, d in zip(held, answers, strict=True):
        y = model(x)
        loss = mse(y, d)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        path.append(model.weight.detach().clone())
    return torch.stack(path)


def with_linear(held: Tensor, answers: Tensor, eta: float, zeroed: bool = False) -> Tensor:
    """The model is one of the library's: a matrix of one row, which starts from random weights."""
    model = nn.Linear(TAPS, 1, bias=False, device=held.device, dtype=held.dtype)
    if zeroed:
        nn.init.zeros_(model.weight)
    mse = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=eta / 2)
    path = [model.weight[0].detach().clone()]
    for x, d in zip(held, answers, strict=True):
        y = model(x)[0]
        loss = mse(y, d)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        path.append(model.weight[0].detach().clone())
    return torch.stack(path)


def with_zeroed_linear(held: Tensor, answers: Tensor, eta: float) -> Tensor:
    """The same, started where all the others start: now it takes their path."""
    return with_linear(held, answers, eta, zeroed=True)


FORMS: dict[str, Callable[[Any, Any, float], Any]] = {
    "numpy": with_numpy,
    "tensor": with_tensor,
    "autograd": with_autograd,
    "mse": with_mse,
    "sgd": with_sgd,
    "module": with_module,
    "linear": with_linear,
    "linear-zero": with_zeroed_linear,
}


# ---- comparing them -----------------------------------------------------------------------------------------------


def measure(form: str, held: Array, answers: Array, eta: float, seed: int, device: str) -> tuple[Array, float]:
    """The path that a form takes, and how many seconds it takes for that."""
    if form == "numpy":  # warm already: all others are compared with it, so it has run once before
        start = time.perf_counter()
        return with_numpy(held, answers, eta), time.perf_counter() - start
    x, d = (torch.from_numpy(part).to(device) for part in (held, answers))
    FORMS[form](x[:WARM_UP], d[:WARM_UP], eta)
    torch.manual_seed(seed)  # for linear, whose weights are drawn: the same, whichever forms have run before
    wait_for(device)
    start = time.perf_counter()
    path = FORMS[form](x, d, eta)
    wait_for(device)
    seconds = time.perf_counter() - start
    return path.cpu().numpy(), seconds


def wait_for(device: str) -> None:
    """Until a GPU has done what it was told: calls return before, and a clock read then shows too little."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def draw(paths: Mapping[str, Array], path: Path) -> None:
    """A panel per weight; the forms that agree take turns in one line, each drawing a dash of it."""
    figure = Figure(figsize=(11, 9), layout="constrained")
    panels = figure.subplots(TAPS, sharex=True)
    agreeing = [form for form in paths if form not in ("numpy", "linear")]
    for tap, axes in enumerate(panels):
        axes.axhline(TRUE_WEIGHTS[tap], color="black", linestyle=(0, (4, 3)), linewidth=1, label="true value")
        axes.plot(paths["numpy"][:, tap], color="lightgrey", linewidth=8, label="numpy")
        for turn, (form, colour) in enumerate(zip(agreeing, COLOURS, strict=False)):
            dashes = (DASH * turn, (DASH, DASH * (len(agreeing) - 1)))
            axes.plot(paths[form][:, tap], color=colour, linestyle=dashes, linewidth=2, label=form)
        if "linear" in paths:
            # Beneath the others, so that it is seen to vanish where it joins them.
            axes.plot(paths["linear"][:, tap], color="crimson", label="linear (random start)", zorder=1.9)
        axes.set_ylabel(f"weight of x[n-{tap}]" if tap else "weight of x[n]")
        axes.margins(x=0.01)
    figure.align_ylabels()
    panels[0].set_title("The weights of the filter after each sample")
    panels[-1].set_xlabel("samples seen")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    legend = figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    for line in legend.get_lines()[1:]:
        line.set_linestyle("-")  # a dash that comes late would not be seen in so short a line
    job.save_figure(figure, path, dpi=100)


def check(differences: Mapping[str, float]) -> None:
    """End the job where a form that should agree with NumPy does not."""
    for form, difference in differences.items():
        if form != "linear" and not difference <= TOLERANCE:
            sys.exit(f"{form} departs from numpy by {difference:.1e}, over {TOLERANCE:g}; compare with --device cpu")


def table(final: Mapping[str, Any]) -> str:
    """What the forms cost, a line each."""
    lines = [f"{'form':<12}{'seconds':>9}{'us/sample':>11}{'difference':>12}"]
    for form, difference in final["difference"].items():
        seconds, each = final["seconds"][form], final["us_per_sample"][form]
        lines.append(f"{form:<12}{seconds:>9.4f}{each:>11.1f}{difference:>12.1e}")
    return "\n".join(lines)


def follow(samples: int, eta: float, seed: int) -> tuple[Array, Array, Array]:
    """The samples, and the NumPy path through them; an eta at which it leads nowhere ends the job."""
    held, answers = make_samples(samples, seed)
    with np.errstate(over="ignore", invalid="ignore"):  # too large an eta is told in words, below
        standard = with_numpy(held, answers, eta)
    if not np.abs(standard).max() < RUNAWAY:
        sys.exit(f"eta={eta:g} is too large: the weights run away instead of settling near {TRUE_WEIGHTS}; try 0.1")
    return held, answers, standard


def train(
    out: Path, *, form: str = "all", samples: int = 500, eta: float = 0.1, seed: int = 0, device: str = "cpu"
) -> dict[str, Any]:
    """Run one form or all, each against the NumPy form; leaves a record of each and a figure, returns the figures."""
    held, answers, standard = follow(samples, eta, seed)
    print(job.line({"samples": samples, "weights": TAPS, "eta": eta, "device": device}))

    chosen = list(FORMS) if form == "all" else list(dict.fromkeys(("numpy", form)))
    paths: dict[str, Array] = {}
    final: dict[str, Any] = {"weights": standard[-1], "difference": {}, "seconds": {}, "us_per_sample": {}}
    with job.Metrics(out) as metrics, tqdm(chosen, unit="form", disable=None) as bar:
        for name in bar:
            paths[name], seconds = measure(name, held, answers, eta, seed, device)
            apart = np.abs(paths[name] - standard).max(axis=1)
            record = {"form": name, "difference": apart.max().item(), "difference_at_end": apart[-1].item()}
            record |= {"seconds": round(seconds, 6), "us_per_sample": round(1e6 * seconds / samples, 2)}
            for key in ("difference", "seconds", "us_per_sample"):
                final[key][name] = record[key]
            metrics.write(**record)
            bar.clear()
            print(job.line(record))
    draw(paths, out / "weights.png")
    check(final["difference"])
    return final


def step_size(text: str) -> float:
    """The type of --eta."""
    try:
        eta = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < eta < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no step: it must be above 0 and finite, or nothing is learned")
    return eta


def main(arguments: list[str] | None = None) -> None:
    parser = job.parser(__doc__)
    parser.add_argument("--form", choices=("all", *FORMS), default="all", help="default: %(default)s")
    parser.add_argument("--samples", type=job.at_least(1), default=500, help="to learn from (default: %(default)s)")
    parser.add_argument("--eta", type=step_size, default=0.1, help="step size (default: %(default)s)")
    options = parser.parse_args(arguments)

    samples = 20 if options.dry_run else options.samples
    follow(samples, options.eta, options.seed)  # what leads nowhere is told before anything is written
    out, device = job.begin(options, most_threads=1)
    setting = {"form": options.form, "samples": samples, "eta": options.eta, "seed": options.seed}
    final = train(out, **setting, device=device)
    print(table(final))
    result = {"job": "lms", **setting, "dry_run": options.dry_run, "device": device, **final}
    print(f"result={job.write_result(out, result)}")


if __name__ == "__main__":
    job.run(main)
