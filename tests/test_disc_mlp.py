"""The disc job: our own layer and optimizer are torch's, and a resumed training is an unbroken one."""

import math
import os
import signal
import struct
import subprocess
import sys

import pytest

from jobfiles import ENVIRONMENT, FOLDER, defined, records, result, start
from people import Program
from waiting import wait_until


@pytest.fixture
def disc(torch):
    """Everything that the script defines."""
    return defined("disc_mlp")


@pytest.fixture
def checkpoint(disc, torch, tmp_path):
    """What five epochs might have left."""
    settings = {"seed": 3, "points": 100, "layer": "own", "optimizer": "torch", "schedule": "step"}
    model = disc["make_model"]("own")
    path = tmp_path / "checkpoint.pt"
    disc["save"](path, 5, "", settings, model, disc["make_optimizer"]("torch", model), torch.Generator())
    return path


def assert_same_end(torch, one, other):
    """What two trainings have kept is the same to the last bit, but for the date."""
    first, second = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (one, other))
    for name in ("model", "generator"):
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
    momentum = [state["optimizer"].pop("state") for state in (first, second)]
    torch.testing.assert_close(*momentum, rtol=0, atol=0)
    for name in ("optimizer", "epoch", "settings", "info"):
        assert first[name] == second[name]


def learned(out, disc, **options):
    """Train into a new folder."""
    out.mkdir(exist_ok=True)
    return disc["train"](out, **options)


def outcome(final):
    return final["loss"], final["accuracy"]


def test_the_circle_holds_the_share_of_the_points_that_its_area_says(disc, torch):
    """Of points all over the square, those nearer to its middle than the root of 0.1."""
    data = disc["Disc"](100_000, torch.Generator().manual_seed(1))
    assert data.y.mean().item() == pytest.approx(0.1 * math.pi, abs=0.005)
    assert (data.x.min().item(), data.x.max().item()) == pytest.approx((0, 1), abs=1e-3)
    (x1, x2), inside = data[17]
    assert inside.item() == float((x1 - 0.5) ** 2 + (x2 - 0.5) ** 2 < 0.1)
    assert len(data) == 100_000


@pytest.mark.parametrize("inputs", [1, 2, 5, 64])
def test_our_layer_begins_as_torchs(disc, torch, inputs):
    """The same seed gives the same weights to the last bit, under the same names."""
    torch.manual_seed(4)
    theirs = torch.nn.Linear(inputs, 3).state_dict()
    torch.manual_seed(4)
    ours = disc["OwnLinear"](inputs, 3).state_dict()
    assert list(ours) == list(theirs)
    assert [torch.equal(ours[name], theirs[name]) for name in ours] == [True, True]


def test_our_layer_computes_what_torchs_does(disc, torch):
    """Values, and the gradients of weights, bias and input."""
    torch.manual_seed(0)
    theirs, ours = torch.nn.Linear(4, 3).double(), disc["OwnLinear"](4, 3).double()
    ours.load_state_dict(theirs.state_dict())
    seen = []
    for layer in (ours, theirs):
        x = torch.linspace(-2, 2, 28, dtype=torch.float64).view(7, 4).requires_grad_()
        y = layer(x)
        y.square().sum().backward()
        seen.append((y.detach(), layer.weight.grad, layer.bias.grad, x.grad))
    torch.testing.assert_close(*seen, rtol=1e-12, atol=1e-12)


def test_our_optimizer_goes_the_way_of_torchs(disc, torch):
    """Over two hundred steps, while its rate and momentum change."""
    paths = []
    for kind in ("own", "torch"):
        torch.manual_seed(0)
        model = disc["make_model"]("torch").double()
        optimizer = disc["make_optimizer"](kind, model)
        x = torch.rand(50, 2, dtype=torch.float64)
        path = []
        for step in range(200):
            lr, momentum = disc["rates"]("cosine", 5 * step)
            optimizer.param_groups[0].update(lr=lr, momentum=momentum)
            optimizer.zero_grad()
            (model(x) - x[:, :1]).square().mean().backward()
            optimizer.step()
            path.append(torch.cat([weight.detach().flatten() for weight in model.parameters()]))
        paths.append(torch.stack(path))
    torch.testing.assert_close(*paths, rtol=1e-12, atol=1e-12)
    assert (paths[0][-1] - paths[0][0]).abs().max() > 0.1


