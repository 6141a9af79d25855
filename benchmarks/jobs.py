"""How much faster the built-in jobs are than plain loops over the same data, and whether they learn as much.

Every case trains in a process of its own, with the same data, seed and threads; ours runs before and after the plain
one, and the mean of both counts. sine_lstm is the same training with the layers computed otherwise, and its losses have
to be equal. char_rnn and mnist_rnn go through as many names and images as the plain loops, but take other steps (see
their docstrings), and are judged by what they recognise in the end. Timed is from the first use of the data in memory
to the end of the training; for mnist_rnn its test too, for sine_lstm the figures too, which both sides draw.

Bars: sine_lstm 2 x on a CPU and 20 x on a GPU, losses equal to 1e-3; char_rnn 20 x, balanced accuracy 0.60; mnist_rnn
1.3 x, accuracy 0.97; the eight forms of lms are timed, and have to agree to 1e-12.

Without DIR the digits are printed ones and the names those that the job brings along: the times say the same, the
accuracies do not.

    python benchmarks/jobs.py --data DIR               DIR/mnist and DIR/names; about five minutes on two CPU cores
    python benchmarks/jobs.py sine_lstm --device cuda  one of them, on a GPU
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from measuring import keep

CHECKOUT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("GPUJOBS_TEST_DATA") or CHECKOUT.parent / "shared/data")
SINE_STEPS = 3  # of L-BFGS: sixty evaluations, after which losses of one training may drift apart by rounding
DRAWS, EPOCHS = 100_000, 2
BARS = {"sine_lstm": 2.0, "char_rnn": 20.0, "mnist_rnn lstm": 1.3, "mnist_rnn gru": 1.3}  # times faster
LEAST = {"char_rnn": 0.60, "mnist_rnn lstm": 0.97, "mnist_rnn gru": 0.97}  # recognised

Figures = dict[str, Any]


def script(name: str) -> Figures:
    return runpy.run_path(str(CHECKOUT / f"jobs/{name}.py"))


def sine(plain: bool, out: Path, options: argparse.Namespace) -> Figures:
    """The whole job, with the future predicted and drawn in every step; in the plain form with a loop over cells."""
    job = script("sine_lstm")
    if plain:
        import naive

        job["train"].__globals__["NextPoint"] = naive.SineCells
    else:
        job["job"].keep_memory()
    begin = time.perf_counter()
    job["train"](out, steps=SINE_STEPS, device=options.device)
    seconds = (time.perf_counter() - begin) / SINE_STEPS
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {"seconds": seconds, "losses": [step["train_loss"] for step in steps]}


def char(plain: bool, out: Path, options: argparse.Namespace) -> Figures:
    job = script("char_rnn")
    folder = options.data / "names"
    data = job["read_names"](folder) if folder.is_dir() else job["built_in"]()
    job["torch"].set_num_threads(1)  # as the job's own main does; so little work is not shared
    if plain:
        import naive

        return naive.name_by_name(data, job["ALPHABET"], DRAWS, 0, options.device)
    return dict(job["train"](out, data=data, draws=DRAWS, device=options.device))  # its seconds end with the last draw


def mnist(cell: str) -> Callable[[bool, Path, argparse.Namespace], Figures]:
    def case(plain: bool, out: Path, options: argparse.Namespace) -> Figures:
        job = script("mnist_rnn")
        folder = options.data / "mnist"
        if folder.is_dir():
            train, test = (job["read_digits"](folder, part) for part in ("train", "t10k"))
        else:
            printed, test = job["print_sets"](0, "cpu", 60_000, 10_000)
            train = next(printed)
        if plain:
            import naive

            arrays = ((images.numpy(), labels.numpy()) for images, labels in (train, test))
            return naive.image_by_image(*arrays, cell, EPOCHS, 0, options.device)
        job["job"].keep_memory()  # this and the next line as in the job's own main
        job["torch"].set_float32_matmul_precision("medium")
        device = options.device
        digits = ([tuple(part.to(device) for part in train)] * EPOCHS, tuple(part.to(device) for part in test))
        final = job["train"](out, digits=digits, cell=cell, epochs=EPOCHS, device=device)
        return {"seconds": final["seconds"], "accuracy": final["test_accuracy"]}  # with the test, without the figures

    return case


def lms(_: bool, out: Path, options: argparse.Namespace) -> Figures:
    job = script("lms")
    job["torch"].set_num_threads(1)
    return dict(job["train"](out, device=options.device))


CASES = {
    "sine_lstm": sine,
    "char_rnn": char,
    "mnist_rnn lstm": mnist("lstm"),
    "mnist_rnn gru": mnist("gru"),
    "lms": lms,
}


def measure(case: str, plain: bool, options: argparse.Namespace) -> Figures:
    """The figures of one training, in a process of its own."""
    argv = [sys.executable, "-P", __file__, "--worker", case, "--data", str(options.data), "--device", options.device]
    argv += ["--plain"] * plain
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(argv, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    print(f"{case}, {'plain' if plain else 'ours'}: {done.stdout.strip()}", file=sys.stderr)
    return dict(json.loads(done.stdout))


def work(options: argparse.Namespace) -> None:
    """What happens in that process: the training's own lines go nowhere, its figures to the standard output."""
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
        figures = CASES[options.worker](options.plain, Path(out), options)
    print(json.dumps({key: value.tolist() if hasattr(value, "tolist") else value for key, value in figures.items()}))


