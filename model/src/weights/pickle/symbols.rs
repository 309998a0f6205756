//! Names for which a file is refused. Nothing is ever called, so safety does not depend on this list: it warns the user of a
//! malicious file.

/// Modules that exist to run code, reach the system, or rebuild arbitrary objects.
const FORBIDDEN: [&str; 43] = [
    "__builtin__",
    "_pickle",
    "_posixsubprocess",
    "aiohttp",
    "asyncio",
    "bdb",
    "builtins",
    "cProfile",
    "code",
    "codeop",
    "commands",
    "ctypes",
    "doctest",
    "ftplib",
    "functools",
    "http",
    "httplib",
    "importlib",
    "marshal",
    "multiprocessing",
    "nt",
    "operator",
    "os",
    "pdb",
    "pickle",
    "pip",
    "platform",
    "posix",
    "profile",
    "pty",
    "pydoc",
    "requests",
    "runpy",
    "shutil",
    "smtplib",
    "socket",
    "subprocess",
    "sys",
    "timeit",
    "types",
    "urllib",
    "urllib2",
    "webbrowser",
];

/// Types among the builtins, which configurations inside checkpoints refer to.
const HARMLESS_BUILTINS: [&str; 15] = [
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "long",
    "object",
    "set",
    "slice",
    "str",
    "tuple",
];

/// Whether `module.name` runs code or reaches the system.
pub(super) fn is_forbidden(module: &str, name: &str) -> bool {
    let is_builtin = matches!(module, "builtins" | "__builtin__");
    if (is_builtin && HARMLESS_BUILTINS.contains(&name)) || (module, name) == ("types", "SimpleNamespace") {
        return false;
    }
    // Classes of the script that was run, of which settings beside the weights are made.
    let module = if module == "__main__" { "main" } else { module };
    let top = module.split('.').next().unwrap_or_default();
    FORBIDDEN.contains(&top) || module.split('.').chain(name.split('.')).any(|part| part.starts_with("__"))
}
