//! Workloads of a real model: the matrices of block 0 and the LM head, on the embeddings of a real sentence.

use std::collections::HashMap;
use std::path::Path;

use anybit_formats::PackedMatrix;
use anybit_import::ImportError;
use anybit_import::gguf::GgufFile;
use anybit_reference::exact;

use crate::Error;
use crate::problem::{Precision, Random, Source, Workload};

/// Decoding, a few tokens at once, and a prompt.
const ROWS: [usize; 3] = [1, 8, 128];

const EMBEDDING: &str = "token_embd.weight";

/// The sentence whose tokens are the activations.
const TEXT: &str = "When the old lighthouse keeper climbed the stairs that evening, the wind had already turned, and \
    the boats that had left the harbour in the morning were coming home one after another, low in the water and \
    followed by gulls. He lit the lamp, wrote the hour into the book, and sat down by the window to count them: \
    three, then five, then the small blue one that belonged to his daughter, which was late as always. Below him \
    the waves broke on the rocks, the same rocks that he had drawn as a child, and he thought that nothing in the \
    world was as patient as water, nor as certain of its way, nor as little in a hurry to explain itself to the \
    people who lived beside it.";

/// The workloads of a model.
///
/// # Errors
///
/// [`Error::Model`]; [`Error::NoBlock`] if there is nothing to run.
pub(crate) fn workloads(path: &Path) -> Result<Vec<Workload>, Error> {
    let failed = |source: ImportError| Error::Model {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let file = GgufFile::open(path).map_err(failed)?;
    let embeddings = embeddings(&file).map_err(failed)?;

    let mut workloads = Vec::new();
    let mut block = Vec::new();
    for info in file.tensors() {
        let matrix = info.dimensions().len() == 2 && info.rows() > 1 && info.is_readable_matrix();
        if info.name().starts_with("blk.0.") && matrix {
            block.push((info.name(), file.matrix(info.name()).map_err(failed)?));
        }
    }
    if block.is_empty() {
        return Err(Error::NoBlock {
            path: path.to_owned(),
            tensors: file.tensors().len(),
        });
    }
    let gated = gated(&file, &embeddings, &block)?;
    for (name, weights) in block {
        let precisions = Precision::of_block(*weights.format());
        let activations = activations(name, &weights, &embeddings, gated.as_deref());
        workloads.push(workload(name, weights, activations, precisions));
    }

    // Models that tie the head to the embedding have no matrix of its own for it.
    let head = ["output.weight", EMBEDDING].into_iter().find(|name| {
        file.tensor(name)
            .is_some_and(|info| info.is_readable_matrix())
    });
    if let Some(name) = head {
        let weights = file.matrix(name).map_err(failed)?;
        let precisions = Precision::of_head(*weights.format());
        let activations = activations(name, &weights, &embeddings, None);
        let name = format!("{name} (LM head)");
        workloads.push(workload(&name, weights, activations, precisions));
    }
    Ok(workloads)
}

fn workload(
    name: &str,
    weights: PackedMatrix,
    activations: Vec<f32>,
    precisions: Vec<Precision>,
) -> Workload {
    Workload {
        name: name.to_owned(),
        source: Source::Model,
        ms: ROWS.to_vec(),
        activations,
        weights,
        precisions,
        experts: None,
    }
}

/// Embedding rows of the sentence's tokens, as many as the largest M: what enters block 0.
struct Embeddings {
    columns: usize,
    values: Vec<f32>,
}

fn embeddings(file: &GgufFile) -> Result<Embeddings, ImportError> {
    let info = file
        .tensor(EMBEDDING)
        .ok_or_else(|| ImportError::UnknownTensor {
            name: EMBEDDING.to_owned(),
        })?;
    let rows = usize::try_from(info.rows()).unwrap_or(usize::MAX);
    let mut tokens = match file.metadata().get_strings("tokenizer.ggml.tokens") {
        Ok(vocabulary) => tokenize(TEXT, vocabulary),
        Err(_) => Vec::new(),
    };
    tokens.retain(|&token| token < rows);
    if tokens.is_empty() {
        // A model without a vocabulary: any tokens will do.
        tokens = (0..ROWS[2]).map(|i| i * 7919 % rows.max(1)).collect();
    }
    let tokens: Vec<usize> = tokens.into_iter().cycle().take(ROWS[2]).collect();
    Ok(Embeddings {
        columns: usize::try_from(info.columns()).unwrap_or(usize::MAX),
        values: file.rows(EMBEDDING, &tokens)?,
    })
}

/// Cuts a text into the longest tokens that the vocabulary has, from the left. Not what the model's own tokeniser does
/// with its merge ranks, but all of them are real tokens in a real order. Characters that no token has are skipped.
fn tokenize(text: &str, vocabulary: &[String]) -> Vec<usize> {
    let index: HashMap<&str, usize> = vocabulary
        .iter()
        .enumerate()
        .map(|(token, text)| (text.as_str(), token))
        .collect();
    // Byte-level vocabularies write a space as Ġ, those of SentencePiece as ▁.
    let space = ["Ġ", "▁"]
        .into_iter()
        .find(|space| index.contains_key(space))
        .unwrap_or(" ");
    let text = text.replace(' ', space);
    let longest = index.keys().map(|token| token.len()).max().unwrap_or(0);
    let mut tokens = Vec::new();
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let found = (1..=longest.min(rest.len()))
            .rev()
            .filter_map(|len| Some((len, *index.get(rest.get(..len)?)?)))
            .next();
        let len = match found {
            Some((len, token)) => {
                tokens.push(token);
                len
            }
            None => first.len_utf8(),
        };
        rest = &rest[len..];
    }
    tokens
}

