//! Writes GGUF files, right ones and wrong ones. For tests only: it checks nothing.

/// Numbers of the metadata value types.
pub(crate) mod value_type {
    pub(crate) const U8: u32 = 0;
    pub(crate) const I8: u32 = 1;
    pub(crate) const U16: u32 = 2;
    pub(crate) const I16: u32 = 3;
    pub(crate) const U32: u32 = 4;
    pub(crate) const I32: u32 = 5;
    pub(crate) const F32: u32 = 6;
    pub(crate) const BOOL: u32 = 7;
    pub(crate) const STRING: u32 = 8;
    pub(crate) const ARRAY: u32 = 9;
    pub(crate) const U64: u32 = 10;
    pub(crate) const I64: u32 = 11;
    pub(crate) const F64: u32 = 12;
}

/// A string as GGUF stores it: length, then bytes.
pub(crate) fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text);
    bytes
}

/// An array as GGUF stores it: element type, count, then the elements' bytes.
pub(crate) fn array(element_type: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    let mut bytes = element_type.to_le_bytes().to_vec();
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(elements);
    bytes
}

struct Tensor {
    name: Vec<u8>,
    dimensions: Vec<u64>,
    tensor_type: u32,
    offset: Option<u64>,
    bytes: Vec<u8>,
}

/// Builds a file: header, metadata, tensor list, padding, tensors each on a multiple of the alignment. Nothing follows
/// the last tensor.
pub(crate) struct Writer {
    pub(crate) version: u32,
    pub(crate) alignment: u64,
    /// Written instead of the real number of tensors.
    pub(crate) tensor_count: Option<u64>,
    /// Written instead of the real number of metadata entries.
    pub(crate) metadata_count: Option<u64>,
    metadata: Vec<u8>,
    entries: u64,
    tensors: Vec<Tensor>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self {
            version: 3,
            alignment: 32,
            tensor_count: None,
            metadata_count: None,
            metadata: Vec::new(),
            entries: 0,
            tensors: Vec::new(),
        }
    }

    /// Adds an entry whose value is stored as `value`.
    pub(crate) fn metadata(mut self, key: impl AsRef<[u8]>, value_type: u32, value: &[u8]) -> Self {
        self.metadata.extend_from_slice(&string(key));
        self.metadata.extend_from_slice(&value_type.to_le_bytes());
        self.metadata.extend_from_slice(value);
        self.entries += 1;
        self
    }

    /// Adds a tensor, placed after those before it.
    pub(crate) fn tensor(
        mut self,
        name: impl AsRef<[u8]>,
        dimensions: &[u64],
        tensor_type: u32,
        bytes: Vec<u8>,
    ) -> Self {
        self.tensors.push(Tensor {
            name: name.as_ref().to_vec(),
            dimensions: dimensions.to_vec(),
            tensor_type,
            offset: None,
            bytes,
        });
        self
    }

    /// Adds a tensor and writes `offset` into the list, wherever its bytes are.
    pub(crate) fn tensor_at(
        mut self,
        offset: u64,
        name: impl AsRef<[u8]>,
        dimensions: &[u64],
        tensor_type: u32,
        bytes: Vec<u8>,
    ) -> Self {
        self = self.tensor(name, dimensions, tensor_type, bytes);
        if let Some(tensor) = self.tensors.last_mut() {
            tensor.offset = Some(offset);
        }
        self
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let tensor_count = self.tensor_count.unwrap_or(self.tensors.len() as u64);
        let metadata_count = self.metadata_count.unwrap_or(self.entries);
        let mut file = b"GGUF".to_vec();
        file.extend_from_slice(&self.version.to_le_bytes());
        file.extend_from_slice(&tensor_count.to_le_bytes());
        file.extend_from_slice(&metadata_count.to_le_bytes());
        file.extend_from_slice(&self.metadata);

        let mut data: Vec<u8> = Vec::new();
        for tensor in &self.tensors {
            data.resize(data.len().next_multiple_of(self.alignment as usize), 0);
            let offset = tensor.offset.unwrap_or(data.len() as u64);
            data.extend_from_slice(&tensor.bytes);
            file.extend_from_slice(&string(&tensor.name));
            file.extend_from_slice(&(tensor.dimensions.len() as u32).to_le_bytes());
            for dimension in &tensor.dimensions {
                file.extend_from_slice(&dimension.to_le_bytes());
            }
            file.extend_from_slice(&tensor.tensor_type.to_le_bytes());
            file.extend_from_slice(&offset.to_le_bytes());
        }
        if !data.is_empty() {
            file.resize(file.len().next_multiple_of(self.alignment as usize), 0);
            file.extend_from_slice(&data);
        }
        file
    }
}
