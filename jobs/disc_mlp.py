# /// script
# requires-python = ">=3.11"
# dependencies = ["torch", "numpy", "matplotlib", "tqdm"]
#
# [tool.gpujobs]
# threads = 1
# gpu_mem = "1GiB"
# expect = "15s"
# ///
"""Find a disc in a square: the life of a small model.

A network of 21 numbers learns which points of the unit square lie inside a circle that it is never shown. Its five
hidden sigmoids are five soft straight lines: see in surface.png how they join into something round. Who always says
"outside" is right for 69 % of the points; the network comes to 97 % and more. Watch the loss: first it stays near 0.62,
the price of saying "31 %" everywhere, then it falls in jumps, as one line after the other finds its place.

    python jobs/disc_mlp.py --out disc            1000 epochs, a few seconds on one CPU core
    python jobs/disc_mlp.py --loader              the same batches from a DataLoader: the same numbers, more slowly
    python jobs/disc_mlp.py --layer own           a linear layer of our own instead of nn.Linear
    python jobs/disc_mlp.py --optimizer own       an optimizer of our own instead of torch.optim.SGD
    python jobs/disc_mlp.py --schedule cosine     learning rate and momentum change while it trains

A training can be cut and gone on with. These two end with exactly the weights of 1000 epochs in one go:

    python jobs/disc_mlp.py --epochs 300 --save-every 100 --out disc
    python jobs/disc_mlp.py --epochs 1000 --resume disc/checkpoint.pt --out disc
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

try:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor, nn
    from torch.nn.functional import binary_cross_entropy
    from torch.optim import SGD, Optimizer
    from torch.utils.data import DataLoader, Dataset
    from tqdm import tqdm

    from gpujobs import job
except ModuleNotFoundError as missing:
    sys.exit(f'disc_mlp needs {missing.name}; install it with: pip install "gpujobs[jobs]"')
except KeyboardInterrupt:  # torch takes seconds to load
    sys.exit(130)

State = dict[str, Any]

CENTRE, RADIUS = 0.5, math.sqrt(0.1)  # a circle of area 0.1 pi: 31 % of the square
HIDDEN = 5  # three lines already enclose a triangle; five make it round
BATCH = 100
LEARNING_RATE, MOMENTUM = 0.5, 0.8  # in the long run each gradient moves the weights by 0.5 / (1 - 0.8) of itself
LENGTH = 1000  # epochs that a schedule spans, whatever --epochs is: a resumed training must find the same rates
QUARTERS = ((0.5, 0.8), (0.5, 0.9), (0.25, 0.9), (0.1, 0.9))  # rate and momentum: find the way, speed up, settle
INTERVAL = 50  # epochs from record to record
FIXED = ("seed", "points", "layer", "optimizer", "schedule")  # what a checkpoint decides for those who resume it


class Disc(Dataset[tuple[Tensor, Tensor]]):
    """Random points of the unit square, each with its class: 1 inside the circle, 0 outside.

    A dataset is whatever has a length and gives the sample of a number; a DataLoader makes batches of it.
    """

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.x = torch.rand(count, 2, generator=generator)
        self.y = ((self.x - CENTRE).square().sum(dim=1, keepdim=True) < RADIUS**2).float()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        return self.x[number], self.y[number]


def batches_of_loader(disc: Disc, order: Tensor, device: str) -> Iterator[tuple[Tensor, Tensor]]:
    """The way for data that must be read or decoded one by one: every sample is fetched, then they are stacked."""
    for x, y in DataLoader(disc, BATCH, sampler=order.tolist()):
        yield x.to(device), y.to(device)


def batches_of_tensors(x: Tensor, y: Tensor, order: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    """The same batches from data that is on the device as a whole.

    One indexing shuffles all points, and a batch is a view of the result. The loader runs Python for every point
    instead, 1200 times an epoch, which takes longer than all the learning.
    """
    order = order.to(x.device, non_blocking=True)
    return zip(torch.split(x[order], BATCH), torch.split(y[order], BATCH), strict=True)


class OwnLinear(nn.Module):
    """What nn.Linear is: a matrix, a bias, and how they begin. Autograd finds the backward pass by itself."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)  # the more inputs add up, the smaller each weight
        # Being a Parameter is what makes a tensor show up in parameters(), state_dict() and to(device).
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


