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

/// Levenshtein's distance in bytes, where two neighbours that change places count once, row by row (optimal string
/// alignment).
#[must_use]
pub fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let (mut before, mut above) = (Vec::new(), (0..=b.len()).collect::<Vec<usize>>());
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (above[j] + usize::from(x != y)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{edit_distance, suggestion};

    #[test]
    fn edits_are_counted() {
        for (a, b, distance) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("$st", "$set", 1), ("$adn", "$and", 1)]
        {
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
