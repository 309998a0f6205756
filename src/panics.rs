//! Reporting of panics. A panic is a defect of this program or a library, or a lack of memory inside libtorch.
//!
//! The hook only prints one line. It must not end the process, since it runs before unwinding and some threads catch panics
//! (the decoders' threads, the inspector's requests). Uncaught panics arrive in `main`.

use std::any::Any;
use std::collections::HashSet;
use std::panic::PanicHookInfo;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Most lines that are printed: a damaged file may make a decoder panic once per row.
const MAX_PLACES: usize = 100;

#[derive(Default)]
struct Seen {
    places: HashSet<String>,
    last: Option<String>,
}

static SEEN: LazyLock<Mutex<Seen>> = LazyLock::new(Mutex::default);

/// Installs the hook that prints a panic as one line, without a backtrace.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(report));
}

/// The line of the last panic.
pub(crate) fn last_message() -> Option<String> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner).last.clone()
}

/// The first line of a panic's message.
pub(crate) fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    text.unwrap_or("unknown").lines().next().unwrap_or_default().to_string()
}

fn report(info: &PanicHookInfo) {
    let text = text_of(info.payload());
    if crate::torch::is_expected_panic(&text) {
        return;
    }
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let advice = if text.contains("alloc") { "try a smaller --batch-size" } else { "please report this" };
    let message = format!("internal error at {place}: {text}; {advice}");
    if is_new(place, &message) {
        eprintln!("tokengrid: {message}");
    }
    // After these, the runtime would abort the process with a signal.
    let cannot_unwind = ["panic in a function that cannot unwind", "panic in a destructor during cleanup"];
    if cannot_unwind.contains(&text.as_str()) {
        crate::exit::leave_at_once(1);
    }
}

/// Whether this source location panics for the first time.
fn is_new(place: String, message: &str) -> bool {
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    seen.last = Some(message.to_owned());
    seen.places.len() < MAX_PLACES && seen.places.insert(place)
}

#[cfg(test)]
mod tests {
    use crate::exit;
    use std::process::Command;

    /// Set in the processes that the tests start: the kind of panic to cause.
    const SCENE: &str = "TOKENGRID_TEST_PANIC_SCENE";

    extern "C" fn foreign_callback() {
        panic!("injected into a callback");
    }

    /// Does nothing when it runs among all tests. In a separate process it replaces `main`, with a command that panics.
    #[test]
    fn scene() {
        let Ok(scene) = std::env::var(SCENE) else { return };
        super::install();
        let code = exit::code_of(|| {
            match scene.as_str() {
                "command" => panic!("injected into the command\nsecond line"),
                "worker" => {
                    let worker = std::thread::spawn(|| panic!("injected into a worker"));
                    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                }
                "scoped worker" => std::thread::scope(|scope| {
                    let (sender, receiver) = std::sync::mpsc::channel::<u32>();
                    scope.spawn(move || {
                        let _sender = sender;
                        panic!("injected into a scoped worker");
                    });
                    assert!(receiver.recv().is_err());
                }),
                "callback" => foreign_callback(),
                "caught" => (0..3).for_each(|_| {
                    assert!(std::panic::catch_unwind(|| panic!("injected and caught")).is_err());
                }),
                other => unreachable!("{other}"),
            }
            Ok(())
        });
        exit::leave(code);
    }

    /// Exit code and stderr of a process in which `scene` happens.
    fn play(scene: &str) -> (Option<i32>, String) {
        let program = std::env::current_exe().unwrap();
        let arguments = ["--exact", "panics::tests::scene", "--nocapture", "--test-threads=1"];
        let output = Command::new(program).args(arguments).env(SCENE, scene).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    #[test]
    fn an_uncaught_panic_ends_the_process_with_1_and_a_line() {
        for (scene, text) in [
            ("command", "injected into the command; please report this"),
            ("worker", "injected into a worker; please report this"),
            ("scoped worker", "injected into a scoped worker; please report this"),
            ("callback", "injected into a callback; please report this"),
        ] {
            let (code, stderr) = play(scene);
            assert_eq!(code, Some(1), "{scene}: {stderr}");
            let first = stderr.lines().next().unwrap_or_default();
            assert!(first.starts_with("tokengrid: internal error at src/panics.rs:"), "{scene}: {stderr}");
            assert!(first.ends_with(text), "{scene}: {stderr}");
            assert!(!stderr.contains("backtrace") && !stderr.contains("second line"), "{scene}: {stderr}");
        }
    }

    #[test]
    fn a_caught_panic_ends_nothing_and_is_reported_once() {
        let (code, stderr) = play("caught");
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(stderr.matches("injected and caught").count(), 1, "{stderr}");
    }
}
