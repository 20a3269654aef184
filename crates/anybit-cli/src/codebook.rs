//! Tables of users: `--codebook NAME=FILE`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anybit::formats::CodebookFormat;
use anybit_import::npy::NpyArray;

use crate::error::Error;

/// 256 values, a line each, with room for comments.
const TEXT_LIMIT: u64 = 1 << 16;

/// `NAME=FILE`.
#[derive(Clone, Debug)]
pub(crate) struct CodebookArgument {
    name: String,
    path: PathBuf,
}

impl FromStr for CodebookArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(Self {
                name: name.to_owned(),
                path: path.into(),
            }),
            _ => Err("expected NAME=FILE, such as mylevels=levels.txt".to_owned()),
        }
    }
}

/// Reads the tables and makes them known by their names.
pub(crate) fn register(codebooks: &[CodebookArgument]) -> Result<Vec<CodebookFormat>, Error> {
    codebooks
        .iter()
        .map(|CodebookArgument { name, path }| {
            let values = read(path)?;
            CodebookFormat::user(name, &values).map_err(|error| Error::Codebook {
                path: path.clone(),
                problem: error.to_string(),
            })
        })
        .collect()
}

/// The values of a .npy array, or of a text: numbers between white space or commas, `#` before
/// comments.
fn read(path: &Path) -> Result<Vec<f32>, Error> {
    if path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("npy"))
    {
        return NpyArray::open(path)
            .map(|array| array.values)
            .map_err(|source| Error::npy(path, source));
    }
    let wrong = |problem: String| Error::Codebook {
        path: path.to_owned(),
        problem,
    };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(TEXT_LIMIT + 1).read_to_string(&mut text))
        .map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
    if text.len() as u64 > TEXT_LIMIT {
        return Err(wrong(format!(
            "expected a text of at most {TEXT_LIMIT} bytes with 2 to 256 numbers, found a longer one"
        )));
    }
    let mut values = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.split('#').next().unwrap_or_default();
        for word in line.split(|c: char| c.is_whitespace() || c == ',') {
            if word.is_empty() {
                continue;
            }
            values.push(word.parse().map_err(|_| {
                let start: String = word.chars().take(60).collect();
                wrong(format!("line {number}: expected a number, found {start:?}"))
            })?);
        }
    }
    Ok(values)
}
