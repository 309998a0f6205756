//! Tests in a separate process, for changes of process-wide state.

use std::process::Command;

/// Set in the separate process.
const MARK: &str = "TOKENGRID_TEST_ALONE";

/// Runs `test`, the path of a test in this program, in its own process, unless this is that process; true if it is: the
/// test then continues. See [`alone!`](crate::alone).
///
/// # Panics
/// When the test fails there.
pub fn is_alone(test: &str) -> bool {
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    let output =
        command.args(["--exact", test, "--nocapture"]).env(MARK, "1").output().expect("this program starts again");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains("1 passed"), "no test is called {test}: {said}");
    false
}

/// Ends the test here unless it runs in its own process, which it starts. Use it first, in the test itself, for state that
/// belongs to the whole process, such as libtorch's number of threads.
#[macro_export]
macro_rules! alone {
    () => {
        fn here() {}
        let path = std::any::type_name_of_val(&here).trim_end_matches("::here");
        // Without the name of the crate.
        let test = path.split_once("::").map_or(path, |(_, test)| test);
        if !$crate::is_alone(test) {
            return;
        }
    };
}
