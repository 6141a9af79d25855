"""The slope job: lines cut into windows, ten of them never learned from, and a loss that falls for both."""

import pytest

from jobfiles import defined, records


@pytest.fixture
def slope(torch):
    """Everything that the script defines."""
    return defined("slope_lstm")


def test_a_line_is_cut_into_nineteen_windows(torch, slope):
    """Of ten points, each overlapping the next by five; every value is its slope times its x."""
    windows, slopes = slope["make_lines"](seed=0)
    assert (windows.shape, slopes.shape, windows.dtype) == ((40, 19, 10), (40, 1), torch.float32)
    assert torch.equal(windows[:, :-1, 5:], windows[:, 1:, :5])
    x = torch.arange(100) / 100
    assert (x[1].item(), x[99].item()) == (pytest.approx(0.01), pytest.approx(0.99))
    for window in range(19):
        assert torch.equal(windows[:, window], slopes * x[5 * window : 5 * window + 10])


def test_slopes_fill_their_range_and_come_from_the_seed(torch, slope):
    """Between -1 and 1, evenly; the same seed, the same lines."""
    drawn = torch.cat([slope["make_lines"](seed)[1] for seed in range(100)])
    assert drawn.abs().max() < 1
    counts = torch.histc(drawn, bins=4, min=-1, max=1)
    assert (counts - 1000).abs().max() < 120
    assert torch.equal(slope["make_lines"](7)[0], slope["make_lines"](7)[0])
    assert not torch.equal(slope["make_lines"](7)[0], slope["make_lines"](8)[0])


def test_no_validation_line_is_a_training_line(slope):
    """Thirty to learn from, ten others."""
    _, slopes = slope["make_lines"](seed=0)
    training, validation = slopes[: slope["TRAINING"]], slopes[slope["TRAINING"] :]
    assert (len(training), len(validation)) == (30, 10)
    assert set(training.flatten().tolist()).isdisjoint(validation.flatten().tolist())


def test_the_answer_does_not_depend_on_the_other_lines(torch, slope):
    """Each starts from a zero state, and its answer is that of the last window, which has seen all."""
    torch.manual_seed(0)
    model = slope["Slope"]()
    windows, _ = slope["make_lines"](seed=0)
    with torch.no_grad():
        together = model(windows)
        assert together.shape == (40, 1)
        torch.testing.assert_close(together[3:4], model(windows[3:4]))
        for window in (0, 18):
            changed = windows[:1].clone()
            changed[0, window] += 1
            assert model(changed).item() != together[0].item()


def test_a_short_training_falls(slope, tmp_path):
    """Both losses; a record every ten epochs and one at the end, the last of them returned."""
    last = slope["train"](tmp_path, epochs=12)
    kept = records(tmp_path)
    assert [record["epoch"] for record in kept] == [10, 12]
    assert last == kept[-1]
    assert list(last) == ["epoch", "train_loss", "validation_loss", "seconds"]
    assert last["train_loss"] < 0.05
    assert last["validation_loss"] < 0.05
    assert (tmp_path / "slopes.png").read_bytes().startswith(b"\x89PNG")


def test_each_loss_is_that_of_its_own_lines(slope, tmp_path):
    """An untrained network says about zero, so that its loss is the mean square of the slopes: of thirty, of ten."""
    last = slope["train"](tmp_path, epochs=1)
    _, slopes = slope["make_lines"](seed=0)
    assert last["train_loss"] == pytest.approx(slopes[:30].square().mean().item(), rel=0.15)
    assert last["validation_loss"] == pytest.approx(slopes[30:].square().mean().item(), rel=0.15)


def test_the_losses_are_those_of_a_plain_training(torch, numpy, slope, tmp_path):
    """Windows cut by hand, both layers, Adam, batches of 8, 8, 8 and 6 lines; every record is the same."""
    slope["train"](tmp_path, epochs=30, seed=5)
    true = torch.from_numpy(numpy.random.default_rng(5).uniform(-1, 1, (40, 1))).float()
    lines = true * torch.arange(100) / 100
    windows = torch.stack([lines[:, 5 * piece : 5 * piece + 10] for piece in range(19)], dim=1)
    torch.manual_seed(5)
    lstm, linear = torch.nn.LSTM(10, 32, num_layers=2, batch_first=True), torch.nn.Linear(32, 1)
    adam = torch.optim.Adam([*lstm.parameters(), *linear.parameters()], lr=1e-3, weight_decay=1e-5)

    def errors(some):
        return (linear(lstm(windows[some])[0][:, 18]) - true[some]).square()

    expected = []
    for _ in range(30):
        order, squares = torch.randperm(30), []
        for first in (0, 8, 16, 24):
            wrong = errors(order[first : min(first + 8, 30)])
            adam.zero_grad()
            wrong.mean().backward()
            adam.step()
            squares += wrong.flatten().tolist()
        expected.append((sum(squares) / 30, errors(torch.arange(30, 40)).mean().item()))
    written = [(record["train_loss"], record["validation_loss"]) for record in records(tmp_path)]
    assert written == [pytest.approx(expected[epoch - 1], rel=1e-5) for epoch in (10, 20, 30)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_hundred_epochs_reach_the_loss_of_the_course(slope, tmp_path, seed):
    """The course has a validation loss of 2e-5 to 8e-5; ten lines drawn unluckily may be somewhat harder."""
    last = slope["train"](tmp_path, seed=seed)
    assert last["validation_loss"] <= 2e-4
    assert last["train_loss"] <= 2e-4
