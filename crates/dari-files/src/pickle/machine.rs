//! A pickle machine that knows only what tensors need: the opcodes of protocol 2 as `torch.save`
//! writes them, and a closed list of Python names. No name is looked up, imported or called; a
//! pickle that asks for any other is refused at the mention of it.
//!
//! Opcodes: CPython's `Lib/pickletools.py`. The names and their arguments: `torch/_utils.py`.

use super::values::{Id, Name, Node, Stop, Storage, Tensor, damaged};
use crate::dtype::Dtype;
use crate::error::shown;
use std::collections::HashMap;
use std::rc::Rc;

/// Real checkpoints need some 100 bytes of pickle and 30 steps a tensor, and no copies of lists:
/// these bounds leave room for some 100,000 tensors, and bound the machine's memory.
const MAX_PICKLE_BYTES: usize = 16 << 20;
const MAX_STEPS: usize = 1 << 22;
const MAX_COPIES: usize = 1 << 22;

pub(super) struct Machine<'a> {
    rest: &'a [u8],
    nodes: Vec<Node<'a>>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Numbers and pairs copied by calls: a short pickle can call often.
    copies: usize,
}

impl<'a> Machine<'a> {
    pub(super) fn new(pickle: &'a [u8]) -> Machine<'a> {
        Machine {
            rest: pickle,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copies: 0,
        }
    }

    /// The value behind an id that this machine gave out.
    pub(super) fn node(&self, id: Id) -> &Node<'a> {
        self.nodes.get(id).unwrap_or(&Node::None)
    }

    /// Runs to the end; the pickled value.
    pub(super) fn run(&mut self) -> Result<Id, Stop> {
        if self.rest.len() > MAX_PICKLE_BYTES {
            return Err(Stop::Unsupported(format!(
                "is {} bytes long, at most {MAX_PICKLE_BYTES} are read",
                self.rest.len()
            )));
        }
        for _ in 0..MAX_STEPS {
            if let Some(value) = self.step()? {
                return Ok(value);
            }
        }
        Err(Stop::Unsupported(format!("takes more than {MAX_STEPS} steps")))
    }

