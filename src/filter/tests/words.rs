//! Searching for words.

use proptest::prelude::*;

use super::{json, matches, parse};
use crate::filter::{TextSearch, tokens};
use crate::value::{Json, Row};

fn check(search: &str, document: &str) -> bool {
    let body = json(document).to_string();
    TextSearch::new(search).unwrap().matches(Row { id: None, body: Json::new(body.as_bytes()), conflicts: 0 }, &[])
}

#[test]
fn words_are_found_whatever_their_case_and_marks() {
    let cut = |text: &str| tokens(text).map(|token| token.into_owned()).collect::<Vec<_>>();
    assert_eq!(
        cut("The quick (\"brown\") fox can't jump 32.3 feet!"),
        ["the", "quick", "brown", "fox", "can't", "jump", "32.3", "feet"]
    );
    assert_eq!(cut("CAFÉ cafe\u{301} naïve ÅNGSTRÖM İstanbul"), ["cafe", "cafe", "naive", "angstrom", "istanbul"]);
    assert_eq!(cut("well-known пётр"), ["well", "known", "петр"]);
    assert!(cut(" -- \"\" ... \u{bc6}").is_empty());
}

#[test]
fn any_word_all_phrases_and_none_of_the_negated() {
    let shop = r#"{"name":"Java Coffee Shop","notes":["hot cakes",{"more":"Café à la crème"}],"n":5}"#;
    for (search, expected) in [
        ("java", true),
        ("tea coffee", true),
        ("tea", false),
        ("cafe", true),
        ("name", false),
        ("5", false),
        ("\"coffee shop\"", true),
        ("\"shop coffee\"", false),
        ("\"coffee shop\" tea", true),
        ("\"coffee shop\" \"hot cakes\"", true),
        ("\"coffee shop\" \"cold cakes\"", false),
        // A phrase is within one string.
        ("\"shop hot\"", false),
        ("java -shop", false),
        ("java -tea", true),
        ("java -\"shop coffee\"", true),
        ("java -\"coffee shop\"", false),
        ("java -coffee-shop", false),
        ("shop-java", true),
        ("\"coffee shop", true),
    ] {
        assert_eq!(check(search, shop), expected, "{search}");
    }
}

#[test]
fn a_filter_searches_all_strings_or_those_fields_that_are_named() {
    let filter = parse(r#"{"$and":[{"$text":{"$search":"rome"}},{"n":1}]}"#);
    assert!(matches(&filter, &json(r#"{"n":1,"a":{"b":["in Rome"]}}"#)));
    assert!(!matches(&filter, &json(r#"{"n":2,"a":"Rome"}"#)));
    assert!(filter.paths().is_none());
    let named = filter.clone().with_text_fields(&["a.b".parse().unwrap()]);
    assert!(matches(&named, &json(r#"{"n":1,"a":{"b":["in Rome"]}}"#)));
    assert!(!matches(&named, &json(r#"{"n":1,"a":{"c":"Rome"}}"#)));
    assert_eq!(named.paths().unwrap().len(), 2);
    assert_eq!(named, filter);
    assert_eq!(filter.text().unwrap().terms(), ["rome"]);
}

proptest! {
    #[test]
    fn any_text_is_cut_into_folded_tokens(text in any::<String>()) {
        for token in tokens(&text) {
            prop_assert!(!token.is_empty());
            prop_assert!(!token.bytes().any(|byte| byte.is_ascii_uppercase() || byte == b' '), "{token:?}");
        }
    }

    #[test]
    fn every_word_of_a_text_finds_it(text in "[a-cA-Cé \\-\"]{0,20}", search in "[a-cé \\-\"]{0,12}") {
        let body = serde_json::json!({ "t": text }).to_string();
        let row = Row { id: None, body: Json::new(body.as_bytes()), conflicts: 0 };
        for token in tokens(&text) {
            prop_assert!(TextSearch::new(&token).unwrap().matches(row, &[]));
        }
        if let Ok(search) = TextSearch::new(&search) {
            _ = search.matches(row, &[]);
        }
    }
}
