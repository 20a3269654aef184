//! Writes safetensors files, right ones and wrong ones, byte by byte: nothing here comes from the reader under test.

/// A file to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    pub(crate) metadata: Vec<(String, String)>,
    pub(crate) tensors: Vec<Tensor>,
}

#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn metadata(mut self, key: &str, value: &str) -> Self {
        self.metadata.push((key.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn tensor(
        mut self,
        name: &str,
        dtype: &str,
        shape: &[u64],
        bytes: impl Into<Vec<u8>>,
    ) -> Self {
        self.tensors.push(Tensor {
            name: name.to_owned(),
            dtype: dtype.to_owned(),
            shape: shape.to_vec(),
            bytes: bytes.into(),
        });
        self
    }

    pub(crate) fn f32(self, name: &str, shape: &[u64], values: &[f32]) -> Self {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.tensor(name, "F32", shape, bytes)
    }

    pub(crate) fn i32(self, name: &str, shape: &[u64], values: &[i32]) -> Self {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.tensor(name, "I32", shape, bytes)
    }

    /// The tensor called `name`, to be changed.
    pub(crate) fn change(mut self, name: &str, change: impl FnOnce(&mut Tensor)) -> Self {
        let tensor = self
            .tensors
            .iter_mut()
            .find(|tensor| tensor.name == name)
            .expect(name);
        change(tensor);
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        let count = self.tensors.len();
        self.tensors.retain(|tensor| tensor.name != name);
        assert_eq!(self.tensors.len() + 1, count, "{name}");
        self
    }

    /// A file as it stands, from its bytes. Only for files that are right.
    pub(crate) fn read(file: &[u8]) -> Self {
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let header: serde_json::Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
        let data = &file[8 + length..];
        let mut writer = Self::new();
        let mut tensors: Vec<(usize, Tensor)> = Vec::new();
        for (name, entry) in header.as_object().unwrap() {
            if name == "__metadata__" {
                for (key, value) in entry.as_object().unwrap() {
                    writer = writer.metadata(key, value.as_str().unwrap());
                }
                continue;
            }
            let number = |value: &serde_json::Value| value.as_u64().unwrap();
            let [begin, end] = [0, 1].map(|index| number(&entry["data_offsets"][index]) as usize);
            tensors.push((
                begin,
                Tensor {
                    name: name.clone(),
                    dtype: entry["dtype"].as_str().unwrap().to_owned(),
                    shape: entry["shape"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(number)
                        .collect(),
                    bytes: data[begin..end].to_vec(),
                },
            ));
        }
        tensors.sort_by_key(|(begin, tensor)| (*begin, tensor.bytes.len()));
        writer.tensors = tensors.into_iter().map(|(_, tensor)| tensor).collect();
        writer
    }

    pub(crate) fn header(&self) -> String {
        let text = |value: &str| serde_json::to_string(value).unwrap();
        let metadata: Vec<String> = self
            .metadata
            .iter()
            .map(|(key, value)| format!("{}:{}", text(key), text(value)))
            .collect();
        let mut entries = vec![format!("\"__metadata__\":{{{}}}", metadata.join(","))];
        let mut begin = 0;
        for tensor in &self.tensors {
            let end = begin + tensor.bytes.len();
            entries.push(format!(
                "{}:{{\"dtype\":{},\"shape\":{:?},\"data_offsets\":[{begin},{end}]}}",
                text(&tensor.name),
                text(&tensor.dtype),
                tensor.shape
            ));
            begin = end;
        }
        format!("{{{}}}", entries.join(","))
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let data: Vec<u8> = self
            .tensors
            .iter()
            .flat_map(|tensor| tensor.bytes.iter().copied())
            .collect();
        with_header(&self.header(), &data)
    }
}

/// A file of a header and data.
pub(crate) fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}
