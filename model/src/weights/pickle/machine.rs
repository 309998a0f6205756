//! The opcodes.

use super::symbols::is_forbidden;
use super::{BYTES_MAX, Pickle, PickleError, Read, STEPS_MAX, Value, broken, torch};
use std::collections::HashMap;
use std::rc::Rc;

/// Characters of a name; longer texts are kept as opaque bytes, so that repeating one by reference costs nothing.
const TEXT_MAX: usize = 4096;

/// Characters of a class or function with its module.
const NAME_MAX: usize = 512;

/// Interprets the pickle that `bytes` begin with: its tables, the value that it stands for, and its length.
pub(in super::super) fn read(bytes: &[u8]) -> Read<(Pickle, Value, usize)> {
    let bytes = &bytes[..bytes.len().min(BYTES_MAX)];
    let (stack, memo, pickle) = (vec![], HashMap::new(), Pickle::default());
    let mut machine = Machine { bytes, at: 0, stack, memo, pickle, copies_left: bytes.len() };
    for _ in 0..STEPS_MAX {
        if let Some(value) = machine.step()? {
            return Ok((machine.pickle, value, machine.at));
        }
    }
    broken(format!("it has more than {STEPS_MAX} opcodes, which no checkpoint needs"))
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
    pickle: Pickle,
    /// Items that may still be copied out of lists, each of which can be named many times. Genuine files use each once.
    copies_left: usize,
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
            b'N' | 0x88 | 0x89 | b'J' | b'K' | b'M' | b'I' | b'L' | 0x8a | 0x8b | b'G' | b'F' => self.number(op)?,
            b'X' | 0x8c | 0x8d | b'U' | b'T' | b'B' | b'C' | 0x8e | 0x96 | b'V' | b'S' => self.text(op)?,
            b')' | b't' | 0x85 | 0x86 | 0x87 | b']' | b'l' | b'}' | b'd' | 0x8f | 0x91 => self.container(op)?,
            b'a' | b'e' | b's' | b'u' | 0x90 => self.fill(op)?,
            b'q' | b'r' | b'p' | 0x94 | b'h' | b'j' | b'g' => self.memo(op)?,
            b'c' | 0x93 => self.global(op)?,
            b'R' => self.reduce()?,
            b'i' | b'o' => self.instance(op)?,
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
            0x88 | 0x89 => Value::Bool(op == 0x88),
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
            0x8a | 0x8b => {
                let count = self.length(if op == 0x8a { 1 } else { 4 })?;
                long(self.take(count)?)
            }
            _ => match self.line()?.trim_end_matches('L') {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                digits => digits.parse().map_or(Value::Opaque, Value::Int),
            },
        };
        self.stack.push(value);
        Ok(())
    }

    fn text(&mut self, op: u8) -> Read<()> {
        if matches!(op, b'V' | b'S') {
            let line = self.line()?.trim_matches('\'');
            self.stack.push(if line.len() > TEXT_MAX { Value::Bytes } else { Value::Str(line.into()) });
            return Ok(());
        }
        let width = match op {
            b'X' | b'T' | b'B' => 4,
            0x8d | 0x8e | 0x96 => 8,
            _ => 1,
        };
        let len = self.length(width)?;
        let bytes = self.take(len)?;
        let is_text = matches!(op, b'X' | 0x8c | 0x8d);
        self.stack.push(match std::str::from_utf8(bytes) {
            Ok(text) if text.len() <= TEXT_MAX && (is_text || matches!(op, b'U' | b'T')) => Value::Str(text.into()),
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
            _ => return broken("items for something that is not a list or dictionary"),
        }
        Ok(())
    }

    fn memo(&mut self, op: u8) -> Read<()> {
        let index = match op {
            b'q' | b'h' => self.take(1)?[0].into(),
            b'r' | b'j' => u32::from_le_bytes(self.take(4)?.try_into().unwrap_or_default()),
            0x94 => self.memo.len() as u32,
            _ => self.line()?.parse().or_else(|_| broken("a memo index that is not a number"))?,
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
        if op == b'c' {
            let (module, name) = (self.line()?, self.line()?);
            return self.push_global(module, name);
        }
        match (self.pop()?, self.pop()?) {
            (Value::Str(name), Value::Str(module)) => self.push_global(&module, &name),
            _ => broken("a global whose name is not text"),
        }
    }

    fn push_global(&mut self, module: &str, name: &str) -> Read<()> {
        if module.len() + name.len() > NAME_MAX {
            return broken(format!("a name of {} characters", module.len() + name.len()));
        }
        let symbol = format!("{module}.{name}");
        if is_forbidden(module, name) {
            return Err(PickleError::Forbidden(symbol));
        }
        self.stack.push(Value::Global(symbol.into()));
        Ok(())
    }

    /// An object by the opcodes of protocol 0: `i` spells out its class, `o` has it on the stack.
    fn instance(&mut self, op: u8) -> Read<()> {
        if op == b'i' {
            let (module, name) = (self.line()?, self.line()?);
            self.push_global(module, name)?;
            self.pop()?;
        }
        self.pop_to_mark()?;
        self.stack.push(Value::Opaque);
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
                self.copies_left -= entries.len();
                self.pickle.dict(entries)
            }
            "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => {
                let tensor = torch::tensor(&self.pickle, arguments)?;
                self.pickle.num_tensors += 1;
                Value::Tensor(Rc::new(tensor))
            }
            // A parameter is a tensor with flags that training needs; the later names are those of early versions.
            "torch._utils._rebuild_parameter"
            | "torch._utils._rebuild_parameter_with_state"
            | "torch.nn.parameter.Parameter"
            | "torch.autograd.variable.Variable" => arguments.first().cloned().unwrap_or(Value::Opaque),
            _ => Value::Opaque,
        };
        self.stack.push(value);
        Ok(())
    }

    /// The entries of `OrderedDict(arguments)`: none, or a list of pairs.
    fn ordered_entries(&self, arguments: &[Value]) -> Read<Vec<(Value, Value)>> {
        let items = arguments.first().and_then(|list| self.pickle.items(list)).unwrap_or_default();
        if items.len() > self.copies_left {
            return broken("a list that is copied over and over");
        }
        let pair = |item: &Value| match self.pickle.items(item) {
            Some([key, value]) => Ok((key.clone(), value.clone())),
            _ => broken("a dictionary item that is not a pair"),
        };
        items.iter().map(pair).collect()
    }

    fn new_object(&mut self, operands: usize) -> Read<()> {
        for _ in 0..operands {
            self.pop()?;
        }
        self.stack.push(Value::Opaque);
        Ok(())
    }

    fn persistent_id(&mut self) -> Read<()> {
        let id = self.pop()?;
        let storage = Rc::new(torch::storage(&self.pickle, &id)?);
        self.pickle.storages.push(Rc::clone(&storage));
        self.stack.push(Value::Storage(storage));
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
