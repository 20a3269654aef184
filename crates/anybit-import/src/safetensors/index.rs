//! The index of a model in several files: a JSON object whose `weight_map` has a file for each tensor.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::ImportError;

/// What errors call the text.
pub(super) const WHAT: &str = "the index";

/// Calls `take` with each tensor and its file, in the order of the text, until the first error. Holds one entry at a time.
pub(super) fn each(
    text: &[u8],
    take: impl FnMut(&str, &str) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    let mut failed = None;
    let mut reader = serde_json::Deserializer::from_slice(text);
    let reading = IndexReader {
        take,
        failed: &mut failed,
    };
    let read = reading.deserialize(&mut reader).and_then(|()| reader.end());
    match (failed, read) {
        (Some(error), _) => Err(error),
        (None, Ok(())) => Ok(()),
        (None, Err(source)) => Err(ImportError::InvalidJson {
            what: WHAT,
            source: source.into(),
        }),
    }
}

/// Reads all of the text.
struct IndexReader<'a, F> {
    take: F,
    failed: &'a mut Option<ImportError>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    WeightMap,
    #[serde(other)]
    Other,
}

impl<'de, F: FnMut(&str, &str) -> Result<(), ImportError>> DeserializeSeed<'de>
    for IndexReader<'_, F>
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(&str, &str) -> Result<(), ImportError>> Visitor<'de> for IndexReader<'_, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an index")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(field) = map.next_key()? {
            match field {
                Field::WeightMap if found => return Err(A::Error::duplicate_field("weight_map")),
                Field::WeightMap => {
                    map.next_value_seed(MapReader {
                        take: &mut self.take,
                        failed: self.failed,
                    })?;
                    found = true;
                }
                Field::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match found {
            true => Ok(()),
            false => Err(A::Error::missing_field("weight_map")),
        }
    }
}

/// Reads the map of tensors to files.
struct MapReader<'a, F> {
    take: &'a mut F,
    failed: &'a mut Option<ImportError>,
}

impl<'de, F: FnMut(&str, &str) -> Result<(), ImportError>> DeserializeSeed<'de>
    for MapReader<'_, F>
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(&str, &str) -> Result<(), ImportError>> Visitor<'de> for MapReader<'_, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((tensor, file)) = map.next_entry::<String, String>()? {
            if let Err(error) = (self.take)(&tensor, &file) {
                *self.failed = Some(error);
                return Err(A::Error::custom("an entry is refused"));
            }
        }
        Ok(())
    }
}
