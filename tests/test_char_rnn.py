"""The character job: names in plain letters, cells that do not see their batch, and languages that are recognised."""

import itertools
import os
import pickle
import subprocess
import sys
from statistics import mean

import pytest

from jobfiles import ENVIRONMENT, FOLDER, defined, records, result, shared_data, start

CELLS = ["rnn", "gru", "lstm"]
NAMES = ["O", "Li", "O'Neal", "Wolfeschlegelstein"]
LONG = "Li" + 14 * "Nguyen" + "Wolfeschlegelstein"  # of 104 letters
FEW = {"Greek": ["Pappas", "Vlachos", "Makris"], "Polish": ["Nowak", "Kowalski"]}
ALIKE = {"Chinese": ["Li", "Lee", "Wang"], "Korean": ["Lee", "Kim"]}  # never told apart altogether


@pytest.fixture
def char(torch):
    """Everything that the script defines."""
    return defined("char_rnn")


@pytest.fixture
def model(torch, char):
    torch.manual_seed(2)
    return char["make_model"]("rnn", 18).double()


def write_data(folder, **languages):
    folder.mkdir()
    for language, content in languages.items():
        (folder / f"{language}.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def said(char, capsys, *arguments):
    """How the job ends, what it prints and what it complains of."""
    with pytest.raises(SystemExit) as ended:
        char["main"]([str(argument) for argument in arguments])
    return ended.value.code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("Ślusàrski", "Slusarski"),
        ("O'Néàl", "O'Neal"),
        ("  de la Cruz\n", "de la Cruz"),
        ("Au-Yong/B", "AuYongB"),
        ("Wałęsa", "Waesa"),
        ("佐藤 42", ""),
        ("'.,;", ""),
    ],
)
def test_a_name_is_folded_to_plain_letters(char, name, folded):
    """Accents are dropped, and so is what the alphabet does not have."""
    assert char["fold"](name) == folded
    assert len(char["ALPHABET"]) == 57


def letter_by_letter(torch, char, model, name):
    """The cell as it is described: one letter after the other, each put before what is remembered."""
    hidden, answer = torch.zeros(1, 128, dtype=torch.float64), None
    for letter in name:
        one_hot = torch.zeros(1, 57, dtype=torch.float64)
        one_hot[0, char["ALPHABET"].index(letter)] = 1
        both = torch.cat([one_hot, hidden], dim=1)
        hidden, answer = model.remember(both), model.answer(both)
    return torch.log_softmax(answer, dim=1)


@pytest.mark.slow
def test_the_table_of_votes_answers_as_a_loop_over_letters_does(torch, char, model):
    """Names of 1 to 18 letters in one batch, and the gradient of every weight, to 1e-10."""
    both = []
    for answers in (
        model(*char["encode"](NAMES)),
        torch.cat([letter_by_letter(torch, char, model, name) for name in NAMES]),
    ):
        loss = -answers[range(len(NAMES)), range(len(NAMES))].sum()
        both.append([answers, *torch.autograd.grad(loss, list(model.parameters()))])
    for ours, loops in zip(*both, strict=True):
        torch.testing.assert_close(ours, loops, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cell", CELLS)
def test_a_name_does_not_see_its_batch(torch, char, cell):
    """Alone, among longer ones, in another order and behind more padding it is answered the same, to 1e-5."""
    torch.manual_seed(1)
    net = char["make_model"](cell, 18)
    letters, lengths = char["encode"](NAMES)
    together = net(letters, lengths)
    padded = torch.nn.functional.pad(letters, (0, 5), value=57)
    alone = torch.cat([net(*char["encode"]([name])) for name in NAMES])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net(padded.flip(0), lengths.flip(0)).flip(0), together, rtol=1e-5, atol=1e-5)
    assert (together[:-1] - together[1:]).abs().amax(dim=1).min() > 1e-3


def test_draws_are_balanced_over_languages_and_over_the_names_of_each(torch, char):
    """A language of two names is drawn as often as one of a thousand, and its names equally often."""
    torch.manual_seed(0)
    drawn = char["draw_names"](torch.tensor([2, 1000, 1]), 300).flatten()
    times = torch.bincount(drawn, minlength=1003)
    assert len(times) == 1003
    assert times[:2].tolist() == pytest.approx([5000, 5000], rel=0.05)
    assert times[2:1002].sum() == pytest.approx(10_000, rel=0.05)
    assert times[1002] == pytest.approx(10_000, rel=0.05)
    assert times[2:1002].min() > 0