    /// One opcode; Some at the last.
    fn step(&mut self) -> Result<Option<Id>, Stop> {
        let [opcode] = self.take_array()?;
        match opcode {
            0x80 => {
                let [protocol] = self.take_array()?;
                if protocol != 2 {
                    return Err(Stop::Unsupported(format!(
                        "is in pickle protocol {protocol}, torch.save's own is 2"
                    )));
                }
            }
            b'.' => {
                let value = self.pop()?;
                if !self.stack.is_empty() || !self.marks.is_empty() {
                    return Err(damaged("ends with values left over"));
                }
                return Ok(Some(value));
            }
            b'N' => self.push(Node::None),
            0x88 | 0x89 => self.push(Node::Bool),
            b'J' => {
                let number = i32::from_le_bytes(self.take_array()?);
                self.push(Node::Int(number.into()));
            }
            b'K' => {
                let [number] = self.take_array()?;
                self.push(Node::Int(number.into()));
            }
            b'M' => {
                let number = u16::from_le_bytes(self.take_array()?);
                self.push(Node::Int(number.into()));
            }
            0x8a => {
                let [length] = self.take_array()?;
                self.push_long(length.into())?;
            }
            0x8b => {
                let length = self.take_length()?;
                self.push_long(length)?;
            }
            b'G' => {
                self.take(8)?;
                self.push(Node::Opaque);
            }
            b'X' | b'T' => {
                let length = self.take_length()?;
                self.push_text(length)?;
            }
            b'U' => {
                let [length] = self.take_array()?;
                self.push_text(length.into())?;
            }
            b'q' => {
                let [slot] = self.take_array()?;
                self.remember(slot.into())?;
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.take_array()?);
                self.remember(slot)?;
            }
            b'h' => {
                let [slot] = self.take_array()?;
                self.recall(slot.into())?;
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.take_array()?);
                self.recall(slot)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.push(Node::Tuple(Vec::new())),
            0x85 => self.push_tuple(1)?,
            0x86 => self.push_tuple(2)?,
            0x87 => self.push_tuple(3)?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items));
            }
            b']' => self.push(Node::List(Vec::new())),
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b'}' => self.push(Node::Dict(Vec::new())),
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            b'c' => {
                let (module, name) = (self.take_line()?, self.take_line()?);
                let Some(name) = Name::find(module, name) else {
                    // Protocol 2 spells it as Python 2 did.
                    let module = match module {
                        "__builtin__" => "builtins",
                        module => module,
                    };
                    return Err(Stop::Forbidden(shown(&format!("{module}.{name}"))));
                };
                self.push(Node::Name(name));
            }
            b'Q' => self.load_storage()?,
            b'R' => self.call()?,
            b'b' => self.build()?,
            other => {
                return Err(Stop::Unsupported(format!(
                    "uses the opcode 0x{other:02x}, which tensors never need"
                )));
            }
        }
        Ok(None)
    }

    fn push(&mut self, node: Node<'a>) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    /// Never reaches below the last mark.
    fn pop(&mut self) -> Result<Id, Stop> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.pop() {
            Some(top) if self.stack.len() >= floor => Ok(top),
            _ => Err(damaged("takes from an empty stack")),
        }
    }

    fn top(&self) -> Result<Id, Stop> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&top) if self.stack.len() > floor => Ok(top),
            _ => Err(damaged("looks at an empty stack")),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Stop> {
        let mark = self.marks.pop().ok_or_else(|| damaged("returns to a mark it never set"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn push_tuple(&mut self, size: usize) -> Result<(), Stop> {
        let mut items = Vec::with_capacity(size);
        for _ in 0..size {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Node::Tuple(items));
        Ok(())
    }

    fn push_long(&mut self, length: usize) -> Result<(), Stop> {
        let digits = self.take(length)?;
        let negative = digits.last().is_some_and(|&byte| byte >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        let node = match wide.get_mut(..length) {
            Some(low) => {
                low.copy_from_slice(digits);
                Node::Int(i64::from_le_bytes(wide))
            }
            None => Node::Opaque,
        };
        self.push(node);
        Ok(())
    }

    fn push_text(&mut self, length: usize) -> Result<(), Stop> {
        let text =
            std::str::from_utf8(self.take(length)?).map_err(|_| damaged("has a string that is not UTF-8"))?;
        self.push(Node::Text(text));
        Ok(())
    }

    fn remember(&mut self, slot: u32) -> Result<(), Stop> {
        let top = self.top()?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<(), Stop> {
        match self.memo.get(&slot) {
            Some(&id) => {
                self.stack.push(id);
                Ok(())
            }
            None => Err(damaged("recalls what it never remembered")),
        }
    }

    fn append(&mut self, mut items: Vec<Id>) -> Result<(), Stop> {
        let list = self.top()?;
        match self.nodes.get_mut(list) {
            Some(Node::List(list)) => {
                list.append(&mut items);
                Ok(())
            }
            _ => Err(damaged("appends to what is no list")),
        }
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), Stop> {
        let dict = self.top()?;
        let Some(Node::Dict(dict)) = self.nodes.get_mut(dict) else {
            return Err(damaged("sets items of what is no dict"));
        };
        let (pairs, left) = items.as_chunks::<2>();
        if !left.is_empty() {
            return Err(damaged("sets a key without a value"));
        }
        dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    /// `("storage", class, key, location, elements)` becomes a storage.
    fn load_storage(&mut self) -> Result<(), Stop> {
        const FORM: &str = "refers to a storage in an unknown form";
        let reference = self.pop()?;
        let Node::Tuple(parts) = self.node(reference) else {
            return Err(damaged(FORM));
        };
        let [tag, class, key, _location, elements] = parts.as_slice() else {
            return Err(damaged(FORM));
        };
        let parts = (self.node(*tag), self.node(*class), self.node(*key), self.node(*elements));
        let (Node::Text("storage"), Node::Name(Name::Storage(dtype)), Node::Text(key), Node::Int(elements)) =
            parts
        else {
            return Err(damaged(FORM));
        };
        let size = dtype.map_or(1, Dtype::size);
        let bytes = usize::try_from(*elements)
            .ok()
            .and_then(|n| n.checked_mul(size))
            .ok_or_else(|| Stop::Damaged(format!("has a storage of {elements} elements")))?;
        let storage = Storage { key, dtype: *dtype, bytes };
        self.push(Node::Storage(storage));
        Ok(())
    }

    fn call(&mut self) -> Result<(), Stop> {
        let arguments = self.pop()?;
        let callee = self.pop()?;
        let Node::Name(name) = *self.node(callee) else {
            return Err(damaged("calls what is no function"));
        };
        let Node::Tuple(arguments) = self.node(arguments) else {
            return Err(damaged("calls with what are no arguments"));
        };
        let result = match name {
            Name::OrderedDict => self.ordered_dict(arguments)?,
            Name::RebuildTensor2 => match arguments.as_slice() {
                // Gradient flag, hooks and metadata do not matter here.
                [storage, offset, shape, strides, ..] => {
                    self.tensor([*storage, *offset, *shape, *strides], None)?
                }
                _ => return Err(damaged("makes a tensor from too few arguments")),
            },
            Name::RebuildTensor3 => match arguments.as_slice() {
                [storage, offset, shape, strides, _, _, dtype, ..] => {
                    self.tensor([*storage, *offset, *shape, *strides], Some(*dtype))?
                }
                _ => return Err(damaged("makes a tensor from too few arguments")),
            },
            Name::RebuildParameter => match arguments.first().map(|id| self.node(*id)) {
                Some(Node::Tensor(tensor)) => Node::Tensor(Rc::clone(tensor)),
                _ => return Err(damaged("makes a parameter from what is no tensor")),
            },
            Name::Size | Name::Device => Node::Opaque,
            Name::Storage(_) | Name::Dtype(_) => {
                return Err(damaged("calls a type as a function"));
            }
        };
        self.copies += match &result {
            Node::Dict(items) => items.len(),
            Node::Tensor(tensor) => tensor.shape.len() + tensor.strides.len(),
            _ => 0,
        };
        if self.copies > MAX_COPIES {
            return Err(Stop::Unsupported(format!("copies more than {MAX_COPIES} values")));
        }
        self.push(result);
        Ok(())
    }

    /// Empty, or from a list of pairs as Python 2 wrote it.
    fn ordered_dict(&self, arguments: &[Id]) -> Result<Node<'a>, Stop> {
        const FORM: &str = "makes a dict in an unknown form";
        let [list] = arguments else {
            return match arguments {
                [] => Ok(Node::Dict(Vec::new())),
                _ => Err(damaged(FORM)),
            };
        };
        let Node::List(list) = self.node(*list) else {
            return Err(damaged(FORM));
        };
        let mut items = Vec::with_capacity(list.len());
        for pair in list {
            match self.node(*pair) {
                Node::List(pair) | Node::Tuple(pair) => match pair.as_slice() {
                    [key, value] => items.push((*key, *value)),
                    _ => return Err(damaged(FORM)),
                },
                _ => return Err(damaged(FORM)),
            }
        }
        Ok(Node::Dict(items))
    }

    fn tensor(&self, parts: [Id; 4], dtype: Option<Id>) -> Result<Node<'a>, Stop> {
        let [storage, offset, shape, strides] = parts.map(|id| self.node(id));
        let (Node::Storage(storage), Node::Int(offset)) = (storage, offset) else {
            return Err(damaged("makes a tensor from what is no storage"));
        };
        let dtype = match (dtype.map(|id| self.node(id)), storage.dtype) {
            (None, Some(dtype)) => dtype,
            (Some(Node::Name(Name::Dtype(Some(dtype)))), None) => *dtype,
            (Some(Node::Name(Name::Dtype(None))), None) => {
                return Err(Stop::Unsupported("has a tensor of a type that is not read".to_owned()));
            }
            _ => return Err(damaged("makes a tensor without a type")),
        };
        Ok(Node::Tensor(Rc::new(Tensor {
            dtype,
            storage: *storage,
            offset: usize::try_from(*offset).map_err(|_| damaged("has a negative offset"))?,
            shape: self.sizes(shape)?,
            strides: self.sizes(strides)?,
        })))
    }

    fn sizes(&self, node: &Node<'a>) -> Result<Vec<usize>, Stop> {
        let Node::Tuple(items) = node else {
            return Err(damaged("has a tensor whose shape is no tuple"));
        };
        if items.len() > crate::checkpoint::MAX_RANK {
            return Err(damaged("has a tensor of too many dimensions"));
        }
        items
            .iter()
            .map(|id| match self.node(*id) {
                Node::Int(size) => usize::try_from(*size).ok(),
                _ => None,
            })
            .collect::<Option<Vec<usize>>>()
            .ok_or_else(|| damaged("has a tensor whose shape or strides are no numbers"))
    }

    /// A state dict's own attributes (`_metadata`: versions) do not matter here.
    fn build(&mut self) -> Result<(), Stop> {
        self.pop()?;
        match self.node(self.top()?) {
            Node::Dict(_) => Ok(()),
            _ => Err(damaged("sets attributes of what is no dict")),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        match self.rest.split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(damaged("is cut short")),
        }
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        match self.take(N)?.first_chunk() {
            Some(array) => Ok(*array),
            None => Err(damaged("is cut short")),
        }
    }

    fn take_length(&mut self) -> Result<usize, Stop> {
        // Signed in the strings of Python 2; no honest length is that long.
        let length = i32::from_le_bytes(self.take_array()?);
        usize::try_from(length).map_err(|_| damaged("has a negative length"))
    }

    fn take_line(&mut self) -> Result<&'a str, Stop> {
        let end = self.rest.iter().position(|&byte| byte == b'\n');
        let line = self.take(end.ok_or_else(|| damaged("is cut short"))?)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| damaged("has a name that is not UTF-8"))
    }
}
