//! Writes GGUF files. For tests only: it checks nothing.

pub(crate) use anybit_import::gguf::Value;

use anybit_import::gguf::Array;

/// A list of texts.
pub(crate) fn strings<S: Into<String>>(texts: impl IntoIterator<Item = S>) -> Value {
    Value::Array(Array::String(texts.into_iter().map(Into::into).collect()))
}

/// A list of integers.
pub(crate) fn integers(numbers: impl IntoIterator<Item = i32>) -> Value {
    Value::Array(Array::I32(numbers.into_iter().collect()))
}

/// A tensor as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    /// Columns first, as GGUF lists them.
    pub(crate) dimensions: Vec<u64>,
    /// ggml's number of the type.
    pub(crate) id: u32,
    pub(crate) bytes: Vec<u8>,
}

const ALIGNMENT: usize = 32;

/// The file with these entries and tensors, in this order.
pub(crate) fn write(metadata: &[(String, Value)], tensors: &[Tensor]) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        string(&mut file, key);
        write_value(&mut file, value);
    }
    let mut data = Vec::new();
    for tensor in tensors {
        pad(&mut data);
        string(&mut file, &tensor.name);
        file.extend((tensor.dimensions.len() as u32).to_le_bytes());
        for dimension in &tensor.dimensions {
            file.extend(dimension.to_le_bytes());
        }
        file.extend(tensor.id.to_le_bytes());
        file.extend((data.len() as u64).to_le_bytes());
        data.extend(&tensor.bytes);
    }
    pad(&mut data);
    pad(&mut file);
    file.extend(data);
    file
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}

fn string(file: &mut Vec<u8>, text: &str) {
    file.extend((text.len() as u64).to_le_bytes());
    file.extend(text.as_bytes());
}

fn write_value(file: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U32(value) => {
            file.extend(4u32.to_le_bytes());
            file.extend(value.to_le_bytes());
        }
        Value::I32(value) => {
            file.extend(5u32.to_le_bytes());
            file.extend(value.to_le_bytes());
        }
        Value::F32(value) => {
            file.extend(6u32.to_le_bytes());
            file.extend(value.to_le_bytes());
        }
        Value::Bool(value) => {
            file.extend(7u32.to_le_bytes());
            file.push((*value).into());
        }
        Value::String(text) => {
            file.extend(8u32.to_le_bytes());
            string(file, text);
        }
        Value::Array(array) => write_array(file, array),
        other => panic!("no test writes {other:?}"),
    }
}

fn write_array(file: &mut Vec<u8>, array: &Array) {
    let mut begin = |element_type: u32| {
        file.extend(9u32.to_le_bytes());
        file.extend(element_type.to_le_bytes());
        file.extend((array.len() as u64).to_le_bytes());
    };
    match array {
        Array::I32(values) => {
            begin(5);
            file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        Array::F32(values) => {
            begin(6);
            file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        Array::String(texts) => {
            begin(8);
            texts.iter().for_each(|text| string(file, text));
        }
        other => panic!("no test writes {other:?}"),
    }
}
