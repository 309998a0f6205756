"""Tests of what check.py reads from other programs, and of what pack.py packs."""

import lzma
import shutil
import sys
import tarfile
import tempfile
import unittest
from io import BytesIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import pack
import profiling

KERNELS = """Processing [step.sqlite] with [cuda_gpu_kern_sum.py]...

Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name
 61.5,6150,12,512.5,500,400,700,10,"gemm<float, 128>"
38.5,3850,7,550.0,550,500,600,5,softmax
"""


class Reading(unittest.TestCase):
    def test_kernels_of_nsys(self):
        self.assertEqual(profiling.kernels(KERNELS), {"gemm<float, 128>": "61.5 % in 12", "softmax": "38.5 % in 7"})
        with self.assertRaises(RuntimeError):
            profiling.kernels("SKIPPED: step.sqlite does not contain CUDA kernel data.")

    def test_utilisation_of_nvidia_smi(self):
        self.assertEqual(profiling.utilisation("0\n0\n80\n0\n100\n0\n"), {"GPU busy": "60 %", "samples": 3})
        with self.assertRaises(RuntimeError):
            profiling.utilisation("0\n0\n")


class Packing(unittest.TestCase):
    def test_what_is_packed_is_complete_and_small_enough(self):
        with tempfile.TemporaryDirectory() as folder:
            # Any program will do.
            data = pack.packed(Path(shutil.which("true")))
            self.assertLess(len(data), pack.PACKED_BYTES_MAX - 12_000_000)
            with tarfile.open(fileobj=BytesIO(lzma.decompress(data))) as tar:
                tar.extractall(folder)
            packed = Path(folder) / "tokengrid-gpu"
            for name in ("tokengrid", "scripts/gpu/check.py", "scripts/peers/sample.py", "data/photos"):
                self.assertTrue((packed / name).exists(), name)
            self.assertEqual(list(packed.rglob("__pycache__")), [])


if __name__ == "__main__":
    unittest.main()
