#!/usr/bin/env python3
"""FID, inception score, precision and recall beside pytorch-fid and torch-fidelity.

All programs get the same Inception network, filled with made-up weights, and the same two sets of pictures: what is
compared is how pictures get into the network and what is computed from its features. Exits with 1 where a figure differs by
more than one part in a thousand.

    python3 scripts/peers/eval.py
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ROOT, arguments, inside

PACKAGES = {
    "torch": "torch==2.11.0",
    "torchvision": "torchvision==0.26.0",
    "scipy": "scipy",
    "pytorch_fid": "pytorch-fid",
    "torch_fidelity": "torch-fidelity",
}
TOLERANCE = 1e-3


def made_up_weights(path):
    """Random weights in the published names and shapes, in a range that keeps activations nonzero."""
    import torch
    from pytorch_fid.inception import fid_inception_v3

    torch.manual_seed(1)
    weights = {}
    for name, tensor in without_download(fid_inception_v3).state_dict().items():
        if name.endswith("num_batches_tracked") or name.startswith("AuxLogits"):
            continue
        if tensor.dim() > 1:
            weights[name] = torch.randn(tensor.shape) * (2.2 / tensor[0].numel()) ** 0.5
        elif name.endswith(("bn.weight", "running_var")):
            weights[name] = 1 + 0.2 * torch.rand(tensor.shape)
        else:
            weights[name] = 0.2 * torch.randn(tensor.shape)
    # Sharper classes: with small logits every inception score is 1.
    weights["fc.weight"] *= 6
    torch.save(weights, path)


def without_download(make):
    """Calls pytorch-fid's constructor, which would fetch the published weights, without them."""
    import pytorch_fid.inception as module

    load = module.load_state_dict_from_url
    module.load_state_dict_from_url = lambda *_, **__: {}
    original = module.torch.nn.Module.load_state_dict
    module.torch.nn.Module.load_state_dict = lambda self, state, strict=True: None
    try:
        return make()
    finally:
        module.load_state_dict_from_url = load
        module.torch.nn.Module.load_state_dict = original


def picture_sets(folder, count):
    """Random crops of the bundled photographs, and others with less saturated colours: PNG, so that all decoders agree."""
    import random

    from PIL import Image, ImageEnhance

    random.seed(1)
    photos = sorted(path for path in (ROOT / "data/photos").rglob("*") if path.is_file())
    for name, colour in [("a", 1.0), ("b", 0.7)]:
        (folder / name).mkdir()
        for number in range(count):
            with Image.open(random.choice(photos)) as photo:
                photo = photo.convert("RGB")
            side = random.randint(min(photo.size) // 2, min(photo.size))
            left, top = random.randint(0, photo.width - side), random.randint(0, photo.height - side)
            crop = photo.crop((left, top, left + side, top + side)).resize((128, 128))
            ImageEnhance.Color(crop).enhance(colour).save(folder / name / f"{number:05}.png")


def of_pytorch_fid(folder, weights):
    import pytorch_fid.inception as module
    import torch
    from pytorch_fid.fid_score import calculate_fid_given_paths

    module.load_state_dict_from_url = lambda *_, **__: torch.load(weights)
    # Including the names that the published file lacks.
    load = torch.nn.Module.load_state_dict
    torch.nn.Module.load_state_dict = lambda self, state, strict=True: load(self, state, strict=False)
    try:
        fid = calculate_fid_given_paths([str(folder / "a"), str(folder / "b")], 10, torch.device("cpu"), 2048)
    finally:
        torch.nn.Module.load_state_dict = load
    return {"fid": float(fid)}


def of_torch_fidelity(folder, weights):
    from torch_fidelity import calculate_metrics

    # By default its precision and recall use another network.
    network = {"feature_extractor": "inception-v3-compat", "feature_layer_prc": "2048"}
    figures = calculate_metrics(
        input1=str(folder / "a"), input2=str(folder / "b"), cuda=False, fid=True, isc=True, prc=True, isc_splits=1,
        batch_size=10, feature_extractor_weights_path=str(weights), verbose=False, save_cpu_ram=True, cache=False,
        **network,
    )
    return {
        "fid": figures["frechet_inception_distance"],
        "inception_score": figures["inception_score_mean"],
        "precision": figures["precision"],
        "recall": figures["recall"],
    }


def ours(program, folder, weights, protocol):
    command = [program, "eval", "samples", folder / "a", folder / "b", "--inception", weights, "--protocol", protocol]
    command += ["--precision-recall", "--splits", "1", "--device", "cpu", "--quiet", "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main():
    parser = arguments(__doc__)
    parser.add_argument("--pictures", type=int, default=300, help="pictures per set (default 300)")
    typed = parser.parse_args()
    inside(typed.env, PACKAGES)
    rows, worst = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        weights = folder / "inception.pth"
        made_up_weights(weights)
        picture_sets(folder, typed.pictures)
        for name, module, protocol, peer in [
            ("pytorch-fid", "pytorch_fid", "pytorch-fid", of_pytorch_fid),
            ("torch-fidelity", "torch_fidelity", "adm", of_torch_fidelity),
        ]:
            if importlib.util.find_spec(module) is None:
                print(f"{name}: not installed; left out", file=sys.stderr)
                continue
            mine = ours(typed.program, folder, weights, protocol)
            for figure, theirs in peer(folder, weights).items():
                difference = abs(mine[figure] - theirs) / max(abs(theirs), 1e-12)
                worst = max(worst, difference)
                rows.append({"peer": name, "figure": figure, "theirs": theirs, "ours": mine[figure], "differs": difference})
                print(f"{name:<16} {figure:<16} {theirs:14.8f} {mine[figure]:14.8f}  differs by {difference:.1e}")
    if typed.out:
        typed.out.write_text(json.dumps(rows, indent=1))
    # Without a peer there is no comparison.
    sys.exit(0 if rows and worst <= TOLERANCE else 1)


if __name__ == "__main__":
    main()