def compare(case: str, options: argparse.Namespace) -> Figures:
    ours, plain, again = (measure(case, plain, options) for plain in (False, True, False))
    seconds = statistics.mean([ours["seconds"], again["seconds"]])
    faster, learned = plain["seconds"] / seconds, quality(ours, plain)
    bar = 20.0 if case == "sine_lstm" and options.device != "cpu" else BARS[case]
    equal = learned.get("largest_relative_difference", 0) <= 1e-3
    enough = learned.get("balanced_accuracy", learned.get("accuracy", 1)) >= LEAST.get(case, 0)
    return {
        "seconds": round(seconds, 3),
        "plain_seconds": round(plain["seconds"], 3),
        "times_faster": round(faster, 2),
        "bar": bar,
        "met": faster >= bar and equal and enough,
        **learned,
    }


def quality(ours: Mapping[str, Any], plain: Mapping[str, Any]) -> Figures:
    """What was learned: accuracies, or how far the losses are apart at most."""
    kinds = [kind for kind in ("balanced_accuracy", "accuracy") if kind in ours]
    found: Figures = {kind: round(ours[kind], 4) for kind in kinds}
    found |= {f"plain_{kind}": round(plain[kind], 4) for kind in kinds}
    if "losses" in ours:
        apart = [abs(one - other) / other for one, other in zip(ours["losses"], plain["losses"], strict=True)]
        found |= {"losses": ours["losses"], "plain_losses": plain["losses"], "largest_relative_difference": max(apart)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"of {', '.join(CASES)} (default: all)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with mnist and names (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads (default: %(default)s)")
    parser.add_argument("--worker", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    chosen = [case for case in CASES if not options.jobs or case.split()[0] in options.jobs or case in options.jobs]
    if unknown := [job for job in options.jobs if not any(job in {case, case.split()[0]} for case in CASES)]:
        parser.error(f"there is no case {unknown[0]!r}; choose from {', '.join(CASES)}")
    figures = {case: measure(case, False, options) if case == "lms" else compare(case, options) for case in chosen}
    if len(chosen) < len(CASES):
        print(json.dumps(figures, indent=1))  # the file has all of them, measured on one day
        return
    data = {name: "real" if (options.data / name).is_dir() else "the job's own" for name in ("mnist", "names")}
    kept = "jobs" if options.device == "cpu" else f"jobs-{options.device.replace(':', '')}"
    keep(kept, {"threads": options.threads, "device": device_name(options.device), "data": data, **figures})


def device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"


if __name__ == "__main__":
    main()
