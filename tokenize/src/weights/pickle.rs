//! A pickle interpreter that knows plain values and PyTorch's tensor-rebuilding calls, and nothing else.
//!
//! It never imports, calls or constructs anything: a `GLOBAL` is only a name, a `REDUCE` of a known tensor-rebuilding
//! name yields a description of where the tensor lies, and of any other name an opaque value that is dropped. Names
//! from modules that exist to run code make the whole file refused, since no weights need them.

use std::collections::HashMap;
use std::rc::Rc;
use tch::Kind;

/// Why a pickle was not read.
#[derive(Debug, PartialEq)]
pub(super) enum PickleError {
    /// It names something that runs code.
    Forbidden(String),
    /// It is malformed or uses what no checkpoint needs.
    Broken(String),
}

type Read<T> = Result<T, PickleError>;

fn broken<T>(what: impl Into<String>) -> Read<T> {
    Err(PickleError::Broken(what.into()))
}

/// Where a tensor lies.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StoredTensor {
    /// Key of the storage: the member `data/<key>` of the zip.
    pub storage: Rc<str>,
    pub kind: Kind,
    /// First element within the storage.
    pub offset: i64,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
}

/// A value of the pickle. Lists, tuples and dictionaries are indices into the pickle's own tables: however deeply a
/// hostile file nests or ties them, nothing here recurses.
#[derive(Debug, Clone)]
pub(super) enum Value {
    None,
    Bool,
    Int(i64),
    Float,
    Str(Rc<str>),
    Bytes,
    Tuple(usize),
    List(usize),
    Dict(usize),
    Global(Rc<str>),
    Storage(Rc<str>, Kind),
    Tensor(Rc<StoredTensor>),
    /// Something that inference has no use for.
    Opaque,
    Mark,
}

/// An interpreted pickle.
#[derive(Debug, Default)]
pub(super) struct Pickle {
    lists: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
}

impl Pickle {
    /// Entries of a dictionary; none for any other value.
    pub fn entries(&self, value: &Value) -> &[(Value, Value)] {
        if let Value::Dict(index) = value { &self.dicts[*index] } else { &[] }
    }

    /// The value of `key`, where `value` is a dictionary that has it.
    pub fn get(&self, value: &Value, key: &str) -> Option<&Value> {
        self.entries(value).iter().find(|(k, _)| matches!(k, Value::Str(k) if &**k == key)).map(|(_, value)| value)
    }

    fn items(&self, value: &Value) -> Option<&[Value]> {
        match value {
            Value::Tuple(index) | Value::List(index) => Some(&self.lists[*index]),
            _ => None,
        }
    }

    fn tuple(&mut self, items: Vec<Value>) -> Value {
        self.lists.push(items);
        Value::Tuple(self.lists.len() - 1)
    }

    fn list(&mut self, items: Vec<Value>) -> Value {
        self.lists.push(items);
        Value::List(self.lists.len() - 1)
    }

    fn dict(&mut self, entries: Vec<(Value, Value)>) -> Value {
        self.dicts.push(entries);
        Value::Dict(self.dicts.len() - 1)
    }
}

/// Modules that exist to run code, reach the system, or rebuild arbitrary objects.
const FORBIDDEN: [&str; 26] = [
    "os",
    "posix",
    "nt",
    "sys",
    "subprocess",
    "builtins",
    "__builtin__",
    "runpy",
    "importlib",
    "pty",
    "socket",
    "shutil",
    "webbrowser",
    "ctypes",
    "pickle",
    "_pickle",
    "marshal",
    "types",
    "code",
    "commands",
    "platform",
    "operator",
    "functools",
    "asyncio",
    "multiprocessing",
    "pip",
];

/// Harmless names of otherwise forbidden modules that real checkpoints hold.
const HARMLESS: [&str; 12] = [
    "builtins.set",
    "builtins.frozenset",
    "builtins.list",
    "builtins.dict",
    "builtins.int",
    "builtins.float",
    "builtins.bool",
    "builtins.str",
    "builtins.bytearray",
    "__builtin__.set",
    "builtins.complex",
    "builtins.slice",
];