def test_both_optimizers_remember_their_momentum_under_one_name(disc, torch):
    """One velocity for each of the four parameters."""
    remembered = []
    for kind in ("own", "torch"):
        model = disc["make_model"]("torch")
        optimizer = disc["make_optimizer"](kind, model)
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        remembered.append([list(state) for state in optimizer.state_dict()["state"].values()])
    assert remembered == [[["momentum_buffer"]] * 4] * 2


def test_the_summary_counts_21_parameters(disc, torch):
    """A line per layer with the shape of its output, then all of them; it leaves no hook behind."""
    model = disc["make_model"]("own")
    lines = disc["summary"](model, torch.rand(7, 2)).splitlines()
    expected = [
        ["layer", "output", "parameters"],
        ["OwnLinear", "7", "x", "5", "15"],
        ["Sigmoid", "7", "x", "5", "0"],
        ["OwnLinear", "7", "x", "1", "6"],
        ["Sigmoid", "7", "x", "1", "0"],
        ["all", "21"],
    ]
    assert [line.split() for line in lines] == expected
    assert len({len(line) for line in lines}) == 1
    assert [len(layer._forward_hooks) for layer in model] == [0, 0, 0, 0]


def test_a_loader_gives_the_batches_of_the_tensors(disc, torch):
    """In the same order, each point once, the last batch with what is left."""
    data = disc["Disc"](230, torch.Generator())
    order = torch.randperm(230)
    loaded = list(disc["batches_of_loader"](data, order, "cpu"))
    sliced = list(disc["batches_of_tensors"](data.x, data.y, order))
    assert [len(x) for x, _ in loaded] == [100, 100, 30]
    torch.testing.assert_close(loaded, sliced, rtol=0, atol=0)
    assert torch.equal(torch.cat([x for x, _ in sliced]), data.x[order])


def test_a_schedule_changes_both_rates_and_ends_settled(disc):
    """As a function of the epochs that are done, also beyond those that it spans."""
    rates = disc["rates"]
    assert {rates("constant", done) for done in range(0, 3000, 100)} == {(0.5, 0.8)}
    assert [rates("step", done) for done in (0, 249)] == [(0.5, 0.8)] * 2
    assert [rates("step", done) for done in (250, 500, 750)] == [(0.5, 0.9), (0.25, 0.9), (0.1, 0.9)]
    assert rates("cosine", 0) == pytest.approx((0.5, 0.8))
    assert rates("cosine", 500) == pytest.approx((0.275, 0.875))
    assert rates("cosine", 1000) == pytest.approx((0.05, 0.95))
    assert [rates(kind, 10**6) for kind in ("step", "cosine")] == [rates(kind, 1000) for kind in ("step", "cosine")]


