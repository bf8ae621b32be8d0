//! Aligns text in columns, which fit the width of a terminal.
//!
//! Without a width, every cell is printed whole, and only columns that are optional are left out if
//! they have no content. Within a width, all columns without content are left out, then those that
//! can be spared, in their order. Texts are folded within their columns, and at last the names in
//! the first column lose their beginning.

use crate::tell::terminal::{shorten, split};

/// Rows of cells; the first row is the heading.
#[derive(Debug, Default)]
pub(crate) struct TextTable {
    rows: Vec<Vec<String>>,
    folded: Vec<usize>,
    spared: Vec<usize>,
    optional: Vec<usize>,
}

/// The text of a table.
pub(crate) struct FittedTable {
    /// The heading and the rows; one that is folded has several lines.
    pub rows: Vec<String>,
    /// Titles of columns that have content and are left out.
    pub left_out: Vec<String>,
}

impl FittedTable {
    /// The line that names what is left out.
    pub(crate) fn note(&self) -> String {
        match self.left_out.as_slice() {
            [] => String::new(),
            titles => format!("(--wide shows also {})\n", titles.join(", ")),
        }
    }
}

/// Between two columns.
const GAP: usize = 2;

/// A column of folded text is not narrower than this, as long as others can be spared.
const TEXT_WIDTH: usize = 24;

/// A column is never narrower than this, so the table is wider than a terminal of few columns.
const LEAST_WIDTH: usize = 8;

impl TextTable {
    pub(crate) fn new(heading: &[&str]) -> Self {
        let rows = vec![heading.iter().map(ToString::to_string).collect()];
        TextTable { rows, ..TextTable::default() }
    }

    /// The columns with these titles hold texts, which can be folded.
    pub(crate) fn folding(self, titles: &[&str]) -> Self {
        TextTable { folded: self.numbers(titles), ..self }
    }

    /// The columns with these titles can be left out, the first one first.
    pub(crate) fn sparing(self, titles: &[&str]) -> Self {
        TextTable { spared: self.numbers(titles), ..self }
    }

    /// The columns with these titles are left out if they have no content.
    pub(crate) fn optional(self, titles: &[&str]) -> Self {
        TextTable { optional: self.numbers(titles), ..self }
    }

    fn numbers(&self, titles: &[&str]) -> Vec<usize> {
        let number = |title: &&str| self.rows[0].iter().position(|cell| cell == title);
        titles.iter().filter_map(number).collect()
    }

    pub(crate) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// The text, and below it which columns are left out.
    pub(crate) fn to_text(&self, width: Option<usize>) -> String {
        let fitted = self.fit(width);
        fitted.rows.concat() + &fitted.note()
    }

    /// The text of each row, each column as wide as its widest cell if `width` allows that.
    pub(crate) fn fit(&self, width: Option<usize>) -> FittedTable {
        let natural: Vec<usize> = (0..self.columns()).map(|column| self.natural(column)).collect();
        let mut shown: Vec<usize> = (0..self.columns()).collect();
        let mut left_out: Vec<String> = Vec::new();
        let mut widths = natural.clone();
        shown.retain(|column| {
            let is_needed = width.is_none() && !self.optional.contains(column);
            *column == 0 || is_needed || self.has_content(*column)
        });
        if let Some(width) = width {
            let least = |column: &usize| match self.folded.contains(column) {
                true => natural[*column].min(TEXT_WIDTH),
                false => natural[*column],
            };
            let least = |shown: &[usize]| total(shown.iter().map(least));
            let mut spared = self.spared.iter().filter(|column| shown.contains(column)).copied();
            let mut dropped: Vec<usize> = Vec::new();
            let without = |dropped: &[usize]| -> Vec<usize> {
                shown.iter().copied().filter(|column| !dropped.contains(column)).collect()
            };
            let fits = |dropped: &[usize]| least(&without(dropped)) <= width;
            while !fits(&dropped)
                && let Some(column) = spared.next()
            {
                dropped.push(column);
            }
            // A narrow one may fit into what a wide one has left.
            for at in (0..dropped.len()).rev() {
                let column = dropped.remove(at);
                if !fits(&dropped) {
                    dropped.insert(at, column);
                }
            }
            left_out = dropped.iter().map(|column| self.rows[0][*column].clone()).collect();
            shown = without(&dropped);
            let excess = least(&shown).saturating_sub(width);
            widths[0] = natural[0].saturating_sub(excess).max(LEAST_WIDTH.min(natural[0]));
            self.divide(width, &shown, &mut widths);
        }
        let rows = self.rows.iter().map(|row| self.row_text(row, &shown, &widths)).collect();
        FittedTable { rows, left_out }
    }

