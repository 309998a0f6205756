#!/usr/bin/env python3
"""Shuffled batches into PyTorch from Python: the package and other formats, each through a DataLoader as its users write it.

    make wheel && python3 scripts/peers/python_loaders.py [--rows 50000] [--rounds 3]

Every contestant has the same grids and hands over all of them, in shuffled order, as int64 tensors [256, 256] with int64 labels [256], in
one process. Rates are per second of processor time.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ROOT, Rounds, arguments, inside, record, working_peers
from loader import BATCH, TOKENS, hugging_face_set, litdata, mds, memmap, npy_pairs

PACKAGES = {
    "streaming": "mosaicml-streaming",
    "numpy": "numpy",
    "pyarrow": "pyarrow",
    "datasets": "datasets>=3,<5",
    "litdata": "litdata",
    "torch": "torch==2.11.*",
}


def samples(length, item, items=None):
    """A map-style data set of a function."""
    from torch.utils.data import Dataset

    class Samples(Dataset):
        def __len__(self):
            return length

        def __getitem__(self, index):
            return item(index)

    if items is not None:
        Samples.__getitems__ = lambda self, indices: items(indices)
    return Samples()


def shuffled(data, **more):
    """An epoch over a map-style data set."""
    from torch.utils.data import DataLoader

    return lambda: DataLoader(data, batch_size=BATCH, shuffle=True, drop_last=True, **more)


def numpy_memmap(folder, tokens, labels):
    """One sample at a time."""
    import numpy
    import torch

    memmap(folder, tokens, labels)
    data = numpy.memmap(folder / "tokens.bin", numpy.uint32, "r", shape=tokens.shape)
    return shuffled(samples(len(data), lambda i: (torch.from_numpy(data[i].astype(numpy.int64)), int(labels[i]))))


def numpy_memmap_batched(folder, tokens, labels):
    """One batch at a time, for which its user writes `__getitems__` and a `collate_fn`."""
    import numpy
    import torch

    memmap(folder, tokens, labels)
    data = numpy.memmap(folder / "tokens.bin", numpy.uint32, "r", shape=tokens.shape)
    wide = labels.astype(numpy.int64)

    def items(rows):
        rows = numpy.asarray(rows)
        return torch.from_numpy(data[rows].astype(numpy.int64)), torch.from_numpy(wide[rows])

    return shuffled(samples(len(data), None, items), collate_fn=lambda batch: batch)


def pairs_of_npy(folder, tokens, labels):
    """Two files per sample, as LlamaGen's `CustomDataset` opens them."""
    import numpy
    import torch

    npy_pairs(folder, tokens, labels)

    def item(i):
        return torch.from_numpy(numpy.load(folder / f"{i}.npy")), torch.from_numpy(numpy.load(folder / f"{i}.label.npy"))[0]

    return shuffled(samples(len(tokens), item))


def hugging_face(folder, tokens, labels):
    """`with_format("torch")`, which reads one batch at a time."""
    import datasets
    import torch

    # No pictures here, and its newest versions are not for every version of datasets.
    datasets.config.TORCHVISION_AVAILABLE = False
    data = hugging_face_set(folder, tokens, labels).with_format("torch", dtype=torch.int64)
    loader = shuffled(data)
    return lambda: ((batch["tokens"], batch["label"]) for batch in loader())


def mosaic(folder, tokens, labels):
    """StreamingDataset in a DataLoader."""
    import torch
    from torch.utils.data import DataLoader

    mds(folder, tokens, labels)
    from streaming import StreamingDataset

    data = StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH, shuffle_seed=1)
    batches = lambda: DataLoader(data, batch_size=BATCH, drop_last=True)  # noqa: E731
    return lambda: ((batch["tokens"].to(torch.int64), batch["label"]) for batch in batches())


def lightning(folder, tokens, labels):
    """StreamingDataset in a StreamingDataLoader."""
    import torch

    litdata(folder, tokens, labels)
    from litdata import StreamingDataLoader, StreamingDataset

    data = StreamingDataset(str(folder), shuffle=True, seed=1)
    batches = lambda: StreamingDataLoader(data, batch_size=BATCH, drop_last=True)  # noqa: E731
    return lambda: ((batch["tokens"].to(torch.int64), batch["label"]) for batch in batches())


