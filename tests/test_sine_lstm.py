"""The sine job: the same numbers as a loop over LSTM cells, files that can be used, and a loss that falls."""

import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time

import pytest

from jobfiles import ENVIRONMENT, defined, records, start
from people import CHECKOUT


@pytest.fixture
def sine(torch):
    """Everything that the script defines."""
    return defined("sine_lstm")


def losses(folder):
    return [(record["train_loss"], record["test_loss"]) for record in records(folder)]


def cell_by_cell(torch, model, curves, future=0):
    """The course's own form: every point through two cells, one after the other."""
    cells = [torch.nn.LSTMCell(1, 64), torch.nn.LSTMCell(64, 64)]
    for layer, cell in enumerate(cells):
        cell.to(curves.dtype)
        # The very parameters of the model, so that both are trained by the same optimizer.
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            setattr(cell, name, getattr(model.lstm, f"{name}_l{layer}"))
    states, points = [None, None], []
    for step in range(curves.size(1) + future):
        value = curves[:, step : step + 1] if step < curves.size(1) else points[-1]
        for layer, cell in enumerate(cells):
            states[layer] = cell(value, states[layer])
            value = states[layer][0]
        points.append(model.linear(value))
    return torch.cat(points, dim=1)


def descend(torch, sine, dtype, forward):
    """All losses of two L-BFGS steps, and what is predicted after them."""
    torch.manual_seed(3)
    model = sine["NextPoint"]().to(dtype)
    curves = sine["make_curves"]("sine", seed=3, tiny=True)[0].to(dtype)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=sine["LEARNING_RATE"])
    seen = []

    def evaluate():
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(forward(model, curves[:, :-1]), curves[:, 1:])
        loss.backward()
        seen.append(loss.item())
        return loss

    for _ in range(2):
        optimizer.step(evaluate)
    with torch.no_grad():
        return seen, forward(model, curves[:2, :-1], 30)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-9), ("float32", 1e-3)])
