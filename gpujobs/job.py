"""What a job file may import: common options, where to write, on which device, with how many threads.

The runner says all of it through the environment. Without the runner every answer has a sensible default, so
``python jobs/NAME.py`` works as it stands. Standard library only: importing this costs a job nothing. Where torch is
needed, it is the one that the job has loaded.
"""

from __future__ import annotations

import argparse
import ctypes
import io
import json
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of <malloc.h>
_LARGEST = 2**63 - 1  # whole number that torch takes, as a seed for example


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every job has, spelled the same in all of them."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seed", type=at_least(0), default=0, help="of all that is random (default: %(default)s)")
    made.add_argument("--device", help="such as cuda:0 (default: what the runner gave, else cuda, else cpu)")
    made.add_argument("--out", type=path, help="folder for the results (default: the run's, else a new one)")
    made.add_argument("--dry-run", action="store_true", help="one tiny step of everything, in seconds")
    return made


def at_least(minimum: int) -> Callable[[str], int]:
    """The type of an option that is a whole number from ``minimum`` up."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not minimum <= value <= _LARGEST:
            bound = f"below {minimum}" if value < minimum else f"above {_LARGEST}"
            raise argparse.ArgumentTypeError(f"{value} is {bound}")
        return value

    return whole_number


def path(text: str) -> Path:
    """The type of an option that is a file or a folder; nothing, as of an unset variable, is neither."""
    if not text:
        raise argparse.ArgumentTypeError("is empty, where a path is needed")
    return Path(text)


def begin(options: argparse.Namespace, most_threads: int | None = None) -> tuple[Path, str]:
    """Where to write and on which device, as the options say; torch is given the threads that the runner granted.

    ``most_threads`` is how many the job can make use of: threads that share too little work wait for each other.
    """
    torch, granted = sys.modules.get("torch"), threads()
    counts = [count for count in (granted, most_threads) if count]
    if torch is not None and counts:
        torch.set_num_threads(min(counts))
    chosen = device(options.device)  # before the folder: a mistyped device leaves nothing behind
    try:
        folder = run_dir(options.out)
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}; name another folder with --out")
    if options.dry_run and (folder / "result.json").exists():
        sys.exit(f"{folder} holds the result of a run, which a dry run would replace; name another folder with --out")
    return folder, chosen


def run(main: Callable[[], None]) -> None:
    """Call a job's ``main``; Ctrl-C, a full disk or GPU and the like end it with one line instead of a traceback."""
    name = Path(sys.argv[0]).stem
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by whoever started us: what is written there goes nowhere
            setattr(sys, stream, io.TextIOWrapper(io.FileIO(os.devnull, "w")))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # whoever follows a log sees a line when it is printed
    try:
        main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{name}: interrupted; what is written so far stays\n")
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever started us can tell that it was Ctrl-C
        signal.raise_signal(signal.SIGINT)
    except BrokenPipeError:  # such as `| head`: nobody reads on, which is no reason to complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        sys.exit(f"{name}: {place}{error.strerror or error}")
    except (MemoryError, RuntimeError) as error:
        said = (str(error) or "out of memory").splitlines()[0]
        if isinstance(error, MemoryError) or "out of memory" in said or "can't allocate memory" in said:
            sys.exit(f"{name}: {said}; free some, take a device with more (--gpu-mem of gpujobs run), or ask for less")
        raise