@pytest.mark.parametrize("cell", CELLS)
def test_the_share_of_names_recognised_is_counted_for_every_language(torch, char, cell):
    """Over all names, whatever the size of the parts that they are answered in."""
    torch.manual_seed(4)
    data = {"One": NAMES * 400, "Two": NAMES[:2] * 3}
    net = char["make_model"](cell, 2)
    guess = net(*char["encode"](NAMES)).argmax(1).float()
    expected = [[1 - guess.mean(), guess.mean()], [1 - guess[:2].mean(), guess[:2].mean()]]
    found = char["confusion_of"](net, char["gather"](data, "cpu"))
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-4)


def plain_training(torch, char, data, steps, seed):
    """A hundred names a step, at a rate that falls from 0.01 to nothing; its losses, and the mean share recognised."""
    torch.manual_seed(seed)
    net, losses = char["make_model"]("rnn", len(data)), []
    known = [(name, language) for language, names in enumerate(data.values()) for name in names]
    drawn = char["draw_names"](torch.tensor([len(names) for names in data.values()]), steps)
    adam = torch.optim.Adam(net.parameters())
    for step in range(steps):
        names, languages = zip(*(known[place] for place in drawn[step]), strict=True)
        loss = -net(*char["encode"](names))[range(100), languages].mean()
        adam.zero_grad()
        loss.backward()
        adam.param_groups[0]["lr"] = 0.01 * (steps - step) / steps
        adam.step()
        losses.append(loss.item())
    right = [
        mean(int(net(*char["encode"]([name])).argmax()) == language for name in names)
        for language, names in enumerate(data.values())
    ]
    return losses, mean(right)


def test_a_training_is_the_plain_one_and_its_means_are_told(torch, char, tmp_path, capsys):
    """A record every 5,000 draws and one at the end, which is that of a whole batch: the mean since the one before."""
    out = tmp_path / "out"
    data = write_data(tmp_path / "data", **{language: "\n".join(names) for language, names in ALIKE.items()})
    options = ["--draws", "5150", "--seed", "3", "--device", "cpu"]
    char["main"]([*options, "--data", str(data), "--out", str(out)])
    losses, right = plain_training(torch, char, ALIKE, 52, seed=3)
    first, final = records(out)
    assert [first["draws"], final["draws"]] == [5000, 5200]
    assert [first["loss"], final["loss"]] == pytest.approx([mean(losses[:50]), mean(losses[50:])], rel=1e-5)
    assert 0.1 < final["loss"] < first["loss"] < 0.7  # a guess would have log 2
    kept = result(out)
    assert {**kept, **final, "names": 5, "balanced_accuracy": pytest.approx(right)} == kept
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "cell=rnn languages=2 names=5 parameters=24180 draws=5200 device=cpu"
    assert told[2].startswith(f"draws=5200 loss={final['loss']:.6g} seconds=")
    left = {"checkpoint.pt", "confusion.png", "loss.png", "metrics.jsonl", "result.json"}
    assert {path.name for path in out.iterdir()} == left


@pytest.fixture
def checkpoint(torch, char, tmp_path):
    """As a training leaves it, of weights that nobody has trained."""
    torch.manual_seed(3)
    languages = ["Arabic", "Greek", "Irish", "Polish"]
    state = {"job": "char_rnn", "cell": "gru", "languages": languages, "alphabet": char["ALPHABET"]}
    net = char["make_model"]("gru", 4)
    char["job"].save_checkpoint(tmp_path / "checkpoint.pt", {**state, "model": net.state_dict()})
    return tmp_path / "checkpoint.pt", net, languages


@pytest.mark.parametrize("cell", ["rnn", *(pytest.param(cell, marks=pytest.mark.slow) for cell in CELLS[1:])])
def test_a_checkpoint_answers_as_its_training_ended(torch, char, tmp_path, cell):
    """The network of the file is the one that was trained."""
    last = char["train"](tmp_path, data=FEW, cell=cell, draws=100)
    net, languages = char["load"](tmp_path / "checkpoint.pt")
    assert languages == ["Greek", "Polish"]
    confusion = char["confusion_of"](net, char["gather"](FEW, "cpu"))
    assert confusion.diagonal().mean().item() == last["balanced_accuracy"]


