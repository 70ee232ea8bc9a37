//! How far two words are apart, for messages that guess what was meant.

/// What to say to somebody who wrote a word that is none of `known`: the one that was meant where that is plain, all of
/// them where it is not. Of a long word its beginning counts.
pub fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let word: String = word.chars().take(32).collect();
    let known: Vec<&str> = known.into_iter().collect();
    // Names with a sign in front have that in common, whatever they mean.
    let letters = word.trim_start_matches('$').chars().count();
    let distances =
        known.iter().map(|known| (edit_distance(&word.to_ascii_lowercase(), &known.to_ascii_lowercase()), known));
    match distances.min_by_key(|(distance, _)| *distance) {
        Some((distance, near)) if 2 * distance <= letters => format!("did you mean {near}?"),
        _ => format!("there are {}", known.join(", ")),
    }
}

/// Levenshtein's distance in bytes, row by row.
#[must_use]
pub fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{edit_distance, suggestion};

    #[test]
    fn edits_are_counted() {
        for (a, b, distance) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("$st", "$set", 1)] {
            assert_eq!((edit_distance(a, b), edit_distance(b, a)), (distance, distance), "{a} {b}");
        }
    }

    #[test]
    fn only_what_is_near_is_taken_for_what_was_meant() {
        let known = ["$set", "$not", "$addToSet", "$sort"];
        for (word, near) in [("$st", "$set"), ("$addtoset", "$addToSet"), ("$sotr", "$sort"), ("set", "$set")] {
            assert_eq!(suggestion(word, known), format!("did you mean {near}?"));
        }
        for word in ["$out", "$foo", "", "$", &"x".repeat(99)] {
            assert_eq!(suggestion(word, known), "there are $set, $not, $addToSet, $sort", "{word}");
        }
    }
}
