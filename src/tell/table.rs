//! Aligns text in columns for a terminal.

/// Rows of cells; the first row is the heading.
#[derive(Debug, Default)]
pub(crate) struct TextTable {
    rows: Vec<Vec<String>>,
}

impl TextTable {
    pub(crate) fn new(heading: &[&str]) -> Self {
        TextTable { rows: vec![heading.iter().map(ToString::to_string).collect()] }
    }

    pub(crate) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// The text, each column as wide as its widest cell.
    pub(crate) fn to_text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let pad = |cell: &String, width: usize| " ".repeat(width - cell.chars().count());
            let cells =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell}{}", pad(cell, *width)));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
        };
        self.rows.iter().map(line).map(|line| line + "\n").collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_blanks() {
        let mut table = TextTable::new(&["NAME", "N"]);
        table.push(vec!["ä".into(), "1".into()]);
        table.push(vec!["longer".into(), String::new()]);
        assert_eq!(table.to_text(), "NAME    N\nä       1\nlonger\n");
    }
}
