#!/usr/bin/env python3
"""Token grids in shuffled order, on one core: our loader beside numpy, Hugging Face datasets, MDS and LitData.

    python3 scripts/peers/loader.py [--rows 100000] [--rounds 5] [--env DIR] [--folder DIR]

One set of random 16 x 16 grids of 18-bit tokens is written in every format. Then each contestant hands over all of them,
each once, in shuffled order, as int64 batches of 256 with their labels. Files come from memory (each is read once before).
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common import Rounds, arguments, inside, record, working_peers

# In this order: the later packages accept the versions that the earlier ones require.
PACKAGES = {
    "streaming": "mosaicml-streaming",
    "numpy": "numpy",
    "pyarrow": "pyarrow",
    "datasets": "datasets>=3,<4",
    "litdata": "litdata",
}
BATCH = 256
TOKENS = 256


def shuffled(count):
    """Rows of full batches, each row once."""
    import numpy

    order = numpy.random.default_rng(1).permutation(count)
    for start in range(0, count - BATCH + 1, BATCH):
        yield order[start : start + BATCH]


def memmap(folder, tokens, labels):
    """Unpacked 32-bit tokens in one file: as in nanoGPT."""
    import numpy

    tokens.astype(numpy.uint32).tofile(folder / "tokens.bin")
    data = numpy.memmap(folder / "tokens.bin", numpy.uint32, "r", shape=tokens.shape)

    def epoch():
        for rows in shuffled(len(data)):
            yield data[rows].astype(numpy.int64), labels[rows]

    return epoch


def npy_pairs(folder, tokens, labels):
    """One file of tokens and one of the label for each sample, int64: as in LlamaGen."""
    import numpy

    for index, (grid, label) in enumerate(zip(tokens, labels)):
        numpy.save(folder / f"{index}.npy", grid.astype(numpy.int64))
        numpy.save(folder / f"{index}.label.npy", numpy.array([label]))

    def epoch():
        for rows in shuffled(len(tokens)):
            grids = numpy.stack([numpy.load(folder / f"{row}.npy") for row in rows])
            yield grids, numpy.concatenate([numpy.load(folder / f"{row}.label.npy") for row in rows])

    return epoch


def hugging_face_set(folder, tokens, labels):
    """The tokens as an Arrow data set of Hugging Face datasets, from disk."""
    import datasets
    import numpy

    datasets.disable_progress_bars()
    features = datasets.Features(
        {"tokens": datasets.Sequence(datasets.Value("int32"), length=TOKENS), "label": datasets.Value("int32")}
    )
    columns = {"tokens": list(tokens.astype(numpy.int32)), "label": labels}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(folder)
    return datasets.load_from_disk(str(folder))


def hugging_face(folder, tokens, labels):
    """An Arrow data set in Arrow format, its fastest, read by batches of indices."""
    import numpy

    data = hugging_face_set(folder, tokens, labels).with_format("arrow")

    def epoch():
        for rows in shuffled(len(data)):
            batch = data[rows]
            grids = batch["tokens"].combine_chunks().flatten().to_numpy().reshape(BATCH, TOKENS)
            yield grids.astype(numpy.int64), batch["label"].to_numpy()

    return epoch


def batches_of(samples):
    """Full batches from single samples."""
    import numpy

    grids, labels = [], []
    for sample in samples:
        grids.append(sample["tokens"])
        labels.append(sample["label"])
        if len(grids) == BATCH:
            yield numpy.stack(grids).astype(numpy.int64), numpy.array(labels)
            grids, labels = [], []


def mds(folder, tokens, labels):
    """MosaicML Streaming from local files, its own shuffle, one process."""
    import numpy
    from streaming import MDSWriter, StreamingDataset

    with MDSWriter(out=str(folder), columns={"tokens": f"ndarray:int32:{TOKENS}", "label": "int"}) as out:
        for grid, label in zip(tokens.astype(numpy.int32), labels):
            out.write({"tokens": grid, "label": int(label)})
    data = StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH, shuffle_seed=1)

    return lambda: batches_of(data)


def _sample(item):
    return {"tokens": item[0], "label": item[1]}


def litdata(folder, tokens, labels):
    """LitData's chunks from local files, its own shuffle, one process."""
    import numpy
    from litdata import StreamingDataset, optimize

    items = [(grid, int(label)) for grid, label in zip(tokens.astype(numpy.int32), labels)]
    optimize(fn=_sample, inputs=items, output_dir=str(folder), chunk_bytes="64MB", num_workers=1)
    data = StreamingDataset(str(folder), shuffle=True, seed=1)

    return lambda: batches_of(data)


PEERS = {
    "numpy memmap of uint32": memmap,
    ".npy pairs": npy_pairs,
    "Hugging Face datasets": hugging_face,
    "MDS": mds,
    "LitData": litdata,
}


def num_rows_of(epoch):
    """Reads all batches of an epoch; returns the number of rows."""
    batches = 0
    for tokens, labels in epoch():
        assert tokens.shape == (BATCH, TOKENS) and tokens.dtype == "int64" and len(labels) == BATCH
        batches += 1
    return batches * BATCH


def ours(program, cache):
    """One round of `bench loader`: grids per processor second."""
    command = [program, "bench", "loader", cache, "--rounds", "1", "--json", "--quiet"]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["grids_per_second"]


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="grids (default 100000)")
    parser.add_argument("--folder", type=Path, help="where the data sets are written (default: a temporary folder)")
    args = parser.parse_args()
    inside(args.env, PACKAGES)
    import numpy

    rng = numpy.random.default_rng(0)
    tokens = rng.integers(0, 2**18, (args.rows, TOKENS), numpy.int32)
    labels = rng.integers(0, 1000, args.rows, numpy.int32)
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    contestants, sizes = {}, []
    try:
        numpy.save(folder / "tokens.npy", tokens)
        numpy.save(folder / "labels.npy", labels)
        cache = folder / "cache"
        flags = ["--tokens", folder / "tokens.npy", "--labels", folder / "labels.npy", "--grid", "16x16", "--out", cache]
        subprocess.run([args.program, "cache", "import", *flags, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        contestants["tokengrid"] = lambda: ours(args.program, cache)
        for name, _, contestant in working_peers(PEERS, folder, tokens, labels, num_rows_of):
            contestants[name] = contestant
        for place in sorted(path for path in folder.iterdir() if path.is_dir()):
            total = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
            sizes.append(f"{place.name}: {total / args.rows:.0f} bytes per row")
        figures = Rounds(contestants, args.rounds).run()
    finally:
        shutil.rmtree(folder)
    record(args, "grids / processor second", figures, "tokengrid", [f"{args.rows} grids of 256 tokens", *sizes])


if __name__ == "__main__":
    main()
