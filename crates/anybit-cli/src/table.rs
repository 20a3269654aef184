//! Tables of text.

use std::fmt::Write as _;

/// Columns as wide as their widest cell, two spaces apart.
pub(crate) fn aligned<const N: usize>(head: &[&str; N], rows: &[[String; N]]) -> String {
    lines(head, rows, "  ", "", "")
}

/// The same in Markdown; all columns but those of `left` are numbers.
pub(crate) fn markdown<const N: usize>(
    head: &[&str; N],
    rows: &[[String; N]],
    left: &[usize],
) -> String {
    let escaped: Vec<[String; N]> = rows
        .iter()
        .map(|row| row.each_ref().map(|cell| cell.replace('|', "\\|")))
        .collect();
    let text = lines(head, &escaped, " | ", "| ", " |");
    let mut rule = String::from("|");
    for column in 0..N {
        rule.push_str(if left.contains(&column) {
            "---|"
        } else {
            "---:|"
        });
    }
    match text.split_once('\n') {
        Some((head, rows)) => format!("{head}\n{rule}\n{rows}"),
        None => text,
    }
}

fn lines<const N: usize>(
    head: &[&str; N],
    rows: &[[String; N]],
    between: &str,
    first: &str,
    last: &str,
) -> String {
    let head = head.map(str::to_owned);
    let mut widths = [0; N];
    for row in std::iter::once(&head).chain(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        let line = format!("{first}{}{last}", cells.join(between));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["a".into(), "1".into()], ["béé".into(), String::new()]];
        assert_eq!(aligned(&["x", "yy"], &rows), "x    yy\na    1\nbéé\n");
        assert_eq!(
            markdown(&["x", "yy"], &[["a|b".into(), "1".into()]], &[0]),
            "| x    | yy |\n|---|---:|\n| a\\|b | 1  |\n"
        );
    }
}
