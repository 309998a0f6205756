"""Tests of edges.py: files that a crate takes in from another one are seen, and so is who asks libtorch about CUDA."""

import tempfile
import unittest
from pathlib import Path

import edges

SOURCES = {
    "a/src/lib.rs": 'static OWN: &[u8] = include_bytes!("../data/own.bin");\nmod deep;\n',
    "a/src/deep/mod.rs": '#[path = "../../../b/src/shared.rs"]\nmod shared;\n',
    "b/src/lib.rs": 'const TEXT: &str = include_str!(\n    "../../README.md"\n);\n',
    "b/build.rs": 'const WHOLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../a/data/own.bin"));\n',
    "src/main.rs": 'include!("../a/src/lib.rs");\n#[path = "other.rs"]\nmod other;\n',
    "a/tests/test.rs": 'const TEXT: &str = include_str!("../../b/src/lib.rs");\n',
}


class IncludedFiles(unittest.TestCase):
    def test_files_of_other_crates_are_edges(self):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder).resolve()
            for name, text in SOURCES.items():
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            found = edges.included_edges({"root": root, "a": root / "a", "b": root / "b"})
            found = {(str(source.relative_to(root)), crate, owner) for source, crate, _, owner in found}
        self.assertEqual(
            found,
            {
                ("a/src/deep/mod.rs", "a", "b"),
                ("b/src/lib.rs", "b", "root"),
                ("b/build.rs", "b", "a"),
                ("src/main.rs", "root", "a"),
            },
        )

    def test_one_file_alone_asks_about_cuda(self):
        sources = {
            "model/src/cuda.rs": "fn count() -> i64 { tch::Cuda::device_count() }\n",
            "model/src/runtime.rs": "// tch::Cuda is asked elsewhere\nuse tch::{Device, Kind};\nconst FIRST: Device = Device::Cuda(0);\n",
            "train/src/a.rs": "fn there() -> bool { tch::Cuda::is_available() }\n",
            "train/src/b.rs": "use tch::{\n    Cuda, Device,\n};\n",
            "target/c.rs": "use tch::Cuda;\n",
        }
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for name, text in sources.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text, encoding="utf-8")
            found = [str(source) for source in edges.asks_about_cuda(root)]
        self.assertEqual(found, ["train/src/a.rs", "train/src/b.rs"])


if __name__ == "__main__":
    unittest.main()
