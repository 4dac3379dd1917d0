//! The values and the names that a pickle of tensors may hold, and why others stop the machine.

use crate::dtype::Dtype;
use crate::error::Error;
use std::rc::Rc;

/// A value's place in the machine's store; values may refer to each other, in circles too.
pub(super) type Id = usize;

/// A Python value, as far as it matters.
pub(super) enum Node<'a> {
    None,
    /// A float, a long, a device: skipped by everyone.
    Opaque,
    Bool,
    Int(i64),
    Text(&'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Name(Name),
    Storage(Storage<'a>),
    Tensor(Rc<Tensor<'a>>),
}

/// A storage: one entry of the archive.
#[derive(Clone, Copy)]
pub(super) struct Storage<'a> {
    pub key: &'a str,
    /// None for one that is bytes, typed by the tensor.
    pub dtype: Option<Dtype>,
    pub bytes: usize,
}

/// A view of a storage; unchecked against it.
pub(super) struct Tensor<'a> {
    pub dtype: Dtype,
    pub storage: Storage<'a>,
    /// In elements, as are the strides.
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// The only Python names there are.
#[derive(Clone, Copy)]
pub(super) enum Name {
    OrderedDict,
    RebuildTensor2,
    RebuildTensor3,
    RebuildParameter,
    Size,
    Device,
    /// A storage class; None for the untyped.
    Storage(Option<Dtype>),
    /// `torch.float32`; None for a type that is not read.
    Dtype(Option<Dtype>),
}

impl Name {
    pub(super) fn find(module: &str, name: &str) -> Option<Name> {
        let found = match (module, name) {
            ("collections", "OrderedDict") => Name::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Name::RebuildTensor2,
            ("torch._utils", "_rebuild_tensor_v3") => Name::RebuildTensor3,
            ("torch._utils", "_rebuild_parameter") => Name::RebuildParameter,
            ("torch", "Size") => Name::Size,
            ("torch", "device") => Name::Device,
            ("torch.storage", "UntypedStorage") => Name::Storage(None),
            ("torch", name) => match name.strip_suffix("Storage") {
                Some(kind) => Name::Storage(Some(storage_dtype(kind)?)),
                None => Name::Dtype(scalar_dtype(name)?),
            },
            _ => return None,
        };
        Some(found)
    }
}

fn storage_dtype(kind: &str) -> Option<Dtype> {
    Some(match kind {
        "Float" => Dtype::F32,
        "Double" => Dtype::F64,
        "Half" => Dtype::F16,
        "BFloat16" => Dtype::BF16,
        "Long" => Dtype::I64,
        "Int" => Dtype::I32,
        "Short" => Dtype::I16,
        "Char" => Dtype::I8,
        "Byte" => Dtype::U8,
        "Bool" => Dtype::Bool,
        _ => return None,
    })
}

fn scalar_dtype(name: &str) -> Option<Option<Dtype>> {
    Some(Some(match name {
        "float32" => Dtype::F32,
        "float64" => Dtype::F64,
        "float16" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "float8_e4m3fn" => Dtype::F8E4M3,
        "float8_e5m2" => Dtype::F8E5M2,
        "int64" => Dtype::I64,
        "uint64" => Dtype::U64,
        "int32" => Dtype::I32,
        "uint32" => Dtype::U32,
        "int16" => Dtype::I16,
        "uint16" => Dtype::U16,
        "int8" => Dtype::I8,
        "uint8" => Dtype::U8,
        "bool" => Dtype::Bool,
        "complex64" | "complex128" | "float8_e4m3fnuz" | "float8_e5m2fnuz" => return Some(None),
        _ => return None,
    }))
}

/// Why the machine stopped short.
pub(super) enum Stop {
    Damaged(String),
    Unsupported(String),
    Forbidden(String),
}

impl Stop {
    pub(super) fn into_error(self, file: &str) -> Error {
        match self {
            Stop::Damaged(problem) => Error::damaged(file, format!("its data.pkl {problem}")),
            Stop::Unsupported(problem) => Error::Unsupported {
                file: file.to_owned(),
                problem: format!("its data.pkl {problem}"),
                remedy: "load it in PyTorch and save its state_dict() with torch.save as it is",
            },
            Stop::Forbidden(global) => Error::NotOnlyTensors { file: file.to_owned(), global },
        }
    }
}

pub(super) fn damaged(problem: &str) -> Stop {
    Stop::Damaged(problem.to_owned())
}