def run_dir(out: str | Path | None = None, environ: Mapping[str, str] = os.environ, runs: Path = Path("runs")) -> Path:
    """Where this run writes, made if need be: ``--out``, else the runner's folder, else a fresh one in ``runs``."""
    chosen = out or environ.get("GPUJOBS_RUN_DIR")
    if not chosen:
        return _fresh_folder(runs)
    folder = Path(chosen)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def device(chosen: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """The torch device: ``--device``, else the runner's choice, else ``cuda`` where torch sees one, else ``cpu``.

    One that torch cannot use ends the job with a line that says so.
    """
    torch = sys.modules.get("torch")  # never imported here: a job without torch must not pay for it
    named = chosen or environ.get("GPUJOBS_DEVICE")
    if torch is None:
        return named or "cpu"
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not named:
        return "cuda" if cards else "cpu"
    try:
        torch.zeros(1, device=named).item()
    except (RuntimeError, AssertionError, ImportError) as error:  # a torch without CUDA says it by an assertion
        usable = ", ".join(["cpu", *(f"cuda:{card}" for card in range(cards))])
        reason = str(error).splitlines()[0].split(". ")[0][:200]
        sys.exit(f"device {named!r} cannot be used here: {reason}; torch can use: {usable}")
    return named


def threads(environ: Mapping[str, str] = os.environ) -> int | None:
    """How many CPU threads the runner granted; None without a runner."""
    granted = environ.get("GPUJOBS_THREADS")
    return int(granted) if granted else None


def keep_memory() -> bool:
    """Keep freed memory for the next allocation, for a job that works on large tensors on the CPU; False if it cannot.

    glibc hands every large block back to the kernel and takes it again a moment later, page by page and zeroed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))


class Metrics:
    """Writes one JSON line per record to ``metrics.jsonl``; each can be read as soon as it is written.

    The file is that of one run: what an earlier one left there goes, unless this one is ``resumed`` from it.
    """

    def __init__(self, folder: Path, resumed: bool = False) -> None:
        self._path = folder / "metrics.jsonl"
        self._file = self._path.open("ab" if resumed else "wb", buffering=0)

    def write(self, **record: Any) -> None:
        """One record. NaN and infinity become null, because JSON has neither."""
        content, good = json.dumps(_plain(record)).encode() + b"\n", self._file.seek(0, os.SEEK_END)
        try:
            while content:
                content = content[self._file.write(content) :]
        except OSError as error:
            if self._path.is_file():
                self._file.truncate(good)  # half a record would make the whole file unreadable
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def line(record: Mapping[str, Any]) -> str:
    """A record as it is printed: ``step=3 loss=0.0123``."""
    values = ((key, f"{value:.6g}" if isinstance(value, float) else value) for key, value in _plain(record).items())
    return " ".join(f"{key}={value}" for key, value in values)


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which gets its name only at the end: under that name it is whole or not there."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            yield file
        aside.replace(path)
    except OSError as error:
        if error.filename or not error.errno:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk does not say which file it was
    finally:
        aside.unlink(missing_ok=True)


def write_result(folder: Path, result: Mapping[str, Any]) -> Path:
    """Keep the final result as ``result.json``."""
    path = folder / "result.json"
    content = json.dumps(_plain(result), indent=2) + "\n"
    with whole(path) as file:
        file.write(content.encode())
    return path


def save_figure(figure: Any, path: Path, dpi: int = 100) -> Path:
    """Keep a matplotlib figure as PNG; ``dpi`` is in pixels per inch."""
    with whole(path) as file:
        figure.savefig(file, format="png", dpi=dpi)
    return path


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> Path:
    """Keep tensors, numbers and text with ``torch.save``."""
    content = io.BytesIO()  # torch, writing by itself, turns a full disk into an error that does not say so
    sys.modules["torch"].save(dict(state), content)
    with whole(path) as file:
        file.write(content.getbuffer())
    return path


def load_checkpoint(path: Path, job: str, device: str = "cpu") -> dict[str, Any]:
    """What ``save_checkpoint`` kept; its ``job`` must be this one. Nothing in the file is ever executed.

    What cannot be read, or is another job's, ends the job with a line that names the file.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        sys.exit(f"{path}: there is no such checkpoint; a training leaves one in its folder")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats that it goes on to refuse
            state = sys.modules["torch"].load(io.BytesIO(_undamaged(content)), map_location=device, weights_only=True)
    except Exception as error:  # damage makes the decoder fail in ten different ways
        reason = f"{path} is not a whole checkpoint ({type(error).__name__}); use one that {job} has written"
        raise SystemExit(reason) from error
    if not isinstance(state, dict) or state.get("job") != job:
        found = state.get("job") if isinstance(state, dict) else None
        sys.exit(f"{path} is not a checkpoint of {job}, but of {found or 'something else'}")
    return state


def _undamaged(archive: bytes) -> bytes:
    """The archive itself, once the checksums in it are found right: torch reads it without looking at them."""
    import zipfile

    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        if damaged := files.testzip():
            raise ValueError(f"{damaged} has another checksum")
    return archive


def _fresh_folder(parent: Path) -> Path:
    name = f"{Path(sys.argv[0]).stem or 'job'}-{time.strftime('%Y%m%d-%H%M%S')}"
    for attempt in range(1, 1000):  # two runs of one second get two folders
        folder = parent / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{parent / name} and 998 folders of that name with a number are taken")


def _plain(value: Any) -> Any:
    """As JSON can hold it: tensors and arrays as numbers and lists, what is left as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # of NumPy and of torch, their scalars included
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)