def test_predict_tells_the_three_likeliest_languages(torch, char, checkpoint, tmp_path, capsys):
    """One line for each name in the order asked, the likeliest first, and no run folder."""
    path, net, languages = checkpoint
    options = ("--predict", "Nöwak", "--predict", "Li", "--out", tmp_path / "out")
    code, out, err = said(char, capsys, "--checkpoint", path, *options)
    assert (code, err) == (0, "")
    for line, name in zip(out.splitlines(), ["Nowak", "Li"], strict=True):
        chances = net(*char["encode"]([name]))[0].exp().tolist()
        best = sorted(zip(chances, languages, strict=True), reverse=True)[:3]
        ranked = (f"{place}={language} {chance:.2f}" for place, (chance, language) in enumerate(best, 1))
        assert line == " ".join([f"name={name}", *ranked])
    assert not (tmp_path / "out").exists()


def test_of_a_very_long_name_the_last_hundred_letters_are_read(char, checkpoint, capsys):
    """They are named, and the answer is theirs, not that of the first."""
    whole, last = (said(char, capsys, "--checkpoint", checkpoint[0], "--predict", name) for name in (LONG, LONG[-100:]))
    assert whole == last
    assert whole[1].startswith(f"name={LONG[-100:]} 1=")


def test_a_name_without_letters_gets_a_line_and_the_others_an_answer(char, checkpoint, capsys):
    """On standard error, and the job fails in the end."""
    code, out, err = said(char, capsys, "--checkpoint", checkpoint[0], "--predict", "佐藤", "--predict", "Li")
    assert (code, err) == (1, "'佐藤' has no letter of the alphabet; write it with letters from a to z\n")
    assert out.startswith("name=Li 1=")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"job": "sine_lstm"}, "is not a checkpoint of char_rnn, but of sine_lstm"),
        ({"cell": "square"}, "does not hold a network of this char_rnn"),
        ({"languages": ["One"]}, "does not hold a network of this char_rnn"),
        ({"languages": None}, "does not hold a network of this char_rnn"),
        ({"model": {}}, "does not hold a network of this char_rnn"),
        ({"model": 1}, "does not hold a network of this char_rnn"),
        ({"alphabet": "abc"}, "does not hold a network of this char_rnn"),
    ],
)
def test_what_is_not_a_checkpoint_of_ours_gets_one_line(torch, char, checkpoint, capsys, changes, complaint):
    """Another job's, or one that does not hold what it should."""
    path = checkpoint[0]
    torch.save(torch.load(path) | changes, path)
    code, out, err = said(char, capsys, "--checkpoint", path, "--predict", "Li")
    assert code.startswith(f"{path} {complaint}")
    assert ("\n" in code, out, err) == (False, "", "")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--predict", "Li"], "--predict needs --checkpoint FILE"),
        (["--predict"], "--predict needs --checkpoint FILE"),
        (["--checkpoint", "x.pt"], "--checkpoint is for --predict"),
        (["--draws", "0"], "--draws: 0 is below 1"),
        (["--cell", "tanh"], "--cell: invalid choice: 'tanh'"),
        (["--data", ""], "--data: is empty, where a path is needed"),
    ],
)
def test_a_setting_without_meaning_is_a_usage_error(char, tmp_path, capsys, options, complaint):
    """Before anything is written."""
    code, _, err = said(char, capsys, *options, "--out", tmp_path / "out")
    assert (code, complaint in err) == (2, True)
    assert not (tmp_path / "out").exists()


def test_names_are_read_from_a_file_per_language(char, tmp_path):
    """Folded, without blank lines and what becomes empty; a README is not one."""
    folder = write_data(
        tmp_path / "data", Polish="Ślusàrski\n\n  \nNowak", Greek="\ufeffPappas\r\n42\r\n", Irish="O'Néàl"
    )
    (folder / "README.md").write_text("Smith\n")
    (folder / "._Greek.txt").write_text("what some systems leave beside a file\n")
    expected = {"Greek": ["Pappas"], "Irish": ["O'Neal"], "Polish": ["Slusarski", "Nowak"]}
    assert char["read_names"](folder) == expected
    assert list(char["read_names"](folder)) == sorted(expected)