/// Interprets a whole pickle: its tables, and the value that it stands for.
pub(super) fn read(bytes: &[u8]) -> Read<(Pickle, Value)> {
    let mut machine = Machine { bytes, at: 0, stack: vec![], memo: HashMap::new(), pickle: Pickle::default() };
    loop {
        if let Some(value) = machine.step()? {
            return Ok((machine.pickle, value));
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
    pickle: Pickle,
}

impl<'a> Machine<'a> {
    /// One opcode. The result, when it was the last one.
    fn step(&mut self) -> Read<Option<Value>> {
        let op = self.take(1)?[0];
        match op {
            b'.' => return self.pop().map(Some),
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.stack.push(Value::Mark),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => self.push_again()?,
            b'N' | 0x88 | 0x89 | b'J' | b'K' | b'M' | b'I' | b'L' | 0x8a | b'G' | b'F' => self.number(op)?,
            b'X' | 0x8c | 0x8d | b'U' | b'T' | b'B' | b'C' | 0x8e | b'V' | b'S' => self.text(op)?,
            b')' | b't' | 0x85 | 0x86 | 0x87 | b']' | b'l' | b'}' | b'd' | 0x8f | 0x91 => self.container(op)?,
            b'a' | b'e' | b's' | b'u' | 0x90 => self.fill(op)?,
            b'q' | b'r' | b'p' | 0x94 | b'h' | b'j' | b'g' => self.memo(op)?,
            b'c' | 0x93 => self.global(op)?,
            b'R' => self.reduce()?,
            0x81 => self.new_object(2)?,
            0x92 => self.new_object(3)?,
            b'b' => drop(self.pop()?),
            b'Q' => self.persistent_id()?,
            _ => return broken(format!("opcode 0x{op:02x} at byte {}, which no checkpoint needs", self.at - 1)),
        }
        Ok(None)
    }

    fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else { return broken(format!("it ends inside a value at byte {}", self.at)) };
        let slice = &self.bytes[self.at..end];
        self.at = end;
        Ok(slice)
    }

    fn line(&mut self) -> Read<&'a str> {
        let rest = &self.bytes[self.at..];
        let Some(len) = rest.iter().position(|&b| b == b'\n') else { return broken("a line without an end") };
        let line = self.take(len)?;
        self.take(1)?;
        std::str::from_utf8(line).or_else(|_| broken("text that is not UTF-8"))
    }

    fn length(&mut self, width: usize) -> Read<usize> {
        let mut wide = [0u8; 8];
        wide[..width].copy_from_slice(self.take(width)?);
        usize::try_from(u64::from_le_bytes(wide)).or_else(|_| broken("a length that overflows"))
    }

    fn pop(&mut self) -> Read<Value> {
        self.stack.pop().map_or_else(|| broken("an empty stack"), Ok)
    }

    fn pop_to_mark(&mut self) -> Read<Vec<Value>> {
        let Some(mark) = self.stack.iter().rposition(|v| matches!(v, Value::Mark)) else { return broken("no mark") };
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn push_again(&mut self) -> Read<()> {
        let top = self.pop()?;
        self.stack.push(top.clone());
        self.stack.push(top);
        Ok(())
    }

    fn number(&mut self, op: u8) -> Read<()> {
        let value = match op {
            b'N' => Value::None,
            0x88 => Value::Bool,
            0x89 => Value::Bool,
            b'J' => Value::Int(i32::from_le_bytes(self.take(4)?.try_into().unwrap_or_default()).into()),
            b'K' => Value::Int(self.take(1)?[0].into()),
            b'M' => Value::Int(u16::from_le_bytes(self.take(2)?.try_into().unwrap_or_default()).into()),
            b'G' => {
                self.take(8)?;
                Value::Float
            }
            b'F' => {
                self.line()?;
                Value::Float
            }
            0x8a => {
                let count = self.take(1)?[0] as usize;
                long(self.take(count)?)
            }
            _ => match self.line()?.trim_end_matches('L') {
                "00" => Value::Bool,
                "01" => Value::Bool,
                digits => digits.parse().map_or(Value::Opaque, Value::Int),
            },
        };
        self.stack.push(value);
        Ok(())
    }

    fn text(&mut self, op: u8) -> Read<()> {
        if matches!(op, b'V' | b'S') {
            let line = self.line()?;
            self.stack.push(Value::Str(line.trim_matches('\'').into()));
            return Ok(());
        }
        let width = match op {
            b'X' | b'T' | b'B' => 4,
            0x8d | 0x8e => 8,
            _ => 1,
        };
        let len = self.length(width)?;
        let bytes = self.take(len)?;
        let is_text = matches!(op, b'X' | 0x8c | 0x8d);
        self.stack.push(match std::str::from_utf8(bytes) {
            Ok(text) if is_text || matches!(op, b'U' | b'T') => Value::Str(text.into()),
            Err(_) if is_text => return broken("text that is not UTF-8"),
            _ => Value::Bytes,
        });
        Ok(())
    }

    fn container(&mut self, op: u8) -> Read<()> {
        let value = match op {
            b')' => self.pickle.tuple(vec![]),
            b't' => {
                let items = self.pop_to_mark()?;
                self.pickle.tuple(items)
            }
            0x85..=0x87 => {
                let count = (op - 0x84) as usize;
                let Some(from) = self.stack.len().checked_sub(count) else { return broken("an empty stack") };
                let items = self.stack.split_off(from);
                self.pickle.tuple(items)
            }
            b']' => self.pickle.list(vec![]),
            b'l' => {
                let items = self.pop_to_mark()?;
                self.pickle.list(items)
            }
            b'}' => self.pickle.dict(vec![]),
            b'd' => {
                let entries = pairs(self.pop_to_mark()?)?;
                self.pickle.dict(entries)
            }
            0x91 => {
                self.pop_to_mark()?;
                Value::Opaque
            }
            _ => Value::Opaque,
        };
        self.stack.push(value);
        Ok(())
    }

    fn fill(&mut self, op: u8) -> Read<()> {
        let items = match op {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_to_mark()?,
        };
        match self.stack.last() {
            Some(Value::List(index)) if matches!(op, b'a' | b'e') => self.pickle.lists[*index].extend(items),
            Some(Value::Dict(index)) if matches!(op, b's' | b'u') => self.pickle.dicts[*index].extend(pairs(items)?),
            Some(Value::Opaque) => {}
            _ => return broken("items for something that is no list or dictionary"),
        }
        Ok(())
    }

    fn memo(&mut self, op: u8) -> Read<()> {
        let index = match op {
            b'q' | b'h' => self.take(1)?[0].into(),
            b'r' | b'j' => u32::from_le_bytes(self.take(4)?.try_into().unwrap_or_default()),
            0x94 => self.memo.len() as u32,
            _ => self.line()?.parse().or_else(|_| broken("a memo index that is no number"))?,
        };
        if matches!(op, b'h' | b'j' | b'g') {
            let Some(value) = self.memo.get(&index) else { return broken("a memo entry that was never stored") };
            self.stack.push(value.clone());
        } else {
            let Some(top) = self.stack.last() else { return broken("an empty stack") };
            self.memo.insert(index, top.clone());
        }
        Ok(())
    }

    fn global(&mut self, op: u8) -> Read<()> {
        let (module, name) = if op == b'c' {
            (self.line()?.to_string(), self.line()?.to_string())
        } else {
            let (Value::Str(name), Value::Str(module)) = (self.pop()?, self.pop()?) else {
                return broken("a global whose name is no text");
            };
            (module.to_string(), name.to_string())
        };
        let symbol = format!("{module}.{name}");
        let top = module.split('.').next().unwrap_or_default();
        let runs_code = FORBIDDEN.contains(&top) || name.split('.').any(|part| part.starts_with("__"));
        if runs_code && !HARMLESS.contains(&symbol.as_str()) {
            return Err(PickleError::Forbidden(symbol));
        }
        self.stack.push(Value::Global(symbol.into()));
        Ok(())
    }

    fn reduce(&mut self) -> Read<()> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let (Some(arguments), Value::Global(symbol)) = (self.pickle.items(&arguments), &callee) else {
            self.stack.push(Value::Opaque);
            return Ok(());
        };
        let value = match &**symbol {
            "collections.OrderedDict" => {
                let entries = self.ordered_entries(arguments)?;
                self.pickle.dict(entries)
            }
            "torch._utils._rebuild_tensor_v2" => self.rebuild_tensor(arguments)?,
            "torch._utils._rebuild_parameter" => arguments.first().cloned().unwrap_or(Value::Opaque),
            _ => Value::Opaque,
        };
        self.stack.push(value);
        Ok(())
    }

    /// The entries of `OrderedDict(arguments)`: none, or a list of pairs.
    fn ordered_entries(&self, arguments: &[Value]) -> Read<Vec<(Value, Value)>> {
        let items = arguments.first().and_then(|list| self.pickle.items(list)).unwrap_or_default();
        let pair = |item: &Value| match self.pickle.items(item) {
            Some([key, value]) => Ok((key.clone(), value.clone())),
            _ => broken("a dictionary item that is no pair"),
        };
        items.iter().map(pair).collect()
    }

    /// `(storage, offset, size, stride, requires_grad, hooks)`.
    fn rebuild_tensor(&self, arguments: &[Value]) -> Read<Value> {
        let [Value::Storage(storage, kind), Value::Int(offset), shape, strides, ..] = arguments else {
            return broken("a tensor of an unknown form");
        };
        let ints = |value: &Value| -> Read<Vec<i64>> {
            let Some(items) = self.pickle.items(value) else { return broken("a size that is no tuple") };
            let int = |v: &Value| if let Value::Int(n) = v { Ok(*n) } else { broken("a size that is no number") };
            items.iter().map(int).collect()
        };
        let (storage, kind, offset) = (storage.clone(), *kind, *offset);
        let tensor = StoredTensor { storage, kind, offset, shape: ints(shape)?, strides: ints(strides)? };
        Ok(Value::Tensor(Rc::new(tensor)))
    }

    fn new_object(&mut self, operands: usize) -> Read<()> {
        for _ in 0..operands {
            self.pop()?;
        }
        self.stack.push(Value::Opaque);
        Ok(())
    }

    /// `('storage', <storage type>, key, location, numel)`.
    fn persistent_id(&mut self) -> Read<()> {
        let id = self.pop()?;
        let Some([Value::Str(tag), Value::Global(class), Value::Str(key), ..]) = self.pickle.items(&id) else {
            return broken("a storage of an unknown form");
        };
        if &**tag != "storage" || key.contains(['/', '\\']) || key.contains("..") {
            return broken(format!("a storage called `{key}`"));
        }
        let Some(kind) = storage_kind(class) else { return broken(format!("a storage of the unknown type `{class}`")) };
        let storage = Value::Storage(key.clone(), kind);
        self.stack.push(storage);
        Ok(())
    }
}

fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Opaque;
    }
    let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
    let mut wide = [fill; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}

fn pairs(items: Vec<Value>) -> Read<Vec<(Value, Value)>> {
    if !items.len().is_multiple_of(2) {
        return broken("a dictionary key without a value");
    }
    let mut items = items.into_iter();
    Ok(std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect())
}

fn storage_kind(class: &str) -> Option<Kind> {
    Some(match class.strip_prefix("torch.")? {
        "DoubleStorage" => Kind::Double,
        "FloatStorage" => Kind::Float,
        "HalfStorage" => Kind::Half,
        "BFloat16Storage" => Kind::BFloat16,
        "LongStorage" => Kind::Int64,
        "IntStorage" => Kind::Int,
        "ShortStorage" => Kind::Int16,
        "CharStorage" => Kind::Int8,
        "ByteStorage" => Kind::Uint8,
        "BoolStorage" => Kind::Bool,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // Hidden in a value that nobody would look at.
        assert_eq!(forbidden(b"}S'callbacks'\ncrunpy\n_run_code\ns."), "runpy._run_code");
    }

    #[test]
    fn unknown_but_harmless_objects_become_opaque() {
        let (pickle, value) = read(b"}S'x'\ncargparse\nNamespace\n)R}bs.").unwrap();
        assert!(matches!(pickle.get(&value, "x"), Some(Value::Opaque)));
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
}