    /// Divides what the other columns leave of `width` among the texts; none gets more than it
    /// needs.
    fn divide(&self, width: usize, shown: &[usize], widths: &mut [usize]) {
        let (mut texts, others): (Vec<usize>, Vec<usize>) =
            shown.iter().partition(|column| self.folded.contains(column));
        let taken: usize = others.iter().map(|column| widths[*column]).sum();
        let mut rest = width.saturating_sub(taken + GAP * shown.len().saturating_sub(1));
        texts.sort_by_key(|column| widths[*column]);
        for (number, column) in texts.iter().enumerate() {
            let share = (rest / (texts.len() - number)).max(LEAST_WIDTH);
            widths[*column] = widths[*column].min(share);
            rest = rest.saturating_sub(widths[*column]);
        }
    }

    fn row_text(&self, row: &[String], shown: &[usize], widths: &[usize]) -> String {
        let empty = String::new();
        let cell = |column: &usize| {
            let (text, width) = (row.get(*column).unwrap_or(&empty), widths[*column]);
            match self.folded.contains(column) {
                true => {
                    split(text, width, 0).into_iter().flat_map(|part| cut(part, width)).collect()
                }
                false => vec![shorten(text, width)],
            }
        };
        let cells: Vec<Vec<String>> = shown.iter().map(cell).collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or(0);
        let line = |number: usize| {
            let mut line = String::new();
            for (cell, column) in cells.iter().zip(shown) {
                let text = cell.get(number).unwrap_or(&empty);
                line += text;
                line += &" ".repeat(GAP + widths[*column].saturating_sub(text.chars().count()));
            }
            line.trim_end().to_string() + "\n"
        };
        (0..height).map(line).collect()
    }

    fn columns(&self) -> usize {
        self.rows.iter().map(Vec::len).max().unwrap_or(0)
    }

    fn cells(&self, column: usize) -> impl Iterator<Item = &String> {
        self.rows.iter().filter_map(move |row| row.get(column))
    }

    /// The width of the widest cell.
    fn natural(&self, column: usize) -> usize {
        self.cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0)
    }

    /// Whether any cell below the heading says something.
    fn has_content(&self, column: usize) -> bool {
        self.cells(column).skip(1).any(|cell| !matches!(cell.as_str(), "" | "-"))
    }
}

fn total(widths: impl Iterator<Item = usize>) -> usize {
    widths.map(|width| width + GAP).sum::<usize>().saturating_sub(GAP)
}

/// A word that is longer than its column, in pieces.
fn cut(word: &str, width: usize) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    match letters.is_empty() {
        true => vec![String::new()],
        false => letters.chunks(width.max(1)).map(|piece| piece.iter().collect()).collect(),
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
        assert_eq!(table.to_text(None), "NAME    N\nä       1\nlonger\n");
    }

    fn wide() -> TextTable {
        let mut table = TextTable::new(&["NAME", "EMPTY", "A", "B", "BECAUSE"])
            .folding(&["BECAUSE"])
            .sparing(&["B", "A"]);
        for number in 0..3 {
            table.push(vec![
                format!("2026-11-2{number}T00-00-00Z"),
                "-".into(),
                "12345".into(),
                "67890".into(),
                "a reason of several words, and one_word_of_very_many_letters_in_it".into(),
            ]);
        }
        table
    }

    #[test]
    fn a_table_fits_any_usual_width() {
        for width in 36..160 {
            let text = wide().to_text(Some(width));
            let longest = text.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(width), "{width}: {text}");
            assert!(!text.contains("EMPTY"), "{text}");
            let is_whole = text.lines().count() == 4;
            assert!(width < 120 || is_whole && text.contains("67890"), "{width}: {text}");
        }
    }

    #[test]
    fn what_is_left_out_is_named() {
        let text = wide().to_text(Some(55));
        assert!(text.contains("12345") && !text.contains("67890"), "{text}");
        assert!(text.ends_with("(--wide shows also B)\n"), "{text}");
        assert!(wide().to_text(Some(45)).ends_with("(--wide shows also B, A)\n"));
    }

    #[test]
    fn a_narrow_column_comes_back_into_the_room_of_a_wide_one() {
        let mut table = TextTable::new(&["NAME", "WIDE", "N"]).sparing(&["N", "WIDE"]);
        table.push(vec!["name".into(), "w".repeat(20), "1".into()]);
        assert_eq!(table.to_text(Some(12)), "NAME  N\nname  1\n(--wide shows also WIDE)\n");
    }

    #[test]
    fn an_optional_column_without_content_is_nowhere() {
        let mut table = TextTable::new(&["NAME", "N", "M"]).optional(&["N", "M"]);
        table.push(vec!["a".into(), String::new(), "1".into()]);
        assert_eq!(table.to_text(None), "NAME  M\na     1\n");
    }

    #[test]
    fn names_lose_their_beginning_last() {
        let text = wide().to_text(Some(40));
        assert!(text.contains("\n…-20T00-00-00Z"), "{text}");
    }

    #[test]
    fn without_a_width_nothing_is_left_out() {
        let text = wide().to_text(None);
        assert!(
            text.contains("EMPTY") && text.contains("67890") && text.contains("many_letters_in_it")
        );
    }
}