@pytest.mark.parametrize(
    ("languages", "complaint"),
    [
        (None, "data is no folder"),
        ({}, "data: 0 files of names (*.txt); telling languages apart takes two or more"),
        ({"Greek": "Pappas\n"}, "data: 1 files of names (*.txt)"),
        ({"Greek": "Pappas\n", "German": "Koch\nM\xfcller\n".encode("latin1")}, "German.txt: line 2 is not UTF-8"),
        ({"Greek": "Pappas\n", "Chinese": "王\n\n"}, "Chinese.txt: not one name with a letter from a to z in it"),
    ],
)
def test_data_that_cannot_be_used_gets_one_line(char, tmp_path, capsys, languages, complaint):
    """It names the file; nothing is written."""
    if languages is not None:
        write_data(tmp_path / "data", **languages)
    code, out, err = said(char, capsys, "--data", tmp_path / "data", "--out", tmp_path / "out")
    assert (complaint in code, "\n" in code, out, err) == (True, False, "", "")
    assert not (tmp_path / "out").exists()


def test_the_surnames_in_the_file_are_of_eighteen_languages(char):
    """Fifteen of each, whole and different."""
    found = char["built_in"]()
    assert list(found) == sorted(found)
    assert len(found) == 18
    for names in found.values():
        assert 15 <= len(set(names)) == len(names) <= 25
        assert all(len(name) > 1 and name[0].isupper() for name in names)
    assert "O'Brien" in found["Irish"]
    assert len(set(itertools.chain(*found.values()))) > 265


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "code", "lines", "complaint"),
    [
        ("Satoshi\nÖzil\n\nLi\n", 0, ["Satoshi", "Ozil", "Li"], ""),
        ("Satoshi", 0, ["Satoshi"], ""),
        ("", 0, [], ""),
        ("42\nLi\n", 1, ["Li"], "'42' has no letter of the alphabet; write it with letters from a to z\n"),
    ],
)
def test_all_names_that_come_through_a_pipe_are_answered(checkpoint, given, code, lines, complaint):
    """Without a prompt; an empty line between them is none."""
    done = start("char_rnn", "--predict", "--checkpoint", str(checkpoint[0]), input=given, capture_output=True)
    assert (done.returncode, done.stderr) == (code, complaint)
    assert [line.split()[0] for line in done.stdout.splitlines()] == [f"name={name}" for name in lines]


@pytest.mark.slow
def test_names_in_another_encoding_are_not_guessed_at(checkpoint):
    """An answer to half a name would be a wrong one."""
    argv = [sys.executable, "-P", str(FOLDER / "char_rnn.py"), "--predict", "--checkpoint", str(checkpoint[0])]
    given = "Rossi\nNicol\xf2\n".encode("latin1")
    done = subprocess.run(argv, env=os.environ | ENVIRONMENT, input=given, check=False, capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"the names that came in are not UTF-8; convert them")


@pytest.mark.slow
def test_a_damaged_checkpoint_gets_one_line(char, tmp_path):
    """One that was cut off, and one that is none."""
    for content in (b"", b"PK\x03\x04 cut", pickle.dumps(print)):
        path = tmp_path / "checkpoint.pt"
        path.write_bytes(content)
        options = ("--predict", "Li", "--checkpoint", str(path))
        done = start("char_rnn", *options, stdin=subprocess.DEVNULL, capture_output=True)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert done.stderr.startswith(f"{path} is not a whole checkpoint")


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "least"), [("rnn", 0.62), ("gru", 0.80), ("lstm", 0.80)])
def test_real_names_are_recognised(char, tmp_path, cell, least):
    """100,000 draws reach what the one-by-one loop reaches (0.60), and the well-known cells more."""
    data = shared_data("names")
    done = start("char_rnn", "--data", str(data), "--cell", cell, "--device", "cpu", "--out", str(tmp_path))
    assert done.returncode == 0
    assert result(tmp_path)["balanced_accuracy"] >= least
    assert [record["draws"] for record in records(tmp_path)] == list(range(5000, 100_001, 5000))
