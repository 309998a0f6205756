//! The interpreter on pickles written by hand.

use super::{Pickle, PickleError, Read, Value};

fn read(bytes: &[u8]) -> Read<(Pickle, Value)> {
    super::read(bytes).map(|(pickle, value, _)| (pickle, value))
}

fn forbidden(bytes: &[u8]) -> String {
    match read(bytes) {
        Err(PickleError::Forbidden(symbol)) => symbol,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn names_that_run_code_are_refused() {
    // Protocol 0: os.system('true') through GLOBAL and REDUCE.
    assert_eq!(forbidden(b"cos\nsystem\n(S'true'\ntR."), "os.system");
    // Protocol 4: the same through STACK_GLOBAL.
    assert_eq!(forbidden(b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R."), "posix.system");
    assert_eq!(forbidden(b"cbuiltins\neval\n(S'1'\ntR."), "builtins.eval");
    assert_eq!(forbidden(b"csubprocess\nPopen\n."), "subprocess.Popen");
    assert_eq!(forbidden(b"ctorch\n__builtins__\n."), "torch.__builtins__");
    // Hidden in a value that is otherwise not used.
    assert_eq!(forbidden(b"}S'callbacks'\ncrunpy\n_run_code\ns."), "runpy._run_code");
}

#[test]
fn unknown_but_harmless_objects_become_opaque() {
    let (pickle, value) = read(b"}S'x'\ncargparse\nNamespace\n)R}bs.").unwrap();
    assert!(matches!(pickle.get(&value, "x"), Some(Value::Opaque)));
    let (pickle, value) = read(b"}S'x'\nc__main__\nSettings\n)R}bs.").unwrap();
    assert!(matches!(pickle.get(&value, "x"), Some(Value::Opaque)), "a class of the script that was run");
    assert_eq!(forbidden(b"c__main__\n__builtins__.eval\n."), "__main__.__builtins__.eval");
}

#[test]
fn malformed_pickles_are_errors_and_never_panics() {
    let cases: [&[u8]; 12] = [
        b"",
        b".",
        b"0.",
        b"a.",
        b"]s.",
        b"(",
        b"X\xff\xff\xff\xffab.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"h\x05.",
        b"}S'k'\nu.",
        b"\x87.",
        b"S'storage'\nQ.",
    ];
    for case in cases {
        assert!(matches!(read(case), Err(PickleError::Broken(_))), "{case:?}");
    }
}

#[test]
fn deep_nesting_and_self_reference_cost_no_stack() {
    let deep = [vec![b')'], vec![0x85; 1_000_000], vec![b'.']].concat();
    assert!(read(&deep).is_ok());
    // A list that contains itself.
    assert!(read(b"]q\x00h\x00a.").is_ok());
}

#[test]
fn storage_names_cannot_leave_the_archive() {
    let id = |key: &str| format!("(S'storage'\nctorch\nFloatStorage\nS'{key}'\nS'cpu'\nI4\ntQ.").into_bytes();
    assert!(read(&id("0")).is_ok());
    for key in ["../../etc/passwd", "a/b", ".."] {
        assert!(matches!(read(&id(key)), Err(PickleError::Broken(_))), "{key}");
    }
}

proptest::proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = read(&bytes);
    }
}
