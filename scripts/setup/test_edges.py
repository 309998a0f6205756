"""Tests of edges.py: files that a crate takes in from another one are seen."""

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


if __name__ == "__main__":
    unittest.main()
