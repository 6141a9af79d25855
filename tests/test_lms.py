"""The LMS job: eight forms, the path that the rule prescribes, and the one form that starts elsewhere."""

import json

import pytest

from jobfiles import defined, records

AGREEING = ["numpy", "tensor", "autograd", "mse", "sgd", "module", "linear-zero"]


@pytest.fixture
def lms(torch):
    """Everything that the script defines."""
    return defined("lms")


@pytest.fixture
def np(torch):
    return pytest.importorskip("numpy")


def path_of(lms, form, held, answers, eta=0.1, seed=0):
    return lms["measure"](form, held, answers, eta, seed, "cpu")[0]


def plain_lms(np, signal, answers, eta):
    """The rule on the bare signal, number by number: what comes before it is zero."""
    w, path = [0.0, 0.0, 0.0], [[0.0, 0.0, 0.0]]
    for n, answer in enumerate(answers):
        taps = [signal[n - i] if n >= i else 0.0 for i in range(3)]
        error = answer - sum(w[i] * taps[i] for i in range(3))
        w = [w[i] + eta * error * taps[i] for i in range(3)]
        path.append(w)
    return np.array(path)


@pytest.mark.parametrize("form", AGREEING)
def test_a_form_takes_the_path_of_the_rule(np, lms, form):
    """All but one, over 500 samples, to 1e-12."""
    held, answers = lms["make_samples"](500, seed=4)
    path = path_of(lms, form, held, answers)
    assert (path.shape, path.dtype) == ((501, 3), np.float64)
    assert np.abs(path - plain_lms(np, held[:, 0], answers, eta=0.1)).max() < 1e-12


@pytest.mark.parametrize("form", AGREEING)
def test_three_samples_by_hand(np, lms, form):
    """The signal 1, 2, 3 with the answers 1, 0, 1 at eta 0.5."""
    held = np.array([[1.0, 0, 0], [2, 1, 0], [3, 2, 1]])
    path = path_of(lms, form, held, np.array([1.0, 0, 1]), eta=0.5)
    # Errors: 1 - 0 = 1, then 0 - 2 * 0.5 = -1, then 1 - (3 * -0.5 + 2 * -0.5) = 3.5.
    np.testing.assert_allclose(path, [[0, 0, 0], [0.5, 0, 0], [-0.5, -0.5, 0], [4.75, 3, 1.75]], rtol=0, atol=1e-15)


def test_linear_starts_elsewhere_and_arrives(np, lms):
    """From random weights, others for another seed, into the path of all others."""
    held, answers = lms["make_samples"](500, seed=0)
    standard = path_of(lms, "numpy", held, answers)
    paths = [path_of(lms, "linear", held, answers, seed=seed) for seed in (1, 1, 2)]
    for path in paths:
        assert np.abs(path - standard)[0].max() > 0.01
        assert np.abs(path - standard)[-1].max() < 1e-12
    assert np.abs(path[100:].mean(axis=0) - [0.1, 0.2, 0.3]).max() < 0.05
    assert (paths[0] == paths[1]).all()
    assert (paths[0] != paths[2])[0].all()


def test_the_filter_holds_the_last_three_values(np, lms):
    """Newest first, and zeros before the signal begins; the answers are the system's, with noise of variance 0.01."""
    held, answers = lms["make_samples"](20_000, seed=1)
    signal = held[:, 0].tolist()
    assert held[:4].tolist() == [
        [signal[0], 0, 0],
        [signal[1], signal[0], 0],
        [signal[2], signal[1], signal[0]],
        [signal[3], signal[2], signal[1]],
    ]
    noise = answers - np.convolve(signal, [0.1, 0.2, 0.3])[:20_000]
    assert np.var(noise) == pytest.approx(0.01, rel=0.05)
    assert (np.mean(signal), np.var(signal)) == (pytest.approx(0, abs=0.03), pytest.approx(1, rel=0.05))
    assert abs(np.corrcoef(noise, signal)[0, 1]) < 0.03


@pytest.mark.slow
def test_a_form_is_measured_alone_as_it_is_with_all(lms, tmp_path):
    """Next to the NumPy form; the random start of linear does not depend on what ran before it."""
    final = {}
    for form in ("all", "linear", "numpy"):
        (tmp_path / form).mkdir()
        final[form] = lms["train"](tmp_path / form, form=form, samples=20)["difference"]
    assert [record["form"] for record in records(tmp_path / "all")] == list(lms["FORMS"])
    assert [record["form"] for record in records(tmp_path / "linear")] == ["numpy", "linear"]
    assert [record["form"] for record in records(tmp_path / "numpy")] == ["numpy"]
    assert final["all"]["linear"] == final["linear"]["linear"]
    assert final["all"]["linear"] > 0.01


