"""The digits job: files that are read, refused or fetched, digits that are printed, and cells that learn to read."""

import gzip
import hashlib
import itertools
import re
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from statistics import mean

import pytest

from jobfiles import defined, records, result, shared_data


@pytest.fixture
def mnist(torch):
    """Everything that the script defines."""
    return defined("mnist_rnn")


def idx(magic, sizes, values):
    return struct.pack(f">{1 + len(sizes)}I", magic, *sizes) + bytes(values)


def images_of(count):
    """As many images as asked for, each with other pixels."""
    return idx(2051, (count, 28, 28), (value % 251 for value in range(count * 784)))


def labels_of(*labels):
    return idx(2049, (len(labels),), labels)


def make_set(folder, count=3, suffix=""):
    """The four files with a few images each, one more to test on than to train on."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, most in (("train", count), ("t10k", count + 1)):
        for kind, content in (("images-idx3", images_of(most)), ("labels-idx1", labels_of(*range(most)))):
            packed = gzip.compress(content) if suffix else content
            (folder / f"{part}-{kind}-ubyte{suffix}").write_bytes(packed)


def said(call, *arguments):
    """The one line with which a call ends the job."""
    with pytest.raises(SystemExit) as ended:
        call(*arguments)
    line = str(ended.value.code)
    assert "\n" not in line
    return line


@pytest.fixture
def server():
    """A web server with the files that a test puts into it by path; what it does not have is not found."""
    files, asked = {}, []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            content, promised = files.get(self.path, (None, 0))
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(promised))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}", files, asked
        serving.shutdown()
        thread.join()


def whole(content):
    return content, len(content)


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_are_read_plain_and_packed(torch, mnist, tmp_path, suffix):
    """Every pixel and every label in its place; of a longer file as many as asked for."""
    make_set(tmp_path, suffix=suffix)
    images, labels = mnist["read_digits"](tmp_path, "train")
    assert (images.shape, images.dtype) == ((3, 28, 28), torch.uint8)
    assert images.flatten().tolist() == [value % 251 for value in range(3 * 784)]
    assert labels.tolist() == [0, 1, 2]
    assert [len(part) for part in mnist["read_digits"](tmp_path, "t10k", 2)] == [2, 2]


DAMAGES = {
    "images-empty": ("images-idx3", b"", r"\(0 bytes\) begins with 0, where MNIST has 2051"),
    "images-are-labels": ("images-idx3", labels_of(1, 2, 3), "begins with 2049, where MNIST has 2051"),
    "images-only-a-magic": ("images-idx3", images_of(3)[:9], r"\(9 bytes\) begins with 2051, .* and then 3 sizes"),
    "images-short": ("images-idx3", images_of(3)[:-1], "has 2351 values, where its header says 3x28x28"),
    "images-long": ("images-idx3", images_of(3) + b"x", "has 2353 values, where its header says 3x28x28"),
    "images-small": ("images-idx3", idx(2051, (3, 27, 28), bytes(3 * 27 * 28)), "holds 3x27x28 values"),
    "images-none": ("images-idx3", images_of(0), "holds 0x28x28 values"),
    "images-half-packed": ("images-idx3", gzip.compress(images_of(3))[:-9], "cannot be unpacked"),
    "images-badly-packed": ("images-idx3", gzip.compress(images_of(3))[:-8] + bytes(8), "cannot be unpacked"),
    "images-no-stream": ("images-idx3", gzip.compress(b"")[:10] + b"\xff" * 40, "cannot be unpacked"),
    "labels-are-images": ("labels-idx1", images_of(3), "begins with 2051, where MNIST has 2049"),
    "labels-short": ("labels-idx1", labels_of(0, 1, 2)[:-1], "has 2 values, where its header says 3"),
    "labels-too-few": ("labels-idx1", labels_of(0, 1), "has 2 labels for the 3 images of train-images-idx3-ubyte"),
    "labels-ten": ("labels-idx1", labels_of(0, 10, 2), "has a label 10, where MNIST has 0 to 9"),
}


@pytest.mark.parametrize(("kind", "content", "found"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_named_with_what_was_found_and_the_way_out(mnist, tmp_path, kind, content, found):
    """In one line, and before anything is written."""
    make_set(tmp_path)
    path = tmp_path / f"train-{kind}-ubyte"
    path.write_bytes(content)
    line = said(mnist["main"], ["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert re.search(f"^{re.escape(str(path))} .*{found}.*--data.*--synthetic$", line)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", [".", "raw", "MNIST/raw"])
def test_the_folder_of_a_collection_is_found_below_the_one_named(mnist, tmp_path, layout):
    """As they lie, as unpacked by hand, as torchvision leaves them."""
    make_set(tmp_path / layout, suffix=".gz")
    assert mnist["find_mnist"](tmp_path) == tmp_path / layout


def test_a_named_folder_without_mnist_is_an_error_that_says_what_is_missing(mnist, tmp_path):
    """And where it was looked for; nothing is downloaded in its place."""
    make_set(tmp_path / "raw")
    (tmp_path / "raw/t10k-labels-idx1-ubyte").unlink()
    line = said(mnist["main"], ["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert line.startswith(f"--data {tmp_path}: no t10k-labels-idx1-ubyte, plain or .gz; looked in {tmp_path}, ")
    assert line.endswith("or use --synthetic")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["cache/gpujobs/mnist", "here/data/MNIST/raw"])
def test_without_a_named_folder_the_usual_places_are_looked_into(mnist, tmp_path, place):
    """The cache, and where torchvision keeps its copy."""
    make_set(tmp_path / place)
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert mnist["find_mnist"](None, environ, tmp_path / "here") == tmp_path / place


def test_files_are_downloaded_once(mnist, tmp_path, server):
    """What is there stays, what is missing is fetched, and nothing is left beside it."""
    mirror, files, asked = server
    contents = {name: gzip.compress(name.encode()) for name in ("one", "two")}
    files.update({f"/{name}.gz": whole(content) for name, content in contents.items()})
    checksums = {name: md5(content) for name, content in contents.items()}
    for _ in range(2):
        mnist["download"](tmp_path / "new", (mirror,), checksums)
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == {
        f"{name}.gz": content for name, content in contents.items()
    }
    assert asked == ["/one.gz", "/two.gz"]


@pytest.mark.parametrize("first", [whole(b"something else"), (b"con", 7), None], ids=["wrong", "truncated", "absent"])
def test_where_the_first_mirror_fails_the_second_is_asked(mnist, tmp_path, server, capfd, first):
    """Whether it has another file, half of it or none."""
    mirror, files, asked = server
    files["/b/one.gz"] = whole(b"content")
    if first:
        files["/a/one.gz"] = first
    mnist["download"](tmp_path, (f"{mirror}/a", f"{mirror}/b"), {"one": md5(b"content")})
    assert (tmp_path / "one.gz").read_bytes() == b"content"
    assert asked == ["/a/one.gz", "/b/one.gz"]
    assert capfd.readouterr().err == f"downloading {mirror}/a/one.gz\ndownloading {mirror}/b/one.gz\n"


def test_without_a_mirror_one_line_names_every_failure_and_both_ways_out(mnist, tmp_path, server):
    """A wrong file, a cut one, none and nobody listening; nothing is kept."""
    mirror, files, _ = server
    files.update({"/a/one.gz": whole(b"something else"), "/b/one.gz": (b"con", 7)})
    with socket.socket() as taken:  # bound and not listening: whoever connects is turned away
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        mirrors = (f"{mirror}/a", f"{mirror}/b", f"{mirror}/c", nobody)
        line = said(mnist["download"], tmp_path / "new", mirrors, {"one": md5(b"content")})
    found = re.match(
        rf"one.gz cannot be downloaded \({mirror}/a: 14 bytes of MD5 \w+ instead of {md5(b'content')}; "
        rf"{mirror}/b: .*\b3 bytes.*; {mirror}/c: Not Found; {nobody}: .*refused\); .*--data DIR.*--synthetic$",
        line,
    )
    assert found, line
    assert not (tmp_path / "new").exists()


def test_the_mirrors_are_asked_safely(mnist):
    """Over https, each for four files with their checksums."""
    assert [mirror.partition(":")[0] for mirror in mnist["MIRRORS"]] == ["https", "https"]
    assert [len(checksum) for checksum in mnist["CHECKSUMS"].values()] == [32] * 4


def test_printed_digits_look_like_mnist(torch, mnist):
    """28x28 bytes, bright on black, all ten of them, none cut off at the edge of its stencil."""
    images, labels = next(mnist["print_digits"](400, 1, "cpu"))
    assert (images.shape, images.dtype) == ((400, 28, 28), torch.uint8)
    assert sorted(set(labels.tolist())) == list(range(10))
    assert images.flatten(1).amax(1).min() > 150
    assert images.float().mean() == pytest.approx(33, abs=15)  # in MNIST it is 33
    assert images[:, 10:18, 10:18].float().mean() > 5 * images[:, :3].float().mean()


def test_a_seed_makes_the_printed_digits(torch, mnist):
    """The same ones from the same seed, others from another, and never the same set twice."""
    first, again, other = (mnist["print_digits"](20, seed, "cpu") for seed in (1, 1, 2))
    images, labels = next(first)
    same_images, same_labels = next(again)
    assert torch.equal(images, same_images)
    assert torch.equal(labels, same_labels)
    assert not torch.equal(images, next(other)[0])
    assert not torch.equal(images, next(first)[0])


def test_training_and_test_digits_never_come_from_one_seed(torch, mnist):
    """Nor do those of two runs whose seeds are neighbours."""
    sets = []
    for seed in range(2):
        training, test = mnist["print_sets"](seed, "cpu", 100, 100)
        sets += [next(training)[0], test[0]]
    different = [not torch.equal(one, other) for place, one in enumerate(sets) for other in sets[:place]]
    assert different == [True] * 6


def test_a_test_digit_is_read_alone_as_in_a_batch(torch, mnist):
    """In the order of the images, over the edge of a batch."""
    torch.manual_seed(0)
    model = mnist["RowReader"]("gru")
    images, _ = next(mnist["print_digits"](1003, 1, "cpu"))
    said = mnist["read_all"](model, images)
    assert said.shape == (1003,)
    for place in (0, 999, 1000, 1002):
        assert said[place] == model(images[place : place + 1]).argmax()


@pytest.mark.slow
def test_misread_digits_are_shown_in_a_figure(torch, mnist, tmp_path):
    """As many as were misread, up to 24; the right ones are left out."""
    from matplotlib.image import imread

    images = torch.full((30, 28, 28), 255, dtype=torch.uint8)
    labels = torch.zeros(30, dtype=torch.int64)
    black = []
    for wrong in (0, 1, 24, 30):
        mnist["draw_mistakes"](images, (torch.arange(30) < wrong).long(), labels, tmp_path / "mistakes.png")
        black.append((imread(tmp_path / "mistakes.png")[80:, :, :3].max(2) == 0).sum())
    assert black[0] == 0
    assert black[1] > 3000  # one digit's square
    assert black[2] > 20 * black[1] * 0.9
    assert black[3] == pytest.approx(black[2], rel=0.01)


def test_two_sources_of_digits_are_a_usage_error(mnist, tmp_path, capsys):
    """Before anything is written."""
    with pytest.raises(SystemExit, match="2"):
        mnist["main"](["--data", str(tmp_path), "--synthetic", "--out", str(tmp_path / "out")])
    assert "--data and --synthetic" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_the_loss_falls(torch, mnist, tmp_path, cell):
    """With every cell, on a few printed digits seen again and again; the last record tells how many are read."""
    digits = next(mnist["print_digits"](1000, 1, "cpu"))
    last = mnist["train"](tmp_path, digits=(itertools.repeat(digits), digits), cell=cell, epochs=20)
    first, *_, final, summary = records(tmp_path)
    assert [record["step"] for record in records(tmp_path)] == [100, 200, 200]
    assert final["loss"] < 0.6 * first["loss"] < 0.6 * 2.4
    assert last == summary
    assert last["test_accuracy"] > 0.6


def plain_training(torch, sets, test, cell, seed):
    """The loss of every image in every step, and the share of the test digits that is read right at the end."""
    torch.manual_seed(seed)
    layers = getattr(torch.nn, cell.upper())(28, 128, num_layers=2, batch_first=True)
    answer = torch.nn.Linear(128, 10)
    adam = torch.optim.Adam([*layers.parameters(), *answer.parameters()])
    steps, losses = sum(-(-len(labels) // 100) for _, labels in sets), []
    for images, labels in sets:
        order = torch.randperm(len(labels))
        for start in range(0, len(labels), 100):
            chosen = order[start : start + 100]
            said = answer(layers((images[chosen] - 33.3) / 78.6)[0][:, -1])
            loss = -said.log_softmax(1)[range(len(chosen)), labels[chosen]]
            adam.zero_grad()
            loss.mean().backward()
            adam.param_groups[0]["lr"] = 0.001 * (steps - len(losses)) / steps
            adam.step()
            losses.append(loss.tolist())
    said = answer(layers((test[0] - 33.3) / 78.6)[0][:, -1]).argmax(1)
    return losses, mean((said == test[1]).tolist())


@pytest.mark.parametrize(("cell", "epochs"), [("rnn", 2), pytest.param("gru", 51, marks=pytest.mark.slow)])
def test_a_training_is_the_plain_one_and_its_means_are_told(torch, mnist, tmp_path, cell, epochs):
    """Every epoch shuffles another set, whose last batch is small; a mean is that of all images since the last one."""
    digits = mnist["print_digits"](103, 1, "cpu")
    test, *sets = itertools.islice(digits, 1 + epochs)
    mnist["train"](tmp_path, digits=(iter(sets), test), cell=cell, epochs=epochs, seed=7)
    losses, right = plain_training(torch, sets, test, cell, seed=7)
    *told, last = records(tmp_path)
    parts = {min(start + 100, len(losses)): losses[start : start + 100] for start in range(0, len(losses), 100)}
    means = [mean(itertools.chain(*part)) for part in parts.values()]
    assert [(record["epoch"], record["step"]) for record in told] == [((step + 1) // 2, step) for step in parts]
    assert [record["loss"] for record in told] == pytest.approx(means, rel=1e-5)
    assert (last["step"], last["loss"], last["test_accuracy"]) == (2 * epochs, told[-1]["loss"], pytest.approx(right))


@pytest.mark.slow
def test_a_dry_run_reads_the_data_that_it_is_given(torch, mnist, tmp_path, capsys):
    """Of MNIST the first few digits; the result says what was read."""
    make_set(tmp_path)
    mnist["main"](["--dry-run", "--data", str(tmp_path), "--device", "cpu", "--out", str(tmp_path / "out")])
    assert capsys.readouterr().out.startswith(
        "digits=MNIST\ncell=lstm epochs=1 parameters=214282 test_images=4 device=cpu\n"
    )
    training, test = (mnist["read_digits"](tmp_path, part) for part in ("train", "t10k"))
    losses, right = plain_training(torch, [training], test, "lstm", seed=0)
    kept = result(tmp_path / "out")
    assert (kept["digits"], kept["step"], kept["test_accuracy"]) == ("MNIST", 1, pytest.approx(right))
    assert kept["loss"] == pytest.approx(mean(losses[0]), rel=1e-5)
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"loss.png", "mistakes.png"}


@pytest.mark.slow
@pytest.mark.parametrize("asked", [["--synthetic"], []])
def test_a_dry_run_without_data_reads_printed_digits(mnist, tmp_path, asked):
    """Asked for or not, nothing is looked for or fetched; the result says what was read."""
    mnist["main"]([*asked, "--dry-run", "--device", "cpu", "--out", str(tmp_path / "out")])
    kept = result(tmp_path / "out")
    assert (kept["digits"], kept["step"]) == ("printed", 3)


@pytest.mark.slow
def test_two_epochs_of_mnist_reach_97_percent(torch, mnist, tmp_path):
    """At full size, with the default cell."""
    data = shared_data("mnist")
    torch.set_num_threads(2)
    mnist["job"].keep_memory()
    training, test = (mnist["read_digits"](data, part) for part in ("train", "t10k"))
    last = mnist["train"](tmp_path, digits=(itertools.repeat(training), test))
    assert last["test_accuracy"] >= 0.97
