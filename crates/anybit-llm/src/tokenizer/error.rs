use anybit_import::ImportError;
use anybit_import::gguf::ValueType;

/// Why a tokeniser could not be made of a file's vocabulary, or a text could not be tokenised.
///
/// Pieces and names that come from the file are escaped in the messages and bounded in length.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A key of the metadata is missing or has another type.
    #[error("the file's tokeniser cannot be read; convert the model to GGUF again")]
    Metadata(#[from] ImportError),
    /// The kind of tokeniser is not one that is built here.
    #[error(
        "tokeniser {found:?} (tokenizer.ggml.model) is not supported; \"gpt2\" (byte-level byte pair encoding) and \
         \"llama\" (SentencePiece) are: take another model"
    )]
    UnknownModel {
        /// The file's `tokenizer.ggml.model`.
        found: String,
    },
    /// How a text is split before the merges is not known.
    #[error("pre-tokeniser {found:?} (tokenizer.ggml.pre) is not known; known are {}", known.join(", "))]
    UnknownPreTokenizer {
        /// The file's `tokenizer.ggml.pre`.
        found: String,
        /// The names that are known.
        known: Vec<&'static str>,
    },
    /// There is not one piece.
    #[error("tokenizer.ggml.tokens is empty; convert the model to GGUF again")]
    EmptyVocabulary,
    /// There are more pieces than ids can number.
    #[error("the vocabulary has {size} pieces; ids number at most {limit}")]
    VocabularyTooLarge {
        /// How many pieces there are.
        size: usize,
        /// The most that are read.
        limit: usize,
    },
    /// An array that goes with the pieces is not as long as they are many.
    #[error(
        "{key} has {found} elements, but the vocabulary has {expected} pieces; convert the model to GGUF again"
    )]
    LengthMismatch {
        /// The array's key.
        key: &'static str,
        /// Its length.
        found: usize,
        /// How many pieces there are.
        expected: usize,
    },
    /// An array holds elements of another type.
    #[error("{key} holds elements of type {found}; expected {expected}")]
    WrongElementType {
        /// The array's key.
        key: &'static str,
        /// The type it should hold.
        expected: &'static str,
        /// The type it holds.
        found: ValueType,
    },
    /// A piece's type is none of GGUF's.
    #[error("piece {id} has token type {found}; types are 1 to 6")]
    UnknownPieceType {
        /// The piece's id.
        id: u32,
        /// Its type in the file.
        found: i64,
    },
    /// A piece's score is no number.
    #[error("piece {id} has score {score}; scores are finite numbers")]
    InvalidScore {
        /// The piece's id.
        id: u32,
        /// Its score in the file.
        score: f32,
    },
    /// A piece stands in the vocabulary twice.
    #[error("pieces {first} and {second} are both {piece:?}; convert the model to GGUF again")]
    DuplicatePiece {
        /// The piece.
        piece: String,
        /// Its first id.
        first: u32,
        /// Its second id.
        second: u32,
    },
    /// A piece of type byte does not name one.
    #[error("piece {id} has type byte but is {piece:?}; such pieces are <0x00> to <0xFF>")]
    InvalidBytePiece {
        /// The piece's id.
        id: u32,
        /// The piece.
        piece: String,
    },
    /// Bytes without a piece, in a vocabulary that spells unknown characters by bytes.
    #[error(
        "{count} of the 256 byte pieces are missing, the first is {first}; without them not every text can be spelled: \
         convert the model to GGUF again"
    )]
    MissingBytePieces {
        /// The first that is missing.
        first: String,
        /// How many are.
        count: usize,
    },
    /// A piece is too long to be merged from others.
    #[error("piece {id} has {length} bytes; at most {limit} are read")]
    PieceTooLong {
        /// The piece's id.
        id: u32,
        /// Its length in bytes.
        length: usize,
        /// The most that are read, in bytes.
        limit: usize,
    },
    /// A merge is not two pieces with a space between them.
    #[error(
        "merge {index} of tokenizer.ggml.merges is {merge:?}; expected two pieces with a space between"
    )]
    InvalidMerge {
        /// The merge's position.
        index: usize,
        /// The merge.
        merge: String,
    },
    /// A merge takes or makes a piece that the vocabulary has not.
    #[error(
        "merge {index} of tokenizer.ggml.merges needs piece {piece:?}, which the vocabulary has not; convert the model to \
         GGUF again"
    )]
    UnknownMergePiece {
        /// The merge's position.
        index: usize,
        /// The piece that is missing.
        piece: String,
    },
    /// The id of a special piece lies outside the vocabulary.
    #[error("{key} is {id}, but the vocabulary has {size} pieces; convert the model to GGUF again")]
    SpecialOutOfRange {
        /// The key that names the id.
        key: &'static str,
        /// The id.
        id: i64,
        /// How many pieces there are.
        size: usize,
    },
    /// A special piece is to be added to texts, but no id is given for it.
    #[error("{flag} is true, but {key} is not set; convert the model to GGUF again")]
    MissingSpecial {
        /// The key that asks for the piece.
        flag: &'static str,
        /// The key that would name its id.
        key: &'static str,
    },
    /// An id lies outside the vocabulary.
    #[error("id {id} is outside the vocabulary of {size} pieces")]
    NoSuchPiece {
        /// The id.
        id: u32,
        /// How many pieces there are.
        size: usize,
    },
    /// The vocabulary has no piece for a byte of the text.
    #[error(
        "the model's vocabulary cannot spell {character:?}: it has no piece for byte {byte:#04x}; leave it out"
    )]
    Unencodable {
        /// The character of the text.
        character: char,
        /// The byte of its UTF-8 that has no piece.
        byte: u8,
    },
    /// A text could not be split into words.
    #[error(
        "the text cannot be split into words, most likely because of a run of a million blanks or more; shorten it"
    )]
    Split(#[source] Box<fancy_regex::Error>),
    /// A library that the tokeniser is built on refused.
    #[error("{what} failed")]
    Library {
        /// What was being done.
        what: &'static str,
        /// What the library said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A piece or a name of the file as it goes into an error: they may be of any length.
pub(crate) fn shorten(text: &str) -> String {
    const LIMIT: usize = 128;
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