/// What enters ffn_down, for the sentence without attention: silu(gate) · up of the normalised embeddings. `None` if the
/// block has another kind of feed-forward part.
fn gated(
    file: &GgufFile,
    embeddings: &Embeddings,
    block: &[(&str, PackedMatrix)],
) -> Result<Option<Vec<f32>>, Error> {
    let find = |name| {
        block
            .iter()
            .find(|(found, weights)| *found == name && weights.columns() == embeddings.columns)
            .map(|(_, weights)| weights)
    };
    let (Some(gate), Some(up)) = (find("blk.0.ffn_gate.weight"), find("blk.0.ffn_up.weight"))
    else {
        return Ok(None);
    };
    let norm = file.matrix("blk.0.ffn_norm.weight").ok();
    let norm = norm.map_or_else(Vec::new, |norm| norm.decode());
    let mut normalized = Vec::with_capacity(embeddings.values.len());
    for row in embeddings.values.chunks(embeddings.columns.max(1)) {
        let square = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / row.len() as f64;
        let inverse = 1.0 / (square + 1e-5).sqrt();
        for (column, x) in row.iter().enumerate() {
            let weight = norm.get(column).copied().unwrap_or(1.0);
            normalized.push((f64::from(*x) * inverse * f64::from(weight)) as f32);
        }
    }
    let gate = exact::gemm_f64_of(&normalized, gate)?;
    let up = exact::gemm_f64_of(&normalized, up)?;
    if gate.len() != up.len() {
        return Ok(None);
    }
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let values = gate
        .iter()
        .zip(&up)
        .map(|(&gate, &up)| (silu(gate) * up) as f32);
    Ok(Some(values.collect()))
}

/// The rows that meet a matrix: the sentence's embeddings where K is their length, what enters ffn_down for that, else
/// random values.
fn activations(
    name: &str,
    weights: &PackedMatrix,
    embeddings: &Embeddings,
    gated: Option<&[f32]>,
) -> Vec<f32> {
    let wanted = ROWS[2] * weights.columns();
    match gated {
        Some(gated) if name == "blk.0.ffn_down.weight" && gated.len() == wanted => gated.to_vec(),
        _ if weights.columns() == embeddings.columns => embeddings.values.clone(),
        _ => Random::new(weights.columns() as u64).values(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary(tokens: &[&str]) -> Vec<String> {
        tokens.iter().map(|&token| token.to_owned()).collect()
    }

    #[test]
    fn the_longest_token_is_taken() {
        let tokens = vocabulary(&["a", "b", "ab", "Ġ", "Ġa", "abba", "é"]);
        assert_eq!(tokenize("abba ab", &tokens), [5, 4, 1]);
        assert_eq!(tokenize("aé?b", &tokens), [0, 6, 1]);
    }

    #[test]
    fn spaces_follow_the_vocabulary() {
        assert_eq!(tokenize("a a", &vocabulary(&["a", "▁", "▁a"])), [0, 2]);
        assert_eq!(tokenize("a a", &vocabulary(&["a", " a"])), [0, 1]);
        assert!(tokenize("a", &[]).is_empty());
    }
}
