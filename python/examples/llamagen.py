"""LlamaGen's data set of extracted codes, replaced: `python llamagen.py convert CODES CACHE`, `python llamagen.py train CACHE`.

LlamaGen's `extract_codes_c2i.py` leaves, for each image, a file of codes `imagenet256_codes/<i>.npy` (int, [1, views, 256]) and one of its
label `imagenet256_labels/<i>.npy`, 2.5 million small files for ImageNet; its `CustomDataset` opens both for every sample and draws a
view. `convert` makes one cache of them, at 14 bits per code; `CodeDataset` has the interface of `CustomDataset`, so that in
`autoregressive/train/train_c2i.py` only the line that builds the data set changes:

    dataset = CodeDataset("cache")            # was: dataset = build_dataset(args)
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import tokengrid

#: Codes of LlamaGen's tokenizers (VQ-16, VQ-8): 16,384 entries.
BITS = 14


def convert(codes_folder, cache):
    """Writes a cache of the codes below `codes_folder`; run again after a kill, it goes on."""
    root = Path(codes_folder)
    codes_dir, labels_dir = (next(path for path in sorted(root.iterdir()) if path.name.endswith(end)) for end in ("_codes", "_labels"))
    names = sorted((path.stem for path in codes_dir.glob("*.npy")), key=int)
    views, num_tokens = np.load(codes_dir / f"{names[0]}.npy").shape[-2:]
    side = round(num_tokens**0.5)
    settings = {"grid": (side, side), "bits": BITS, "images": len(names), "views": views, "source": str(root)}
    with tokengrid.CacheWriter(cache, **settings, tokenizer="LlamaGen VQ") as writer:
        for name in names[writer.next_image :]:
            codes = np.load(codes_dir / f"{name}.npy").reshape(views, num_tokens)
            writer.push(codes, key=f"{name}.npy", label=int(np.load(labels_dir / f"{name}.npy").item()))


class CodeDataset(Dataset):
    """`(codes int64 [1, H * W], label int64 [1])` of one image, a view drawn at random: what LlamaGen's trainer expects."""

    def __init__(self, cache):
        self.cache = tokengrid.TokenCache(cache)
        self.labels = torch.from_numpy(self.cache.labels[:: self.cache.num_views].astype(np.int64))

    def __len__(self):
        return self.cache.num_images

    def __getitem__(self, image):
        return self.__getitems__([image])[0]

    def __getitems__(self, images):
        images = torch.as_tensor(images)
        views = self.cache.num_views
        rows = images * views + torch.randint(views, images.shape)
        codes = torch.from_numpy(self.cache.batch(rows.numpy()))
        return list(zip(codes[:, None], self.labels[images][:, None]))


def main():
    if sys.argv[1] == "convert":
        convert(*sys.argv[2:4])
        print(tokengrid.TokenCache(sys.argv[3]))
    else:
        # The loop of LlamaGen's trainer, without its model.
        loader = DataLoader(CodeDataset(sys.argv[2]), batch_size=8, shuffle=True, drop_last=True)
        for x, y in loader:
            z_indices, c_indices = x.reshape(x.shape[0], -1), y.reshape(-1)
            print(f"codes {tuple(z_indices.shape)}, labels {tuple(c_indices.shape)}")


if __name__ == "__main__":
    main()
