"""Train the built-in jobs and keep small copies of their figures for docs/jobs.md: ``make pictures``.

Takes one or two minutes on two CPU cores. With ``--mnist DIR`` and ``--names DIR`` the pictures are of real data;
without them, of the digits and names that the jobs bring along.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

CHECKOUT = Path(__file__).resolve().parent.parent
PICTURES = CHECKOUT / "docs/pictures"
WIDTH = 640  # pixels; a page shows them no wider
FIGURES = {
    "sine_lstm": ("predict5.png", "predict9.png"),
    "mnist_rnn": ("loss.png", "mistakes.png"),
    "char_rnn": ("loss.png", "confusion.png"),
    "lms": ("weights.png",),
    "slope_lstm": ("slopes.png",),
    "disc_mlp": ("points.png", "surface.png"),
}


def shrink(figure: Path, to: Path) -> None:
    """Smaller, and with a palette of 256 colours: a drawing needs no more."""
    with Image.open(figure) as picture:
        height = round(picture.height * WIDTH / picture.width)
        small = picture.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
    small.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(to, optimize=True)


def main() -> None:
    """Train, shrink, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", type=Path, help="the four IDX files (default: digits drawn by the job)")
    parser.add_argument("--names", type=Path, help="one file of names per language (default: the job's own list)")
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"of {', '.join(FIGURES)} (default: all)")
    options = parser.parse_args()
    if unknown := [job for job in options.jobs if job not in FIGURES]:
        parser.error(f"there is no picture of {unknown[0]!r}; choose from {', '.join(FIGURES)}")

    data = {
        "mnist_rnn": ["--data", str(options.mnist)] if options.mnist else ["--synthetic"],
        "char_rnn": ["--data", str(options.names)] if options.names else [],
    }
    PICTURES.mkdir(exist_ok=True)
    for job in options.jobs or FIGURES:
        with tempfile.TemporaryDirectory() as out:
            script = [sys.executable, "-P", str(CHECKOUT / f"jobs/{job}.py"), "--device", "cpu", "--out", out]
            subprocess.run([*script, *data.get(job, [])], check=True)
            for figure in FIGURES[job]:
                shrink(Path(out) / figure, PICTURES / f"{job}-{figure}")


if __name__ == "__main__":
    main()
