//! What systems leave in folders: a folder with nothing else is free for an output.

/// Names that systems leave in any folder, in lower case: file systems, file managers, NAS devices.
const SYSTEM_NAMES: [&str; 14] = [
    "lost+found",
    ".ds_store",
    ".localized",
    ".directory",
    ".fseventsd",
    ".spotlight-v100",
    ".trashes",
    ".temporaryitems",
    ".snapshot",
    "@eadir",
    "thumbs.db",
    "desktop.ini",
    "$recycle.bin",
    "system volume information",
];

/// What begins so is a file that was deleted while a program had it open, a deleted one, or what macOS keeps beside a file.
const SYSTEM_PREFIXES: [&str; 4] = [".nfs", ".fuse_hidden", ".trash-", "._"];

/// Whether a name in a folder is one that systems leave there: `lost+found`, `.DS_Store`, `.nfs0123`.
pub fn is_system_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SYSTEM_NAMES.contains(&name.as_str()) || SYSTEM_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_system_are_distinguished_from_files_of_users() {
        for name in ["lost+found", ".DS_Store", ".nfs000000000123", "._x", "Thumbs.db"] {
            assert!(is_system_name(name), "{name}");
        }
        for name in ["z.txt", ".config", "lost", "nfs", "manifest.json"] {
            assert!(!is_system_name(name), "{name}");
        }
    }
}