def test_the_records_are_those_of_a_plain_training(disc, torch, tmp_path):
    """Weights from the seed, points and their orders from the next one, momentum by hand, along the cosine."""
    learned(tmp_path, disc, seed=4, points=230, epochs=52, schedule="cosine")
    torch.manual_seed(4)
    model = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Sigmoid(), torch.nn.Linear(5, 1), torch.nn.Sigmoid())
    random = torch.Generator().manual_seed(5)
    x = torch.rand(230, 2, generator=random)
    inside = ((x[:, 0] - 0.5) ** 2 + (x[:, 1] - 0.5) ** 2 < 0.1).float()

    def loss(some):
        answer = model(x[some])[:, 0]
        return -torch.where(inside[some] == 1, answer.log(), (1 - answer).log()).mean()

    velocity, expected = [torch.zeros_like(weight) for weight in model.parameters()], {}
    for epoch in range(1, 53):
        wave = (1 + math.cos(math.pi * (epoch - 1) / 1000)) / 2
        lr, momentum = 0.05 + 0.45 * wave, 0.95 - 0.15 * wave
        order = torch.randperm(230, generator=random)
        for batch in (order[:100], order[100:200], order[200:]):
            gradients = torch.autograd.grad(loss(batch), list(model.parameters()))
            velocity = [momentum * v + gradient for v, gradient in zip(velocity, gradients, strict=True)]
            with torch.no_grad():
                for weight, v in zip(model.parameters(), velocity, strict=True):
                    weight.sub_(lr * v)
        right = ((model(x)[:, 0] > 0.5) == (inside == 1)).sum().item() / 230
        values = {"loss": loss(slice(None)).item(), "accuracy": right, "lr": lr, "momentum": momentum}
        expected[epoch] = pytest.approx({"epoch": epoch, **values}, rel=1e-5)
    assert records(tmp_path) == [expected[50], expected[52]]


def test_an_answer_counts_as_inside_from_one_half_on(disc, torch):
    """The answers here are the points themselves; the loss is the mean of -log of what is said of the truth."""
    answers, inside = torch.tensor([[0.2], [0.45], [0.55], [0.7]]), torch.tensor([[0.0], [0.0], [1.0], [0.0]])
    loss = -sum(map(math.log, (0.8, 0.55, 0.55, 0.3))) / 4
    assert disc["judge"](torch.nn.Identity(), answers, inside) == pytest.approx({"loss": loss, "accuracy": 0.75})


def test_the_surface_is_drawn_the_right_way_round(disc, torch, tmp_path):
    """A network that looks at x1 alone is blue at the left and red at the right, from bottom to top."""
    from matplotlib.image import imread

    model = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Sigmoid())
    model.load_state_dict({"0.weight": torch.tensor([[20.0, 0.0]]), "0.bias": torch.tensor([-10.0])})
    disc["draw_surface"](model, torch.rand(5, 2), torch.ones(5, 1), tmp_path / "surface.png")
    picture = imread(tmp_path / "surface.png")
    corners = [picture[row, column, :3] for row in (60, 480) for column in (90, 480)]
    assert ["red" if red > blue else "blue" for red, _, blue in corners] == ["blue", "red"] * 2


@pytest.mark.parametrize(
    ("options", "asked", "has"),
    [
        (["--seed", "0"], "--seed 0", "seed is 3"),
        (["--points", "1200"], "--points 1200", "points is 100"),
        (["--layer", "torch"], "--layer torch", "layer is own"),
        (["--optimizer", "own"], "--optimizer own", "optimizer is torch"),
        (["--schedule", "constant"], "--schedule constant", "schedule is step"),
    ],
)
def test_a_setting_that_contradicts_the_checkpoint_is_named(disc, checkpoint, tmp_path, options, asked, has):
    """Also where the command line asks for a default, and before anything is written."""
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        disc["main"](["--resume", str(checkpoint), *options, "--out", str(out)])
    line = str(ended.value)
    assert (asked in line, has in line, str(checkpoint) in line, "\n" in line) == (True, True, True, False)
    assert not out.exists()


def test_a_checkpoint_with_all_its_epochs_is_said_to_have_them(disc, checkpoint, tmp_path):
    """With what to ask for instead."""
    out = tmp_path / "out"
    with pytest.raises(SystemExit, match=r"has 5 epochs already, and --epochs 5 is in all; ask for more"):
        disc["main"](["--resume", str(checkpoint), "--epochs", "5", "--out", str(out)])
    assert not out.exists()


