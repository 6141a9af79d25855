"""The sine job: the same numbers as a loop over LSTM cells, files that can be used, and a loss that falls."""

import json
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from jobfiles import ENVIRONMENT, defined, library, records, start
from people import CHECKOUT


@pytest.fixture
def torch():
    return library()


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
    """At full size: the course has 1.3e-4 after ten steps, where ours may differ by the luck of the weights."""
    torch.set_num_threads(2)
    sine["job"].keep_memory()
    last = sine["train"](tmp_path)
    assert last["train_loss"] <= 5e-4
    assert len(list(tmp_path.glob("predict?.png"))) == 10
