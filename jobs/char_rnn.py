# /// script
# requires-python = ">=3.11"
# dependencies = ["torch", "numpy", "matplotlib", "tqdm"]
#
# [tool.gpujobs]
# threads = 1
# gpu_mem = "1GiB"
# expect = "30s"
# ///
"""Tell the language of a name, letter by letter.

A recurrent network reads a surname one letter after the other and says at the last one from which of 18 languages it
comes. The default cell is made by hand and linear, so that all it does can be seen; gru and lstm are the well-known
ones. All languages are drawn equally often: otherwise "Russian" would be a good answer to everything. A hundred names
make a step of Adam, where this lesson classically takes one of plain SGD after every name: faster, and better.

    python jobs/char_rnn.py                               270 names, at the end of this file; seconds
    python jobs/char_rnn.py --data names --out who        names/Italian.txt and so on, a name per line
    python jobs/char_rnn.py --data names --cell lstm      recognises more, and takes ten times as long
    python jobs/char_rnn.py --checkpoint who/checkpoint.pt --predict Satoshi --predict Rossi

Look at confusion.png: which languages does it mistake for each other, and would you not? It counts the very names that
were learned from: what is known by heart is among them, more of it with lstm than with the hand-made cell.
"""

from __future__ import annotations

import math
import string
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

try:
    import torch
    from matplotlib.figure import Figure
    from torch import Tensor, nn
    from torch.nn.functional import embedding, embedding_bag, log_softmax, nll_loss, pad
    from tqdm import tqdm

    from gpujobs import job
except ModuleNotFoundError as missing:
    sys.exit(f'char_rnn needs {missing.name}; install it with: pip install "gpujobs[jobs]"')
except KeyboardInterrupt:  # torch takes seconds to load
    sys.exit(130)

