//! Thousands of random files, sound and damaged, decoded and resized by this crate and by Pillow: the same verdict on each,
//! and no differing pixel.
//!
//! Pillow's side is `scripts/pillow/cases.py`, run by the Python that `TOKENGRID_PYTHON` names if it has Pillow 13 or newer.
//! `TOKENGRID_PILLOW_SEED` and `TOKENGRID_PILLOW_COUNT` try other files, and more of them.

mod support;

use flate2::Crc;
use serde::Deserialize;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use support::python_with_pillow;
use tokengrid_ingest::{
    Limits, MAX_PIXELS, Recipe, Resize, RgbImage, Views, decode_rgb, exif_orientation, jpeg_simd, views_of,
};

const SEED: u64 = 20_260_101;

/// Failures printed, and files kept.
const SHOWN: usize = 20;

/// What Pillow said about a file.
#[derive(Deserialize)]
struct Expected {
    name: String,
    ok: bool,
    #[serde(default)]
    width: u32,
    #[serde(default)]
    height: u32,
    /// Side of the centre crop.
    #[serde(default)]
    size: u32,
    /// CRC-32 of the whole picture.
    #[serde(default)]
    crc: u32,
    #[serde(default)]
    orientation: u8,
    /// CRC-32 of ADM's centre crop of that side.
    #[serde(default)]
    adm: u32,
}

struct Case {
    expected: Expected,
    file: Vec<u8>,
    crop: Vec<u8>,
}

/// Cases from a running script.
struct Cases {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Cases {
    fn start(python: &Path, seed: u64, count: usize, damaged: bool) -> Cases {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/pillow/cases.py");
        let mut child = Command::new(python)
            .args(["-B".as_ref(), script.as_os_str()])
            .args(["--seed", &seed.to_string(), "--count", &count.to_string()])
            .args(damaged.then_some("--damage"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Cases { child, output }
    }

    /// A block after its length; `None` at the end.
    fn block(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        match self.output.read_exact(&mut length) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return None,
            other => other.expect("the script's output"),
        }
        let mut block = vec![0; u32::from_le_bytes(length) as usize];
        self.output.read_exact(&mut block).expect("a whole block");
        Some(block)
    }
}

impl Iterator for Cases {
    type Item = Case;

    fn next(&mut self) -> Option<Case> {
        let Some(about) = self.block() else {
            assert!(self.child.wait().expect("the script ends").success(), "scripts/pillow/cases.py failed");
            return None;
        };
        let expected = serde_json::from_slice(&about).expect("JSON");
        Some(Case { expected, file: self.block().expect("a file"), crop: self.block().expect("a crop") })
    }
}

/// libjpeg's C code decodes corrupt data to other pixels than its SIMD code, which Pillow has.
fn comparable(case: &Case, damaged: bool) -> bool {
    jpeg_simd() || !damaged || !case.file.starts_with(&[0xFF, 0xD8])
}

/// What is wrong with our answer, if anything.
fn compare(case: &Case, damaged: bool) -> Result<(), String> {
    let expected = &case.expected;
    let image = match decode_rgb(&case.file, &Limits::default()) {
        Ok(_) if !expected.ok => return Err("accepted, but Pillow rejects it".to_owned()),
        Err(e) if expected.ok => return Err(format!("rejected, but Pillow accepts it: {e}")),
        Err(_) => return Ok(()),
        Ok(image) => image,
    };
    if (image.width, image.height) != (expected.width, expected.height) {
        let (width, height) = (image.width, image.height);
        return Err(format!("{width} x {height}, but Pillow says {} x {}", expected.width, expected.height));
    }
    let orientation = exif_orientation(&case.file);
    if orientation != expected.orientation {
        return Err(format!("orientation {orientation}, but Pillow says {}", expected.orientation));
    }
    if !comparable(case, damaged) {
        return Ok(());
    }
    if crc(&image.pixels) != expected.crc {
        return Err("other pixels than Pillow's".to_owned());
    }
    compare_crop(&image, case)
}

fn compare_crop(image: &RgbImage, case: &Case) -> Result<(), String> {
    let recipe = Recipe { size: case.expected.size, views: Views::Center, ..Recipe::default() };
    let views = views_of(image, "key", &recipe).map_err(|e| e.to_string())?;
    let differing = views[0].pixels.iter().zip(&case.crop).filter(|(a, b)| a != b).count();
    if views[0].pixels.len() != case.crop.len() || differing > 0 {
        return Err(format!("{differing} other samples than Pillow's in the crop of {}", case.expected.size));
    }
    let adm = views_of(image, "key", &Recipe { resize: Resize::Adm, ..recipe }).map_err(|e| e.to_string())?;
    if crc(&adm[0].pixels) != case.expected.adm {
        return Err(format!("other pixels than Pillow's in ADM's crop of {}", case.expected.size));
    }
    Ok(())
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Keeps the file of a failed case and says where.
fn keep(case: &Case, seed: u64) -> PathBuf {
    let name = format!("{seed}-{}", case.expected.name.replace(' ', "-"));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, &case.file).expect("write");
    path
}

/// Compares `count` cases.
fn no_case_differs(count: usize, damaged: bool) {
    let Some(python) = python_with_pillow() else { return };
    let setting = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = setting("TOKENGRID_PILLOW_SEED").unwrap_or(SEED);
    let count = setting("TOKENGRID_PILLOW_COUNT").map_or(count, |n| n as usize);
    let (mut total, mut accepted, mut failures) = (0, 0, Vec::new());
    for case in Cases::start(&python, seed, count, damaged) {
        total += 1;
        accepted += usize::from(case.expected.ok);
        if let Err(what) = compare(&case, damaged) {
            failures.push(format!("case {}: {what} ({})", case.expected.name, keep(&case, seed).display()));
        }
    }
    assert_eq!(total, count, "cases");
    let shown = failures.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "seed {seed}: {} of {total} cases differ:\n{shown}", failures.len());
    eprintln!("{total} files, {accepted} accepted by both; seed {seed}");
    let usual = if damaged { total / 5..total } else { total * 95 / 100..total + 1 };
    assert!(usual.contains(&accepted), "Pillow accepts {accepted} of {total}: is the script at fault?");
}

#[test]
fn no_pixel_of_random_files_differs_from_pillow() {
    no_case_differs(2000, false);
}

#[test]
fn damaged_files_have_the_same_fate_as_with_pillow() {
    no_case_differs(3000, true);
}

#[test]
fn pillow_has_the_same_limit_of_pixels() {
    let Some(python) = python_with_pillow() else { return };
    // Its limit is twice its setting: the seeds have 432 pixels.
    let script = "
import sys
from pathlib import Path
from PIL import Image
import reference
print(2 * Image.MAX_IMAGE_PIXELS)
for limit in 216, 215.5:
    Image.MAX_IMAGE_PIXELS = limit
    print({reference.decode(path.read_bytes()) is not None for path in Path(sys.argv[1]).iterdir()})
";
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python)
        .args(["-B", "-c", script])
        .arg(root.join("tests/fixtures/damaged/seeds"))
        .env("PYTHONPATH", root.join("../scripts/pillow"))
        .output()
        .expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.lines().collect::<Vec<_>>(), [&MAX_PIXELS.to_string()[..], "{True}", "{False}"]);
}