def test_what_cannot_be_resumed_is_refused_in_one_line(disc, torch, checkpoint, tmp_path):
    """No file, part of a file, text, another job's, and a model of another size."""
    whole, state = checkpoint.read_bytes(), torch.load(checkpoint, weights_only=True)
    wider = {**state["model"], "0.weight": torch.zeros(6, 2)}
    lacking = {key: value for key, value in state.items() if key != "generator"}
    for name, content in (("half", whole[: len(whole) // 2]), ("text", b"not a checkpoint\n")):
        (tmp_path / name).write_bytes(content)
    for name, other in (("job", {**state, "job": "lms"}), ("wide", {**state, "model": wider}), ("lacking", lacking)):
        torch.save(other, tmp_path / name)
    said = {}
    for name in ("none", "half", "text", "job", "wide", "lacking"):
        with pytest.raises(SystemExit) as ended:
            disc["main"](["--resume", str(tmp_path / name), "--out", str(tmp_path / "out")])
        said[name] = str(ended.value)
        assert (said[name].startswith(str(tmp_path / name)), "\n" in said[name]) == (True, False)
    assert "there is no such checkpoint" in said["none"]
    assert "not a whole checkpoint" in said["half"]
    assert "not a whole checkpoint" in said["text"]
    assert "not a checkpoint of disc_mlp, but of lms" in said["job"]
    assert "does not hold this model" in said["wide"]
    assert "does not hold this model" in said["lacking"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [["--epochs", "0"], ["--points", "0"], ["--save-every", "0"], ["--layer", "mine"]])
def test_a_setting_without_meaning_is_a_usage_error(disc, tmp_path, capsys, options):
    """Before anything is written."""
    with pytest.raises(SystemExit, match="2"):
        disc["main"]([*options, "--out", str(tmp_path / "out")])
    assert options[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_training_falls_and_says_so(disc, tmp_path):
    """A record every 50 epochs, with the rates that were in force."""
    final = learned(tmp_path, disc, points=600, epochs=620, schedule="step")
    written = records(tmp_path)
    assert [record["epoch"] for record in written] == [*range(50, 601, 50), 620]
    assert written[0]["loss"] > 0.5
    assert (final["loss"] < 0.2, final["accuracy"] > 0.9) == (True, True)
    assert written[-1]["loss"] == pytest.approx(final["loss"], rel=0.2)
    rates = {(record["lr"], record["momentum"]) for record in written}
    assert rates == {(0.5, 0.8), (0.5, 0.9), (0.25, 0.9)}


@pytest.mark.slow
def test_every_way_to_the_same_training_ends_the_same(disc, tmp_path):
    """The loader to the last bit; our own parts as nearly as sums in another order can."""
    usual = learned(tmp_path / "usual", disc, points=250, epochs=60)
    loaded = learned(tmp_path / "loader", disc, points=250, epochs=60, loader=True)
    own = learned(tmp_path / "own", disc, points=250, epochs=60, layer="own", optimizer="own")
    other = learned(tmp_path / "other", disc, points=250, epochs=60, seed=1)
    assert outcome(loaded) == outcome(usual)
    assert own["loss"] == pytest.approx(usual["loss"], rel=1e-4)
    assert other["loss"] != usual["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 100, 251])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "own", "schedule": "cosine", "seed": 5},
        {"layer": "own", "schedule": "step", "loader": True},
    ],
)
def test_a_resumed_training_ends_as_an_unbroken_one(disc, torch, tmp_path, cut, options):
    """Weights, momentum, shuffling and results to the last bit, wherever it was cut; the metrics go on."""
    options = {"points": 250, **options}
    unbroken = learned(tmp_path / "whole", disc, epochs=260, **options)
    learned(tmp_path / "parts", disc, epochs=cut, **options)
    state = disc["job"].load_checkpoint(tmp_path / "parts/checkpoint.pt", "disc_mlp")
    resumed = learned(tmp_path / "parts", disc, epochs=260, resume=state, **options)
    assert outcome(resumed) == outcome(unbroken)
    assert_same_end(torch, tmp_path / "parts", tmp_path / "whole")
    expected = records(tmp_path / "whole")
    assert [record for record in records(tmp_path / "parts") if record["epoch"] != cut] == [
        record for record in expected if record["epoch"] != cut
    ]


@pytest.mark.slow
def test_an_interrupted_training_goes_on_from_its_last_checkpoint(disc, torch, tmp_path):
    """As a program that is sent Ctrl-C somewhere on its way, then resumed with nothing but the checkpoint."""
    out = tmp_path / "parts"
    chosen = ("--seed", "2", "--points", "150", "--optimizer", "own", "--schedule", "cosine")
    argv = [sys.executable, "-P", str(FOLDER / "disc_mlp.py"), *chosen, "--device", "cpu", "--out", str(out)]
    argv += ["--epochs", "1000000", "--save-every", "7"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with Program(argv, env=os.environ | ENVIRONMENT, text=True, **quiet) as process:
        wait_until((out / "checkpoint.pt").exists, deadline=120)
        process.send_signal(signal.SIGINT)
        talk = process.communicate()[1]
    assert (process.returncode, talk) == (-signal.SIGINT, "\ndisc_mlp: interrupted; what is written so far stays\n")
    done = torch.load(out / "checkpoint.pt", weights_only=True)["epoch"]
    assert done % 7 == 0

    epochs = done + 5
    resume = ("--resume", str(out / "checkpoint.pt"), "--epochs", str(epochs), "--device", "cpu", "--out", str(out))
    again = start("disc_mlp", *resume, capture_output=True)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.startswith(f"resumed={out}/checkpoint.pt date=20")
    options = {"seed": 2, "points": 150, "optimizer": "own", "schedule": "cosine", "epochs": epochs}
    assert outcome(result(out)) == outcome(learned(tmp_path / "whole", disc, **options))
    assert_same_end(torch, out, tmp_path / "whole")
    assert {name: result(out)[name] for name in options} == options


@pytest.mark.slow
def test_a_checkpoint_tells_people_what_it_is(disc, torch, tmp_path):
    """Whose it is, how good, when, and after how many epochs."""
    final = learned(tmp_path, disc, points=100, epochs=3)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert (state["job"], state["epoch"], state["date"][:2], state["date"][-6:]) == ("disc_mlp", 3, "20", "+00:00")
    assert state["info"] == f"loss={final['loss']:.6g} accuracy={final['accuracy']:.6g}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 3, 6])
def test_a_thousand_epochs_find_the_disc(disc, tmp_path, seed):
    """At full size and with the default settings; what is left is the luck of the weights."""
    final = learned(tmp_path, disc, seed=seed)
    assert (final["loss"] < 0.08, final["accuracy"] > 0.967) == (True, True)


@pytest.mark.slow
def test_a_training_leaves_two_figures_and_a_checkpoint(disc, tmp_path):
    """Seven inches by six, at a hundred pixels each; and nothing half-written."""
    out = tmp_path / "out"
    learned(out, disc, points=100, epochs=1)
    assert sorted(path.name for path in out.iterdir()) == [
        "checkpoint.pt",
        "metrics.jsonl",
        "points.png",
        "surface.png",
    ]
    for name in ("points.png", "surface.png"):
        assert struct.unpack(">II", (out / name).read_bytes()[16:24]) == (700, 600)


@pytest.mark.slow
def test_a_dry_run_resumes_as_well(disc, checkpoint, tmp_path, capsys):
    """Two epochs from the checkpoint on, whatever --epochs says."""
    disc["main"](["--dry-run", "--resume", str(checkpoint), "--device", "cpu", "--out", str(tmp_path / "out")])
    assert result(tmp_path / "out")["epochs"] == 7
    assert "done=5 epochs=7" in capsys.readouterr().out


@pytest.mark.slow
def test_a_dry_run_is_tiny_and_goes_the_way_that_is_asked_for(disc, tmp_path, capsys):
    """Two epochs of 200 points, through the loader."""
    disc["main"](["--dry-run", "--loader", "--device", "cpu", "--out", str(tmp_path / "out")])
    assert result(tmp_path / "out").items() >= {"points": 200, "epochs": 2, "loader": True}.items()
    assert set(capsys.readouterr().out.split()) >= {"points=200", "epochs=2", "loader=True"}