ALPHABET = string.ascii_letters + " .,;'"
PADDING = len(ALPHABET)  # the number of what fills up the shorter names of a batch: no letter
HIDDEN = 128  # numbers that a cell keeps of what it has read
BATCH = 100  # names per step: fewer and a CPU spends its time on small change, more and there are too few steps
LEARNING_RATE = 0.01  # of Adam at the start; falls to nothing along a line, for the last steps are the fine ones
INTERVAL = 5000  # draws per record
LIKELIEST = 3  # languages told for a name
LONGEST = 100  # letters looked at by --predict, from the end: the powers of a matrix can grow without bound
KINDS: dict[str, type[nn.GRU | nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}
Data = dict[str, list[str]]  # the names of every language


class Names(NamedTuple):
    """Names as numbers, those of one language after those of another."""

    letters: Tensor  # a row per name, filled up with PADDING
    lengths: Tensor
    languages: Tensor
    counts: Tensor  # of the names of each language


def fold(text: str) -> str:
    """A name in plain letters: é becomes e and an accent, and what is no letter here is dropped (even ł)."""
    kept = "".join(letter for letter in unicodedata.normalize("NFD", text) if letter in ALPHABET).strip()
    return kept if any(map(str.isalpha, kept)) else ""


def encode(names: list[str]) -> tuple[Tensor, Tensor]:
    """Names that are folded, as rows of numbers and their lengths."""
    longest = max(map(len, names))
    rows = [[*map(ALPHABET.index, name), *[PADDING] * (longest - len(name))] for name in names]
    return torch.tensor(rows), torch.tensor([len(name) for name in names])


def read_names(folder: Path) -> Data:
    """The names of every language, folded, from files such as Italian.txt."""
    if not folder.is_dir():
        sys.exit(f"{folder} is no folder; --data wants one with a file Language.txt for every language")
    found = {}
    for path in sorted(file for file in folder.iterdir() if file.suffix == ".txt" and file.name[0] != "."):
        content = path.read_bytes()
        try:
            lines = content.decode().splitlines()
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            sys.exit(f"{path}: line {line} is not UTF-8; convert the file, such as with iconv -f latin1 -t utf-8")
        language = path.stem.encode(errors="replace").decode()  # a file's own name need not be UTF-8
        found[language] = names = [name for name in map(fold, lines) if name]
        if not names:
            sys.exit(f"{path}: not one name with a letter from a to z in it; remove the file or give it names")
    if len(found) < 2:
        sys.exit(f"{folder}: {len(found)} files of names (*.txt); telling languages apart takes two or more")
    return found


def built_in() -> Data:
    """The surnames at the end of this file."""
    blocks = (block.split(":") for block in SURNAMES.split(".")[:-1])
    return {language.strip(): [fold(name) for name in names.split()] for language, names in blocks}


def gather(data: Data, device: str) -> Names:
    counts = torch.tensor([len(names) for names in data.values()])
    languages = torch.arange(len(counts)).repeat_interleave(counts)
    letters, lengths = encode([name for names in data.values() for name in names])
    return Names(*(part.to(device) for part in (letters, lengths, languages, counts)))


def draw_names(counts: Tensor, steps: int) -> Tensor:
    """Which names each step looks at: every time a random language, then a random name of it."""
    language = torch.randint(len(counts), (steps, BATCH), device=counts.device)
    place = torch.rand(language.shape, dtype=torch.float64, device=counts.device)  # float32 may round up to 1 x count
    return counts.cumsum(0)[language] - 1 - (place * counts[language]).long()


class HandMade(nn.Module):
    """A cell without nonlinearity: from a letter x and what it remembers, h, it makes

        h' = A x + B h + a        what it remembers next, and
        y  = C x + D h + c        what it answers; the answer at the last letter counts.

    A loop over the letters would do, slowly. But the cell is linear, and h begins as zero. Put the first line into
    itself: a letter x that stands k before the last adds D B^(k-1) (A x + a) to y. So one table says all that
    this network can ever say: the votes of each letter, at each distance from the end, for each language. A name gets
    the sum of a few rows, and the table, made anew from A, B, C and D in every step, costs the same for one name as
    for a thousand.
    """

    def __init__(self, languages: int) -> None:
        super().__init__()
        self.remember = nn.Linear(len(ALPHABET) + HIDDEN, HIDDEN)
        self.answer = nn.Linear(len(ALPHABET) + HIDDEN, languages)

    def votes(self, distances: int) -> Tensor:
        """The table: distances x letters x languages. Padding is a letter, too, without a vote."""
        a, b = self.remember.weight[:, :PADDING], self.remember.weight[:, PADDING:]
        c, d = self.answer.weight[:, :PADDING], self.answer.weight[:, PADDING:]
        # A one-hot letter times a matrix is a column of the matrix: one for each letter, and zeros for padding.
        seen = pad(a.T + self.remember.bias, (0, 0, 0, 1))
        last = pad(c.T + self.answer.bias, (0, 0, 0, 1))
        powers = [d]  # D, D B, D B^2 ...: what is left of a letter in the answer, the further it is from the end
        while len(powers) < distances - 1:
            powers.append(powers[-1] @ b)
        return torch.cat([last.unsqueeze(0), seen @ torch.stack(powers)[: distances - 1].mT])

    def forward(self, letters: Tensor, lengths: Tensor) -> Tensor:
        distance = lengths.unsqueeze(1) - 1 - torch.arange(letters.size(1), device=letters.device)
        rows = letters + distance.clamp(min=0) * (PADDING + 1)  # beyond the end is padding, without a vote anywhere
        return log_softmax(embedding_bag(rows, self.votes(letters.size(1)).flatten(0, 1), mode="sum"), dim=1)


class Known(nn.Module):
    """A layer of torch's GRU or LSTM cells, and an answer from its state after the last letter."""

    def __init__(self, cell: str, languages: int) -> None:
        super().__init__()
        self.cells = KINDS[cell](len(ALPHABET), HIDDEN, batch_first=True)
        self.answer = nn.Linear(HIDDEN, languages)
        self.register_buffer("one_hot", torch.eye(len(ALPHABET) + 1, len(ALPHABET)), persistent=False)

    def forward(self, letters: Tensor, lengths: Tensor) -> Tensor:
        # The layer reads padding as well, but only after the name: the state at the last letter knows nothing of it.
        states, _ = self.cells(embedding(letters, self.get_buffer("one_hot")))
        last = states[torch.arange(len(letters), device=letters.device), lengths - 1]
        return log_softmax(self.answer(last), dim=1)


def make_model(cell: str, languages: int) -> nn.Module:
    return HandMade(languages) if cell == "rnn" else Known(cell, languages)


@torch.no_grad()
def confusion_of(model: nn.Module, names: Names) -> Tensor:
    """Of the names of each language (rows) the share that is taken for each (columns), over all names."""
    size = len(names.counts)
    parts = torch.arange(len(names.letters), device=names.letters.device).chunk(len(names.letters) // 2000 + 1)
    guess = torch.cat([model(names.letters[part], names.lengths[part]).argmax(1) for part in parts])
    pairs = torch.bincount(names.languages * size + guess, minlength=size * size).view(size, size)
    return pairs / names.counts.unsqueeze(1)


def draw_loss(history: list[dict[str, float]], path: Path) -> None:
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([record["draws"] for record in history], [record["loss"] for record in history], marker=".")
    axes.set(title="Loss while learning", xlabel="names drawn", ylabel="mean loss since the last point (nats)")
    axes.set_ylim(bottom=0)
    job.save_figure(figure, path)


def draw_confusion(confusion: Tensor, languages: list[str], path: Path) -> None:
    figure = Figure(figsize=(9, 8), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(confusion.cpu().numpy(), vmin=0, vmax=1)
    axes.set_xticks(range(len(languages)), languages, rotation=90)
    axes.set_yticks(range(len(languages)), languages)
    right = f"{confusion.diagonal().mean().item():.1%} right, mean over languages"
    axes.set(title=f"Which language a name is taken for ({right})", xlabel="guess", ylabel="truth")
    figure.colorbar(image, label="share of the names of the true language", shrink=0.8)
    job.save_figure(figure, path)


def train(
    out: Path, *, data: Data, cell: str = "rnn", draws: int = 100_000, seed: int = 0, device: str = "cpu"
) -> dict[str, float]:
    """Train on the names in ``data``; leaves metrics, figures and a checkpoint in ``out``, returns the last figures."""
    torch.manual_seed(seed)
    model = make_model(cell, len(data)).to(device)
    steps, every = math.ceil(draws / BATCH), INTERVAL // BATCH
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    began = time.perf_counter()
    names = gather(data, device)
    drawn = draw_names(names.counts, steps)
    widths = names.lengths[drawn].amax(1).tolist()  # the longest name of every batch, fetched from the device at once
    sizes = {"names": len(names.letters), "parameters": sum(weights.numel() for weights in model.parameters())}
    print(job.line({"cell": cell, "languages": len(data), **sizes, "draws": steps * BATCH, "device": device}))
    total = torch.zeros((), device=device)
    history: list[dict[str, float]] = []

    with job.Metrics(out) as metrics, tqdm(total=steps * BATCH, unit="name", disable=None) as bar:
        for step in range(steps):
            chosen = drawn[step]
            answers = model(names.letters[chosen, : widths[step]], names.lengths[chosen])
            loss = nll_loss(answers, names.languages[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.detach()
            bar.update(BATCH)
            if (step + 1) % every == 0 or step + 1 == steps:
                mean = total.item() / (step % every + 1)  # only here the device is asked for a number, and waited for
                total.zero_()
                record = {"draws": (step + 1) * BATCH, "loss": mean, "seconds": round(time.perf_counter() - began, 3)}
                history.append(record)
                metrics.write(**record)
                bar.clear()
                print(job.line(record))

    found = {"languages": list(data), "alphabet": ALPHABET, "model": model.state_dict()}
    job.save_checkpoint(out / "checkpoint.pt", {"job": "char_rnn", "cell": cell, **found})
    confusion = confusion_of(model, names)
    draw_loss(history, out / "loss.png")
    draw_confusion(confusion, list(data), out / "confusion.png")
    return {**history[-1], "names": len(names.letters), "balanced_accuracy": confusion.diagonal().mean().item()}


def load(path: Path) -> tuple[nn.Module, list[str]]:
    """The network of a checkpoint, and its languages; on the CPU, for a single name is no work for a GPU."""
    state = job.load_checkpoint(path, "char_rnn")
    try:
        model = make_model(state["cell"], len(state["languages"]))
        model.load_state_dict(state["model"])
        if state["alphabet"] != ALPHABET:
            raise ValueError(state["alphabet"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        sys.exit(f"{path} does not hold a network of this char_rnn; train again, which writes a new one")
    return model, state["languages"]


def typed_names() -> Iterator[str]:
    """Names from the keyboard, until an empty line or Ctrl-C, or all that come through a pipe."""
    typing = sys.stdin.isatty()
    prompt = "name: " if typing else ""
    sys.stdin.reconfigure(encoding="utf-8", errors="strict")  # type: ignore[union-attr]
    try:
        while (name := input(prompt).strip()) or not typing:
            if name:
                yield name
    except (EOFError, KeyboardInterrupt):
        print(end="\n" * bool(prompt))
    except UnicodeDecodeError:
        sys.exit("the names that came in are not UTF-8; convert them, such as with iconv -f latin1 -t utf-8")


@torch.no_grad()
def predict(model: nn.Module, languages: list[str], names: Iterable[str]) -> bool:
    """A line with the likeliest languages for each name; False if one of them had no letter."""
    answered = True
    for name in names:
        if folded := fold(name):
            best = model(*encode([folded[-LONGEST:]]))[0].exp().topk(min(LIKELIEST, len(languages)))
            ranked = zip(range(1, LIKELIEST + 1), best.indices.tolist(), best.values.tolist(), strict=False)
            print(f"name={folded[-LONGEST:]}", *(f"{place}={languages[at]} {part:.2f}" for place, at, part in ranked))
        else:
            print(f"{name!r} has no letter of the alphabet; write it with letters from a to z", file=sys.stderr)
            answered = False
    return answered


def main(arguments: list[str] | None = None) -> None:
    parser = job.parser(__doc__)
    parser.add_argument("--cell", choices=("rnn", *KINDS), default="rnn", help="default: %(default)s, made by hand")
    parser.add_argument("--draws", type=job.at_least(1), default=100_000, help="of names (default: %(default)s)")
    parser.add_argument("--data", type=job.path, metavar="DIR", help="folder of Language.txt files (default: built in)")
    parser.add_argument("--predict", metavar="NAME", nargs="?", action="append", help="its language; without NAME: ask")
    parser.add_argument("--checkpoint", type=job.path, metavar="FILE", help="that a training has left, for --predict")
    options = parser.parse_args(arguments)
    if options.checkpoint and not options.predict:
        parser.error("--checkpoint is for --predict; a training always starts anew")
    if options.predict:
        if not options.checkpoint:
            parser.error("--predict needs --checkpoint FILE: the checkpoint.pt that a training has left in its folder")
        model, languages = load(options.checkpoint)
        names = chain.from_iterable(typed_names() if name is None else [name] for name in options.predict)
        sys.exit(0 if predict(model, languages, names) else 1)

    data = read_names(options.data) if options.data else built_in()  # before anything is written
    out, device = job.begin(options, most_threads=1)  # the matrices are small: two would wait for each other
    setting = {"cell": options.cell, "draws": BATCH if options.dry_run else options.draws, "seed": options.seed}
    final = train(out, data=data, **setting, device=device)
    result = {"job": "char_rnn", **setting, "dry_run": options.dry_run, "device": device, **final}
    print(f"result={job.write_result(out, result)}")


# Common surnames, to try everything without any data. So few are soon known by heart, and little is learned for others.
SURNAMES = """Arabic: Haddad Khoury Nasser Mansour Hassan Hussein Saleh Najjar Shaheen Qasim Hamdan Darwish Barakat
Sabbagh Issa. Chinese: Wang Li Zhang Liu Chen Yang Huang Zhao Wu Zhou Xu Sun Ma Zhu Hu. Czech: Novák Svoboda Novotný
Dvořák Černý Procházka Kučera Veselý Horák Němec Pokorný Marek Pospíšil Hájek Jelínek. Dutch: Jansen Bakker Visser
Smit Meijer Mulder Bos Vos Peters Hendriks Dekker Brouwer Dijkstra Hoekstra Kuipers. English: Smith Jones Taylor Brown
Williams Johnson Davies Wright Walker Thompson Robinson Green Hall Wood Clarke. French: Martin Bernard Dubois Durand
Moreau Laurent Lefèvre Leroy Roux Fournier Girard Bonnet Dupont Lambert Fontaine. German: Müller Schmidt Schneider
Fischer Weber Meyer Wagner Becker Schulz Hoffmann Schäfer Koch Bauer Richter Klein. Greek: Papadopoulos Georgiou
Nikolaidis Pappas Vlachos Angelopoulos Karagiannis Makris Dimitriou Economou Konstantinou Christodoulou Antoniou
Ioannidis Papageorgiou. Irish: Murphy Kelly O'Sullivan Walsh O'Brien Byrne Ryan O'Connor O'Neill O'Reilly Doyle
McCarthy Gallagher Doherty Kennedy. Italian: Rossi Russo Ferrari Esposito Bianchi Romano Colombo Ricci Marino Greco
Bruno Gallo Conti Mancini Costa. Japanese: Sato Suzuki Takahashi Tanaka Watanabe Ito Yamamoto Nakamura Kobayashi Kato
Yoshida Yamada Sasaki Yamaguchi Matsumoto. Korean: Kim Lee Park Choi Jung Kang Cho Yoon Jang Lim Han Oh Seo Shin Kwon.
Polish: Nowak Kowalski Wiśniewski Wójcik Kowalczyk Kamiński Lewandowski Zieliński Szymański Woźniak Dąbrowski
Kozlowski Jankowski Mazur Kwiatkowski. Portuguese: Silva Santos Ferreira Pereira Oliveira Costa Rodrigues Martins
Sousa Fernandes Gonçalves Gomes Lopes Marques Alves. Russian: Ivanov Smirnov Kuznetsov Popov Vasiliev Petrov Sokolov
Mikhailov Novikov Fedorov Morozov Volkov Alekseev Lebedev Semenov. Scottish: Campbell Stewart Robertson MacDonald
Murray Fraser Ross Cameron Hamilton Graham Ferguson Duncan Grant Kerr Gordon. Spanish: García Fernández González
Rodríguez López Martínez Sánchez Pérez Gómez Jiménez Ruiz Hernández Díaz Moreno Álvarez. Vietnamese: Nguyễn Trần Phạm
Hoàng Huỳnh Phan Vũ Võ Dặng Bùi Dỗ Hồ Ngô Dương Lý."""


if __name__ == "__main__":
    job.run(main)