def test_fused_layers_learn_as_a_loop_over_cells_does(torch, sine, precision, tolerance):
    """From the same weights, every one of forty losses and the future after them are the same."""
    dtype = getattr(torch, precision)
    fused, future = descend(torch, sine, dtype, lambda model, curves, future=0: model(curves, future))
    loop, same = descend(torch, sine, dtype, lambda *given: cell_by_cell(torch, *given))
    assert len(fused) == 40
    assert fused == pytest.approx(loop, rel=tolerance)
    torch.testing.assert_close(future, same, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
def test_the_loss_falls(sine, tmp_path):
    """On a small training, in every step."""
    last = sine["train"](tmp_path, steps=3, tiny=True)
    train_losses = [train for train, _ in losses(tmp_path)]
    assert train_losses == sorted(train_losses, reverse=True)
    assert train_losses[-1] < 0.5 * train_losses[0]
    assert last == records(tmp_path)[-1]


def test_the_sine_curves_are_those_of_the_course(torch, sine):
    """97 and 3 curves of 1000 points, each sin(x/20) from its own whole starting point."""
    curves, test = sine["make_curves"]("sine", seed=0)
    assert (curves.shape, test.shape, curves.dtype) == ((97, 1000), (3, 1000), torch.float32)
    starts = torch.arange(-80, 80)
    expected = torch.sin((starts.double()[:, None] + torch.arange(1000)) / 20).float()
    nearest = (curves[:, None] - expected).abs().amax(dim=2).min(dim=1)
    assert nearest.values.max() < 1e-6
    assert len(set(nearest.indices.tolist())) > 50


def test_cos_sin2_draws_its_sizes_from_the_seed(torch, sine):
    """Within their bounds, 95 % for training, and values of cos(sin²)."""
    shapes = set()
    for seed in range(50):
        curves, test = sine["make_curves"]("cos-sin2", seed)
        count = len(curves) + len(test)
        assert (50 <= count < 200, 800 <= curves.size(1) < 1200) == (True, True)
        assert len(curves) == int(0.95 * count)
        assert curves.min() >= torch.cos(torch.tensor(1.0))
        assert curves.max() == pytest.approx(1.0, abs=0.01)
        shapes.add(tuple(curves.shape))
    assert len(shapes) > 40


def own_curves(numpy, signal, seed, tiny=False):
    """Every curve from its formula, in the order in which the seed draws them."""
    random = numpy.random.default_rng(seed)
    count, length, period = (100, 1000, 20) if signal == "sine" else random.integers((50, 800, 10), (200, 1200, 30))
    count, length = (10, 60) if tiny else (count, length)
    starts = random.integers(-4 * period, 4 * period, size=(count, 1))
    angle = (starts + numpy.arange(length)) / period
    return (numpy.sin(angle) if signal == "sine" else numpy.cos(numpy.sin(angle) ** 2)).astype("float32")


@pytest.mark.parametrize(("signal", "tests"), [("sine", 3), ("cos-sin2", 8)])
def test_the_first_curves_are_for_testing(torch, numpy, sine, signal, tests):
    """Three sines, or of the others what is left by 95 % for training."""
    curves, test = sine["make_curves"](signal, 8)
    expected = torch.from_numpy(own_curves(numpy, signal, 8))
    assert len(test) == tests
    torch.testing.assert_close(torch.cat([test, curves]), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("signal", ["sine", "cos-sin2"])
def test_the_losses_are_those_of_a_plain_training(torch, numpy, sine, tmp_path, signal):
    """Twenty evaluations of L-BFGS on seven curves; the loss on the other three is that of their next points."""
    began = time.perf_counter()
    last = sine["train"](tmp_path, signal=signal, seed=7, steps=1, tiny=True)
    assert 0 < last["seconds"] <= time.perf_counter() - began + 0.001  # those of the one step, and rounded
    curves = torch.from_numpy(own_curves(numpy, signal, 7, tiny=True))
    torch.manual_seed(7)
    lstm, linear = torch.nn.LSTM(1, 64, num_layers=2, batch_first=True), torch.nn.Linear(64, 1)
    descent = torch.optim.LBFGS([*lstm.parameters(), *linear.parameters()], lr=0.08, max_iter=20)
    seen = []

    def loss(some):
        predicted = linear(lstm(some[:, :59, None])[0])[:, :, 0]
        return (predicted - some[:, 1:]).square().mean()

    def evaluate():
        descent.zero_grad()
        seen.append(loss(curves[3:]))
        seen[-1].backward()
        return seen[-1]

    descent.step(evaluate)
    assert len(seen) == 20
    assert losses(tmp_path) == [pytest.approx((seen[-1].item(), loss(curves[:3]).item()), rel=1e-5)]


@pytest.mark.slow
def test_a_dry_run_leaves_everything_that_a_run_leaves(sine, tmp_path):
    """One record, one result, one figure of the right size, and no bar in the log."""
    done = start(
        "sine_lstm", "--dry-run", "--steps", "7", "--device", "cpu", "--out", str(tmp_path / "out"), capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    (record,) = records(tmp_path / "out")
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result == {
        "job": "sine_lstm",
        "signal": "sine",
        "steps": 1,
        "seed": 0,
        "dry_run": True,
        "device": "cpu",
        **record,
    }
    first, second, _ = done.stdout.splitlines()
    assert first == "signal=sine curves=7 test_curves=3 points=60 device=cpu"
    assert second.startswith(f"step=0 train_loss={record['train_loss']:.6g} test_loss=")
    (figure,) = (tmp_path / "out").glob("predict*.png")
    assert (figure.name, struct.unpack(">II", figure.read_bytes()[16:24])) == ("predict0.png", (2400, 1200))


@pytest.mark.parametrize("options", [["--steps", "0"], ["--signal", "square"]])
def test_a_setting_without_meaning_is_a_usage_error(sine, tmp_path, capsys, options):
    """Before anything is written."""
    with pytest.raises(SystemExit, match="2"):
        sine["main"]([*options, "--out", str(tmp_path / "out")])
    assert options[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_terminal_gets_a_bar(sine, tmp_path):
    """Where talk goes to a terminal, it moves with every evaluation; data stays as it is."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        options = ("--dry-run", "--signal", "cos-sin2", "--out", str(tmp_path / "out"))
        done = start("sine_lstm", *options, stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        shown = terminal.read(2**16).decode()
    assert "/20" in shown
    assert [line.partition("=")[0] for line in done.stdout.splitlines()] == ["signal", "step", "result"]


@pytest.mark.slow
def test_the_example_told_to_authors_runs(torch, tmp_path):
    """As it stands on the page."""
    page = (CHECKOUT / "jobs/README.md").read_text()
    script = tmp_path / "darts.py"
    script.write_text(page.split("```python\n")[1].split("```")[0])
    argv = [sys.executable, "-P", str(script), "--steps", "3", "--out", str(tmp_path)]
    subprocess.run(argv, env=os.environ | ENVIRONMENT, check=True)
    assert json.loads((tmp_path / "result.json").read_text())["pi"] == pytest.approx(3.1416, abs=0.01)


@pytest.mark.slow
def test_ten_steps_reach_the_losses_of_the_course(torch, sine, tmp_path):
    """At full size: the course has 1.3e-4 after ten steps, where ours may differ by the luck of the weights.

    The known points are one half of what is drawn, as solid curves; then the dots begin.
    """
    from matplotlib.image import imread

    torch.set_num_threads(2)
    sine["job"].keep_memory()
    last = sine["train"](tmp_path)
    assert last["train_loss"] <= 5e-4
    assert len(list(tmp_path.glob("predict?.png"))) == 10
    picture = imread(tmp_path / "predict9.png")[:, :, :3]
    coloured = (picture.max(axis=2) - picture.min(axis=2) > 0.4).sum(axis=0)
    drawn = coloured[coloured.nonzero()[0].min() : coloured.nonzero()[0].max() + 1]
    known, future = (drawn[int(start * len(drawn)) :][:200].sum() for start in (0.37, 0.51))
    assert 0 < future < 0.7 * known