def write_cache(folder, tokens, labels):
    import tokengrid

    with tokengrid.CacheWriter(folder / "cache", grid=(16, 16), bits=18, images=len(tokens)) as writer:
        writer.push_batch(tokens, keys=map(str, range(len(tokens))), labels=labels)
    return folder / "cache"


def bound(make):
    """A stream that reads nothing: the cost of the rest of the pipeline. `make` gives the tokens of a batch."""
    import torch
    from torch.utils.data import DataLoader, IterableDataset

    class Nothing(IterableDataset):
        def __init__(self, batches):
            self.batches, self.labels = batches, torch.zeros(BATCH, dtype=torch.int64)

        def __iter__(self):
            return ((make(), self.labels) for _ in range(self.batches))

    return lambda folder, tokens, labels: lambda: DataLoader(Nothing(len(tokens) // BATCH), batch_size=None)


def zeros():
    import torch

    return torch.zeros((BATCH, TOKENS), dtype=torch.int64)


def unwritten():
    import torch

    return torch.empty((BATCH, TOKENS), dtype=torch.int64)


def token_dataset(folder, tokens, labels):
    from tokengrid.torch import TokenDataset

    return shuffled(TokenDataset(write_cache(folder, tokens, labels)))


def token_stream(folder, tokens, labels):
    from tokengrid.torch import TokenStream
    from torch.utils.data import DataLoader

    stream = TokenStream(write_cache(folder, tokens, labels), BATCH, num_batches=len(tokens) // BATCH)
    return lambda: DataLoader(stream, batch_size=None)


OURS = "tokengrid TokenStream"
CONTESTANTS = {
    OURS: token_stream,
    "tokengrid TokenDataset": token_dataset,
    "numpy memmap": numpy_memmap,
    "numpy memmap, own batches": numpy_memmap_batched,
    ".npy pairs": pairs_of_npy,
    "Hugging Face datasets": hugging_face,
    "MDS": mosaic,
    "LitData": lightning,
    "(bound: zeros instead of tokens)": bound(zeros),
    "(bound: unwritten memory)": bound(unwritten),
}


def num_rows_of(epoch):
    """Reads all batches of an epoch; returns the number of rows."""
    import torch

    batches = 0
    for tokens, labels in epoch():
        assert tokens.shape == (BATCH, TOKENS) and tokens.dtype == torch.int64 and labels.shape == (BATCH,)
        batches += 1
    return batches * BATCH


def own_memory():
    """Anonymous memory of this process in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1000


def install_wheel():
    (wheel,) = (ROOT / "dist").glob("tokengrid-*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", wheel]
    subprocess.run(install, check=True)


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000, help="grids (default 50000)")
    parser.add_argument("--folder", type=Path, help="where the data sets are written (default: a temporary folder)")
    parser.add_argument("--only", default="", metavar="WORD,...", help="contestants with one of these words in their names")
    args = parser.parse_args()
    inside(args.env, PACKAGES)
    install_wheel()
    import numpy
    import torch

    torch.set_num_threads(1)
    rng = numpy.random.default_rng(0)
    tokens = rng.integers(0, 2**18, (args.rows, TOKENS), numpy.int32)
    labels = rng.integers(0, 1000, args.rows, numpy.int32)
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    contestants, notes = {}, [f"{args.rows} grids of 256 tokens"]
    try:
        words = args.only.split(",")
        # The ratios are to TokenStream, so it always takes part.
        chosen = {name: make for name, make in CONTESTANTS.items() if name == OURS or any(word in name for word in words)}
        for name, place, contestant in working_peers(chosen, folder, tokens, labels, num_rows_of):
            contestants[name] = contestant
            size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
            notes.append(f"{name}: {size / args.rows:.0f} bytes per row")
        before = own_memory()
        for _ in range(20):
            contestants[OURS]()
        notes.append(f"{OURS}: memory of its own after 20 more epochs: {own_memory() - before:+.1f} MB")
        figures = Rounds(contestants, args.rounds).run()
    finally:
        shutil.rmtree(folder)
    record(args, "grids / processor second", figures, OURS, notes)


if __name__ == "__main__":
    main()
