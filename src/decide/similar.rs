//! Finds the known word that a mistyped one was probably meant to be.

/// The word of `known` that `word` was probably meant to be: the nearest one, if no more than a
/// third of it was mistyped, and never more than three letters. Letter case does not count, nor
/// does whether words are joined by `_`, `-` or a blank. A word that is known was not mistyped.
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = folded(word);
    let distance = |known: &str| edits(&typed, &folded(known));
    let nearest = known.into_iter().map(|known| (distance(known), known)).min_by_key(|pair| pair.0);
    let is_near = |(edits, known): &(usize, &str)| *edits <= tolerance(known) && *known != word;
    nearest.filter(is_near).map(|(_, known)| known)
}

/// A remark to follow `word` in a message: ` (did you mean X?)`, or nothing.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    closest(word, known).map(|known| format!(" (did you mean {known}?)")).unwrap_or_default()
}

/// The `count` of `known` that are nearest to `word`, the nearest first. A word that is shorter is
/// compared with as much of each.
pub fn nearest<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
    count: usize,
) -> Vec<&'a str> {
    let typed = folded(word);
    let distance = |known: &str| {
        let letters = folded(known);
        edits(&typed, &letters[..letters.len().min(typed.len())])
    };
    let mut by_distance: Vec<(usize, &str)> =
        known.into_iter().map(|known| (distance(known), known)).collect();
    by_distance.sort_by_key(|pair| pair.0);
    by_distance.into_iter().take(count).map(|(_, known)| known).collect()
}

fn tolerance(word: &str) -> usize {
    (word.chars().count() / 3).min(3)
}

fn folded(word: &str) -> Vec<char> {
    let joined = |letter: char| if matches!(letter, '_' | '-') { ' ' } else { letter };
    word.chars().flat_map(char::to_lowercase).map(joined).collect()
}

/// How many letters have to be inserted, removed, replaced or exchanged with their neighbour to
/// make one word of the other.
fn edits(one: &[char], other: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, letter) in one.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, opposite) in other.iter().enumerate() {
            let replaced = last[column] + usize::from(letter != opposite);
            let mut least = replaced.min(last[column + 1] + 1).min(current[column] + 1);
            let is_exchanged =
                row > 0 && column > 0 && *letter == other[column - 1] && one[row - 1] == *opposite;
            if is_exchanged {
                least = least.min(before_last[column - 1] + 1);
            }
            current.push(least);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_as_far_from_another_as_letters_differ() {
        for (one, other, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("keep", "keep", 0),
            ("keep", "kepe", 1),
            ("dayly", "daily", 1),
            ("kitten", "sitting", 3),
            ("grüße", "grusse", 3),
        ] {
            let letters = |word: &str| word.chars().collect::<Vec<char>>();
            assert_eq!(edits(&letters(one), &letters(other)), expected, "{one} {other}");
            assert_eq!(edits(&letters(other), &letters(one)), expected, "{other} {one}");
        }
    }

    #[test]
    fn only_a_word_that_is_nearly_the_same_is_meant() {
        let known = ["keep", "min_keep", "max_age", "min_age", "snapshot_root", "nice"];
        for (word, expected) in [
            ("kepe", Some("keep")),
            ("Max-Age", Some("max_age")),
            ("maxage", Some("max_age")),
            ("snapshots_rot", Some("snapshot_root")),
            ("retention", None),
            ("k", None),
            ("", None),
        ] {
            assert_eq!(closest(word, known), expected, "{word}");
        }
        assert_eq!(did_you_mean("keep", known), "");
        assert_eq!(did_you_mean("kepe", known), " (did you mean keep?)");
        assert_eq!(did_you_mean("retention", known), "");
    }
}