def make_model(layer: str) -> nn.Sequential:
    """Two linear layers, each followed by a sigmoid; the last makes the answer a probability."""
    linear = OwnLinear if layer == "own" else nn.Linear
    return nn.Sequential(linear(2, HIDDEN), nn.Sigmoid(), linear(HIDDEN, 1), nn.Sigmoid())


def summary(model: nn.Sequential, x: Tensor) -> str:
    """A line per layer: its kind, the shape of what it gives for ``x``, and how many numbers it learns."""
    rows = [("layer", "output", "parameters")]

    def note(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        shape = " x ".join(str(size) for size in output.shape)
        rows.append((type(layer).__name__, shape, str(count_parameters(layer))))

    hooks = [layer.register_forward_hook(note) for layer in model]  # called after each layer's forward pass
    model(x)
    for hook in hooks:
        hook.remove()
    rows.append(("all", "", str(count_parameters(model))))
    return "\n".join(f"{kind:<10} {shape:<10} {count:>10}" for kind, shape, count in rows)


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class OwnSGD(Optimizer):
    """What torch.optim.SGD is: v = momentum * v + gradient, then weight = weight - lr * v.

    The base class keeps ``param_groups`` (which weights, at which rates) and ``state`` (what is remembered of each
    weight, here v), and makes both part of ``state_dict()``.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                if "momentum_buffer" not in state:  # the name that torch's optimizer gives it
                    state["momentum_buffer"] = weight.grad.clone()
                else:
                    state["momentum_buffer"].mul_(group["momentum"]).add_(weight.grad)
                weight.add_(state["momentum_buffer"], alpha=-group["lr"])


def make_optimizer(kind: str, model: nn.Module) -> Optimizer:
    """Its rates are those of the first epoch; the training sets them anew in each."""
    if kind == "own":
        return OwnSGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    return SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)


def rates(schedule: str, done: int) -> tuple[float, float]:
    """Learning rate and momentum after so many epochs: smaller steps settle, more momentum averages more gradients."""
    if schedule == "step":
        return QUARTERS[min(4 * done // LENGTH, 3)]
    if schedule == "cosine":  # down to a tenth, along half a wave
        left = (1 + math.cos(math.pi * min(done / LENGTH, 1))) / 2
        return LEARNING_RATE * (0.1 + 0.9 * left), 0.95 - (0.95 - MOMENTUM) * left
    return LEARNING_RATE, MOMENTUM


def square(title: str) -> tuple[Figure, Axes]:
    """The unit square with the true circle in it."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel="$x_1$", ylabel="$x_2$", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    angle = torch.linspace(0, 2 * math.pi, 200)
    circle = CENTRE + RADIUS * angle.cos(), CENTRE + RADIUS * angle.sin()
    axes.plot(*circle, "--", color="black", label="true circle")
    return figure, axes


def draw_points(disc: Disc, path: Path) -> None:
    figure, axes = square(f"{len(disc)} points of two classes")
    for kind, label, colour in ((0, "class 0, outside", "tab:blue"), (1, "class 1, inside", "tab:red")):
        axes.plot(*disc.x[disc.y[:, 0] == kind].T, ".", color=colour, label=label)
    figure.legend(loc="outside lower center", ncols=3)
    job.save_figure(figure, path)


@torch.no_grad()
def draw_surface(model: nn.Module, x: Tensor, y: Tensor, path: Path) -> None:
    """What the network says everywhere in the square, and which of its points it has wrong."""
    axis = torch.linspace(0, 1, 201)
    grid = torch.cartesian_prod(axis, axis).to(x.device)
    probability = model(grid).view(201, 201).T.cpu()  # of contours, a row is one x2
    wrong = x[((model(x) > 0.5) != (y > 0.5))[:, 0]].cpu()
    figure, axes = square(f"What the network has learned: {len(x) - len(wrong)} of {len(x)} points are right")
    levels = torch.linspace(0, 1, 11).tolist()
    filled = axes.contourf(axis, axis, probability, levels, cmap="RdBu_r")
    if probability.min() < 0.5 < probability.max():  # after a few epochs it says "outside" everywhere
        axes.contour(axis, axis, probability, [0.5], colors="black")
    axes.plot([], [], color="black", label="p = 0.5")  # a contour has no entry in a legend of its own
    axes.plot(*wrong.T, "x", color="black", markersize=7, label="wrong")
    figure.colorbar(filled, label="probability p of class 1")
    figure.legend(loc="outside lower center", ncols=3)
    job.save_figure(figure, path)


@torch.no_grad()
def judge(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Loss and accuracy over all points."""
    answer = model(x)
    accuracy = ((answer > 0.5) == (y > 0.5)).float().mean()
    return {"loss": binary_cross_entropy(answer, y).item(), "accuracy": accuracy.item()}


def train(
    out: Path,
    *,
    seed: int = 0,
    points: int = 1200,
    layer: str = "torch",
    optimizer: str = "torch",
    schedule: str = "constant",
    epochs: int = 1000,
    loader: bool = False,
    device: str = "cpu",
    save_every: int | None = None,
    resume: State | None = None,
) -> dict[str, float]:
    """Train from the start, or go on from the checkpoint ``resume``; returns loss and accuracy over all points."""
    settings = {"seed": seed, "points": points, "layer": layer, "optimizer": optimizer, "schedule": schedule}
    torch.manual_seed(seed)  # of the weights
    # Of the points, then of their order in every epoch. It stays on the CPU, so that a checkpoint written on a GPU can
    # be resumed anywhere; an epoch's order is a few kilobytes.
    generator = torch.Generator().manual_seed(seed + 1)  # with the same seed the weights would be points once more
    disc = Disc(points, generator)
    x, y = disc.x.to(device), disc.y.to(device)
    model = make_model(layer).to(device)
    descent = make_optimizer(optimizer, model)
    done = restore(resume, model, descent, generator) if resume else 0
    sizes = {"parameters": count_parameters(model), "done": done, "epochs": epochs}
    print(job.line({**settings, **sizes, "loader": loader, "device": device}))
    draw_points(disc, out / "points.png")
    began = time.perf_counter()

    # A resumed training goes on in the same file; what was recorded after its checkpoint comes again, the same.
    with job.Metrics(out, bool(resume)) as metrics, tqdm(total=epochs, initial=done, unit="epoch", disable=None) as bar:
        for epoch in range(done + 1, epochs + 1):
            lr, momentum = rates(schedule, epoch - 1)
            for group in descent.param_groups:  # what an optimizer goes by may be changed at any time
                group["lr"], group["momentum"] = lr, momentum
            order = torch.randperm(points, generator=generator)
            batches = batches_of_loader(disc, order, device) if loader else batches_of_tensors(x, y, order)
            for some_x, some_y in batches:
                loss = binary_cross_entropy(model(some_x), some_y)
                descent.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                descent.step()  # nothing is fetched from the device on the way: to fetch is to wait
            bar.update()
            if epoch % INTERVAL == 0 or epoch == epochs:
                record = {"epoch": epoch, **judge(model, x, y), "lr": lr, "momentum": momentum}
                metrics.write(**record)
                bar.clear()
                print(job.line(record))
            if epoch == epochs or (save_every and epoch % save_every == 0):
                info = job.line(judge(model, x, y))
                save(out / "checkpoint.pt", epoch, info, settings, model, descent, generator)

    seconds = round(time.perf_counter() - began, 3)
    draw_surface(model, x, y, out / "surface.png")
    return {**judge(model, x, y), "seconds": seconds}


def save(
    path: Path, epoch: int, info: str, settings: State, model: nn.Module, optimizer: Optimizer, random: torch.Generator
) -> None:
    """Keep all that decides how the training goes on, and for people what it is and when it was."""
    state = {"job": "disc_mlp", "info": info, "date": datetime.now(UTC).isoformat(timespec="seconds"), "epoch": epoch}
    state |= {"settings": settings, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    job.save_checkpoint(path, {**state, "generator": random.get_state()})


def restore(state: State, model: nn.Module, optimizer: Optimizer, random: torch.Generator) -> int:
    """Make everything as it was when the checkpoint was written; returns how many epochs are done."""
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])  # with its momentum: from zero, the weights would go another way
    random.set_state(state["generator"])  # so that the next order is the next one, and not the first one again
    return int(state["epoch"])


def load(path: Path, options: argparse.Namespace) -> State:
    """A checkpoint that can be gone on with as the command line asks; else one line says why not."""
    state = job.load_checkpoint(path, "disc_mlp")
    try:
        model = make_model(state["settings"]["layer"])
        done = restore(state, model, make_optimizer(state["settings"]["optimizer"], model), torch.Generator())
        for name in FIXED:
            asked, has = getattr(options, name), state["settings"][name]
            if asked not in (None, has):
                sys.exit(f"--{name} {asked} does not go with {path}, whose {name} is {has}; drop --{name} or --resume")
        if options.epochs <= done and not options.dry_run:
            sys.exit(f"{path} has {done} epochs already, and --epochs {options.epochs} is in all; ask for more")
        print(job.line({"resumed": path, "date": state["date"], "info": state["info"]}))
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError):
        sys.exit(f"{path} does not hold this model of {HIDDEN} hidden sigmoids; train a new one without --resume")
    return state


def main(arguments: list[str] | None = None) -> None:
    parser = job.parser(__doc__)
    kinds, schedules, count = ("torch", "own"), ("constant", "step", "cosine"), job.at_least(1)
    parser.add_argument("--epochs", type=count, default=1000, help="in all, resumed ones too (default: %(default)s)")
    parser.add_argument("--points", type=count, default=1200, help="to learn from (default: %(default)s)")
    parser.add_argument("--layer", choices=kinds, default="torch", help="whose linear layer (default: %(default)s)")
    parser.add_argument("--optimizer", choices=kinds, default="torch", help="whose SGD (default: %(default)s)")
    parser.add_argument("--schedule", choices=schedules, default="constant", help="default: %(default)s")
    parser.add_argument("--loader", action="store_true", help="batches from a DataLoader: the same, more slowly")
    parser.add_argument("--save-every", type=count, metavar="EPOCHS", help="checkpoints (default: only at the end)")
    parser.add_argument("--resume", type=job.path, metavar="CHECKPOINT", help="go on from there, with its settings")
    options = parser.parse_args(arguments)
    # None where the command line is silent: only what was asked for can contradict a checkpoint.
    asked = parser.parse_args(arguments, argparse.Namespace(**dict.fromkeys(FIXED)))

    resume = load(options.resume, asked) if options.resume else None
    if options.dry_run:
        options.points, options.epochs = 200, 2 + (resume["epoch"] if resume else 0)
    chosen = resume["settings"] if resume else vars(options)
    setting = {name: chosen[name] for name in FIXED}
    setting |= {"epochs": options.epochs, "loader": options.loader}
    out, device = job.begin(options, most_threads=1)  # with so little to do, two would only wait for each other
    print(summary(make_model(setting["layer"]), torch.rand(BATCH, 2)))
    final = train(out, **setting, device=device, save_every=options.save_every, resume=resume)
    result = {"job": "disc_mlp", **setting, "dry_run": options.dry_run, "device": device, **final}
    print(f"result={job.write_result(out, result)}")


if __name__ == "__main__":
    job.run(main)