def test_what_is_recorded_is_what_is_returned(np, lms, tmp_path):
    """Difference and times of each form, in the order of the course; the time of a sample is that of all, shared."""
    final = lms["train"](tmp_path, samples=20, eta=0.2, seed=3)
    assert list(final["difference"]) == list(lms["FORMS"])
    assert sorted(set(lms["FORMS"]) - {"linear"}) == sorted(AGREEING)
    for record in records(tmp_path):
        for key in ("difference", "seconds", "us_per_sample"):
            assert record[key] == final[key][record["form"]]
        assert record["us_per_sample"] == pytest.approx(record["seconds"] * 1e6 / 20, abs=0.1)
    held, answers = lms["make_samples"](20, seed=3)
    assert final["weights"] == pytest.approx(plain_lms(np, held[:, 0], answers, eta=0.2)[-1], abs=1e-12)


def test_a_form_that_departs_on_its_way_is_told_when_all_is_measured(lms, tmp_path):
    """The largest difference counts, not that of the end; records and figure are there, a result is not."""
    own = defined.__wrapped__("lms")  # read anew: nobody else shall meet the form that is added here

    def strays(held, answers, eta):
        path = lms["with_tensor"](held, answers, eta)
        path[3, 1] += 2e-9
        path[-1, 2] -= 1e-9
        return path

    own["FORMS"]["strays"] = strays
    with pytest.raises(SystemExit, match=r"^strays departs from numpy by 2\.0e-09, over 1e-12; "):
        own["main"](["--form", "strays", "--samples", "20", "--device", "cpu", "--out", str(tmp_path)])
    found = {record["form"]: (record["difference"], record["difference_at_end"]) for record in records(tmp_path)}
    assert found == {"numpy": (0, 0), "strays": pytest.approx((2e-9, 1e-9), abs=1e-14)}
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"metrics.jsonl", "weights.png"}


def test_a_form_that_departs_ends_the_job(np, lms, tmp_path):
    """By name; linear may depart as far as it likes."""
    apart = dict.fromkeys(lms["FORMS"], 9e-13) | {"linear": 0.5}
    lms["check"](apart)
    with pytest.raises(SystemExit, match=r"^sgd departs from numpy by 2\.0e-12, over 1e-12; "):
        lms["check"](apart | {"sgd": 2e-12})
    with pytest.raises(SystemExit, match="mse departs from numpy by nan"):
        lms["check"](apart | {"mse": float("nan")})


@pytest.mark.parametrize("eta", [0.8, 5.0])
def test_an_eta_that_makes_the_weights_run_away_is_told(lms, tmp_path, eta):
    """In one line that names it, before anything is written; even where they pass what a float64 can hold."""
    out = tmp_path / "out"
    with pytest.raises(SystemExit, match=f"^eta={eta:g} is too large: "):
        lms["main"](["--samples", "2000", "--eta", str(eta), "--out", str(out)])
    assert not out.exists()


@pytest.mark.parametrize("eta", ["0", "-0.1", "nan", "inf", "much"])
def test_an_eta_without_meaning_is_a_usage_error(lms, tmp_path, capsys, eta):
    """Before anything is written."""
    with pytest.raises(SystemExit, match="2"):
        lms["main"](["--eta", eta, "--out", str(tmp_path / "out")])
    assert "argument --eta: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_table_of_times_is_aligned(lms):
    """A line per form, all of one width."""
    times = {form: 1e-3 * 4**place for place, form in enumerate(lms["FORMS"])}
    costs = {form: 2000 * seconds for form, seconds in times.items()}
    final = {"seconds": times, "us_per_sample": costs, "difference": dict.fromkeys(times, 5.55e-17)}
    head, *rows = lms["table"](final).splitlines()
    assert head.split() == ["form", "seconds", "us/sample", "difference"]
    assert rows[0] == "numpy          0.0010        2.0     5.6e-17"
    assert [row.split()[0] for row in rows] == list(lms["FORMS"])
    assert {len(row) for row in rows} == {len(head)}


@pytest.mark.slow
def test_the_times_are_printed_and_kept(lms, tmp_path, capsys):
    """As a table before the last line, and as entries of the result."""
    lms["main"](["--dry-run", "--device", "cpu", "--out", str(tmp_path)])
    first, *_ = lines = capsys.readouterr().out.splitlines()
    result = json.loads((tmp_path / "result.json").read_text())
    assert first == "samples=20 weights=3 eta=0.1 device=cpu"
    assert lines[9:] == [*lms["table"](result).splitlines(), f"result={tmp_path / 'result.json'}"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_no_seed_departs(lms, tmp_path, seed):
    """At full size: the check at the end passes, and the weights are near the true ones."""
    final = lms["train"](tmp_path, seed=seed)
    assert final["weights"] == pytest.approx([0.1, 0.2, 0.3], abs=0.2)
    assert final["difference"]["linear"] > 0.01
