//! Cross-check of every anybit kernel against its CPU reference.
