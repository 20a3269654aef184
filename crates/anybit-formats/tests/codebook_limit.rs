//! Codebooks of users are kept for the life of the process, so that there must be an end to them. A test of its own, since
//! it leaves no room for others.

use anybit_formats::{CodebookFormat, FormatError};

#[test]
fn codebooks_of_users_are_bounded() {
    let table = [-1.0, 0.5, 1.0];
    let limit = 4096;
    for index in 0..limit {
        let made = CodebookFormat::user(&format!("table_{index}"), &table);
        assert!(made.is_ok(), "{index}: {made:?}");
    }
    assert_eq!(
        CodebookFormat::user("one_more", &table),
        Err(FormatError::TooManyCodebooks { limit })
    );
    // Those that there are stay, and can be asked for again.
    assert!(CodebookFormat::user("table_7", &table).is_ok());
    assert!(CodebookFormat::find("table_4095").is_some());
}
